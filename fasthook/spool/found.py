"""What is asked of a spool's index, and what is found there."""

from typing import Any, Final, NamedTuple

import msgspec

from fasthook.spool.changes import NEVER_NS, Part, State
from fasthook.spool.journal import name_of
from fasthook.spool.records import Accepted

#: The states that the index has an index of: these deliveries are found without a look at the rest.
_QUICK: Final = (State.RUNNING, State.DEAD, State.DAMAGED, State.FORGOTTEN)
_IS_QUICK: Final = f"state IN ({', '.join(f'{state:d}' for state in _QUICK)})"
#: The states of deliveries, by the names that people use.
STATES: Final[dict[str, State]] = {
    state.name.lower(): state for state in State if state not in (State.WAITING, State.SKIPPED)
}


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which deliveries are wanted: those for which all of it holds."""

    endpoint: str = ""  # empty, here and below: any
    event_type: str = ""
    event_id: str = ""
    states: tuple[State, ...] = ()  # one of these
    since_ns: int = 0  # received then or later; wall clock
    until_ns: int = NEVER_NS  # received before; wall clock
    before: int = -1  # older than the delivery at this position; -1: any

    @property
    def is_quick(self) -> bool:
        """Whether the index of states finds them, without a look at the rest."""
        return bool(self.states) and set(self.states) <= set(_QUICK)

    def condition(self) -> tuple[str, list[Any]]:
        """SQL for everything but the position, and its values."""
        condition, values = "", list[Any]()
        for column in ("endpoint", "event_type", "event_id"):
            if value := getattr(self, column):
                condition += f" AND {column} = ?"
                values.append(value)
        if self.is_quick:
            condition += f" AND {_IS_QUICK}"  # as the index says it, or SQLite does not see it
        if self.states:
            condition += f" AND state IN ({', '.join('?' * len(self.states))})"
            values += map(int, self.states)
        if self.since_ns > 0:
            condition += " AND received_at_ns >= ?"
            values.append(self.since_ns)
        if self.until_ns < NEVER_NS:
            condition += " AND received_at_ns < ?"
            values.append(self.until_ns)
        return condition, values


class Found(NamedTuple):
    """A delivery, as the index has it."""

    position: int
    endpoint: str
    event_id: str
    event_type: str
    received_at_ns: int  # wall clock
    state: State
    due_ns: int  # of a pending one, wall clock; 0: at once, `NEVER_NS`: others come first

    @property
    def name(self) -> str:
        """How people call it."""
        return name_of(self.position)


class Failure(NamedTuple):
    """An attempt that failed."""

    handler: str
    attempt: int
    at_ns: int  # wall clock
    error: str


class DeadLetter(NamedTuple):
    """What a handler gave up."""

    delivery: Found
    part: Part
    last: Failure | None  # None: it said nothing


class Kept(NamedTuple):
    """A delivery's record in the journal."""

    kind: int  # ACCEPTED, or ERASED: head and body are zeros
    accepted: Accepted
    head: bytes
    body: bytes
