"""The start: what a journal has and the index does not is read into it; torn tails are cut; and who
was in a handler's hands when the last process died gets that attempt counted.
"""

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import apsw

from fasthook.logs import log
from fasthook.spool.changes import Changes, Cursor, Held, State, state_of
from fasthook.spool.database import OldIndex, damage_mark, discard
from fasthook.spool.erasing import erase
from fasthook.spool.index import INDEX_NAME, Index
from fasthook.spool.journal import Journal, position_of
from fasthook.spool.journals import Journals
from fasthook.spool.records import (
    ACCEPTED,
    BLANK,
    ERASED,
    KEPT,
    Damage,
    Forgotten,
    Record,
    Replayed,
    Settled,
    later_record,
    read_accepted,
    read_kept,
    read_later,
)
from fasthook.spool.running import Interrupted, clear, folder_of, interrupted

#: An event in whose attempts the worker died this often is given up.
_MAX_CRASHES: Final = 3
_CRASH_DELAY_S: Final = 5.0
#: Of one transaction.
_CHANGES: Final = 8192


#: Told how many bytes of the journal have been read, after each segment.
OnRead = Callable[[int], None]


def ignore(read_bytes: int) -> None:
    """An `OnRead` that does nothing."""


class Opened(NamedTuple):
    """An index that is up to its journals."""

    view: Index
    counts: dict[State, int]  # deliveries by state
    held: list[Held]


def opened(
    path: Path, journals: Journals, on_read: OnRead = ignore, *, is_whole: bool = True
) -> Opened:
    """The index of the spool at `path`, brought up to the journals that are held.

    `is_whole`: these are all; then one that is damaged is made again.

    Raises `OSError`, `apsw.Error`, `WrongIndex`, `WrongVersion`.
    """
    if not is_whole:
        found = _recovered(path, journals, on_read)
        if found.view.keys.fresh:
            found.view.keys.gather()  # who was alone before this one knew them
        return found
    file = path / INDEX_NAME
    if damage_mark(file).exists():
        log.warning("index made again", reason="it was found damaged")
        discard(file)
    try:
        if _is_ahead(file, journals):
            log.warning("index made again", reason="the journal has lost what the index knows of")
            discard(file)
        return _recovered(path, journals, on_read)
    except OldIndex:
        log.warning("index made again", reason="an older version of fasthook made it")
        discard(file)
        return _recovered(path, journals, on_read)
    except (apsw.CorruptError, apsw.NotADBError) as error:
        log.error("index damaged, so it is made again from the journal", error=str(error))
        discard(file)
        return _recovered(path, journals, on_read)


def _is_ahead(file: Path, journals: Journals) -> bool:
    """Whether the index knows of more than there is: where nothing is synced, power may fail."""
    index = Index(file)
    try:
        return any(
            _is_beyond(index.cursor(number), journal) for number, journal in journals.held.items()
        )
    finally:
        index.close()


def _is_beyond(cursor: Cursor, journal: Journal) -> bool:
    last = max(journal.segments(), default=0)
    if cursor.segment != last:
        return cursor.segment > last
    return last > 0 and cursor.offset > journal.path_of(last).stat().st_size


def _recovered(path: Path, journals: Journals, on_read: OnRead) -> Opened:
    index = Index(path / INDEX_NAME, is_writer=True)
    try:
        for _, journal in sorted(journals.held.items()):
            take_in(path, journal, index, on_read)
        # All that the start has to know: what is damaged is found now, and made again.
        counts, held = index.counts(), index.held_keys()
    except BaseException:
        index.close()
        raise
    return Opened(index, counts, held)


def take_in(path: Path, journal: Journal, index: Index, on_read: OnRead = ignore) -> None:
    """Go on with the journal of a worker that is gone. Raises `OSError`, `apsw.Error`."""
    recover(journal, index, on_read)
    index.recover(journal.worker)
    record_crashes(journal, index, folder_of(path, journal.worker))


def recover(journal: Journal, index: Index, on_read: OnRead = ignore) -> Cursor:
    """Bring the index up to a journal, from where it stands. Raises `OSError`, `apsw.Error`."""
    cursor = index.cursor(journal.worker)
    numbers = journal.segments()
    for number in numbers:
        if number >= cursor.segment:
            offset = cursor.offset if number == cursor.segment else 0
            follower = _Follower(journal, index, number, offset)
            cursor = follower.follow(is_last=number == numbers[-1])
            # Whoever wrote it may have died before its sync; from now on it counts as stored.
            journal.sync(number)
            on_read(journal.path_of(number).stat().st_size)
    return cursor


class _Follower:
    """Reads one segment into the index."""

    def __init__(self, journal: Journal, index: Index, number: int, offset: int) -> None:
        self._journal = journal
        self._index = index
        self._number = number
        self._end = offset
        self._changes = Changes()

    def follow(self, *, is_last: bool) -> Cursor:
        damaged: Damage | None = None
        for item in self._journal.replay(self._number, self._end):
            if damaged is not None:
                log.error("damaged bytes in the journal", segment=self._number, **damaged._asdict())
            damaged = item if isinstance(item, Damage) else None
            if isinstance(item, Record):
                self._take(item)
        if damaged is not None:
            log.warning("torn tail cut", segment=self._number, **damaged._asdict())
            if is_last:
                self._journal.cut(self._number, damaged.offset)
            self._end = damaged.offset + (0 if is_last else damaged.length_bytes)
        self._apply()
        return Cursor(self._number, self._end)

    def _take(self, record: Record) -> None:
        if record.kind == ACCEPTED:
            accepted, _ = read_accepted(record.content)
            position = position_of(self._journal.worker, self._number, record.offset)
            self._changes.accept(position, accepted, state_of(accepted, runs=False))
        elif record.kind == ERASED:
            accepted, _ = read_accepted(record.content)
            position = position_of(self._journal.worker, self._number, record.offset)
            self._changes.accept(position, accepted, State.FORGOTTEN)
        elif record.kind == KEPT:
            position, accepted = read_kept(record.content)
            state = State.IGNORED if accepted.kind != "event" else State.DONE
            self._changes.accept(position, accepted, state)
        elif record.kind != BLANK:
            self._take_later(record)
        self._end = record.end
        if len(self._changes) >= _CHANGES:
            self._apply()

    def _take_later(self, record: Record) -> None:
        later = read_later(record.kind, record.content)
        if isinstance(later, Replayed):
            self._apply()  # what is done after this must not be taken for done before it
        if isinstance(later, Forgotten):
            self._forget(later)
        self._changes.add(later)
        if isinstance(later, Replayed):
            self._end = record.end
            self._apply()

    def _forget(self, forgotten: Forgotten) -> None:
        """Finish what was begun; what it left damaged can be read again after that."""
        erase(self._journal, forgotten.positions)
        for position in forgotten.positions:
            record = self._journal.read(position)
            if record is not None and record.kind == ERASED:
                self._changes.accept(position, read_accepted(record.content)[0], State.FORGOTTEN)

    def _apply(self) -> None:
        cursor = Cursor(self._number, self._end)
        self._index.apply({self._journal.worker: cursor}, self._changes)
        self._changes = Changes()


def record_crashes(journal: Journal, index: Index, folder: Path) -> None:
    """Count the attempts that were under way when the last process ended. Raises `apsw.Error`.

    Before anything is run, and before what says so is cleared: the next attempt may kill us, too.
    """
    crashes = [_crash_of(index, found) for found in interrupted(folder)]
    if not crashes:
        return
    changes = Changes()
    for crash in crashes:
        changes.add(crash)
    try:
        journal.write([later_record(crash) for crash in crashes])
        cursor = Cursor(*journal.end)
    except OSError as error:  # a disk that is full must not keep us from what is stored
        log.warning("crashes not stored", error=str(error))
        cursor = index.cursor(journal.worker)
    index.apply({journal.worker: cursor}, changes)
    clear(folder)


def _crash_of(index: Index, found: Interrupted) -> Settled:
    """What is said of one. The next attempt comes at a time of its own: others were in hand at the
    same moment, and are not to meet there again. But ordered ones have to go first.
    """
    handler, position, attempt, is_ordered = found
    now_ns = time.time_ns()
    error = "the worker process died during the attempt"
    log.error("worker died in an attempt", handler=handler, position=position, attempt=attempt)
    if index.crashes(position, handler) + 1 >= _MAX_CRASHES:
        error += f", the {_MAX_CRASHES}rd time"
        log.error("dead", handler=handler, position=position, attempt=attempt, error=error)
        return Settled(position, handler, "dead", attempt, now_ns, False, 0, error)
    due_ns = 0 if is_ordered else now_ns + int(_CRASH_DELAY_S * 1e9 * random.uniform(0.5, 1.5))  # noqa: S311
    return Settled(position, handler, "crash", attempt, now_ns, True, due_ns, error)
