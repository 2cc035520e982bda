"""What was counted between two looks: the detector's only food, and cheap to collect.

The counts of several workers can be summed: none of them means anything by itself.
"""

from collections.abc import Hashable
from typing import Final, TypeVar

import msgspec

K = TypeVar("K", bound=Hashable)

#: Keys of one tally. Beyond: the rarer half is forgotten.
MAX_KEYS: Final = 4096


class Tally(dict[K, int]):
    """How often each key came: `tally[key] += 1`; for never more than `MAX_KEYS` keys.

    A key's count is never too high, and too low by at most `2 / MAX_KEYS` of all that was counted:
    where the table is full, the median is taken from every count (Anderson et al. 2017, "A
    High-Performance Algorithm for Identifying Frequent Items in Data Streams"). Those who come
    most are always in it, however many others there are. For a known key it is as cheap as a dict.
    """

    __slots__ = ()

    def __missing__(self, key: K) -> int:
        if len(self) >= MAX_KEYS:
            self._shrink()
        return 0

    def _shrink(self) -> None:
        median = sorted(self.values())[len(self) // 2]
        kept = {key: count - median for key, count in self.items() if count > median}
        self.clear()
        self.update(kept)

    def take(self) -> "dict[K, int]":
        """What was counted; it begins anew."""
        taken = dict(self)
        self.clear()
        return taken


def encode(counts: "Counts") -> bytes:
    """For another worker."""
    return msgspec.msgpack.encode(counts)


def decode(data: bytes) -> "Counts":
    """What `encode` made. Raises `ValueError` for anything else."""
    return msgspec.msgpack.decode(data, type=Counts)


class Counts(msgspec.Struct):
    """What came at each endpoint since the last look, of one worker or of all."""

    events: dict[str, int] = {}  # endpoint → requests that were accepted
    rejects: dict[str, int] = {}  # endpoint ("": none was found) → requests that were refused
    #: (endpoint, kind) → attempts and requests that failed like that.
    errors: dict[tuple[str, str], int] = {}
    event_clients: dict[tuple[str, str], int] = {}  # (endpoint, client) → accepted
    reject_clients: dict[tuple[str, str], int] = {}  # the same of those refused

    def add(self, other: "Counts") -> None:
        """Count what another worker counted, too."""
        for name in self.__struct_fields__:
            into = getattr(self, name)
            for key, count in getattr(other, name).items():
                into[key] = into.get(key, 0) + count
