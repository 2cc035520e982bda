"""What a line for each request and each attempt costs, A B A B, on one core; the load on the other.

    python -m bench.lines [--seconds S] [--rounds N] [--durability none]

Three services take the same signed GitHub events and run a handler that does nothing: one without
lines of requests, one that writes them as text to a file, one that sends them to a journal. The
journal is a process on the other core that reads the datagrams and throws them away, so that what
is measured is what fasthook does. Prints rates, and ratios to the quiet one of the same round.
"""

import argparse
import multiprocessing
import re
import socket
import statistics
import tempfile
from pathlib import Path

import urllib3

from bench.compare import handled, make_handler, measure, start, wait_until_open
from bench.workload import SECRET, push_body, wrk_script

FIRST_PORT = 18130
CONFIG = """
[server]
listen = ["tcp://127.0.0.1:{port}"]
[admin]
listen = "tcp://127.0.0.1:{admin_port}"
[spool]
path = "{form}"
durability = "{durability}"
max_bytes = "100GiB"
[log]
format = "{form}"
requests = {requests}
journal_socket = "{folder}/journal"
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
        journal = multiprocessing.Process(target=read_journal, args=(f"{folder}/journal",))
        journal.start()
        ports, servers = {}, []
        for index, (form, requests) in enumerate(
            {"json": "false", "text": "true", "journal": "true"}.items()
        ):
            port = FIRST_PORT + 2 * index
            system = form if requests == "true" else "quiet"
            config = folder / f"{form}.toml"
            config.write_text(
                CONFIG.format(
                    port=port,
                    admin_port=port + 1,
                    form=form,
                    requests=requests,
                    durability=options.durability,
                    folder=folder,
                    secret=SECRET.decode(),
                )
            )
            command = ["-m", "fasthook.cli", "serve", "-c", str(config)]
            servers.append(start(command, folder, folder / f"{form}.log"))
            ports[system] = port
        try:
            compare(ports, script, options.seconds, options.rounds)
        finally:
            for server in servers:
                server.terminate()
                server.wait()
            journal.terminate()
            journal.join()


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
            print(f"round {number + 1}  {system:8} {rate:9,.0f}/s  p99 {p99:>8}", flush=True)
    for system, values in ratios.items():
        low, middle, high = min(values), statistics.median(values), max(values)
        lines = f"{handled(ports[system] + 1):,} events handled"
        lost = f"{unwritten(ports[system] + 1):,} lines dropped"
        print(f"{system:8} × {middle:.2f} of quiet ({low:.2f} to {high:.2f}), {lines}, {lost}")


if __name__ == "__main__":
    main()
