"""What is not to begin now: what an operator has paused, and handlers whose breaker is open.

Its events wait on disk; where nothing is stored, in memory.
"""

from asyncio import get_running_loop
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

from fasthook.dispatch.breaker import Breaker, State
from fasthook.dispatch.coalescing import Coalescer
from fasthook.dispatch.lane import Lane
from fasthook.logs import log
from fasthook.model import NEVER_NS, Event, Outcome

#: Gets handlers of which nothing is to be brought back from disk, and those of which one event is.
OnHeld = Callable[[frozenset[str], frozenset[str]], None]


class Desk(Protocol):
    """Whose events these are."""

    def offer(self, lane: Lane, event: Event[Any]) -> None:
        """Into the line, unless it is to be held."""

    def leave(self, outcome: Outcome) -> None:
        """The handler has it no more."""

    def park(self, lane: Lane, event: Event[Any]) -> None:
        """It waits on disk behind another one."""

    def following(self, lane: Lane, event: Event[Any]) -> Event[Any]:
        """The same for another attempt."""

    def coalescer_of(self, handler: str) -> Coalescer | None:
        """What makes one run of several events."""

    def find_plain(self) -> None:
        """What is held has changed."""


class Holding:
    """Says what begins, and puts off what does not."""

    def __init__(self, desk: Desk, lanes: Mapping[str, Lane], *, is_stored: bool) -> None:
        """`lanes`: of all handlers, by name."""
        self._desk = desk
        self._lanes = lanes
        self._is_stored = is_stored
        self.paused: frozenset[str] = frozenset()  # endpoints
        self._paused_handlers: frozenset[str] = frozenset()
        self._kept: list[tuple[Lane, Event[Any]]] = []  # where there is no disk
        self.on_held: OnHeld = lambda held, probing: None
        #: Of handlers that are left alone when they fail in a row.
        self.breakers: dict[str, Breaker] = {}
        for name, lane in lanes.items():
            options = lane.handler.breaker
            if options is not None and options.failures:
                self.breakers[name] = Breaker(options.failures, options.pause)

    def pause(self, endpoints: Collection[str], handlers: Collection[str]) -> None:
        """From now on nothing of these begins, and of all others it does."""
        self.paused = frozenset(endpoints)
        self._paused_handlers = frozenset(handlers)
        self._look_again()

    def _look_again(self) -> None:
        for name, lane in self._lanes.items():
            breaker = self.breakers.get(name)
            is_open = breaker is not None and breaker.state is not State.CLOSED
            lane.is_held = is_open or name in self._paused_handlers
        self._desk.find_plain()
        for lane in self._lanes.values():
            for event in lane.take(self.paused):
                self.put_off(lane, event)
        self._offer_kept()
        self._tell()

    def _offer_kept(self) -> None:
        kept, self._kept = self._kept, []
        for lane, event in kept:
            self._desk.offer(lane, event)

    def _tell(self) -> None:
        held = frozenset(name for name, lane in self._lanes.items() if lane.is_held)
        probing = frozenset(
            name
            for name, breaker in self.breakers.items()
            if breaker.state is State.PROBING and breaker.probe is None
        )
        self.on_held(held, probing - self._paused_handlers)

    # --- events -----------------------------------------------------------------------------------

    def keeps(self, lane: Lane, event: Event[Any]) -> bool:
        """Whether an event is not to begin now."""
        if event.endpoint in self.paused or lane.name in self._paused_handlers:
            return True
        if not lane.is_held:
            return False
        breaker = self.breakers.get(lane.name)
        if breaker is None or not breaker.takes(event._delivery):
            return True
        self._tell()  # no other one is needed
        return False

    def put_off(self, lane: Lane, event: Event[Any]) -> None:
        """The event waits until its handler, or its endpoint, goes on."""
        self.lost(lane, event)
        if not self._is_stored:
            self._kept.append((lane, event))
            return
        followers: list[Event[Any]] = []
        due_ns = NEVER_NS if lane.is_held else 0
        coalescer = self._desk.coalescer_of(lane.name)
        if event._key and coalescer is not None:
            if not coalescer.put_off(event, due_ns):
                return
        elif event._key:
            followers = lane.order.put_off(event)
        outcome = Outcome(event._delivery, lane.name, event.attempt, "hold", 0.0)
        outcome.order_key, outcome.due_ns = event._key, due_ns
        self._desk.leave(outcome)
        for follower in followers:
            self._desk.park(lane, follower)

    def lost(self, lane: Lane, event: Event[Any]) -> None:
        """It does not begin: if it was to be tried, another one is."""
        breaker = self.breakers.get(lane.name)
        if breaker is not None and breaker.probe is event._delivery:
            breaker.probe = None
            self._tell()
            if self._kept:
                get_running_loop().call_soon(self._offer_kept)

    # --- breakers ---------------------------------------------------------------------------------

    def settled(self, lane: Lane, event: Event[Any], outcome: Outcome) -> bool:
        """Tell a handler's breaker of an attempt; whether the attempt does not count."""
        breaker, delivery = self.breakers[lane.name], event._delivery
        if outcome.kind == "done":
            if breaker.succeeded():
                log.info("breaker closed", handler=lane.name)
                self._look_again()
            return False
        if outcome.is_discarded:  # which says nothing of the handler
            self.lost(lane, event)
            return False
        is_probe = breaker.probe is delivery
        pause_s = breaker.failed()
        if pause_s:
            fields = {"handler": lane.name, "pause_s": pause_s, "error": outcome.error}
            log.warning("breaker open", **fields)
            get_running_loop().call_later(pause_s, self._probe, breaker)
            self._look_again()
        if is_probe:
            again = self._desk.following(lane, event)
            again.attempt -= 1
            self.put_off(lane, again)
        return is_probe

    def _probe(self, breaker: Breaker) -> None:
        """A pause is over: try one event."""
        if breaker.state is State.OPEN:  # else something in hand came to a good end
            breaker.pause_is_over()
            self._offer_kept()
            self._tell()
