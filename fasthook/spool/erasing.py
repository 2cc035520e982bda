"""Erasure: head and body of a stored delivery become zeros, where they are.

The record keeps its place, its length and its header, and what is said of the delivery beside head
and body, so that it is known when it comes again. Until all is zeros the record is damaged; the
FORGOTTEN record, which was written before, says on the next start that it is to be erased.
"""

import os
from collections.abc import Sequence
from typing import Final

from fasthook.logs import log
from fasthook.spool.journal import Journal, place_of, segment_path
from fasthook.spool.records import (
    RECORD_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    SETTLED,
    Record,
    content_length,
    erasable_from,
    read_segment_header,
    read_settled_position,
)

#: What is kept beside head and body is shorter.
_MAX_META_BYTES: Final = 64 * 1024


def erase(journal: Journal, positions: Sequence[int]) -> int:
    """Erase deliveries for good; how many there were to erase. Raises `OSError`.

    Errors may quote them, and so may the keys of their order: records of their attempts go, too.
    """
    positions = [p for p in positions if place_of(p)[0] == journal.worker]
    _blank_settled(journal, frozenset(positions))
    count = 0
    for position in positions:
        _, number, offset = place_of(position)
        try:
            fd = os.open(segment_path(journal.folder, number), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # its segment is gone already
        try:
            if _erase_at(fd, offset):
                count += 1
            else:
                log.error("not erased: no record is there", position=position)
        finally:
            os.close(fd)
    return count


def _blank_settled(journal: Journal, positions: frozenset[int]) -> None:
    first = min((place_of(position)[1] for position in positions), default=0)
    for number in journal.segments():
        if number < first:
            continue
        places = [
            (record.offset + RECORD_HEADER_BYTES, len(record.content))
            for record in journal.replay(number, 0)
            if isinstance(record, Record) and record.kind == SETTLED
            if read_settled_position(record.content) in positions
        ]
        if places:
            fd = os.open(journal.path_of(number), os.O_RDWR | os.O_CLOEXEC)
            try:
                for offset, length in places:
                    os.pwrite(fd, bytes(length), offset)
                os.fdatasync(fd)
            finally:
                os.close(fd)


def _erase_at(fd: int, offset: int) -> bool:
    salt = read_segment_header(os.pread(fd, SEGMENT_HEADER_BYTES, 0))
    length = content_length(os.pread(fd, RECORD_HEADER_BYTES, offset), salt)
    if length is None:
        return False
    offset += RECORD_HEADER_BYTES
    begin = erasable_from(os.pread(fd, min(length, _MAX_META_BYTES), offset))
    if begin is None:
        return False
    os.pwrite(fd, bytes(length - begin), offset + begin)
    os.fdatasync(fd)
    return True
