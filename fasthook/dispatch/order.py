"""`ordered_by`: events of one handler with the same key run one at a time, in order of receipt.

An event that is to be tried again later waits on disk, and so do those behind it, so that a key
that fails for long takes no room from others. Pure: no loop, no clock, no disk.
"""

from collections import deque
from enum import Enum
from typing import Any

from fasthook.model import Event


class Turn(Enum):
    """Whose turn it is."""

    RUN = 1  # now
    QUEUED = 2  # once those before it are over; `over` gives it then
    PARKED = 3  # it is to wait on disk, until those before it are over


class _Key:
    __slots__ = ("is_active", "line", "head", "parked", "parked_from")

    def __init__(self) -> None:
        self.is_active = False  # one of them is in line or in hand
        self.line: deque[Event[Any]] = deque()  # behind that one, in memory
        self.head = -1  # position of the one that waits on disk to be tried again; -1: none
        self.parked = 0  # on disk, behind the head or behind one another
        self.parked_from = 0  # no parked one has a lower position

    def park(self, event: Event[Any]) -> None:
        position = event._delivery.position
        self.parked_from = min(self.parked_from, position) if self.parked else position
        self.parked += 1


class Order:
    """The keys of one handler that are in use."""

    __slots__ = ("_keys",)

    def __init__(self) -> None:
        self._keys: dict[str, _Key] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def hold(self, key: str, head: int, parked: int, parked_from: int) -> None:
        """What waited on disk when the service started."""
        held = self._keys[key] = _Key()
        held.head, held.parked, held.parked_from = head, parked, parked_from

    def gone(self, key_name: str, position: int, *, was_parked: bool) -> None:
        """An event that waited on disk will not come back: it is damaged, or was erased."""
        key = self._keys.get(key_name)
        if key is None:
            return
        key.parked = max(0, key.parked - was_parked)
        if key.head == position:
            key.head = -1
        self._forget_unused(key_name, key)

    def enter(self, event: Event[Any], *, is_fresh: bool, was_parked: bool = False) -> Turn:
        """An event comes: from its sender, or (not `is_fresh`) back from disk."""
        key = self._keys.get(event._key)
        if key is None:
            key = self._keys[event._key] = _Key()
        elif is_fresh:
            if key.head >= 0 or key.parked:
                key.park(event)
                return Turn.PARKED
        else:
            key.parked = max(0, key.parked - was_parked)
            if event._delivery.position == key.head:
                key.head = -1
            elif key.head >= 0 or self._overtakes(key, event, was_parked):
                key.park(event)
                return Turn.PARKED
        if key.is_active:
            key.line.append(event)
            return Turn.QUEUED
        key.is_active = True
        return Turn.RUN

    def _overtakes(self, key: _Key, event: Event[Any], was_parked: bool) -> bool:
        """Whether parked ones that came before it are not back yet: it was never in memory."""
        return not was_parked and key.parked > 0 and event._delivery.position > key.parked_from

    def has_parked(self, event: Event[Any]) -> bool:
        """Whether others wait on disk for this one to be over."""
        key = self._keys.get(event._key)
        return key is not None and key.parked > 0

    def drop(self, positions: frozenset[int]) -> list[Event[Any]]:
        """Take out events that wait in memory: those of the deliveries at these positions."""
        dropped = []
        for key in self._keys.values():
            gone = [event for event in key.line if event._delivery.position in positions]
            for event in gone:
                key.line.remove(event)
            dropped += gone
        return dropped

    def over(self, event: Event[Any]) -> Event[Any] | None:
        """An event is done or dead; the one that is to run next, if it is in memory."""
        key = self._keys[event._key]
        if key.line:
            return key.line.popleft()
        key.is_active = False
        self._forget_unused(event._key, key)
        return None

    def away(self, event: Event[Any]) -> list[Event[Any]]:
        """An event goes to disk, to be tried again; the ones behind it that have to follow."""
        key = self._keys[event._key]
        key.is_active = False
        key.head = event._delivery.position
        parked = list(key.line)
        key.line.clear()
        for follower in parked:
            key.park(follower)
        return parked

    def put_off(self, event: Event[Any]) -> list[Event[Any]]:
        """An event goes to disk before its attempt; the ones behind it that have to follow."""
        if event.attempt:
            return self.away(event)
        key = self._keys[event._key]
        key.is_active = False
        followers = list(key.line)
        key.line.clear()
        for each in (event, *followers):
            key.park(each)
        return followers

    def _forget_unused(self, key_name: str, key: _Key) -> None:
        if not key.is_active and key.head < 0 and not key.parked:
            del self._keys[key_name]
