"""Which deliveries are in a handler's hands, kept where it survives the process.

A worker writes the position of its delivery into a slot of a mapped file when an attempt begins,
and clears it after. Whoever finds one on start knows in whose attempts the process died.
(The files need no sync: when the machine dies, too, no handler is to blame.)
"""

import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

_SLOT: Final = struct.Struct("<qq")  # position + 1, and the attempt; zeros: nothing runs
_ORDERED: Final = ".ordered"


class Marks:
    """The slots of one handler's workers."""

    def __init__(self, folder: Path, handler: str, slots: int, *, is_ordered: bool) -> None:
        """The folder is made where it is missing. Raises `OSError`."""
        for made in (folder.parent, folder):
            made.mkdir(mode=0o700, exist_ok=True)
        path = folder / (handler + (_ORDERED if is_ordered else ""))
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, slots * _SLOT.size)
            self._map = mmap.mmap(fd, slots * _SLOT.size)
        finally:
            os.close(fd)

    def begin(self, slot: int, position: int, attempt: int) -> None:
        """An attempt begins."""
        _SLOT.pack_into(self._map, slot * _SLOT.size, position + 1, attempt)

    def end(self, slot: int) -> None:
        """It has ended."""
        _SLOT.pack_into(self._map, slot * _SLOT.size, 0, 0)


class Interrupted(NamedTuple):
    """An attempt in which the process died."""

    handler: str
    position: int
    attempt: int
    is_ordered: bool


def interrupted(folder: Path) -> Iterator[Interrupted]:
    """The attempts that were under way when the last process ended."""
    for path in sorted(folder.glob("*")):
        name = path.name.removesuffix(_ORDERED)
        data = path.read_bytes()
        for position, attempt in _SLOT.iter_unpack(data[: len(data) // _SLOT.size * _SLOT.size]):
            if position:
                yield Interrupted(name, position - 1, attempt, path.name != name)


def clear(folder: Path) -> None:
    """What was under way is recorded."""
    for path in folder.glob("*"):
        path.unlink()
