"""What the journal has and the index does not have yet: shared by the two threads behind a spool.

Keys are here until the index finds them, so a duplicate is known at once.
"""

import threading
from collections.abc import Sequence
from typing import Final

from fasthook.spool.changes import Changes, Cursor

#: Deliveries that wait for the index. Beyond, nothing is accepted: memory has an end.
MAX_CHANGES = 200_000
#: The index is told after this many changes, or else when it looks by itself.
MANY_CHANGES = 8192
_SOME: Final = 1024


class Lag:
    """Guarded by `news`, which also wakes the indexing thread."""

    def __init__(self) -> None:
        self.news = threading.Condition()
        self.changes = Changes()
        #: By worker, of each journal that was written.
        self.cursors: dict[int, Cursor] = {}
        #: Of all deliveries that the index lacks, and of those whose keys it does not find yet.
        self.keys: set[bytes] = set()
        self.unindexed = 0  # deliveries that it lacks

    @property
    def is_too_long(self) -> bool:
        """Whether the index must catch up before anything else is accepted."""
        return self.unindexed > MAX_CHANGES or len(self.changes) > MAX_CHANGES

    @property
    def is_much(self) -> bool:
        """Whether the index is to take them now."""
        return len(self.changes) >= MANY_CHANGES

    def take(self) -> tuple[Changes, dict[int, Cursor]]:
        """All changes, and up to where they reach; call with `news` held."""
        changes, self.changes = self.changes, Changes()
        cursors, self.cursors = self.cursors, {}
        return changes, cursors

    def give_back(self, changes: Changes, cursors: dict[int, Cursor]) -> None:
        """The index could not take these."""
        with self.news:
            changes.extend(self.changes)
            self.changes = changes
            self.cursors = cursors | self.cursors

    def taken(self, changes: Changes) -> None:
        """The index has these."""
        with self.news:
            self.unindexed -= len(changes.rows)

    def found(self, keys: Sequence[bytes]) -> None:
        """The index finds these. Some at a time: whoever accepts deliveries waits meanwhile."""
        for begin in range(0, len(keys), _SOME):
            with self.news:
                self.keys.difference_update(keys[begin : begin + _SOME])
