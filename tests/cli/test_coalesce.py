"""`coalesce_by`, `delay`, `not_before`: what waits, what runs, and what is said of the others."""

import json
import time
from datetime import UTC, datetime, timedelta

import pytest

from tests.cli.hooks import Hooks, post, shop, wait_until


@pytest.fixture
def hooks(tmp_path, serve, run):
    return Hooks(tmp_path, serve, run)


def coalesced(within: str) -> str:
    return f'[handlers.one]\ncoalesce_by = "payload.key"\nwithin = "{within}"\n'


def handlers_of(hooks, event_id: str) -> dict[str, tuple[str, str]]:
    shown = json.loads(hooks.run("show", event_id, "--json").stdout)
    return {one["handler"]: (one["state"], one["note"]) for one in shown["handlers"]}


def names(hooks) -> dict[str, str]:
    return {row["id"]: row["name"] for row in hooks.rows()}


def assert_rebuilt_the_same(hooks) -> None:
    states = hooks.states()
    handlers = {event_id: handlers_of(hooks, event_id) for event_id in states}
    hooks.run("spool", "rebuild")
    assert hooks.states() == states
    assert {event_id: handlers_of(hooks, event_id) for event_id in states} == handlers


@pytest.mark.parametrize("within", ["1.5s", "2.6s"], ids=["in memory", "on disk"])
def test_events_of_a_key_become_one_run_with_the_newest(within, hooks):
    """Beside them another handler gets all, and another key has its own run."""
    serving = hooks.serve(shop("one", "two"), more=coalesced(within))
    for event_id in ("a1", "a2", "b1", "a3"):
        assert post(serving, event_id, {"key": event_id[0], "n": event_id}) == 202
    assert post(serving, "none", {"n": 1}) == 202  # it has no key, and waits for nothing
    hooks.wait_for(none="done", a1="done", a2="done", a3="done", b1="done")
    assert hooks.ids("one")[0] == "none"
    assert sorted(hooks.ids("one")) == ["a3", "b1", "none"]
    assert sorted(hooks.ids("two")) == ["a1", "a2", "a3", "b1", "none"]
    by = names(hooks)
    assert handlers_of(hooks, "a1") == {"one": ("superseded", by["a2"]), "two": ("done", "")}
    assert handlers_of(hooks, "a2")["one"] == ("superseded", by["a3"])
    metrics = serving.metrics()
    assert metrics['fasthook_handler_superseded_total{handler="one"}'] == 2
    assert metrics['fasthook_handler_coalescing{handler="one"}'] == 0
    assert serving.stop() == 0
    assert_rebuilt_the_same(hooks)


def test_what_is_superseded_is_seen_and_can_be_run_again(hooks):
    hooks.hold("one")
    serving = hooks.serve(shop("one"), more=coalesced("0.1s"))
    assert post(serving, "a0", {"key": "a", "n": "a0"}) == 202
    wait_until(lambda: hooks.ids("one") == ["a0"])  # and others wait for its end
    for event_id in ("a1", "a2"):
        assert post(serving, event_id, {"key": "a", "n": event_id}) == 202
    hooks.release("one")
    hooks.wait_for(a0="done", a1="superseded", a2="done")
    assert [row["id"] for row in hooks.rows("events", "--state", "superseded")] == ["a1"]
    text = hooks.run("show", "a1").stdout
    assert f"handler one: superseded by {names(hooks)['a2']}" in text
    serving.line_with("superseded", "a1")
    hooks.run("replay", "a1")
    hooks.wait_for(a1="done")
    assert hooks.ids("one") == ["a0", "a2", "a1"]
    assert serving.stop() == 0
    assert_rebuilt_the_same(hooks)


def test_while_one_runs_newer_ones_wait_and_it_gives_way_when_it_fails(hooks):
    hooks.hold("one")
    hooks.break_("one", "a1")
    serving = hooks.serve(shop("one"), more=coalesced("0.2s") + "retries = 3\n")
    assert post(serving, "a1", {"key": "a", "n": 1}) == 202
    wait_until(lambda: hooks.ids("one") == ["a1"])
    for event_id in ("a2", "a3"):
        assert post(serving, event_id, {"key": "a", "n": event_id}) == 202
    time.sleep(0.5)
    assert hooks.ids("one") == ["a1"]
    hooks.release("one")
    hooks.wait_for(a1="superseded", a2="superseded", a3="done")
    assert hooks.ids("one") == ["a1", "a3"]
    assert serving.stop() == 0
    assert_rebuilt_the_same(hooks)


def test_what_waits_outlasts_the_service(hooks):
    """Killed while one waits on disk, one in memory, and one runs."""
    hooks.hold("one")
    config = coalesced("4s")
    serving = hooks.serve(shop("one"), more=config)
    assert post(serving, "r1", {"key": "r", "n": 1}) == 202
    wait_until(lambda: hooks.ids("one") == ["r1"])
    for event_id in ("r2", "r3", "w1", "w2"):
        assert post(serving, event_id, {"key": event_id[0], "n": event_id}) == 202
    hooks.wait_for(r2="superseded", w1="superseded")
    serving.kill()
    hooks.release("one")
    serving = hooks.serve(shop("one"), more=config)
    assert post(serving, "w3", {"key": "w", "n": 3}) == 202
    hooks.wait_for(r3="done", w3="done", r2="superseded", w1="superseded")
    assert {event_id[0]: event_id for event_id in hooks.ids("one")} == {"r": "r3", "w": "w3"}
    assert set(hooks.ids("one")).isdisjoint({"r2", "w1"})
    assert serving.stop() == 0
    assert_rebuilt_the_same(hooks)


def test_a_delay_counts_from_receipt_also_over_a_restart(hooks):
    config = '[handlers.one]\ndelay = "3s"\n[handlers.two]\nnot_before = "payload.at"\n'
    serving = hooks.serve(shop("one", "two"), more=config)
    began = time.time()
    soon = (datetime.now(UTC) + timedelta(seconds=3)).isoformat()
    assert post(serving, "later", {"at": soon}) == 202
    assert post(serving, "never mind", {"at": "tomorrow, perhaps"}) == 202
    wait_until(lambda: hooks.ids("two") == ["never mind"])
    serving.kill()
    serving = hooks.serve(shop("one", "two"), more=config)
    hooks.wait_for(later="done", **{"never mind": "done"})
    at: dict[tuple[str, str], float] = {}
    for name in ("one", "two"):
        for run in hooks.runs(name):
            at.setdefault((name, run["id"]), run["at"] - began)
    assert at["one", "later"] >= 3
    assert at["one", "never mind"] >= 3
    assert at["two", "later"] >= 2.8
    assert at["two", "never mind"] < 2
    assert serving.stop() == 0
    assert_rebuilt_the_same(hooks)


def test_what_waits_can_be_forgotten_and_holds_no_key_back(hooks):
    serving = hooks.serve(shop("one"), more=coalesced("3s"))
    assert post(serving, "a1", {"key": "a", "n": 1}) == 202
    hooks.wait_for(a1="pending")
    hooks.run("forget", "--id", "a1")
    assert post(serving, "a2", {"key": "a", "n": 2}) == 202
    hooks.wait_for(a1="forgotten", a2="done")
    assert hooks.ids("one") == ["a2"]
    assert serving.stop() == 0
    assert_rebuilt_the_same(hooks)
