"""What may keep an event from a handler's line: `delay`, `not_before`, and `coalesce_by`."""

import math
import time
from asyncio import get_running_loop
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from fasthook.dispatch.coalescing import Coalescer
from fasthook.dispatch.lane import Lane
from fasthook.handling import Handler
from fasthook.model import Event, Outcome

#: No event is put off for longer: what is on disk is kept as long as it waits.
MAX_DELAY_S: Final = 366 * 86400
#: Numbers above are milliseconds: as seconds they would be in the year 5138.
_MAX_SECONDS: Final = 1e11
#: Handler, position, position of the one that is newer, whether it leaves.
OnSuperseded = Callable[[str, int, int, bool], None]


class Ways(Protocol):
    """Where events go from here."""

    def offer(self, lane: Lane, event: Event[Any]) -> None:
        """Into the line, unless nothing is to begin."""

    def wait(self, lane: Lane, event: Event[Any], after_s: float) -> None:
        """The same after that."""

    def leave(self, outcome: Outcome) -> None:
        """The handler has it no more."""

    def tell(self, outcome: Outcome) -> None:
        """It has it still."""

    def supersede_stored(self, handler: str, position: int, by: int) -> None:
        """One that is on disk never runs."""


def needs_flow(handler: Handler) -> bool:
    """Whether anything may keep events from its line."""
    return bool(handler.coalesce_by or handler.delay_s or handler.not_before)


def due_ns(handler: Handler, received_ns: int, not_before: str) -> int:
    """When an event is to run at the earliest, wall clock; `not_before`: as the event says it.

    RFC 3339, or seconds or milliseconds since 1970; anything else is no time, and counts as none.
    """
    due = received_ns + int(handler.delay_s * 1e9)
    if not_before:
        due = max(due, min(_ns(not_before), received_ns + int(MAX_DELAY_S * 1e9)))
    return due


def _ns(text: str) -> int:
    try:
        seconds = float(text)
    except ValueError:
        try:
            when = datetime.fromisoformat(text)
            seconds = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            return 0
    if not math.isfinite(seconds):
        return 0
    return int(seconds * (1e6 if abs(seconds) > _MAX_SECONDS else 1e9))


class Flow:
    """The way of one handler's events to its line."""

    def __init__(self, lane: Lane, ways: Ways, patience_s: float) -> None:
        """What has to wait for longer than `patience_s` waits on disk."""
        self._lane = lane
        self._ways = ways
        self._patience_s = patience_s
        within_s = lane.handler.within_s
        self.coalescer = Coalescer(within_s, patience_s, self) if lane.handler.coalesce_by else None

    def enter(self, event: Event[Any], not_before: str, *, is_fresh: bool, is_new: bool) -> None:
        """An event comes: from its sender, or (not `is_fresh`) from disk; `is_new`: nothing was
        decided about it yet.
        """
        if event._key and self.coalescer is not None:
            self.coalescer.enter(event, is_fresh=is_fresh)
            return
        if is_new:
            due = due_ns(self._lane.handler, event._delivery.received_at_ns, not_before)
            left_s = (due - self.now_ns()) / 1e9
            if left_s > self._patience_s:
                self.store(event, due, 0)
                return
            if left_s > 0:
                self._ways.wait(self._lane, event, left_s)
                return
        self._ways.offer(self._lane, event)

    def settled(self, event: Event[Any], following: Event[Any], outcome: Outcome) -> None:
        """An attempt of an event with a key is over; `following`: for the next one."""
        coalescer, name = self.coalescer, self._lane.name
        assert coalescer is not None  # noqa: S101 - there are no keys without
        if outcome.kind != "retry":
            self._ways.leave(outcome)
            coalescer.over(event)
            return
        outcome.order_key = event._key
        due = self.now_ns() + int(outcome.retry_in_s * 1e9)
        if coalescer.has_newer(event):
            self._ways.tell(outcome)
            coalescer.give_way(event)
        elif outcome.retry_in_s <= self._patience_s:
            self._ways.tell(outcome)
            coalescer.tries_again(following, due, is_stored=False)
        else:
            outcome.handler = name
            self._ways.leave(outcome)
            coalescer.tries_again(event, due, is_stored=True)

    def first_due_s(self) -> float:
        """After how many seconds the first one that waits in memory is to run."""
        first_ns = self.coalescer.first_due_ns() if self.coalescer is not None else None
        return math.inf if first_ns is None else (first_ns - self.now_ns()) / 1e9

    # --- hands of the coalescer -------------------------------------------------------------------

    def now_ns(self) -> int:
        """See `Hands`."""
        return time.time_ns()

    def run(self, event: Event[Any]) -> None:
        """See `Hands`."""
        self._ways.offer(self._lane, event)

    def store(self, event: Event[Any], due_ns: int, since_ns: int) -> None:
        """See `Hands`."""
        outcome = Outcome(event._delivery, self._lane.name, event.attempt, "hold", 0.0)
        outcome.order_key, outcome.due_ns, outcome.since_ns = event._key, due_ns, since_ns
        self._ways.leave(outcome)

    def wake(self, key: str, after_ns: int) -> None:
        """See `Hands`."""
        assert self.coalescer is not None  # noqa: S101 - it asks for this
        get_running_loop().call_later(after_ns / 1e9, self.coalescer.wake, key)

    def supersede(self, event: Event[Any], by: int) -> None:
        """See `Hands`."""
        self._lane.counts.superseded += 1
        outcome = Outcome(event._delivery, self._lane.name, event.attempt, "superseded", 0.0)
        outcome.by = by
        self._ways.leave(outcome)

    def supersede_stored(self, position: int, by: int) -> None:
        """See `Hands`."""
        self._lane.counts.superseded += 1
        self._ways.supersede_stored(self._lane.name, position, by)
