"""How long an answer takes at a fixed rate of arrivals, whatever the answers take (open loop).

    python -m bench.latency [--rate R] [--seconds S]

fasthook syncs each batch (`fsync`) and runs a no-op handler, on one core; the load is on the other.
Without --rate the maximum is measured by `wrk` first, and 70 % of it is sent. Latency counts from
the moment at which a request was to be sent, so that a stall is not hidden by sending less.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path

import uvloop

from bench.servers import fasthook, make_handler, measure, wait_until_open
from bench.workload import push_body, request, wrk_script

PORT = 18130
CONNECTIONS = 64


class Client(asyncio.Protocol):
    """One connection: requests go out when they are due, answers are counted as they come."""

    def __init__(self, latencies_s: list[float], refused: list[bytes]) -> None:
        self.due_s: list[float] = []
        self._latencies_s = latencies_s
        self._refused = refused

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """One or more answers; they have no bodies."""
        now_s = time.perf_counter()
        for answer in data.split(b"\r\n\r\n")[:-1]:
            if not answer.startswith(b"HTTP/1.1 202"):
                self._refused.append(answer)
            self._latencies_s.append(now_s - self.due_s.pop(0))


async def send(port: int, rate: float, seconds: float) -> tuple[list[float], list[bytes]]:
    """Latencies in seconds, and the answers that were no 202."""
    loop = asyncio.get_running_loop()
    latencies_s: list[float] = []
    refused: list[bytes] = []
    clients = []
    for _ in range(CONNECTIONS):
        _, client = await loop.create_connection(
            lambda: Client(latencies_s, refused), "127.0.0.1", port
        )
        clients.append(client)
    headers, body = request("/github", push_body())
    head = "POST /github HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items())
    before, _, after = head.partition(headers["X-GitHub-Delivery"])
    start, end = before.encode(), after.encode() + b"\r\n" + body
    run = os.urandom(8).hex()
    began_s = time.perf_counter()
    count = int(rate * seconds)
    for number in range(count):
        due_s = began_s + number / rate
        while (wait_s := due_s - time.perf_counter()) > 0:
            await asyncio.sleep(wait_s if wait_s > 0.001 else 0)
        client = clients[number % CONNECTIONS]
        client.due_s.append(due_s)
        client.transport.write(b"%b%b-%012d%b" % (start, run.encode(), number, end))
        if number % 16 == 0:
            await asyncio.sleep(0)
    deadline_s = time.perf_counter() + 10
    while len(latencies_s) < count and time.perf_counter() < deadline_s:
        await asyncio.sleep(0.01)
    return latencies_s, refused


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--seconds", type=float, default=8.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_handler(folder)
        script = folder / "push.lua"
        wrk_script(script, "/github", push_body(), unique_ids=True)
        port, process = fasthook(folder, "whole", PORT, durability="fsync")
        try:
            wait_until_open(port)
            maximum = max(measure(port, script, 2)[0] for _ in range(3))
            rate = options.rate or 0.7 * maximum
            time.sleep(1)
            os.sched_setaffinity(0, {1})
            latencies_s, refused = uvloop.run(send(port, rate, options.seconds))
        finally:
            process.terminate()
            process.wait()
    cuts = statistics.quantiles(latencies_s, n=1000)
    print(f"maximum {maximum:,.0f}/s; sent {rate:,.0f}/s, {len(latencies_s):,} answers")
    for name, cut in (("p50", 499), ("p99", 989), ("p99.9", 998)):
        print(f"{name} {cuts[cut] * 1e3:.1f} ms")
    print(f"not 202: {len(refused)}")


if __name__ == "__main__":
    main()
