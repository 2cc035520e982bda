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
import tempfile
import time
from pathlib import Path

from bench.servers import (
    System,
    cpu_s,
    ended,
    fasthook,
    handled,
    make_handler,
    measure,
    start,
    wait_until_open,
)
from bench.workload import push_body, wrk_script

PORT = 18110
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


def uvicorn(folder: Path, port: int) -> System:
    """Bare ASGI at its best."""
    (folder / "bare_asgi.py").write_text(ASGI)
    options = ["--port", str(port), "--no-access-log", "--log-level", "error"]
    loops = ["--loop", "uvloop", "--http", "httptools"]
    command = ["-m", "uvicorn", "bare_asgi:app", *options, *loops]
    return System(port, start(command, folder, folder / "uvicorn.log"))


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
            "none": fasthook(folder, "none", PORT),
            "hold, fsync": fasthook(folder, "hold", PORT + 2, durability="fsync", hold=True),
            "whole, fsync": fasthook(folder, "whole", PORT + 4, durability="fsync"),
            "uvicorn ASGI": uvicorn(folder, PORT + 6),
        }
        with ended(systems):
            compare(systems, script, options.seconds, options.rounds)
            report_disk(folder, systems["whole, fsync"])


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


def report_disk(folder: Path, system: System) -> None:
    """Bytes of journal and index for each event that was handled."""
    count = handled(system)
    for what, pattern in (("journal", "journal/*/*.seg"), ("index", "index.db*")):
        total = sum(path.stat().st_size for path in (folder / "whole").glob(pattern))
        print(f"{what} {total / count:,.0f} bytes an event ({count:,} events)")


if __name__ == "__main__":
    main()
