"""What is old goes: whole segments, and where there is no room, what is done before its time.

A segment also says what became of deliveries in segments before it. So they are dropped in order,
and one that has to go before its time leaves all but heads and bodies behind: a compact file in
its place, from which the index can be made again as if nothing had gone.
"""

import time
from typing import Final

from fasthook.spool.changes import State
from fasthook.spool.index import Index
from fasthook.spool.journal import Journal, position_of
from fasthook.spool.records import (
    ACCEPTED,
    BLANK,
    ERASED,
    KEPT,
    Damage,
    kept_content,
    read_accepted,
)

#: Of what the journal may hold: beyond, finished segments are compacted.
FULL: Final = 0.9
_OPEN: Final = (State.PENDING, State.RUNNING)
#: A dead letter may be replayed, so its body stays for its time.
_NEEDED: Final = (*_OPEN, State.DEAD)


def prune(
    index: Index,
    journal: Journal,
    retention_s: float,
    limit_bytes: int,
    *,
    is_left: bool = False,
) -> int:
    """Drop what is older than that, and compact what is more than `limit_bytes`; how many it freed.

    The newest segment stays, unless nobody will go on with it (`is_left`); and whatever the index
    has not taken yet, for it may be open. Raises `OSError`, `apsw.Error`.
    """
    before = journal.size_bytes
    oldest_ns = time.time_ns() - int(retention_s * 1e9)
    indexed = index.cursor(journal.worker).segment
    numbers = journal.segments()
    if not is_left:
        numbers = [number for number in numbers[:-1] if number < indexed]
    old = _old(index, journal, numbers, oldest_ns)
    if old or before > limit_bytes:
        # A power failure may take the index back to before what is done here; not from now on.
        if not index.sync():
            return 0  # somebody reads for long: next time
        for number in old:
            journal.remove(number)
        _make_room(index, journal, numbers[len(old) :], limit_bytes)
    index.forget_before(oldest_ns, journal.worker, min(journal.segments(), default=indexed))
    return before - journal.size_bytes


def _old(index: Index, journal: Journal, numbers: list[int], oldest_ns: int) -> list[int]:
    """Those from the first one on which are old and have nothing open."""
    old: list[int] = []
    for number in numbers:
        written_ns = journal.path_of(number).stat().st_mtime_ns
        if written_ns >= oldest_ns or _has(index, journal, number, _OPEN):
            break
        old.append(number)
    return old


def _make_room(index: Index, journal: Journal, numbers: list[int], limit_bytes: int) -> None:
    for number in numbers:
        if journal.size_bytes <= limit_bytes:
            return
        if not journal.is_compact(number) and not _has(index, journal, number, _NEEDED):
            compact(journal, number)


def _has(index: Index, journal: Journal, number: int, states: tuple[State, ...]) -> bool:
    place = position_of(journal.worker, number, 0), position_of(journal.worker, number + 1, 0)
    return index.has(states, *place)


def compact(journal: Journal, number: int) -> None:
    """Leave of a segment all but heads and bodies. Raises `OSError`."""
    records: list[tuple[int, tuple[bytes, ...]]] = []
    for item in journal.replay(number, 0):
        if isinstance(item, Damage):
            continue  # reported when it was found
        if item.kind in (ACCEPTED, ERASED):
            position = position_of(journal.worker, number, item.offset)
            records.append((KEPT, kept_content(position, read_accepted(item.content)[0])))
        elif item.kind != BLANK:
            records.append((item.kind, (bytes(item.content),)))
    journal.replace(number, records)
