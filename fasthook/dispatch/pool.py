"""All handlers at work: deliveries in, outcomes out, retries in between."""

import asyncio
import math
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, Final, NamedTuple

from fasthook.dispatch.backlog import Backlog
from fasthook.dispatch.coalescing import Coalescer
from fasthook.dispatch.flow import Flow, OnSuperseded, needs_flow
from fasthook.dispatch.holding import Holding
from fasthook.dispatch.lane import Lane
from fasthook.dispatch.order import Turn
from fasthook.dispatch.retry import delay_s
from fasthook.dispatch.routes import (
    FRESH,
    NewMarks,
    Registered,
    Resumed,
    Route,
    Wanted,
    event_of,
    no_marks,
)
from fasthook.dispatch.runners import LoopRunner, ProcessRunner, Runner, ThreadRunner
from fasthook.model import Delivery, Event, Outcome

_MAX_DROPPED: Final = 100_000


class _Retry(NamedTuple):
    """An event that waits in memory for its attempt, mostly not the first one."""

    due: float  # loop time
    lane: Lane
    event: Event[Any]


class Pool:
    """The lanes of all handlers, and the backlog that bounds them together."""

    def __init__(
        self,
        handlers: Sequence[Registered],
        backlog: Backlog,
        on_outcome: Callable[[Outcome], None],
        chance: Callable[[], float] = random.random,
        patience_s: float = math.inf,
        new_marks: NewMarks = no_marks,
    ) -> None:
        """`on_outcome` is told of every attempt. `chance`: 0 ≤ x < 1, spreads retries.

        Retries that are due within `patience_s` wait in memory. For later ones the delivery leaves,
        and whoever stored it brings it back in time.
        """
        self.backlog = backlog
        self._on_outcome = on_outcome
        self._chance = chance
        self._patience_s = patience_s
        self._new_marks = new_marks
        #: Positions of deliveries that are not to be tried again, whatever they come to.
        self.dropped: set[int] = set()
        self._executors: list[Executor] = []
        self._retries: dict[asyncio.TimerHandle, _Retry] = {}
        self._drain_ends = math.inf
        self._emptied: asyncio.Future[None] | None = None
        self.lanes = {registered.name: self._new_lane(registered) for registered in handlers}
        #: What is not to begin now.
        self.holding = Holding(self, self.lanes, is_stored=patience_s < math.inf)
        self._routes: dict[str, tuple[Route, ...]] = {}
        #: Those of endpoints whose handlers take all that comes.
        self._plain: dict[str, tuple[Route, ...]] = {}
        self._takes_all: set[str] = set()
        #: Of handlers whose events may be kept from their line.
        self.flows: dict[str, Flow] = {
            name: Flow(lane, self, patience_s)
            for name, lane in self.lanes.items()
            if needs_flow(lane.handler)
        }
        #: Told of what is superseded while it is on disk.
        self.on_superseded: OnSuperseded = lambda handler, position, by, leaves: None
        #: Positions of deliveries that wait on disk for one handler while others have them.
        self._partly: set[int] = set()

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
        marks = self._new_marks(name, handler)
        is_guarded = handler.breaker is not None and handler.breaker.failures
        settle = self._settled_guarded if is_guarded else self._settled
        return Lane(name, handler, new_runner, settle, self._delay_s, marks)

    def _delay_s(self, attempt: int) -> float:
        return delay_s(attempt, self._chance())

    def connect(self, endpoints: Mapping[str, Sequence[Wanted]]) -> None:
        """Endpoint → its handlers."""
        self._routes = {}
        known: dict[tuple[Wanted, ...], tuple[Route, ...]] = {}  # many endpoints have the same
        for endpoint, wanted in endpoints.items():
            of = tuple(wanted)
            if of not in known:
                known[of] = tuple(
                    Route(self.lanes[w.name], w.payload_index, w.key_index, w.due_index) for w in of
                )
            self._routes[endpoint] = known[of]
        self._takes_all = {
            endpoint
            for endpoint, wanted in endpoints.items()
            if not any(w.is_special for w in wanted)
        }
        self.find_plain()

    def find_plain(self) -> None:
        """What is held has changed."""
        self._plain = {
            endpoint: routes
            for endpoint, routes in self._routes.items()
            if endpoint in self._takes_all and endpoint not in self.holding.paused
            if not any(route.lane.is_held for route in routes)
        }

    def handlers_of(self, endpoint: str) -> list[str]:
        """Names of the endpoint's handlers; none if it is not configured any more."""
        return [route.lane.name for route in self._routes.get(endpoint, ())]

    def coalescer_of(self, handler: str) -> Coalescer | None:
        """What makes one run of several events; None: nothing does, or there is no such handler."""
        flow = self.flows.get(handler)
        return flow.coalescer if flow is not None else None

    # --- deliveries in ----------------------------------------------------------------------------

    def dispatch(self, delivery: Delivery) -> None:
        """Put a delivery that has entered the backlog in line at each of its handlers."""
        routes = self._plain.get(delivery.endpoint)
        if routes is None:
            self._dispatch_some(delivery)
            return
        delivery.open_handlers = len(routes)
        delivery.has_one_handler = delivery.open_handlers == 1
        payloads = delivery.payloads
        for lane, payload_index, key_index, _ in routes:
            if key_index < 0 or not delivery.order_keys[key_index]:
                lane.offer(Event(delivery, payloads[payload_index], 0))
            else:
                key = delivery.order_keys[key_index]
                event: Event[Any] = Event(delivery, payloads[payload_index], 0, key)
                self._take_turn(lane, event, lane.order.enter(event, is_fresh=True))

    def _dispatch_some(self, delivery: Delivery) -> None:
        """The same where not every handler takes all, or at once."""
        routes = self._routes[delivery.endpoint]
        unwanted = delivery.unwanted or {}
        delivery.open_handlers = len(routes)
        delivery.has_one_handler = delivery.open_handlers == 1
        for route in routes:
            if route.lane.name in unwanted:
                self._skip(delivery, route.lane)
            else:
                self._enter(route, event_of(delivery, route, 0), FRESH, is_fresh=True)

    def _enter(self, route: Route, event: Event[Any], resumed: Resumed, *, is_fresh: bool) -> None:
        """An event comes to a handler, perhaps not to its line at once."""
        lane, due_index = route.lane, route.due_index
        flow = self.flows.get(lane.name)
        if flow is not None:
            text = event._delivery.order_keys[due_index] if due_index >= 0 else ""
            flow.enter(event, text, is_fresh=is_fresh, is_new=resumed.is_new)
        elif event._key:
            turn = lane.order.enter(event, is_fresh=is_fresh, was_parked=resumed.was_parked)
            self._take_turn(lane, event, turn)
        else:
            self.offer(lane, event)

    def _skip(self, delivery: Delivery, lane: Lane) -> None:
        lane.counts.skipped += 1
        why = (delivery.unwanted or {})[lane.name]
        self._left(Outcome(delivery, lane.name, 0, "skip", 0.0, why))

    def refuse(self, delivery: Delivery) -> None:
        """None of its handlers wants a delivery, which is in no backlog: say why."""
        for route in self._routes[delivery.endpoint]:
            route.lane.counts.skipped += 1
            why = (delivery.unwanted or {})[route.lane.name]
            self._on_outcome(Outcome(delivery, route.lane.name, 0, "skip", 0.0, why))

    def resume(self, delivery: Delivery, resumed: Mapping[str, Resumed]) -> None:
        """Put a delivery that comes back from disk in line at those handlers alone."""
        delivery.open_handlers = len(resumed)
        for route in self._routes[delivery.endpoint]:
            name = route.lane.name
            if name not in resumed:
                continue
            one = resumed[name]
            if one.is_new and delivery.unwanted is not None and name in delivery.unwanted:
                self._skip(delivery, route.lane)
            else:
                event = event_of(delivery, route, one.attempt)
                self._enter(route, event, one, is_fresh=False)

    def _take_turn(self, lane: Lane, event: Event[Any], turn: Turn) -> None:
        if turn is Turn.RUN:
            self.offer(lane, event)
        elif turn is Turn.PARKED:
            self.park(lane, event)

    def park(self, lane: Lane, event: Event[Any]) -> None:
        """The event waits on disk for those of its key that came before."""
        outcome = Outcome(event._delivery, lane.name, event.attempt, "wait", 0.0)
        outcome.order_key = event._key
        self._left(outcome)

    def _settled_guarded(self, lane: Lane, event: Event[Any], outcome: Outcome) -> None:
        """`_settled` of a handler with a breaker."""
        if not self.holding.settled(lane, event, outcome):
            self._settled(lane, event, outcome)

    # --- outcomes out -----------------------------------------------------------------------------

    def _settled(self, lane: Lane, event: Event[Any], outcome: Outcome) -> None:
        if outcome.kind == "done" and not event._key:
            self._left(outcome)  # by far most
            return
        if outcome.kind == "retry" and event._delivery.position in self.dropped:
            outcome.kind = "dead"
        if event._key and lane.name in self.flows:
            self.flows[lane.name].settled(event, self.following(lane, event), outcome)
        elif outcome.kind == "retry" and outcome.retry_in_s <= self._patience_s:
            outcome.order_key = event._key
            self._on_outcome(outcome)
            self.wait(lane, self.following(lane, event), outcome.retry_in_s)
        elif event._key:
            self._go_on(lane, event, outcome)
        else:
            self._left(outcome)

    def _left(self, outcome: Outcome) -> None:
        """The handler has the delivery no more."""
        delivery = outcome.delivery
        delivery.open_handlers = left = delivery.open_handlers - 1
        if not left:
            outcome.leaves = True
            self.backlog.leave(delivery)
            if self._partly:
                self._partly.discard(delivery.position)
        self._on_outcome(outcome)
        if self._emptied is not None:
            self._look_whether_drained()

    def _go_on(self, lane: Lane, event: Event[Any], outcome: Outcome) -> None:
        """Let those go on which waited for this event, or send them to disk behind it."""
        if outcome.kind == "retry":
            outcome.order_key = event._key
            followers = lane.order.away(event)
            self._left(outcome)
            for follower in followers:
                self.park(lane, follower)
            return
        if lane.order.has_parked(event):
            outcome.order_key = event._key
        following = lane.order.over(event)
        self._left(outcome)
        if following is not None:
            self.offer(lane, following)

    def following(self, lane: Lane, event: Event[Any]) -> Event[Any]:
        """An event of its own for the next attempt: the handler may have kept the other one."""
        delivery = event._delivery
        index = next(r.payload_index for r in self._routes[delivery.endpoint] if r.lane is lane)
        return Event(delivery, delivery.payloads[index], event.attempt, event._key)

    # --- ways of `Flow` ---------------------------------------------------------------------------

    def offer(self, lane: Lane, event: Event[Any]) -> None:
        """Put an event in line, unless nothing is to begin any more, or not now."""
        if self._drain_ends == -math.inf:
            return
        if self.holding.keeps(lane, event):
            self.holding.put_off(lane, event)
        else:
            lane.offer(event)

    def wait(self, lane: Lane, event: Event[Any], after_s: float) -> None:
        """Put an event in line after that."""

        def again() -> None:
            del self._retries[timer]
            self.offer(lane, event)

        loop = asyncio.get_running_loop()
        timer = loop.call_later(after_s, again)
        self._retries[timer] = _Retry(loop.time() + after_s, lane, event)
        self._look_whether_drained()

    def leave(self, outcome: Outcome) -> None:
        """The handler has the delivery no more, or not yet."""
        delivery = outcome.delivery
        if outcome.kind == "hold" and delivery.open_handlers > 1:
            self._partly.add(delivery.position)
        self._left(outcome)

    def tell(self, outcome: Outcome) -> None:
        """The handler has it still."""
        self._on_outcome(outcome)

    def supersede_stored(self, handler: str, position: int, by: int) -> None:
        """A delivery that waits on disk for a handler is not to run there."""
        self.on_superseded(handler, position, by, position not in self._partly)

    # --- orders -----------------------------------------------------------------------------------

    def drop(self, positions: frozenset[int], reason: str) -> None:
        """Run deliveries no more that wait in memory; attempts under way come to their end."""
        if len(self.dropped) > _MAX_DROPPED:
            self.dropped.clear()  # whatever was in hand then is over by now
        self.dropped.update(positions)
        for timer, retry in list(self._retries.items()):
            if retry.event._delivery.position in positions:
                timer.cancel()
                del self._retries[timer]
                self._give_up(retry.lane, retry.event, reason)
        for lane in self.lanes.values():
            coalescer = self.coalescer_of(lane.name)  # which is in the place of an order
            for event in (lane.order if coalescer is None else coalescer).drop(positions):
                self._left(Outcome(event._delivery, lane.name, event.attempt, "dead", 0.0, reason))
            for event in lane.drop(positions):
                self._give_up(lane, event, reason)

    def _give_up(self, lane: Lane, event: Event[Any], reason: str) -> None:
        outcome = Outcome(event._delivery, lane.name, event.attempt, "dead", 0.0, reason)
        self.holding.lost(lane, event)
        self._settled(lane, event, outcome)

    # --- the end ----------------------------------------------------------------------------------

    def _look_whether_drained(self) -> None:
        """Whether nothing is left but retries that are due too late."""
        if self._emptied is None or self._emptied.done():
            return
        is_due = any(retry.due <= self._drain_ends for retry in self._retries.values())
        left_s = self._drain_ends - asyncio.get_running_loop().time()
        is_due = is_due or any(flow.first_due_s() <= left_s for flow in self.flows.values())
        is_busy = any(lane.waiting or lane.running for lane in self.lanes.values())
        if not self.backlog.count or not (is_busy or is_due):
            self._emptied.set_result(None)

    async def drain(self, timeout_s: float, *, is_stored: bool = False) -> int:
        """Wait until nothing is left, or the time is over; how many deliveries are left.

        Retries that are due later than that are not waited for; and where all deliveries are
        stored (`is_stored`), nothing but the attempts that are under way.
        """
        loop = asyncio.get_running_loop()
        self._drain_ends = loop.time() + timeout_s
        if is_stored:
            self._drain_ends = -math.inf
            for lane in self.lanes.values():
                lane.clear()
        if self.backlog.count:
            self._emptied = loop.create_future()
            loop.call_soon(self._look_whether_drained)
            await asyncio.wait([self._emptied], timeout=timeout_s)
        return self.backlog.count

    async def close(self) -> None:
        """Stop everything; what still waits is lost, unless it is stored."""
        for timer in self._retries:
            timer.cancel()
        await asyncio.gather(*(lane.close() for lane in self.lanes.values()))
        for executor in self._executors:
            executor.shutdown(wait=False, cancel_futures=True)
