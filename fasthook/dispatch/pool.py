"""All handlers at work: deliveries in, outcomes out, retries in between."""

import asyncio
import math
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, NamedTuple

from fasthook.dispatch.backlog import Backlog
from fasthook.dispatch.lane import Assignment, Lane
from fasthook.dispatch.retry import delay_s
from fasthook.dispatch.runners import LoopRunner, ProcessRunner, Runner, ThreadRunner
from fasthook.model import Delivery, Handler, Outcome


class Registered(NamedTuple):
    """A handler under the name that endpoints use."""

    name: str
    handler: Handler
    entry_point: str  # how a child process finds it
    settings: dict[str, Any]


class Route(NamedTuple):
    """One handler of an endpoint, and which of the delivery's payloads it takes."""

    lane: Lane
    payload_index: int


class Pool:
    """The lanes of all handlers, and the backlog that bounds them together."""

    def __init__(
        self,
        handlers: Sequence[Registered],
        backlog: Backlog,
        on_outcome: Callable[[Outcome], None],
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`on_outcome` is told of every attempt. `chance`: 0 ≤ x < 1, spreads retries."""
        self.backlog = backlog
        self._on_outcome = on_outcome
        self._chance = chance
        self._executors: list[Executor] = []
        self._retries: dict[asyncio.TimerHandle, float] = {}  # → loop time
        self._drain_ends = math.inf
        self._in_lanes = 0  # assignments that wait or run; not those between two attempts
        self._emptied: asyncio.Future[None] | None = None
        self._unsettled: dict[int, int] = {}  # id(delivery) → handlers, where it has several
        self.lanes = {registered.name: self._new_lane(registered) for registered in handlers}
        self._routes: dict[str, tuple[Route, ...]] = {}

    def _new_lane(self, registered: Registered) -> Lane:
        name, handler, entry_point, settings = registered
        new_runner: Callable[[], Runner]
        if handler.runs_in == "loop":
            new_runner = lambda: LoopRunner(handler.function)  # noqa: E731
        elif handler.runs_in == "process":
            new_runner = lambda: ProcessRunner(entry_point, settings)  # noqa: E731
        else:
            executor = ThreadPoolExecutor(handler.concurrency, thread_name_prefix=name)
            self._executors.append(executor)
            new_runner = lambda: ThreadRunner(handler.function, executor)  # noqa: E731
        return Lane(name, handler, new_runner, self._settle, self._delay_s)

    def _delay_s(self, attempt: int) -> float:
        return delay_s(attempt, self._chance())

    def connect(self, endpoints: Mapping[str, Sequence[tuple[str, int]]]) -> None:
        """Endpoint → its handlers, each with the index of its payload."""
        self._routes = {
            endpoint: tuple(Route(self.lanes[name], index) for name, index in handlers)
            for endpoint, handlers in endpoints.items()
        }

    def offer(self, delivery: Delivery) -> None:
        """Put the delivery in line at each of its handlers. Raises `BacklogFull`: at none."""
        self.backlog.enter(delivery)
        routes = self._routes[delivery.endpoint]
        if len(routes) > 1:
            self._unsettled[id(delivery)] = len(routes)
        self._in_lanes += len(routes)
        payloads = delivery.payloads
        for lane, payload_index in routes:
            lane.offer(Assignment(delivery, payloads[payload_index]))

    def _settle(self, lane: Lane, assignment: Assignment, outcome: Outcome) -> None:
        self._in_lanes -= 1
        self._on_outcome(outcome)
        if outcome.kind == "retry":
            self._retry(lane, assignment, outcome.retry_in_s)
            return
        delivery = assignment.delivery
        if self._unsettled:
            left = self._unsettled.get(id(delivery), 1) - 1
            if left:
                self._unsettled[id(delivery)] = left
                return
            self._unsettled.pop(id(delivery), None)
        self.backlog.leave(delivery)
        if self._emptied is not None:
            self._look_whether_drained()

    def _retry(self, lane: Lane, assignment: Assignment, after_s: float) -> None:
        def again() -> None:
            del self._retries[timer]
            self._in_lanes += 1
            lane.offer(assignment)

        loop = asyncio.get_running_loop()
        timer = loop.call_later(after_s, again)
        self._retries[timer] = loop.time() + after_s
        self._look_whether_drained()

    def _look_whether_drained(self) -> None:
        """Whether nothing is left but retries that are due too late."""
        if self._emptied is None or self._emptied.done():
            return
        is_due = any(due <= self._drain_ends for due in self._retries.values())
        if not self.backlog.count or not (self._in_lanes or is_due):
            self._emptied.set_result(None)

    async def drain(self, timeout_s: float) -> int:
        """Wait until nothing is left, or the time is over; how many deliveries are left.

        Retries that are due later than that are not waited for.
        """
        if self.backlog.count:
            loop = asyncio.get_running_loop()
            self._drain_ends = loop.time() + timeout_s
            self._emptied = loop.create_future()
            loop.call_soon(self._look_whether_drained)
            await asyncio.wait([self._emptied], timeout=timeout_s)
        return self.backlog.count

    async def close(self) -> None:
        """Stop everything; what still waits is lost."""
        for timer in self._retries:
            timer.cancel()
        await asyncio.gather(*(lane.close() for lane in self.lanes.values()))
        for executor in self._executors:
            executor.shutdown(wait=False, cancel_futures=True)
