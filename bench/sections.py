"""What is measured beside the pairs: latency, sizes, and what is to stay the same.

The latter is the cost of an event, however many endpoints, events that wait and connections there
are, and the bounds of memory and start.

Each system is loaded in turn, round by round; what does not count right raises `WrongCount`.
"""

import contextlib
import os
import resource
import shutil
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import urllib3
import uvloop
from urllib3.exceptions import HTTPError

from bench.latency import send
from bench.pairs import SETTLE_S, Bench, How, Sample, WrongCount, in_turn, ready
from bench.servers import SPOOL, load, metric
from bench.systems import Place, Server, System, free_port, running, wait_for
from bench.workload import PUSH, Work, pushes, write_script

#: Accepted a second in "latency": what all of them can do, on a slow machine, too.
RATE = 500
LATENCY = ("prototype", "fasthook none", "fasthook hold", "fasthook fsync", "uvicorn ASGI")
LATENCY += ("FastAPI", "FastAPI + Redis always")
SIZED = ("prototype", "prototype + journal", "fasthook none", "fasthook hold", "FastAPI")
ENDPOINTS = (1, 100, 10_000)
PENDING = (0, 1_000_000)
IDLE = (0, 1_000, 10_000)
MANY = "fasthook none"
WAITING = "fasthook hold"
LASTING = "fasthook fsync"
SLOW = "fasthook os, slow"
EVERY_S = 0.25
#: Connections of the load that fills a backlog.
CROWD = 500
#: For which nothing comes, while all connections are idle.
QUIET_S = 2.0
#: What is demanded: CPU an event, of that with the least; and of one connection, worker and start.
MAX_GROWTH = 1.10
MAX_CONNECTION_BYTES = 10 * 1024
MAX_WORKER_BYTES = 100 * 1024**2
MAX_START_S = 0.5


class Idle(NamedTuple):
    """What idle connections cost: memory that each takes, and, while nothing comes, of a core."""

    samples: list[Sample]
    bytes_each: float
    core: float

    @property
    def is_small(self) -> bool:
        """Whether one takes as little as is demanded."""
        return self.bytes_each <= MAX_CONNECTION_BYTES


class Moment(NamedTuple):
    """What a server had taken, so long after the load began."""

    seconds: float
    rss_bytes: int
    disk_bytes: int


class Full(NamedTuple):
    """What became of a load whose events were not handled in time."""

    seconds: float
    accepted: int
    held: int  # of these, in memory
    peak_bytes: int

    @property
    def is_small(self) -> bool:
        """Whether the worker took as little as is demanded."""
        return self.peak_bytes < MAX_WORKER_BYTES


def growth(found: Mapping[str, Sequence[Sample]]) -> dict[str, list[float]]:
    """CPU an event in parts of that of the first number, which is the least, round by round."""
    base = next(iter(found.values()), ())
    return {
        count: [a.cpu_us / b.cpu_us for a, b in zip(samples, base, strict=True)]
        for count, samples in found.items()
    }


def is_flat(ratios: Sequence[float]) -> bool:
    """Whether that stays the same: the median counts."""
    return statistics.median(ratios) <= MAX_GROWTH


def is_soon(starts_s: Sequence[float]) -> bool:
    """Whether the median start is as quick as is demanded."""
    return statistics.median(starts_s) < MAX_START_S


def latency(system: System, folder: Path, seconds: float) -> list[float]:
    """Seconds from when a request was due to its answer, at a fixed rate (open loop), sorted."""
    with ready(system, folder) as bench:
        before = bench.server.counts()
        latencies_s, refused = uvloop.run(send(bench.server.port, RATE, seconds))
        time.sleep(SETTLE_S)
        accepted = bench.server.counts().accepted - before.accepted
    if refused or not len(latencies_s) == accepted == int(RATE * seconds):
        raise WrongCount(
            f"{system.name}: of {int(RATE * seconds)} requests {accepted} accepted, "
            f"{len(latencies_s)} answered, {len(refused)} refused"
        )
    return sorted(latencies_s)


def size(work: Work, systems: Sequence[System], how: How) -> dict[str, list[Sample]]:
    """By system, samples of this work."""
    homes = {each: _home(how, str(number)) for number, each in enumerate(systems)}
    return in_turn({s.name: ready(s, home, work) for s, home in homes.items()}, how)


def endpoints(system: System, how: How) -> dict[str, list[Sample]]:
    """By number of endpoints, samples of one system."""
    # With so many, to ask for the counts is dear: only when it is done, and all must be handled.
    system = system._replace(handles=False)
    works = {f"{count:,}": PUSH._replace(endpoints=count) for count in ENDPOINTS}
    return in_turn({n: ready(system, _home(how, n), work) for n, work in works.items()}, how)


def pending(system: System, how: How) -> dict[str, list[Sample]]:
    """By number of events that wait on disk, samples of one system, which handles none of them."""
    return in_turn({f"{n:,}": _waiting(system, _home(how, str(n)), n) for n in PENDING}, how)


def _waiting(system: System, home: Path, count: int) -> contextlib.AbstractContextManager[Bench]:
    from tests.torture.test_many import fill

    def starts(place: Place) -> Server:
        fill(place.folder / SPOOL, count)
        return system.start(place)

    return ready(system._replace(start=starts) if count else system, home)


def connections(system: System, how: How) -> dict[str, Idle]:
    """By number of idle connections beside those of the load. Raises `WrongCount`."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    found: dict[str, Idle] = {}
    counts = [count for count in IDLE if count + 1000 < hard]
    crowds = {f"{n:,}": _crowded(system, _home(how, str(n)), n, found) for n in counts}
    samples = in_turn(crowds, how)
    return {name: idle._replace(samples=samples[name]) for name, idle in found.items()}


@contextlib.contextmanager
def _crowded(system: System, home: Path, count: int, found: dict[str, Idle]) -> Iterator[Bench]:
    """With so many connections that have been served, and are idle."""
    with ready(system, home, connections=count + 1000) as bench, contextlib.ExitStack() as kept:
        server, made = bench.server, pushes()
        before = server.rss_bytes()
        for _ in range(count):
            client = kept.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            client.sendall(next(made))
            if not client.recv(4096).startswith(b"HTTP/1.1 202"):
                raise WrongCount(f"{system.name}: a connection that is to be idle was not served")
        time.sleep(SETTLE_S)
        each = (server.rss_bytes() - before) / count if count else 0.0
        used_s = -server.cpu_s()
        time.sleep(QUIET_S)
        used_s += server.cpu_s()
        found[f"{count:,}"] = Idle([], each, used_s / QUIET_S)
        yield bench
        still = metric(server.port, "fasthook_connections")
        if still < count:
            raise WrongCount(f"{system.name}: {still} connections of {count:,} are open")


def _home(how: How, name: str) -> Path:
    home = how.folder / name
    home.mkdir(exist_ok=True)
    return home


def start(system: System, how: How) -> list[float]:
    """Seconds from the command to its being ready, with ten endpoints and a new spool."""
    return [_starting(system, how) for _ in range(how.rounds)]


def _starting(system: System, how: How) -> float:
    place = Place(_home(how, "start"), free_port(), PUSH._replace(endpoints=10), 0)
    began_s = time.monotonic()
    server = system.start(place)
    try:
        with contextlib.suppress(OSError):  # without the right to it, others' work counts, too
            os.sched_setscheduler(server.processes[0].pid, os.SCHED_RR, os.sched_param(1))
        wait_for(lambda: _is_ready(server), "readiness")
        took_s = time.monotonic() - began_s
    finally:
        server.stop()
        shutil.rmtree(place.folder)
    how.tell()
    return took_s


def _is_ready(server: Server) -> bool:
    with contextlib.suppress(HTTPError):
        url = f"http://127.0.0.1:{server.port + 1}/readyz"
        return urllib3.request("GET", url, retries=False).status == 200
    return False


def memory(system: System, how: How) -> list[Moment]:
    """Of a system under full load, from before its first request on."""
    script = how.folder / "memory.lua"
    size = write_script(script, PUSH)
    moments: list[Moment] = []
    with running(system, how.folder, PUSH, size) as server:
        bench = Bench(system, server, PUSH, script)
        home = next(how.folder.glob("fasthook-*"))
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
            bench.once(10 * how.seconds)
        finally:
            ended.set()
            watcher.join()
    how.tell()
    return moments


def _disk_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # a segment that was just dropped
            total += path.stat().st_blocks * 512
    return total


def backlog(system: System, how: How) -> Full:
    """Of a system whose handlers are slow, to which more comes than its memory may hold."""
    script, seconds = how.folder / "backlog.lua", 4 * how.seconds
    write_script(script, PUSH, forge_every=0)
    with running(system, how.folder, PUSH) as server:
        load(server.url, script, seconds, CROWD)
        time.sleep(SETTLE_S)
        accepted, held = server.counts().accepted, metric(server.port, "fasthook_backlog_events")
        peak = server.peak_bytes()
        server.processes[0].kill()  # its handlers would be waited for
    if accepted <= held:
        raise WrongCount(f"{system.name}: {accepted} events are no more than its backlog holds")
    how.tell()
    return Full(seconds, accepted, held, peak)


class Section(NamedTuple):
    """One that measures one system. `steps`: how often it tells, by number of rounds."""

    says: str
    system: str
    measure: Callable[[System, How], Any]
    steps: Callable[[int], int]


#: By the name that results have in `Results`, too.
ALONE = {
    "endpoints": Section("endpoints", MANY, endpoints, lambda rounds: rounds * len(ENDPOINTS)),
    "pending": Section("events that wait", WAITING, pending, lambda rounds: rounds * len(PENDING)),
    "connections": Section("idle", MANY, connections, lambda rounds: rounds * len(IDLE)),
    "memory": Section("memory and disk", LASTING, memory, lambda rounds: 1),
    "backlog": Section("a full backlog", SLOW, backlog, lambda rounds: 1),
    "start": Section("start", LASTING, start, lambda rounds: rounds),
}
