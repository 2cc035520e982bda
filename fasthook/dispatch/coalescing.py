"""`coalesce_by`: events of one handler with the same key become one run, with the newest.

An event waits until none of its key has come for `within`, but since the first of them no longer
than MAX_WINDOWS times that. A newer one that comes meanwhile takes its place, and also the place of
one that waits for its next attempt. While one of a key runs the newest waits. What has to wait for
long waits on disk. Pure: no loop, no clock, no disk; see `Hands`.
"""

from collections import OrderedDict
from typing import Any, Final, Protocol

from fasthook.model import Event

#: So that a key of which something comes all the time is not put off for ever.
MAX_WINDOWS: Final = 10
#: Keys in use, of one handler. Events of others run at once, each by itself.
MAX_KEYS: Final = 100_000
#: Superseded on disk, but perhaps on their way back at that moment. Beyond, the oldest are
#: forgotten, and would run.
_MAX_STALE: Final = 10_000


class Hands(Protocol):
    """What a coalescer has done."""

    def now_ns(self) -> int:
        """Wall clock."""

    def run(self, event: Event[Any]) -> None:
        """Run it; `over`, `tries_again` or `is_stored` says what it came to."""

    def store(self, event: Event[Any], due_ns: int, since_ns: int) -> None:
        """Let it wait on disk until then; it comes back by `enter`."""

    def wake(self, key: str, after_ns: int) -> None:
        """Have `wake` called after that."""

    def supersede(self, event: Event[Any], by: int) -> None:
        """It is in memory, and never runs; `by`: position of the one that does."""

    def supersede_stored(self, position: int, by: int) -> None:
        """The same of one that is on disk."""


class _Waiting:
    """The newest event of a key, which is to run next."""

    __slots__ = ("position", "event", "due_ns", "since_ns", "received_ns", "was_tried")

    def __init__(self, event: Event[Any] | None, position: int, received_ns: int) -> None:
        self.event = event  # None: it is on disk
        self.position = position
        self.received_ns = received_ns
        self.due_ns = 0
        self.since_ns = 0  # receipt of the first event in whose place it stands
        self.was_tried = False


class _Key:
    __slots__ = ("waiting", "running", "is_awaking")

    def __init__(self) -> None:
        self.waiting: _Waiting | None = None
        self.running: Event[Any] | None = None  # in line or in hand
        self.is_awaking = False  # `wake` is to be called


class Coalescer:
    """The keys of one handler that are in use."""

    __slots__ = ("_keys", "_within_ns", "_patience_ns", "_hands", "_stale")

    def __init__(self, within_s: float, patience_s: float, hands: Hands) -> None:
        """Those that have to wait for longer than `patience_s` wait on disk."""
        self._keys: dict[str, _Key] = {}
        self._within_ns = int(within_s * 1e9)
        self._patience_ns = patience_s * 1e9
        self._hands = hands
        #: Positions of what was superseded on disk, and by what.
        self._stale: OrderedDict[int, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def waiting(self) -> int:
        """How many events wait, in memory and on disk."""
        return sum(key.waiting is not None for key in self._keys.values())

    def first_due_ns(self) -> int | None:
        """When the first one that waits in memory is due; None: none does."""
        found = [k.waiting for k in self._keys.values() if k.waiting and k.waiting.event]
        return min((each.due_ns for each in found), default=None)

    def hold(self, name: str, position: int, due_ns: int, since_ns: int, received_ns: int) -> None:
        """What waited on disk when the service started: the newest of a key."""
        if len(self._keys) >= MAX_KEYS:
            return
        waiting = _Waiting(None, position, received_ns)
        waiting.due_ns, waiting.since_ns = due_ns, since_ns or received_ns
        self._key(name).waiting = waiting

    def gone(self, name: str, position: int) -> None:
        """An event that waited on disk will not come back: it is damaged, or was erased."""
        key = self._keys.get(name)
        if key is not None and key.waiting is not None and key.waiting.position == position:
            key.waiting = None
            self._forget_unused(name, key)

    def _key(self, name: str) -> _Key:
        key = self._keys.get(name)
        if key is None:
            key = self._keys[name] = _Key()
        return key

    def _forget_unused(self, name: str, key: _Key) -> None:
        if key.waiting is None and key.running is None:
            self._keys.pop(name, None)

    # --- events in --------------------------------------------------------------------------------

    def enter(self, event: Event[Any], *, is_fresh: bool) -> None:
        """An event comes: from its sender, or (not `is_fresh`) back from disk."""
        name = event._key
        if len(self._keys) >= MAX_KEYS and name not in self._keys:
            self._hands.run(event)
            return
        key = self._key(name)
        if is_fresh or not self._comes_back(key, event):
            self._put_first(key, event)
        self._go_on(name, key)

    def _comes_back(self, key: _Key, event: Event[Any]) -> bool:
        """Whether all is done for an event from disk."""
        position, waiting = event._delivery.position, key.waiting
        by = self._stale.pop(position, None)
        if by is not None:
            self._hands.supersede(event, by)
            return True
        if waiting is not None and waiting.event is None and waiting.position == position:
            waiting.event, waiting.due_ns = event, 0
            return True
        received_ns = event._delivery.received_at_ns
        if waiting is not None and (waiting.received_ns, waiting.position) > (
            received_ns,
            position,
        ):
            self._hands.supersede(event, waiting.position)
            return True
        if key.running is not None:
            running = key.running._delivery
            if (running.received_at_ns, running.position) > (received_ns, position):
                self._hands.supersede(event, running.position)
                return True
        return False

    def _put_first(self, key: _Key, event: Event[Any]) -> None:
        """The newest one: it takes the place of the one that waits."""
        delivery, old = event._delivery, key.waiting
        received_ns = since_ns = delivery.received_at_ns
        if old is not None:
            if not old.was_tried:
                since_ns = min(old.since_ns, received_ns)
            if old.event is not None:
                self._hands.supersede(old.event, delivery.position)
            else:
                self._stale[old.position] = delivery.position
                if len(self._stale) > _MAX_STALE:
                    self._stale.popitem(last=False)
                self._hands.supersede_stored(old.position, delivery.position)
        new = key.waiting = _Waiting(event, delivery.position, received_ns)
        new.since_ns, new.was_tried = since_ns, event.attempt > 0
        if not new.was_tried:
            within_ns = self._within_ns
            new.due_ns = min(received_ns + within_ns, since_ns + MAX_WINDOWS * within_ns)

    def _go_on(self, name: str, key: _Key) -> None:
        """Do with the one that waits what is to be done now."""
        waiting = key.waiting
        if waiting is None:
            self._forget_unused(name, key)
            return
        event = waiting.event
        if event is None:
            return
        left_ns = waiting.due_ns - self._hands.now_ns()
        if left_ns > self._patience_ns:
            waiting.event = None
            self._hands.store(event, waiting.due_ns, waiting.since_ns)
        elif left_ns > 0:
            if not key.is_awaking:
                key.is_awaking = True
                self._hands.wake(name, left_ns)
        elif key.running is None:
            key.waiting, key.running = None, event
            self._hands.run(event)

    def wake(self, name: str) -> None:
        """The time is over that was asked for."""
        key = self._keys.get(name)
        if key is not None:
            key.is_awaking = False
            self._go_on(name, key)

    # --- what runs came to ------------------------------------------------------------------------

    def over(self, event: Event[Any]) -> None:
        """It is done or dead."""
        key = self._keys.get(event._key)
        if key is not None:
            if key.running is not None and key.running._delivery is event._delivery:
                key.running = None
            self._go_on(event._key, key)

    def has_newer(self, event: Event[Any]) -> bool:
        """Whether another one waits to run in the place of this one."""
        key = self._keys.get(event._key)
        return key is not None and key.waiting is not None

    def give_way(self, event: Event[Any]) -> None:
        """It failed, and is not tried again, since there is a newer one."""
        key = self._keys[event._key]
        assert key.waiting is not None  # noqa: S101 - `has_newer`
        self._hands.supersede(event, key.waiting.position)
        self.over(event)

    def tries_again(self, event: Event[Any], due_ns: int, *, is_stored: bool) -> None:
        """It failed, and waits for its next attempt, on disk or in memory."""
        name, delivery = event._key, event._delivery
        key = self._key(name)
        key.running = None
        waiting = _Waiting(None if is_stored else event, delivery.position, delivery.received_at_ns)
        waiting.due_ns, waiting.since_ns, waiting.was_tried = due_ns, waiting.received_ns, True
        key.waiting = waiting
        self._go_on(name, key)

    def put_off(self, event: Event[Any], due_ns: int) -> bool:
        """It was to run, and goes to disk; false: there is a newer one, so it never runs."""
        name, delivery = event._key, event._delivery
        key = self._key(name)
        key.running = None
        if key.waiting is not None:
            self._hands.supersede(event, key.waiting.position)
            self._go_on(name, key)
            return False
        waiting = _Waiting(None, delivery.position, delivery.received_at_ns)
        waiting.due_ns, waiting.since_ns = due_ns, waiting.received_ns
        waiting.was_tried = event.attempt > 0
        key.waiting = waiting
        return True

    def drop(self, positions: frozenset[int]) -> list[Event[Any]]:
        """Take out events that wait in memory: those of the deliveries at these positions."""
        dropped = []
        for name, key in list(self._keys.items()):
            waiting = key.waiting
            if waiting is not None and waiting.event and waiting.position in positions:
                dropped.append(waiting.event)
                key.waiting = None
                self._forget_unused(name, key)
        return dropped
