"""The spool, as the event loop sees it: deliveries in, commits out. The loop never waits for disk.

Two threads stand behind it: one commits (everything that arrived while the last batch went to disk
is the next batch), another one keeps the index, which may lag behind.
"""

import asyncio
import hashlib
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import apsw
import msgspec
from xxhash import xxh3_128_digest

from fasthook.errors import SpoolUnavailable
from fasthook.logs import log
from fasthook.model import Delivery
from fasthook.spool.changes import Held, State
from fasthook.spool.claims import NAME as CLAIMS
from fasthook.spool.claims import Claims
from fasthook.spool.committer import RETRY_AFTER_S, Batch, Committed, Committer, Entry
from fasthook.spool.files import make_folder
from fasthook.spool.heir import Heir
from fasthook.spool.index import INDEX_NAME, Index
from fasthook.spool.indexer import Indexer, ReadBack, Settings
from fasthook.spool.journal import SEGMENT_BYTES, worker_of
from fasthook.spool.journals import Journals
from fasthook.spool.lag import Lag
from fasthook.spool.records import Forgotten, Replayed, Settled
from fasthook.spool.recovery import opened
from fasthook.spool.rejects import Rejects
from fasthook.spool.running import Marks

KEY_BYTES: Final = 16
_EMPTY_KEY: Final = hashlib.blake2b(digest_size=KEY_BYTES)
REJECTS_NAME: Final = "rejects.db"
#: Outcomes ride along with the next batch of deliveries; without one they wait this long.
_SETTLE_S: Final = 0.05
#: A disk that takes longer for one batch is stuck: who waits for the next one is refused.
STUCK_S: Final = 1.0
#: What another worker is about to store is asked for again after this long.
_DEFER_S: Final = 0.005
#: Of heads and bodies that wait for the disk. Beyond, requests are refused.
_MAX_WAITING_BYTES: Final = 64 * 1024 * 1024


def key_of(delivery: Delivery, *, is_id_signed: bool) -> bytes:
    """By what a delivery is known when it comes again: what was signed, in KEY_BYTES.

    The body's own digest need not withstand an attacker: it counts only beside an equal id, and
    nobody but the sender can have a body signed.
    """
    name, event_id = delivery.endpoint.encode(), delivery.event_id.encode("utf-8", "replace")
    key = _EMPTY_KEY.copy()  # half the price of a new one
    key.update(b"%d %b %d %b " % (len(name), name, len(event_id), event_id))
    if not is_id_signed:
        key.update(xxh3_128_digest(delivery.body))
    return key.digest()


class Place(NamedTuple):
    """Of a worker among those of its service."""

    is_first: bool = True  # no other one runs: it takes over all that is there
    workers: int = 1  # how many there are to be


ALONE: Final = Place()


class Spool:
    """Journals and index of one worker, with their threads."""

    def __init__(
        self,
        path: Path,
        settings: Settings,
        on_commit: Callable[[Committed], None],
        on_read_back: Callable[[ReadBack], None],
        place: Place = ALONE,
    ) -> None:
        """Both callbacks are called on the event loop. The directory has to be locked: see `lock`.

        Raises `WrongIndex` and `WrongVersion` where another version of fasthook made it, `OSError`,
        `apsw.Error` and `NoJournal`.
        """
        make_folder(path)
        self.path = path
        self._on_commit = on_commit
        self._on_read_back = on_read_back
        self._batch = Batch()
        self._deferred: list[Entry] = []  # they are not decided yet: see `claims`
        self._waiting_bytes = 0
        self._is_soon = self._is_later = False  # whether `_submit` is about to be called
        self._committing_since = 0.0  # loop time; 0: nothing is being committed
        self._refused: SpoolUnavailable | None = None
        self.slowest_commit_s = 0.0
        self._marks: list[Marks] = []
        self._claims: tuple[Claims, Claims] | None = None
        self._journals = Journals(
            path,
            syncs=settings.durability == "fsync",
            segment_bytes=max(1024, min(SEGMENT_BYTES, settings.max_bytes // 16)),
        )
        try:
            self._open(path, settings, place)
        except BaseException:
            self._journals.close()
            raise

    def _open(self, path: Path, settings: Settings, place: Place) -> None:
        journals = self._journals
        if place.is_first:
            journals.take_all()
        else:
            journals.begin(is_last=place.workers == 1)
        index, counts, self.held_keys = opened(path, journals, is_whole=place.is_first)
        if place.is_first:
            _begin_first(journals, index)
        self.number = journals.own.worker
        lag, lookup = Lag(), Index(path / INDEX_NAME)
        lag.keys.update(index.keys.fresh)
        self.rejects = Rejects(path / REJECTS_NAME)
        self._committer = Committer(
            journals, lookup, index.keys.seen, lag, settings.max_bytes, self._from_thread
        )
        heir = Heir(path, journals, index, self._released)
        self._indexer = Indexer(
            index, journals, lag, self.rejects, heir, settings, self._found_in_thread
        )
        self._indexer.counts = counts
        self._closable: list[Index | Rejects | Claims] = [index, lookup, self.rejects]

    @property
    def counts(self) -> dict[State, int]:
        """How many deliveries are in each state that calls for something, some seconds ago."""
        return self._indexer.counts

    @property
    def size_bytes(self) -> int:
        """How many bytes all journals have."""
        return self._journals.size_bytes

    @property
    def trouble(self) -> str:
        """Why nothing can be stored at the moment; empty if all is well."""
        return str(self._refused or "")

    @property
    def stuck_s(self) -> float:
        """For how long the same batch has been written."""
        return self._loop.time() - self._committing_since if self._committing_since else 0.0

    def marks(self, handler: str, slots: int, *, is_ordered: bool) -> Marks:
        """Where the workers of a handler say what they have in hand."""
        marks = Marks(self.path, self.number, handler, slots, is_ordered=is_ordered)
        self._marks.append(marks)
        return marks

    def _released(self, number: int) -> None:
        for marks in self._marks:
            marks.forget(number)

    # --- life -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the threads. Call within the running loop."""
        self._loop = asyncio.get_running_loop()
        self._call_soon = self._loop.call_soon_threadsafe
        self._committer.start()
        self._indexer.start()
        self._watcher = self._loop.call_later(STUCK_S / 4, self._watch)

    async def close(self) -> None:
        """Write what is left, bring the index up to date, and end."""
        while self._committing_since or self._waits:
            self._submit()
            await asyncio.sleep(0.005)
            if self._refused is not None and not (self._batch.entries or self._deferred):
                break  # the disk takes no outcomes: those handlers run again
        self._watcher.cancel()
        await asyncio.to_thread(self._committer.finish)
        await asyncio.to_thread(self._indexer.finish)
        for each in self._closable:
            each.close()
        self._journals.close()

    @property
    def _waits(self) -> bool:
        batch = self._batch
        return bool(batch.entries or self._deferred or batch.has_outcomes)

    # --- what the line asks for -------------------------------------------------------------------

    def accept(self, entry: Entry) -> None:
        """Store a delivery; `on_commit` says when that is done. Raises `SpoolUnavailable`."""
        if self._refused is not None and self._committing_since:
            raise self._refused
        delivery = entry.delivery
        delivery.key = entry.key
        waiting_bytes = self._waiting_bytes + len(delivery.body) + len(delivery.head)
        if waiting_bytes > _MAX_WAITING_BYTES:
            raise SpoolUnavailable("too much waits for the disk", RETRY_AFTER_S)
        self._waiting_bytes = waiting_bytes
        self._batch.entries.append(entry)
        if not (self._committing_since or self._is_soon):
            self._is_soon = True
            self._loop.call_soon(self._submit)

    def done(self, handler: str, position: int) -> None:
        """The only handler of a delivery has done it at the first attempt."""
        done = self._batch.done
        if handler in done:
            done[handler].append(position)
        else:
            done[handler] = [position]
            self._settle_soon()

    def settle(self, settled: Settled) -> None:
        """Store any other outcome, without haste: if it is lost, the handler runs again."""
        self._batch.later.append(settled)
        self._settle_soon()

    def put_back(self, position: int, not_before_ns: int = 0) -> None:
        """A delivery that was read back does not run now, but then at the earliest (wall clock)."""
        self._batch.put_back.append((position, not_before_ns))
        self._settle_soon()

    def order(
        self, order: Replayed | Forgotten, on_written: Callable[[Sequence[int]], None]
    ) -> None:
        """Store what an operator wants; `on_written` is called once that is done.

        It gets the positions that it is done for: the others are another worker's.
        """
        others = {worker_of(position) for position in order.positions} - {self.number}
        if others:

            def then(missing: set[int]) -> None:
                self._call_soon(self._order, order, missing, on_written)

            self._indexer.take(others, then)
        else:
            self._order(order, set(), on_written)

    def _order(
        self,
        order: Replayed | Forgotten,
        missing: set[int],
        on_written: Callable[[Sequence[int]], None],
    ) -> None:
        held = [p for p in order.positions if self._journals.of(p) is not None]
        done = held + [p for p in order.positions if worker_of(p) in missing]
        if not held:
            on_written(done)
            return
        self._batch.later.append(msgspec.structs.replace(order, positions=held))
        self._batch.on_written.append(partial(on_written, done))
        self._settle_soon()

    def prune(self, retention_s: float) -> None:
        """Drop soon what is older than that."""
        self._indexer.prune_soon(retention_s)

    def read_back(self, count: int, max_bytes: int, without: Sequence[str] = ()) -> None:
        """Ask for up to `count` deliveries that are due; `on_read_back` brings them.

        Of bodies and heads they have not many more than `max_bytes`; and they are of no endpoint
        `without`.
        """
        self._indexer.read_back(count, max_bytes, without)

    def hold(self, handlers: frozenset[str], probing: frozenset[str]) -> None:
        """What is held for these stays on disk, but for one of each that is `probing`; what is held
        for others comes back.
        """
        self._indexer.held, self._indexer.probing = handlers, probing

    # --- other workers ----------------------------------------------------------------------------

    def share(self, on_shared: Callable[[], None]) -> None:
        """From when `on_shared` is called other workers may get the same events."""

        self._committer.call(partial(self._share, on_shared))

    def _share(self, on_shared: Callable[[], None]) -> None:
        """In the thread of the committer."""
        try:
            if self._claims is None:
                path = self.path / CLAIMS
                self._claims = Claims(path, self.number), Claims(path, self.number)
                self._closable += self._claims
            for_batches, for_index = self._claims
            self._indexer.claims = for_index
            self._committer.share(for_batches)
        except (OSError, apsw.Error) as error:
            log.warning("claims not made", error=str(error))
            self._call_soon(self._share_later, on_shared)
            return
        self._call_soon(on_shared)

    def _share_later(self, on_shared: Callable[[], None]) -> None:
        self._loop.call_later(STUCK_S, self.share, on_shared)

    def be_alone(self, on_alone: Callable[[Sequence[Held]], None]) -> None:
        """The others have ended. `on_alone` is called once all that they left is taken over.

        It gets the keys of ordered events that wait on disk.
        """

        def alone(held: list[Held]) -> None:
            self._indexer.claims = None
            self._committer.call(partial(self._committer.share, None))
            self._call_soon(on_alone, held)

        self._indexer.be_alone(alone)

    # --- batches ----------------------------------------------------------------------------------

    def _settle_soon(self) -> None:
        if not (self._committing_since or self._is_soon or self._is_later):
            self._is_later = True
            self._loop.call_later(_SETTLE_S, self._submit_later)

    def _submit_later(self) -> None:
        self._is_later = False
        self._submit()

    def _submit(self) -> None:
        self._is_soon = False
        batch = self._batch
        if self._committing_since or not (batch.entries or batch.has_outcomes):
            return
        self._committing_since = self._loop.time()
        self._batch = Batch()
        self._waiting_bytes = 0
        self._committer.submit(batch)
        os.sched_yield()  # the disk begins now, and works while we answer; not once we are done

    def _found_in_thread(self, result: ReadBack) -> None:
        self._call_soon(self._on_read_back, result)

    def _from_thread(self, result: Committed, batch: Batch) -> None:
        self._call_soon(self._committed, result, batch)

    def _committed(self, result: Committed, batch: Batch) -> None:
        self._committing_since = 0.0
        self.slowest_commit_s = max(self.slowest_commit_s, result.took_s)
        if (self._refused is None) != (result.reason is None):
            self._say(result.reason)
        self._refused = result.reason
        if result.reason is not None:
            self._take_back(batch)
        else:
            for call in batch.on_written:
                call()
        self._defer(result.deferred)
        if self._batch.entries:
            self._submit()  # the disk works while we answer
        elif self._batch.has_outcomes:
            self._settle_soon()
        self._on_commit(result)

    def _defer(self, entries: list[Entry]) -> None:
        """Ask again for these with the next batch; but not for ever: that worker may be dead."""
        now_s = self._loop.time()
        late: list[Entry] = []
        for entry in entries:
            entry.deferred_since_s = entry.deferred_since_s or now_s
            is_late = now_s - entry.deferred_since_s > STUCK_S
            (late if is_late else self._deferred).append(entry)
        if self._deferred:
            self._loop.call_later(_DEFER_S, self._ask_again)
        if late:
            reason = SpoolUnavailable("another worker is about to store the same", RETRY_AFTER_S)
            self._on_commit(Committed([], [], [], late, reason, 0.0))

    def _ask_again(self) -> None:
        self._batch.entries += self._deferred
        self._deferred = []
        self._submit()

    def _take_back(self, unwritten: Batch) -> None:
        """Outcomes that could not be written go with the next batch, before later ones."""
        batch = self._batch
        for handler, positions in batch.done.items():
            unwritten.done.setdefault(handler, []).extend(positions)
        batch.done = unwritten.done
        batch.later = unwritten.later + batch.later
        batch.put_back = unwritten.put_back + batch.put_back
        batch.on_written = unwritten.on_written + batch.on_written

    def _say(self, reason: SpoolUnavailable | None) -> None:
        if reason is None:
            log.info("spool works again")
        else:
            log.error("spool refuses", reason=str(reason))

    def _watch(self) -> None:
        """Refuse who waits for a disk that is stuck: senders come again, and give up on us else."""
        self._watcher = self._loop.call_later(STUCK_S / 4, self._watch)
        if not self._committing_since:
            return
        held_s = self._loop.time() - self._committing_since
        if held_s > STUCK_S:
            reason = SpoolUnavailable(f"the disk takes {held_s:.1f} s for a batch", RETRY_AFTER_S)
            if self._refused is None:
                self._say(reason)
            self._refused = reason
            if self._batch.entries:
                refused, self._batch.entries = self._batch.entries, []
                self._waiting_bytes = 0
                self._on_commit(Committed([], [], [], refused, reason, held_s))


def _begin_first(journals: Journals, index: Index) -> None:
    """Choose the own journal; others may have those in which there is nothing to run."""
    is_open = {number: index.is_open(number) for number in journals.held}
    if any(is_open.values()):
        journals.begin(is_last=True)  # positions go on from there
    else:
        journals.begin_with(min(is_open)) if is_open else journals.begin(is_last=True)
    for number, is_needed in is_open.items():
        if not is_needed and number != journals.own.worker:
            journals.release(number)
