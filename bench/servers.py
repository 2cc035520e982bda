"""Servers to be measured, on one core, and what loads them, on another one."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import urllib3

from bench.workload import RESULT, Work, path_of, secret_of
from fasthook.config import Dispatch

ROOT = Path(__file__).parents[1]
_CORES = sorted(os.sched_getaffinity(0))
#: Of the server with all that belongs to it, and of the load. On a machine with one core, the same.
SERVER_CORE, LOAD_CORE = _CORES[0], _CORES[-1]
#: Of the load. Each has one request under way.
CONNECTIONS = 64
#: How often what comes at once finds room in the backlog: without a spool, the rest is shed.
ROOM = 4
#: Of fasthook, in the folder of the run.
SPOOL = "spool"
CONFIG = """
[server]
listen = ["{listen}"]
max_connections = {max_connections}
idle_timeout = "1h"
[admin]
listen = "tcp://127.0.0.1:{admin_port}"
[spool]
path = "{spool}"
durability = "{durability}"
max_bytes = "100GiB"
[dispatch]
hold = {hold}
backlog_bytes = "{backlog_bytes}B"
[log]
{log}
"""
ENDPOINT = """
[[endpoint]]
name = "{name}"
path = "{path}"
provider = "{provider}"
secrets = ["plain:{secret}"]
handlers = ["{handler}"]
"""
#: Installed by hand into the folder of the run: handlers for typed events that do nothing, and one
#: that is slower than any load, so that its backlog is full at once.
HANDLER = """
import asyncio
from bench.workload import Push, StripeEvent
from fasthook import Event, handler

@handler
async def noop(event: Event[Push]) -> None:
    pass

@handler
async def noop_stripe(event: Event[StripeEvent]) -> None:
    pass

@handler(timeout=600, concurrency=8)
async def slow(event: Event[Push]) -> None:
    await asyncio.sleep(60)
"""
_HANDLERS = {"github": "noop", "stripe": "noop_stripe"}


class NotThere(SystemExit):
    """A server or the load did not start. A program may end with it."""


def make_handler(folder: Path) -> None:
    """A module with its entry point, as `pip install` would leave it."""
    (folder / "bench_noop.py").write_text(HANDLER)
    info = folder / "bench_noop-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bench-noop\nVersion: 0\n")
    (info / "entry_points.txt").write_text(
        "[fasthook.handlers]\n"
        + "".join(f"{name} = bench_noop:{name}\n" for name in ("noop", "noop_stripe", "slow"))
    )


class Load(NamedTuple):
    """What `wrk` saw. `refused`: answered with 400 or more; `latency_us` by share of requests."""

    answered: int
    refused: int
    forged: int
    failed: int
    us: int
    latency_us: dict[str, int]

    @property
    def accepted(self) -> int:
        """Requests that were answered with success."""
        return self.answered - self.refused


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder on the disk that is measured, which goes with this: /tmp may be memory."""
    (ROOT / ".run").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / ".run", prefix="bench-") as name:
        yield Path(name)


def program(name: str) -> str:
    """Its path, or "" where it is not installed."""
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") or ""


def start(
    command: list[str], folder: Path, log: Path, extra: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """A Python program on the server's core, which may import what lies in `folder`."""
    return launch(
        [sys.executable, *command], log, {"PYTHONPATH": f"{folder}:{ROOT}"} | (extra or {})
    )


def launch(
    command: list[str], log: Path, extra: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Any program on the server's core."""
    with log.open("ab") as output:
        return subprocess.Popen(
            ["taskset", "-c", str(SERVER_CORE), *command],
            env=os.environ | dict(extra or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )


def fasthook(
    folder: Path,
    port: int,
    work: Work,
    *,
    durability: str,
    hold: bool,
    handler: str,
    log: Mapping[str, object],
    listen: str,
    max_connections: int,
) -> subprocess.Popen[bytes]:
    """fasthook, with its spool in `folder`. `log`: of `[log]`. Its metrics are at the next port.

    Empty `handler` and `listen`: the one that does nothing, and the port alone.
    """
    config = folder / "fasthook.toml"
    head = CONFIG.format(
        listen=listen or f"tcp://127.0.0.1:{port}",
        max_connections=max_connections,
        admin_port=port + 1,
        spool=SPOOL,
        durability=durability,
        hold=str(hold).lower(),
        backlog_bytes=max(Dispatch().backlog_bytes, ROOM * CONNECTIONS * len(work.body)),
        log="\n".join(f"{key} = {_toml(value)}" for key, value in log.items()),
    )
    endpoints = [
        ENDPOINT.format(
            name=path_of(work, number)[1:].replace("/", "-"),
            path=path_of(work, number),
            provider=work.provider,
            secret=secret_of(work, number).decode(),
            handler=handler or _HANDLERS[work.provider],
        )
        for number in range(work.endpoints)
    ]
    config.write_text(head + "".join(endpoints))
    command = ["-m", "fasthook.cli", "serve", "-c", str(config)]
    return start(command, folder, folder / "fasthook.log")


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f'"{value}"'


def load(url: str, script: Path, seconds: float, connections: int = CONNECTIONS) -> Load:
    """What `wrk` makes of it, on a core of its own. Raises `NotThere` where it does not run."""
    command = ["taskset", "-c", str(LOAD_CORE), "wrk", "-t1", f"-c{connections}"]
    command += [f"-d{max(1, round(seconds))}s", "--timeout", "10s", "-s", str(script), url]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    _, mark, result = run.stdout.partition(RESULT)
    if not mark:
        raise NotThere(f"wrk failed:\n{run.stdout}{run.stderr}")
    return Load(**json.loads(result))


def metric(port: int, name: str) -> int:
    """A number of fasthook at this port, as its `/metrics` have it: name and labels."""
    text = urllib3.request("GET", f"http://127.0.0.1:{port + 1}/metrics").data.decode()
    count = re.search(rf"^{re.escape(name)} ([\d.e+]+)$", text, re.MULTILINE)
    return int(float(count[1])) if count else 0


def tree(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children: list[str] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            children += (task / "children").read_text().split()
    return [pid, *(each for child in children for each in tree(int(child)))]


def cpu_s(pid: int) -> float:
    """CPU that a process tree has used, in user and kernel, with those of it that have ended."""
    total = 0
    for each in tree(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15]))
    return total / os.sysconf("SC_CLK_TCK")


def rss_bytes(pid: int) -> int:
    """Memory of a process tree; what its processes share is counted once for each."""
    total = 0
    for each in tree(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            pages = int(Path(f"/proc/{each}/statm").read_text().split()[1])
            total += pages * os.sysconf("SC_PAGE_SIZE")
    return total


def peak_bytes(pid: int) -> int:
    """The most memory that a process of a tree has taken: of fasthook, that of its worker."""
    peaks = [0]
    for each in tree(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            lines = Path(f"/proc/{each}/status").read_text().splitlines()
            peaks += [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")]
    return max(peaks)
