"""The order of syncs and answers, syncs that fail, and syncs that take their time."""

import time
from pathlib import Path

import pytest

from fasthook.spool.journal import place_of
from tests.torture.helpers import FULL, Load, Site, check, say, say_sets, wait_for
from tests.torture.trace import CALLS, Answered, Synced, happenings

EVENTS = 10_000 if FULL else 1000

# --- order ----------------------------------------------------------------------------------------


def answered_too_soon(
    trace: str, by_port: dict[int, list[str]], positions: dict[str, int]
) -> tuple[list[str], int, int]:
    """Ids whose 2xx was written before their record was synced; how many 2xx and syncs there were."""
    synced: dict[int, int] = {}  # by segment
    turns: dict[int, int] = {}  # by client
    early: list[str] = []
    syncs = 0
    for one in happenings(trace):
        if isinstance(one, Synced):
            syncs += 1
            segment = int(Path(one.path).stem)
            synced[segment] = max(synced.get(segment, 0), one.size)
        elif isinstance(one, Answered) and one.client_port in by_port:  # not the admin listener
            turn = turns[one.client_port] = turns.get(one.client_port, -1) + 1
            event_id = by_port[one.client_port][turn]
            _, segment, offset = place_of(positions[event_id])
            if synced.get(segment, 0) <= offset:
                early.append(event_id)
    return early, sum(turns.values()) + len(turns), syncs


def audited(site: Site, events: int, weak: str = "") -> tuple[list[str], int, int]:
    site.start(weak, ["--seccomp-bpf", "-yy", "-s", "16", "-e", CALLS])
    with Load(site.port, limit=events) as load:
        load.join()
    site.wait_until_idle(load.acked)
    assert site.stop() == 0
    time.sleep(0.1)
    assert len(load.acked) == events
    return answered_too_soon(site.trace_path.read_text(), load.by_port, site.positions())


@pytest.mark.timeout(600 if FULL else 120)
def test_no_2xx_is_written_before_its_batch_is_synced(site):
    early, answers, syncs = audited(site(), EVENTS)
    say("order", events=answers, syncs=syncs, batch=round(answers / syncs, 1), early=len(early))
    assert not early
    assert answers == EVENTS
    assert syncs > 10


@pytest.mark.parametrize("weak", ["early", "nosync"])
def test_the_audit_finds_what_is_answered_early(weak, site):
    early, answers, syncs = audited(site(), 300, weak)
    say(f"order, control {weak}", events=answers, syncs=syncs, early=len(early))
    assert len(early) > 100


# --- a disk that fails ----------------------------------------------------------------------------

EIO = "inject=fdatasync,fsync:error=EIO"
SYNCS = "trace=fdatasync,fsync"


def outage(site: Site, seconds: float, weak: str = "") -> tuple[Load, float, float]:
    """Load, and for a while no sync works. When that began and ended."""
    site.start(weak)
    with Load(site.port, connections=8, rate=400) as load:
        time.sleep(0.4)
        with site.disturbed("-e", SYNCS, "-e", EIO):
            began = time.monotonic()
            time.sleep(seconds)
            ended = time.monotonic()
        acks = len(load.acks)
        wait_for(lambda: len(load.acks) > acks + 20, "acks after the outage")
    site.wait_until_idle(load.acked)
    return load, began, ended


def test_syncs_that_fail_for_three_seconds(site):
    service = site()
    load, began, ended = outage(service, 3.0)
    during = [a for a in load.acks if a.sent_at > began and a.at < ended]
    refused = [a for a in load.refusals if began < a.at < ended]
    back_s = min(a.at for a in load.acks if a.at > ended) - ended
    service.kill()
    service.start()
    service.wait_until_idle(load.acked)
    assert service.stop() == 0
    sets = check(service, load.tried, load.acked)
    slowest_s = max(a.at - a.sent_at for a in refused)
    say_sets(
        "EIO for 3 s",
        sets,
        refused=len(refused),
        back_s=round(back_s, 2),
        slowest_503_s=round(slowest_s, 3),
    )
    assert not during
    assert refused
    assert {a.status for a in load.refusals} == {503}
    assert all(a.retries_after for a in load.refusals)
    assert slowest_s < 1
    assert back_s < 2
    assert sets.is_clean(), sets
    assert not load.silent
    assert service.messages("spool works again")
    assert "Traceback" not in service.log_text()


def test_one_sync_that_fails(site):
    service = site()
    # Of the journal's thread, and of no other one that gets so far.
    service.start(trace=["--seccomp-bpf", "-y", "-e", SYNCS, "-e", f"{EIO}:when=20"])
    with Load(service.port, connections=8, rate=400) as load:
        wait_for(lambda: load.refusals, "a refusal")
        acks = len(load.acks)
        wait_for(lambda: len(load.acks) > acks + 20, "acks after it")
    service.wait_until_idle(load.acked)
    assert service.stop() == 0
    injected = service.trace_path.read_text().count("(INJECTED)")
    sets = check(service, load.tried, load.acked)
    say_sets("EIO once", sets, refused=len(load.refusals), injected=injected)
    assert 1 <= injected <= 3
    assert {a.status for a in load.refusals} == {503}
    assert sets.is_clean(), sets


def test_syncs_that_fail_for_ever(site):
    service = site()
    service.start()
    with Load(service.port, connections=8, rate=400) as load:
        time.sleep(0.4)
        with service.disturbed("-e", SYNCS, "-e", EIO):
            began = time.monotonic()
            time.sleep(6.0 if FULL else 2.5)
            assert service.ask("/readyz")[0] == 503
            load.stop()
            ended = time.monotonic()
            service.kill()
    during = [a for a in load.acks if a.sent_at > began and a.at < ended]
    segments = len(list(service.spool.glob("journal/0/*.seg")))
    service.start()
    service.wait_until_idle(load.acked)
    assert service.stop() == 0
    # Outcomes could not be stored while it lasted.
    sets = check(service, load.tried, load.acked, in_flight_s=ended - began + 1)
    say_sets("EIO for ever", sets, refused=len(load.refusals), segments=segments)
    assert not during
    assert sets.is_clean(), sets
    assert segments < 10


def test_the_check_finds_who_does_not_hear_of_errors(site):
    service = site()
    load, began, ended = outage(service, 1.0, "deaf")
    during = [a for a in load.acks if a.sent_at > began and a.at < ended]
    say("EIO, control", acked_during=len(during))
    assert during


# --- a disk that takes its time -------------------------------------------------------------------


def slowed(site: Site, delay_s: float, seconds: float) -> list[Load]:
    """300 events a second while each sync takes longer; and the loads of them.

    They could all fall into step with the disk, each time in one batch. So some come while a
    batch is on its way, for certain.
    """
    site.start()
    delay = f"inject=fdatasync:delay_exit={int(delay_s * 1e6)}"
    with site.disturbed("-e", "trace=fdatasync", "-e", delay):
        with Load(site.port, connections=24, rate=225) as first:
            wait_for(lambda: first.tried, "a batch on its way")
            time.sleep(delay_s / 4)
            with Load(site.port, connections=8, rate=75, prefix="late-") as late:
                time.sleep(seconds)
        say_latency(f"syncs of {delay_s} s", first, late)
    site.wait_until_idle(first.acked | late.acked)
    return [first, late]


def say_latency(what: str, *loads: Load) -> None:
    times = sorted(a.at - a.sent_at for load in loads for a in load.answers)
    say(
        what,
        tried=sum(len(load.tried) for load in loads),
        acked=sum(len(load.acks) for load in loads),
        refused=sum(len(load.refusals) for load in loads),
        p50_s=round(times[len(times) // 2], 3),
        max_s=round(times[-1], 3),
    )


@pytest.mark.parametrize("delay_s", [0.02, 0.2, 2.0] if FULL else [0.02, 2.0])
def test_syncs_that_take_long(delay_s, site):
    service = site()
    loads = slowed(service, delay_s, 10 if FULL else 5 if delay_s > 1 else 2)
    assert service.stop() == 0
    tried = {id for load in loads for id in load.tried}
    acked = {id for load in loads for id in load.acked}
    sets = check(service, tried, acked)
    say_sets(f"syncs of {delay_s} s", sets)
    assert sets.is_clean(), sets
    assert not any(load.silent for load in loads)
    assert all(a.at - a.sent_at < 3 for load in loads for a in load.answers)
    refusals = [a.status for load in loads for a in load.refusals]
    assert set(refusals) <= {503}
    if delay_s < 0.1:
        assert len(acked) >= 0.8 * len(tried)
        assert len(tried) > 0.8 * 300 * (10 if FULL else 2)
    if delay_s > 1:
        assert refusals


def test_the_check_finds_who_waits_for_a_slow_disk(site):
    service = site()
    service.start("nowatch")
    with service.disturbed("-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_exit=2000000"):
        with Load(service.port, connections=8) as first:
            wait_for(lambda: first.tried, "a batch on its way")
            time.sleep(0.5)
            # The first ones may all be in one batch, where nobody waits for another.
            with Load(service.port, connections=8, prefix="late-") as late:
                time.sleep(2.0)
        say_latency("syncs of 2 s nowatch", late)
    assert any(a.at - a.sent_at > 3 for a in late.answers)
