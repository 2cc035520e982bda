"""The committing thread: batches go to the journal, one `fdatasync` each."""

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, NamedTuple

import apsw
import msgspec

from fasthook.errors import SpoolUnavailable
from fasthook.logs import log
from fasthook.model import Delivery
from fasthook.spool.changes import Cursor, state_of
from fasthook.spool.claims import Claims
from fasthook.spool.index import Index, mark_damaged
from fasthook.spool.journal import Journal
from fasthook.spool.lag import Lag
from fasthook.spool.records import (
    ACCEPTED,
    Accepted,
    Done,
    Later,
    accepted_content,
    accepted_of,
    later_record,
)

#: The index is told after this many changes, or else when it looks by itself.
_INDEX_CHANGES: Final = 8192
#: After the disk has refused, it is left alone this long: every try may leave a segment behind.
_PAUSE_S: Final = 1.0
RETRY_AFTER_S: Final = 5


class Entry(msgspec.Struct, gc=False, eq=False):
    """A delivery that waits for its commit, and whatever the caller wants back with it."""

    key: bytes  # by what it is known when it comes again
    delivery: Delivery
    runs: bool  # it is dispatched from memory; else it is read back from disk
    token: Any
    deferred_since_s: float = 0.0  # monotonic; another worker is about to store the same event


class Batch:
    """What is written with one sync."""

    __slots__ = ("entries", "done", "later", "put_back", "on_written")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.done: dict[str, list[int]] = {}  # handler → positions
        self.later: list[Later] = []
        self.put_back: list[tuple[int, int]] = []  # not for the journal: see `Changes`
        self.on_written: list[Callable[[], None]] = []  # called on the loop

    @property
    def has_outcomes(self) -> bool:
        """Whether there is something to write beside deliveries."""
        return bool(self.done or self.later or self.put_back)

    def outcomes(self, at_ns: int) -> list[Later]:
        """What is to be written beside the deliveries."""
        return [Done(name, at_ns, positions) for name, positions in self.done.items()] + self.later


class Committed(NamedTuple):
    """What became of a batch."""

    fresh: list[Entry]  # durable now; their deliveries know their positions
    duplicates: list[Entry]  # durable since earlier
    deferred: list[Entry]  # to be asked for again: another worker is about to store them
    refused: list[Entry]
    reason: SpoolUnavailable | None  # why `refused` are
    took_s: float


class Committer:
    """Journal and look-ups. `on_committed` is called in the thread, once for each batch."""

    def __init__(
        self,
        journal: Journal,
        lookup: Index,
        lag: Lag,
        max_bytes: int,
        on_committed: Callable[[Committed, Batch], None],
        claims: Claims | None = None,
    ) -> None:
        """`on_committed` gets the batch back: where there is a reason, nothing of it is written.

        `claims`: where other workers may get the same events.
        """
        self._claims = claims
        self._journal = journal
        self._lookup = lookup
        self._lag = lag
        self._max_bytes = max_bytes
        self._on_committed = on_committed
        self._batches: SimpleQueue[Batch | None] = SimpleQueue()
        self._rests_until = 0.0
        self._last_error = ""
        self._writer = threading.Thread(target=self._run, name="fasthook-journal", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._writer.start()

    def submit(self, batch: Batch) -> None:
        """Have a batch written."""
        self._batches.put(batch)

    def finish(self) -> None:
        """End once everything submitted is written; waits."""
        self._batches.put(None)
        self._writer.join()

    def _run(self) -> None:
        while (batch := self._batches.get()) is not None:
            began = time.monotonic()
            try:
                fresh, duplicates, deferred = self._commit(batch)
                result = Committed(fresh, duplicates, deferred, [], None, time.monotonic() - began)
                self._on_committed(result, batch)
            except Exception as error:  # whatever it is: senders are told, and come again
                reason = self._reason(error)
                result = Committed([], [], [], batch.entries, reason, time.monotonic() - began)
                self._on_committed(result, batch)

    def _reason(self, error: Exception) -> SpoolUnavailable:
        if isinstance(error, SpoolUnavailable):
            return error
        if isinstance(error, apsw.CorruptError):
            mark_damaged(self._lookup.path)
        elif not isinstance(error, OSError | apsw.Error):
            log.exception("internal error", error, thread="journal")
        self._rests_until = time.monotonic() + _PAUSE_S
        self._last_error = str(error)
        return SpoolUnavailable(f"the spool can't be written: {error}", RETRY_AFTER_S)

    def _commit(self, batch: Batch) -> tuple[list[Entry], list[Entry], list[Entry]]:
        if time.monotonic() < self._rests_until:
            text = f"the spool could not be written a moment ago: {self._last_error}"
            raise SpoolUnavailable(text, RETRY_AFTER_S)
        if batch.entries:
            self._check_room()  # outcomes are small, and make room
        first, duplicates = self._sorted(batch.entries)
        deferred = self._claim(first, duplicates) if self._claims is not None and first else []
        fresh = list(first.values())
        accepted = [accepted_of(entry.delivery, entry.key) for entry in fresh]
        records = [
            (ACCEPTED, accepted_content(stored, entry.delivery))
            for stored, entry in zip(accepted, fresh, strict=True)
        ]
        outcomes = batch.outcomes(time.time_ns())
        records += map(later_record, outcomes)
        try:
            positions = self._journal.write(records) if records else []
        except OSError:
            if self._claims is not None:
                self._claims.release(list(first))
            raise
        self._note(fresh, accepted, positions, outcomes, batch.put_back)
        if self._claims is not None:
            self._confirm(self._claims, list(first))
        return fresh, duplicates, deferred

    def _check_room(self) -> None:
        held = self._journal.size_bytes
        if held > self._max_bytes:
            raise SpoolUnavailable(
                f"the spool has {held} bytes, limit {self._max_bytes}", RETRY_AFTER_S
            )
        if self._lag.is_too_long:
            raise SpoolUnavailable("the index can't follow", RETRY_AFTER_S)

    def _sorted(self, entries: list[Entry]) -> tuple[dict[bytes, Entry], list[Entry]]:
        """Which of them are new, by their keys, and which are the same as an earlier one."""
        first: dict[bytes, Entry] = {}
        duplicates = []
        keys = self._lag.keys
        for entry in entries:
            key = entry.key
            if key in first or key in keys:
                duplicates.append(entry)
            else:
                first[key] = entry
        # In this order: a key goes from the lag only when the index has it.
        duplicates += [first.pop(key) for key in self._lookup.known(list(first))]
        return first, duplicates

    def _claim(self, first: dict[bytes, Entry], duplicates: list[Entry]) -> list[Entry]:
        """Leave in `first` what no other worker has; which of the others are not decided yet."""
        assert self._claims is not None  # noqa: S101 - or this is not called
        answer = self._claims.claim(list(first))
        duplicates += [first.pop(key) for key in answer.written]
        deferred = [first.pop(key) for key in answer.pending]
        # Claimed by us only now: another worker may have let go of it since we looked.
        known = self._lookup.known(list(first))
        duplicates += [first.pop(key) for key in known]
        self._claims.release(list(known))
        return deferred

    def _confirm(self, claims: Claims, keys: list[bytes]) -> None:
        """It is written, whatever happens here: others ask again until the index has it."""
        try:
            claims.confirm(keys)
        except apsw.Error as error:
            log.warning("claims not confirmed", error=str(error))

    def _note(
        self,
        fresh: list[Entry],
        accepted: list[Accepted],
        positions: list[int],
        outcomes: list[Later],
        put_back: list[tuple[int, int]],
    ) -> None:
        lag = self._lag
        with lag.news:
            changes = lag.changes
            # The positions of the outcomes come after those of the deliveries.
            for entry, stored, position in zip(fresh, accepted, positions, strict=False):
                entry.delivery.position = position
                lag.keys.add(entry.key)
                changes.accept(position, stored, state_of(stored, runs=entry.runs))
            for later in outcomes:
                changes.add(later)
            changes.put_back += put_back
            if positions:  # else the journal's end may still be that of a segment of an earlier run
                lag.cursor = Cursor(*self._journal.end)
            if len(changes) >= _INDEX_CHANGES:
                lag.news.notify()
