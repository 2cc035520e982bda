"""A transaction that lets others have the interpreter while SQLite waits.

`with connection:` of apsw begins and commits with the interpreter's lock held, so that the event
loop would wait for a busy database, and for the disk at each commit and checkpoint.
"""

import contextlib
from collections.abc import Iterator

import apsw


@contextlib.contextmanager
def transaction(connection: apsw.Connection) -> Iterator[None]:
    """All or nothing. Immediate: who reads first and writes then can't be told to start again."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # some errors have rolled it back already
            connection.execute("ROLLBACK")
        raise
