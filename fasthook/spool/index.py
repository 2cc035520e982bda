"""The index: what the journals say, so that it can be asked. One SQLite database.

It is a view: deleting it loses nothing, for it is made again from the journals. The cursor stands
in the same transaction as what was read up to there, so it needs no sync of its own. All methods
wait for the disk: they are called in the spool's thread, or by commands.
"""

import os
from array import array
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, NamedTuple

import apsw

from fasthook.errors import FasthookError
from fasthook.spool.records import Accepted, Settled

VERSION: Final = 1
#: The WAL-reset bug (sqlite.org/wal.html#walresetbug) is gone from here on.
_MIN_SQLITE: Final = 3_051_003
_BUSY_MS: Final = 5000
#: Rows of one statement: it runs as one step, without the interpreter's lock.
_ROWS: Final = 64


class State(IntEnum):
    """Where a delivery stands; and each of its handlers, where that is not the same."""

    PENDING = 0  # on disk alone: it is read back when there is room and it is due
    RUNNING = 1  # in memory: in line, or in hand
    DONE = 2
    DEAD = 3
    IGNORED = 4  # not wanted by its endpoint
    DAMAGED = 5  # its record can't be read any more: never served, and never forgotten silently


class WrongIndex(FasthookError):
    """A database that this version can't use."""


#: A delivery, as the index has it: position, key, endpoint, id, type, receipt in ns, state.
Row = list[Any]
STATE: Final = 6  # of a row


class Changes:
    """What a stretch of the journal changes. Most deliveries are accepted and done within one."""

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}  # by position: accepted in this stretch
        self.done: list[int] = []  # accepted before it, and done at the first attempt
        self.settled: list[Settled] = []  # all other outcomes

    def __len__(self) -> int:
        return len(self.rows) + len(self.done) + len(self.settled)

    def extend(self, later: "Changes") -> None:
        """Add what came after these."""
        self.rows |= later.rows
        self.done += later.done
        self.settled += later.settled

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
        ]

    def settle(self, settled: Settled) -> None:
        """An attempt was made."""
        if settled.kind == "done" and settled.is_last and settled.attempt == 1:
            row = self.rows.get(settled.position)
            if row is None:
                self.done.append(settled.position)
            else:
                row[STATE] = int(State.DONE)
        else:
            self.settled.append(settled)


class Part(NamedTuple):
    """One handler's part of a delivery that is not over, or was not done at the first attempt."""

    handler: str
    attempt: int  # the last one
    state: int


class Cursor(NamedTuple):
    """How far a worker's journal has been read into the index."""

    segment: int
    offset: int


_SCHEMA: Final = f"""
CREATE TABLE deliveries (
    position INTEGER PRIMARY KEY, key BLOB NOT NULL, endpoint TEXT NOT NULL,
    event_id TEXT NOT NULL, event_type TEXT NOT NULL, received_at_ns INTEGER NOT NULL,
    state INTEGER NOT NULL);
CREATE UNIQUE INDEX deliveries_key ON deliveries (key);
CREATE INDEX deliveries_open ON deliveries (state, position)
    WHERE state IN ({State.PENDING:d}, {State.RUNNING:d}, {State.DEAD:d});
CREATE TABLE parts (
    position INTEGER NOT NULL, handler TEXT NOT NULL, attempt INTEGER NOT NULL,
    state INTEGER NOT NULL, due_ns INTEGER NOT NULL,
    PRIMARY KEY (position, handler)) WITHOUT ROWID;
CREATE INDEX parts_due ON parts (due_ns) WHERE state = {State.PENDING:d};
CREATE TABLE failures (
    position INTEGER NOT NULL, handler TEXT NOT NULL, attempt INTEGER NOT NULL,
    at_ns INTEGER NOT NULL, error TEXT NOT NULL,
    PRIMARY KEY (position, handler, attempt)) WITHOUT ROWID;
CREATE TABLE cursors (worker INTEGER PRIMARY KEY, segment INTEGER, offset INTEGER);
PRAGMA user_version = {VERSION};
"""


class Index:
    """One connection to the database."""

    def __init__(self, path: Path) -> None:
        """Open or make it. Raises `WrongIndex`, and `apsw.Error` where it is damaged."""
        if apsw.SQLITE_VERSION_NUMBER < _MIN_SQLITE:
            raise WrongIndex(
                f"SQLite {apsw.sqlite_lib_version()} corrupts databases; 3.51.3 is due"
            )
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._connection = apsw.Connection(str(path))
        self._connection.set_busy_timeout(_BUSY_MS)
        self._ask("PRAGMA journal_mode = WAL")
        # A crash may take the last transactions, and the cursor with them: they are read again.
        self._ask("PRAGMA synchronous = NORMAL")
        self._ask("PRAGMA journal_size_limit = 67108864")
        with self._connection:
            (version,) = self._ask("PRAGMA user_version")[0]
            if not version and not self._ask("SELECT 1 FROM sqlite_schema LIMIT 1"):
                self._connection.execute(_SCHEMA)
            elif version != VERSION:
                raise WrongIndex(f"{path}: format {version}; expected {VERSION}")

    def _ask(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        return self._connection.execute(statement, tuple(values)).fetchall()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    # --- following the journals -------------------------------------------------------------------

    def cursor(self, worker: int) -> Cursor:
        """Up to where this worker's journal has been read."""
        rows = self._ask("SELECT segment, offset FROM cursors WHERE worker = ?", (worker,))
        return Cursor(*rows[0]) if rows else Cursor(0, 0)

    def apply(self, worker: int, cursor: Cursor, changes: Changes) -> None:
        """Take in what a journal holds up to `cursor`, all or nothing.

        A row whose key is known already is left out: it is the same event.
        """
        with self._connection:
            self._insert(list(changes.rows.values()))
            self._set_state(changes.done, State.DONE, (State.PENDING, State.RUNNING))
            for settled in changes.settled:
                self._take(settled)
            self._ask("INSERT OR REPLACE INTO cursors VALUES (?, ?, ?)", (worker, *cursor))

    def _insert(self, rows: Sequence[Row]) -> None:
        for begin in range(0, len(rows), _ROWS):
            part = rows[begin : begin + _ROWS]
            places = ",".join(["(?, ?, ?, ?, ?, ?, ?)"] * len(part))
            values = [value for row in part for value in row]
            self._ask(f"INSERT OR IGNORE INTO deliveries VALUES {places}", values)  # noqa: S608

    def _set_state(self, positions: Sequence[int], to: State, of: Sequence[State]) -> int:
        """Guarded: only deliveries in one of the states `of` change. How many did."""
        if not positions:
            return 0
        self._ask(
            "UPDATE deliveries SET state = ? WHERE position IN carray(?) AND state IN carray(?)",
            (int(to), _integers(positions), _integers(of)),
        )
        return self._connection.changes()

    def _take(self, settled: Settled) -> None:
        """One attempt that was not all there is to its delivery."""
        position, handler, attempt = settled.position, settled.handler, settled.attempt
        if not self._ask("SELECT 1 FROM deliveries WHERE position = ?", (position,)):
            return  # pruned, or the same as another
        state = _PART_STATES[settled.kind]
        self._ask(
            "INSERT INTO parts VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
            "attempt = excluded.attempt, state = excluded.state, due_ns = excluded.due_ns",
            (position, handler, attempt, int(state), settled.due_ns),
        )
        if settled.error:
            self._ask(
                "INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?, ?)",
                (position, handler, attempt, settled.at_ns, settled.error),
            )
        if settled.is_last:
            dead = "SELECT 1 FROM parts WHERE position = ? AND state = ?"
            is_dead = self._ask(dead, (position, int(State.DEAD)))
            end = State.DEAD if is_dead else State.DONE
            self._set_state([position], end, (State.PENDING, State.RUNNING))

    # --- asking -----------------------------------------------------------------------------------

    def recover(self) -> int:
        """What was in memory when the service ended waits on disk again; how many deliveries."""
        change = "UPDATE deliveries SET state = ? WHERE state = ?"
        self._ask(change, (int(State.PENDING), int(State.RUNNING)))
        return self._connection.changes()

    def take_due(self, limit: int, now_ns: int) -> list[int]:
        """Positions of deliveries that are to be run, oldest first; they are RUNNING from now on.

        Those which wait for a retry are left until it is due.
        """
        with self._connection:
            rows = self._ask(_DUE, (int(State.PENDING), int(State.PENDING), now_ns, limit))
            positions = [position for (position,) in rows]
            self._set_state(positions, State.RUNNING, (State.PENDING,))
        return positions

    def quarantine(self, position: int) -> None:
        """The record of this delivery is damaged: it is not run."""
        self._set_state([position], State.DAMAGED, (State.PENDING, State.RUNNING))

    def next_due_ns(self) -> int | None:
        """When the next retry is due (wall clock), if one is waited for."""
        due = "SELECT min(due_ns) FROM parts WHERE state = ?"
        return self._ask(due, (int(State.PENDING),))[0][0]  # type: ignore[no-any-return]

    def parts_of(self, positions: Sequence[int]) -> dict[int, list[Part]]:
        """What is known of the handlers of these deliveries: only where something is."""
        found: dict[int, list[Part]] = {}
        if positions:
            wanted = (
                "SELECT position, handler, attempt, state FROM parts WHERE position IN carray(?)"
            )
            for position, *values in self._ask(wanted, (_integers(positions),)):
                found.setdefault(position, []).append(Part(*values))
        return found

    def prune(self, begin: int, end: int) -> bool:
        """Forget deliveries from position `begin` up to `end`; False if one of them is open."""
        place = (begin, end)
        is_open = "SELECT 1 FROM deliveries WHERE state < 2 AND position >= ? AND position < ?"
        if self._ask(f"{is_open} LIMIT 1", place):
            return False
        with self._connection:
            for table in ("deliveries", "parts", "failures"):
                delete = f"DELETE FROM {table} WHERE position >= ? AND position < ?"  # noqa: S608
                self._ask(delete, place)
        return True

    def counts(self) -> dict[State, int]:
        """How many deliveries are in each state that calls for something."""
        states = (State.PENDING, State.RUNNING, State.DEAD)
        count = "SELECT count(*) FROM deliveries WHERE state = ?"
        return {state: self._ask(count, (int(state),))[0][0] for state in states}

    def known(self, keys: Sequence[bytes]) -> set[bytes]:
        """Which of these keys have been accepted already."""
        if not keys:
            return set()
        rows = self._ask(
            "SELECT key FROM deliveries WHERE key IN carray(?)", (apsw.carray(tuple(keys)),)
        )
        return {key for (key,) in rows}


_PART_STATES: Final = {"done": State.DONE, "retry": State.PENDING, "dead": State.DEAD}
_DUE: Final = """
SELECT position FROM deliveries d WHERE state = ? AND NOT EXISTS (
    SELECT 1 FROM parts p WHERE p.position = d.position AND p.state = ? AND p.due_ns > ?)
ORDER BY position LIMIT ?"""


def _integers(values: Sequence[int]) -> Any:
    return apsw.carray(array("q", values))
