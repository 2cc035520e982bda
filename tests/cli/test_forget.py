"""`fasthook forget`: what was received is gone from every byte of the spool, and known still."""

import json
import shutil
import sqlite3
import threading
import time

import pytest

from fasthook.spool import indexer, offline, recovery
from fasthook.spool.journal import Journal
from fasthook.spool.records import Forgotten, later_record
from tests.cli.hooks import Hooks, post, shop, wait_until
from tests.spool.filled import delivery, fill, outcome

MAIL = "ada.lovelace@example.org"
OTHER = "grace.hopper@example.org"
MINE = {"customer": {"email": MAIL, "age": 36}}
THEIRS = {"customer": {"email": OTHER, "age": 85}}
IS_MINE = f'payload.customer.email == "{MAIL}"'


@pytest.fixture
def hooks(tmp_path, serve, run):
    return Hooks(tmp_path, serve, run)


@pytest.fixture
def two(hooks):
    """A service that has done an event of each of two customers."""
    serving = hooks.serve()
    assert post(serving, "mine", MINE) == 202
    assert post(serving, "theirs", THEIRS) == 202
    hooks.wait_for(mine="done", theirs="done")
    return serving


def assert_erased(hooks, *, gone=MAIL, kept=OTHER, also=()) -> None:
    """Call it after the service has ended: while it runs, SQLite's log may hold more."""
    data = hooks.bytes()
    for text in (gone, *also):
        assert text.encode() not in data, text
        assert json.dumps(text)[1:-1].encode() not in data, text
    assert kept.encode() in data
    result = hooks.run("spool", "verify")
    assert "damaged" not in result.stdout + result.stderr


# --- gone, and known ------------------------------------------------------------------------------


@pytest.mark.parametrize("runs", [True, False], ids=["service runs", "service is down"])
def test_bodies_that_match_are_gone_and_ids_stay_known(runs, two, hooks):
    if not runs:
        assert two.stop() == 0
    result = hooks.run("forget", "--where", IS_MINE)
    assert result.stdout == "1 events erased\n"
    shown = hooks.run("show", "mine", "--json").stdout
    assert json.loads(shown)["missing"] == "erased"
    assert json.loads(shown)["state"] == "forgotten"
    assert MAIL not in shown
    assert "erased" in hooks.run("show", "mine").stdout
    assert hooks.run("show", "mine", "--raw", code=1).stdout == ""
    if runs:
        assert two.stop() == 0
    assert_erased(hooks)

    serving = hooks.serve()
    assert post(serving, "mine", MINE) == 202
    serving.line_with("duplicate", "mine")
    assert serving.stop() == 0
    assert hooks.ids("one") == ["mine", "theirs"]
    assert_erased(hooks)


def test_what_is_erased_stays_so_when_the_index_is_made_again(two, hooks):
    hooks.run("forget", "--where", IS_MINE)
    assert two.stop() == 0
    hooks.run("spool", "rebuild")
    assert hooks.states() == {"mine": "forgotten", "theirs": "done"}
    assert_erased(hooks)


def test_erased_is_erased_on_disk_at_once(two, hooks):
    """Also the journal of a service that runs on: no stop is needed for that."""
    hooks.run("forget", "--where", IS_MINE)
    segments = b"".join(path.read_bytes() for path in hooks.spool.rglob("*.seg"))
    assert MAIL.encode() not in segments
    assert OTHER.encode() in segments


def test_without_the_erasing_the_search_for_bytes_would_tell(two, hooks, monkeypatch):
    """A control: what these tests look for is what `erase` takes away."""
    assert two.stop() == 0
    assert MAIL.encode() in hooks.bytes()
    for module in (offline, recovery, indexer):
        monkeypatch.setattr(module, "erase", lambda journal, positions: 0)
    monkeypatch.setattr("fasthook.cli.forget._wait_until_erased", lambda reader, found: None)
    hooks.run("forget", "--where", IS_MINE)
    with pytest.raises(AssertionError, match=MAIL):
        assert_erased(hooks)


def test_it_can_be_told_twice(two, hooks):
    hooks.run("forget", "--where", IS_MINE)
    assert hooks.run("forget", "--where", IS_MINE).stdout == "0 events erased\n"
    assert hooks.run("forget", "--id", "mine").stdout == "0 events erased\n"


def test_a_forgotten_event_is_not_replayed(two, hooks):
    hooks.run("forget", "--where", IS_MINE)
    hooks.run("replay", "mine", code=1)
    hooks.run("replay", "--state", "done", "--endpoint", "shop")
    wait_until(lambda: hooks.ids("one") == ["mine", "theirs", "theirs"])


# --- what matches ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "where",
    [
        "payload.customer.age < 40",
        "payload.customer.email.startsWith('ada.')",
        "'customer' in payload && payload.customer.age == 36",
        "headers['x-tenant'] == 'blue'",
        "type == 'order.paid'",
        "id == 'mine'",
        "endpoint == 'shop' && id.endsWith('ine')",
        "received_at > '2020-01-01' && type != 'push'",
    ],
)
def test_an_expression_on(where, hooks):
    serving = hooks.serve()
    assert post(serving, "mine", MINE, event_type="order.paid", X_Tenant="blue") == 202
    assert post(serving, "theirs", THEIRS, X_Tenant="red") == 202
    hooks.wait_for(mine="done", theirs="done")
    hooks.run("forget", "--where", where)
    hooks.wait_for(mine="forgotten", theirs="done")


def test_an_expression_on_a_form(hooks):
    serving = hooks.serve()
    form = "application/x-www-form-urlencoded"
    assert post(serving, "mine", b"From=%2B441&Body=hello", content_type=form) == 202
    assert post(serving, "theirs", b"From=%2B442&Body=hello", content_type=form) == 202
    hooks.wait_for(mine="done", theirs="done")
    hooks.run("forget", "--where", "payload.From == '+441'")
    hooks.wait_for(mine="forgotten", theirs="done")


def test_an_expression_on_a_form_whose_value_is_a_number(hooks):
    """The content type says what it is: `5` is JSON, too."""
    serving = hooks.serve()
    form = "application/x-www-form-urlencoded"
    assert post(serving, "mine", b"5", content_type=form) == 202
    hooks.wait_for(mine="done")
    hooks.run("forget", "--where", "'5' in payload")
    hooks.wait_for(mine="forgotten")


@pytest.mark.parametrize(
    "body", [b'{"payload": [1, 2]}', b"[]", b"null", b"17", b'"text"', b"\xff\x00", b"{}", b""]
)
def test_a_field_that_is_missing_is_no_match(body, hooks):
    serving = hooks.serve()
    assert post(serving, "odd", body, content_type="text/plain") in (202, 415)
    assert post(serving, "mine", MINE) == 202
    hooks.wait_for(mine="done")
    assert hooks.run("forget", "--where", IS_MINE).stdout == "1 events erased\n"
    assert hooks.states().get("odd") != "forgotten"


def test_a_field_of_another_type_is_no_match(two, hooks):
    assert hooks.run("forget", "--where", "payload.customer.age == 'x'").stdout.startswith("0 ")
    assert hooks.run("forget", "--where", "payload.customer.email > 3").stdout.startswith("0 ")
    assert hooks.states() == {"mine": "done", "theirs": "done"}


@pytest.mark.parametrize(
    "where", ["payload.x ==", "(", "", "payload.customer.age", "id", "1", "'true'", "null"]
)
def test_an_expression_that_is_wrong_or_no_boolean_is_exit_code_2(where, two, hooks):
    result = hooks.run("forget", "--where", where, code=2)
    assert "--where" in result.stderr
    assert result.stdout == ""
    assert hooks.states() == {"mine": "done", "theirs": "done"}


def test_an_expression_without_a_value_erases_nothing(two, hooks):
    """An empty shell variable must not become "all"."""
    hooks.run("forget", "--endpoint", "shop", "--where", "", code=2)
    assert hooks.states() == {"mine": "done", "theirs": "done"}


@pytest.mark.parametrize(
    "where",
    ["paylaod.customer.email == 'x'", "payload.customer.email.beginsWith('a')", "nope(payload)"],
)
def test_a_name_that_does_not_exist_is_exit_code_2(where, two, hooks):
    """ "0 events erased" would be believed."""
    hooks.run("forget", "--where", where, code=2)


def test_nothing_said_is_wrong_use(two, hooks):
    assert "say which" in hooks.run("forget", code=2).stderr
    assert hooks.states() == {"mine": "done", "theirs": "done"}


def test_an_endpoint_that_is_misspelt_is_said(two, hooks):
    assert "shpo" in hooks.run("forget", "--endpoint", "shpo", code=2).stderr


def test_by_filter(hooks):
    serving = hooks.serve(shop(), shop(name="other"))
    assert post(serving, "mine", MINE) == 202
    assert post(serving, "theirs", THEIRS, path="/other") == 202
    hooks.wait_for(mine="done", theirs="done")
    hooks.run("forget", "--endpoint", "shop", "--since", "1h")
    hooks.wait_for(mine="forgotten", theirs="done")


def test_a_dry_run_erases_nothing(two, hooks):
    result = hooks.run("forget", "--where", IS_MINE, "--dry-run", "--json")
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == ["mine"]
    assert "1 events would be erased" in result.stderr
    assert two.stop() == 0
    assert MAIL.encode() in hooks.bytes()
    assert hooks.states() == {"mine": "done", "theirs": "done"}


def test_of_many(hooks):
    """More than one order can hold, half of them."""
    count = 2400
    bodies = [json.dumps(THEIRS if n % 2 else MINE).encode() for n in range(count)]
    events = [delivery(str(n), body=body, at_s=time.time()) for n, body in enumerate(bodies)]
    ends = {event.event_id: [outcome("done at once")] for event in events}
    fill(hooks.spool, *events, outcomes=ends)
    serving = hooks.serve()
    result = hooks.run("forget", "--where", IS_MINE, "--json")
    assert json.loads(result.stdout)["erased"] == count // 2
    assert serving.stop() == 0
    assert_erased(hooks)


# --- events that are not over ---------------------------------------------------------------------


@pytest.mark.parametrize("runs", [True, False], ids=["service runs", "service is down"])
def test_a_pending_one_never_runs(runs, hooks):
    held = "[dispatch]\nhold = true\n"
    serving = hooks.serve(more=held)
    assert post(serving, "mine", MINE) == 202
    assert post(serving, "theirs", THEIRS) == 202
    hooks.wait_for(mine="pending", theirs="pending")
    if not runs:
        assert serving.stop() == 0
    hooks.run("forget", "--where", IS_MINE)
    hooks.wait_for(mine="forgotten")
    if runs:
        assert serving.stop() == 0
    serving = hooks.serve()
    hooks.wait_for(theirs="done")
    time.sleep(1)
    assert serving.stop() == 0
    assert hooks.ids("one") == ["theirs"]
    assert hooks.states()["mine"] == "forgotten"
    assert_erased(hooks)


def test_one_that_waits_in_memory_never_runs(hooks):
    """`forget --help`: an event that still waits will not run."""
    serving = hooks.serve(shop("single"))
    hooks.hold("single")
    assert post(serving, "first", {"n": 1}) == 202
    wait_until(lambda: hooks.ids("single") == ["first"])
    assert post(serving, "mine", MINE) == 202
    assert post(serving, "theirs", THEIRS) == 202
    hooks.wait_for(mine="running", theirs="running")
    hooks.run("forget", "--where", IS_MINE)
    hooks.release("single")
    hooks.wait_for(mine="forgotten", theirs="done")
    assert hooks.ids("single") == ["first", "theirs"]


def test_one_that_waits_for_its_next_attempt_has_no_other_and_holds_nobody_back(hooks):
    serving = hooks.serve(shop("keyed"))
    hooks.break_("keyed", "mine")
    assert post(serving, "mine", MINE | {"key": "k"}) == 202
    assert post(serving, "theirs", THEIRS | {"key": "k"}) == 202
    hooks.wait_for(mine="pending")
    hooks.run("forget", "--where", IS_MINE)
    hooks.wait_for(mine="forgotten", theirs="done")
    assert hooks.ids("keyed") == ["mine", "theirs"]
    assert serving.stop() == 0
    assert_erased(hooks)


def test_one_that_fails_after_it_was_forgotten_holds_nobody_back(hooks):
    serving = hooks.serve(shop("keyed"))
    hooks.hold("keyed")
    hooks.break_("keyed", "mine")
    assert post(serving, "mine", MINE | {"key": "k"}) == 202
    assert post(serving, "theirs", THEIRS | {"key": "k"}) == 202
    wait_until(lambda: hooks.ids("keyed") == ["mine"])
    hooks.wait_for(mine="running")
    hooks.run("forget", "--where", IS_MINE)
    hooks.wait_for(mine="forgotten")
    hooks.release("keyed")
    hooks.wait_for(theirs="done")
    assert hooks.states()["mine"] == "forgotten"


def test_one_that_fails_after_it_was_forgotten_leaves_no_error(hooks):
    serving = hooks.serve()
    hooks.hold("one")
    hooks.break_("one", "mine")
    assert post(serving, "mine", MINE) == 202
    assert post(serving, "theirs", THEIRS) == 202
    wait_until(lambda: len(hooks.ids("one")) == 2)
    hooks.wait_for(mine="running")
    hooks.run("forget", "--where", IS_MINE)
    hooks.release("one")
    serving.line_with('"dead"', "mine")
    assert serving.stop() == 0
    assert hooks.states() == {"mine": "forgotten", "theirs": "done"}
    assert_erased(hooks)


# --- beside the body ------------------------------------------------------------------------------


@pytest.fixture
def dead(hooks):
    """A service in which both became dead letters, with errors that quote their bodies."""
    serving = hooks.serve()
    hooks.break_("one")
    assert post(serving, "mine", MINE) == 202
    assert post(serving, "theirs", THEIRS) == 202
    hooks.wait_for(mine="dead", theirs="dead")
    assert MAIL in hooks.run("dead", "--json").stdout
    return serving


def failures(hooks):
    with sqlite3.connect(hooks.spool / "index.db") as connection:
        found = connection.execute("SELECT error FROM failures ORDER BY position").fetchall()
    connection.close()
    return [error for (error,) in found]


@pytest.mark.parametrize("runs", [True, False], ids=["service runs", "service is down"])
def test_errors_are_erased_from_the_index(runs, dead, hooks):
    if not runs:
        assert dead.stop() == 0
    hooks.run("forget", "--where", IS_MINE)
    if runs:
        assert dead.stop() == 0
    (theirs,) = failures(hooks)
    assert OTHER in theirs
    data = b"".join(path.read_bytes() for path in hooks.spool.glob("index.db*"))
    assert MAIL.encode() not in data
    assert OTHER.encode() in data


@pytest.mark.parametrize("runs", [True, False], ids=["service runs", "service is down"])
def test_errors_that_quote_the_body_are_gone_from_every_file(runs, dead, hooks):
    if not runs:
        assert dead.stop() == 0
    hooks.run("forget", "--where", IS_MINE)
    if runs:
        assert dead.stop() == 0
    assert_erased(hooks)
    hooks.run("spool", "rebuild")
    assert not any(MAIL in error for error in failures(hooks))


def test_the_key_of_its_order_is_gone_too(hooks):
    """`ordered_by = "payload.customer.email"` is what people write."""
    serving = hooks.serve(shop("keyed"))
    hooks.break_("keyed", "mine")
    assert post(serving, "mine", MINE | {"key": MAIL}) == 202
    assert post(serving, "theirs", THEIRS | {"key": OTHER}) == 202
    hooks.wait_for(mine="pending", theirs="done")
    hooks.run("forget", "--where", IS_MINE)
    hooks.wait_for(mine="forgotten")
    assert serving.stop() == 0
    assert_erased(hooks)


@pytest.fixture
def refused(hooks):
    """A service that has kept refused requests of two endpoints, and done an event of each."""
    keeps = "keep_rejected = true"
    serving = hooks.serve(shop(more=keeps), shop(name="other", more=keeps))
    assert post(serving, "mine", MINE) == 202
    assert post(serving, "theirs", THEIRS, path="/other") == 202
    assert post(serving, "x", MINE, is_genuine=False) == 401
    assert post(serving, "y", THEIRS, is_genuine=False, path="/other") == 401
    wait_until(lambda: len(hooks.rows("rejects")) == 2)
    hooks.wait_for(mine="done", theirs="done")
    return serving


@pytest.mark.parametrize("runs", [True, False], ids=["service runs", "service is down"])
def test_refused_requests_of_the_endpoint_are_erased(runs, refused, hooks):
    if not runs:
        assert refused.stop() == 0
    result = hooks.run("forget", "--endpoint", "shop")
    assert result.stdout == "1 events erased, 1 refused requests\n"
    if runs:
        assert refused.stop() == 0
    assert_erased(hooks)
    data = (hooks.spool / "rejects.db").read_bytes()
    assert OTHER.encode() in data
    assert len(hooks.rows("rejects")) == 2


def test_refused_requests_of_another_endpoint_are_left(refused, hooks):
    """One event by its id: that says nothing of what other endpoints refused."""
    hooks.run("forget", "--id", "mine")
    assert refused.stop() == 0
    assert OTHER.encode() in (hooks.spool / "rejects.db").read_bytes()


def test_a_dry_run_leaves_refused_requests(refused, hooks):
    hooks.run("forget", "--endpoint", "shop", "--dry-run")
    assert refused.stop() == 0
    assert MAIL.encode() in (hooks.spool / "rejects.db").read_bytes()


# --- crashes --------------------------------------------------------------------------------------


def position_of(hooks, event_id):
    with sqlite3.connect(hooks.spool / "index.db") as connection:
        query = "SELECT position FROM deliveries WHERE event_id = ?"
        ((position,),) = connection.execute(query, (event_id,)).fetchall()
    connection.close()
    return position


@pytest.mark.parametrize("has_index", [True, False])
def test_a_crash_before_the_erasing_is_made_good_on_the_next_start(has_index, two, hooks):
    assert two.stop() == 0
    forgotten = Forgotten(time.time_ns(), [position_of(hooks, "mine")])
    journal = Journal(hooks.spool / "journal" / "0", 0)
    journal.write([later_record(forgotten)])
    journal.close()
    assert MAIL.encode() in hooks.bytes()
    if not has_index:
        (hooks.spool / "index.db").unlink()

    serving = hooks.serve()
    hooks.wait_for(mine="forgotten", theirs="done")
    assert serving.stop() == 0
    assert_erased(hooks)


def test_a_crash_after_the_index_knows_and_before_the_erasing(two, hooks, monkeypatch):
    """The command died, or the disk failed, between the two: the next start must see to it."""
    assert two.stop() == 0
    with monkeypatch.context() as patched:
        patched.setattr(offline, "erase", lambda journal, positions: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            hooks.run("forget", "--where", IS_MINE)
    assert MAIL.encode() in hooks.bytes()

    serving = hooks.serve()
    time.sleep(1)
    assert serving.stop() == 0
    assert_erased(hooks)


def test_a_crash_within_the_erasing_leaves_a_record_that_is_mended(two, hooks):
    """Half of the record is zeros already: it is damaged, and is erased by its beginning."""
    assert two.stop() == 0
    forgotten = Forgotten(time.time_ns(), [position_of(hooks, "mine")])
    journal = Journal(hooks.spool / "journal" / "0", 0)
    journal.write([later_record(forgotten)])
    journal.close()
    (path,) = (p for p in hooks.spool.rglob("*.seg") if MAIL.encode() in p.read_bytes())
    data = path.read_bytes()
    begin = data.index(b"Host: ")
    path.write_bytes(data[:begin] + bytes(30) + data[begin + 30 :])

    serving = hooks.serve()
    hooks.wait_for(mine="forgotten", theirs="done")
    assert serving.stop() == 0
    assert_erased(hooks)
    serving = hooks.serve()
    assert post(serving, "mine", MINE) == 202
    serving.line_with("duplicate", "mine")


def test_a_kill_right_after_the_answer(two, hooks):
    hooks.run("forget", "--where", IS_MINE)
    two.process.kill()
    two.end()
    serving = hooks.serve()
    assert hooks.states()["mine"] == "forgotten"
    assert serving.stop() == 0
    assert_erased(hooks)


def test_it_does_not_hold_up_who_sends(hooks):
    """A long search while events come: none is refused, none is lost."""
    serving = hooks.serve()
    assert post(serving, "mine", MINE) == 202
    hooks.wait_for(mine="done")
    statuses = []

    def send():
        for number in range(100):
            statuses.append(post(serving, f"n{number}", THEIRS))

    sender = threading.Thread(target=send)
    sender.start()
    for _ in range(5):
        hooks.run("forget", "--where", IS_MINE)
    sender.join()
    assert statuses == [202] * 100
    wait_until(lambda: len(hooks.ids("one")) == 101)
    assert serving.stop() == 0
    assert_erased(hooks)


def test_a_copy_of_the_spool_is_as_good(two, hooks, tmp_path):
    """What an operator keeps as a backup is erased by the same command."""
    assert two.stop() == 0
    shutil.copytree(hooks.spool, tmp_path / "copy")
    text = hooks.config.read_text()
    hooks.config.write_text(text + f'\n[spool]\npath = "{tmp_path / "copy"}"\n')
    hooks.run("forget", "--where", IS_MINE)
    copy = b"".join(p.read_bytes() for p in (tmp_path / "copy").rglob("*") if p.is_file())
    assert MAIL.encode() not in copy
    assert MAIL.encode() in hooks.bytes()
