"""Durable accepts beside accepts that store nothing, A B A B, on one core; the load on the other.

    python -m bench.durable [--seconds S] [--rounds N]

Three systems take the same stream of signed GitHub events with ids of their own: fasthook with
`durability = "none"`, fasthook that syncs each batch and runs no handler (`hold`), and bare ASGI
on uvicorn, which parses the JSON and stores nothing. Then fasthook with everything: accepted,
synced, handled, outcome recorded. Prints rates, ratios of each round, CPU of the server a request,
and bytes on disk an event. Needs `wrk`, uvicorn, and two cores for `taskset`.
"""

import argparse
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from bench.compare import handled, make_handler, measure, start, wait_until_open
from bench.workload import SECRET, push_body, wrk_script

FIRST_PORT = 18110
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
requests = false
[[endpoint]]
name = "github"
path = "/github"
provider = "github"
secrets = ["plain:{secret}"]
handlers = ["noop"]
"""
ASGI = """
import orjson

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    orjson.loads(body)
    await send({"type": "http.response.start", "status": 202, "headers": []})
    await send({"type": "http.response.body", "body": b""})
"""


class System(NamedTuple):
    """One server under load."""

    port: int
    process: subprocess.Popen[bytes]


def fasthook(folder: Path, name: str, port: int, durability: str, hold: str) -> System:
    """fasthook, with a spool in a folder of its own."""
    config = folder / f"{name}.toml"
    config.write_text(
        CONFIG.format(
            name=name,
            port=port,
            admin_port=port + 1,
            durability=durability,
            hold=hold,
            secret=SECRET.decode(),
        )
    )
    command = ["-m", "fasthook.cli", "serve", "-c", str(config)]
    return System(port, start(command, folder, folder / f"{name}.log"))


def uvicorn(folder: Path, port: int) -> System:
    """Bare ASGI at its best."""
    (folder / "bare_asgi.py").write_text(ASGI)
    options = ["--port", str(port), "--no-access-log", "--log-level", "error"]
    loops = ["--loop", "uvloop", "--http", "httptools"]
    command = ["-m", "uvicorn", "bare_asgi:app", *options, *loops]
    return System(port, start(command, folder, folder / "uvicorn.log"))


def cpu_s(pid: int) -> float:
    """CPU that a process and its children have used, in user and kernel."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    total = 0
    for each in (pid, *children):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / 100


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_handler(folder)
        script = folder / "push.lua"
        wrk_script(script, "/github", push_body(), unique_ids=True)
        systems = {
            "none": fasthook(folder, "none", FIRST_PORT, "none", "false"),
            "hold, fsync": fasthook(folder, "hold", FIRST_PORT + 2, "fsync", "true"),
            "whole, fsync": fasthook(folder, "whole", FIRST_PORT + 4, "fsync", "false"),
            "uvicorn ASGI": uvicorn(folder, FIRST_PORT + 6),
        }
        try:
            compare(systems, script, options.seconds, options.rounds)
            report_disk(folder, systems["whole, fsync"].port)
        finally:
            for system in systems.values():
                system.process.terminate()
                system.process.wait()


def compare(systems: dict[str, System], script: Path, seconds: int, rounds: int) -> None:
    """Rounds of all systems in turn, and the ratios of each round."""
    rates: dict[str, list[float]] = {name: [] for name in systems}
    costs: dict[str, list[float]] = {name: [] for name in systems}
    for system in systems.values():
        wait_until_open(system.port)
        measure(system.port, script, 1)
    for number in range(rounds):
        for name, (port, process) in systems.items():
            before_s = cpu_s(process.pid)
            rate, p99 = measure(port, script, seconds)
            time.sleep(0.5)  # its index catches up, at nobody else's cost
            costs[name].append((cpu_s(process.pid) - before_s) / (rate * seconds) * 1e6)
            rates[name].append(rate)
            print(f"round {number + 1}  {name:14} {rate:9,.0f}/s  p99 {p99:>8}", flush=True)
    for name in systems:
        for base in ("none", "uvicorn ASGI"):
            ratios = [a / b for a, b in zip(rates[name], rates[base], strict=True)]
            low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
            print(f"{name:14} x {middle:.2f} of {base} ({low:.2f} to {high:.2f})")
        print(f"{name:14} {statistics.median(costs[name]):6.1f} us of CPU a request")


def report_disk(folder: Path, port: int) -> None:
    """Bytes of journal and index for each event that was handled."""
    count = handled(port + 1)
    for what, pattern in (("journal", "journal/*/*.seg"), ("index", "index.db*")):
        total = sum(path.stat().st_size for path in (folder / "whole").glob(pattern))
        print(f"{what} {total / count:,.0f} bytes an event ({count:,} events)")


if __name__ == "__main__":
    main()
