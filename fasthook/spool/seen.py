"""Which keys have certainly not come before: nearly all that are asked for, without the database.

A Bloom filter (Bloom, "Space/time trade-offs in hash coding with allowable errors", 1970): each key
sets two bits, and one of which a bit is not set was never added. One thread adds, another one asks.
"""

import time
from collections.abc import Sequence
from typing import Final

#: Of two MiB. With a million keys 1 in 80 new ones has both bits set, with four 1 in 7; they are
#: looked for, as all are without this.
_BITS: Final = 1 << 24
_MASK: Final = _BITS - 1
_SHIFT: Final = 24
#: After so many the thread gives way: compiled code does not by itself.
_SOME: Final = 1024


class Seen:
    """Of a growing set of keys, from when it is begun; of use from when it has all of them."""

    def __init__(self) -> None:
        self._bits = bytearray()  # those that count; none: not all are added yet
        self._growing = bytearray()  # none: it is not begun, and takes no memory

    @property
    def is_begun(self) -> bool:
        """Whether what is added counts."""
        return bool(self._growing)

    @property
    def is_whole(self) -> bool:
        """Whether all keys are added."""
        return bool(self._bits)

    def begin(self) -> None:
        """From now on keys are added, and then those that there were before."""
        self._growing = bytearray(_BITS // 8)

    def end(self) -> None:
        """All that there are have been added."""
        self._bits = self._growing

    def stop(self) -> None:
        """Have none again."""
        self._bits = bytearray()
        self._growing = bytearray()

    def add(self, keys: Sequence[bytes]) -> None:
        """From now on these may have been seen."""
        bits = self._growing
        if not bits:
            return
        for begin in range(0, len(keys), _SOME):
            for key in keys[begin : begin + _SOME]:
                number = hash(key)  # bytes remember theirs
                first, second = number & _MASK, number >> _SHIFT & _MASK
                bits[first >> 3] |= 1 << (first & 7)
                bits[second >> 3] |= 1 << (second & 7)
            time.sleep(0)

    def perhaps(self, keys: Sequence[bytes]) -> list[bytes]:
        """Those which may have been added; the others were not."""
        bits = self._bits
        if not bits:
            return list(keys)
        found = []
        for key in keys:
            number = hash(key)
            first, second = number & _MASK, number >> _SHIFT & _MASK
            if bits[first >> 3] & 1 << (first & 7) and bits[second >> 3] & 1 << (second & 7):
                found.append(key)
        return found
