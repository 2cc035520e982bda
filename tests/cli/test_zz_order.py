import time, pytest
from tests.cli.test_upkeep import hooks
from tests.cli.hooks import *


@pytest.mark.parametrize("ms", range(0, 3000, 90))
@pytest.mark.parametrize("rebuild", [0, 1])
def test_order(hooks, ms, rebuild):
    e = shop("keyed", name="keyed")
    s = hooks.serve(e)
    hooks.break_("keyed", "retried")
    post(s, "retried", {"key": "k"}, path="/keyed")
    post(s, "behind", {"key": "k"}, path="/keyed")
    wait_until(lambda: hooks.ids("keyed"))
    time.sleep(ms / 1000)
    s.stop()
    at = list(hooks.states().items())
    if rebuild:
        hooks.run("spool", "rebuild")
    hooks.mend("keyed")
    s = hooks.serve(e)
    hooks.wait_for(retried="done", behind="done")
    ran = hooks.ids("keyed")
    if ran != ["retried"] * (len(ran) - 1) + ["behind"]:
        print("VIOLATION", ms, rebuild, at, ran, "\n".join(s.lines))
    s.stop()
