"""A segment file as bytes: how records are framed, and how they are read back, whole or damaged.

    segment = "fasthook" version:u32 salt:u32, then records
    record  = marker:u32 kind:u8 length:u32 crc:u32 check:u32, then `length` bytes of content

All numbers are little-endian; CRC-32 is that of zlib (RFC 1952 §8). `crc` covers the content,
`check` the header before it. Both start from the segment's salt, which nobody outside knows: else
a sender could put a whole record into a body, to be found when a damaged neighbour makes the
reader look for the next one, or thousands of headers that each make it check a megabyte.
"""

import struct
from collections.abc import Iterator
from typing import Any, Final, Literal, NamedTuple

import msgspec
from isal.isal_zlib import crc32

from fasthook.errors import FasthookError
from fasthook.model import Delivery

VERSION: Final = 4
#: Version 2 knew less of what can become of a delivery, 3 no padding; both are read the same.
_READ_VERSIONS: Final = (2, 3, VERSION)
_NAME: Final = b"fasthook"
_SEGMENT: Final = struct.Struct("<8sII")
_RECORD: Final = struct.Struct("<4sBII")
_CHECK: Final = struct.Struct("<I")
_MARKER: Final = b"\xf5\x9a\x0e\xc7"  # no text and no UTF-8, so JSON bodies do not contain it
SEGMENT_HEADER_BYTES: Final = _SEGMENT.size
RECORD_HEADER_BYTES: Final = _RECORD.size + _CHECK.size

ACCEPTED: Final = 1  # a delivery
SETTLED: Final = 2  # what one attempt came to
DONE: Final = 3  # deliveries that their only handler did at the first attempt: nearly all of them
REPLAYED: Final = 4  # deliveries that are to run once more
FORGOTTEN: Final = 5  # deliveries whose head and body are to be gone for good
KEPT: Final = 6  # what is said of a delivery whose segment was dropped before its time
PADDING: Final = 7  # zeros, up to where the disk has its next block
KINDS: Final = frozenset((ACCEPTED, SETTLED, DONE, REPLAYED, FORGOTTEN, KEPT, PADDING))
#: What an ACCEPTED record is read as when its head and body are zeros.
ERASED: Final = 100
#: What any other record is read as when all of it is zeros: it quoted what was to be forgotten.
BLANK: Final = 101


class WrongVersion(FasthookError):
    """A segment that another version of fasthook wrote, or that is none."""


class Accepted(msgspec.Struct, array_like=True, gc=False):
    """What is kept of a delivery beside its head and body."""

    key: bytes  # by which it is known when it comes again
    endpoint: str
    provider: str
    event_id: str
    event_type: str
    received_at_ns: int  # wall clock
    client: str
    secret_index: int
    kind: str  # see `Delivery`
    head_bytes: int


#: What an attempt came to; or that the event waits behind others of its key; or that the worker
#: died in the attempt; or that the handler does not want it (skip), or not yet (hold); or that a
#: newer one runs in its place.
SettledKind = Literal["done", "retry", "dead", "wait", "crash", "skip", "hold", "superseded"]


class Settled(msgspec.Struct, array_like=True, gc=False):
    """What became of a delivery at one of its handlers."""

    position: int  # of the accepted record
    handler: str
    kind: SettledKind
    attempt: int
    at_ns: int  # wall clock
    leaves: bool  # memory: no other handler has the delivery in line or in hand
    due_ns: int = 0  # of the next attempt, wall clock
    error: str = ""  # or why it was skipped, or by what it was superseded
    order_key: str = ""  # events of one handler with the same one run one after the other
    since_ns: int = 0  # of what is held: receipt of the first event that it stands for


class Done(msgspec.Struct, array_like=True, gc=False):
    """Deliveries that their only handler did at the first attempt."""

    handler: str
    at_ns: int  # wall clock
    positions: list[int]


class Replayed(msgspec.Struct, array_like=True, gc=False):
    """Deliveries that are to run once more."""

    at_ns: int  # wall clock
    handler: str  # that one alone; "": all of a delivery that is done, the failed ones of a dead
    positions: list[int]


class Forgotten(msgspec.Struct, array_like=True, gc=False):
    """Deliveries whose head and body are to be gone for good."""

    at_ns: int  # wall clock
    positions: list[int]


class Record(NamedTuple):
    """One whole record of a segment."""

    offset: int  # of its header, in bytes
    kind: int
    content: memoryview

    @property
    def end(self) -> int:
        """Where the next record begins."""
        return self.offset + RECORD_HEADER_BYTES + len(self.content)


class Damage(NamedTuple):
    """Bytes of a segment that are no record."""

    offset: int
    length_bytes: int


Later = Settled | Done | Replayed | Forgotten
#: Everything that is said of deliveries after they were accepted.
LATER_KINDS: Final[dict[type[Any], int]] = {
    Settled: SETTLED,
    Done: DONE,
    Replayed: REPLAYED,
    Forgotten: FORGOTTEN,
}
_encode = msgspec.msgpack.Encoder().encode
_decode_accepted = msgspec.msgpack.Decoder(Accepted).decode
_decode_settled = msgspec.msgpack.Decoder(Settled).decode
_DECODE_LATER: Final = {
    kind: msgspec.msgpack.Decoder(type_).decode for type_, kind in LATER_KINDS.items()
}
#: Length and CRC-32 of what is kept beside head and body: it outlives them.
_META = struct.Struct("<II")
_POSITION = struct.Struct("<q")


def accepted_of(delivery: Delivery, key: bytes) -> Accepted:
    """What is kept of a delivery beside its head and body."""
    return Accepted(
        key,
        delivery.endpoint,
        delivery.provider,
        delivery.event_id,
        delivery.event_type,
        delivery.received_at_ns,
        delivery.client,
        delivery.secret_index,
        delivery.kind,
        len(delivery.head),
    )


def accepted_content(accepted: Accepted, delivery: Delivery) -> tuple[bytes, ...]:
    """The content of an ACCEPTED record, in pieces: nothing large is copied."""
    meta = _encode(accepted)
    return _META.pack(len(meta), crc32(meta)) + meta, delivery.head, delivery.body


def kept_content(position: int, accepted: Accepted) -> tuple[bytes]:
    """The content of a KEPT record."""
    return (_POSITION.pack(position) + _encode(accepted),)


def read_kept(content: memoryview) -> tuple[int, Accepted]:
    """Position of the delivery, and what a KEPT record says of it."""
    (position,) = _POSITION.unpack_from(content)
    return position, _decode_accepted(content[_POSITION.size :])


def later_record(later: Later) -> tuple[int, tuple[bytes, ...]]:
    """Kind and content of what is said of accepted deliveries."""
    return LATER_KINDS[type(later)], (_encode(later),)


def read_accepted(content: memoryview) -> tuple[Accepted, memoryview]:
    """What an ACCEPTED or ERASED record says, and the bytes of head and body behind it."""
    end = _META.size + _META.unpack_from(content)[0]
    return _decode_accepted(content[_META.size : end]), content[end:]


def read_settled_position(content: memoryview) -> int:
    """Of which delivery a SETTLED record speaks."""
    return _decode_settled(content).position


def read_later(kind: int, content: memoryview) -> Later:
    """What a record of one of the LATER_KINDS says."""
    return _DECODE_LATER[kind](content)  # type: ignore[no-any-return]


def read_delivery(content: memoryview) -> Delivery:
    """The delivery of an ACCEPTED record, as it was; without its payloads."""
    accepted, rest = read_accepted(content)
    return Delivery(
        accepted.endpoint,
        accepted.provider,
        accepted.event_id,
        accepted.event_type,
        bytes(rest[: accepted.head_bytes]),
        bytes(rest[accepted.head_bytes :]),
        accepted.received_at_ns,
        accepted.client,
        accepted.secret_index,
        (),
        accepted.kind,
        key=accepted.key,
    )


# --- framing --------------------------------------------------------------------------------------


def segment_header(salt: int) -> bytes:
    """The first bytes of a segment."""
    return _SEGMENT.pack(_NAME, VERSION, salt)


def read_segment_header(data: bytes | memoryview) -> int:
    """The salt of a segment. Raises `WrongVersion`."""
    if len(data) < SEGMENT_HEADER_BYTES:
        raise WrongVersion("it has no header")
    name, version, salt = _SEGMENT.unpack_from(data)
    if name != _NAME:
        raise WrongVersion("it is no segment of fasthook")
    if version not in _READ_VERSIONS:
        raise WrongVersion(f"its format is version {version}; expected {VERSION}")
    return int(salt)


def framed(kind: int, content: tuple[bytes, ...], salt: int) -> tuple[tuple[bytes, ...], int]:
    """Header and content as pieces to write, and how many bytes they are."""
    crc, length = salt, 0
    for piece in content:
        crc = crc32(piece, crc)
        length += len(piece)
    header = _RECORD.pack(_MARKER, kind, length, crc)
    # The first piece is small: one less to write is worth copying it.
    first = header + _CHECK.pack(crc32(header, salt)) + content[0]
    return (first, *content[1:]), RECORD_HEADER_BYTES + length


def padding(size_bytes: int, block_bytes: int, salt: int) -> bytes:
    """A record of this size, or a block more where that is too little for one."""
    if size_bytes < RECORD_HEADER_BYTES:
        size_bytes += block_bytes
    return b"".join(framed(PADDING, (bytes(size_bytes - RECORD_HEADER_BYTES),), salt)[0])


def content_length(header: bytes | memoryview, salt: int) -> int | None:
    """How long the content behind a record's header is, in bytes; None if it is no header."""
    if len(header) < RECORD_HEADER_BYTES:
        return None
    marker, kind, length, _ = _RECORD.unpack_from(header)
    (check,) = _CHECK.unpack_from(header, _RECORD.size)
    if marker != _MARKER or crc32(header[: _RECORD.size], salt) != check or kind not in KINDS:
        return None
    return int(length)


def record_at(data: memoryview, offset: int, salt: int) -> Record | None:
    """The record that begins at `offset`, or None if there is no whole one."""
    begin = offset + RECORD_HEADER_BYTES
    length = content_length(data[offset:begin], salt)
    if length is None:
        return None
    _, kind, _, crc = _RECORD.unpack_from(data, offset)
    content = data[begin : begin + length]
    if len(content) != length:
        return None
    if crc32(content, salt) != crc:
        if not _is_erased(kind, content):
            return None
        kind = ERASED if kind == ACCEPTED else BLANK
    return Record(offset, kind, content)


def _is_erased(kind: int, content: memoryview) -> bool:
    """Whether nothing of the content is left but what is kept beside head and body."""
    begin = erasable_from(content) if kind == ACCEPTED else 0
    return begin is not None and bytes(content[begin:]) == bytes(len(content) - begin)


def erasable_from(content: memoryview | bytes) -> int | None:
    """Where head and body begin in the content of an ACCEPTED record, whatever became of them;
    None if what stands before them is damaged.
    """
    if len(content) < _META.size:
        return None
    length, crc = _META.unpack_from(content)
    end: int = _META.size + length
    meta = content[_META.size : end]
    return end if len(meta) == length and crc32(meta) == crc else None


def scan(data: memoryview, salt: int, offset: int) -> Iterator[Record | Damage]:
    """All records from `offset` on but for padding, and between them what is none.

    Damage at the end is a torn tail, or a record whose end was never written.
    """
    end = len(data)
    while offset < end:
        record = record_at(data, offset, salt)
        if record is None:
            following = _next_record(data, offset + 1, salt)
            yield Damage(offset, following - offset)
            offset = following
        else:
            if record.kind != PADDING:
                yield record
            offset = record.end


def _next_record(data: memoryview, offset: int, salt: int) -> int:
    """Where the next whole record begins; the end of the data if nowhere."""
    whole = data.obj
    find = whole.find if hasattr(whole, "find") else bytes(data).find
    while True:
        offset = find(_MARKER, offset)
        if offset < 0:
            return len(data)
        if record_at(data, offset, salt) is not None:
            return offset
        offset += 1
