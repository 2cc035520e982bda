"""Erasure: head and body of a stored delivery become zeros, where they are.

The record keeps its place and its length, and what is said of the delivery beside head and body,
so that it is known when it comes again. A crash in between leaves a record that is damaged; the
FORGOTTEN record, which was written before, says on the next start that it is to be erased.
"""

import os
from collections.abc import Iterable
from typing import Final

import msgspec

from fasthook.logs import log
from fasthook.spool.journal import Journal, place_of
from fasthook.spool.records import SEGMENT_HEADER_BYTES, erased_record, read_segment_header

_MAX_META_BYTES: Final = 64 * 1024


def erase(journal: Journal, positions: Iterable[int]) -> int:
    """Erase deliveries for good; how many there were to erase. Raises `OSError`."""
    count = 0
    for position in positions:
        _, number, offset = place_of(position)
        try:
            fd = os.open(journal.path_of(number), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # its segment is gone already
        try:
            salt = read_segment_header(os.pread(fd, SEGMENT_HEADER_BYTES, 0))
            try:
                record = erased_record(os.pread(fd, _MAX_META_BYTES, offset), salt)
            except (ValueError, msgspec.MsgspecError) as error:
                log.error("not erased", position=position, error=str(error))
                continue
            os.pwrite(fd, record, offset)
            os.fdatasync(fd)
            count += 1
        finally:
            os.close(fd)
    return count
