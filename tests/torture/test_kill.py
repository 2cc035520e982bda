"""SIGKILL: at any moment, and exactly at a sync, with all that was not synced gone."""

import contextlib
import os
import random
import time
from collections.abc import Callable

import pytest

from tests.torture.helpers import FULL, Load, Site, check, needs_strace, say_sets, wait_for
from tests.torture.trace import CALLS, Synced, Written, happenings

KILLS = 100 if FULL else 8


def killed_at_random(site: Site, kills: int, weak: str = "") -> Load:
    """Load that goes on while the service is killed and started again; then all is drained."""
    chance = random.Random(1)
    first_acks = []
    site.start(weak)
    with Load(site.port) as load:
        for _ in range(kills):
            time.sleep(chance.uniform(0.2, 3.0 if FULL else 0.7))
            site.kill()
            began, before = time.monotonic(), len(load.acks)
            site.start(weak)
            while len(load.acks) == before:
                assert time.monotonic() - began < 20, "no ack after a restart"
                time.sleep(0.005)
            first_acks.append(load.acks[before].at - began)
    site.wait_until_idle(load.acked, timeout_s=60)
    assert site.stop() == 0
    load.restarts_s = sorted(first_acks)  # type: ignore[attr-defined]
    return load


@pytest.mark.timeout(900 if FULL else 120)
def test_kill_at_random_moments_loses_nothing(site):
    service = site()
    load = killed_at_random(service, KILLS)
    sets = check(service, load.tried, load.acked)
    p95 = load.restarts_s[min(len(load.restarts_s) - 1, int(0.95 * len(load.restarts_s)))]
    say_sets("kill -9", sets, kills=KILLS, restart_p95_s=round(p95, 3))
    assert sets.is_clean(), sets
    assert sets.acked > 100 * KILLS
    assert sets.pending == 0
    assert sets.dead == 0
    # A start is 0.5 s of CPU: where others want more than there is, it takes its turn.
    is_crowded = os.getloadavg()[0] > 2 * (os.cpu_count() or 1)
    assert p95 < (5 if is_crowded else 2)
    assert "Traceback" not in service.log_text()


def assert_loses(site: Callable[[], Site], what: str, kill: Callable[[Site, int], Load]) -> None:
    """A kill finds something unwritten by chance: more often than not, so in eight tries for sure."""
    for number in range(8):
        service = site()
        load = kill(service, number)
        sets = check(service, load.tried, load.acked)
        say_sets(what, sets, tries=number + 1)
        if sets.lost:
            return
    pytest.fail(f"{what}: what was answered early was not found")


def test_the_check_finds_what_is_answered_early(site):
    assert_loses(site, "kill -9, control", lambda one, _: killed_at_random(one, 2, "early"))


# --- at a sync ------------------------------------------------------------------------------------


def synced_bytes(trace: str) -> dict[str, int]:
    """By segment: how many bytes are on disk for sure."""
    synced: dict[str, int] = {}
    for one in happenings(trace):
        if isinstance(one, Synced):
            synced[one.path] = one.size
        elif isinstance(one, Written):
            synced.setdefault(one.path, 0)
    return synced


def killed_at_sync(site: Site, k: int, weak: str = "") -> tuple[Load, int]:
    """A worker is killed at its k-th sync; then its parent, of even k once another one has gone on
    with the journal; and what was not synced is cut off, as when the power fails.
    """
    needs_strace()
    inject = f"inject=fdatasync:signal=SIGKILL:when={k}"
    site.start(weak, ["-y", "-s", "0", "-e", CALLS, "-e", inject], waits=False)
    with Load(site.port, connections=8) as load:
        assert site.process is not None
        ended = site.process.poll  # where no worker comes up, there is no service
        wait_for(lambda: site.messages("worker lost") or ended() is not None, "its end", 60)
        acks = len(load.acks) if k % 2 == 0 else -100
        with contextlib.suppress(AssertionError):  # it may be killed again before
            wait_for(lambda: len(load.acks) > acks + 50 or ended() is not None, "acks", 2)
        site.kill()
    time.sleep(0.05)  # strace writes its last lines
    cut = 0
    for path, size in synced_bytes(site.trace_path.read_text()).items():
        with open(path, "r+b") as segment:
            cut += max(0, segment.seek(0, 2) - size)
            segment.truncate(size)
    for index in site.spool.glob("index.db*"):
        index.unlink()  # it may have what the journal has no more: after a power cut, it does not
    site.start()
    site.wait_until_idle(load.acked)
    assert site.stop() == 0
    return load, cut


@pytest.mark.timeout(1200 if FULL else 120)
def test_kill_and_power_cut_at_the_kth_sync_lose_nothing(site):
    total = cut_total = 0
    for k in range(1, 201) if FULL else (3, 12, 41, 61):
        service = site()
        load, cut = killed_at_sync(service, k, "blocks" if k % 3 == 0 else "")
        sets = check(service, load.tried, load.acked)
        assert not sets.lost, (k, sets)
        assert sets.is_clean(), (k, sets)
        total += sets.acked
        cut_total += cut
    say_sets(
        "kill at the k-th sync, the last of them", sets, acked_in_all=total, bytes_cut=cut_total
    )
    # In a few tries, the worker that goes on may have synced all of it in time.
    assert cut_total > 0 or not FULL


def test_the_check_of_syncs_finds_what_is_answered_early(site):
    what = "kill at the k-th sync, control"
    assert_loses(site, what, lambda one, number: killed_at_sync(one, 40 + number, "early")[0])
