"""The spool, as commands read it: what is there, what became of it, and the records themselves.

It works while a service runs, and does not disturb it: nothing is written, the lock is not asked
for, and each statement looks at a bounded number of rows, so that no transaction holds the
service's write-ahead log back. The index lags: what came in the last second may be missing.
"""

import heapq
import os
import pwd
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal

import apsw
import msgspec

from fasthook.errors import ConfigError
from fasthook.spool.changes import Cursor, Part, State
from fasthook.spool.found import STATES, DeadLetter, Failure, Filter, Found, Kept
from fasthook.spool.index import INDEX_NAME
from fasthook.spool.journal import (
    WORKER_OF_POSITION,
    name_of,
    place_of,
    position_of,
    read_record,
    segment_path,
)
from fasthook.spool.records import ACCEPTED, ERASED, read_accepted
from fasthook.spool.schema import VERSION

_BUSY_MS: Final = 5000
#: Rows that one statement looks at: some milliseconds of work.
_STRETCH_ROWS: Final = 20_000
#: Rows that are in memory at once.
_PAGE_ROWS: Final = 1000
_COLUMNS: Final = "position, endpoint, event_id, event_type, received_at_ns, state, due_ns"
_MAX_POSITION: Final = 2**63 - 1


class Unreadable(ConfigError):
    """The index, or a file of the journal, can't be read."""


class Reader:
    """A spool's directory, opened for reading."""

    def __init__(self, path: Path) -> None:
        """Raises `ConfigError` where there is no spool that this version can read."""
        self.path = path
        index = path / INDEX_NAME
        try:
            os.close(os.open(index, os.O_RDONLY | os.O_CLOEXEC))
        except FileNotFoundError:
            raise ConfigError(_missing(path)) from None
        except OSError as error:
            raise ConfigError(f"{index}: {error.strerror}{_owner_hint(path)}") from None
        try:
            # Not immutable, and with the log: a service may be writing.
            self._connection = apsw.Connection(str(index), flags=apsw.SQLITE_OPEN_READONLY)
            self._connection.set_busy_timeout(_BUSY_MS)
        except apsw.Error as error:
            raise Unreadable(f"{index}: {error}") from None
        ((version,),) = self._ask("PRAGMA user_version")
        if version != VERSION:
            self.close()
            what = f"its format is {version}; expected {VERSION}" if version else "it is being made"
            raise ConfigError(f"{index}: {what}")

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _ask(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """All rows at once: a statement that stays open would hold the log back."""
        try:
            return self._connection.execute(statement, tuple(values)).fetchall()
        except apsw.Error as error:
            index = self.path / INDEX_NAME
            cure = "; `fasthook spool rebuild` makes it again from the journal"
            is_broken = isinstance(error, apsw.CorruptError | apsw.NotADBError | apsw.SQLError)
            raise Unreadable(f"{index}: {error}{cure if is_broken else ''}") from None

    # --- finding deliveries -----------------------------------------------------------------------

    def newest(self, wanted: Filter, limit: int) -> list[Found]:
        """Up to `limit` deliveries, newest first; for the next ones, `before` is the last one's.

        Raises `ConfigError` where that one is not known any more.
        """
        page_rows = min(limit, _PAGE_ROWS)
        each = [
            self._matches(wanted, stretch, "DESC", page_rows) for stretch in self._ranges(wanted)
        ]
        merged = heapq.merge(*each, key=_received, reverse=True)
        return list(islice(merged, limit))

    def oldest_first(
        self, wanted: Filter, after: Mapping[int, int] | None = None
    ) -> Iterator[Found]:
        """All of them, however many; also those that come meanwhile.

        `after`: only above these positions, by worker, as `ends` says them.
        """
        each = [
            self._matches(wanted, stretch, "ASC", _PAGE_ROWS)
            for stretch in self._ranges(wanted, after or {})
        ]
        return iter(heapq.merge(*each, key=_received))

    def samples(self, limit: int, after: Mapping[int, int]) -> list[Found]:
        """The newest, up to `limit`, as many of each type of event of each endpoint as of others.

        Oldest first. `after`: as above; of each worker the newest 20,000 are looked at.
        """
        statement = (
            f"SELECT nth, {_COLUMNS} FROM (SELECT *, row_number() OVER "
            "(PARTITION BY endpoint, event_type ORDER BY position DESC) AS nth FROM "
            f"(SELECT {_COLUMNS} FROM deliveries WHERE position BETWEEN ? AND ? "
            "ORDER BY position DESC LIMIT ?)) ORDER BY nth, position DESC LIMIT ?"
        )
        rows: list[tuple[int, Found]] = []
        for low, high in self._ranges(Filter(), after):
            for nth, *row in self._ask(statement, (low, high, _STRETCH_ROWS, limit)):
                rows.append((nth, _found(row)))
        rows.sort(key=_newest_of_each)
        return sorted((found for _, found in rows[:limit]), key=_received)

    def ends(self) -> dict[int, int]:
        """The newest delivery's position, by worker."""
        ends = {}
        for low, high in self._ranges(Filter()):
            statement = "SELECT max(position) FROM deliveries WHERE position BETWEEN ? AND ?"
            ((position,),) = self._ask(statement, (low, high))
            if position is not None:
                ends[place_of(low)[0]] = int(position)
        return ends

    def ends_at(self, since_ns: int) -> dict[int, int]:
        """The same for a time in the past: those above were received then or later."""
        found = self.ends()
        statement = "SELECT min(position) FROM deliveries WHERE position BETWEEN ? AND ?"
        for worker, end in found.items():
            stretch = position_of(worker, 0, 0), end
            for first, last in self._stretches(Filter(since_ns=since_ns), stretch, "DESC"):
                rows = self._ask(f"{statement} AND received_at_ns >= ?", (first, last, since_ns))
                found[worker] = found[worker] if rows[0][0] is None else int(rows[0][0]) - 1
        return found

    def version(self) -> int:
        """A number that is another one once anybody has written to the index."""
        return int(self._ask("PRAGMA data_version")[0][0])

    def at(self, position: int) -> Found | None:
        """The delivery at a position."""
        rows = self._ask(f"SELECT {_COLUMNS} FROM deliveries WHERE position = ?", (position,))
        return _found(rows[0]) if rows else None

    def _ranges(
        self, wanted: Filter, after: Mapping[int, int] | None = None
    ) -> list[tuple[int, int]]:
        """The positions of each worker that are to be looked at, both included.

        Within a worker positions follow the time of receipt, among workers nothing does.
        """
        ranges = []
        for (worker,) in self._ask("SELECT worker FROM cursors ORDER BY worker"):
            low, high = position_of(worker, 0, 0), position_of(worker + 1, 0, 0) - 1
            low = max(low, (after or {}).get(worker, -1) + 1)
            if wanted.before >= 0 and worker == place_of(wanted.before)[0]:
                high = wanted.before - 1
            ranges.append((low, min(high, _MAX_POSITION)))
        return ranges

    def _matches(
        self,
        wanted: Filter,
        stretch: tuple[int, int],
        order: Literal["ASC", "DESC"],
        page_rows: int,
    ) -> Iterator[Found]:
        if wanted.before >= 0 and place_of(stretch[0])[0] != place_of(wanted.before)[0]:
            wanted = self._until_before(wanted)
        condition, values = wanted.condition()
        statement = (
            f"SELECT {_COLUMNS} FROM deliveries WHERE position BETWEEN ? AND ?{condition} "
            f"ORDER BY position {order} LIMIT ?"
        )
        for low, high in self._stretches(wanted, stretch, order):
            while rows := self._ask(statement, (low, high, *values, page_rows)):
                yield from map(_found, rows)
                if len(rows) < page_rows:
                    break
                if order == "DESC":
                    high = rows[-1][0] - 1
                else:
                    low = rows[-1][0] + 1

    def _until_before(self, wanted: Filter) -> Filter:
        """The same for another worker than that of `before`."""
        found = self.at(wanted.before)
        if found is None:
            raise ConfigError(f"{name_of(wanted.before)}: no such delivery is known any more")
        until_ns = min(wanted.until_ns, found.received_at_ns)
        return msgspec.structs.replace(wanted, until_ns=until_ns)

    def _stretches(
        self, wanted: Filter, stretch: tuple[int, int], order: Literal["ASC", "DESC"]
    ) -> Iterator[tuple[int, int]]:
        """Parts of a stretch of positions, both included: not too many rows each."""
        low, high = stretch
        if wanted.is_quick:
            yield low, high
            return
        statement = (
            "SELECT min(position), max(position), min(received_at_ns), max(received_at_ns), "
            "count(*) FROM (SELECT position, received_at_ns FROM deliveries "
            f"WHERE position BETWEEN ? AND ? ORDER BY position {order} LIMIT ?)"
        )
        while low <= high:
            (row,) = self._ask(statement, (low, high, _STRETCH_ROWS))
            first, last, oldest_ns, newest_ns, count = row
            if not count:
                return
            is_before, is_after = newest_ns < wanted.since_ns, oldest_ns >= wanted.until_ns
            if not (is_before or is_after):
                yield first, last
            # Receipt times follow the positions, but not strictly: clocks are set. A whole stretch
            # on the wrong side is beyond that.
            is_over = is_before if order == "DESC" else is_after
            if is_over or count < _STRETCH_ROWS:
                return
            low, high = (low, first - 1) if order == "DESC" else (last + 1, high)

    # --- about one delivery, or some --------------------------------------------------------------

    def parts_of(self, positions: Sequence[int]) -> dict[int, list[Part]]:
        """How far their handlers are; nothing where the only one was done at once, or none ran."""
        rows = self._of(
            "SELECT position, handler, attempt, state, due_ns, order_key, crashes, note, since_ns "
            "FROM parts",
            positions,
        )
        found: dict[int, list[Part]] = {}
        for position, *values in rows:
            found.setdefault(position, []).append(Part(*values))
        return found

    def failures_of(self, positions: Sequence[int]) -> dict[int, list[Failure]]:
        """Their attempts that failed, by handler and attempt."""
        rows = self._of("SELECT position, handler, attempt, at_ns, error FROM failures", positions)
        found: dict[int, list[Failure]] = {}
        for position, *values in rows:
            found.setdefault(position, []).append(Failure(*values))
        return found

    def _of(
        self, statement: str, wanted: Sequence[int | bytes], column: str = "position"
    ) -> Iterator[Any]:
        for begin in range(0, len(wanted), _PAGE_ROWS):
            page = wanted[begin : begin + _PAGE_ROWS]
            places = ", ".join("?" * len(page))
            yield from self._ask(f"{statement} WHERE {column} IN ({places})", page)

    def dead_letters(self, deliveries: Iterable[Found]) -> list[DeadLetter]:
        """Which of their handlers gave up, and why."""
        dead = [d for d in deliveries if d.state == State.DEAD]
        positions = [d.position for d in dead]
        parts, failures = self.parts_of(positions), self.failures_of(positions)
        return [
            DeadLetter(delivery, part, _last(failures.get(delivery.position, ()), part.handler))
            for delivery in dead
            for part in parts.get(delivery.position, ())
            if part.state == State.DEAD
        ]

    def kept(self, position: int) -> Kept | None:
        """Its record; None if the segment was dropped before its time, or it is damaged."""
        worker, number, offset = place_of(position)
        path = segment_path(self.path / "journal" / str(worker), number)
        try:
            record = read_record(path, offset)
        except OSError as error:
            raise Unreadable(f"{path}: {error.strerror}") from None
        if record is None or record.kind not in (ACCEPTED, ERASED):
            return None
        try:
            accepted, rest = read_accepted(record.content)
        except (msgspec.MsgspecError, struct.error):
            return None
        head_bytes = accepted.head_bytes
        return Kept(record.kind, accepted, bytes(rest[:head_bytes]), bytes(rest[head_bytes:]))

    # --- about all of them ------------------------------------------------------------------------

    def counts(self) -> dict[State, int]:
        """How many deliveries are in each state; looks at every row."""
        counts: dict[State, int] = dict.fromkeys(STATES.values(), 0)
        statement = (
            "SELECT state, count(*) FROM deliveries WHERE position BETWEEN ? AND ? GROUP BY state"
        )
        for stretch in self._stretches(Filter(), (0, _MAX_POSITION), "ASC"):
            for state, count in self._ask(statement, stretch):
                counts[State(state)] += count
        return counts

    def oldest_pending(self) -> Found | None:
        """The delivery that waits longest on disk."""
        statement = (
            "SELECT min(position) FROM deliveries INDEXED BY deliveries_due "
            f"WHERE state = {State.PENDING:d} AND {WORKER_OF_POSITION} = ?"
        )
        oldest = []
        for low, _ in self._ranges(Filter()):
            ((position,),) = self._ask(statement, (place_of(low)[0],))
            found = None if position is None else self.at(position)
            if found is not None:
                oldest.append(found)
        return min(oldest, key=_received, default=None)

    def rows(self, low: int, high: int) -> Iterator[tuple[bytes, Found]]:
        """Key and row of each delivery between two positions, both included; oldest first."""
        statement = (
            f"SELECT key, {_COLUMNS} FROM deliveries WHERE position BETWEEN ? AND ? "
            "ORDER BY position LIMIT ?"
        )
        while page := self._ask(statement, (low, high, _PAGE_ROWS)):
            for key, *row in page:
                yield key, _found(row)
            low = page[-1][1] + 1

    def integrity(self) -> list[str]:
        """What is wrong with the database, in SQLite's words; reads all of it."""
        found = [text for (text,) in self._ask("PRAGMA integrity_check(20)")]
        return [] if found == ["ok"] else found

    def without_row(self, keys: Collection[bytes]) -> set[bytes]:
        """Which of these keys no delivery in the index has; looks at every row if there are any."""
        unknown = set(keys)
        stretches = self._stretches(Filter(), (0, _MAX_POSITION), "ASC") if unknown else ()
        for stretch in stretches:
            rows = self._ask("SELECT key FROM deliveries WHERE position BETWEEN ? AND ?", stretch)
            unknown.difference_update([key for (key,) in rows])
        return unknown

    def unknown(self, keys: Sequence[bytes]) -> set[bytes]:
        """By which of these keys no event would be known if it came again."""
        unknown = set(keys)
        for table in ("fresh_keys", "keys"):  # in the way that a key goes
            found = self._of(f"SELECT key FROM {table}", list(unknown), "key")
            unknown.difference_update([key for (key,) in found])
        return unknown

    def cursor(self, worker: int) -> Cursor:
        """Up to where the index follows this worker's journal."""
        rows = self._ask("SELECT segment, offset FROM cursors WHERE worker = ?", (worker,))
        return Cursor(*rows[0]) if rows else Cursor(0, 0)


def _found(row: Sequence[Any]) -> Found:
    position, endpoint, event_id, event_type, received_at_ns, state, due_ns = row
    return Found(position, endpoint, event_id, event_type, received_at_ns, State(state), due_ns)


def _received(found: Found) -> int:
    return found.received_at_ns


def _newest_of_each(row: tuple[int, Found]) -> tuple[int, int]:
    return row[0], -row[1].received_at_ns


def _last(failures: Iterable[Failure], handler: str) -> Failure | None:
    of = [failure for failure in failures if failure.handler == handler]
    return max(of, key=lambda failure: (failure.attempt, failure.at_ns), default=None)


def _missing(path: Path) -> str:
    if (path / "journal").is_dir():
        return (
            f"{path}: its index is missing; the next start, or `fasthook spool rebuild`, makes it"
        )
    return f"{path}: no spool there; expected one that `fasthook serve` made"


def _owner_hint(path: Path) -> str:
    """Whom to be instead: a spool is its owner's alone."""
    try:
        uid = path.stat().st_uid
        return f"; the spool belongs to the user {pwd.getpwuid(uid).pw_name}"
    except (OSError, KeyError):
        return ""
