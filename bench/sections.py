"""What is measured beside the pairs: latency, sizes, endpoints, connections, memory, starts.

Each system is loaded in turn, round by round; what does not count right raises `WrongCount`.
"""

import contextlib
import resource
import shutil
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import urllib3
import uvloop
from urllib3.exceptions import HTTPError

from bench import servers
from bench.latency import send
from bench.pairs import SETTLE_S, Bench, Sample, Tell, WrongCount, ready
from bench.servers import metric
from bench.systems import Place, Server, System, free_port, running, wait_for
from bench.workload import PUSH, Work, write_script

#: Accepted a second in "latency": what all of them can do, on a slow machine, too.
RATE = 500
LATENCY = ("prototype", "fasthook none", "fasthook hold", "fasthook fsync", "uvicorn ASGI")
LATENCY += ("FastAPI", "FastAPI + Redis always")
SIZED = ("prototype", "prototype + journal", "fasthook none", "fasthook hold", "FastAPI")
ENDPOINTS = (1, 100, 10_000)
IDLE = (0, 1_000, 10_000)
MANY = "fasthook none"
LASTING = "fasthook fsync"
EVERY_S = 0.25


class Idle(NamedTuple):
    """What some idle connections cost. `bytes_each`: memory that each of them takes."""

    samples: list[Sample]
    bytes_each: float


class Moment(NamedTuple):
    """What a server had taken, so long after the load began."""

    seconds: float
    rss_bytes: int
    disk_bytes: int


def latency(system: System, folder: Path, seconds: float) -> list[float]:
    """Seconds from when a request was due to its answer, at a fixed rate (open loop), sorted."""
    with ready(system, folder) as bench:
        port = _port(bench.server)
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


def connections(
    system: System, folder: Path, seconds: float, rounds: int, tell: Tell
) -> dict[str, Idle]:
    """By number of idle connections beside those of the load. Raises `WrongCount`."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    found: dict[str, Idle] = {}
    with contextlib.ExitStack() as stack:
        benches: dict[str, Bench] = {}
        for count in (count for count in IDLE if count + 1000 < hard):
            home = folder / str(count)
            home.mkdir(exist_ok=True)
            bench = stack.enter_context(ready(system, home, connections=count + 1000))
            before = bench.server.rss_bytes()
            for _ in range(count):
                stack.enter_context(socket.create_connection(("127.0.0.1", _port(bench.server))))
            time.sleep(SETTLE_S)
            each = (bench.server.rss_bytes() - before) / max(count, 1)
            benches[f"{count:,}"], found[f"{count:,}"] = bench, Idle([], each)
        for _ in range(rounds):
            for name, bench in benches.items():
                found[name].samples.append(bench.sample(seconds))
                tell()
        for name, bench in benches.items():
            still = _figure(bench.server, "fasthook_connections")
            if still < int(name.replace(",", "")):
                raise WrongCount(f"{system.name}: {still} connections of {name} are open")
    return found


def starting(system: System, folder: Path) -> float:
    """Seconds from the command to its being ready, with ten endpoints."""
    home = folder / "start"
    home.mkdir(exist_ok=True)
    began_s = time.monotonic()
    server = system.start(Place(home, free_port(), PUSH._replace(endpoints=10), 0))
    try:
        wait_for(lambda: _is_ready(server), "readiness")
        return time.monotonic() - began_s
    finally:
        server.stop()
        shutil.rmtree(home)


def _port(server: Server) -> int:
    return int(server.url.rpartition(":")[2])


def _is_ready(server: Server) -> bool:
    with contextlib.suppress(HTTPError):
        url = f"http://127.0.0.1:{_port(server) + 1}/readyz"
        return urllib3.request("GET", url, retries=False).status == 200
    return False


def _figure(server: Server, name: str) -> int:
    return metric(servers.System(_port(server), server.processes[0]), name)


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
