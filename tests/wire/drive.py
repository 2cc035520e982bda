"""What the wire's tests share: a reader fed in every way, a transport and an owner that are fakes,
a listener on a real socket."""

import asyncio
import contextlib
import itertools
import random
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import NamedTuple

import uvloop

from fasthook.errors import Rejection
from fasthook.model import Request
from fasthook.wire.answers import DateLine, render
from fasthook.wire.connection import Connection
from fasthook.wire.limits import ByteBudget, Limits, MiB
from fasthook.wire.listener import Listener
from fasthook.wire.reader import Phase, RequestReader

BODY_LIMIT = MiB
SMALL_BODY = 4096
#: Longer texts are cut at some places, not at all of them.
CUT_EVERYWHERE = 400
ACCEPTED = render(202)


class Read(NamedTuple):
    """A request that can be compared with others."""

    method: bytes
    target: bytes
    path: bytes
    query: bytes
    head: bytes
    headers: dict[bytes, bytes]
    repeated: dict[bytes, list[bytes]] | None
    keep_alive: bool
    body: bytes


Result = tuple[list[Read], type[Rejection] | None, Phase | None]


# --- reader ---------------------------------------------------------------------------------------


def new_reader(budget: ByteBudget | None = None, limit: int = BODY_LIMIT) -> RequestReader:
    return RequestReader(lambda path: limit, SMALL_BODY, budget or ByteBudget(64 * MiB))


def read(pieces: Iterable[bytes], limit: int = BODY_LIMIT) -> Result:
    """The requests, up to one that ends the connection; the class of the refusal; the phase."""
    budget = ByteBudget(64 * MiB)
    reader = new_reader(budget, limit)
    requests: list[Read] = []
    refusal = None
    phase: Phase | None = None
    try:
        for piece in pieces:
            reader.feed(piece)
            while (request := reader.next_request()) is not None:
                requests.append(Read(*(getattr(request, name) for name in Read._fields)))
                if not request.keep_alive:
                    return requests, None, None
        phase = reader.phase
    except Rejection as rejection:
        refusal = type(rejection)
    finally:
        reader.close()
        assert budget.used == 0
    return requests, refusal, phase


def one_by_one(raw: bytes) -> list[bytes]:
    return [raw[i : i + 1] for i in range(len(raw))]


def split_at(raw: bytes, cuts: Iterable[int]) -> list[bytes]:
    return [raw[a:b] for a, b in itertools.pairwise([0, *sorted(cuts), len(raw)])]


def random_split(raw: bytes, seed: int, pieces: int = 8) -> list[bytes]:
    chance = random.Random(seed)
    count = min(len(raw) - 1, pieces - 1)
    return split_at(raw, chance.sample(range(1, len(raw)), count)) if count > 0 else [raw]


def ways(raw: bytes) -> Iterator[list[bytes]]:
    """`raw` whole, byte by byte, cut in two, cut at random."""
    yield [raw]
    yield one_by_one(raw)
    yield from (random_split(raw, seed) for seed in range(20))
    if len(raw) <= CUT_EVERYWHERE:
        yield from ([raw[:cut], raw[cut:]] for cut in range(1, len(raw)))


def read_everywhere(raw: bytes, limit: int = BODY_LIMIT) -> Result:
    """Every way to cut `raw` must give the same requests, refusal and phase."""
    whole = read([raw], limit)
    for pieces in ways(raw):
        got = read(pieces, limit)
        assert got == whole, f"cut as {pieces[:8]!r}"
    return whole


# --- connection -----------------------------------------------------------------------------------


class FakeTransport:
    """Remembers what it was told; as strict as uvloop's about what is told when."""

    def __init__(self) -> None:
        self.sent = b""
        self.writes = 0
        self.unread = 0  # bytes that the client has not taken
        self.reads = True
        self.is_eof = self.is_closed = self.is_aborted = False

    def get_extra_info(self, name: str) -> object:
        return ("192.0.2.1", 5000) if name == "peername" else None

    def set_write_buffer_limits(self, high: int) -> None:
        self.high = high

    def write(self, data: bytes) -> None:
        if self.is_closing():
            return
        if self.is_eof:
            raise RuntimeError("Cannot call write() after write_eof()")
        self.sent += data
        self.writes += 1

    def get_write_buffer_size(self) -> int:
        return self.unread

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.is_eof = True

    def pause_reading(self) -> None:
        assert self.reads, "paused twice"
        self.reads = False

    def resume_reading(self) -> None:
        assert not self.reads, "resumed twice"
        self.reads = True

    def is_closing(self) -> bool:
        return self.is_closed or self.is_aborted

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_aborted = True


class Wire:
    """A connection with everything round it faked; it is its own owner, receiver and clock."""

    def __init__(self, limits: Limits | None = None, *, answers: bool = False) -> None:
        """`answers`: each request is answered at once with 202; else the test answers."""
        self.limits = limits or Limits()
        self.date = DateLine(0)
        self.is_draining = False
        self.now = 1000.0
        self.budget = ByteBudget(self.limits.max_bytes_in_flight)
        self.refusals: list[Rejection] = []
        self.failures: list[BaseException] = []
        self.requests: list[Request] = []
        self.is_open = False
        self.turns: list = []
        self.on_request = lambda number: ACCEPTED if answers else None
        self.transport = FakeTransport()
        self.connection = Connection(self, new_reader(self.budget), self._receive, lambda: self.now)
        self.connection.connection_made(self.transport)

    def _receive(self, request: Request, connection: Connection, number: int):
        assert connection is self.connection
        assert number == len(self.requests)
        self.requests.append(request)
        return self.on_request(number)

    def arrived(self, connection: Connection) -> None:
        self.turns.append(connection)

    def turn(self) -> None:
        """Have the listener look at what came."""
        connection = self.turns.pop(0)
        connection.take()
        connection.flush()

    def opened(self, connection: Connection) -> None:
        self.is_open = True

    def closed(self, connection: Connection) -> None:
        self.is_open = False

    def refused(self, rejection: Rejection, peer: str) -> None:
        self.refusals.append(rejection)

    def failed(self, error: BaseException, peer: str) -> None:
        self.failures.append(error)

    def feed(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.connection.data_received(piece)
            while self.turns:
                self.turn()

    def answer(self, *numbers: int, status: int = 202) -> None:
        for number in numbers:
            self.connection.answer(number, render(status, b"%d" % number))

    def at(self, now: float) -> None:
        """The clock shows `now`; the listener's sweep comes by."""
        self.now = now
        if self.connection.deadline <= now:
            self.connection.expire()

    @property
    def statuses(self) -> list[int]:
        return [status for status, _, _ in responses(self.transport.sent)]

    @property
    def bodies(self) -> list[bytes]:
        return [body for _, _, body in responses(self.transport.sent)]


def responses(raw: bytes, *, has_bodies: bool = True) -> list[tuple[int, bytes, bytes]]:
    """Status, head and body of each response."""
    found = []
    while raw:
        head, blank, rest = raw.partition(b"\r\n\r\n")
        assert blank, f"an unfinished response: {raw[:80]!r}"
        assert head.startswith(b"HTTP/1.1 ")
        status = int(head[9:12])
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b": ")
            if name == b"Content-Length" and has_bodies:
                length = int(value)
        found.append((status, head, rest[:length]))
        raw = rest[length:]
    return found


# --- listener -------------------------------------------------------------------------------------


def run(main: Callable[[], object], *, with_uvloop: bool = True) -> None:
    factory = uvloop.new_event_loop if with_uvloop else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


@contextlib.asynccontextmanager
async def listening(
    sockets: list[socket.socket],
    receive: Callable[[Request, Connection, int], object] = lambda *_: ACCEPTED,
    limits: Limits | None = None,
) -> AsyncIterator[Listener]:
    """A started listener; `refusals` and `failures` are lists on it."""
    refusals: list[Rejection] = []
    failures: list[BaseException] = []
    listener = Listener(
        receive,
        limits=limits or Limits(),
        body_limit=lambda path: BODY_LIMIT,
        small_body=SMALL_BODY,
        on_refused=lambda rejection, peer: refusals.append(rejection),
        on_failed=lambda error, peer: failures.append(error),
    )
    listener.refusals, listener.failures = refusals, failures
    listener.start(sockets)
    try:
        yield listener
    finally:
        if not listener.is_draining:
            await listener.drain(0)
        await until(lambda: not listener.connections)
        for each in sockets:
            each.close()


async def until(fact: Callable[[], bool], turns: int = 100_000) -> None:
    """Let the loop turn until `fact()` holds."""
    for _ in range(turns):
        if fact():
            return
        await asyncio.sleep(0)
    raise AssertionError("the fact never came to be")
