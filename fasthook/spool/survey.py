"""How a spool stands: its size, what it holds, how far the index is, and who has it."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from fasthook.spool.changes import State
from fasthook.spool.database import damage_mark
from fasthook.spool.index import INDEX_NAME
from fasthook.spool.journal import segment_numbers, segment_path
from fasthook.spool.queries import Reader

_LOCKS: Final = Path("/proc/locks")


class Segment(NamedTuple):
    """A file of the journal."""

    worker: int
    number: int
    path: Path
    size_bytes: int


class Survey(NamedTuple):
    """How a spool stands."""

    journal_bytes: int
    index_bytes: int
    segments: int
    counts: dict[State, int]
    oldest_pending_s: float | None  # how long ago it was received; None: nothing waits
    behind_bytes: int  # of the journal, that the index does not have yet
    holder: int | None  # the process of the service; None: none runs
    is_index_damaged: bool  # and the next start makes it again


def survey(reader: Reader) -> Survey:
    """Look at everything once. Raises `Unreadable`."""
    path = reader.path
    found = list(segments(path))
    oldest = reader.oldest_pending()
    age_s = None if oldest is None else (time.time_ns() - oldest.received_at_ns) / 1e9
    return Survey(
        journal_bytes=sum(segment.size_bytes for segment in found),
        index_bytes=sum(_size_of(path / (INDEX_NAME + suffix)) for suffix in ("", "-wal")),
        segments=len(found),
        counts=reader.counts(),
        oldest_pending_s=None if age_s is None else max(0.0, age_s),
        behind_bytes=_behind(reader, found),
        holder=holder(path),
        is_index_damaged=damage_mark(path / INDEX_NAME).exists(),
    )


def segments(path: Path) -> Iterator[Segment]:
    """The files of all journals of a spool, oldest first; a running service may drop some."""
    folders = [folder for folder in (path / "journal").glob("*") if folder.name.isdigit()]
    for folder in sorted(folders, key=lambda folder: int(folder.name)):
        for number in segment_numbers(folder):
            file = segment_path(folder, number)
            with contextlib.suppress(FileNotFoundError):
                yield Segment(int(folder.name), number, file, file.stat().st_size)


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _behind(reader: Reader, found: list[Segment]) -> int:
    behind = 0
    for segment in found:
        cursor = reader.cursor(segment.worker)
        if segment.number >= cursor.segment:
            known = cursor.offset if segment.number == cursor.segment else 0
            behind += max(0, segment.size_bytes - known)
    return behind


def holder(path: Path) -> int | None:
    """The process that has a spool's lock; None: nobody.

    Nobody is asked by trying to take it: that would turn a service away which starts just now.
    """
    file = path / "lock"
    try:
        status, text = file.stat(), file.read_text("ascii", "replace").strip()
    except OSError:
        return None
    named = int(text) if text.isdecimal() else -1
    with contextlib.suppress(OSError):  # it is gone, or not ours to look at
        for descriptor in Path(f"/proc/{named}/fd").iterdir():
            with contextlib.suppress(OSError):
                if os.path.samestat(descriptor.stat(), status):
                    return named
    # The one that is named may be in a container, where its number is another.
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with contextlib.suppress(OSError):
        for line in _LOCKS.read_text().splitlines():
            fields = line.split()
            if fields[1] == "FLOCK" and fields[5] == device:
                return int(fields[4])
    return None
