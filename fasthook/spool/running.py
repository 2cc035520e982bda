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

from fasthook.spool.journal import worker_of

_SLOT: Final = struct.Struct("<qq")  # position + 1, and the attempt; zeros: nothing runs
_ORDERED: Final = ".ordered"
_FOLDER: Final = "running"


class Marks:
    """The slots of one handler: in a folder for each journal, since who takes that over asks."""

    def __init__(
        self, path: Path, worker: int, handler: str, slots: int, *, is_ordered: bool
    ) -> None:
        """`path`: the spool's directory; `worker`: of most positions. Raises `OSError`."""
        self._path = path
        self._name = handler + (_ORDERED if is_ordered else "")
        self._bytes = slots * _SLOT.size
        self._maps = {worker: self._mapped(worker)}
        self._used = [self._maps[worker]] * slots

    def _mapped(self, worker: int) -> mmap.mmap:
        folder = folder_of(self._path, worker)
        for made in (folder.parent, folder):
            made.mkdir(mode=0o700, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        fd = os.open(folder / self._name, flags, 0o600)
        try:
            os.ftruncate(fd, self._bytes)
            return mmap.mmap(fd, self._bytes)
        finally:
            os.close(fd)

    def begin(self, slot: int, position: int, attempt: int) -> None:
        """An attempt begins."""
        worker = worker_of(position)
        used = self._maps.get(worker)
        if used is None:
            used = self._maps[worker] = self._mapped(worker)
        self._used[slot] = used
        _SLOT.pack_into(used, slot * _SLOT.size, position + 1, attempt)

    def end(self, slot: int) -> None:
        """It has ended."""
        _SLOT.pack_into(self._used[slot], slot * _SLOT.size, 0, 0)

    def forget(self, worker: int) -> None:
        """That journal is another worker's, or is no more."""
        self._maps.pop(worker, None)


def folder_of(path: Path, worker: int) -> Path:
    """Where it is said, in a spool's directory, what runs of a worker's journal."""
    return path / _FOLDER / str(worker)


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


def remove(folder: Path) -> None:
    """There is no such journal any more."""
    if folder.exists():
        clear(folder)
        folder.rmdir()


def clear(folder: Path) -> None:
    """What was under way is recorded."""
    for path in folder.glob("*"):
        path.unlink()
