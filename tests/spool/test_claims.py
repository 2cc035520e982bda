"""Several workers on one directory: an event that reaches them all is stored by one."""

import asyncio
import multiprocessing
import time

import pytest

from fasthook.errors import ConfigError
from fasthook.model import Delivery
from fasthook.spool.changes import State
from fasthook.spool.claims import Claims
from fasthook.spool.committer import Entry
from fasthook.spool.indexer import Settings
from fasthook.spool.spool import Spool, key_of

HEAD = b"POST /h HTTP/1.1\r\nHost: a\r\n\r\n"


def entry(event_id: str) -> Entry:
    made = Delivery("shop", "none", event_id, "push", HEAD, b"{}", {}, time.time_ns(), "", 0)
    return Entry(key_of(made, is_id_signed=True), made, True, event_id)


async def settled(spools_and_commits, count: int) -> None:
    """Wait until so many entries have come to something, over all workers."""
    async with asyncio.timeout(10):
        while sum(_size(commits) for _, commits in spools_and_commits) < count:
            await asyncio.sleep(0.001)


def _size(commits) -> int:
    return sum(len(c.fresh) + len(c.duplicates) + len(c.refused) for c in commits)


def workers(path, count: int):
    made = []
    for number in range(count):
        commits: list = []
        spool = Spool(path, Settings(), commits.append, lambda _: None, number, count)
        made.append((spool, commits))
    return made


async def race(path, events: int):
    """The same events at two workers at once; how often each was fresh."""
    pair = workers(path, 2)
    for spool, _ in pair:
        spool.start()
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


@pytest.mark.patches
def test_without_claims_both_would_store_it(tmp_path, monkeypatch):
    monkeypatch.setattr("fasthook.spool.spool._claims", lambda path, worker: (None, None))
    fresh, _ = asyncio.run(race(tmp_path, 500))
    assert len(fresh) > 500


def _worker(path, number, barrier, results):
    async def main():
        commits: list = []
        spool = Spool(path, Settings(), commits.append, lambda _: None, number, 2)
        spool.start()
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
        barrier, results = context.Barrier(2), context.Queue()
        both = [
            context.Process(target=_worker, args=(tmp_path, n, barrier, results)) for n in (0, 1)
        ]
        for process in both:
            process.start()
        fresh = results.get(timeout=30) + results.get(timeout=30)
        for process in both:
            process.join(10)
            assert process.exitcode == 0
        assert len(fresh) == len(set(fresh)) == expected


def test_each_worker_gets_back_its_own(tmp_path):
    async def main():
        pair = workers(tmp_path, 2)
        for number, (spool, _) in enumerate(pair):
            spool.start()
            made = entry(f"of {number}")
            made.runs = False
            spool.accept(made)
        await settled(pair, 2)
        for spool, _ in pair:
            await spool.close()
        found = []
        for number in (0, 1):
            back: list = []
            spool = Spool(tmp_path, Settings(), lambda _: None, back.append, number, 2)
            spool.start()
            async with asyncio.timeout(5):
                while not (back and back[-1].deliveries):
                    spool.read_back(10, 10**6)
                    await asyncio.sleep(0.01)
            found.append([d.event_id for d, _ in back[-1].deliveries])
            assert spool._indexer._index.counts()[State.PENDING] == 1 - number
            await spool.close()
        assert found == [["of 0"], ["of 1"]]

    asyncio.run(main())


def test_a_claim_that_is_not_written_decides_nothing_for_long(tmp_path, monkeypatch):
    """A worker that died in between is not waited for."""
    monkeypatch.setattr("fasthook.spool.spool.STUCK_S", 0.2)

    async def main():
        first = entry("one")
        dead = Claims(tmp_path / "claims.db", 1)
        dead.claim([first.key])
        commits: list = []
        spool = Spool(tmp_path, Settings(), commits.append, lambda _: None, 0, 2)
        spool.start()
        spool.accept(first)
        await settled([(spool, commits)], 1)
        (refusal,) = [c for c in commits if c.refused]
        assert [e.token for e in refusal.refused] == ["one"]
        assert refusal.reason.status == 503
        Claims(tmp_path / "claims.db", 1).reset()  # it starts again
        spool.accept(entry("one"))
        await settled([(spool, commits)], 2)
        assert any(c.fresh for c in commits)
        await spool.close()

    asyncio.run(main())


def test_one_service_alone_has_no_others_beside_it(tmp_path):
    pair = workers(tmp_path, 2)
    with pytest.raises(ConfigError, match="in use"):
        Spool(tmp_path, Settings(), print, print)
    assert len(pair) == 2
