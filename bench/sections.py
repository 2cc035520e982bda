"""What is measured beside the pairs: latency, sizes of bodies, endpoints, memory and disk.

Each system is loaded in turn, round by round; what does not count right raises `WrongCount`.
"""

import contextlib
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import uvloop

from bench.latency import send
from bench.pairs import SETTLE_S, Bench, Sample, Tell, WrongCount, ready
from bench.systems import System, running
from bench.workload import PUSH, Work, write_script

#: Accepted a second in "latency": what all of them can do, on a slow machine, too.
RATE = 500
LATENCY = ("prototype", "fasthook none", "fasthook hold", "fasthook fsync", "uvicorn ASGI")
LATENCY += ("FastAPI", "FastAPI + Redis always")
SIZED = ("prototype", "prototype + journal", "fasthook none", "fasthook hold", "FastAPI")
ENDPOINTS = (1, 100, 10_000)
MANY = "fasthook none"
LASTING = "fasthook fsync"
EVERY_S = 0.25


class Moment(NamedTuple):
    """What a server had taken, so long after the load began."""

    seconds: float
    rss_bytes: int
    disk_bytes: int


def latency(system: System, folder: Path, seconds: float) -> list[float]:
    """Seconds from when a request was due to its answer, at a fixed rate (open loop), sorted."""
    with ready(system, folder) as bench:
        port = int(bench.server.url.rpartition(":")[2])
        before = bench.server.counts()
        latencies_s, refused = uvloop.run(send(port, RATE, seconds))
        time.sleep(SETTLE_S)
        accepted = bench.server.counts().accepted - before.accepted
    if refused or not len(latencies_s) == accepted == int(RATE * seconds):
        raise WrongCount(
            f"{system.name}: of {int(RATE * seconds)} requests {accepted} accepted, "
            f"{len(latencies_s)} answered, {len(refused)} refused"
        )
    return sorted(latencies_s)


def size(
    work: Work, systems: Sequence[System], folder: Path, seconds: float, rounds: int, tell: Tell
) -> dict[str, list[Sample]]:
    """By system, samples of this work."""
    return _in_turn({each.name: (each, work) for each in systems}, folder, seconds, rounds, tell)


def endpoints(
    system: System, folder: Path, seconds: float, rounds: int, tell: Tell
) -> dict[str, list[Sample]]:
    """By number of endpoints, samples of one system."""
    # With so many, to ask for the counts is dear: only when it is done, and all must be handled.
    system = system._replace(handles=False)
    works = {f"{count:,}": (system, PUSH._replace(endpoints=count)) for count in ENDPOINTS}
    return _in_turn(works, folder, seconds, rounds, tell)


def _in_turn(
    works: Mapping[str, tuple[System, Work]], folder: Path, seconds: float, rounds: int, tell: Tell
) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {name: [] for name in works}
    with contextlib.ExitStack() as stack:
        benches: dict[str, Bench] = {}
        for number, (name, (system, work)) in enumerate(works.items()):
            home = folder / str(number)
            home.mkdir(exist_ok=True)
            benches[name] = stack.enter_context(ready(system, home, work))
        for _ in range(rounds):
            for name, bench in benches.items():
                found[name].append(bench.sample(seconds))
                tell()
    return found


def memory(system: System, folder: Path, seconds: float) -> list[Moment]:
    """Of a system under full load, from before its first request on."""
    script = folder / "memory.lua"
    size = write_script(script, PUSH)
    moments: list[Moment] = []
    with running(system, folder, PUSH, size) as server:
        bench = Bench(system, server, PUSH, script)
        home = next(folder.glob("fasthook-*"))
        began_s = time.monotonic()
        ended = threading.Event()

        def watch() -> None:
            while not ended.is_set():
                took_s = time.monotonic() - began_s
                moments.append(Moment(took_s, server.rss_bytes(), _disk_bytes(home)))
                ended.wait(EVERY_S)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            bench.sample(seconds)
        finally:
            ended.set()
            watcher.join()
    return moments


def _disk_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # a segment that was just dropped
            total += path.stat().st_blocks * 512
    return total
