"""The committing thread: batches go to the own journal, one `fdatasync` each.

What became of an event that another worker left behind goes to the journal which has the event.
"""

import threading
import time
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from typing import Any, Final, NamedTuple

import apsw
import msgspec

from fasthook.errors import SpoolUnavailable
from fasthook.logs import log
from fasthook.model import Delivery
from fasthook.spool.changes import Cursor, state_of
from fasthook.spool.claims import Claims
from fasthook.spool.database import mark_damaged
from fasthook.spool.index import Index
from fasthook.spool.journal import worker_of
from fasthook.spool.journals import Journals
from fasthook.spool.lag import Lag
from fasthook.spool.records import (
    ACCEPTED,
    Accepted,
    Done,
    Later,
    Settled,
    accepted_content,
    accepted_of,
    later_record,
)
from fasthook.spool.seen import Seen

#: After the disk has refused, it is left alone this long: every try may leave a segment behind.
_PAUSE_S: Final = 1.0
RETRY_AFTER_S: Final = 5


class Entry:
    """A delivery that waits for its commit, and whatever the caller wants back with it."""

    __slots__ = ("deferred_since_s", "delivery", "key", "runs", "token")

    def __init__(self, key: bytes, delivery: Delivery, runs: bool, token: Any) -> None:
        self.key = key  # by what it is known when it comes again
        self.delivery = delivery
        self.runs = runs  # it is dispatched from memory; else it is read back from disk
        self.token = token
        self.deferred_since_s = 0.0  # monotonic; another worker is about to store the same event


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
        journals: Journals,
        lookup: Index,
        seen: Seen,
        lag: Lag,
        max_bytes: int,
        on_committed: Callable[[Committed, Batch], None],
    ) -> None:
        """`seen`: what `lookup` knows, while there are no other workers.

        `on_committed` gets the batch back: where there is a reason, nothing of it is written.
        """
        #: While other workers may get the same events: see `share`.
        self._claims: Claims | None = None
        self._journals = journals
        self._journal = journals.own
        self._unwritten: list[Later] = []  # of other journals than the own one
        self._lookup = lookup
        self._seen = seen
        self._lag = lag
        self._max_bytes = max_bytes
        self._on_committed = on_committed
        self._batches: SimpleQueue[Batch | Callable[[], None] | None] = SimpleQueue()
        self._rests_until = 0.0
        self._last_error = ""
        self._writer = threading.Thread(target=self._run, name="fasthook-journal", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._writer.start()

    def submit(self, batch: Batch) -> None:
        """Have a batch written."""
        self._batches.put(batch)

    def call(self, call: Callable[[], None]) -> None:
        """Have something done in the thread, between two batches."""
        self._batches.put(call)

    def share(self, claims: Claims | None) -> None:
        """Claim what is written from now on, and what the index lacks: others may get the same.

        None: there are no others, and the index has all that they wrote. In the thread: see `call`.
        """
        if claims is not None and self._claims is None:
            claims.reset(self._journal.worker)
            with self._lag.news:
                keys = list(self._lag.keys)
            claims.claim(keys)
            claims.confirm(keys)
            with self._lag.news:  # what the index finds meanwhile nobody else lets go of
                found = [key for key in keys if key not in self._lag.keys]
            claims.release(found)
        self._claims = claims

    def finish(self) -> None:
        """End once everything submitted is written; waits."""
        self._batches.put(None)
        self._writer.join()

    def _run(self) -> None:
        while (batch := self._batches.get()) is not None:
            if not isinstance(batch, Batch):
                self._do(batch)
                continue
            began = time.monotonic()
            try:
                fresh, duplicates, deferred = self._commit(batch)
                result = Committed(fresh, duplicates, deferred, [], None, time.monotonic() - began)
                self._on_committed(result, batch)
            except Exception as error:  # whatever it is: senders are told, and come again
                reason = self._reason(error)
                result = Committed([], [], [], batch.entries, reason, time.monotonic() - began)
                self._on_committed(result, batch)
        if self._unwritten:
            self._do(self._write_elsewhere)

    def _do(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # whoever waits for it gives up
            log.exception("internal error", error, thread="journal")

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
        outcomes = self._own_of(batch.outcomes(time.time_ns()))
        records += map(later_record, outcomes)
        try:
            positions = self._journal.write(records) if records else []
        except OSError:
            if self._claims is not None:
                self._claims.release(list(first))
            raise
        self._note(fresh, accepted, positions, outcomes, batch.put_back)
        if self._unwritten:
            self._write_elsewhere()
        if self._claims is not None:
            self._confirm(self._claims, list(first))
        return fresh, duplicates, deferred

    def _own_of(self, outcomes: list[Later]) -> list[Later]:
        """Those of the own journal; the others are left in `_unwritten`."""
        if len(self._journals.held) == 1:
            return outcomes
        by_worker = divided(outcomes)
        own = by_worker.pop(self._journal.worker, [])
        for others in by_worker.values():
            self._unwritten += others
        return own

    def _write_elsewhere(self) -> None:
        """What can't be written is kept for the next batch: if it is lost, the handler runs again.

        It must not keep the own journal from being written.
        """
        unwritten, self._unwritten = self._unwritten, []
        for worker, outcomes in divided(unwritten).items():
            journal = self._journals.held.get(worker)
            if journal is None:
                log.error("outcomes not written", reason=f"journal {worker} is not held")
                continue
            try:
                journal.write([later_record(later) for later in outcomes])
            except OSError as error:
                log.warning("outcomes not written", error=str(error))
                self._unwritten += outcomes
                continue
            with self._lag.news:
                for later in outcomes:
                    self._lag.changes.add(later)
                self._lag.cursors[worker] = Cursor(*journal.end)

    def _check_room(self) -> None:
        held = self._journals.size_bytes
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
        asked = list(first)
        if self._claims is None:
            asked = self._seen.perhaps(asked)
        duplicates += [first.pop(key) for key in self._lookup.keys.known(asked)]
        return first, duplicates

    def _claim(self, first: dict[bytes, Entry], duplicates: list[Entry]) -> list[Entry]:
        """Leave in `first` what no other worker has; which of the others are not decided yet."""
        assert self._claims is not None  # noqa: S101 - or this is not called
        answer = self._claims.claim(list(first))
        duplicates += [first.pop(key) for key in answer.written]
        deferred = [first.pop(key) for key in answer.pending]
        # Claimed by us only now: another worker may have let go of it since we looked.
        known = self._lookup.keys.known(list(first))
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
            lag.unindexed += len(fresh)
            # The positions of the outcomes come after those of the deliveries.
            for entry, stored, position in zip(fresh, accepted, positions, strict=False):
                entry.delivery.position = position
                lag.keys.add(entry.key)
                changes.accept(position, stored, state_of(stored, runs=entry.runs))
            for later in outcomes:
                changes.add(later)
            changes.put_back += put_back
            if positions:  # else the journal's end may still be that of a segment of an earlier run
                lag.cursors[self._journal.worker] = Cursor(*self._journal.end)
            if lag.is_much:
                lag.news.notify()


def divided(outcomes: Iterable[Later]) -> dict[int, list[Later]]:
    """By worker of the positions; those of several are taken apart."""
    found: dict[int, list[Later]] = {}
    for later in outcomes:
        if isinstance(later, Settled):
            found.setdefault(worker_of(later.position), []).append(later)
            continue
        positions: dict[int, list[int]] = {}
        for position in later.positions:
            positions.setdefault(worker_of(position), []).append(position)
        for worker, some in positions.items():
            part = msgspec.structs.replace(later, positions=some)
            found.setdefault(worker, []).append(part)
    return found
