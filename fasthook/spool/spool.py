"""The spool, as the event loop sees it: deliveries in, commits out; and the threads behind it.

One thread commits: everything that arrived while the last batch went to disk is the next batch.
Another one keeps the index, which may lag behind: what it does not have yet is held in memory.
The loop never waits for the disk.
"""

import asyncio
import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, Literal, NamedTuple

import apsw

from fasthook.errors import ConfigError, SpoolUnavailable
from fasthook.logs import log
from fasthook.model import Delivery
from fasthook.spool.index import Changes, Cursor, Index, Part, State
from fasthook.spool.journal import Journal, position_of
from fasthook.spool.records import (
    ACCEPTED,
    SETTLED,
    Accepted,
    Damage,
    Settled,
    accepted_content,
    accepted_of,
    read_accepted,
    read_delivery,
    read_settled,
    settled_content,
)

#: Outcomes ride along with the next batch of deliveries; without one they wait this long.
_SETTLE_S: Final = 0.05
#: The index is brought up to date after this many changes, or after this long.
_INDEX_CHANGES: Final = 8192
_INDEX_S: Final = 0.25
#: After the index could not be written.
_INDEX_RETRY_S: Final = 1.0
#: Changes that the index has not taken. Beyond, nothing is accepted: memory has an end.
_MAX_CHANGES: Final = 200_000
_RETRY_AFTER_S: Final = 5
_PRUNE_S: Final = 60.0
_WORKER: Final = 0


class Entry(NamedTuple):
    """A delivery that waits for its commit, and whatever the caller wants back with it."""

    key: bytes
    delivery: Delivery
    runs: bool  # it is dispatched from memory; else it is read back from disk
    token: Any


class Committed(NamedTuple):
    """What became of a batch."""

    fresh: list[Entry]  # durable now; their deliveries know their positions
    duplicates: list[Entry]  # durable since earlier
    refused: list[Entry]
    reason: SpoolUnavailable | None  # why `refused` are


class ReadBack(NamedTuple):
    """Deliveries that were only on disk."""

    deliveries: list[tuple[Delivery, list[Part]]]
    is_all: bool  # nothing else is due


def key_of(delivery: Delivery, *, is_id_signed: bool) -> bytes:
    """By what a delivery is known when it comes again: what was signed, 16 bytes."""
    digest = hashlib.blake2b(digest_size=16)
    name, event_id = delivery.endpoint.encode(), delivery.event_id.encode("utf-8", "replace")
    digest.update(b"%d %b %d %b" % (len(name), name, len(event_id), event_id))
    if not is_id_signed:
        digest.update(delivery.body)
    return digest.digest()


class Spool:
    """Journal and index of one worker, with their threads."""

    def __init__(
        self,
        path: Path,
        *,
        durability: Literal["fsync", "os"],
        max_bytes: int,
        retention_s: float,
        on_commit: Callable[[Committed], None],
        on_read_back: Callable[[ReadBack], None],
    ) -> None:
        """Both callbacks are called on the event loop. Raises `ConfigError` and `OSError`."""
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _lock(path)
        self._journal = Journal(
            path / "journal" / str(_WORKER), _WORKER, syncs=durability == "fsync"
        )
        self._index = Index(path / "index.db")  # of the indexing thread
        self._lookup = Index(path / "index.db")  # of the committing thread
        self._max_bytes = max_bytes
        self._retention_s = retention_s
        self._on_commit = on_commit
        self._on_read_back = on_read_back
        self._bytes = sum(self._journal.path_of(n).stat().st_size for n in self._journal.segments())
        # Of the loop:
        self._entries: list[Entry] = []
        self._settled: list[Settled] = []
        self._is_committing = False
        self._is_due = False
        # Between the threads:
        self._batches: SimpleQueue[tuple[list[Entry], list[Settled]] | None] = SimpleQueue()
        self._news = threading.Condition()
        self._changes = Changes()
        self._cursor = Cursor(0, 0)
        self._recent: dict[bytes, int] = {}  # keys that the index may not have yet
        self._wanted = 0  # deliveries to be read back
        self._is_closing = False
        self.recovered = self._recover()

    # --- the loop's side --------------------------------------------------------------------------

    def start(self) -> None:
        """Start the threads. Call within the running loop."""
        self._loop = asyncio.get_running_loop()
        self._threads = [
            threading.Thread(target=self._commit_batches, name="fasthook-journal", daemon=True),
            threading.Thread(target=self._keep_index, name="fasthook-index", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def accept(self, entry: Entry) -> None:
        """Store a delivery; `on_commit` says when that is done."""
        self._entries.append(entry)
        if not self._is_committing and not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._submit)

    def settle(self, settled: Settled) -> None:
        """Store an outcome, without haste: if it is lost, the handler runs again."""
        self._settled.append(settled)
        if len(self._settled) == 1 and not self._is_committing:
            self._loop.call_later(_SETTLE_S, self._submit)

    def read_back(self, count: int) -> None:
        """Ask for up to `count` deliveries that are only on disk; `on_read_back` brings them."""
        with self._news:
            self._wanted = count
            self._news.notify()

    def _submit(self) -> None:
        self._is_due = False
        if self._is_committing or not (self._entries or self._settled):
            return
        self._is_committing = True
        batch = self._entries, self._settled
        self._entries, self._settled = [], []
        self._batches.put(batch)

    def _committed(self, result: Committed, unwritten: list[Settled]) -> None:
        self._is_committing = False
        self._settled[:0] = unwritten
        if self._entries:
            self._submit()  # the disk works while we answer
        elif self._settled:
            self._loop.call_later(_SETTLE_S, self._submit)
        self._on_commit(result)

    async def close(self) -> None:
        """Write what is left, bring the index up to date, and end."""
        while self._is_committing or self._entries or self._settled:
            self._submit()
            await asyncio.sleep(0.005)
        self._batches.put(None)
        with self._news:
            self._is_closing = True
            self._news.notify()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        self._index.close()
        self._lookup.close()
        self._journal.close()
        os.close(self._lock)

    # --- the committing thread --------------------------------------------------------------------

    def _commit_batches(self) -> None:
        while (batch := self._batches.get()) is not None:
            entries, settled = batch
            try:
                result = self._commit(entries, settled)
                unwritten: list[Settled] = []
            except (OSError, apsw.Error, SpoolUnavailable) as error:
                reason = error if isinstance(error, SpoolUnavailable) else _unavailable(error)
                result, unwritten = Committed([], [], entries, reason), settled
            self._loop.call_soon_threadsafe(self._committed, result, unwritten)

    def _commit(self, entries: list[Entry], settled: list[Settled]) -> Committed:
        self._check_room(entries)
        fresh, duplicates = self._sorted(entries)
        accepted = [accepted_of(entry.delivery, entry.key) for entry in fresh]
        batch = [
            (ACCEPTED, accepted_content(a, e.delivery))
            for a, e in zip(accepted, fresh, strict=True)
        ]
        batch += [(SETTLED, settled_content(s)) for s in settled]
        if batch:
            positions = self._journal.write(batch)
            with self._news:
                self._bytes += sum(len(piece) for _, content in batch for piece in content)
                changes = self._changes
                # The positions of the outcomes come after those of the deliveries.
                for entry, stored, position in zip(fresh, accepted, positions, strict=False):
                    entry.delivery.position = position
                    self._recent[entry.key] = position
                    changes.accept(position, stored, _state_of(stored, runs=entry.runs))
                for outcome in settled:
                    changes.settle(outcome)
                self._cursor = Cursor(*self._journal.end)
                if len(changes) >= _INDEX_CHANGES:
                    self._news.notify()
        return Committed(fresh, duplicates, [], None)

    def _check_room(self, entries: list[Entry]) -> None:
        if not entries:
            return  # outcomes are small, and they make room
        if self._bytes > self._max_bytes:
            raise SpoolUnavailable(
                f"the spool has {self._bytes} bytes, limit {self._max_bytes}", _RETRY_AFTER_S
            )
        if len(self._changes) > _MAX_CHANGES:
            raise SpoolUnavailable("the index can't follow", _RETRY_AFTER_S)

    def _sorted(self, entries: list[Entry]) -> tuple[list[Entry], list[Entry]]:
        """Which of them are new, and which are the same as an earlier one."""
        first: dict[bytes, Entry] = {}
        duplicates = []
        for entry in entries:
            if entry.key in first or entry.key in self._recent:
                duplicates.append(entry)
            else:
                first[entry.key] = entry
        # In this order: a key goes from `recent` only when the index has it.
        duplicates += [first.pop(key) for key in self._lookup.known(list(first))]
        return list(first.values()), duplicates

    # --- the indexing thread ----------------------------------------------------------------------

    def _keep_index(self) -> None:
        pruned_at = time.monotonic()
        while True:
            with self._news:
                if not self._is_closing and not self._wanted:
                    self._news.wait(_INDEX_S)
                changes, self._changes = self._changes, Changes()
                cursor, wanted, self._wanted = self._cursor, self._wanted, 0
                is_closing = self._is_closing
            try:
                self._update(changes, cursor, wanted)
                if time.monotonic() - pruned_at > _PRUNE_S:
                    pruned_at = time.monotonic()
                    self._prune()
            except (apsw.Error, OSError) as error:
                log.warning("index not written", error=str(error))
                with self._news:
                    changes.extend(self._changes)
                    self._changes = changes
                    self._wanted = self._wanted or wanted
                if is_closing:
                    return  # the next start reads it from the journal
                time.sleep(_INDEX_RETRY_S)
                continue
            if is_closing and not changes:
                return

    def _update(self, changes: Changes, cursor: Cursor, wanted: int) -> None:
        if changes:
            self._index.apply(_WORKER, cursor, changes)
            for row in changes.rows.values():
                self._recent.pop(row[1], None)
        if wanted:
            now_ns = time.time_ns()
            positions = self._index.take_due(wanted, now_ns)
            parts = self._index.parts_of(positions)
            found = []
            for position in positions:
                record = self._journal.read(position)
                if record is None:
                    log.error("damaged record", position=position)
                    self._index.quarantine(position)
                    continue
                delivery = read_delivery(record.content)
                delivery.position = position
                found.append((delivery, parts.get(position, [])))
            result = ReadBack(found, len(positions) < wanted)
            self._loop.call_soon_threadsafe(self._on_read_back, result)

    def _prune(self) -> None:
        """Drop whole segments that are old and have nothing open; the newest one stays."""
        indexed = self._index.cursor(_WORKER).segment
        for number in self._journal.segments()[:-1]:
            if number >= indexed:
                return  # what the index has not taken yet may be open
            file = self._journal.path_of(number)
            if time.time() - file.stat().st_mtime < self._retention_s:
                return
            begin = position_of(_WORKER, number, 0)
            if self._index.prune(begin, position_of(_WORKER, number + 1, 0)):
                with self._news:
                    self._bytes -= file.stat().st_size
                self._journal.remove(number)

    # --- the start --------------------------------------------------------------------------------

    def _recover(self) -> int:
        """Bring the index up to the journal; how many deliveries wait to be run."""
        cursor = self._index.cursor(_WORKER)
        numbers = self._journal.segments()
        for number in numbers:
            if number >= cursor.segment:
                offset = cursor.offset if number == cursor.segment else 0
                cursor = self._recover_segment(number, offset, is_last=number == numbers[-1])
        self._cursor = cursor
        self._index.recover()
        return self._index.counts()[State.PENDING]

    def _recover_segment(self, number: int, offset: int, *, is_last: bool) -> Cursor:
        changes = Changes()
        damaged: Damage | None = None
        end = offset
        for record in self._journal.replay(number, offset):
            if damaged is not None:
                log.error("damaged bytes in the journal", segment=number, **damaged._asdict())
            damaged = record if isinstance(record, Damage) else None
            if isinstance(record, Damage):
                continue
            end = record.end
            position = position_of(_WORKER, number, record.offset)
            if record.kind == ACCEPTED:
                accepted, _ = read_accepted(record.content)
                changes.accept(position, accepted, _state_of(accepted, runs=False))
            else:
                changes.settle(read_settled(record.content))
            if len(changes) >= _INDEX_CHANGES:
                self._index.apply(_WORKER, Cursor(number, end), changes)
                changes = Changes()
        if damaged is not None:
            log.warning("torn tail cut", segment=number, **damaged._asdict())
            if is_last:
                self._journal.cut(number, damaged.offset)
            end = damaged.offset + damaged.length_bytes
        cursor = Cursor(number, end)
        self._index.apply(_WORKER, cursor, changes)
        return cursor


def _state_of(accepted: Accepted, *, runs: bool) -> State:
    if accepted.kind != "event":
        return State.IGNORED
    return State.RUNNING if runs else State.PENDING


def _unavailable(error: Exception) -> SpoolUnavailable:
    return SpoolUnavailable(f"the spool can't be written: {error}", _RETRY_AFTER_S)


def _lock(path: Path) -> int:
    """The descriptor that holds the directory for us, until it is closed or we die."""
    fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(fd)
        raise ConfigError(f"{path} is in use by another fasthook (process {owner})") from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, b"%d\n" % os.getpid(), 0)
    return fd
