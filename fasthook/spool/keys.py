"""The keys of accepted deliveries, as the index has them: by these it is known what came before.

They come in no order, and each one that is written by itself takes a page with it. So they are
fresh at first, in the order in which they came, and gathered many at a time. Fresh ones are not
found here: whoever accepts deliveries has them in memory until then.
"""

from collections.abc import Sequence
from typing import Any

import apsw

from fasthook.spool.transaction import transaction


class Keys:
    """Tables of an index: `keys`, and `fresh_keys`."""

    def __init__(self, connection: apsw.Connection, *, is_writer: bool) -> None:
        """`is_writer`: of the one connection that adds keys. Raises `apsw.Error`."""
        self._connection = connection
        self.fresh: list[bytes] = []  # not found by `known` yet
        self.gathered: list[bytes] = []  # found since; whoever wants to know takes them out
        if is_writer:
            self.fresh += [key for (key,) in self._ask("SELECT key FROM fresh_keys")]

    def _ask(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        return self._connection.execute(statement, tuple(values)).fetchall()

    def known(self, keys: Sequence[bytes]) -> set[bytes]:
        """Which of these are of deliveries that have been accepted, but for fresh ones."""
        if not keys:
            return set()
        found = self._ask(
            "SELECT key FROM keys WHERE key IN carray(?)", (apsw.carray(tuple(keys)),)
        )
        return {key for (key,) in found}

    def add(self, keys: Sequence[bytes], *, are_fresh: bool) -> None:
        """Part of a transaction. If it is committed, fresh ones are to be added to `fresh`."""
        if keys:
            table, some = ("fresh_keys", keys) if are_fresh else ("keys", sorted(keys))
            insert = f"INSERT OR IGNORE INTO {table} SELECT value FROM carray(?)"
            self._ask(insert, (apsw.carray(tuple(some)),))

    def gather(self) -> None:
        """Have `known` find the fresh ones."""
        with transaction(self._connection):
            gather = "INSERT OR IGNORE INTO keys SELECT key FROM fresh_keys ORDER BY key"
            self._ask(gather)
            self._ask("DELETE FROM fresh_keys")
        self.gathered += self.fresh
        self.fresh = []

    def drop(self, begin: int, end: int) -> None:
        """Those of deliveries from position `begin` up to `end`, none of them fresh. Part of a
        transaction.
        """
        those = "SELECT key FROM deliveries WHERE position >= ? AND position < ?"
        self._ask(f"DELETE FROM keys WHERE key IN ({those})", (begin, end))
