"""What stays the same: cost of an event, however many endpoints, events and connections there are.

    python -m bench.flat [--rounds N] [--seconds S] [SECTION ...]

endpoints     CPU an event with 1 and with 10,000 endpoints
pending       with nothing and with 1,000,000 events that wait on disk
connections   with 1 and with 10,000 connections that are idle; memory of each
memory        of a worker under full load, whose handlers are slow and whose backlog is full
start         from the command until it is ready, with ten endpoints

Two services take turns (A B A B); the ratio of each round, its median and range are printed, and
what is demanded of it. The services have core 0, the load core 1. Exit code 1: a demand is missed.
"""

import argparse
import contextlib
import itertools
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import urllib3
import uvloop

from bench.servers import System, cpu_s, ended, make_handler, metric, start, wait_until_open
from bench.workload import SECRET, push_body, request
from fasthook.cli.bench.load import Load, Senders

PORT = 18170
ENDPOINTS, PENDING, IDLE = 10_000, 1_000_000, 10_000
FLAT = 0.10
MAX_CONNECTION_BYTES = 10 * 1024
MAX_WORKER_BYTES = 100 * 1024**2
MAX_START_S = 0.5
_CONFIG = """
[server]
listen = ["tcp://127.0.0.1:{port}"]
max_connections = 20000
[admin]
listen = "tcp://127.0.0.1:{admin_port}"
[spool]
path = "{name}"
durability = "{durability}"
max_bytes = "100GiB"
[dispatch]
hold = {hold}
[log]
requests = false
"""
_ENDPOINT = """
[[endpoint]]
name = "github{number}"
path = "/github{number}"
provider = "github"
secrets = ["plain:{secret}"]
handlers = ["{handler}"]
"""
#: Slower than any load: the backlog is full at once.
_SLOW = """
import asyncio
from bench.workload import Push
from fasthook import Event, handler

@handler(timeout=600, concurrency=8)
async def slow(event: Event[Push]) -> None:
    await asyncio.sleep(60)
"""


class Result(NamedTuple):
    """One figure, and what is demanded of it."""

    name: str
    text: str
    is_good: bool


class Kind(NamedTuple):
    """What differs between services."""

    endpoints: int = 1
    durability: str = "os"
    hold: bool = False
    handler: str = "noop"


def service(folder: Path, name: str, port: int, kind: Kind) -> System:
    """fasthook with a spool of its own; its metrics are on the next port."""
    settings = {"port": port, "admin_port": port + 1, "name": name}
    hold = str(kind.hold).lower()
    text = _CONFIG.format(**settings, durability=kind.durability, hold=hold)
    text += "".join(
        _ENDPOINT.format(number=number, secret=SECRET.decode(), handler=kind.handler)
        for number in range(kind.endpoints)
    )
    config = folder / f"{name}.toml"
    config.write_text(text)
    command = ["-m", "fasthook.cli", "serve", "-c", str(config)]
    return System(port, start(command, folder, folder / f"{name}.log"))


def requests(endpoints: int) -> Iterator[bytes]:
    """A push for each of them in turn, each with an id of its own."""
    headers, body = request("/github", push_body())
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    before, _, after = lines.partition(headers["X-GitHub-Delivery"])
    start_, end = before.encode(), after.encode() + b"\r\n" + body
    run = os.urandom(8).hex().encode()
    for number in itertools.count():
        path = b"/github%d" % (number * 7919 % endpoints)
        yield b"POST %b HTTP/1.1\r\n%b%b-%d%b" % (path, start_, run, number, end)


def cost_us(system: System, endpoints: int, seconds: float) -> float:
    """CPU of the service for an event, handled and recorded."""
    used_s = -cpu_s(system.process.pid)
    loaded = uvloop.run(Load(system.port, requests(endpoints), Senders(32), for_s=seconds).run())
    settle(system)
    used_s += cpu_s(system.process.pid)
    statuses = {each.status for each in loaded.answered}
    if statuses != {202}:
        raise SystemExit(f"some were answered {statuses}")
    return used_s * 1e6 / len(loaded.answered)


def settle(system: System, longest_s: float = 5.0) -> None:
    """Wait until it does nothing more."""
    ends, before_s = time.monotonic() + longest_s, cpu_s(system.process.pid)
    while time.monotonic() < ends:
        time.sleep(0.3)
        now_s = cpu_s(system.process.pid)
        if now_s - before_s <= 0.02:
            return
        before_s = now_s


def in_turns(
    name: str, systems: Sequence[System], endpoints: Sequence[int], options: argparse.Namespace
) -> Result:
    """Cost of the second system in parts of that of the first one."""
    ratios, costs = [], []
    for system, count in zip(systems, endpoints, strict=True):
        cost_us(system, count, options.seconds / 2)
    for _ in range(options.rounds):
        pair = [
            cost_us(system, count, options.seconds)
            for system, count in zip(systems, endpoints, strict=True)
        ]
        costs.append(pair)
        ratios.append(pair[1] / pair[0])
    middle = statistics.median(ratios)
    few, many = (statistics.median(column) for column in zip(*costs, strict=True))
    text = f"× {middle:.2f} ({min(ratios):.2f} to {max(ratios):.2f}); {few:.0f} and {many:.0f} µs"
    return Result(name, f"{text} of CPU an event (± 10 % demanded)", middle <= 1 + FLAT)


@contextlib.contextmanager
def started(systems: Sequence[System], patience_s: float = 60.0) -> Iterator[None]:
    """They are open; they end with this."""
    with ended({str(number): system for number, system in enumerate(systems)}):
        for system in systems:
            ends = time.monotonic() + patience_s
            while time.monotonic() < ends and system.process.poll() is None:
                with contextlib.suppress(SystemExit):
                    wait_until_open(system.port)
                    break
        yield


def worker_bytes(system: System, key: str = "VmRSS") -> int:
    """Resident memory of its worker, as proc(5) has it."""
    pid = system.process.pid
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for line in Path(f"/proc/{child}/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"no {key} of {child}")


# --- sections -------------------------------------------------------------------------------------


def endpoints(folder: Path, options: argparse.Namespace) -> list[Result]:
    """1 and many."""
    one = service(folder, "one", PORT, Kind())
    many = service(folder, "many", PORT + 2, Kind(endpoints=options.endpoints))
    with started((one, many)):
        name = f"{options.endpoints:,} endpoints, of 1"
        return [in_turns(name, (one, many), (1, options.endpoints), options)]


def pending(folder: Path, options: argparse.Namespace) -> list[Result]:
    """Nothing, and many events that wait; neither runs handlers, or they would not wait."""
    from tests.torture.test_many import fill

    fill(folder / "waiting", options.pending)
    kind = Kind(hold=True)
    none = service(folder, "nothing", PORT + 4, kind)
    many = service(folder, "waiting", PORT + 6, kind)
    with started((none, many)):
        return [in_turns(f"{options.pending:,} that wait, of 0", (none, many), (1, 1), options)]


def connections(folder: Path, options: argparse.Namespace) -> list[Result]:
    """1 and many that have been served and are idle."""
    one = service(folder, "few", PORT + 8, Kind())
    many = service(folder, "crowd", PORT + 10, Kind())
    with started((one, many)), contextlib.ExitStack() as kept:
        cost_us(many, 1, options.seconds)
        before = worker_bytes(many)
        made = requests(1)
        for number in range(options.idle):
            client = kept.enter_context(socket.create_connection(("127.0.0.1", many.port)))
            client.sendall(next(made))
            if not client.recv(4096).startswith(b"HTTP/1.1 202"):
                raise SystemExit(f"connection {number} was not served")
        settle(many)
        each = (worker_bytes(many) - before) / options.idle
        used_s = -cpu_s(many.process.pid)
        time.sleep(2)
        used_s += cpu_s(many.process.pid)
        quiet = f"and {used_s / 2 * 100:.1f} % of a core while nothing comes"
        name = f"{options.idle:,} idle connections"
        text = f"{each:,.0f} bytes each ({MAX_CONNECTION_BYTES:,} demanded), {quiet}"
        memory = Result(name, text, each <= MAX_CONNECTION_BYTES)
        return [memory, in_turns(f"{name}, of none", (one, many), (1, 1), options)]


def memory(folder: Path, options: argparse.Namespace) -> list[Result]:
    """Of a worker whose backlog is full, and to which more comes than it stores."""
    (folder / "bench_slow.py").write_text(_SLOW)
    points = next(folder.glob("bench_noop-*.dist-info")) / "entry_points.txt"
    points.write_text(points.read_text() + "slow = bench_slow:slow\n")
    full = service(folder, "full", PORT + 12, Kind(handler="slow"))
    with started((full,)):
        seconds = 2 * options.seconds
        uvloop.run(Load(full.port, requests(1), Senders(500), for_s=seconds).run())
        taken = metric(full, 'fasthook_requests_total{endpoint="github0",result="event"}')
        peak = worker_bytes(full, "VmHWM")
        text = (
            f"{peak / 2**20:.0f} MiB at most, of {taken:,} events in {seconds:g} s (100 demanded)"
        )
        is_good = peak < MAX_WORKER_BYTES
        full.process.kill()  # its handlers would be waited for
        return [Result("memory with a full backlog", text, is_good)]


def start_up(folder: Path, options: argparse.Namespace) -> list[Result]:
    """Until `/readyz` says so; for the first time, and again."""
    client = urllib3.PoolManager(retries=False, timeout=1)
    took_s = []
    for _ in range(options.rounds):
        began_s = time.perf_counter()
        system = service(folder, "ten", PORT + 14, Kind(endpoints=10, durability="fsync"))
        with contextlib.suppress(OSError):  # without the right to it, others' work counts, too
            os.sched_setscheduler(system.process.pid, os.SCHED_RR, os.sched_param(1))
        with ended({"ten": system}):
            while True:
                with contextlib.suppress(urllib3.exceptions.HTTPError):
                    url = f"http://127.0.0.1:{system.port + 1}/readyz"
                    if client.request("GET", url).status == 200:
                        break
                time.sleep(0.002)
            took_s.append(time.perf_counter() - began_s)
    middle = statistics.median(took_s)
    text = f"{middle:.2f} s ({min(took_s):.2f} to {max(took_s):.2f}; {MAX_START_S:g} demanded)"
    return [Result("ready with ten endpoints", text, middle < MAX_START_S)]


SECTIONS: dict[str, Callable[[Path, argparse.Namespace], list[Result]]] = {
    "endpoints": endpoints,
    "pending": pending,
    "connections": connections,
    "memory": memory,
    "start": start_up,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--endpoints", type=int, default=ENDPOINTS)
    parser.add_argument("--pending", type=int, default=PENDING)
    parser.add_argument("--idle", type=int, default=IDLE)
    options = parser.parse_args()
    if unknown := set(options.sections) - set(SECTIONS):
        parser.error(f"{', '.join(unknown)}: expected some of {', '.join(SECTIONS)}")
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    is_good = True
    for name in options.sections or SECTIONS:
        with tempfile.TemporaryDirectory() as folder:
            make_handler(Path(folder))
            for result in SECTIONS[name](Path(folder), options):
                mark = "good" if result.is_good else "MISSED"
                print(f"{mark:7} {result.name}: {result.text}", flush=True)
                is_good = is_good and result.is_good
    sys.exit(0 if is_good else 1)


if __name__ == "__main__":
    main()
