"""Refused requests, so that an operator can ask why: a bounded ring in a database of its own.

It is a help, no record: nothing waits for it, and a flood leaves a sample.
"""

import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import apsw
import msgspec

from fasthook.spool.transaction import transaction

#: Refused requests that are kept, and how many of those bodies that an endpoint wants to keep.
MAX_ROWS: Final = 10_000
_MAX_BODIES: Final = 200
#: Of one turn of the indexing thread; beyond, the oldest ones are left out.
_MAX_WAITING: Final = 500
_MAX_TEXT: Final = 1000
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS rejects (
    id INTEGER PRIMARY KEY AUTOINCREMENT, at_ns INTEGER, status INTEGER, client TEXT,
    endpoint TEXT, method TEXT, path TEXT, reason TEXT, head BLOB, body BLOB)"""


class Reject(msgspec.Struct, frozen=True, gc=False):
    """One refused request."""

    at_ns: int  # wall clock
    status: int
    client: str
    endpoint: str  # empty: none was found
    method: str
    path: str
    reason: str  # in full, for the operator alone
    head: bytes | None = None  # and body: only where the endpoint keeps them
    body: bytes | None = None
    id: int = 0


class Rejects:
    """The ring. `add` is called on the loop, `flush` in a thread."""

    def __init__(self, path: Path) -> None:
        """Raises `apsw.Error`, `OSError`."""
        self._waiting: deque[Reject] = deque(maxlen=_MAX_WAITING)
        self._connection = _open(path)
        self._connection.execute(_SCHEMA)

    def add(self, reject: Reject) -> None:
        """Keep it, for a while."""
        self._waiting.append(reject)

    def flush(self) -> None:
        """Write what was added."""
        if not self._waiting:
            return
        rows = []
        while self._waiting:
            r = self._waiting.popleft()
            text = (r.client, r.endpoint, r.method, r.path[:_MAX_TEXT], r.reason[:_MAX_TEXT])
            rows.append((r.at_ns, r.status, *text, r.head, r.body))
        with transaction(self._connection):
            self._connection.executemany(
                "INSERT INTO rejects VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows
            )
            last = self._connection.last_insert_rowid()
            self._connection.execute("DELETE FROM rejects WHERE id <= ?", (last - MAX_ROWS,))
            self._connection.execute(
                "UPDATE rejects SET head = NULL, body = NULL WHERE body IS NOT NULL AND id <= "
                "(SELECT id FROM rejects WHERE body IS NOT NULL ORDER BY id DESC LIMIT 1 OFFSET ?)",
                (_MAX_BODIES,),
            )

    def close(self) -> None:
        """Write what is left, and close."""
        self.flush()
        self._connection.close()


def read(path: Path, limit: int, endpoint: str = "", before_id: int = 2**62) -> Sequence[Reject]:
    """The newest ones first; also while a service runs. Raises `apsw.Error`."""
    if not path.exists():
        return []
    connection = _open(path)
    try:
        rows: Any = connection.execute(
            "SELECT at_ns, status, client, endpoint, method, path, reason, head, body, id "
            "FROM rejects WHERE id < ? AND (? = '' OR endpoint = ?) ORDER BY id DESC LIMIT ?",
            (before_id, endpoint, endpoint, limit),
        )
        return [Reject(*row) for row in rows]
    finally:
        connection.close()


def forget(path: Path, endpoints: Sequence[str]) -> int:
    """Erase the heads and bodies that are kept of these endpoints' refused requests.

    How many that were. Raises `apsw.Error`.
    """
    if not path.exists() or not endpoints:
        return 0
    connection = _open(path)
    try:
        connection.execute(
            "UPDATE rejects SET head = NULL, body = NULL "
            "WHERE body IS NOT NULL AND endpoint IN carray(?)",
            (apsw.carray(tuple(endpoints)),),
        )
        count = connection.changes()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return count
    finally:
        connection.close()


def _open(path: Path) -> apsw.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(2000)
    connection.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF")
    connection.execute("PRAGMA secure_delete = ON")
    return connection
