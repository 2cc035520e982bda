"""Requests at a fixed rate of arrivals, whatever the answers take (open loop).

Latency counts from the moment at which a request was to be sent, so that a stall is not hidden by
sending less.
"""

import asyncio
import time

from bench.servers import CONNECTIONS
from bench.workload import pushes


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
    made = pushes()
    began_s = time.perf_counter()
    count = int(rate * seconds)
    for number in range(count):
        due_s = began_s + number / rate
        while (wait_s := due_s - time.perf_counter()) > 0:
            await asyncio.sleep(wait_s if wait_s > 0.001 else 0)
        client = clients[number % CONNECTIONS]
        client.due_s.append(due_s)
        client.transport.write(next(made))
        if number % 16 == 0:
            await asyncio.sleep(0)
    deadline_s = time.perf_counter() + 10
    while len(latencies_s) < count and time.perf_counter() < deadline_s:
        await asyncio.sleep(0.01)
    return latencies_s, refused
