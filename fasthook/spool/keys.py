"""The keys of accepted deliveries, as the index has them: by these it is known what came before.

They come in no order, and each one that is written by itself takes a page with it. So they are
fresh at first, in the order in which they came, and gathered many at a time. Fresh ones are not
found here: whoever accepts deliveries has them in memory until then.
"""

from collections.abc import Sequence
from typing import Any, Final

import apsw

from fasthook.spool.seen import Seen
from fasthook.spool.transaction import transaction

#: Read into `Keys.seen` at once.
_READ: Final = 4096
#: After so many were dropped it is made again: it can't let go of any.
_DROPPED = 1_000_000


class Keys:
    """Tables of an index: `keys`, and `fresh_keys`."""

    def __init__(self, connection: apsw.Connection, *, is_writer: bool) -> None:
        """`is_writer`: of the one connection that adds keys. Raises `apsw.Error`."""
        self._connection = connection
        self.fresh: list[bytes] = []  # not found by `known` yet
        self.gathered: list[bytes] = []  # found since; whoever wants to know takes them out
        #: What `known` finds, once `see_more` has read it: of the writer, while nobody else adds
        #: keys. Another thread may ask it.
        self.seen = Seen()
        self._read_to = b""
        self._dropped = 0
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
            if not are_fresh:
                self.seen.add(keys)  # before they are found
            table, some = ("fresh_keys", keys) if are_fresh else ("keys", sorted(keys))
            insert = f"INSERT OR IGNORE INTO {table} SELECT value FROM carray(?)"
            self._ask(insert, (apsw.carray(tuple(some)),))

    def gather(self) -> None:
        """Have `known` find the fresh ones."""
        self.seen.add(self.fresh)
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
        self._dropped += self._connection.changes()
        if self._dropped > _DROPPED:
            self.see_no_more()

    # --- what was seen ----------------------------------------------------------------------------

    def see_no_more(self) -> None:
        """Others add keys, too, or many were dropped: `see_more` begins anew."""
        self.seen.stop()
        self._read_to = b""
        self._dropped = 0

    def see_more(self) -> None:
        """Read some more into `seen`, until that has all."""
        if self.seen.is_whole:
            return
        if not self.seen.is_begun:
            self.seen.begin()
        # One row: for each one the interpreter's lock would be let go of.
        some = "SELECT key FROM keys WHERE key > ? ORDER BY key LIMIT ?"
        rows = self._ask(f"SELECT group_concat(hex(key)) FROM ({some})", (self._read_to, _READ))
        keys = list(map(bytes.fromhex, rows[0][0].split(","))) if rows[0][0] else []
        self.seen.add(keys)
        if len(keys) < _READ:
            self.seen.end()
        else:
            self._read_to = keys[-1]
