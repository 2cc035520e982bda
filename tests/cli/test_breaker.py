"""A breaker in a service: what it holds waits on disk, and what is said of it."""

import json
import time

import pytest

from tests.cli.hooks import Hooks, post, shop, wait_until

CONFIG = '[handlers.one]\nbreaker = { failures = 2, pause = "500ms" }\n'


@pytest.fixture
def hooks(tmp_path, serve, run):
    return Hooks(tmp_path, serve, run)


def test_a_handler_that_fails_in_a_row_is_left_alone_until_it_works(hooks):
    hooks.break_("one")
    serving = hooks.serve(shop("one", "two"), more=CONFIG)
    for event_id in ("a", "b"):
        assert post(serving, event_id) == 202
        wait_until(lambda expected=event_id: expected in hooks.ids("one"))
    line = json.loads(serving.line_with("breaker open"))
    assert (line["handler"], line["pause_s"]) == ("one", 0.5)
    for event_id in ("c", "d", "e"):
        assert post(serving, event_id) == 202
    wait_until(lambda: len(hooks.ids("two")) == 5)
    serving.line_with("breaker open", '"pause_s":1.0')  # one was tried
    assert [run["attempt"] for run in hooks.runs("one")[2:]] == [1]
    metrics = serving.metrics()
    assert metrics['fasthook_handler_breaker{handler="one"}'] > 0
    assert metrics['fasthook_breaker_opened_total{handler="one"}'] >= 2
    assert "one" in hooks.run("handlers").stdout
    listed = {row["handler"]: row for row in hooks.rows("handlers")}
    assert listed["one"]["breaker"] in ("open", "tries one")
    assert listed["two"]["breaker"] is None
    hooks.mend("one")
    serving.line_with("breaker closed", "one")
    hooks.wait_for(a="dead", b="dead", c="done", d="done", e="done")
    assert hooks.runs("one")[-1]["attempt"] == 1
    assert {run["attempt"] for run in hooks.runs("one")} == {1}
    assert serving.stop() == 0


def test_what_an_open_breaker_holds_outlasts_the_service(hooks):
    hooks.break_("one")
    config = CONFIG.replace("500ms", "1h")
    serving = hooks.serve(shop("one"), more=config)
    for event_id in ("a", "b"):
        assert post(serving, event_id) == 202
    serving.line_with("breaker open")
    for event_id in ("c", "d"):
        assert post(serving, event_id) == 202
    hooks.wait_for(c="pending", d="pending")
    time.sleep(0.3)
    serving.kill()
    hooks.mend("one")
    serving = hooks.serve(shop("one"), more=config)  # begins closed
    hooks.wait_for(a="dead", b="dead", c="done", d="done")
    assert serving.stop() == 0
