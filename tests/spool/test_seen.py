"""What was certainly not seen is not looked for; what was is always found."""

import asyncio
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasthook.spool.index import INDEX_NAME, Index
from fasthook.spool.seen import Seen
from fasthook.spool.transaction import transaction
from tests.spool.test_claims import entry, settled, shared, started, workers
from tests.spool.test_keys import keys_of, known, lag_of, until
from tests.spool.test_spool import delivery, run


@given(st.lists(st.binary(max_size=20), max_size=50), st.lists(st.binary(max_size=20)))
def test_what_was_added_may_have_been_seen(added, others):
    seen = Seen()
    seen.begin()
    seen.add(added)
    assert seen.perhaps(others) == others  # nothing is told of what is not whole
    seen.end()
    assert seen.perhaps(added) == added
    assert {key for key in others if key in added} <= set(seen.perhaps(others))


def test_nearly_all_others_were_not_seen():
    seen = Seen()
    seen.begin()
    seen.add([os.urandom(16) for _ in range(1_000_000)])
    seen.end()
    count = len(seen.perhaps([os.urandom(16) for _ in range(100_000)]))
    assert 600 < count < 2500  # 1 in 80 of them


@pytest.mark.parametrize("count", [0, 1, 4095, 4096, 4097, 3 * 4096])
def test_all_that_an_index_finds_is_read(tmp_path, count):
    made = [os.urandom(16) for _ in range(count)]
    index = Index(tmp_path / INDEX_NAME, is_writer=True)
    with transaction(index._connection):
        index.keys.add(made, are_fresh=False)
    index.close()
    index = Index(tmp_path / INDEX_NAME, is_writer=True)
    for _ in range(count // 4096 + 1):
        assert not index.keys.seen.is_whole
        index.keys.see_more()
    assert index.keys.seen.is_whole
    assert index.keys.seen.perhaps(made) == made
    index.close()


def test_before_it_is_begun_nothing_is_added_and_it_takes_no_memory():
    seen = Seen()
    seen.add([b"a"])
    assert not seen.is_begun
    assert not seen._growing
    seen.begin()
    assert seen.is_begun
    seen.end()
    assert seen.perhaps([b"a"]) == []
    seen.stop()
    assert seen.perhaps([b"a"]) == [b"a"]
    assert not seen.is_begun
    assert not seen._growing


def seen_of(harness):
    return keys_of(harness).seen


def test_events_are_known_by_it_fresh_gathered_and_after_a_restart(tmp_path):
    async def first(harness):
        await until(lambda: seen_of(harness).is_whole)
        await harness.commit(*(delivery(f"a{n}") for n in range(5)))
        await until(lambda: not lag_of(harness).keys)
        assert await known(harness, "a0", "a4", "b0") == ["a0", "a4"]
        assert await known(harness, "b0") == ["b0"]

    run(tmp_path, first, fresh_keys=5)

    async def second(harness):
        await until(lambda: seen_of(harness).is_whole)
        assert await known(harness, "a0", "a4", "b0", "c0") == ["a0", "a4", "b0"]

    run(tmp_path, second)


def test_one_that_lacks_some_would_take_them_for_new(tmp_path):
    """The control."""

    async def scenario(harness):
        await harness.commit(delivery("a"))
        await until(lambda: not lag_of(harness).keys)
        seen_of(harness).stop()
        seen_of(harness).begin()
        seen_of(harness).end()
        assert await known(harness, "a") == []

    run(tmp_path, scenario, fresh_keys=1)


async def told_of_another(path) -> list[str]:
    """What a worker takes for known that another one stored, which has ended since."""
    (first, commits), (second, others) = workers(path, 2)
    first.start()
    await until(lambda: first._indexer._index.keys.seen.is_whole)
    await shared(first)
    await started(second)
    second.accept(entry("theirs"))
    await settled([(second, others)], 1)
    await second.close()
    is_alone = asyncio.Event()
    first.be_alone(lambda held: is_alone.set())
    async with asyncio.timeout(10):
        await is_alone.wait()
    await until(lambda: first._indexer._index.keys.seen.is_whole)
    await until(lambda: first._committer._claims is None)
    first.accept(entry("theirs"))
    first.accept(entry("new"))
    await settled([(first, commits)], 2)
    await first.close()
    return [each.token for result in commits for each in result.duplicates]


def test_what_others_have_stored_is_known_when_they_have_ended(tmp_path):
    assert asyncio.run(told_of_another(tmp_path)) == ["theirs"]


@pytest.mark.patches
def test_if_it_were_not_read_anew_theirs_would_be_new(tmp_path, monkeypatch):
    """The control."""
    monkeypatch.setattr("fasthook.spool.keys.Keys.see_no_more", lambda self: None)
    monkeypatch.setattr("fasthook.spool.heir.Heir._take", lambda self, number, claims: False)
    assert asyncio.run(told_of_another(tmp_path)) == []


def test_it_is_read_anew_when_many_are_dropped(tmp_path, monkeypatch):
    monkeypatch.setattr("fasthook.spool.keys._DROPPED", 2)

    async def scenario(harness):
        await until(lambda: seen_of(harness).is_whole)
        for event_id in ("a", "b", "c"):
            (fresh,) = (await harness.commit(delivery(event_id))).fresh
            harness.spool.done("h", fresh.delivery.position)
        await until(lambda: not lag_of(harness).keys)
        index = harness.spool._indexer._index
        await until(lambda: not index.is_open(0))
        gone = [fresh.key]
        assert seen_of(harness).perhaps(gone) == gone
        assert index.forget_before(2**62, 0, 2) == 3
        await until(lambda: seen_of(harness).is_whole)
        assert seen_of(harness).perhaps(gone) == []
        assert await known(harness, "a", "b", "c") == []

    run(tmp_path, scenario, fresh_keys=1)
