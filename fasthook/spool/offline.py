"""The spool while no service runs: commands take its lock and do by themselves what they want."""

import os
from collections.abc import Sequence
from pathlib import Path

from fasthook.spool.changes import Changes, Cursor
from fasthook.spool.committer import divided
from fasthook.spool.database import discard
from fasthook.spool.erasing import erase
from fasthook.spool.heir import Heir
from fasthook.spool.index import INDEX_NAME
from fasthook.spool.indexer import Settings
from fasthook.spool.journal import Journal
from fasthook.spool.journals import Journals
from fasthook.spool.lock import lock
from fasthook.spool.records import Forgotten, Later, Replayed, later_record
from fasthook.spool.recovery import OnRead, ignore, opened


class Offline:
    """Journals and index, held as a service would hold them."""

    def __init__(self, path: Path, on_read: OnRead = ignore, *, is_rebuilt: bool = False) -> None:
        """`is_rebuilt`: the index is made again, and `on_read` told of each segment.

        Raises `InUse` where a service runs, `WrongIndex`, `WrongVersion`, `OSError`, `apsw.Error`.
        """
        self._lock = lock(path)
        try:
            if is_rebuilt:
                discard(path / INDEX_NAME)
            self._journals = Journals(path)
            self._journals.take_all()
            self._journals.begin(is_last=True)
            self._index = opened(path, self._journals, on_read).view
            self._heir = Heir(path, self._journals, self._index, lambda number: None)
        except BaseException:
            os.close(self._lock)
            raise

    def __enter__(self) -> "Offline":
        return self

    def __exit__(self, *_: object) -> None:
        self._index.close()
        self._journals.close()
        os.close(self._lock)

    def order(self, order: Replayed | Forgotten) -> None:
        """Store what an operator wants, and do it."""
        for worker, parts in divided([order]).items():
            journal = self._journals.held.get(worker)
            if journal is not None:  # else nothing of it is there any more
                self._carry_out(journal, parts)
        if isinstance(order, Forgotten):
            self._index.purge()

    def _carry_out(self, journal: Journal, parts: Sequence[Later]) -> None:
        journal.write([later_record(part) for part in parts])
        changes = Changes()
        for part in parts:
            changes.add(part)
            if isinstance(part, Forgotten):
                erase(journal, part.positions)
        self._index.apply({journal.worker: Cursor(*journal.end)}, changes)

    def prune(self, settings: Settings) -> int:
        """Drop what is older than it has to be kept; how many bytes that freed."""
        before = self._journals.size_bytes
        self._heir.prune(settings.retention_s, settings.max_bytes)
        return before - self._journals.size_bytes

    def counts(self) -> dict[str, int]:
        """How many deliveries are in each state that calls for something."""
        return {state.name.lower(): count for state, count in self._index.counts().items()}
