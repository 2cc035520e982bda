"""`fasthook replay` runs events once more: those that are meant, at the handlers that are meant,
exactly once, at the pace that was asked for; and stops where it makes no sense to go on.
"""

import json
import os
import signal
import subprocess
import time

import pytest

from fasthook.spool.changes import State
from fasthook.spool.found import Filter
from fasthook.spool.queries import Reader
from tests.cli.conftest import COMMAND, WAIT_S
from tests.cli.hooks import Hooks, post, shop, wait_until
from tests.spool.filled import delivery, fill, outcome


@pytest.fixture
def hooks(tmp_path, serve, run):
    return Hooks(tmp_path, serve, run)


@pytest.fixture
def dead(hooks):
    """Start a service in which these ids become dead letters at the handler `one`, then mend it."""

    def dead(*ids, endpoints=(), more=""):
        serving = hooks.serve(*endpoints, more=more)
        hooks.break_("one")
        for event_id in ids:
            assert post(serving, event_id) == 202
        hooks.wait_for(**dict.fromkeys(ids, "dead"))
        hooks.mend("one")
        return serving

    return dead


# --- which ones -----------------------------------------------------------------------------------


def test_dead_letters_run_again_oldest_first_and_are_done(hooks, dead):
    dead("a", "b", "c")
    result = hooks.run("replay", "--state", "dead")

    assert result.stdout == "3 events run again\n"
    hooks.wait_for(a="done", b="done", c="done")
    assert hooks.ids("one") == ["a", "b", "c"] * 2
    assert [run["attempt"] for run in hooks.runs("one")] == [1] * 6
    assert hooks.rows("dead") == []
    assert hooks.run("replay", "--state", "dead").stdout == "0 events run again\n"


def test_without_a_state_a_filter_means_dead_letters_alone(hooks, dead):
    serving = dead("a")
    assert post(serving, "good") == 202
    hooks.wait_for(good="done")
    hooks.run("replay", "--since", "1h")
    hooks.wait_for(a="done")
    assert hooks.ids("one") == ["a", "good", "a"]


def test_a_dry_run_says_what_would_run_and_runs_nothing(hooks, dead):
    dead("a", "b")
    result = hooks.run("replay", "--state", "dead", "--dry-run", "--json")
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == ["a", "b"]
    assert "2 events would run" in result.stderr
    time.sleep(1)
    assert hooks.states() == {"a": "dead", "b": "dead"}
    assert hooks.ids("one") == ["a", "b"]


def test_by_id_and_by_name(hooks, dead):
    dead("a", "b", "c")
    name = next(row["name"] for row in hooks.rows() if row["id"] == "c")
    hooks.run("replay", "a", name)
    hooks.wait_for(a="done", c="done")
    assert sorted(hooks.ids("one")[3:]) == ["a", "c"]
    assert hooks.states()["b"] == "dead"


def test_an_id_that_came_with_two_bodies_means_both_and_a_name_one(hooks, dead):
    serving = dead("a")
    assert post(serving, "a", {"other": 1}) == 202
    wait_until(lambda: [row["state"] for row in hooks.rows()] == ["done", "dead"])
    hooks.run("replay", hooks.rows()[0]["name"])
    wait_until(lambda: len(hooks.ids("one")) == 3)
    wait_until(lambda: [row["state"] for row in hooks.rows()] == ["done", "dead"])
    hooks.run("replay", "a")
    wait_until(lambda: [row["state"] for row in hooks.rows()] == ["done", "done"])
    assert len(hooks.ids("one")) == 5


def test_by_filter(hooks, dead):
    serving = dead("a", "b", endpoints=(shop(), shop(name="other")))
    hooks.break_("one")
    assert post(serving, "typed", event_type="special") == 202
    assert post(serving, "elsewhere", path="/other") == 202
    hooks.wait_for(typed="dead", elsewhere="dead")
    hooks.mend("one")
    hooks.run("replay", "--type", "special")
    hooks.wait_for(typed="done")
    hooks.run("replay", "--endpoint", "other")
    hooks.wait_for(elsewhere="done")
    hooks.run("replay", "--until", "1h")
    hooks.run("replay", "--id", "b")
    hooks.wait_for(b="done")
    assert hooks.states()["a"] == "dead"
    assert hooks.ids("one")[4:] == ["typed", "elsewhere", "b"]


def test_ids_that_are_unknown_are_exit_code_1_and_nothing_runs(hooks, dead):
    dead("a", "b")
    for ids in (["nope"], ["a", "nope"], ["nope", "a"], ["0.9.16"], ["a", "0.9.16"]):
        result = hooks.run("replay", *ids, code=1)
        assert "no event with this id or name" in result.stderr
        assert result.stdout == ""
    time.sleep(1)
    assert hooks.ids("one") == ["a", "b"]
    assert hooks.states() == {"a": "dead", "b": "dead"}


def test_ids_that_are_unknown_are_exit_code_1_beyond_one_piece(hooks, dead):
    """The first ones are ordered before the last one is looked up."""
    ids = [f"event-{number}" for number in range(12)]
    dead(*ids)
    hooks.run("replay", *ids, "nope", code=1)
    time.sleep(1)
    assert hooks.ids("one") == ids


def test_an_id_that_is_given_twice_runs_once(hooks, dead):
    dead("a")
    hooks.run("replay", "a", "a")
    hooks.wait_for(a="done")
    time.sleep(1)
    assert hooks.ids("one") == ["a", "a"]


def test_nothing_said_is_wrong_use(hooks, dead):
    dead("a")
    for arguments in ([], ["--handler", "one"], ["--rate", "1/s"]):
        assert "say which" in hooks.run("replay", *arguments, code=2).stderr


def test_an_empty_id_is_not_all_of_them(hooks, dead):
    """`fasthook replay "$ID"`, and nobody has set it."""
    dead("a", "b")
    for ids in ([""], ["a", ""]):
        assert hooks.run("replay", *ids, "--dry-run", code=None).exit_code != 0
        assert hooks.run("replay", *ids, code=None).exit_code != 0
    time.sleep(1)
    assert hooks.states() == {"a": "dead", "b": "dead"}


def test_states_that_can_not_be_replayed_are_wrong_use(hooks, dead):
    """Else it says "1 events run again", and nothing has changed."""
    serving = dead("a")
    hooks.run("forget", "--id", "a")
    hooks.hold("one")
    assert post(serving, "b") == 202
    hooks.wait_for(a="forgotten", b="running")
    for state in ("pending", "running", "damaged", "forgotten"):
        result = hooks.run("replay", "--state", state, "--stop-after", "0", code=None)
        assert result.exit_code == 2 or result.stdout == "0 events run again\n"


def test_an_endpoint_that_is_misspelt_is_said(hooks, dead):
    """As `events` does it: silence would look like success."""
    dead("a")
    result = hooks.run("replay", "--endpoint", "shpo", code=2)
    assert "shpo" in result.stderr


def test_ignored_events_can_be_replayed(hooks):
    serving = hooks.serve(shop(more='events = ["wanted"]'))
    assert post(serving, "a", event_type="other") == 202
    hooks.wait_for(a="ignored")
    hooks.run("replay", "a")
    hooks.wait_for(a="done")
    assert hooks.ids("one") == ["a"]


def test_what_is_still_to_run_is_not_replayed(hooks):
    serving = hooks.serve()
    hooks.hold("one")
    assert post(serving, "a") == 202
    hooks.wait_for(a="running")
    result = hooks.run("replay", "a", code=1)
    assert "is done, dead, ignored or superseded" in result.stderr
    hooks.release("one")
    hooks.wait_for(a="done")
    assert hooks.ids("one") == ["a"]


def test_what_lost_its_body_is_not_replayed(hooks):
    """Full spools drop bodies before their time; such an event is still known, and was done."""
    for number in range(20):  # each in a segment of its own
        event = delivery(str(number), at_s=time.time(), body=b"x" * 3000)
        fill(hooks.spool, event, outcomes={event.event_id: [outcome("done at once")]})
    serving = hooks.serve(more='[spool]\nmax_bytes = "30KiB"\n')
    wait_until(lambda: hooks.rows("show", "0")[0].get("missing") == "gone")
    assert serving.stop() == 0
    assert hooks.states()["0"] == "done"
    hooks.run("replay", "0", code=1)
    hooks.serve()
    time.sleep(1.5)
    assert hooks.states()["0"] == "done"


# --- at which handlers ----------------------------------------------------------------------------


def test_of_several_handlers_the_one_that_gave_up_runs_again(hooks):
    serving = hooks.serve(shop("one", "two", "three"))
    hooks.break_("two")
    assert post(serving, "a") == 202
    hooks.wait_for(a="dead")
    hooks.mend("two")
    hooks.run("replay", "--state", "dead")
    hooks.wait_for(a="done")
    assert [len(hooks.ids(name)) for name in ("one", "two", "three")] == [1, 2, 1]


def test_a_done_event_runs_at_all_its_handlers(hooks):
    serving = hooks.serve(shop("one", "two"))
    assert post(serving, "a") == 202
    hooks.wait_for(a="done")
    hooks.run("replay", "a")
    wait_until(lambda: len(hooks.ids("one")) == len(hooks.ids("two")) == 2)
    hooks.wait_for(a="done")
    hooks.run("replay", "--state", "done", "--endpoint", "shop")
    wait_until(lambda: len(hooks.ids("one")) == len(hooks.ids("two")) == 3)


def test_one_handler_alone(hooks):
    serving = hooks.serve(shop("one", "two"))
    assert post(serving, "a") == 202
    hooks.wait_for(a="done")
    hooks.run("replay", "a", "--handler", "two")
    wait_until(lambda: len(hooks.ids("two")) == 2)
    hooks.wait_for(a="done")
    time.sleep(1)
    assert [len(hooks.ids(name)) for name in ("one", "two")] == [1, 2]
    hooks.run("replay", "a")  # and all of them again
    wait_until(lambda: [len(hooks.ids(name)) for name in ("one", "two")] == [2, 3])


def test_one_handler_of_a_dead_letter_alone_leaves_the_other_dead(hooks):
    serving = hooks.serve(shop("one", "two"))
    hooks.break_("one")
    hooks.break_("two")
    assert post(serving, "a") == 202
    hooks.wait_for(a="dead")
    hooks.mend("one")
    hooks.mend("two")
    hooks.run("replay", "a", "--handler", "two")
    wait_until(lambda: len(hooks.ids("two")) == 2)
    wait_until(lambda: [row["handler"] for row in hooks.rows("dead")] == ["one"])
    assert len(hooks.ids("one")) == 1
    hooks.run("replay", "a")
    hooks.wait_for(a="done")
    assert [len(hooks.ids(name)) for name in ("one", "two")] == [2, 2]


def test_a_handler_that_was_added_later_alone(hooks):
    serving = hooks.serve(shop("one"))
    assert post(serving, "a") == 202
    hooks.wait_for(a="done")
    assert serving.stop() == 0
    hooks.serve(shop("one", "two"))
    hooks.run("replay", "a", "--handler", "two")
    wait_until(lambda: hooks.ids("two") == ["a"])
    hooks.wait_for(a="done")
    time.sleep(1)
    assert hooks.ids("one") == ["a"]


def test_a_handler_that_was_added_later_does_not_run_for_dead_letters_of_others(hooks, dead):
    """Of these, says the help, the handlers that gave up."""
    serving = dead("a")
    assert serving.stop() == 0
    hooks.serve(shop("one", "two"))
    hooks.run("replay", "--state", "dead")
    hooks.wait_for(a="done")
    time.sleep(1)
    assert (hooks.ids("one"), hooks.ids("two")) == (["a", "a"], [])


def test_a_handler_that_no_endpoint_has_is_wrong_use(hooks, dead):
    dead("a")
    result = hooks.run("replay", "a", "--handler", "nope", code=2)
    assert "'nope'; endpoints have: one" in result.stderr


def test_a_handler_of_another_endpoint_is_no_harm(hooks):
    """It is not for this event: saying so is better than a dead letter of what was done."""
    serving = hooks.serve(shop("one"), shop("two", name="other"))
    assert post(serving, "a") == 202
    hooks.wait_for(a="done")
    hooks.run("replay", "a", "--handler", "two", code=2)
    time.sleep(1)
    assert hooks.states() == {"a": "done"}


# --- how fast, and how far ------------------------------------------------------------------------


def test_a_rate_is_kept(hooks, dead):
    ids = [f"event-{number}" for number in range(9)]
    dead(*ids)
    began = time.monotonic()
    hooks.run("replay", "--state", "dead", "--rate", "4/s", "--stop-after", "0")
    took_s = time.monotonic() - began
    hooks.wait_for(**dict.fromkeys(ids, "done"))
    times = [run["at"] for run in hooks.runs("one")[9:]]
    assert 1.7 < took_s < 5
    assert times[-1] - times[0] > 1.5
    for begin in times:  # none of its seconds had many more than that; half a second to look
        assert sum(begin <= at < begin + 1 for at in times) <= 6


def test_a_rate_is_kept_by_the_first_ones_too(hooks, dead):
    ids = [f"event-{number}" for number in range(8)]
    dead(*ids)
    hooks.run("replay", "--state", "dead", "--rate", "4/s")
    hooks.wait_for(**dict.fromkeys(ids, "done"))
    times = [run["at"] for run in hooks.runs("one")[8:]]
    assert times[-1] - times[0] > 1.2


@pytest.mark.parametrize("rate", ["0/s", "-1/s", "ten", "", "nan/s", "inf/s"])
def test_a_rate_that_is_none_is_wrong_use(rate, hooks, dead):
    dead("a")
    assert "--rate" in hooks.run("replay", "a", "--rate", rate, code=2).stderr
    assert hooks.states() == {"a": "dead"}


def test_it_stops_if_the_first_ones_all_fail(hooks, dead):
    ids = [f"event-{number}" for number in range(8)]
    dead(*ids)
    hooks.break_("one")
    result = hooks.run("replay", "--state", "dead", "--stop-after", "3", code=1)
    assert "stopped: the first 3 have all failed" in result.stderr
    time.sleep(1)
    assert hooks.ids("one") == ids + ids[:3]


def test_it_goes_on_if_one_of_the_first_is_done(hooks, dead):
    ids = [f"event-{number}" for number in range(8)]
    dead(*ids)
    hooks.break_("one", *(event_id for event_id in ids if event_id != "event-1"))
    hooks.run("replay", "--state", "dead", "--stop-after", "3")
    wait_until(lambda: len(hooks.ids("one")) == 16)
    hooks.wait_for(**{"event-1": "done", "event-7": "dead"})


def test_it_does_not_stop_where_it_is_not_to(hooks, dead):
    ids = [f"event-{number}" for number in range(4)]
    dead(*ids)
    hooks.break_("one")
    hooks.run("replay", "--state", "dead", "--stop-after", "0")
    wait_until(lambda: len(hooks.ids("one")) == 8)


def test_fewer_than_the_first_ones_all_fail_and_it_says_so(hooks, dead):
    dead("a")
    hooks.break_("one")
    result = hooks.run("replay", "a", "--json", code=1)
    assert json.loads(result.stdout) == {"events": 1, "stopped": True}


def test_what_comes_meanwhile_is_not_replayed(hooks):
    """It would never end where events come faster than they are replayed."""
    serving = hooks.serve()
    for number in range(4):
        assert post(serving, f"old-{number}") == 202
    hooks.wait_for(**{f"old-{number}": "done" for number in range(4)})
    arguments = ["replay", "--endpoint", "shop", "--state", "done", "--rate", "4/s"]
    process = subprocess.Popen(
        [*COMMAND, *arguments, "--stop-after", "0", "-c", str(hooks.config)],
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: len(hooks.ids("one")) > 4)
    new = []
    while process.poll() is None and len(new) < 200:
        new.append(f"new-{len(new)}")
        assert post(serving, new[-1]) == 202
        time.sleep(0.05)
    out, _ = process.communicate(timeout=WAIT_S)
    assert out == "4 events run again\n"
    wait_until(lambda: len(hooks.ids("one")) >= len(new) + 8)
    assert serving.stop() == 0
    assert sorted(hooks.ids("one")) == sorted(new + [f"old-{number}" for number in range(4)] * 2)


def test_ctrl_c_says_how_far_it_was(hooks, dead):
    ids = [f"event-{number}" for number in range(8)]
    dead(*ids)
    process = subprocess.Popen(
        [*COMMAND, "replay", "--state", "dead", "--rate", "2/s", "--stop-after", "0"]
        + ["-c", str(hooks.config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: len(hooks.ids("one")) == 9)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=WAIT_S)
    assert "interrupted" in error
    assert "Traceback" not in error
    assert 0 < int(out.split()[0]) < 8
    assert process.returncode != 0


# --- exactly once, whatever happens ---------------------------------------------------------------


def test_while_no_service_runs_they_run_at_the_next_start_and_once(hooks, dead):
    serving = dead("a", "b")
    assert serving.stop() == 0
    result = hooks.run("replay", "--state", "dead")
    assert result.stdout == "2 events run when the service starts, at its own pace\n"
    assert hooks.states() == {"a": "pending", "b": "pending"}
    hooks.run("replay", "--state", "dead")

    serving = hooks.serve()
    hooks.wait_for(a="done", b="done")
    assert serving.stop() == 0
    serving = hooks.serve()
    time.sleep(1)
    assert serving.stop() == 0
    assert hooks.ids("one") == ["a", "b", "a", "b"]


def test_one_that_is_done_once_more_while_no_service_runs(hooks):
    serving = hooks.serve(shop("one", "two"))
    assert post(serving, "a") == 202
    hooks.wait_for(a="done")
    assert serving.stop() == 0
    hooks.run("replay", "a")
    hooks.run("spool", "rebuild")
    serving = hooks.serve(shop("one", "two"))
    hooks.wait_for(a="done")
    assert serving.stop() == 0
    hooks.run("spool", "rebuild")
    assert hooks.states() == {"a": "done"}
    assert (hooks.ids("one"), hooks.ids("two")) == (["a", "a"], ["a", "a"])


def test_while_everything_is_held_they_wait(hooks, dead):
    serving = dead("a")
    assert serving.stop() == 0
    serving = hooks.serve(more="[dispatch]\nhold = true\n")
    hooks.run("replay", "a", "--stop-after", "0")
    hooks.wait_for(a="pending")
    assert serving.stop() == 0
    hooks.serve()
    hooks.wait_for(a="done")
    assert hooks.ids("one") == ["a", "a"]


def test_duplicates_stay_duplicates(hooks, dead):
    serving = dead("a")
    assert post(serving, "a") == 202
    hooks.run("replay", "a")
    hooks.wait_for(a="done")
    assert post(serving, "a") == 202
    assert serving.stop() == 0
    serving = hooks.serve()
    assert post(serving, "a") == 202
    serving.line_with("duplicate")
    assert serving.stop() == 0
    assert hooks.ids("one") == ["a", "a"]


def test_a_replay_survives_a_kill(hooks, dead):
    serving = dead("a", "b")
    hooks.hold("one")
    hooks.run("replay", "b", "--stop-after", "0")
    serving.process.kill()  # the order was answered, and may be nowhere but in the journal
    serving.end()
    hooks.release("one")
    hooks.serve()
    hooks.wait_for(b="done")
    assert hooks.states() == {"a": "dead", "b": "done"}
    assert set(hooks.ids("one")[2:]) == {"b"}
    assert hooks.run("spool", "verify")


def test_a_replay_that_was_under_way_survives_a_kill(hooks, dead):
    serving = dead("a")
    hooks.hold("one")
    hooks.run("replay", "a", "--stop-after", "0")
    wait_until(lambda: len(hooks.ids("one")) == 2)
    serving.process.kill()
    serving.end()
    hooks.release("one")
    hooks.serve()
    hooks.wait_for(a="done")  # some seconds later, in case it was that which killed us
    assert [run["attempt"] for run in hooks.runs("one")] == [1, 1, 2]


def test_all_of_many(hooks):
    """More than one order can hold."""
    count = 2500
    events = [delivery(str(n), body=b"%d" % n, at_s=time.time()) for n in range(count)]
    ends = {event.event_id: [outcome("dead", handler="one", error="no")] for event in events}
    fill(hooks.spool, *events, outcomes=ends)
    hooks.serve()
    result = hooks.run("replay", "--state", "dead")
    assert result.stdout == f"{count} events run again\n"
    wait_until(lambda: len(hooks.runs("one")) == count)
    with Reader(hooks.spool) as reader:
        wait_until(lambda: reader.counts()[State.DONE] == count)
        assert not list(reader.oldest_first(Filter(states=(State.DEAD,))))
    assert hooks.ids("one")[:5] == ["0", "1", "2", "3", "4"]
    assert len(set(hooks.ids("one"))) == count


def test_it_does_not_need_the_secrets_of_the_service(hooks, dead, monkeypatch):
    dead("a")
    text = hooks.config.read_text()
    hooks.config.write_text(text.replace("plain:", "env:NOWHERE_"))
    assert "NOWHERE_A" not in os.environ
    hooks.run("replay", "a")
    hooks.wait_for(a="done")
