"""The spool while no service runs: commands take its lock and do by themselves what they want."""

import os
from pathlib import Path

from fasthook.spool.changes import Changes, Cursor
from fasthook.spool.erasing import erase
from fasthook.spool.index import discard
from fasthook.spool.indexer import INDEX_NAME, Settings
from fasthook.spool.journal import Journal
from fasthook.spool.lock import lock
from fasthook.spool.pruning import prune
from fasthook.spool.records import Forgotten, Replayed, later_record
from fasthook.spool.recovery import OnRead, ignore, opened

_WORKER = 0


class Offline:
    """Journal and index, held as a service would hold them."""

    def __init__(self, path: Path, on_read: OnRead = ignore, *, is_rebuilt: bool = False) -> None:
        """`is_rebuilt`: the index is made again, and `on_read` told of each segment.

        Raises `InUse` where a service runs, `WrongIndex`, `WrongVersion`, `OSError`, `apsw.Error`.
        """
        self._lock = lock(path)
        try:
            if is_rebuilt:
                discard(path / INDEX_NAME)
            self._journal = Journal(path / "journal" / str(_WORKER), _WORKER)
            running = path / "running" / str(_WORKER)
            self._index = opened(path / INDEX_NAME, self._journal, running, on_read).view
        except BaseException:
            os.close(self._lock)
            raise

    def __enter__(self) -> "Offline":
        return self

    def __exit__(self, *_: object) -> None:
        self._index.close()
        self._journal.close()
        os.close(self._lock)

    def order(self, order: Replayed | Forgotten) -> None:
        """Store what an operator wants, and do it."""
        self._journal.write([later_record(order)])
        changes = Changes()
        changes.add(order)
        if isinstance(order, Forgotten):
            erase(self._journal, order.positions)
        self._index.apply(_WORKER, Cursor(*self._journal.end), changes)
        if isinstance(order, Forgotten):
            self._index.purge()

    def prune(self, settings: Settings) -> int:
        """Drop what is older than it has to be kept; how many bytes that freed."""
        return prune(self._index, self._journal, settings.retention_s, settings.max_bytes)

    def counts(self) -> dict[str, int]:
        """How many deliveries are in each state that calls for something."""
        return {state.name.lower(): count for state, count in self._index.counts().items()}
