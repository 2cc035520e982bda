"""What other workers left behind is taken over: their journals, with what is still to run in them.

A worker that is alone takes all; of several the one that comes first. A journal that has nothing to
run is let go again, so that the next worker may begin with it; and what is old in it is dropped.
Runs in the indexing thread.
"""

import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from fasthook.logs import log
from fasthook.spool.claims import Claims
from fasthook.spool.index import Index
from fasthook.spool.journals import Journals
from fasthook.spool.pruning import FULL, prune
from fasthook.spool.records import SEGMENT_HEADER_BYTES
from fasthook.spool.recovery import take_in
from fasthook.spool.running import folder_of, remove

#: How often is looked for workers that are gone.
LOOK_S: Final = 1.0
#: A journal that a command asked for is kept so long: its order has to be written.
_KEEP_S: Final = 60.0


class Heir:
    """Takes over the journals of workers that are gone."""

    def __init__(
        self, path: Path, journals: Journals, index: Index, on_released: Callable[[int], None]
    ) -> None:
        """`path`: the spool's directory. `on_released` is called in the thread."""
        self._path = path
        self._journals = journals
        self._index = index
        self._on_released = on_released
        self._kept_until: dict[int, float] = {}
        #: Journals in which nothing is to run, and where they end: who adds to one changes that.
        self._at_rest: dict[int, tuple[int, int]] = {}

    def look(self, claims: Claims | None) -> None:
        """Take over what has something to run, and let go of what has not.

        Raises `OSError`, `apsw.Error`.
        """
        now = time.monotonic()
        claimants = claims.workers() if claims is not None else set()
        for number in self._journals.numbers():
            if number == self._journals.own.worker:
                continue
            if number not in self._journals.held and (number in claimants or self._is_due(number)):
                self._take(number, claims)
            is_kept = self._kept_until.get(number, 0.0) > now
            if number in self._journals.held and not is_kept and not self._index.is_open(number):
                self._release(number)

    def is_anybody_there(self) -> bool:
        """Whether another worker has a journal. Raises `OSError`."""
        return not all(map(self._journals.is_free, self._journals.numbers()))

    def take(self, numbers: Collection[int], claims: Claims | None) -> set[int]:
        """Take these, if nobody has them, for a while; which of them there are not.

        Raises `OSError`, `apsw.Error`.
        """
        there = set(self._journals.numbers())
        for number in there.intersection(numbers):
            if number in self._journals.held or self._take(number, claims):
                self._kept_until[number] = time.monotonic() + _KEEP_S
        return set(numbers) - there

    def _take(self, number: int, claims: Claims | None) -> bool:
        """Whether it could be had."""
        journal = self._journals.hold(number)
        if journal is None:
            return False
        try:
            take_in(self._path, journal, self._index)
            self._index.keys.gather()  # also those that it left fresh: its claims go
            if claims is not None:
                claims.reset(number)  # the index has what was written
        except BaseException:
            self._journals.release(number)
            raise
        log.info("journal taken over", journal=number)
        return True

    def _is_due(self, number: int) -> bool:
        """Whether there is something to run, or the index lacks something, of a journal."""
        end = self._journals.end_of(number)
        if self._at_rest.get(number) == end:
            return False
        is_due = self._index.is_open(number) or self._is_behind(number, *end)
        if not is_due:
            self._at_rest[number] = end
        return is_due

    def _is_behind(self, number: int, segment: int, size_bytes: int) -> bool:
        cursor = self._index.cursor(number)
        if cursor.segment != segment:
            return cursor.segment < segment
        return max(cursor.offset, SEGMENT_HEADER_BYTES) < size_bytes  # less is no segment yet

    def _release(self, number: int) -> None:
        self._kept_until.pop(number, None)
        self._on_released(number)
        self._journals.release(number)

    def prune(self, retention_s: float, max_bytes: int) -> None:
        """Drop what is old in all journals that nobody else has. Raises `OSError`, `apsw.Error`.

        `max_bytes`: of all journals together.
        """
        numbers = self._journals.numbers()
        for number in numbers:
            was_held = number in self._journals.held
            journal = self._journals.held[number] if was_held else self._journals.hold(number)
            if journal is None:
                continue
            try:
                is_left = number not in (self._journals.own.worker, numbers[-1])
                is_left = is_left and not self._is_due(number)
                limit_bytes = int(max_bytes * FULL) - self._journals.size_bytes + journal.size_bytes
                prune(self._index, journal, retention_s, limit_bytes, is_left=is_left)
            finally:
                if not was_held:
                    self._journals.release(number)
            if is_left and not was_held and not journal.segments():
                self._remove(number)

    def _remove(self, number: int) -> None:
        """Nothing is left of that worker."""
        if self._journals.hold(number) is None:
            return
        self._index.forget_worker(number)
        remove(folder_of(self._path, number))
        self._journals.remove(number)
