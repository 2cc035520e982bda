"""A segment that is written in blocks and in small batches: all of it is read back, as it was."""

import ctypes
import errno
import mmap
import os
import random

import pytest

from fasthook.model import Delivery
from fasthook.spool import segment
from fasthook.spool.erasing import erase
from fasthook.spool.filesystem import MEMORY, MOUNTS, kind_of
from fasthook.spool.journal import Journal, place_of
from fasthook.spool.records import (
    ACCEPTED,
    ERASED,
    PADDING,
    RECORD_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    Damage,
    Record,
    accepted_content,
    accepted_of,
    framed,
    padding,
    record_at,
    scan,
)
from fasthook.spool.segment import BLOCK_BYTES, BUFFER_BYTES, DIRECT_BYTES

LARGE = DIRECT_BYTES + 1000


def batch(*sizes):
    """Contents that differ, of these sizes, in pieces."""
    return [(ACCEPTED, (b"%08d" % size, random.randbytes(size))) for size in sizes]


def held(journal, number=1):
    items = list(journal.replay(number, 0))
    assert all(isinstance(item, Record) for item in items), items
    return [(item.offset, bytes(item.content)) for item in items]


def expected(positions, *batches):
    contents = [b"".join(content) for each in batches for _, content in each]
    return [(place_of(p)[2], content) for p, content in zip(positions, contents, strict=True)]


@pytest.mark.parametrize("syncs", [True, False])
def test_large_and_small_batches_are_read_back_where_they_are_said_to_be(tmp_path, syncs):
    journal = Journal(tmp_path / "0", syncs=syncs)
    sizes = [
        (5,),
        (LARGE,),
        (LARGE, 3),
        (1,),
        (7, 9),
        (BUFFER_BYTES, 40_000),
        (8,) * 9000,
        (2,),
    ]
    sizes += [
        (BUFFER_BYTES - 200, 500, 3 * BUFFER_BYTES, 1),
        (DIRECT_BYTES,),
        (10_000,) * 30,
        (0,),
    ]
    batches = [batch(*each) for each in sizes]
    positions = [position for each in batches for position in journal.write(each)]
    assert held(journal) == expected(positions, *batches)
    for position, (_, content) in zip(positions, expected(positions, *batches), strict=True):
        assert bytes(journal.read(position).content) == content
    number, end = journal.end
    assert (number, end) == (1, journal.path_of(1).stat().st_size)
    assert journal.size_bytes == end
    journal.close()
    again = Journal(tmp_path / "0")
    assert held(again) == expected(positions, *batches)
    (position,) = again.write(batch(LARGE))
    assert place_of(position)[1] == 2
    again.close()


def test_a_batch_ends_and_begins_with_a_block_where_it_is_large(tmp_path):
    journal = Journal(tmp_path / "0")
    journal.write(batch(5))
    assert journal.end[1] == SEGMENT_HEADER_BYTES + RECORD_HEADER_BYTES + 8 + 5, "the control"
    (first,) = journal.write(batch(LARGE))
    assert place_of(first)[2] == BLOCK_BYTES
    (second,) = journal.write(batch(LARGE))
    assert place_of(second)[2] % BLOCK_BYTES == 0
    assert journal.end[1] % BLOCK_BYTES == 0
    journal.close()


def test_padding_takes_no_more_than_it_is_worth(tmp_path):
    journal = Journal(tmp_path / "0")
    asked = 0
    for n in range(300):
        each = batch(*(1000,) * (1 + n * 7 % 90))
        asked += sum(len(b"".join(content)) + RECORD_HEADER_BYTES for _, content in each)
        journal.write(each)
    assert journal.end[1] < 1.07 * asked
    journal.close()


@pytest.mark.parametrize("body_bytes", [278, 1024, 7324, 32_000])
def test_an_event_takes_no_more_of_the_disk_than_it_may(tmp_path, body_bytes):
    """1.15 times the request's bytes and 200, in batches as a service has them under load."""
    head = b"POST /github HTTP/1.1\r\n" + b"X-Header: value of it\r\n" * 20 + b"\r\n"
    journal = Journal(tmp_path / "0")
    events = 0
    for n in range(200):
        made = Delivery("github", "github", "0" * 36, "push", head, b"", 7, "192.0.2.1", 0)
        made.body = b"x" * body_bytes
        content = accepted_content(accepted_of(made, b"k" * 16), made)
        size = 1 + n * 7 % 64
        journal.write([(ACCEPTED, content)] * size)
        events += size
    assert journal.end[1] / events <= 1.15 * (len(head) + body_bytes) + 200
    journal.close()


@pytest.mark.parametrize("gap", [1, RECORD_HEADER_BYTES - 1, RECORD_HEADER_BYTES, 4095])
def test_padding_is_a_record_and_said_to_nobody(gap):
    filler = padding(gap, BLOCK_BYTES, 7)
    assert len(filler) == (gap if gap >= RECORD_HEADER_BYTES else gap + BLOCK_BYTES)
    one, two = (b"".join(framed(ACCEPTED, (b"a", text), 7)[0]) for text in (b"1", b"2"))
    items = list(scan(memoryview(one + filler + two), 7, 0))
    assert [bytes(item.content) for item in items] == [b"a1", b"a2"]
    spoilt = filler[:4] + bytes([filler[4] ^ 1]) + filler[5:]
    items = list(scan(memoryview(one + spoilt + two), 7, 0))
    assert items[1] == Damage(len(one), len(filler)), "the control"
    assert record_at(memoryview(filler), 0, 7).kind == PADDING


def test_a_torn_batch_of_blocks_is_one_damage_to_the_end(tmp_path):
    journal = Journal(tmp_path / "0")
    journal.write(batch(LARGE))
    _, end = journal.end
    (torn,) = journal.write(batch(LARGE))
    journal.close()
    os.truncate(journal.path_of(1), end + 512)
    items = list(journal.replay(1, 0))
    assert items[1:] == [Damage(place_of(torn)[2], 512)]


def test_what_is_forgotten_stays_so_when_more_is_written_behind_it(tmp_path):
    """No block is written twice: else it would come back with what shares its block."""
    journal = Journal(tmp_path / "0")
    secrets = [b"secret-%d-" % n * 1000 for n in range(5)]
    deliveries = [
        Delivery("shop", "none", "e", "push", b"", body, 7, "192.0.2.1", 0) for body in secrets
    ]
    contents = [(ACCEPTED, accepted_content(accepted_of(d, b"k" * 16), d)) for d in deliveries]
    positions = journal.write(contents)
    path = journal.path_of(1)
    assert all(secret in path.read_bytes() for secret in secrets), "the control"
    assert erase(journal, positions) == 5
    for each in (batch(LARGE), batch(7), batch(LARGE)):
        journal.write(each)
    assert not any(secret[:40] in path.read_bytes() for secret in secrets)
    assert [item.kind for item in journal.replay(1, 0)] == [ERASED] * 5 + [ACCEPTED] * 3
    journal.close()


@pytest.mark.patches
@pytest.mark.parametrize("where", ["open", "write"])
def test_a_file_system_that_knows_no_blocks_takes_all_the_same(tmp_path, monkeypatch, where):
    refused = OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    really, writes = (os.open, os.pwrite), []

    def without(path, flags, *more):
        if where == "open" and flags & os.O_DIRECT:
            raise refused
        return really[0](path, flags, *more)

    def pwrite(*arguments):
        writes.append(arguments)
        raise refused

    monkeypatch.setattr(os, "open", without)
    monkeypatch.setattr(os, "pwrite", pwrite)
    journal = Journal(tmp_path / "0")
    batches = [batch(5), batch(LARGE, 2 * BUFFER_BYTES), batch(LARGE)]
    positions = [position for each in batches for position in journal.write(each)]
    assert held(journal) == expected(positions, *batches)
    assert len(writes) == (0 if where == "open" else 4)
    journal.close()


@pytest.mark.patches
def test_a_disk_that_takes_a_part_gets_the_rest(tmp_path, monkeypatch):
    really = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: really(fd, data[:4096], offset))
    journal = Journal(tmp_path / "0")
    batches = [batch(LARGE), batch(LARGE)]
    positions = [position for each in batches for position in journal.write(each)]
    assert held(journal) == expected(positions, *batches)
    journal.close()


@pytest.mark.patches
@pytest.mark.parametrize("call", ["pwrite", "fdatasync"])
def test_a_batch_that_fails_leaves_what_was_before(tmp_path, monkeypatch, call):
    journal = Journal(tmp_path / "0")
    batches = [batch(5), batch(LARGE)]
    positions = [position for each in batches for position in journal.write(each)]
    end = journal.end

    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(OSError, match="Input/output"):
            journal.write(batch(LARGE))
    assert held(journal) == expected(positions, *batches)
    assert journal.path_of(1).stat().st_size == end[1]
    (position,) = journal.write(batch(LARGE))
    assert place_of(position)[1:] == (2, BLOCK_BYTES)
    journal.close()


def resident_bytes(path):
    """Of a file, in the kernel's memory: mincore(2)."""
    size = path.stat().st_size
    pages = ctypes.create_string_buffer(-(-size // mmap.PAGESIZE))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), size) as mapped:
        begin = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        libc = ctypes.CDLL(None, use_errno=True)
        found = libc.mincore(ctypes.c_void_p(begin), ctypes.c_size_t(size), pages)
        assert found == 0, os.strerror(ctypes.get_errno())
        return sum(page & 1 for page in pages.raw) * mmap.PAGESIZE


@pytest.mark.parametrize("syncs", [True, False])
def test_what_is_synced_takes_no_memory_of_the_kernel(tmp_path, syncs):
    if kind_of(tmp_path.resolve(), MOUNTS.read_text()) in MEMORY:
        pytest.skip("what is in memory has no other place")
    journal = Journal(tmp_path / "0", syncs=syncs)
    for n in range(50):
        journal.write([(ACCEPTED, (b"%d" % n * 10_000,))])
    journal.close()
    resident = resident_bytes(journal.path_of(1))
    assert resident < 3 * mmap.PAGESIZE if syncs else resident > 100_000  # the control


@pytest.mark.patches
def test_an_advice_that_is_not_taken_refuses_nothing(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "posix_fadvise", refused)
    journal = Journal(tmp_path / "0")
    (position,) = journal.write([(ACCEPTED, (b"a",))])
    assert bytes(journal.read(position).content) == b"a"


@pytest.mark.patches
def test_large_batches_go_past_the_kernels_memory(tmp_path, monkeypatch):
    if kind_of(tmp_path.resolve(), MOUNTS.read_text()) in MEMORY:
        pytest.skip("what is in memory has no other place")
    monkeypatch.setattr(os, "posix_fadvise", lambda *_: None)
    resident = []
    for at_bytes in (DIRECT_BYTES, 10**9):  # the second is the control
        monkeypatch.setattr(segment, "DIRECT_BYTES", at_bytes)
        journal = Journal(tmp_path / str(at_bytes))
        for _ in range(10):
            journal.write(batch(LARGE))
        journal.close()
        resident.append(resident_bytes(journal.path_of(1)))
    assert resident[0] <= mmap.PAGESIZE
    assert resident[1] > 10 * DIRECT_BYTES
