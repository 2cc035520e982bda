"""Servers to be measured, on core 0, and what loads them, on core 1."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import urllib3

from bench.workload import SECRET

ROOT = Path(__file__).parents[1]
CONFIG = """
[server]
listen = ["tcp://127.0.0.1:{port}"]
[admin]
listen = "tcp://127.0.0.1:{admin_port}"
[spool]
path = "{name}"
durability = "{durability}"
max_bytes = "100GiB"
[dispatch]
hold = {hold}
[log]
{log}
[[endpoint]]
name = "github"
path = "/github"
provider = "github"
secrets = ["plain:{secret}"]
handlers = ["noop"]
"""
#: Installed by hand into the folder of the run: a handler for the typed `push` that does nothing.
HANDLER = """
from bench.workload import Push
from fasthook import Event, handler

@handler
async def noop(event: Event[Push]) -> None:
    pass
"""


class System(NamedTuple):
    """One server under load; of fasthook the next port is that of its metrics."""

    port: int
    process: subprocess.Popen[bytes]


def make_handler(folder: Path) -> None:
    """A module with its entry point, as `pip install` would leave it."""
    (folder / "bench_noop.py").write_text(HANDLER)
    info = folder / "bench_noop-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bench-noop\nVersion: 0\n")
    (info / "entry_points.txt").write_text("[fasthook.handlers]\nnoop = bench_noop:noop\n")


def start(command: list[str], folder: Path, log: Path) -> subprocess.Popen[bytes]:
    """A server on core 0."""
    environment = os.environ | {"PYTHONPATH": f"{folder}:{ROOT}"}
    with log.open("wb") as output:
        return subprocess.Popen(
            ["taskset", "-c", "0", sys.executable, *command],
            env=environment,
            stdout=output,
            stderr=output,
        )


def fasthook(
    folder: Path,
    name: str,
    port: int,
    *,
    durability: str = "none",
    hold: bool = False,
    log: Mapping[str, object] | None = None,
) -> System:
    """fasthook, with a spool in a folder of its own. `log`: of `[log]`; without it, no requests."""
    config = folder / f"{name}.toml"
    settings = {"requests": False, "attempts": False} if log is None else log
    config.write_text(
        CONFIG.format(
            port=port,
            admin_port=port + 1,
            name=name,
            durability=durability,
            hold=str(hold).lower(),
            log="\n".join(f"{key} = {_toml(value)}" for key, value in settings.items()),
            secret=SECRET.decode(),
        )
    )
    command = ["-m", "fasthook.cli", "serve", "-c", str(config)]
    return System(port, start(command, folder, folder / f"{name}.log"))


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f'"{value}"'


@contextlib.contextmanager
def ended(systems: Mapping[str, System]) -> Iterator[None]:
    """They end with this."""
    try:
        yield
    finally:
        for system in systems.values():
            system.process.terminate()
            system.process.wait()


def wait_until_open(port: int) -> None:
    """Return when something takes connections there."""
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise SystemExit(f"nothing listens on port {port}")


def measure(port: int, script: Path, seconds: int, connections: int = 64) -> tuple[float, str]:
    """Requests a second by `wrk` on core 1, and the latency at the 99th percentile."""
    result = subprocess.run(
        [
            *("taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{seconds}s"),
            *("--latency", "-s", str(script), f"http://127.0.0.1:{port}"),
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    if "Non-2xx" in result:
        raise SystemExit(f"some requests were refused:\n{result}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", result)
    p99 = re.search(r"99%\s+(\S+)", result)
    assert rate is not None
    assert p99 is not None
    return float(rate[1]), p99[1]


def metric(system: System, name: str) -> int:
    """A counter of fasthook, as its `/metrics` has it: name and labels."""
    url = f"http://127.0.0.1:{system.port + 1}/metrics"
    text = urllib3.request("GET", url).data.decode()
    count = re.search(rf"^{re.escape(name)} ([\d.e+]+)$", text, re.MULTILINE)
    return int(float(count[1])) if count else 0


def handled(system: System) -> int:
    """How many events the handler has done, as the service counts."""
    return metric(system, 'fasthook_attempts_total{handler="noop",outcome="done"}')


def cpu_s(pid: int) -> float:
    """CPU that a process and its children have used, in user and kernel."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    total = 0
    for each in (pid, *children):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / 100
