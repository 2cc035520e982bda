"""The journal of one worker: segment files that grow at their end and are never changed.

Everything here waits for the disk: call it from a thread of its own, never from the event loop.
"""

import contextlib
import mmap
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from fasthook.spool.records import (
    SEGMENT_HEADER_BYTES,
    Damage,
    Record,
    framed,
    read_segment_header,
    record_at,
    scan,
    segment_header,
)

SEGMENT_BYTES: Final = 64 * 1024 * 1024
#: A position is one number that names a record for ever: worker, segment and offset.
_OFFSET_BITS: Final = 28
_SEGMENT_BITS: Final = 28
_MAX_PIECES: Final = 1000  # of one writev; the kernel takes 1024


def position_of(worker: int, segment: int, offset: int) -> int:
    """Worker, segment and offset as one number, below 2^63."""
    return (worker << _SEGMENT_BITS | segment) << _OFFSET_BITS | offset


def place_of(position: int) -> tuple[int, int, int]:
    """The worker, segment and offset of a position."""
    segment = position >> _OFFSET_BITS & ((1 << _SEGMENT_BITS) - 1)
    return position >> _OFFSET_BITS + _SEGMENT_BITS, segment, position & ((1 << _OFFSET_BITS) - 1)


class Journal:
    """Appends batches of records, and reads records back by their position."""

    def __init__(
        self,
        folder: Path,
        worker: int = 0,
        *,
        syncs: bool = True,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        """`folder`: of this worker alone; its number goes into the positions.

        `syncs`: whether a batch is on disk, or else with the kernel, when `write` returns.

        The folder is made where it is missing. Raises `OSError`.
        """
        self.folder = folder
        self._worker = worker
        self._syncs = syncs
        self._segment_bytes = segment_bytes
        # One by one: `parents=True` would make the parents with the default mode.
        for made in (folder.parent, folder):
            made.mkdir(mode=0o700, exist_ok=True)
            sync_folder(made.parent)
        numbers = self.segments()
        self._number = numbers[-1] if numbers else 0  # of the segment that is written, or the last
        self._fd = -1
        self._salt = 0
        self._offset = 0

    def segments(self) -> list[int]:
        """The numbers of all segments, oldest first."""
        return sorted(int(path.stem) for path in self.folder.glob("*.seg") if path.stem.isdigit())

    def path_of(self, number: int) -> Path:
        """The file of a segment."""
        return self.folder / f"{number:010}.seg"

    @property
    def end(self) -> tuple[int, int]:
        """The segment that is written, and the offset up to which it is."""
        return self._number, self._offset

    # --- writing ----------------------------------------------------------------------------------

    def write(self, batch: Sequence[tuple[int, list[bytes]]]) -> list[int]:
        """Append records, given as kind and pieces of content; their positions.

        They are durable when it returns. Raises `OSError`: then none of them is to be relied on,
        and the segment is given up, since the kernel may have dropped what it could not write.
        """
        try:
            if self._fd < 0 or self._offset >= self._segment_bytes:
                self._begin_segment()
            positions, pieces, end = self._lay_out(batch)
            _write_all(self._fd, pieces)
            if self._syncs:
                os.fdatasync(self._fd)
        except OSError:
            self._give_up()
            raise
        self._offset = end
        return positions

    def _lay_out(
        self, batch: Sequence[tuple[int, list[bytes]]]
    ) -> tuple[list[int], list[bytes], int]:
        positions, pieces, offset = [], [], self._offset
        for kind, content in batch:
            record, length = framed(kind, content, self._salt)
            positions.append(position_of(self._worker, self._number, offset))
            pieces += record
            offset += length
        return positions, pieces, offset

    def _begin_segment(self) -> None:
        self.close()
        number, salt = self._number + 1, secrets.randbits(32)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        fd = os.open(self.path_of(number), flags, 0o600)
        self._number, self._fd, self._salt, self._offset = number, fd, salt, SEGMENT_HEADER_BYTES
        _write_all(fd, [segment_header(salt)])
        if self._syncs:
            os.fsync(fd)
            sync_folder(self.folder)

    def _give_up(self) -> None:
        """Leave the segment as it was before the batch, as far as the disk lets us."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._offset)
            self.close()

    def close(self) -> None:
        """Close the segment; the next `write` begins a new one."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    # --- reading ----------------------------------------------------------------------------------

    def read(self, position: int) -> Record | None:
        """The record at a position; None if its segment is gone or it is damaged."""
        _, number, offset = place_of(position)
        with self._mapped(number) as data:
            if data is None:
                return None
            record = record_at(data, offset, read_segment_header(data))
            return record and record._replace(content=memoryview(bytes(record.content)))

    def replay(self, number: int, offset: int) -> Iterator[Record | Damage]:
        """What a segment holds from `offset` on; contents are valid until the next one is asked.

        Raises `WrongVersion`.
        """
        with self._mapped(number) as data:
            if data is not None and len(data) >= SEGMENT_HEADER_BYTES:
                salt = read_segment_header(data)
                yield from scan(data, salt, max(offset, SEGMENT_HEADER_BYTES))

    @contextlib.contextmanager
    def _mapped(self, number: int) -> Iterator[memoryview | None]:
        try:
            with self.path_of(number).open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (FileNotFoundError, ValueError):  # gone; empty
            yield None
            return
        view = memoryview(mapped)
        try:
            yield view
        finally:
            # Whoever still holds a piece of it keeps the map open, and nothing else.
            del view

    def cut(self, number: int, offset: int) -> None:
        """End a segment at `offset`, for good."""
        fd = os.open(self.path_of(number), os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.ftruncate(fd, offset)
            os.fsync(fd)
        finally:
            os.close(fd)

    def remove(self, number: int) -> None:
        """Delete a segment that is not written any more."""
        self.path_of(number).unlink(missing_ok=True)
        sync_folder(self.folder)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_all(fd: int, pieces: list[bytes]) -> None:
    for begin in range(0, len(pieces), _MAX_PIECES):
        part = pieces[begin : begin + _MAX_PIECES]
        missing = sum(map(len, part)) - os.writev(fd, part)
        if missing:
            # A disk that is nearly full takes a part, and says why with the next write.
            rest = memoryview(b"".join(part))[-missing:]
            while rest:
                rest = rest[os.write(fd, rest) :]
