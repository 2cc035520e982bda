"""A segment that is written: how records get to its end, and to the disk.

Large batches go to the disk past the kernel's pages (`O_DIRECT`; open(2)): half the time of the
processor for each byte, and the disk has them by the time that the call returns. They take whole
blocks, so that no block is written twice; a record of padding fills the last one.
"""

import contextlib
import errno
import mmap
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from fasthook.spool.records import SEGMENT_HEADER_BYTES, framed, padding, segment_header

#: No disk has larger ones that it writes at once, and no file system wants more.
BLOCK_BYTES: Final = 4096
#: Batches from here on are written in blocks. Padding takes half a block at each end, by the
#: mean; between large ones at one end alone.
DIRECT_BYTES = 32 * 1024
#: What is written in blocks goes through so much memory, which lies as the disk wants it.
BUFFER_BYTES: Final = 1024 * 1024
_MAX_PIECES: Final = 1000  # of one writev; the kernel takes 1024


class SegmentFile:
    """A segment that grows by batches."""

    def __init__(self, path: Path, buffer: mmap.mmap, *, syncs: bool) -> None:
        """Make the file, empty. `buffer`: of `BUFFER_BYTES`. Raises `OSError`.

        `syncs`: whether a batch is on disk, or else with the kernel, when `append` returns.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(path, flags, 0o600)
        self._direct = -1
        self._path = path
        self._salt = secrets.randbits(32)
        self._buffer = buffer
        self._syncs = syncs
        self.size_bytes = SEGMENT_HEADER_BYTES  # of which it is certain that they are there

    def begin(self) -> None:
        """Write its header. Raises `OSError`, as `append`."""
        write_all(self._fd, [segment_header(self._salt)])
        if self._syncs:
            os.fsync(self._fd)
            self._direct = _open_direct(self._path)

    def append(self, batch: Sequence[tuple[int, tuple[bytes, ...]]]) -> list[int]:
        """Write records, given as kind and pieces of content; at which offset each begins.

        Raises `OSError`: then it may be there in part, and the file is to be given up, since the
        kernel may have dropped what it could not write.
        """
        offsets, pieces, size_bytes = self._lay_out(batch)
        begin = self.size_bytes
        if self._direct >= 0 and size_bytes >= DIRECT_BYTES:
            if begin % BLOCK_BYTES:
                filler = self._filler(begin)
                write_all(self._fd, [filler])
                begin += len(filler)
            if (begin + size_bytes) % BLOCK_BYTES:
                pieces.append(self._filler(begin + size_bytes))
                size_bytes += len(pieces[-1])
            self._write_blocks(pieces, begin)
            os.fdatasync(self._fd)
        else:
            write_all(self._fd, pieces)
            if self._syncs:
                os.fdatasync(self._fd)
                self._let_go(begin + size_bytes)
        self.size_bytes = begin + size_bytes
        return [begin + offset for offset in offsets]

    def _lay_out(
        self, batch: Sequence[tuple[int, tuple[bytes, ...]]]
    ) -> tuple[list[int], list[bytes], int]:
        """Where each record begins in the batch, all pieces to write, and how many bytes."""
        offsets: list[int] = []
        pieces: list[bytes] = []
        offset, salt = 0, self._salt
        for kind, content in batch:
            record, length = framed(kind, content, salt)
            offsets.append(offset)
            pieces += record
            offset += length
        return offsets, pieces, offset

    def _filler(self, offset: int) -> bytes:
        return padding(-offset % BLOCK_BYTES, BLOCK_BYTES, self._salt)

    def _write_blocks(self, pieces: list[bytes], offset: int) -> None:
        buffer, filled = self._buffer, 0
        buffer.seek(0)
        for piece in pieces:
            if filled + len(piece) <= BUFFER_BYTES:
                buffer.write(piece)
                filled += len(piece)
                continue
            rest = memoryview(piece)
            while rest:
                part = rest[: BUFFER_BYTES - filled]
                buffer.write(part)
                filled += len(part)
                rest = rest[len(part) :]
                if rest:
                    self._flush(filled, offset)
                    offset += filled
                    filled = 0
                    buffer.seek(0)
        self._flush(filled, offset)

    def _flush(self, count_bytes: int, offset: int) -> None:
        with memoryview(self._buffer) as view:
            try:
                written = os.pwrite(self._direct, view[:count_bytes], offset)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                written = 0  # a file system that promised it, and does not take it
            if written < count_bytes:  # as far as the disk has room: it says why with the next
                write_all(self._fd, [bytes(view[written:count_bytes])])

    def _let_go(self, end: int) -> None:
        """Have the kernel give back the pages of what was synced: they are seldom read.

        The next batch gets the same ones, which are at hand, rather than new ones for ever.
        """
        begin = self.size_bytes - self.size_bytes % mmap.PAGESIZE
        with contextlib.suppress(OSError):  # an advice
            os.posix_fadvise(self._fd, begin, end - begin, os.POSIX_FADV_DONTNEED)

    def give_up(self) -> None:
        """Leave it as it was before the last batch, as far as the disk lets us, and close it."""
        with contextlib.suppress(OSError):
            if self.size_bytes > SEGMENT_HEADER_BYTES:
                os.ftruncate(self._fd, self.size_bytes)
            else:
                self._path.unlink()
        self.close()

    def close(self) -> None:
        """Write no more of it."""
        for fd in (self._fd, self._direct):
            if fd >= 0:
                os.close(fd)
        self._fd = self._direct = -1


def write_all(fd: int, pieces: Sequence[bytes]) -> None:
    """Write all of it, however many calls that takes. Raises `OSError`."""
    for begin in range(0, len(pieces), _MAX_PIECES):
        part = pieces[begin : begin + _MAX_PIECES]
        missing = sum(map(len, part)) - os.writev(fd, part)
        if missing:
            # A disk that is nearly full takes a part, and says why with the next write.
            rest = memoryview(b"".join(part))[-missing:]
            while rest:
                rest = rest[os.write(fd, rest) :]


def _open_direct(path: Path) -> int:
    """The file once more, for blocks; -1 where the file system knows no such thing."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return -1
