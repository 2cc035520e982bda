"""The index: what the journals say, so that it can be asked. One SQLite database.

It is a view: deleting it loses nothing, for it is made again from the journals. The cursor stands
in the same transaction as what was read up to there, so it needs no sync of its own. All methods
wait for the disk: they are called in the spool's thread, or by commands.
"""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import apsw

from fasthook.spool.changes import (
    EVERY_OTHER,
    KEY,
    NEVER_NS,
    Changes,
    Cursor,
    Held,
    Part,
    Row,
    State,
)
from fasthook.spool.database import connected
from fasthook.spool.journal import MAX_SEGMENT, WORKER_OF_POSITION, position_of
from fasthook.spool.keys import Keys
from fasthook.spool.records import Replayed, Settled
from fasthook.spool.schema import (
    HELD,
    HELD_HANDLERS,
    IS_NOT_OVER,
    LEADERLESS,
    NOTED,
    OVER,
    PART_STATES,
    SETTLED_STATES,
)
from fasthook.spool.transaction import transaction

INDEX_NAME: Final = "index.db"
#: Rows of one statement: it runs as one step, without the interpreter's lock.
_ROWS: Final = 64


class Index:
    """One connection to the database."""

    def __init__(self, path: Path, *, is_writer: bool = False) -> None:
        """Open or make it. `is_writer`: what is accepted is taken in here.

        Raises `WrongIndex`, and `apsw.Error` where it is damaged.
        """
        self.path = path
        self._connection = connected(path)
        self.keys = Keys(self._connection, is_writer=is_writer)

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

    def apply(
        self, cursors: Mapping[int, Cursor], changes: Changes, *, are_new: bool = False
    ) -> None:
        """Take in what journals hold up to their `cursors`, by worker; all or nothing.

        A row whose key is known already is left out: it is the same event. `are_new`: the caller
        has seen that none is, and goes on to know them until they are gathered: see `Keys`.
        """
        with transaction(self._connection):
            rows = list(changes.rows.values())
            if not are_new:
                rows = self._without_known(rows)
            self._insert(rows)
            self._set_state(changes.done, State.DONE, (State.PENDING, State.RUNNING))
            for later in changes.later:
                if isinstance(later, Settled):
                    self._settle(later)
                elif isinstance(later, Replayed):
                    self._replay(later)
                else:
                    self._forget(later.positions)
            for position, not_before_ns in changes.put_back:
                self._put_back(position, not_before_ns)
            for worker, cursor in cursors.items():
                self._ask("INSERT OR REPLACE INTO cursors VALUES (?, ?, ?)", (worker, *cursor))
            keys = [row[KEY] for row in rows]
            self.keys.add(keys, are_fresh=are_new)
        if are_new:
            self.keys.fresh += keys

    def _without_known(self, rows: Sequence[Row]) -> list[Row]:
        """The first one of each key that is in no row yet."""
        found: dict[bytes, Row] = {}
        for row in rows:
            found.setdefault(row[KEY], row)
        for key in self.keys.known(list(found)).union(self.keys.fresh):
            found.pop(key, None)
        return list(found.values())

    def _insert(self, rows: Sequence[Row]) -> None:
        for begin in range(0, len(rows), _ROWS):
            part = rows[begin : begin + _ROWS]
            places = ",".join(["(?, ?, ?, ?, ?, ?, ?, ?)"] * len(part))
            values = [value for row in part for value in row]
            self._ask(f"INSERT OR IGNORE INTO deliveries VALUES {places}", values)

    def _set_state(
        self, positions: Sequence[int], to: State, of: Iterable[State], due_ns: int | None = None
    ) -> int:
        """Guarded: only deliveries in one of the states `of` change. How many did."""
        if not positions:
            return 0
        self._ask(
            "UPDATE deliveries SET state = ?, due_ns = coalesce(?, due_ns) "
            "WHERE position IN carray(?) AND state IN carray(?)",
            (int(to), due_ns, _integers(positions), _integers(list(of))),
        )
        return self._connection.changes()

    def _settle(self, settled: Settled) -> None:
        """What became of a delivery at one handler, where that is not all there is to it."""
        position, handler, attempt = settled.position, settled.handler, settled.attempt
        known = self._ask("SELECT state FROM deliveries WHERE position = ?", (position,))
        if not known:
            return  # pruned, or the same as another
        state, is_crash = PART_STATES[settled.kind], settled.kind == "crash"
        is_over = state in (State.DONE, State.DEAD)
        is_noted = settled.kind in NOTED
        if settled.order_key and is_over:
            self._free(handler, settled.order_key)
        if known[0][0] == State.FORGOTTEN:
            return  # nothing more is said of it
        self._ask(
            "INSERT INTO parts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
            "attempt = max(attempt, excluded.attempt), state = excluded.state, "
            "due_ns = excluded.due_ns, "
            "order_key = coalesce(nullif(excluded.order_key, ''), order_key), "
            "crashes = crashes + excluded.crashes, note = excluded.note, "
            "since_ns = excluded.since_ns",
            (
                *(position, handler, attempt, int(state), settled.due_ns, settled.order_key),
                *(is_crash, settled.error if is_noted else "", settled.since_ns),
            ),
        )
        if settled.error and not is_noted:
            self._ask(
                "INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?, ?)",
                (position, handler, attempt, settled.at_ns, settled.error),
            )
        if settled.leaves:
            self._put_back(position)

    def _forget(self, positions: Sequence[int]) -> None:
        """They do not run; and what was said of them that may quote them goes."""
        if not positions:
            return
        self._set_state(positions, State.FORGOTTEN, list(State), 0)
        self._give_up_parts(positions)
        for table in ("failures", "parts"):
            self._ask(f"DELETE FROM {table} WHERE position IN carray(?)", (_integers(positions),))

    def purge(self) -> None:
        """What was deleted or overwritten is in no file any more, as far as readers let us."""
        self._ask("PRAGMA wal_checkpoint(TRUNCATE)")

    def _free(self, handler: str, order_key: str) -> None:
        """Events that waited behind one of their key may run now, in order."""
        of = (handler, order_key, int(State.WAITING))
        where = "handler = ? AND order_key = ? AND state = ?"
        rows = self._ask(f"SELECT position FROM parts WHERE {where}", of)
        if rows:
            self._ask(
                f"UPDATE parts SET state = ?, due_ns = 0 WHERE {where}",
                (int(State.PENDING), *of),
            )
            self._set_state([p for (p,) in rows], State.PENDING, (State.PENDING,), 0)

    def held_handlers(self) -> list[str]:
        """Handlers for which something is held until they go on."""
        return [handler for (handler,) in self._ask(HELD_HANDLERS)]

    def free_held(self, handler: str, workers: Iterable[int], limit: int) -> int:
        """Have run what was held for a handler in these workers' journals, oldest first.

        How many deliveries that are, at the most `limit`.
        """
        positions: list[int] = []
        for worker in workers:
            place = position_of(worker, 0, 0), position_of(worker + 1, 0, 0)
            rows = self._ask(
                "SELECT position FROM parts INDEXED BY parts_held "
                f"WHERE due_ns = {NEVER_NS:d} AND handler = ? AND position >= ? AND position < ? "
                f"AND state = {State.PENDING:d} LIMIT ?",
                (handler, *place, limit - len(positions)),
            )
            positions += [position for (position,) in rows]
        if positions:
            with transaction(self._connection):
                self._ask(
                    "UPDATE parts SET due_ns = 0 WHERE handler = ? AND position IN carray(?)",
                    (handler, _integers(positions)),
                )
                self._set_state(positions, State.PENDING, (State.PENDING,), 0)
        return len(positions)

    def _put_back(self, position: int, not_before_ns: int = 0) -> None:
        """The delivery is not in memory any more: what its handlers say is its state."""
        parts = self._ask("SELECT state, due_ns FROM parts WHERE position = ?", (position,))
        states = {state for state, _ in parts}
        due_ns = 0
        if State.PENDING in states:
            state = State.PENDING
            due_ns = min(due for state, due in parts if state == State.PENDING)
            due_ns = max(due_ns, not_before_ns)
        elif State.WAITING in states:
            state, due_ns = State.PENDING, NEVER_NS
        else:
            state = next((each for each in OVER if each in states), State.DONE)
            if state == State.SKIPPED:
                state = State.IGNORED
        self._set_state([position], state, (State.PENDING, State.RUNNING), due_ns)

    def _replay(self, replayed: Replayed) -> None:
        """Settled deliveries run once more."""
        for position in replayed.positions:
            if not self._set_state([position], State.PENDING, SETTLED_STATES, 0):
                continue  # it is still to run, or there is nothing to run any more
            if replayed.handler:
                again = (position, replayed.handler, int(State.PENDING))
                self._ask(
                    "INSERT OR REPLACE INTO parts VALUES (?, ?, 0, ?, 0, '', 0, '', 0)", again
                )
                self._rest_is_done(position)
                continue
            self._ask(
                "UPDATE parts SET state = ?, attempt = 0, due_ns = 0, crashes = 0 "
                "WHERE position = ? AND state = ?",
                (int(State.PENDING), position, int(State.DEAD)),
            )
            if self._connection.changes():
                self._rest_is_done(position)
            else:
                self._ask("DELETE FROM parts WHERE position = ?", (position,))

    def _rest_is_done(self, position: int) -> None:
        """Only those handlers run which have a part: others may have been added since."""
        rest = (position, EVERY_OTHER, int(State.DONE))
        self._ask("INSERT OR IGNORE INTO parts VALUES (?, ?, 0, ?, 0, '', 0, '', 0)", rest)

    # --- asking -----------------------------------------------------------------------------------

    def recover(self, worker: int) -> None:
        """What a worker had in memory when it ended waits on disk again, and comes first."""
        with transaction(self._connection):
            change = (
                "UPDATE deliveries SET state = ?, due_ns = 0 "
                "WHERE state = ? AND position >= ? AND position < ?"
            )
            place = position_of(worker, 0, 0), position_of(worker + 1, 0, 0)
            self._ask(change, (int(State.PENDING), int(State.RUNNING), *place))
            # Whoever is in front of them may have been done in what a crash took.
            for handler, order_key in self._ask(LEADERLESS):
                self._free(handler, order_key)

    def take_due(
        self, workers: Iterable[int], limit: int, now_ns: int, without: Sequence[str] = ()
    ) -> list[int]:
        """Positions of these workers' deliveries that are to be run, oldest first; they are
        RUNNING from now on.

        Those which wait for a retry are left until it is due, and those of the endpoints `without`.
        """
        statement = (
            "SELECT due_ns, position FROM deliveries INDEXED BY deliveries_due "
            f"WHERE state = {State.PENDING:d} AND {WORKER_OF_POSITION} = ? AND due_ns <= ? "
            f"{'AND endpoint NOT IN carray(?) ' if without else ''}"
            "ORDER BY due_ns, position LIMIT ?"
        )
        endpoints = (apsw.carray(tuple(without)),) if without else ()
        due: list[tuple[int, int]] = []
        with transaction(self._connection):
            for worker in workers:
                due += self._ask(statement, (worker, now_ns, *endpoints, limit))
            due.sort()
            positions = [position for _, position in due[:limit]]
            self._set_state(positions, State.RUNNING, (State.PENDING,))
        return positions

    def leave_pending(self, positions: Sequence[int]) -> None:
        """These were taken for nothing."""
        self._set_state(positions, State.PENDING, (State.RUNNING,))

    def quarantine(self, position: int) -> None:
        """The record of this delivery is damaged: it is not run."""
        with transaction(self._connection):
            self._set_state([position], State.DAMAGED, (State.PENDING, State.RUNNING))
            self._give_up_parts([position])

    def _give_up_parts(self, positions: Sequence[int]) -> None:
        """These do not run any more, and hold nobody back."""
        for found in self.parts_of(positions).values():
            for part in found:
                if part.order_key and part.state in (State.PENDING, State.WAITING):
                    self._free(part.handler, part.order_key)
        self._ask(
            "UPDATE parts SET state = ? WHERE position IN carray(?) AND state IN carray(?)",
            (
                int(State.DEAD),
                _integers(positions),
                _integers([State.PENDING, State.WAITING]),
            ),
        )

    def crashes(self, position: int, handler: str) -> int:
        """In how many attempts of a handler for a delivery the worker has died."""
        rows = self._ask(
            "SELECT crashes FROM parts WHERE position = ? AND handler = ?", (position, handler)
        )
        return rows[0][0] if rows else 0

    def parts_of(self, positions: Sequence[int]) -> dict[int, list[Part]]:
        """What is known of the handlers of these deliveries: only where something is."""
        found: dict[int, list[Part]] = {}
        if positions:
            wanted = (
                "SELECT position, handler, attempt, state, due_ns, order_key, crashes, note, "
                "since_ns FROM parts WHERE position IN carray(?)"
            )
            for position, *values in self._ask(wanted, (_integers(positions),)):
                found.setdefault(position, []).append(Part(*values))
        return found

    def held_keys(self) -> list[Held]:
        """Keys of ordered events that wait on disk."""
        return [Held(*row) for row in self._ask(HELD)]

    def has(self, states: Sequence[State], begin: int, end: int) -> bool:
        """Whether a delivery from position `begin` up to `end` is in one of these states."""
        found = (
            "SELECT 1 FROM deliveries WHERE position >= ? AND position < ? "
            "AND state IN carray(?) LIMIT 1"
        )
        return bool(self._ask(found, (begin, end, _integers(states))))

    def is_open(self, worker: int) -> bool:
        """Whether there is something to run in a worker's journal, now or later."""
        pending = (
            "SELECT 1 FROM deliveries INDEXED BY deliveries_due "
            f"WHERE state = {State.PENDING:d} AND {WORKER_OF_POSITION} = ? LIMIT 1"
        )
        running = (
            "SELECT 1 FROM deliveries INDEXED BY deliveries_state "
            f"WHERE {IS_NOT_OVER} AND state = {State.RUNNING:d} "
            "AND position >= ? AND position < ? LIMIT 1"
        )
        place = position_of(worker, 0, 0), position_of(worker + 1, 0, 0)
        return bool(self._ask(pending, (worker,)) or self._ask(running, place))

    def forget_worker(self, worker: int) -> None:
        """There is no such journal any more, so nothing of it can be run again."""
        self.forget_before(NEVER_NS, worker, MAX_SEGMENT)
        self._ask("DELETE FROM cursors WHERE worker = ?", (worker,))

    def sync(self) -> bool:
        """Make all that was taken in so far outlast a power failure; False if readers forbid it."""
        ((is_busy, _, _),) = self._ask("PRAGMA wal_checkpoint(FULL)")
        return not is_busy

    def forget_before(self, received_ns: int, worker: int, segment: int) -> int:
        """Delete what was received before, and is in none of the segments from `segment` on.

        How many deliveries that were.
        """
        begin, end = position_of(worker, 0, 0), position_of(worker, segment, 0)
        # In order of position, so what is old enough is found without a look at all the rest.
        young = "SELECT min(position) FROM deliveries WHERE position >= ? AND received_at_ns >= ?"
        (first_young,) = self._ask(young, (begin, received_ns))[0]
        end = end if first_young is None else min(end, first_young)
        those = "FROM deliveries WHERE position >= ? AND position < ?"
        if not self._ask(f"SELECT 1 {those} LIMIT 1", (begin, end)):
            return 0
        self.keys.gather()
        with transaction(self._connection):
            self.keys.drop(begin, end)
            count = self._ask(f"DELETE {those} RETURNING 1", (begin, end))
            for table in ("parts", "failures"):
                delete = f"DELETE FROM {table} WHERE position >= ? AND position < ?"
                self._ask(delete, (begin, end))
        return len(count)

    def counts(self) -> dict[State, int]:
        """How many deliveries are in each state that calls for something."""
        pending = f"SELECT count(*) FROM deliveries WHERE state = {State.PENDING:d}"
        others = f"SELECT state, count(*) FROM deliveries WHERE {IS_NOT_OVER} GROUP BY state"
        found = {State(state): count for state, count in self._ask(others)}
        return {State.PENDING: self._ask(pending)[0][0], State.DEAD: 0, State.DAMAGED: 0} | found


def _integers(values: Sequence[int]) -> Any:
    return apsw.carray(array("q", values))
