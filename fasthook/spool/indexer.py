"""The indexing thread: follows the journal, finds what is due, drops what is old."""

import errno
import threading
import time
from collections.abc import Callable, Collection, Sequence
from queue import SimpleQueue
from typing import Final, Literal, NamedTuple

import apsw

from fasthook.logs import log
from fasthook.model import Delivery
from fasthook.spool.changes import Changes, Cursor, Held, Part, State
from fasthook.spool.claims import Claims
from fasthook.spool.database import mark_damaged
from fasthook.spool.erasing import erase
from fasthook.spool.heir import LOOK_S, Heir
from fasthook.spool.index import Index
from fasthook.spool.journals import Journals
from fasthook.spool.lag import Lag
from fasthook.spool.pruning import FULL
from fasthook.spool.records import ACCEPTED, Forgotten, read_delivery
from fasthook.spool.rejects import Rejects

#: The index is brought up to date this often, unless there is much to do.
_INDEX_S: Final = 0.25
#: Where more than that came in this time, a few times as long: one transaction for more of them.
_MUCH: Final = 512
_INDEX_LATEST_S: Final = 1.0
#: After the index could not be written.
_RETRY_S: Final = 1.0
_PRUNE_S: Final = 60.0
_PRUNE_FULL_S: Final = 1.0
_COUNT_S: Final = 5.0
#: So often some more keys are read into what was seen, until all are: a million in half a minute.
_SEEN_A_TURN: Final = 8
#: Of what was held for a handler, in one transaction.
_FREED: Final = 1000


class ReadBack(NamedTuple):
    """Deliveries that were only on disk."""

    deliveries: list[tuple[Delivery, list[Part]]]
    is_all: bool  # nothing else is due
    gone: list[tuple[int, list[Part]]]  # positions of those that can't be brought any more


class Settings(NamedTuple):
    """How a spool keeps what it gets."""

    durability: Literal["fsync", "os"] = "fsync"
    max_bytes: int = 10 * 1024**3
    retention_s: float = 7 * 86400.0
    #: So many keys are gathered at once. More of them share their pages better, and take more
    #: memory until then; bench/micro.py has what it saves.
    fresh_keys: int = 32_768


class Indexer:
    """The index and its thread."""

    def __init__(
        self,
        index: Index,
        journals: Journals,
        lag: Lag,
        rejects: Rejects,
        heir: Heir,
        settings: Settings,
        on_read_back: Callable[[ReadBack], None],
    ) -> None:
        """`on_read_back` is called in the thread."""
        #: Where other workers may get the same events: see `Committer`.
        self.claims: Claims | None = None
        #: Handlers of which nothing is to run: what is held for others is freed.
        self.held: frozenset[str] = frozenset()
        self.probing: frozenset[str] = frozenset()  # of these one at a time is freed
        self._heir = heir
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._on_alone: Callable[[list[Held]], None] | None = None
        self._looked_at = 0.0
        self._index = index
        self._journals = journals
        self._lag = lag
        self._rejects = rejects
        self._retention_s = settings.retention_s
        self._max_bytes = settings.max_bytes
        self._fresh_keys = settings.fresh_keys
        self._on_read_back = on_read_back
        self._wanted = self._wanted_bytes = 0
        self._without: Sequence[str] = ()
        self._gone: list[tuple[int, list[Part]]] = []
        self._stranded: list[int] = []  # taken, but something failed before they were brought
        self._is_closing = False
        self._prune_next_s = -1.0  # -1: nothing but what the settings say
        self._pruned_at = self._counted_at = time.monotonic()
        self.counts: dict[State, int] = {}  # of some seconds ago
        self._follower = threading.Thread(target=self._run, name="fasthook-index", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._follower.start()

    def read_back(self, count: int, max_bytes: int, without: Sequence[str]) -> None:
        """Have up to `count` deliveries brought that are due, and not many more bytes.

        But none of the endpoints `without`.
        """
        with self._lag.news:
            self._wanted, self._wanted_bytes, self._without = count, max_bytes, without
            self._lag.news.notify()

    def take(self, numbers: Collection[int], then: Callable[[set[int]], None]) -> None:
        """Take over these journals, if nobody has them.

        `then` is called in the thread, with those that there are not.
        """

        def call() -> None:
            missing: set[int] = set()
            try:
                missing = self._heir.take(numbers, self.claims)
            finally:
                then(missing)

        self._calls.put(call)

    def be_alone(self, on_alone: Callable[[list[Held]], None]) -> None:
        """No other worker runs any more. `on_alone` is called in the thread, once all that they
        left is taken over: with the keys of ordered events that wait.
        """
        self._on_alone = on_alone
        self._looked_at = 0.0

    def prune_soon(self, retention_s: float) -> None:
        """Have dropped what is older than that, once."""
        self._prune_next_s = retention_s

    def finish(self) -> None:
        """End once the index is up to date; waits."""
        with self._lag.news:
            self._is_closing = True
            self._lag.news.notify()
        self._follower.join()

    def _run(self) -> None:
        while True:
            with self._lag.news:
                if not self._is_closing and not self._wanted:
                    self._lag.news.wait(_INDEX_S)
                if self._has_time and len(self._lag.changes) > _MUCH:
                    self._lag.news.wait(_INDEX_LATEST_S - _INDEX_S)
                changes, cursors = self._lag.take()
                wanted, self._wanted = self._wanted, 0
                is_closing = self._is_closing
            try:
                self._follow(changes, cursors)
                changes, cursors = Changes(), {}  # taken: not to be given back
                if not is_closing:
                    self._inherit()
                    if wanted:
                        self._bring(wanted)
                self._tidy()
                self._gather()
            except Exception as error:  # whatever it is: it lags, and the journal has everything
                self._report(error)
                self._lag.give_back(changes, cursors)
                with self._lag.news:
                    self._wanted = self._wanted or wanted
                if is_closing:
                    return  # the next start reads it from the journal
                time.sleep(_RETRY_S)
                continue
            if is_closing and not self._lag.changes:
                return

    @property
    def _has_time(self) -> bool:
        """Whether nobody waits for the index. Call with `news` held."""
        return not (self._is_closing or self._wanted or self._lag.is_much)

    def _report(self, error: Exception) -> None:
        log.warning("index not written", error=str(error))
        if isinstance(error, apsw.CorruptError):
            mark_damaged(self._index.path)
        elif not isinstance(error, OSError | apsw.Error):
            log.exception("internal error", error, thread="index")

    def _follow(self, changes: Changes, cursors: dict[int, Cursor]) -> None:
        if not changes:
            return
        for later in changes.later:
            if isinstance(later, Forgotten):
                # Before the index says so: what it has passed is not looked at again.
                self._gone += self._index.parts_of(later.positions).items()
                for journal in list(self._journals.held.values()):
                    erase(journal, later.positions)
        self._index.apply(cursors, changes, are_new=True)
        if any(isinstance(later, Forgotten) for later in changes.later):
            self._index.purge()
        self._lag.taken(changes)

    def _gather(self) -> None:
        """Have keys found by others, if there are others, or too many that are not found."""
        keys = self._index.keys
        if len(keys.fresh) >= (1 if self.claims is not None else self._fresh_keys):
            keys.gather()
        if self.claims is not None:
            keys.see_no_more()  # nobody asks it meanwhile
            self.claims.release(keys.gathered)
        else:
            for _ in range(_SEEN_A_TURN):
                keys.see_more()
        self._lag.found(keys.gathered)
        keys.gathered = []

    def _inherit(self) -> None:
        """See what other workers left behind."""
        while not self._calls.empty():
            self._calls.get()()
        if time.monotonic() - self._looked_at < LOOK_S:
            return
        on_alone = self._on_alone
        self._heir.look(self.claims)
        self._looked_at = time.monotonic()
        self._journals.measure()
        if on_alone is not None and not self._heir.is_anybody_there():
            self._on_alone = None
            self._index.keys.see_no_more()  # what they have added went past it
            on_alone(self._index.held_keys())

    def _bring(self, wanted: int) -> None:
        self._index.leave_pending(self._stranded)
        is_all_freed = self._free_held()
        positions = self._stranded = self._index.take_due(
            list(self._journals.held), wanted, time.time_ns(), self._without
        )
        parts = self._index.parts_of(positions)
        found = []
        left_bytes = self._wanted_bytes
        taken = 0
        for position in positions:
            taken += 1
            delivery = self._delivery_at(position)
            if delivery is None:
                log.error("damaged record", position=position)
                self._index.quarantine(position)
                self._gone.append((position, parts.get(position, [])))
                continue
            found.append((delivery, parts.get(position, [])))
            left_bytes -= len(delivery.head) + len(delivery.body)
            if left_bytes < 0:
                break
        self._index.leave_pending(positions[taken:])
        gone, self._gone, self._stranded = self._gone, [], []
        is_all = is_all_freed and taken < wanted and taken == len(positions)
        self._on_read_back(ReadBack(found, is_all, gone))

    def _free_held(self) -> bool:
        """Have due what was held for handlers that go on; false: there may be more."""
        is_all, own = True, list(self._journals.held)
        for handler in self._index.held_handlers():
            if handler in self.probing:
                self._index.free_held(handler, own, 1)
            elif handler not in self.held:
                is_all &= self._index.free_held(handler, own, _FREED) < _FREED
        return is_all

    def _delivery_at(self, position: int) -> Delivery | None:
        try:
            record = self._journals.read(position)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return None  # the disk has lost it: the next one must not wait for ever
        if record is None or record.kind != ACCEPTED:
            return None
        delivery = read_delivery(record.content)
        delivery.position = position
        return delivery

    def _tidy(self) -> None:
        try:
            self._rejects.flush()
        except apsw.Error as error:  # a help, no record
            log.warning("refused requests not kept", error=str(error))
        now = time.monotonic()
        if now - self._counted_at > _COUNT_S:
            self._counted_at = now
            self.counts = self._index.counts()
        is_full = self._journals.size_bytes > self._max_bytes * FULL
        if now - self._pruned_at > (_PRUNE_FULL_S if is_full else _PRUNE_S):
            self._pruned_at = now
            self._heir.prune(self._retention_s, self._max_bytes)
        if self._prune_next_s >= 0:
            retention_s, self._prune_next_s = self._prune_next_s, -1.0
            self._heir.prune(retention_s, self._max_bytes)
