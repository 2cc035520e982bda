"""Records survive, and what is damaged is told from what is whole."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasthook.spool.records import (
    ACCEPTED,
    RECORD_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    SETTLED,
    VERSION,
    Damage,
    Record,
    WrongVersion,
    framed,
    read_segment_header,
    scan,
    segment_header,
)

SALT = 0x1234ABCD


def segment(contents, salt=SALT):
    data = segment_header(salt)
    for content in contents:
        data += b"".join(framed(ACCEPTED, (content,), salt)[0])
    return data


def found(data, salt=SALT):
    items = scan(memoryview(data), salt, SEGMENT_HEADER_BYTES)
    return [bytes(i.content) if isinstance(i, Record) else i for i in items]


def test_segments_of_the_version_before_are_read():
    header = segment_header(SALT)
    for version, is_known in (
        (1, False),
        (2, True),
        (3, True),
        (VERSION, True),
        (VERSION + 1, False),
    ):
        data = header[:8] + struct.pack("<I", version) + header[12:]
        if is_known:
            assert read_segment_header(data) == SALT
        else:
            with pytest.raises(WrongVersion, match=f"version {version}; expected {VERSION}"):
                read_segment_header(data)


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_what_is_written_is_read(contents):
    assert found(segment(contents)) == contents


@given(st.lists(st.binary(min_size=1, max_size=100), min_size=1, max_size=5), st.data())
def test_a_flipped_byte_costs_one_record_and_serves_nothing_wrong(contents, data):
    raw = bytearray(segment(contents))
    at = data.draw(st.integers(SEGMENT_HEADER_BYTES, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    items = found(bytes(raw))
    whole = [item for item in items if isinstance(item, bytes)]
    assert whole in [contents[:i] + contents[i + 1 :] for i in range(len(contents))]
    assert sum(isinstance(item, Damage) for item in items) == 1


@given(st.lists(st.binary(max_size=100), min_size=1, max_size=5), st.data())
def test_a_torn_tail_is_damage_behind_whole_records(contents, data):
    raw = segment(contents)
    cut = data.draw(st.integers(SEGMENT_HEADER_BYTES, len(raw) - 1))
    items = found(raw[:cut])
    whole = [item for item in items if isinstance(item, bytes)]
    assert whole == contents[: len(whole)]
    end = len(segment(whole))
    assert items[len(whole) :] == ([Damage(end, cut - end)] if end < cut else [])


def test_a_record_within_a_body_is_never_served():
    inner = b"".join(framed(ACCEPTED, (b"forged",), 0)[0])
    raw = bytearray(segment([inner, b"next"]))
    raw[SEGMENT_HEADER_BYTES + 20] ^= 1  # the outer one is damaged, so the reader looks on
    assert [item for item in found(bytes(raw)) if isinstance(item, bytes)] == [b"next"]


def test_without_a_secret_salt_it_would_be():
    inner = b"".join(framed(ACCEPTED, (b"forged",), SALT)[0])
    raw = bytearray(segment([inner, b"next"]))
    raw[SEGMENT_HEADER_BYTES] ^= 1
    assert b"forged" in found(bytes(raw))


def test_an_unknown_kind_is_damage():
    raw = segment_header(SALT) + b"".join(framed(99, [b"x"], SALT)[0])
    assert [type(item) for item in found(raw)] == [Damage]
    raw = segment_header(SALT) + b"".join(framed(SETTLED, (b"x",), SALT)[0])
    assert found(raw) == [b"x"]


def test_the_check_sum_is_that_of_zlib():
    import zlib

    first = framed(ACCEPTED, (b"ab", b"c"), SALT)[0][0]
    header = first[:RECORD_HEADER_BYTES]
    _, _, length, crc, check = struct.unpack("<4sBIII", header)
    assert (length, crc) == (3, zlib.crc32(b"abc", SALT))
    assert check == zlib.crc32(header[:-4], SALT)
