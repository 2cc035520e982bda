"""`fasthook spool rebuild` and `prune`: the index is made again as it was, and nothing open goes."""

import contextlib
import os
import re
import sqlite3
import time

import pytest

from fasthook.spool.changes import State
from fasthook.spool.offline import Offline
from tests.cli.conftest import configuration
from tests.cli.hooks import Hooks, post, shop, wait_until
from tests.spool.filled import delivery, fill, outcome

TABLES = ("deliveries", "parts", "failures")


@pytest.fixture
def hooks(tmp_path, serve, run):
    return Hooks(tmp_path, serve, run)


@pytest.fixture
def configured(hooks, write):
    """A configuration, and no service that was ever started with it."""
    write(configuration(shop()))
    return hooks


def tables(hooks) -> dict[str, list[tuple]]:
    """What the index says, without how far it has read: one ends where the journal does.

    When a delivery is due is compared where it is pending, and its handlers have a say in it: it
    is looked at no later than the first of them, and no handler runs before its own time.
    """
    with contextlib.closing(sqlite3.connect(hooks.spool / "index.db")) as connection:
        found = {
            name: connection.execute(f"SELECT * FROM {name} ORDER BY 1, 2").fetchall()
            for name in TABLES
        }
    pending = {
        position: min(due_ns for p, _, _, state, due_ns, *_ in found["parts"] if p == position)
        for position, *_, state, _ in found["deliveries"]
        if state == State.PENDING and any(p == position for p, *_ in found["parts"])
    }
    found["deliveries"] = [
        (position, *rest, pending.get(position))
        for position, *rest, due_ns in found["deliveries"]
        if position not in pending or due_ns <= pending[position]
    ]
    return found


def segments(hooks):
    return sorted(hooks.spool.rglob("*.seg"))


def age(path, days: float) -> None:
    then = time.time() - days * 86400
    os.utime(path, (then, then))


# --- rebuild --------------------------------------------------------------------------------------


def test_the_index_is_made_again_as_it_was(hooks):
    """Events in each state: done, ignored, dead, to be tried again, behind another, forgotten,
    replayed, come twice.
    """
    serving = hooks.serve(
        shop("one", "two", more='events = ["push"]'), shop("keyed", name="keyed"), shop(name="solo")
    )
    hooks.break_("two", "dead", "again")
    hooks.break_("keyed", "retried")
    for event_id in ("done", "dead", "again", "gone"):
        assert post(serving, event_id) == 202
    assert post(serving, "ignored", event_type="other") == 202
    assert post(serving, "solo", path="/solo") == 202
    assert post(serving, "retried", {"key": "k"}, path="/keyed") == 202
    assert post(serving, "behind", {"key": "k"}, path="/keyed") == 202
    assert post(serving, "done") == 202  # a duplicate
    hooks.wait_for(done="done", dead="dead", again="dead", gone="done", retried="pending")
    hooks.wait_for(solo="done", ignored="ignored")
    hooks.mend("two")
    hooks.run("replay", "again", "solo")
    hooks.run("forget", "--id", "gone")
    hooks.wait_for(again="done", gone="forgotten")
    wait_until(lambda: len(hooks.ids("one")) == 6)
    assert serving.stop() == 0
    before = tables(hooks)
    assert all(before.values())
    assert {"pending", "done", "dead", "ignored", "forgotten"} <= set(hooks.states().values())

    result = hooks.run("spool", "rebuild")
    for table, rows in tables(hooks).items():
        assert rows == before[table]
    pending = list(hooks.states().values()).count("pending")
    assert f" read; {pending} pending, 1 dead, 0 damaged" in result.stdout
    (hooks.spool / "index.db").unlink()
    hooks.run("spool", "rebuild")
    assert tables(hooks) == before
    assert hooks.run("spool", "verify")

    hooks.mend("keyed")
    serving = hooks.serve(
        shop("one", "two", more='events = ["push"]'), shop("keyed", name="keyed"), shop(name="solo")
    )
    hooks.wait_for(retried="done", behind="done")
    ran = hooks.ids("keyed")
    assert ran == ["retried"] * (len(ran) - 1) + ["behind"]
    assert post(serving, "done") == 202
    assert post(serving, "gone") == 202
    assert serving.stop() == 0
    assert sum("duplicate" in line for line in serving.lines) == 2


def test_attempts_that_killed_the_service_are_counted_as_before(hooks):
    serving = hooks.serve()
    hooks.hold("one")
    assert post(serving, "a") == 202
    wait_until(lambda: hooks.ids("one") == ["a"])
    serving.process.kill()
    serving.end()
    serving = hooks.serve()
    hooks.wait_for(a="pending")
    assert serving.stop() == 0
    before = tables(hooks)
    hooks.run("spool", "rebuild")
    assert tables(hooks) == before


def test_an_index_that_is_damaged_is_made_again(hooks):
    serving = hooks.serve()
    assert post(serving, "a") == 202
    hooks.wait_for(a="done")
    assert serving.stop() == 0
    before = tables(hooks)
    index = hooks.spool / "index.db"
    index.write_bytes(b"no database at all" * 1000)
    for command in ("events", "dead"):
        assert "spool rebuild" in hooks.run(command, code=2).stderr
    hooks.run("spool", "rebuild")
    assert tables(hooks) == before


def test_an_index_of_an_older_version_is_made_again_at_the_start(configured):
    fill(configured.spool, delivery("a"))
    with contextlib.closing(sqlite3.connect(configured.spool / "index.db")) as connection:
        connection.executescript("DROP TABLE parts; PRAGMA user_version = 2")
    with Offline(configured.spool):
        pass
    assert configured.states() == {"a": "pending"}


def test_an_index_of_another_version_is_made_again(configured):
    fill(configured.spool, delivery("a"))
    with contextlib.closing(sqlite3.connect(configured.spool / "index.db")) as connection:
        connection.execute("PRAGMA user_version = 77")
    assert "its format is 77" in configured.run("events", code=2).stderr
    configured.run("spool", "rebuild")
    assert configured.states() == {"a": "pending"}


def test_it_refuses_while_a_service_runs(hooks):
    serving = hooks.serve()
    assert post(serving, "a") == 202
    hooks.wait_for(a="done")
    result = hooks.run("spool", "rebuild", code=2)
    assert f"process {serving.process.pid}" in result.stderr
    assert "stop it first" in result.stderr
    assert hooks.states() == {"a": "done"}
    assert post(serving, "b") == 202
    hooks.wait_for(b="done")


@pytest.mark.parametrize("command", ["rebuild", "prune", "verify", "stat"])
def test_without_a_spool_it_says_so_and_makes_none(command, configured):
    result = configured.run("spool", command, code=2)
    assert "no spool" in result.stderr
    assert str(configured.spool) in result.stderr
    assert not configured.spool.exists()


@pytest.mark.parametrize("command", ["rebuild", "prune"])
def test_with_nothing_kept_it_says_so(command, configured):
    text = configured.config.read_text()
    configured.config.write_text(text + '\n[spool]\ndurability = "none"\n')
    assert "nothing is kept" in configured.run("spool", command, code=1).stderr


# --- what is damaged ------------------------------------------------------------------------------


def test_a_damaged_record_costs_itself_alone(configured):
    events = [delivery(name, body=b"body of " + name.encode()) for name in ("a", "b", "c")]
    fill(configured.spool, *events)
    (path,) = segments(configured)
    path.write_bytes(path.read_bytes().replace(b"body of b", b"BODY OF B"))
    result = configured.run("spool", "rebuild")
    assert "2 pending" in result.stdout
    assert configured.states() == {"a": "pending", "c": "pending"}


@pytest.mark.parametrize("command", ["rebuild", "prune"])
@pytest.mark.parametrize(
    "begin", [b"fasthook\x63\x00\x00\x00", b"nonsense\x01\x00\x00\x00"], ids=["version", "foreign"]
)
def test_a_segment_of_another_version_is_one_clear_line(begin, command, configured, run_process):
    fill(configured.spool, delivery("a"))
    (path,) = segments(configured)
    path.write_bytes(begin + path.read_bytes()[len(begin) :])
    if command == "prune":
        (configured.spool / "index.db").unlink()  # so that it has to read the journal
        fd = os.open(configured.spool / "index.db", os.O_CREAT)
        os.close(fd)
    result = run_process("spool", command, "-c", configured.config)
    assert result.returncode in (1, 2)
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") <= 2
    assert str(path) in result.stderr  # which one it is


@pytest.mark.parametrize("command", [("spool", "prune"), ("replay", "a"), ("forget", "--id", "a")])
def test_an_index_of_another_version_is_one_clear_line(command, configured, run_process):
    fill(configured.spool, delivery("a"))
    with contextlib.closing(sqlite3.connect(configured.spool / "index.db")) as connection:
        connection.execute("PRAGMA user_version = 77")
    result = run_process(*command, "-c", configured.config)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert "77" in result.stderr


def test_a_spool_that_may_not_be_written_is_one_clear_line(configured, run_process):
    fill(configured.spool, delivery("a"))
    (configured.spool / "lock").unlink()
    (configured.spool / "lock").mkdir()  # also for root
    for command in ("rebuild", "prune"):
        result = run_process("spool", command, "-c", configured.config)
        assert result.returncode in (1, 2)
        assert "Traceback" not in result.stderr
        assert "lock" in result.stderr


def test_a_torn_tail_is_cut(configured):
    fill(configured.spool, delivery("a"), delivery("b"))
    (path,) = segments(configured)
    path.write_bytes(path.read_bytes() + b"\xf5\x9a\x0e\xc7 half of a record")
    configured.run("spool", "rebuild")
    assert configured.states() == {"a": "pending", "b": "pending"}
    assert configured.run("spool", "verify")


# --- prune ----------------------------------------------------------------------------------------


@pytest.fixture
def old(configured):
    """Segments of eight days ago: done, dead, pending, done; and one that is new and done."""
    ends = [[outcome("done at once")], [outcome("dead", handler="one", error="no")]]
    ends += [[], [outcome("done at once")]]
    ages = [8, 8, 8, 8]
    now = time.time()
    names = ("done-1", "dead-1", "open-1", "done-2")
    for name, end, days in zip(names, ends, ages, strict=True):
        event = delivery(name, at_s=now - days * 86400)
        fill(configured.spool, event, outcomes={name: end})
        age(segments(configured)[-1], days)
    fill(configured.spool, delivery("new", at_s=now), outcomes={"new": [outcome("done at once")]})
    return configured


def test_what_is_old_goes_and_nothing_that_is_open(old):
    count = len(segments(old))
    assert count == 5
    result = old.run("spool", "prune")
    assert re.fullmatch(r"[0-9.,]+ \w+ freed\n", result.stdout)
    assert not result.stdout.startswith("0 ")
    states = old.states()
    assert states["open-1"] == "pending"
    assert states["new"] == "done"
    assert "done-1" not in states
    assert old.run("spool", "verify")
    assert old.run("spool", "prune").stdout.startswith("0 bytes")


def test_older_than_is_taken_instead_of_the_retention(old):
    assert old.run("spool", "prune", "--older-than", "9d").stdout.startswith("0 bytes")
    assert len(old.states()) == 5
    assert not old.run("spool", "prune", "--older-than", "1h").stdout.startswith("0 bytes")
    assert {"open-1", "new"} <= set(old.states())


def test_older_than_nothing_drops_nothing_that_is_open(old):
    old.run("spool", "prune", "--older-than", "0s")
    assert old.states()["open-1"] == "pending"
    serving = old.serve()
    old.wait_for(**{"open-1": "done"})
    assert serving.stop() == 0
    assert old.ids("one") == ["open-1"]


@pytest.mark.parametrize(
    "text", ["", "abc", "-1d", "1", "99999999999999d", "1e400s", "nan", "7 days"]
)
def test_an_age_that_is_none_is_wrong_use_and_drops_nothing(text, old):
    result = old.run("spool", "prune", "--older-than", text, code=2)
    assert "older-than" in result.stderr or text in result.stderr
    assert len(old.states()) == 5


def test_a_running_service_prunes_when_told(old):
    serving = old.serve(more='[dispatch]\nhold = true\n[spool]\nretention = "30d"\n')
    assert old.run("spool", "prune", "--older-than", "1d").stdout == "the service drops them now\n"
    wait_until(lambda: "done-1" not in old.states())
    assert old.states()["open-1"] == "pending"
    assert old.states()["new"] == "done"
    assert post(serving, "next") == 202
    old.wait_for(next="pending")
    assert serving.stop() == 0
    assert old.run("spool", "verify")


def test_a_running_service_that_is_not_told_keeps_its_retention(old):
    serving = old.serve(more='[dispatch]\nhold = true\n[spool]\nretention = "30d"\n')
    assert old.run("spool", "prune").stdout == "the service drops them now\n"
    time.sleep(1)
    assert len(old.states()) == 5
    assert serving.stop() == 0


def test_the_index_is_as_good_after_pruning(old):
    old.run("spool", "prune")
    before = tables(old)
    old.run("spool", "rebuild")
    after = tables(old)
    kept = [row[0] for row in after["deliveries"]]
    assert kept == [row[0] for row in before["deliveries"] if row[0] in kept]
    assert {"open-1", "new"} <= set(old.states())
