"""What the tests of handlers and of their pool share: deliveries, a loop, a pool that tells."""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

from fasthook.dispatch.backlog import Backlog
from fasthook.dispatch.pool import NewMarks, Pool, Registered, Resumed, Wanted, no_marks
from fasthook.handling import Handler
from fasthook.model import Delivery, Event, Outcome, Undecoded

#: No test waits longer than this for a fact.
DEADLINE_S = 5.0


def delivery(body: bytes = b"{}", *payloads: Any, **changes: Any) -> Delivery:
    """A delivery to endpoint "e"; `changes` replaces any of its fields, or the `headers`."""
    headers = changes.pop("headers", {b"content-type": b"application/json"})
    lines = [b"POST /hooks/e HTTP/1.1", *(b"%b: %b" % field for field in headers.items())]
    fields: dict[str, Any] = {
        "endpoint": "e",
        "provider": "github",
        "event_id": "id-1",
        "event_type": "push",
        "head": b"\r\n".join([*lines, b"", b""]),
        "body": body,
        "received_at_ns": 1_700_000_000_000_000_000,
        "client": "203.0.113.9",
        "secret_index": 0,
        "payloads": payloads or (Undecoded(),),
    }
    return Delivery(**fields | changes)


def event(body: bytes = b"{}", attempt: int = 1, **changes: Any) -> Event[Any]:
    """The delivery as a handler sees it."""
    made = delivery(body, **changes)
    return Event(made, made.payloads[0], attempt)


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine as the service would, on uvloop; what hangs fails (no signal ends uvloop)."""

    async def bounded() -> Any:
        async with asyncio.timeout(2 * DEADLINE_S):
            return await main

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(bounded())


def wait_until(fact: Callable[[], Any]) -> Any:
    """Poll what nobody signals, such as the end of somebody else's process; returns its value."""
    deadline = time.monotonic() + DEADLINE_S
    while not (value := fact()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
    return value


async def until(fact: Callable[[], Any]) -> Any:
    """`wait_until` that leaves the loop to others meanwhile."""
    async with asyncio.timeout(DEADLINE_S):
        while not (value := fact()):
            await asyncio.sleep(0.001)
    return value


class Harness:
    """A pool that keeps its outcomes. Endpoint "e" has all the handlers; ordered ones go by the
    first key.
    """

    def __init__(
        self,
        *handlers: Handler,
        chance: float = 0.5,
        entry_points: tuple[str, ...] = (),
        settings: dict[str, Any] | None = None,
        patience_s: float = math.inf,
        new_marks: NewMarks = no_marks,
    ) -> None:
        names = entry_points or tuple(f"h{index}" for index in range(len(handlers)))
        self.names = names
        self.backlog = Backlog(10_000, 2**30)
        self.outcomes: list[Outcome] = []
        self._news = asyncio.Event()
        registered = [
            Registered(name, handler, name, settings or {})
            for name, handler in zip(names, handlers, strict=True)
        ]
        self.pool = Pool(
            registered, self.backlog, self._note, lambda: chance, patience_s, new_marks
        )
        wanted = [
            Wanted(name, 0, 0 if handler.ordered_by else -1)
            for name, handler in zip(names, handlers, strict=True)
        ]
        self.pool.connect({"e": wanted})
        self.lane = self.pool.lanes[names[0]]

    def _note(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self._news.set()

    def offer(self, *deliveries: Delivery) -> None:
        for each in deliveries:
            if not self.backlog.enter(each):
                self.backlog.refuse()
            self.pool.dispatch(each)

    def resume(self, delivery: Delivery, **resumed: Resumed) -> None:
        """As the line does with what comes back from disk."""
        self.backlog.readmit(delivery)
        self.pool.resume(delivery, resumed)

    async def handled(self, count: int = 1) -> list[Outcome]:
        """Wait until there are so many outcomes."""
        async with asyncio.timeout(DEADLINE_S):
            while len(self.outcomes) < count:
                self._news.clear()
                await self._news.wait()
        return self.outcomes

    async def emptied(self) -> list[Outcome]:
        """Wait until nothing is left to do."""
        assert await self.pool.drain(DEADLINE_S) == 0, self.outcomes
        return self.outcomes

    async def __aenter__(self) -> "Harness":
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.wait_for(self.pool.close(), DEADLINE_S)


def outcomes_of(function_handler: Handler, *deliveries: Delivery, **options: Any) -> list[Outcome]:
    """Run the deliveries through one handler until all have settled."""

    async def main() -> list[Outcome]:
        async with Harness(function_handler, **options) as harness:
            harness.offer(*deliveries)
            return await harness.emptied()

    return run(main())


def kinds(outcomes: list[Outcome]) -> list[str]:
    return [outcome.kind for outcome in outcomes]


def is_running(pid: int) -> bool:
    """Whether the process lives; one that has ended and was not waited for does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def quiet_retries(monkeypatch: Any, delay_s: float = 0.001) -> None:
    """Failed attempts come back at once; the way they take is the real one."""
    monkeypatch.setattr("fasthook.dispatch.retry._DELAYS_S", (delay_s,) * 5)


@contextlib.contextmanager
def log_lines(monkeypatch: Any) -> Any:
    """What is written to the log meanwhile: (level, message, fields)."""
    lines: list[tuple[int, str, dict[str, Any]]] = []
    monkeypatch.setattr("fasthook.logs.Log.write", lambda _, *line: lines.append(line))
    yield lines
