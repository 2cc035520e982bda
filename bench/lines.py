"""What a line for each request and each attempt costs, A B A B, on one core; the load on the other.

    python -m bench.lines [--seconds S] [--rounds N] [--durability none]

Three services take the same signed GitHub events and run a handler that does nothing: one without
lines of requests, one that writes them as text to a file, one that sends them to a journal. The
journal is a process on the other core that reads the datagrams and throws them away, so that what
is measured is what fasthook does. Prints rates, and CPU of the service a request (all its threads,
user and kernel) with ratios to the quiet one of the same round: on one core the rest is noise.
"""

import argparse
import multiprocessing
import re
import socket
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import urllib3

from bench.compare import handled, make_handler, measure, start, wait_until_open
from bench.durable import cpu_s
from bench.workload import SECRET, push_body, wrk_script

FIRST_PORT = 18130
CONFIG = """
[server]
listen = ["tcp://127.0.0.1:{port}"]
[admin]
listen = "tcp://127.0.0.1:{admin_port}"
[spool]
path = "{name}"
durability = "{durability}"
max_bytes = "100GiB"
[log]
format = "{form}"
requests = {requests}
journal_socket = "{folder}/journal.sock"
[[endpoint]]
name = "github"
path = "/github"
provider = "github"
secrets = ["plain:{secret}"]
handlers = ["noop"]
"""
#: As systemd sets it (net.unix.max_dgram_qlen is 512 there), so that a batch finds room.
JOURNAL_BUFFER_BYTES = 8 * 1024**2


def read_journal(path: str) -> None:
    """Take entries, as journald does, and throw them away."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, JOURNAL_BUFFER_BYTES)
        taken.bind(path)
        while True:
            taken.recv(65536)


def unwritten(admin_port: int) -> int:
    """How many lines were dropped, as the service counts."""
    text = urllib3.request("GET", f"http://127.0.0.1:{admin_port}/metrics").data.decode()
    count = re.search(r'fasthook_log_lines_unwritten_total\{why="dropped"\} ([\d.e+]+)', text)
    return int(float(count[1])) if count else 0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--durability", choices=("fsync", "os", "none"), default="fsync")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_handler(folder)
        script = folder / "push.lua"
        wrk_script(script, "/github", push_body(), unique_ids=True)
        journal = multiprocessing.Process(target=read_journal, args=(f"{folder}/journal.sock",))
        journal.start()
        systems: dict[str, System] = {}
        for index, form in enumerate(("quiet", "text", "journal")):
            port = FIRST_PORT + 2 * index
            config = folder / f"{form}.toml"
            config.write_text(
                CONFIG.format(
                    port=port,
                    admin_port=port + 1,
                    name=form,
                    form="text" if form == "quiet" else form,
                    requests="false" if form == "quiet" else "true",
                    durability=options.durability,
                    folder=folder,
                    secret=SECRET.decode(),
                )
            )
            command = ["-m", "fasthook.cli", "serve", "-c", str(config)]
            systems[form] = System(port, start(command, folder, folder / f"{form}.log"))
            wait_until_open(port)
        try:
            compare(systems, script, options.seconds, options.rounds)
        finally:
            for system in systems.values():
                system.process.terminate()
                system.process.wait()
            journal.terminate()
            journal.join()


class System(NamedTuple):
    """One server under load."""

    port: int
    process: subprocess.Popen[bytes]


def compare(systems: dict[str, System], script: Path, seconds: int, rounds: int) -> None:
    """Rounds of all systems in turn, and the ratios of each round."""
    ratios: dict[str, list[float]] = {name: [] for name in systems}
    for system in systems.values():
        measure(system.port, script, 1)
    for number in range(rounds):
        base = 0.0
        for name, (port, process) in systems.items():
            cpu, count = cpu_s(process.pid), handled(port + 1)
            rate, p99 = measure(port, script, seconds)
            us = (cpu_s(process.pid) - cpu) / (handled(port + 1) - count) * 1e6
            base = base or us
            ratios[name].append(us / base)
            print(f"round {number + 1}  {name:8} {rate:9,.0f}/s  p99 {p99:>8}  {us:4.0f} us CPU")
    for name, values in ratios.items():
        low, middle, high = min(values), statistics.median(values), max(values)
        port = systems[name].port
        lines = f"{handled(port + 1):,} handled, {unwritten(port + 1):,} lines dropped"
        print(f"{name:8} × {middle:.2f} of the CPU of quiet ({low:.2f} to {high:.2f}), {lines}")


if __name__ == "__main__":
    main()
