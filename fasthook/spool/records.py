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
from typing import Final, NamedTuple

import msgspec
from isal.isal_zlib import crc32

from fasthook.errors import FasthookError
from fasthook.model import Delivery, field_values, joined

VERSION: Final = 1
_NAME: Final = b"fasthook"
_SEGMENT: Final = struct.Struct("<8sII")
_RECORD: Final = struct.Struct("<4sBII")
_CHECK: Final = struct.Struct("<I")
_MARKER: Final = b"\xf5\x9a\x0e\xc7"  # no text and no UTF-8, so JSON bodies do not contain it
SEGMENT_HEADER_BYTES: Final = _SEGMENT.size
RECORD_HEADER_BYTES: Final = _RECORD.size + _CHECK.size

ACCEPTED: Final = 1
SETTLED: Final = 2
KINDS: Final = frozenset((ACCEPTED, SETTLED))


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


class Settled(msgspec.Struct, array_like=True, gc=False):
    """What an attempt came to."""

    position: int  # of the accepted record
    handler: str
    kind: str  # see `OutcomeKind`
    attempt: int
    at_ns: int  # wall clock
    is_last: bool  # whether no other handler of the delivery is still to settle
    due_ns: int = 0  # of the next attempt
    error: str = ""


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


_encode = msgspec.msgpack.Encoder().encode
_decode_accepted = msgspec.msgpack.Decoder(Accepted).decode
_decode_settled = msgspec.msgpack.Decoder(Settled).decode
_META_LENGTH = struct.Struct("<I")


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


def accepted_content(accepted: Accepted, delivery: Delivery) -> list[bytes]:
    """The content of an ACCEPTED record, in pieces: nothing large is copied."""
    meta = _encode(accepted)
    return [_META_LENGTH.pack(len(meta)) + meta, delivery.head, delivery.body]


def settled_content(settled: Settled) -> list[bytes]:
    """The content of a SETTLED record."""
    return [_encode(settled)]


def read_accepted(content: memoryview) -> tuple[Accepted, memoryview]:
    """What an ACCEPTED record says, and the bytes of head and body behind it."""
    (length,) = _META_LENGTH.unpack_from(content)
    end = _META_LENGTH.size + length
    return _decode_accepted(content[_META_LENGTH.size : end]), content[end:]


def read_settled(content: memoryview) -> Settled:
    """What a SETTLED record says."""
    return _decode_settled(content)


def read_delivery(content: memoryview) -> Delivery:
    """The delivery of an ACCEPTED record, as it was; without its payloads."""
    accepted, rest = read_accepted(content)
    head = bytes(rest[: accepted.head_bytes])
    return Delivery(
        accepted.endpoint,
        accepted.provider,
        accepted.event_id,
        accepted.event_type,
        head,
        bytes(rest[accepted.head_bytes :]),
        joined(field_values(head)),
        accepted.received_at_ns,
        accepted.client,
        accepted.secret_index,
        (),
        accepted.kind,
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
    if version != VERSION:
        raise WrongVersion(f"its format is version {version}; expected {VERSION}")
    return int(salt)


def framed(kind: int, content: list[bytes], salt: int) -> tuple[list[bytes], int]:
    """Header and content as pieces to write, and how many bytes they are."""
    crc = salt
    length = 0
    for piece in content:
        crc = crc32(piece, crc)
        length += len(piece)
    header = _RECORD.pack(_MARKER, kind, length, crc)
    header += _CHECK.pack(crc32(header, salt))
    return [header, *content], RECORD_HEADER_BYTES + length


def record_at(data: memoryview, offset: int, salt: int) -> Record | None:
    """The record that begins at `offset`, or None if there is no whole one."""
    begin = offset + RECORD_HEADER_BYTES
    if begin > len(data):
        return None
    marker, kind, length, crc = _RECORD.unpack_from(data, offset)
    (check,) = _CHECK.unpack_from(data, offset + _RECORD.size)
    if marker != _MARKER or crc32(data[offset : offset + _RECORD.size], salt) != check:
        return None
    content = data[begin : begin + length]
    if len(content) != length or crc32(content, salt) != crc or kind not in KINDS:
        return None
    return Record(offset, kind, content)


def scan(data: memoryview, salt: int, offset: int) -> Iterator[Record | Damage]:
    """All records from `offset` on, and between them what is none.

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
