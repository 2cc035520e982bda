"""Requests over connections of its own, and how long their answers take.

A connection has one request under way at a time, as senders of webhooks have. Latency counts from
when a request was due, not from when it could be sent: a service that stalls must not look better
because less was sent to it meanwhile (coordinated omission).
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

#: Requests are looked for this often when they come at a rate: as fine as the loop's clock.
_TICK_S: Final = 0.001
#: Sent in one go before answers are looked at.
_AT_ONCE: Final = 64
_SWEEP_S: Final = 0.05
_CLOSES: Final = b"\r\nConnection: close\r\n"


class Senders(NamedTuple):
    """Who sends, together."""

    connections: int = 64  # at most
    wait_s: float = math.inf  # for a free one; beyond, a request counts as unsent
    timeout_s: float = 30.0  # for an answer, since it was due


class Answered(NamedTuple):
    """One request that was sent."""

    due_s: float  # since the load began
    took_s: float  # from when it was due
    status: int  # 0: the connection ended; -1: no answer in time


class Loaded(NamedTuple):
    """What a load came to."""

    answered: list[Answered]
    unsent: list[float]  # when they were due: no connection was free in time
    took_s: float
    lags_s: list[float]  # how late the load itself looked, each time that something was due
    busy: float  # part of the time in which this process had a processor

    @property
    def keeps_up(self) -> bool:
        """Whether the load itself was in time, so that it measured the service."""
        return self.busy < 0.95 and quantile(sorted(self.lags_s), 0.99) <= 0.02


class _Connection(asyncio.Protocol):
    """At most one request under way."""

    def __init__(self, load: "Load") -> None:
        self._load = load
        self._buffer = b""
        self.transport: asyncio.Transport | None = None
        self.due_s = 0.0
        self.is_busy = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._load.opened(self)

    def send(self, data: bytes, due_s: float) -> None:
        """Only while it is not busy."""
        self.due_s, self.is_busy = due_s, True
        if self.transport is not None:
            self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data if self._buffer else data
        status = status_of(data)
        if not status:
            self._buffer = data
            return
        self._buffer = b""
        if _CLOSES in data and self.transport is not None:
            self.transport.close()  # its last answer: whatever is sent now would be in vain
        self._load.answered(self, status)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._load.lost(self)


def status_of(answer: bytes) -> int:
    """The status of an answer, once it is whole; else 0."""
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return 0
    at = answer.find(b"Content-Length: ", 0, end)
    length = int(answer[at + 16 : answer.index(b"\r", at)]) if at >= 0 else 0
    return int(answer[9:12]) if len(answer) >= end + 4 + length else 0


class Load:
    """Sends what `requests` has, until its end or that of `dues`."""

    def __init__(
        self,
        port: int,
        requests: Iterator[bytes],
        senders: Senders,
        *,
        dues: Iterable[float] | None = None,
        for_s: float = math.inf,
        on_tick: Callable[[float, int], None] = lambda now_s, answered: None,
    ) -> None:
        """`dues`: when each is to be sent, in seconds since the begin, ascending; None: as soon as
        a connection is free, for `for_s`. `on_tick` is told now and then how long it has gone on,
        and how many are answered.
        """
        self._port = port
        self._requests = requests
        self._limit, self._wait_s, self._timeout_s = senders
        self._dues = iter(dues) if dues is not None else None
        self._for_s = for_s
        self._on_tick = on_tick
        self._free: deque[_Connection] = deque()
        self._busy: set[_Connection] = set()
        self._waiting: deque[float] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self._is_over = False  # nothing more is to be sent
        self._answered: list[Answered] = []
        self._unsent: list[float] = []
        self._lags_s: list[float] = []

    async def run(self) -> Loaded:
        """Until all that was sent is answered, or in vain."""
        self._ended = asyncio.get_running_loop().create_future()
        self._began_s, cpu_s = time.perf_counter(), time.process_time()
        sweeper = asyncio.create_task(self._sweep())
        if self._dues is None:
            for _ in range(self._limit):
                self._open()
        else:
            await self._schedule(self._dues)
        self._end_if_done()
        await self._ended
        sweeper.cancel()
        took_s = self._now_s()
        for connection in (*self._free, *self._busy):
            if connection.transport is not None:
                connection.transport.abort()
        busy = (time.process_time() - cpu_s) / took_s
        return Loaded(self._answered, self._unsent, took_s, self._lags_s, busy)

    def _now_s(self) -> float:
        return time.perf_counter() - self._began_s

    # --- sending ----------------------------------------------------------------------------------

    async def _schedule(self, dues: Iterator[float]) -> None:
        now_s, sent = 0.0, 0
        for due_s in dues:
            if due_s > now_s or sent >= _AT_ONCE:
                await asyncio.sleep(max(due_s - now_s, _TICK_S) if due_s > now_s else 0)
                now_s, sent = self._now_s(), 0
                self._lags_s.append(now_s - due_s)
            sent += self._send(due_s)
        self._is_over = True

    def _send(self, due_s: float) -> bool:
        """Whether that took a while."""
        if self._free:
            self._start(self._free.popleft(), due_s)
            return True
        is_full = self._connections >= self._limit
        if is_full and not self._wait_s:
            self._unsent.append(due_s)
            return False
        if not is_full:
            self._open()
        self._waiting.append(due_s)
        return not is_full

    @property
    def _connections(self) -> int:
        return len(self._free) + len(self._busy) + len(self._opening)

    def _start(self, connection: _Connection, due_s: float) -> None:
        request = next(self._requests, None) if due_s < self._for_s else None
        if request is None:
            self._is_over = True
            self._free.append(connection)
            self._end_if_done()
            return
        self._busy.add(connection)
        connection.send(request, due_s)

    def _open(self) -> None:
        task = asyncio.get_running_loop().create_task(self._connect())
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self._port)
        except OSError:  # whoever waits for it goes on waiting, to his end
            if len(self._opening) == 1 and not (self._busy or self._free):
                self._is_over = True  # nobody is there any more

    # --- what connections say ---------------------------------------------------------------------

    def opened(self, connection: _Connection) -> None:
        """It can be used."""
        self._go_on_with(connection)

    def answered(self, connection: _Connection, status: int) -> None:
        """Its request is answered."""
        self._note(connection, status)
        self._go_on_with(connection)

    def lost(self, connection: _Connection) -> None:
        """It is gone."""
        if connection.is_busy:
            self._note(connection, 0)
        elif connection in self._free:
            self._free.remove(connection)
        if self._waiting or (self._dues is None and not self._is_over):
            self._open()
        self._end_if_done()

    def _go_on_with(self, connection: _Connection) -> None:
        if connection.transport is None or connection.transport.is_closing():
            return
        if self._waiting:
            self._start(connection, self._waiting.popleft())
        elif self._dues is None and not self._is_over:
            self._start(connection, self._now_s())
        else:
            self._free.append(connection)
            self._end_if_done()

    def _note(self, connection: _Connection, status: int) -> None:
        connection.is_busy = False
        self._busy.discard(connection)
        due_s = connection.due_s
        self._answered.append(Answered(due_s, self._now_s() - due_s, status))

    # --- time -------------------------------------------------------------------------------------

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            now_s = self._now_s()
            self._on_tick(now_s, len(self._answered))
            while self._waiting and self._is_too_late(now_s - self._waiting[0]):
                self._unsent.append(self._waiting.popleft())
            for each in [c for c in self._busy if c.due_s < now_s - self._timeout_s]:
                self._note(each, -1)
                if each.transport is not None:
                    each.transport.abort()
            self._end_if_done()

    def _is_too_late(self, waited_s: float) -> bool:
        """Of who has waited longest; who has a connection that is being opened waits for that."""
        is_promised = len(self._waiting) <= len(self._opening)
        return waited_s > self._timeout_s or (waited_s > self._wait_s and not is_promised)

    def _end_if_done(self) -> None:
        if self._is_over and not (self._busy or self._waiting or self._ended.done()):
            self._ended.set_result(None)


def steadily(rate_per_s: float, seconds: float, begin_s: float = 0.0) -> Iterator[float]:
    """When requests are due that come at a fixed rate."""
    for number in range(round(rate_per_s * seconds)):
        yield begin_s + number / rate_per_s


def quantile(values: list[float], part: float) -> float:
    """The value that `part` of them do not exceed; they are sorted. 0 without any."""
    return values[min(len(values) - 1, int(len(values) * part))] if values else 0.0
