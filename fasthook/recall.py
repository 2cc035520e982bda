"""Back from disk: what waits there is read into the backlog when there is room, oldest first.

It waits there because the backlog was full, a retry is due later, a command replayed it, or the
worker that had it is gone.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from fasthook.dispatch.backlog import Backlog
from fasthook.dispatch.pool import Pool
from fasthook.dispatch.routes import Resumed
from fasthook.errors import Rejection
from fasthook.intake.receiver import Receiver
from fasthook.logs import log
from fasthook.model import Delivery, Outcome, Undecodable
from fasthook.spool.changes import EVERY_OTHER, Held, Part, State
from fasthook.spool.indexer import ReadBack
from fasthook.spool.records import Settled
from fasthook.spool.spool import Spool

#: Deliveries that are read back in one go: the loop decodes them all before it does anything else.
_READ_BACK: Final = 256
_LOOK_S: Final = 0.5
_NEXT_SUSPECT_NS: Final = 500_000_000


class Recall:
    """Asks the spool for what is due, and hands it to the pool."""

    def __init__(
        self,
        spool: Spool,
        receiver: Receiver,
        backlog: Backlog,
        pool: Pool,
        *,
        hold: bool,
        ordered: Sequence[str],
    ) -> None:
        """`hold`: nothing is run. `ordered`: endpoints with handlers that keep an order."""
        self._spool = spool
        self._receiver = receiver
        self._backlog = backlog
        self._pool = pool
        self._hold = hold
        self._ordered = ordered
        #: Endpoints whose events wait on disk, since another worker may have earlier ones.
        self._waiting: Sequence[str] = ()
        #: And those that are paused.
        self._paused: Sequence[str] = ()
        self._withheld: Sequence[str] = ()  # all of these
        self.on_look: Callable[[], None] = lambda: None
        #: Whether older events wait on disk: then new ones do, too.
        self._is_behind = False
        self._to_disk = 0  # events accepted that were to wait on disk
        self._asked_at = -1  # of these, when the last were asked for; -1: nothing is asked for
        self._suspect = -1  # position of the delivery in hand in whose attempts the process died
        self._is_stopping = False

    def start(self, *, is_alone: bool) -> None:
        """Begin with what waits. `is_alone`: no other worker has any. Within the running loop."""
        if is_alone:
            self._hold_keys(self._spool.held_keys)
        else:
            self._waiting = self._ordered
            self._sum_up()
        waiting = self._spool.counts[State.PENDING]
        self._is_behind = waiting > 0
        if waiting and is_alone:
            log.info("events wait on disk", events=waiting, hold=self._hold)
        if not self._hold:
            self._look()

    def alone(self, held: Sequence[Held]) -> None:
        """The other workers are gone, and what they left is ours now."""
        if self._waiting:
            self._hold_keys(held)
            self._waiting = ()
            self._sum_up()
        self._is_behind = True
        self._ask_back()

    def withhold(self, endpoints: Collection[str]) -> None:
        """From now on bring nothing of these; of all others what waits."""
        self._paused = tuple(endpoints)
        self._sum_up()
        self._is_behind = True

    def go_on(self) -> None:
        """Something that was held on disk may come back."""
        self._is_behind = True

    def _sum_up(self) -> None:
        self._withheld = (*self._waiting, *self._paused)

    def _hold_keys(self, held: Sequence[Held]) -> None:
        for key in held:
            if key.handler in self._pool.lanes:
                coalescer = self._pool.coalescer_of(key.handler)
                if coalescer is not None:
                    first = key.due_ns, key.since_ns, key.received_at_ns
                    coalescer.hold(key.order_key, key.newest, *first)
                    continue
                order = self._pool.lanes[key.handler].order
                order.hold(key.order_key, key.head, key.parked, key.parked_from)

    def drain(self) -> None:
        """Whoever comes next is to run new events whose order counts, beside its own."""
        self._waiting = self._ordered
        self._sum_up()

    def stop(self) -> None:
        """Bring nothing more: the next start finds it."""
        self._is_stopping = True
        if not self._hold:
            self._looker.cancel()

    def enter(self, delivery: Delivery) -> bool:
        """Whether a new delivery has entered the backlog; else it is to wait on disk."""
        if self._is_behind or self._hold or delivery.endpoint in self._withheld:
            return False
        if self._is_stopping:
            return False
        runs = self._backlog.enter(delivery)
        self._is_behind = not runs
        return runs

    def stored(self, endpoint: str) -> None:
        """A new delivery waits on disk."""
        if endpoint not in self._withheld:  # else it is not asked for
            self._to_disk += 1

    def settled(self, outcome: Outcome) -> None:
        """An attempt is over: there may be room."""
        if not outcome.leaves:
            return
        if outcome.delivery.position == self._suspect:
            self._suspect = -1
        if self._is_behind and self._backlog.count * 2 < self._backlog.capacity:
            self._ask_back()

    def _look(self) -> None:
        """Ask now and then: a retry may be due, or a command may have replayed something."""
        self._looker = asyncio.get_running_loop().call_later(_LOOK_S, self._look)
        self.on_look()
        self._ask_back()

    def _ask_back(self) -> None:
        if self._hold or self._asked_at >= 0 or self._is_stopping:
            return
        count = min(_READ_BACK, self._backlog.room)
        if count > 0:
            self._asked_at = self._to_disk
            left_bytes = self._backlog.capacity_bytes - self._backlog.bytes
            self._spool.read_back(count, left_bytes, self._withheld)

    def brought(self, result: ReadBack) -> None:
        """What was asked for."""
        if self._is_stopping:
            return
        if result.is_all and self._asked_at == self._to_disk:
            self._is_behind = False
        self._asked_at = -1
        for position, parts in result.gone:
            for part in parts:
                coalescer = self._pool.coalescer_of(part.handler)
                if coalescer is not None:
                    coalescer.gone(part.order_key, position)
                elif part.order_key and part.handler in self._pool.lanes:
                    order = self._pool.lanes[part.handler].order
                    order.gone(part.order_key, position, was_parked=not part.attempt)
        now_ns = time.time_ns()
        for delivery, parts in result.deliveries:
            self._resume(delivery, parts, now_ns)
        if self._is_behind:
            self._ask_back()

    def _resume(self, delivery: Delivery, parts: Sequence[Part], now_ns: int) -> None:
        handlers = self._pool.handlers_of(delivery.endpoint)
        resumed = resumable(handlers, parts, now_ns)
        self._bury_unknown(delivery, handlers, parts)
        if not resumed:
            self._spool.put_back(delivery.position)
            return
        if any(part.crashes and part.state == State.PENDING for part in parts):
            # It may be the one that kills the process: no two of these are in hand together, so
            # that those which were only beside it are found out to be harmless.
            if self._suspect >= 0:
                self._spool.put_back(delivery.position, now_ns + _NEXT_SUSPECT_NS)
                return
            self._suspect = delivery.position
        try:
            self._receiver.restore(delivery)
        except Rejection as rejection:
            error = Undecodable(f"its endpoint does not take it any more: {rejection}")
            self._receiver.restore_as(delivery, error)
        self._backlog.readmit(delivery)
        delivery.has_one_handler = len(handlers) == 1 and not parts
        self._pool.resume(delivery, resumed)

    def _bury_unknown(
        self, delivery: Delivery, handlers: Sequence[str], parts: Sequence[Part]
    ) -> None:
        """What a handler was to do that the configuration has no more is a dead letter."""
        now_ns = time.time_ns()
        gone = [
            (part.handler, part.attempt)
            for part in parts
            if part.handler not in handlers and part.state in (State.PENDING, State.WAITING)
        ]
        if not handlers and not parts:
            gone = [("(none)", 0)]
        for name, attempt in gone:
            what = f"endpoint {delivery.endpoint}"
            error = f"{what} has no handler {name} any more" if handlers else f"{what} is gone"
            log.error("dead", endpoint=delivery.endpoint, id=delivery.event_id, error=error)
            position = delivery.position
            settled = Settled(position, name, "dead", attempt, now_ns, False, 0, error)
            self._spool.settle(settled)


def resumable(handlers: Sequence[str], parts: Sequence[Part], now_ns: int) -> Mapping[str, Resumed]:
    """Which handlers are to run now, of a delivery that comes back from disk."""
    known = {part.handler: part for part in parts}
    resumed: dict[str, Resumed] = {}
    for name in handlers:
        part = known.get(name)
        if part is None:
            if EVERY_OTHER not in known:
                resumed[name] = Resumed(0, False, is_new=True)
        elif part.state == State.PENDING and part.due_ns <= now_ns:
            was_parked = not part.attempt and bool(part.order_key)
            resumed[name] = Resumed(part.attempt, was_parked)
    return resumed
