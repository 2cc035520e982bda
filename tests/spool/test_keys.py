"""Events are known again wherever their keys are: in memory, fresh in the index, and gathered."""

import asyncio
import time
from hashlib import blake2b

import pytest
from xxhash import xxh3_128_digest

from fasthook.model import Delivery
from fasthook.spool.index import INDEX_NAME, Index
from fasthook.spool.pruning import prune
from fasthook.spool.spool import key_of
from tests.spool.test_spool import delivery, run


async def until(is_so):
    async with asyncio.timeout(5):
        while not is_so():
            await asyncio.sleep(0.01)


def keys_of(harness):
    return harness.spool._indexer._index.keys


def lag_of(harness):
    return harness.spool._committer._lag


async def known(harness, *event_ids):
    """Which of them are told from new ones."""
    result = await harness.commit(*map(delivery, event_ids))
    assert len(result.fresh) + len(result.duplicates) == len(event_ids)
    return sorted(entry.token for entry in result.duplicates)


def test_fresh_keys_are_known_and_many_are_gathered_at_once(tmp_path):
    async def first(harness):
        await harness.commit(*(delivery(f"a{n}") for n in range(4)))
        await until(lambda: not lag_of(harness).unindexed)
        assert len(keys_of(harness).fresh) == 4  # too few
        assert await known(harness, "a0", "a3", "b0") == ["a0", "a3"]
        await until(lambda: not lag_of(harness).keys)  # the fifth has come
        assert keys_of(harness).fresh == []
        assert await known(harness, "a1", "b0", "c0") == ["a1", "b0"]

    run(tmp_path, first, fresh_keys=5)

    async def second(harness):
        assert len(lag_of(harness).keys) == len(keys_of(harness).fresh) == 1
        assert await known(harness, "a2", "c0", "d0") == ["a2", "c0"]

    run(tmp_path, second)


def test_without_the_fresh_ones_in_memory_they_would_be_new_after_a_restart(tmp_path):
    """The control."""

    async def first(harness):
        assert await known(harness, "a", "b") == []

    run(tmp_path, first)

    async def second(harness):
        lag_of(harness).keys.clear()
        assert await known(harness, "a", "b") == []

    run(tmp_path, second)


def test_what_is_dropped_is_new_again_fresh_or_gathered(tmp_path):
    async def scenario(harness):
        spool, keys = harness.spool, keys_of(harness)
        for event_id in ("gathered", "fresh"):
            (entry,) = (await harness.commit(delivery(event_id))).fresh
            await until(lambda: not lag_of(harness).unindexed)
            spool.done("h", entry.delivery.position)
            if event_id == "gathered":
                keys.gather()
        await until(lambda: not harness.spool._indexer._index.is_open(0))
        assert await known(harness, "gathered", "fresh") == ["fresh", "gathered"]
        before_ns = time.time_ns()
        assert spool._indexer._index.forget_before(before_ns, 0, 2) == 2
        await until(lambda: not lag_of(harness).keys)
        assert await known(harness, "gathered", "fresh") == []

    run(tmp_path, scenario)


def test_an_index_that_is_read_again_leaves_out_what_it_has_fresh_or_gathered(tmp_path):
    """As after a crash that took the cursor with it."""

    async def scenario(harness):
        for event_id in ("gathered", "fresh"):
            await harness.commit(delivery(event_id))
            await until(lambda: not lag_of(harness).unindexed)
            if event_id == "gathered":
                keys_of(harness).gather()

    run(tmp_path, scenario)
    index = Index(tmp_path / INDEX_NAME, is_writer=True)
    index._ask("UPDATE cursors SET segment = 0, offset = 0")
    index._ask("UPDATE deliveries SET position = position + 1")  # else the row would be the same
    index.close()

    async def again(harness):
        rows = harness.spool._indexer._index._ask("SELECT event_id FROM deliveries")
        assert sorted(rows) == [("fresh",), ("gathered",)]

    run(tmp_path, again)


def test_dropping_nothing_gathers_nothing(tmp_path):
    async def scenario(harness):
        await harness.commit(delivery("a"))
        await until(lambda: not lag_of(harness).unindexed)
        prune(harness.spool._indexer._index, harness.spool._journals.own, 10**6, 10**9)
        assert len(keys_of(harness).fresh) == 1

    run(tmp_path, scenario)


@pytest.mark.parametrize("is_id_signed", [True, False])
def test_a_key_is_what_it_was_in_every_version(is_id_signed):
    """They are kept for as long as deliveries are: another key for the same one, and it is new."""
    body = b'{"a": 1}'
    found = Delivery("shöp", "none", "é-1", "push", b"", body, 7, "192.0.2.1", 0)
    digest = b"" if is_id_signed else xxh3_128_digest(body)
    text = b"5 " + "shöp".encode() + b" 4 " + "é-1".encode() + b" " + digest
    assert key_of(found, is_id_signed=is_id_signed) == blake2b(text, digest_size=16).digest()
