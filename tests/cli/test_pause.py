"""`fasthook pause` and `resume`: nothing begins, nothing is lost, whatever happens meanwhile."""

import time

import pytest

from tests.cli.hooks import Hooks, post, shop, wait_until


@pytest.fixture
def hooks(tmp_path, serve, run):
    return Hooks(tmp_path, serve, run)


def paused(serving, what: str, name: str) -> float:
    """Since when, as the metrics have it; 0: it is not."""
    return serving.metrics().get(f'fasthook_spool_paused_{what}{{{what}="{name}"}}', 0.0)


def test_an_endpoint_that_is_paused_takes_events_and_runs_them_later(hooks, run_process):
    """Also what it had in line; what is in hand comes to its end, and other endpoints go on."""
    hooks.hold("single")
    more = shop("one", name="other")
    serving = hooks.serve(shop("single"), more)
    assert post(serving, "in hand") == 202
    wait_until(lambda: hooks.ids("single") == ["in hand"])
    assert post(serving, "in line") == 202
    result = hooks.run("pause", "shop")
    assert result.stdout == "endpoint shop is paused; `fasthook resume` ends that\n"
    assert "is paused already, since 20" in hooks.run("pause", "shop").stdout
    serving.line_with("paused", "shop")
    assert time.time() - 60 < paused(serving, "endpoint", "shop") < time.time() + 1
    assert post(serving, "new") == 202
    hooks.release("single")
    hooks.wait_for(**{"in hand": "done", "in line": "pending", "new": "pending"})
    assert post(serving, "elsewhere", path="/other") == 202
    hooks.wait_for(elsewhere="done")
    checked = run_process("check", "-c", hooks.config, env=hooks.whole_environment())
    assert "endpoint shop is paused since 20" in checked.stderr
    assert hooks.ids("single") == ["in hand"]

    assert hooks.run("resume", "shop").stdout == "endpoint shop goes on\n"
    hooks.wait_for(**{"in line": "done", "new": "done"})
    serving.line_with("resumed", "shop")
    assert paused(serving, "endpoint", "shop") == 0
    assert serving.stop() == 0


def test_a_handler_that_is_paused_leaves_the_others_alone(hooks):
    """Over a kill and a rebuild, resumed while the service is down: all of it runs, once."""
    serving = hooks.serve(shop("one", "two"))
    hooks.run("pause", "--handler", "one")
    serving.line_with("paused", "one")
    for event_id in ("a", "b"):
        assert post(serving, event_id) == 202
    hooks.wait_for(a="pending", b="pending")
    wait_until(lambda: sorted(hooks.ids("two")) == ["a", "b"])
    assert "handler one: pending, held until it goes on" in hooks.run("show", "a").stdout
    serving.kill()
    hooks.run("spool", "rebuild")
    serving = hooks.serve(shop("one", "two"))
    assert any("handler one is paused since 20" in line for line in serving.lines)
    assert paused(serving, "handler", "one")
    assert post(serving, "c") == 202
    wait_until(lambda: "c" in hooks.ids("two"))
    assert hooks.ids("one") == []
    assert serving.stop() == 0
    result = hooks.run("resume", "--handler", "one")
    assert result.stdout == "handler one goes on when the service starts\n"
    serving = hooks.serve(shop("one", "two"))
    hooks.wait_for(a="done", b="done", c="done")
    assert sorted(hooks.ids("one")) == ["a", "b", "c"]
    assert serving.stop() == 0


def test_order_and_coalescing_are_kept(hooks):
    more = '[handlers.three]\ncoalesce_by = "payload.key"\nwithin = "0.1s"\n'
    serving = hooks.serve(shop("keyed", "three"), more=more)
    for name in ("keyed", "three"):
        hooks.run("pause", "--handler", name)
        serving.line_with("paused", name)
    for number in range(4):
        assert post(serving, f"a{number}", {"key": "a", "n": number}) == 202
    wait_until(lambda: hooks.states().get("a3") == "pending")
    time.sleep(0.3)
    for name in ("keyed", "three"):
        hooks.run("resume", "--handler", name)
    hooks.wait_for(a0="done", a1="done", a2="done", a3="done")
    assert hooks.ids("keyed") == ["a0", "a1", "a2", "a3"]
    assert hooks.ids("three") == ["a3"]
    assert serving.stop() == 0


def test_all_workers_pause(hooks):
    server = '[server]\nlisten = ["tcp://127.0.0.1:0"]\nworkers = 2\n'
    text = server + '[admin]\nlisten = "tcp://127.0.0.1:0"\n[log]\nformat = "json"\n' + shop("one")
    hooks.config.write_text(text)
    hooks.config.parent.joinpath("var").mkdir(mode=0o700)
    result = hooks.run("pause", "--handler", "one")
    assert result.stdout.startswith("handler one is paused when the service starts")
    serving = hooks._serve("", at=hooks.config, env=hooks.whole_environment())
    ids = [f"e{number}" for number in range(12)]
    for event_id in ids:
        assert post(serving, event_id) == 202
    hooks.wait_for(**dict.fromkeys(ids, "pending"))
    assert hooks.ids("one") == []
    hooks.run("resume", "--handler", "one")
    hooks.wait_for(**dict.fromkeys(ids, "done"))
    assert sorted(hooks.ids("one")) == sorted(ids)
    assert serving.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (("pause",), 2, "say which: ENDPOINT or --handler NAME"),
        (("pause", "shop", "--handler", "one"), 2, "say which: ENDPOINT or --handler NAME"),
        (("pause", "shp"), 2, "endpoint 'shp': "),
        (("pause", "--handler", "../one"), 2, "handler '../one': "),
        (("resume",), 2, "say which: ENDPOINT or --handler NAME; paused: nothing"),
        (("resume", "shop"), 1, "endpoint 'shop' is not paused; paused: nothing"),
    ],
)
def test_what_can_not_be_paused(arguments, code, error, hooks, write):
    write(shop("one"))
    hooks.config.parent.joinpath("var").mkdir(mode=0o700)
    assert error in hooks.run(*arguments, code=code).stderr


def test_there_is_nothing_to_pause_without_a_spool(hooks, write):
    write(shop("one"))
    assert "there is no spool" in hooks.run("pause", "shop", code=2).stderr
    write('[spool]\ndurability = "none"\n' + shop("one"))
    assert "nothing is kept" in hooks.run("pause", "shop", code=1).stderr
