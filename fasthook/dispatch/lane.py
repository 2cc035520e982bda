"""One handler's line of events, and the workers that take from it.

A worker is one task that lives on: a task for each event would cost more than most handlers do.
The line has no bound of its own; the backlog bounds all lines together.
"""

import asyncio
import contextlib
import math
import traceback
from collections import deque
from collections.abc import Callable, Collection
from time import perf_counter  # the loop's own clock stands still within a turn
from typing import Any, Final, Protocol

from aiolimiter import AsyncLimiter

from fasthook.dispatch.counts import FIRST_BUCKET_S, Counts
from fasthook.dispatch.order import Order
from fasthook.dispatch.runners import HandlerRaised, Runner, TimedOut
from fasthook.errors import AlreadyDone, Discard, FasthookError, Retry
from fasthook.handling import Handler
from fasthook.logs import log
from fasthook.model import Event, Outcome, OutcomeKind, Undecodable

#: A worker that never waits lets others have the loop after this long.
_TURN_S = 0.002
_MAX_ERROR_CHARS = 500
_MAX_FRAMES = 20
#: When the pool closes, a handler that does not let itself be cancelled is left behind after this.
_STOP_GRACE_S = 2.0
_CANCEL_AGAIN_S = 5.0


class Marks(Protocol):
    """Where workers say what they have in hand, so that it is known if the process dies."""

    def begin(self, slot: int, position: int, attempt: int) -> None:
        """The worker of this slot begins an attempt."""

    def end(self, slot: int) -> None:
        """It has ended."""


class NoMarks:
    """Nothing is kept: what is in memory alone is lost with the process anyway."""

    def begin(self, slot: int, position: int, attempt: int) -> None:
        """See `Marks`."""

    def end(self, slot: int) -> None:
        """See `Marks`."""


NO_MARKS: Final = NoMarks()
Settle = Callable[["Lane", Event[Any], Outcome], None]


class Lane:
    """The events that wait for one handler, oldest first."""

    def __init__(
        self,
        name: str,
        handler: Handler,
        new_runner: Callable[[], Runner],
        settle: Settle,
        delay_s: Callable[[int], float],
        marks: Marks = NO_MARKS,
    ) -> None:
        """`delay_s(attempt)`: the pause after a failed attempt. `settle` gets every outcome."""
        self.name = name
        self.handler = handler
        self.running = 0  # taken from the line, and not settled
        self.counts = Counts()
        self.order = Order()
        self.is_held = False  # nothing is to begin: its events wait on disk
        self.marks = marks
        self._new_runner = new_runner
        self._settle = settle
        self._delay_s = delay_s
        self._line: deque[Event[Any]] = deque()  # their `attempt` is the last one that was made
        self._idle: deque[asyncio.Future[None]] = deque()
        self._is_spreading = False
        self._loop = asyncio.get_running_loop()
        self._workers: set[_Worker] = set()
        # Evenly spaced: no burst at the beginning of each second.
        self.limiter = AsyncLimiter(1, 1 / handler.rate) if handler.rate else None

    @property
    def waiting(self) -> int:
        """How many events wait for a worker."""
        return len(self._line)

    def offer(self, event: Event[Any]) -> None:
        """Put an event in line."""
        self._line.append(event)
        if not self._is_spreading:
            self._is_spreading = True
            self._loop.call_soon(self._spread)

    def _spread(self) -> None:
        """Set a worker to the line, and look again once it has run.

        A handler that never waits lets one worker empty the line by itself: waking one for each
        event would cost more than such handlers do. One that waits leaves the line to the
        next worker, a turn of the loop later.
        """
        if not self._line or not self._set_to_work():
            self._is_spreading = False
            return
        self._loop.call_soon(self._spread)

    def _set_to_work(self) -> bool:
        """Wake a worker, or start one; false if all are busy: they come back by themselves."""
        while self._idle:
            wake = self._idle.popleft()
            if not wake.done():
                wake.set_result(None)
                return True
        if len(self._workers) >= self.handler.concurrency:
            return False
        worker = _Worker(self, self._new_runner(), len(self._workers))
        self._workers.add(worker)
        worker.start()
        return True

    def drop(self, positions: frozenset[int]) -> list[Event[Any]]:
        """Take events out of the line: those of the deliveries at these positions."""
        dropped = [event for event in self._line if event._delivery.position in positions]
        if dropped:
            kept = [event for event in self._line if event._delivery.position not in positions]
            self._line.clear()
            self._line.extend(kept)
        return dropped

    def take(self, endpoints: Collection[str]) -> list[Event[Any]]:
        """Take events out of the line: all if the lane is held, else those of these endpoints."""
        taken: list[Event[Any]] = []
        kept: list[Event[Any]] = []
        for event in self._line:
            is_taken = self.is_held or event._delivery.endpoint in endpoints
            (taken if is_taken else kept).append(event)
        if taken:
            self._line.clear()
            self._line.extend(kept)
        return taken

    def clear(self) -> None:
        """Let go of all events that wait."""
        self._line.clear()

    async def next(self) -> Event[Any]:
        """The event that has waited longest."""
        while not self._line:
            wake = self._loop.create_future()
            self._idle.append(wake)
            await wake
        return self._line.popleft()

    def settle(self, event: Event[Any], error: BaseException | None, took_s: float) -> None:
        """Turn what an attempt came to into its outcome, and pass it on."""
        counts = self.counts
        counts.seconds += took_s
        if took_s > FIRST_BUCKET_S:
            counts.slow(took_s)
        if error is None or isinstance(error, AlreadyDone):
            counts.done += 1
            if error is not None:
                self._say_again(event)
            outcome = Outcome(event._delivery, self.name, event.attempt, "done", took_s)
        else:
            outcome = self._failure(event, error, took_s)
        self._settle(self, event, outcome)

    def _say_again(self, event: Event[Any]) -> None:
        """It was done before, and only that was not recorded; or it is a replay."""
        log.info(
            "already done",
            handler=self.name,
            endpoint=event.endpoint,
            provider=event.provider,
            type=event.type,
            id=event.id,
            attempt=event.attempt,
        )

    def _failure(self, event: Event[Any], error: BaseException, took_s: float) -> Outcome:
        """Try it again, or give up."""
        attempt, counts = event.attempt, self.counts
        kind: OutcomeKind = "dead"
        retry_in_s = 0.0
        if not isinstance(error, Discard) and attempt <= self.handler.retries:
            kind = "retry"
            after_s = error.after_s if isinstance(error, Retry) else None
            retry_in_s = self._delay_s(attempt) if after_s is None else after_s
            counts.retry += 1
        else:
            counts.dead += 1
        text, trace = describe(error), _trace_of(error)
        outcome = Outcome(
            event._delivery, self.name, attempt, kind, took_s, text, retry_in_s, trace
        )
        outcome.is_discarded = isinstance(error, Discard)
        return outcome

    async def close(self) -> None:
        """Stop all workers; what they were doing is lost."""
        workers = list(self._workers)
        for worker in workers:
            worker.stop()
        await asyncio.gather(*(worker.finished() for worker in workers))


def describe(error: BaseException) -> str:
    """An error in one line."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # the user's own __str__
        text = ""
    name = type(error).__name__
    if isinstance(error, FasthookError):
        return (text or name)[:_MAX_ERROR_CHARS]
    return f"{name}: {text}"[:_MAX_ERROR_CHARS]


def _trace_of(error: BaseException) -> str:
    """Where the handler failed; nothing for what it raised on purpose."""
    if isinstance(error, HandlerRaised):
        return error.trace
    if isinstance(error, FasthookError):
        return ""
    frames = error.__traceback__.tb_next if error.__traceback__ is not None else None
    return "".join(traceback.format_tb(frames, _MAX_FRAMES))


class _Worker:
    """Takes one event after the other."""

    __slots__ = (
        "_lane",
        "_loop",
        "_slot",
        "_runner",
        "_task",
        "_deadline",
        "_timer",
        "_is_overdue",
        "_is_stopping",
    )

    def __init__(self, lane: Lane, runner: Runner, slot: int) -> None:
        """`slot`: its place among the lane's workers, counted from 0."""
        self._lane = lane
        self._slot = slot
        self._runner = runner
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._deadline = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._is_overdue = False
        self._is_stopping = False

    def start(self) -> None:
        name = f"{self._lane.name}-{self._slot + 1}"
        self._task = self._loop.create_task(self._work(), name=name)

    def stop(self) -> None:
        self._is_stopping = True
        if self._task is not None:
            self._task.cancel()

    async def finished(self) -> None:
        """Wait for the end, but not for ever: a handler may swallow its cancellation."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=_STOP_GRACE_S)
        if self._timer is not None:
            self._timer.cancel()
        await self._runner.close()

    async def _work(self) -> None:
        lane, runner, run = self._lane, self._runner, self._runner.run
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - `start` made it
        turn_began = 0.0
        marks, slot, timeout_s = lane.marks, self._slot, lane.handler.timeout_s
        while not self._is_stopping:
            if not lane._line:
                event = await lane.next()
                turn_began = perf_counter()
            else:
                event = lane._line.popleft()
            lane.running += 1
            if lane.limiter is not None:
                await lane.limiter.acquire()
            event.attempt += 1
            event._handler = lane.name
            error: BaseException | None = None
            began = perf_counter()
            if isinstance(event._payload, Undecodable):
                what = event._payload.error
                error = Discard(f"the payload does not fit the handler's type: {what}")
            else:
                self._deadline = began + timeout_s
                if self._timer is None:
                    self._watch()
                marks.begin(slot, event._delivery.position, event.attempt)
                try:
                    await run(event)
                # The only `except` this wide: also sys.exit() in a handler is just an attempt.
                except BaseException as raised:
                    if self._is_stopping and isinstance(raised, asyncio.CancelledError):
                        raise
                    error = self._cause(raised)
                finally:
                    self._deadline = math.inf
                    marks.end(slot)
                if task.cancelling() and not self._is_stopping:
                    await self._absorb(task)
            now = perf_counter()
            lane.running -= 1
            lane.settle(event, error, now - began)
            # An idle worker must not hold what the last attempt held: errors know their frames.
            del error, event
            if runner.is_held or now - turn_began > _TURN_S:
                await self._let_others_run()
                turn_began = perf_counter()

    async def _let_others_run(self) -> None:
        if self._runner.is_held:
            await self._runner.recover()
        await asyncio.sleep(0)

    def _watch(self) -> None:
        """Have the deadline looked at.

        One timer a worker, moved on lazily: arming and disarming one for each attempt would cost
        more than the rest of the worker's own work.
        """
        self._timer = self._loop.call_later(self._lane.handler.timeout_s, self._look)

    def _cause(self, raised: BaseException) -> BaseException:
        """Why the attempt failed, which a cancellation alone does not say."""
        if self._is_overdue and isinstance(raised, asyncio.CancelledError):
            return TimedOut(f"took more than {self._lane.handler.timeout_s:g} s")
        return raised

    async def _absorb(self, task: "asyncio.Task[None]") -> None:
        """Take a cancellation that was meant for the handler: of a timeout, or of its own making.

        It may have been swallowed, or still be on its way to the worker's next `await`.
        """
        self._is_overdue = False
        if self._timer is not None:
            self._timer.cancel()  # it would tell this attempt again, and come late for the next
            self._timer = None
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        while task.cancelling():
            task.uncancel()

    def _look(self) -> None:
        self._timer = None
        left_s = self._deadline - perf_counter()
        if left_s == math.inf:
            return
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._look)
        elif self._task is not None:
            if self._is_overdue:
                log.warning("timeout ignored", handler=self._lane.name, seconds=round(-left_s, 1))
            self._is_overdue = True
            self._task.cancel()
            # A handler may swallow the cancellation, and go on: it is told again.
            self._timer = self._loop.call_later(_CANCEL_AGAIN_S, self._look)
