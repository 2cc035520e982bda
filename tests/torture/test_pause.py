"""SIGKILL while a handler is paused: nothing runs before it is resumed, and all of it after that."""

import time

import pytest

from fasthook.spool import pauses
from tests.torture.helpers import FULL, Load, Site, check, say_sets, wait_for

KILLS = 20 if FULL else 1


def paused_and_killed(service: Site, kills: int, weak: str = "") -> Load:
    """Load while the handler is paused, and killed; resumed under load, and drained."""
    service.start(weak)
    with Load(service.port, rate=400) as load:
        wait_for(service.handled, "a first run")
        pauses.pause(service.spool, "handler", service.handler)
        wait_for(lambda: service.messages("paused"), "the pause")
        none = f'fasthook_handler_running{{handler="{service.handler}"}} 0'
        wait_for(lambda: none in service.ask("/metrics")[1], "the end of what was in hand")
        before = len(service.handled())
        for _ in range(kills):
            time.sleep(0.3)
            service.kill()
            service.start(weak)
        time.sleep(0.3)
        assert len(service.handled()) == before
        pauses.resume(service.spool, "handler", service.handler)
        wait_for(lambda: service.messages("resumed"), "the end of the pause")
        time.sleep(0.3)
        service.kill()  # while what waited comes back
        service.start(weak)
    service.wait_until_idle(load.acked, timeout_s=60)
    assert service.stop() == 0
    return load


@pytest.mark.timeout(600 if FULL else 120)
def test_kill_while_a_handler_is_paused_loses_nothing(site):
    service = site()
    load = paused_and_killed(service, KILLS)
    sets = check(service, load.tried, load.acked)
    say_sets("pause and kill -9", sets)
    assert sets.is_clean(), sets
    assert sets.pending == sets.dead == 0
    assert "Traceback" not in service.log_text()


def test_the_check_finds_what_a_pause_forgets(site):
    """A control: a service that counts what is paused as done."""
    service = site()
    load = paused_and_killed(service, 1, "heedless")
    assert check(service, load.tried, load.acked).lost
