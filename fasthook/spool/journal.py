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

from fasthook.spool.files import make_folder, sync_folder
from fasthook.spool.records import (
    RECORD_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    Damage,
    Record,
    WrongVersion,
    content_length,
    framed,
    read_segment_header,
    record_at,
    scan,
    segment_header,
)
from fasthook.spool.segment import BUFFER_BYTES, SegmentFile, write_all

SEGMENT_BYTES: Final = 64 * 1024 * 1024
#: A position is one number that names a record for ever: worker, segment and offset. Of the last
#: two there is enough for 256 TiB of a journal.
_OFFSET_BITS: Final = 28
_SEGMENT_BITS: Final = 22
_WORKER_BITS: Final = 63 - _SEGMENT_BITS - _OFFSET_BITS  # what SQLite has left
MAX_WORKER: Final = (1 << _WORKER_BITS) - 2  # its positions end below 2^63, too
MAX_SEGMENT: Final = (1 << _SEGMENT_BITS) - 1
#: The worker of a position, in SQL.
WORKER_OF_POSITION: Final = f"(position >> {_OFFSET_BITS + _SEGMENT_BITS})"
#: Of the file that is left of a segment which went before its time.
_COMPACT: Final = ".kept"


def position_of(worker: int, segment: int, offset: int) -> int:
    """Worker, segment and offset as one number, below 2^63."""
    return (worker << _SEGMENT_BITS | segment) << _OFFSET_BITS | offset


def worker_of(position: int) -> int:
    """The worker of a position."""
    return position >> _OFFSET_BITS + _SEGMENT_BITS


def place_of(position: int) -> tuple[int, int, int]:
    """The worker, segment and offset of a position."""
    segment = position >> _OFFSET_BITS & ((1 << _SEGMENT_BITS) - 1)
    return position >> _OFFSET_BITS + _SEGMENT_BITS, segment, position & ((1 << _OFFSET_BITS) - 1)


def name_of(position: int) -> str:
    """How people call a delivery: WORKER.SEGMENT.OFFSET."""
    return ".".join(map(str, place_of(position)))


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
        self.worker = worker
        self._syncs = syncs
        self._segment_bytes = segment_bytes
        for made in (folder.parent, folder):
            make_folder(made)
        numbers = self.segments()
        self._number = numbers[-1] if numbers else 0  # of the segment that is written, or the last
        #: By segment. One thread writes them, another one removes.
        self._sizes = {number: self.path_of(number).stat().st_size for number in numbers}
        self._file: SegmentFile | None = None
        self._offset = 0
        self._buffer = mmap.mmap(-1, BUFFER_BYTES)  # shared, as what the disk reads has to be

    def segments(self) -> list[int]:
        """The numbers of all segments, oldest first; also of compact ones."""
        compact = {int(path.stem) for path in self.folder.glob(f"*{_COMPACT}")}
        return sorted(compact.union(segment_numbers(self.folder)))

    def path_of(self, number: int) -> Path:
        """The file of a segment."""
        whole = segment_path(self.folder, number)
        compact = whole.with_suffix(_COMPACT)
        return compact if compact.exists() else whole

    @property
    def size_bytes(self) -> int:
        """How many bytes all segments have."""
        return sum(list(self._sizes.values()))

    @property
    def end(self) -> tuple[int, int]:
        """The segment that is written, and the offset up to which it is."""
        return self._number, self._offset

    # --- writing ----------------------------------------------------------------------------------

    def write(self, batch: Sequence[tuple[int, tuple[bytes, ...]]]) -> list[int]:
        """Append records, given as kind and pieces of content; their positions.

        They are durable when it returns. Raises `OSError`: then none of them is to be relied on,
        and the segment is given up, since the kernel may have dropped what it could not write.
        """
        file = self._file
        try:
            if file is None or file.size_bytes >= self._segment_bytes:
                file = self._begin_segment()
            offsets = file.append(batch)
        except BaseException:  # whatever it is: what was written is not where we believe
            self._give_up()
            raise
        self._offset = self._sizes[self._number] = file.size_bytes
        begin = position_of(self.worker, self._number, 0)
        return [begin + offset for offset in offsets]

    def _begin_segment(self) -> SegmentFile:
        self.close()
        number = self._number + 1
        file = SegmentFile(self.path_of(number), self._buffer, syncs=self._syncs)
        self._file, self._number, self._offset = file, number, file.size_bytes
        file.begin()
        if self._syncs:
            sync_folder(self.folder)
        return file

    def _give_up(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.give_up()

    def close(self) -> None:
        """Close the segment; the next `write` begins a new one."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    # --- reading ----------------------------------------------------------------------------------

    def read(self, position: int) -> Record | None:
        """The record at a position; None if its segment is gone or it is damaged.

        Read without a map: pages of a map would count as ours, a million events of them.
        """
        worker, number, offset = place_of(position)
        if worker != self.worker:
            return None
        return read_record(segment_path(self.folder, number), offset)

    def replay(self, number: int, offset: int) -> Iterator[Record | Damage]:
        """What a segment holds from `offset` on; contents are valid until the next one is asked.

        Raises `WrongVersion`.
        """
        with self._mapped(number) as data:
            if data is None or len(data) < SEGMENT_HEADER_BYTES:
                return
            if bytes(data[:SEGMENT_HEADER_BYTES]) == bytes(SEGMENT_HEADER_BYTES):
                # It was made, and its first sync never came to an end: nothing was accepted here.
                yield Damage(0, len(data))
                return
            try:
                salt = read_segment_header(data)
            except WrongVersion as error:
                raise WrongVersion(f"{self.path_of(number)}: {error}") from None
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
        self._sizes[number] = offset

    def sync(self, number: int) -> None:
        """Have a segment on disk that somebody else has written, or with the kernel: as settled."""
        if self._syncs:
            fd = os.open(self.path_of(number), os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
            sync_folder(self.folder)

    def remove(self, number: int) -> None:
        """Delete a segment that is not written any more."""
        self.path_of(number).unlink(missing_ok=True)
        self._sizes.pop(number, None)
        sync_folder(self.folder)

    def is_compact(self, number: int) -> bool:
        """Whether a segment has been replaced by what is left of it."""
        return self.path_of(number).suffix == _COMPACT

    def replace(self, number: int, records: Sequence[tuple[int, tuple[bytes, ...]]]) -> None:
        """Put a compact file with these records in the place of a segment. Raises `OSError`."""
        path, salt = segment_path(self.folder, number), secrets.randbits(32)
        pieces = [segment_header(salt)]
        for kind, content in records:
            pieces += framed(kind, content, salt)[0]
        part = path.with_suffix(".part")
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            write_all(fd, pieces)
            times = path.stat()
            os.utime(fd, ns=(times.st_atime_ns, times.st_mtime_ns))  # it is no younger for that
            os.fsync(fd)
        finally:
            os.close(fd)
        part.rename(path.with_suffix(_COMPACT))
        sync_folder(self.folder)  # it is there before the other one goes
        self._sizes[number] = sum(map(len, pieces))
        path.unlink(missing_ok=True)
        sync_folder(self.folder)


def segment_numbers(folder: Path) -> list[int]:
    """The numbers of all segments of a worker's folder, oldest first."""
    return sorted(int(path.stem) for path in folder.glob("*.seg") if path.stem.isdigit())


def segment_path(folder: Path, number: int) -> Path:
    """The file of a segment of a worker's folder."""
    return folder / f"{number:010}.seg"


def read_record(path: Path, offset: int) -> Record | None:
    """The record at an offset of a segment; None if the file is gone or the record damaged."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        salt = read_segment_header(os.pread(fd, SEGMENT_HEADER_BYTES, 0))
        header = os.pread(fd, RECORD_HEADER_BYTES, offset)
        length = content_length(header, salt)
        if length is None:
            return None
        data = header + os.pread(fd, length, offset + RECORD_HEADER_BYTES)
    except WrongVersion:
        return None
    finally:
        os.close(fd)
    record = record_at(memoryview(data), 0, salt)
    return record and record._replace(offset=offset)
