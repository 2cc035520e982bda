"""What a stretch of the journal says, on its way into the index; and the words for it."""

from enum import IntEnum
from typing import Any, Final, NamedTuple

from fasthook.model import NEVER_NS as NEVER_NS
from fasthook.spool.records import Accepted, Done, Forgotten, Later, Replayed, Settled

#: A part of this name stands for all handlers that have none of their own.
EVERY_OTHER: Final = ""


class State(IntEnum):
    """Where a delivery stands; and each of its handlers, where that is not the same."""

    PENDING = 0  # on disk alone: it is read back when there is room and it is due
    RUNNING = 1  # in memory: in line, or in hand
    DONE = 2
    DEAD = 3
    IGNORED = 4  # not wanted by its endpoint
    DAMAGED = 5  # its record can't be read any more: never served, and never forgotten silently
    FORGOTTEN = 6  # head and body are erased
    WAITING = 7  # of a handler alone: behind others of its key
    SKIPPED = 8  # of a handler alone: it does not want it
    SUPERSEDED = 9  # a newer one of its key runs in its place


#: A delivery, as the index has it: position, key, endpoint, id, type, receipt in ns, state, due.
Row = list[Any]
KEY: Final = 1  # of a row
STATE: Final = 6


class Changes:
    """What a stretch of the journal changes. Most deliveries are accepted and done within one."""

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}  # by position: accepted in this stretch
        self.done: list[int] = []  # accepted before it, and done at the first attempt
        self.later: list[Settled | Replayed | Forgotten] = []  # all else, in order
        #: Read back for nothing, and due not before that (ns): see `Index._put_back`.
        self.put_back: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self.rows) + len(self.done) + len(self.later) + len(self.put_back)

    def extend(self, following: "Changes") -> None:
        """Add what came after these."""
        self.rows |= following.rows
        self.done += following.done
        self.later += following.later
        self.put_back += following.put_back

    def accept(self, position: int, accepted: Accepted, state: State) -> None:
        """A delivery came."""
        self.rows[position] = [
            position,
            accepted.key,
            accepted.endpoint,
            accepted.event_id,
            accepted.event_type,
            accepted.received_at_ns,
            int(state),
            accepted.received_at_ns,  # due: oldest first, and retries among them
        ]

    def add(self, later: Later) -> None:
        """Something happened to deliveries that came before."""
        if isinstance(later, Done):
            for position in later.positions:
                row = self.rows.get(position)
                if row is None:
                    self.done.append(position)
                elif row[STATE] <= State.RUNNING:
                    row[STATE] = int(State.DONE)
        else:
            self.later.append(later)


class Part(NamedTuple):
    """One handler's part of a delivery that is not over, or was not done at the first attempt."""

    handler: str
    attempt: int  # the last one; 0: none yet
    state: int
    due_ns: int
    order_key: str
    crashes: int = 0  # attempts in which the process died
    note: str = ""  # why it was skipped, or the name of the one that superseded it
    since_ns: int = 0  # of one that is held: receipt of the first event that it stands for


class Held(NamedTuple):
    """A key of ordered events, some of which wait on disk."""

    handler: str
    order_key: str
    head: int  # position of the one that is to be tried again; -1: none
    parked: int  # how many wait behind it, or behind one another
    parked_from: int  # the lowest position of these
    newest: int  # the highest position of all; and of that one:
    due_ns: int
    since_ns: int
    received_at_ns: int


class Cursor(NamedTuple):
    """How far a worker's journal has been read into the index."""

    segment: int
    offset: int


def state_of(accepted: Accepted, *, runs: bool) -> State:
    """The state that a delivery begins with."""
    if accepted.kind != "event":
        return State.IGNORED
    return State.RUNNING if runs else State.PENDING
