"""Workers that are killed, stopped, or short of files, while the others go on."""

import os
import random
import resource
import signal
import socket
import time

import pytest

from tests.torture.helpers import FULL, Load, Site, check, say, say_sets, send, wait_for

KILLS = 200 if FULL else 8
STOP_S = 30.0 if FULL else 13.0  # a worker is stalled after 10 s


def kill_a_worker(site: Site, chance: random.Random) -> None:
    """And wait until there are as many as before."""
    pid = chance.choice(site.worker_pids())
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: pid not in site.worker_pids(), "its end")
    site.killed_at.append(time.monotonic())
    wait_for(lambda: len(site.worker_pids()) == site.workers, "another worker", 40)


@pytest.mark.timeout(2400 if FULL else 120)
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_that_are_killed_take_nothing_with_them(workers, site):
    service = site(workers=workers)
    chance = random.Random(workers)
    service.start()
    wait_for(lambda: len(service.worker_pids()) == workers, "all workers")
    with Load(service.port) as load:
        for _ in range(KILLS // 2):
            time.sleep(chance.uniform(0.1, 1.0 if FULL else 0.4))
            acks = len(load.acks)
            kill_a_worker(service, chance)
            wait_for(lambda n=acks: len(load.acks) > n + 50, "acks after it")
    service.wait_until_idle(load.acked, timeout_s=60)
    assert service.stop() == 0
    sets = check(service, load.tried, load.acked)
    say_sets(f"kill -9 of {workers} workers", sets, kills=KILLS // 2)
    assert sets.is_clean(), sets
    assert sets.pending == 0
    assert sets.dead == 0
    assert sets.acked > 50 * KILLS
    assert "Traceback" not in service.log_text()
    assert {line["reason"] for line in service.messages("worker lost")} == {"signal 9"}


@pytest.mark.timeout(200)
def test_a_worker_that_stands_still_loses_nothing(site):
    """It may hold a lock that the other one waits for, so it does not stand there for ever."""
    service = site(workers=2)
    service.start()
    wait_for(lambda: len(service.worker_pids()) == 2, "both workers")
    stopped = service.worker_pids()[0]
    with Load(service.port, connections=8) as load:
        time.sleep(0.3)
        os.kill(stopped, signal.SIGSTOP)
        service.killed_at.append(time.monotonic())
        time.sleep(STOP_S)
        assert stopped not in service.worker_pids()
        acks = len(load.acks)
        wait_for(lambda: len(load.acks) > acks + 20, "acks after it")
    service.wait_until_idle(load.acked, timeout_s=60)
    assert service.stop() == 0
    sets = check(service, load.tried, load.acked)
    say_sets(f"SIGSTOP for {STOP_S} s", sets, refused=len(load.refusals))
    assert sets.is_clean(), sets
    assert {a.status for a in load.refusals} <= {503}
    assert service.messages("worker stalled")


def test_a_worker_without_descriptors_answers_who_is_there_and_comes_back(site):
    service = site()
    service.start()
    pid = service.worker_pid
    used = len(os.listdir(f"/proc/{pid}/fd"))
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 8, before[1]))
    idle = []
    try:
        for _ in range(40):  # most of them wait in the kernel
            idle.append(socket.create_connection(("127.0.0.1", service.port), timeout=5))
        time.sleep(0.5)
        assert service.process.poll() is None
        assert service.worker_pids() == [pid]
    finally:
        for client in idle:
            client.close()
    began = time.monotonic()
    assert send(service.port, "after").status == 202
    say("EMFILE", back_s=round(time.monotonic() - began, 2))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    service.wait_until_idle(["after"])
    assert service.stop() == 0
    assert "Traceback" not in service.log_text()
    assert not service.messages("internal error")
