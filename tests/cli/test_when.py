"""`when`: each handler gets the events that it wants, and `show` says why another one did not."""

import json

import pytest

from tests.cli.hooks import Hooks, post, shop, wait_until

MAIN = 'payload.ref == "refs/heads/main"'
IS_MAIN, IS_OTHER = {"ref": "refs/heads/main"}, {"ref": "refs/heads/other"}


@pytest.fixture
def hooks(tmp_path, serve, run):
    return Hooks(tmp_path, serve, run)


def handlers_of(hooks, event_id: str) -> dict[str, tuple[str, str]]:
    shown = json.loads(hooks.run("show", event_id, "--json").stdout)
    return {one["handler"]: (one["state"], one["note"]) for one in shown["handlers"]}


def test_each_handler_gets_what_it_wants(hooks):
    """Also what comes back from disk, and what an operator runs again."""
    to = shop({"name": "one", "when": MAIN}, {"name": "two", "when": "type == 'tag'"})
    serving = hooks.serve(to)
    assert post(serving, "main", IS_MAIN) == 202
    assert post(serving, "both", IS_MAIN, event_type="tag") == 202
    assert post(serving, "none", IS_OTHER) == 202
    assert post(serving, "nothing", b"[]") == 202
    hooks.wait_for(main="done", both="done", none="ignored", nothing="ignored")
    assert sorted(hooks.ids("one")) == ["both", "main"]
    assert hooks.ids("two") == ["both"]
    assert handlers_of(hooks, "main") == {
        "one": ("done", ""),
        "two": ("skipped", "type == 'tag'"),
    }
    expected = {"one": ("skipped", MAIN), "two": ("skipped", "type == 'tag'")}
    assert handlers_of(hooks, "none") == expected
    assert handlers_of(hooks, "nothing")["one"][1].startswith(f"{MAIN}: something is not there")
    text = hooks.run("show", "none").stdout
    assert f"handler one: skipped, since this is not true: {MAIN}" in text
    serving.line_with("ignored", "none")

    hooks.run("replay", "main", "none")
    wait_until(lambda: sorted(hooks.ids("one")) == ["both", "main", "main"])
    hooks.wait_for(main="done", none="ignored")
    hooks.run("replay", "none", "--handler", "one")  # whoever names it wants it
    wait_until(lambda: "none" in hooks.ids("one"))
    hooks.wait_for(none="done")
    assert serving.stop() == 0

    before = {event_id: handlers_of(hooks, event_id) for event_id in hooks.states()}
    states = hooks.states()
    hooks.run("spool", "rebuild")
    assert hooks.states() == states
    assert {event_id: handlers_of(hooks, event_id) for event_id in states} == before


def test_what_waited_on_disk_is_asked_when_it_comes_back(hooks):
    to = shop({"name": "one", "when": MAIN}, "two")
    serving = hooks.serve(to, more="[dispatch]\nhold = true\n")
    for event_id, payload in (("main", IS_MAIN), ("other", IS_OTHER)):
        assert post(serving, event_id, payload) == 202
    hooks.wait_for(main="pending", other="pending")
    assert serving.stop() == 0
    serving = hooks.serve(to)
    hooks.wait_for(main="done", other="done")
    assert hooks.ids("one") == ["main"]
    assert sorted(hooks.ids("two")) == ["main", "other"]
    assert serving.stop() == 0


def test_a_form_is_asked_by_its_fields(hooks):
    serving = hooks.serve(shop({"name": "one", "when": "payload.From == '+441'"}))
    form = "application/x-www-form-urlencoded"
    assert post(serving, "mine", b"From=%2B441&Body=hello", content_type=form) == 202
    assert post(serving, "theirs", b"From=%2B442&Body=hello", content_type=form) == 202
    hooks.wait_for(mine="done", theirs="ignored")
    assert serving.stop() == 0


def test_what_was_erased_says_no_condition_any_more(hooks):
    serving = hooks.serve(shop({"name": "one", "when": MAIN}))
    assert post(serving, "none", IS_OTHER) == 202
    hooks.wait_for(none="ignored")
    hooks.run("forget", "--id", "none")
    wait_until(lambda: handlers_of(hooks, "none") == {})
    assert serving.stop() == 0
