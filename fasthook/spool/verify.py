"""Is a spool whole? Every byte of the journal is read, and each record compared with the index.

A running service goes on meanwhile: what it writes, erases or drops at that time is no damage.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

from fasthook.spool.changes import State
from fasthook.spool.found import Found
from fasthook.spool.index import INDEX_NAME
from fasthook.spool.journal import name_of, place_of, position_of
from fasthook.spool.queries import Reader
from fasthook.spool.records import (
    ACCEPTED,
    BLANK,
    DONE,
    ERASED,
    FORGOTTEN,
    KEPT,
    REPLAYED,
    SEGMENT_HEADER_BYTES,
    SETTLED,
    Accepted,
    Record,
    WrongVersion,
    read_accepted,
    read_segment_header,
    scan,
)
from fasthook.spool.survey import Segment, holder, segments

KIND_NAMES: Final = {
    ACCEPTED: "accepted",
    SETTLED: "settled",
    DONE: "done",
    REPLAYED: "replayed",
    FORGOTTEN: "forgotten",
    ERASED: "erased",
    BLANK: "blank",
    KEPT: "kept",
}
_OPEN: Final = (State.PENDING, State.RUNNING)
_REBUILD: Final = "`fasthook spool rebuild` makes it again"
#: damaged: bytes that are no record. unindexed: a delivery that the index lacks. lost: the index
#: has a delivery whose record is not there. differs: it is there, but says something else.
What = Literal["damaged", "unindexed", "lost", "differs"]


class Finding(NamedTuple):
    """Something that should not be."""

    what: What
    name: str  # of the delivery, or else of the place: WORKER.SEGMENT.OFFSET
    text: str
    length_bytes: int = 0  # of what is damaged


class _Content(NamedTuple):
    """What a segment held when it was read."""

    size_bytes: int
    records: dict[str, int]
    accepted: dict[int, tuple[bytes, int, bool]]  # by position: key, digest of the rest, is erased
    damaged: list[tuple[int, int]]  # offset and length in bytes
    is_foreign: str  # why nothing of it can be read; empty: it can


class Verification:
    """One look at a whole spool. `segments` are to be verified one after the other."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.segments = list(segments(reader.path))
        self.records: Counter[str] = Counter()  # by the name of their kind
        self.dropped = 0  # deliveries that are known, but whose segment is gone: they were old
        self.behind = 0  # deliveries that the index will have in a moment, or after the next start

    def index(self) -> Iterator[Finding]:
        """What SQLite finds wrong with the database itself."""
        for text in self._reader.integrity():
            yield Finding("damaged", INDEX_NAME, f"{text}; {_REBUILD}")

    def gaps(self) -> Iterator[Finding]:
        """Deliveries of segments that are gone: that is good if nothing of them was open."""
        for worker in sorted({segment.worker for segment in self.segments}):
            low = position_of(worker, 0, 0)
            for segment in self.segments:
                if segment.worker == worker:
                    yield from self._gap(low, position_of(worker, segment.number, 0) - 1)
                    low = position_of(worker, segment.number + 1, 0)

    def _gap(self, low: int, high: int) -> Iterator[Finding]:
        for _, row in self._reader.rows(low, high):
            if row.state in _OPEN:
                text = f"its segment is gone, but it is {row.state.name.lower()}"
                yield Finding("lost", row.name, text)
            else:
                self.dropped += 1

    def segment(self, segment: Segment) -> list[Finding]:
        """What is wrong with one segment."""
        is_live = holder(self._reader.path) is not None
        content = self._read(segment)
        if content is not None and content.damaged and is_live:
            content = self._read(segment)  # an erasure may have been half done
        if content is None:
            return []
        if content.is_foreign:
            name = name_of(position_of(segment.worker, segment.number, 0))
            return [Finding("damaged", name, content.is_foreign, content.size_bytes)]
        behind = self.behind
        findings = self._compare(segment, content)
        if not segment.path.exists():  # dropped meanwhile, and its deliveries with it
            self.behind = behind
            return []
        self.records.update(content.records)
        is_written = is_live and segment.number == self._newest(segment.worker)
        return self._damage(segment, content, is_written=is_written) + findings

    def _newest(self, worker: int) -> int:
        return max(s.number for s in self.segments if s.worker == worker)

    def _damage(self, segment: Segment, content: _Content, *, is_written: bool) -> list[Finding]:
        findings = []
        for offset, length in content.damaged:
            is_tail = offset + length == content.size_bytes
            if is_tail and is_written:
                continue
            name = name_of(position_of(segment.worker, segment.number, offset))
            text = f"{length} bytes at offset {offset} of {segment.path.name} are no record"
            if is_tail and segment.number == self._newest(segment.worker):
                text += "; the next start cuts them off"
            findings.append(Finding("damaged", name, text, length))
        return findings

    def _read(self, segment: Segment) -> _Content | None:
        """None: it was dropped meanwhile. Not mapped: a service may cut it while we read."""
        try:
            data = segment.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            return _Content(segment.size_bytes, {}, {}, [], str(error.strerror))
        content = _Content(len(data), Counter(), {}, [], "")
        if len(data) < SEGMENT_HEADER_BYTES:
            return content
        try:
            salt = read_segment_header(data)
        except WrongVersion as error:
            return content._replace(is_foreign=str(error))
        begin = position_of(segment.worker, segment.number, 0)
        for item in scan(memoryview(data), salt, SEGMENT_HEADER_BYTES):
            if isinstance(item, Record):
                content.records[KIND_NAMES[item.kind]] += 1
                if item.kind in (ACCEPTED, ERASED):
                    accepted, _ = read_accepted(item.content)
                    what = accepted.key, _digest(accepted), item.kind == ERASED
                    content.accepted[begin + item.offset] = what
            else:
                content.damaged.append((item.offset, item.length_bytes))
        return content

    def _compare(self, segment: Segment, content: _Content) -> list[Finding]:
        """The records of a segment with the rows of the index."""
        cursor = self._reader.cursor(segment.worker)  # after the records were read: it goes on
        begin = position_of(segment.worker, segment.number, 0)
        findings = []
        unseen = set(content.accepted)
        rows = list(self._reader.rows(begin, begin + content.size_bytes - 1))
        unknown = self._reader.unknown([key for key, _ in rows])
        for key, row in rows:
            unseen.discard(row.position)
            if key in unknown and self._reader.at(row.position) is not None:
                text = "its key is not known, so it would be taken for new if it came again"
                findings.append(Finding("unindexed", row.name, f"{text}; {_REBUILD}"))
            if row.position not in content.accepted:
                findings.append(Finding("lost", row.name, _lost(row)))
            elif text := _difference(content.accepted[row.position], key, row):
                findings.append(Finding("differs", row.name, text))
        indexed = {position for position in unseen if place_of(position)[1:] < cursor}
        self.behind += len(unseen) - len(indexed)
        keys = {position: content.accepted[position][0] for position in indexed}
        missing = self._reader.without_row(keys.values())  # of others came twice
        for position in sorted(indexed):
            if keys[position] in missing:
                text = f"the index does not know it; {_REBUILD}"
                findings.append(Finding("unindexed", name_of(position), text))
        return findings


def _lost(row: Found) -> str:
    return f"no whole record is there; it is {row.state.name.lower()}"


def _digest(of: Accepted | Found) -> int:
    """Short, since a segment may have a hundred thousand of them."""
    return hash((of.endpoint, of.event_id, of.event_type, of.received_at_ns))


def _difference(held: tuple[bytes, int, bool], key: bytes, row: Found) -> str:
    """What the index says that is not in the record; empty: nothing."""
    held_key, digest, is_erased = held
    if (held_key, digest) != (key, _digest(row)):
        return "its record is about another event"
    if is_erased and row.state != State.FORGOTTEN:
        return f"head and body are erased, but it is {row.state.name.lower()}"
    if row.state == State.FORGOTTEN and not is_erased:
        return "it is forgotten, but head and body are still there"
    return ""
