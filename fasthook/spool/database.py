"""The file of the index: how it is opened, and what becomes of one that can't be used."""

import os
from pathlib import Path
from typing import Final

import apsw

from fasthook.errors import FasthookError
from fasthook.logs import log
from fasthook.spool.schema import SCHEMA, VERSION
from fasthook.spool.transaction import transaction

#: The WAL-reset bug (sqlite.org/wal.html#walresetbug) is gone from here on.
_MIN_SQLITE: Final = 3_051_003
_BUSY_MS: Final = 5000
_PRAGMAS: Final = (
    "journal_mode = WAL",
    # A crash may take the last transactions, and the cursor with them: they are read again.
    "synchronous = NORMAL",
    # A statement of many rows keeps its undo in memory, not in a file of its own.
    "temp_store = MEMORY",
    "secure_delete = ON",  # errors may quote what is to be forgotten
    # Seldom: a checkpoint syncs, and the journal's own syncs wait for that (bench/sections.py).
    "wal_autocheckpoint = 16000",  # pages: as many bytes as the limit below
    "journal_size_limit = 67108864",
)


class WrongIndex(FasthookError):
    """A database that this version can't use."""


class OldIndex(WrongIndex):
    """One that an older version made: it is to be made again."""


def connected(path: Path) -> apsw.Connection:
    """Open or make it. Raises `WrongIndex`, and `apsw.Error` where it is damaged."""
    if apsw.SQLITE_VERSION_NUMBER < _MIN_SQLITE:
        raise WrongIndex(f"SQLite {apsw.sqlite_lib_version()} corrupts databases; 3.51.3 is due")
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(_BUSY_MS)
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}").fetchall()
    with transaction(connection):
        version = int(connection.pragma("user_version"))
        is_empty = not connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
        if not version and is_empty:
            connection.execute(SCHEMA)
        elif version != VERSION:
            kind = OldIndex if 0 < version < VERSION else WrongIndex
            raise kind(f"{path}: format {version}; expected {VERSION}")
    return connection


def damage_mark(path: Path) -> Path:
    """The file that says that the index at `path` is damaged: the next start makes it again."""
    return path.with_suffix(".damaged")


def mark_damaged(path: Path) -> None:
    """Have the next start make the index again: while it is in use it can't be."""
    if not damage_mark(path).exists():
        log.error("index damaged", path=str(path), cure="a restart makes it again")
        damage_mark(path).touch(mode=0o600)


def discard(path: Path) -> None:
    """Delete an index; nothing is lost, for it is made again from the journals."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    damage_mark(path).unlink(missing_ok=True)
