"""Claims: which worker stores which event, where several workers share one index.

The index lags behind the journals, so two workers that get the same event at once would both find
it new. Each therefore claims the keys of its batch before it writes them, all or none in one
transaction, and lets go of them once the index has them. A claim whose batch is not written yet
says nothing: whoever meets it asks again. Nothing here is synced; what a crash takes, the index
has after the start.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import apsw

from fasthook.spool.transaction import transaction

NAME: Final = "claims.db"
_BUSY_MS: Final = 5000
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS claims (
    key BLOB PRIMARY KEY, worker INTEGER NOT NULL, is_written INTEGER NOT NULL) WITHOUT ROWID"""


class Answer(NamedTuple):
    """What became of the keys that were to be claimed, beside those that were."""

    written: set[bytes]  # by another worker: these are duplicates
    pending: set[bytes]  # another worker is about to write them


class Claims:
    """One worker's connection; one for each thread."""

    def __init__(self, path: Path, worker: int) -> None:
        """Raises `apsw.Error` and `OSError`."""
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._worker = worker
        self._connection = apsw.Connection(str(path))
        self._connection.set_busy_timeout(_BUSY_MS)
        for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = OFF", _SCHEMA):
            self._connection.execute(statement)

    def reset(self, worker: int) -> None:
        """Let go of all that a worker has claimed: what its journal holds, the index has."""
        self._ask("DELETE FROM claims WHERE worker = ?", (worker,))

    def workers(self) -> set[int]:
        """Who has claimed something."""
        return {worker for (worker,) in self._ask("SELECT DISTINCT worker FROM claims", ())}

    def claim(self, keys: Sequence[bytes]) -> Answer:
        """Claim those keys which nobody else has."""
        answer = Answer(set(), set())
        self._look(keys, answer)
        if not _free(keys, answer):
            return answer  # nothing to write: it would hold up those who have something
        with transaction(self._connection):
            self._look(keys, answer)
            rows = [(key, self._worker) for key in _free(keys, answer)]
            self._connection.executemany("INSERT OR IGNORE INTO claims VALUES (?, ?, 0)", rows)
        return answer

    def _look(self, keys: Sequence[bytes], answer: Answer) -> None:
        answer.written.clear()
        answer.pending.clear()
        if not keys:
            return
        for key, is_written in self._ask(
            "SELECT key, is_written FROM claims WHERE key IN carray(?) AND worker != ?",
            (apsw.carray(tuple(keys)), self._worker),
        ):
            (answer.written if is_written else answer.pending).add(key)

    def confirm(self, keys: Sequence[bytes]) -> None:
        """These are written."""
        if keys:
            update = "UPDATE claims SET is_written = 1 WHERE key IN carray(?)"
            self._ask(update, (apsw.carray(tuple(keys)),))

    def release(self, keys: Sequence[bytes]) -> None:
        """The index has these, or they are not written."""
        if keys:
            self._ask("DELETE FROM claims WHERE key IN carray(?)", (apsw.carray(tuple(keys)),))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _ask(self, statement: str, values: Sequence[Any]) -> list[Any]:
        return self._connection.execute(statement, tuple(values)).fetchall()


def _free(keys: Sequence[bytes], answer: Answer) -> list[bytes]:
    return [key for key in keys if key not in answer.written and key not in answer.pending]
