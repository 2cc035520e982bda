"""Several workers on one directory: an event that reaches them all is stored by one."""

import asyncio
import multiprocessing
import os
import time

import pytest

from fasthook.errors import ConfigError
from fasthook.model import Delivery
from fasthook.spool.changes import State
from fasthook.spool.claims import Claims
from fasthook.spool.committer import Entry
from fasthook.spool.indexer import Settings
from fasthook.spool.journals import Journals
from fasthook.spool.lock import lock
from fasthook.spool.records import Settled
from fasthook.spool.spool import Place, Spool, key_of

HEAD = b"POST /h HTTP/1.1\r\nHost: a\r\n\r\n"


def entry(event_id: str) -> Entry:
    made = Delivery("shop", "none", event_id, "push", HEAD, b"{}", time.time_ns(), "", 0)
    return Entry(key_of(made, is_id_signed=True), made, True, event_id)


async def settled(spools_and_commits, count: int) -> None:
    """Wait until so many entries have come to something, over all workers."""
    async with asyncio.timeout(10):
        while sum(_size(commits) for _, commits in spools_and_commits) < count:
            await asyncio.sleep(0.001)


def _size(commits) -> int:
    return sum(len(c.fresh) + len(c.duplicates) + len(c.refused) for c in commits)


def workers(path, count: int):
    """The first one comes first: it has the directory alone for a moment."""
    made = []
    for number in range(count):
        commits: list = []
        place = Place(number == 0, count)
        made.append((Spool(path, Settings(), commits.append, lambda _: None, place), commits))
    return made


async def started(spool, *, shares=True) -> None:
    """Start a spool; other workers may get the same events when it returns."""
    spool.start()
    if shares:
        await shared(spool)


async def shared(spool) -> None:
    is_shared = asyncio.Event()
    spool.share(is_shared.set)
    await is_shared.wait()


async def race(path, events: int, *, shares=True):
    """The same events at two workers at once; how often each was fresh."""
    pair = workers(path, 2)
    for spool, _ in pair:
        await started(spool, shares=shares)
    for number in range(events):
        for spool, _ in pair:
            spool.accept(entry(f"e{number}"))
        if number % 7 == 0:
            await asyncio.sleep(0)
    await settled(pair, 2 * events)
    fresh = [e.token for _, commits in pair for c in commits for e in c.fresh]
    refused = [e for _, commits in pair for c in commits for e in c.refused]
    for spool, _ in pair:
        await spool.close()
    return fresh, refused


def test_an_event_at_two_workers_at_once_is_stored_by_one(tmp_path):
    fresh, refused = asyncio.run(race(tmp_path, 500))
    assert sorted(fresh) == sorted(f"e{n}" for n in range(500))
    assert not refused


def test_without_claims_both_would_store_it(tmp_path):
    fresh, _ = asyncio.run(race(tmp_path, 500, shares=False))
    assert len(fresh) > 500


def test_who_begins_to_share_has_claimed_what_the_index_lacks(tmp_path):
    async def main():
        (first, commits), (second, others) = pair = workers(tmp_path, 2)
        first.start()
        first._indexer.take([], lambda _: time.sleep(0.5))  # the index lags
        first.accept(entry("one"))
        await settled([(first, commits)], 1)
        await shared(first)
        await started(second)
        second.accept(entry("one"))
        await settled([(second, others)], 1)
        assert [e.token for c in others for e in c.duplicates] == ["one"]
        for spool, _ in pair:
            await spool.close()

    asyncio.run(main())


def test_who_can_not_share_yet_tries_again(tmp_path, monkeypatch):
    monkeypatch.setattr("fasthook.spool.spool.STUCK_S", 0.1)

    async def main():
        (first, commits), (second, _) = workers(tmp_path, 2)
        (tmp_path / "claims.db").mkdir()
        first.start()
        asyncio.get_running_loop().call_later(0.5, (tmp_path / "claims.db").rmdir)
        began = time.monotonic()
        await shared(first)
        assert time.monotonic() - began >= 0.5
        first.accept(entry("one"))
        await settled([(first, commits)], 1)
        await first.close()
        second.start()
        await second.close()

    asyncio.run(main())


def _worker(path, number, opened, barrier, results):
    async def main():
        commits: list = []
        if number:
            opened.wait(10)
        spool = Spool(path, Settings(), commits.append, lambda _: None, Place(number == 0, 2))
        opened.set()
        await started(spool)
        barrier.wait()
        for event in range(300):
            spool.accept(entry(f"e{event}"))
            if event % 10 == 0:
                await asyncio.sleep(0)
        await settled([(spool, commits)], 300)
        await spool.close()
        results.put([e.token for c in commits for e in c.fresh])

    asyncio.run(main())


def test_and_so_it_is_with_processes_and_after_a_restart(tmp_path):
    context = multiprocessing.get_context("spawn")
    for expected in (300, 0):  # the second time all are known
        opened, barrier, results = context.Event(), context.Barrier(2), context.Queue()
        both = [
            context.Process(target=_worker, args=(tmp_path, n, opened, barrier, results))
            for n in (0, 1)
        ]
        for process in both:
            process.start()
        fresh = results.get(timeout=30) + results.get(timeout=30)
        for process in both:
            process.join(10)
            assert process.exitcode == 0
        assert len(fresh) == len(set(fresh)) == expected


async def brought(spool, back) -> list[str]:
    """Ids of what comes back from disk, once there is some."""
    async with asyncio.timeout(10):
        while not any(each.deliveries for each in back):  # the last one may have brought nothing
            spool.read_back(10, 10**6)
            await asyncio.sleep(0.02)
    found = sorted(d.event_id for each in back for d, _ in each.deliveries)
    back.clear()
    return found


def test_each_worker_gets_back_its_own_and_what_others_left(tmp_path):
    async def main():
        backs, spools = [], []
        for number in (0, 1):
            backs.append([])
            place = Place(number == 0, 2)
            spools.append(Spool(tmp_path, Settings(), lambda _: None, backs[-1].append, place))
            await started(spools[-1])
            for name in "ab":
                made = entry(f"{name}{number}")
                made.runs = False
                spools[-1].accept(made)
        assert await brought(spools[0], backs[0]) == ["a0", "b0"]
        assert await brought(spools[1], backs[1]) == ["a1", "b1"]
        await spools[0].close()
        assert await brought(spools[1], backs[1]) == ["a0", "b0"]
        # What becomes of it is written where it is, so that it is known without an index.
        for event_id, position in _positions(spools[1]).items():
            spools[1].settle(Settled(position, "h", "done", 1, 1, True))
            if event_id == "a1":
                spools[1].settle(Settled(position, "h", "dead", 2, 1, True))
        await spools[1].close()
        (tmp_path / "index.db").unlink()
        again = Spool(tmp_path, Settings(), lambda _: None, lambda _: None)
        assert again.counts[State.PENDING] == 0
        again.start()
        await again.close()

    asyncio.run(main())


@pytest.mark.patches
def test_keys_that_a_worker_left_fresh_are_known_when_its_claims_go(tmp_path, monkeypatch):
    """Killed between the transaction that indexed an event and the one that gathers its key."""

    async def main():
        (first, commits), (second, others) = workers(tmp_path, 2)
        monkeypatch.setattr(first._indexer, "_gather", lambda: None)
        for spool in (first, second):
            await started(spool)
        first.accept(entry("a"))
        await settled([(first, commits)], 1)
        await first.close()
        rows = second._indexer._index._ask("SELECT count(*) FROM fresh_keys")
        assert rows == [(1,)]
        async with asyncio.timeout(10):
            while first.number in second._claims[0].workers():
                await asyncio.sleep(0.02)
        second.accept(entry("a"))
        await settled([(second, others)], 1)
        assert [len(c.duplicates) for c in others] == [1]
        await second.close()

    asyncio.run(main())


def _positions(spool) -> dict[str, int]:
    rows = spool._indexer._index._ask("SELECT event_id, position FROM deliveries")
    return dict(rows)


def test_a_journal_in_which_nothing_is_to_run_is_for_the_next_worker(tmp_path):
    async def main():
        pair = workers(tmp_path, 2)
        for spool, _ in pair:
            await started(spool)
        assert [spool.number for spool, _ in pair] == [0, 1]
        await pair[0][0].close()
        third = Spool(tmp_path, Settings(), print, print, Place(False, 2))
        await started(third)
        assert third.number == 0
        for spool in (third, pair[1][0]):
            await spool.close()

    asyncio.run(main())


@pytest.mark.patches
def test_a_journal_at_rest_is_not_asked_about_again_until_somebody_adds_to_it(tmp_path):
    async def main():
        (first, _), (second, _) = workers(tmp_path, 2)
        await started(first)
        await started(second)
        await second.close()
        heir, index = first._indexer._heir, first._indexer._index
        asked = []

        class Counting:
            def is_open(self, number):
                asked.append(number)
                return index.is_open(number)

            def cursor(self, number):
                return index.cursor(number)

        heir._index = Counting()
        heir._at_rest.clear()
        assert [heir._is_due(1) for _ in range(3)] == [False] * 3
        assert asked == [1]
        (tmp_path / "journal/1/0000000001.seg").write_bytes(b"x" * 50)  # which the index lacks
        assert heir._is_due(1)
        heir._index = index
        (tmp_path / "journal/1/0000000001.seg").unlink()
        await first.close()

    asyncio.run(main())


def test_where_order_counts_positions_go_on_from_the_last_journal(tmp_path):
    async def main():
        spools = [Spool(tmp_path, Settings(), print, print)]
        for _ in range(3):
            spools.append(Spool(tmp_path, Settings(), print, print, Place(False, 1)))
        assert [spool.number for spool in spools] == [0, 1, 2, 3]
        for spool in spools:
            spool.start()
            await spool.close()

    asyncio.run(main())


def test_a_claim_that_is_not_written_decides_nothing_for_long(tmp_path, monkeypatch):
    """A worker that died in between is not waited for."""
    monkeypatch.setattr("fasthook.spool.spool.STUCK_S", 0.2)

    async def main():
        first = entry("one")
        dead = Claims(tmp_path / "claims.db", 1)
        dead.claim([first.key])
        commits: list = []
        spool = Spool(tmp_path, Settings(), commits.append, lambda _: None, Place(True, 2))
        alive = Journals(tmp_path)
        alive.hold(1)
        await started(spool)
        spool.accept(first)
        await settled([(spool, commits)], 1)
        (refusal,) = [c for c in commits if c.refused]
        assert [e.token for e in refusal.refused] == ["one"]
        assert refusal.reason.status == 503
        alive.close()  # it has died: what it claimed is claimed no more
        async with asyncio.timeout(10):
            while not any(c.fresh for c in commits):
                spool.accept(entry("one"))
                await asyncio.sleep(0.1)
        await spool.close()

    asyncio.run(main())


def test_one_service_alone_has_the_directory(tmp_path):
    held = lock(tmp_path)
    with pytest.raises(ConfigError, match=f"in use by another fasthook .process {os.getpid()}"):
        lock(tmp_path)
    os.close(held)
    os.close(lock(tmp_path))
