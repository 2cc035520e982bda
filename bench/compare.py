"""fasthook beside the prototype, A B A B, on one core; the load on the other.

    python -m bench.compare [--seconds S] [--rounds N]

Prints requests a second, and the ratio to the prototype of the same round: machines are noisy, so
rounds are compared pair by pair. Needs `wrk`, and two cores for `taskset`.
"""

import argparse
import contextlib
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import urllib3

from bench.workload import SECRET, push_body, wrk_script

ROOT = Path(__file__).parents[1]
PROTOTYPE_PORT = 18090
CONFIG = """
[server]
listen = ["tcp://127.0.0.1:{port}"]
[admin]
listen = "tcp://127.0.0.1:{admin_port}"
[spool]
durability = "none"
[log]
requests = {requests}
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


def handled(admin_port: int) -> int:
    """How many events the handler has done, as the service counts."""
    text = urllib3.request("GET", f"http://127.0.0.1:{admin_port}/metrics").data.decode()
    count = re.search(r'fasthook_attempts_total\{handler="noop",outcome="done"\} ([\d.e+]+)', text)
    return int(float(count[1])) if count else 0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_handler(folder)
        script = folder / "push.lua"
        wrk_script(script, "/github", push_body())
        ports = {"prototype": PROTOTYPE_PORT}
        servers = [start(["-m", "bench.prototype", str(PROTOTYPE_PORT)], folder, folder / "p.log")]
        for index, (system, requests) in enumerate({"quiet": "false", "logged": "true"}.items()):
            port = PROTOTYPE_PORT + 1 + 2 * index
            config = folder / f"{system}.toml"
            config.write_text(
                CONFIG.format(
                    port=port, admin_port=port + 1, requests=requests, secret=SECRET.decode()
                )
            )
            command = ["-m", "fasthook.cli", "serve", "-c", str(config)]
            servers.append(start(command, folder, folder / f"{system}.log"))
            ports[f"fasthook {system}"] = port
        try:
            compare(ports, script, options.seconds, options.rounds)
        finally:
            for server in servers:
                server.terminate()
                server.wait()


def compare(ports: dict[str, int], script: Path, seconds: int, rounds: int) -> None:
    """Rounds of all systems in turn, and the ratios of each round."""
    ratios: dict[str, list[float]] = {system: [] for system in ports}
    for port in ports.values():
        wait_until_open(port)
        measure(port, script, 1)
    for number in range(rounds):
        base = 0.0
        for system, port in ports.items():
            rate, p99 = measure(port, script, seconds)
            base = base or rate
            ratios[system].append(rate / base)
            print(f"round {number + 1}  {system:18} {rate:9,.0f}/s  p99 {p99:>8}", flush=True)
    for system, values in ratios.items():
        low, middle, high = min(values), statistics.median(values), max(values)
        print(f"{system:18} × {middle:.2f} of the prototype ({low:.2f} to {high:.2f})")
    for system, port in ports.items():
        if system != "prototype":
            print(f"{system:18} handled {handled(port + 1):,} events")


if __name__ == "__main__":
    main()
