"""What a line for each request and each attempt costs, A B A B, on one core; the load on the other.

    python -m bench.lines [--seconds S] [--rounds N] [--durability none]

Services take the same signed GitHub events and run a handler that does nothing: one without lines,
one that writes a line for each request as text to a file, one that sends it to a journal; and both
again with another line for each event that was handled. The journal is a process on the other core
that reads the datagrams and throws them away, so that what is measured is what fasthook does.
Prints rates, and CPU of the service a request (all its threads, user and kernel) with ratios to the
quiet one of the same round: on one core the rest is noise.
"""

import argparse
import multiprocessing
import socket
import statistics
import tempfile
from pathlib import Path

from bench.servers import (
    System,
    cpu_s,
    ended,
    fasthook,
    handled,
    make_handler,
    measure,
    metric,
    wait_until_open,
)
from bench.workload import push_body, wrk_script

PORT = 18150
#: As systemd sets it (net.unix.max_dgram_qlen is 512 there), so that a batch finds room.
JOURNAL_BUFFER_BYTES = 8 * 1024**2


def read_journal(path: str) -> None:
    """Take entries, as journald does, and throw them away."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, JOURNAL_BUFFER_BYTES)
        taken.bind(path)
        while True:
            taken.recv(65536)


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
        taken = f"{folder}/journal.sock"
        journal = multiprocessing.Process(target=read_journal, args=(taken,))
        journal.start()
        logs: dict[str, dict[str, object]] = {
            "quiet": {"format": "text", "requests": False, "attempts": False},
            "text": {"format": "text", "attempts": False},
            "journal": {"format": "journal", "journal_socket": taken, "attempts": False},
            "text, both": {"format": "text"},
            "journal, both": {"format": "journal", "journal_socket": taken},
        }
        systems = {
            form: fasthook(folder, form, PORT + 2 * index, durability=options.durability, log=log)
            for index, (form, log) in enumerate(logs.items())
        }
        try:
            with ended(systems):
                compare(systems, script, options.seconds, options.rounds)
        finally:
            journal.terminate()
            journal.join()


def compare(systems: dict[str, System], script: Path, seconds: int, rounds: int) -> None:
    """Rounds of all systems in turn, and the ratios of each round."""
    ratios: dict[str, list[float]] = {name: [] for name in systems}
    for system in systems.values():
        wait_until_open(system.port)
        measure(system.port, script, 1)
    for number in range(rounds):
        base = 0.0
        for name, system in systems.items():
            cpu, count = cpu_s(system.process.pid), handled(system)
            rate, p99 = measure(system.port, script, seconds)
            us = (cpu_s(system.process.pid) - cpu) / (handled(system) - count) * 1e6
            base = base or us
            ratios[name].append(us / base)
            print(f"round {number + 1}  {name:13} {rate:9,.0f}/s  p99 {p99:>8}  {us:4.0f} us CPU")
    for name, values in ratios.items():
        low, middle, high = min(values), statistics.median(values), max(values)
        dropped = metric(systems[name], 'fasthook_log_lines_unwritten_total{why="dropped"}')
        lines = f"{handled(systems[name]):,} handled, {dropped:,} lines dropped"
        print(f"{name:13} × {middle:.2f} of the CPU of quiet ({low:.2f} to {high:.2f}), {lines}")


if __name__ == "__main__":
    main()
