"""Journal, index and spool on a real disk."""

import asyncio
import errno
import os
import stat
import time

import apsw
import pytest

from fasthook.model import Delivery
from fasthook.spool.changes import Cursor, State
from fasthook.spool.committer import Entry
from fasthook.spool.indexer import Settings
from fasthook.spool.journal import Journal
from fasthook.spool.pruning import prune
from fasthook.spool.records import ACCEPTED, Damage, Settled
from fasthook.spool.spool import Spool, key_of

HEAD = b"POST /h HTTP/1.1\r\nHost: a\r\nX-Twice: 1\r\nX-Twice: 2\r\n\r\n"


def delivery(event_id="e1", body=b"{}"):
    return Delivery("shop", "none", event_id, "push", HEAD, body, 7, "192.0.2.1", 0)


class Harness:
    def __init__(self, path, **options):
        self.commits, self.back = [], []
        self.spool = Spool(path, Settings(**options), self.commits.append, self.back.append)

    async def commit(self, *deliveries, runs=True):
        seen = len(self.commits)
        for d in deliveries:
            self.spool.accept(Entry(key_of(d, is_id_signed=True), d, runs, d.event_id))
        async with asyncio.timeout(5):
            while len(self.commits) == seen:
                await asyncio.sleep(0.001)
        return self.commits[-1]

    async def due(self, count=100):
        self.spool.read_back(count, 10**9)
        async with asyncio.timeout(5):
            while not self.back:
                await asyncio.sleep(0.001)
        return self.back.pop()


def run(path, scenario, **options):
    async def main():
        harness = Harness(path, **options)
        harness.spool.start()
        try:
            return await scenario(harness)
        finally:
            await harness.spool.close()

    return asyncio.run(main())


def test_a_batch_is_stored_read_back_and_known_again(tmp_path):
    async def first(harness):
        result = await harness.commit(*(delivery(f"e{i}", b'{"n":%d}' % i) for i in range(50)))
        assert [e.token for e in result.fresh] == [f"e{i}" for i in range(50)]
        for entry in result.fresh[:20]:
            harness.spool.settle(Settled(entry.delivery.position, "h", "done", 1, 9, True))

    run(tmp_path / "s", first)

    async def second(harness):
        assert harness.spool.counts[State.PENDING] == 30
        again = await harness.commit(delivery("e3"), delivery("e40"), delivery("new"))
        assert {e.token for e in again.duplicates} == {"e3", "e40"}
        found = await harness.due()
        assert [d.event_id for d, _ in found.deliveries] == [f"e{i}" for i in range(20, 50)]
        assert found.is_all
        d = found.deliveries[0][0]
        assert (d.body, d.head, d.headers[b"x-twice"]) == (b'{"n":20}', HEAD, b"1, 2")

    run(tmp_path / "s", second)


def test_the_same_event_many_times_at_once_is_stored_once(tmp_path):
    async def scenario(harness):
        result = await harness.commit(*(delivery("one") for _ in range(100)))
        assert (len(result.fresh), len(result.duplicates)) == (1, 99)

    run(tmp_path / "s", scenario)


def test_a_deleted_index_is_made_again(tmp_path):
    async def store(harness):
        await harness.commit(delivery("a"), delivery("b"))

    run(tmp_path, store)
    for file in tmp_path.glob("index.db*"):
        file.unlink()

    async def again(harness):
        assert harness.spool.counts[State.PENDING] == 2
        assert len((await harness.commit(delivery("a"))).duplicates) == 1

    run(tmp_path, again)


@pytest.fixture
def one_failing_sync(monkeypatch):
    real, left = os.fdatasync, [1]

    def sync(fd):
        if left:
            left.pop()
            raise OSError(errno.EIO, "Input/output error")
        real(fd)

    monkeypatch.setattr(os, "fdatasync", sync)


@pytest.mark.usefixtures("one_failing_sync")
def test_without_syncs_a_failing_one_would_go_unnoticed(tmp_path):
    async def scenario(harness):
        assert len((await harness.commit(delivery("a"))).fresh) == 1

    run(tmp_path, scenario, durability="os")


@pytest.mark.usefixtures("one_failing_sync")
@pytest.mark.patches
def test_a_failing_sync_refuses_its_batch_and_nothing_after_it(tmp_path, monkeypatch):
    monkeypatch.setattr("fasthook.spool.committer._PAUSE_S", 0.0)

    async def scenario(harness):
        failed = await harness.commit(delivery("a"))
        assert (failed.fresh, len(failed.refused), failed.reason.status) == ([], 1, 503)
        assert len((await harness.commit(delivery("a"))).fresh) == 1  # in a new segment

    run(tmp_path, scenario)

    async def after(harness):
        assert harness.spool.counts[State.PENDING] == 1

    run(tmp_path, after)


def test_a_full_spool_refuses(tmp_path):
    async def scenario(harness):
        await harness.commit(delivery("a", b"x" * 200))
        assert (await harness.commit(delivery("b"))).reason.status == 503

    run(tmp_path, scenario, max_bytes=100)


def test_states_attempts_and_dead_letters_survive(tmp_path):
    async def scenario(harness):
        result = await harness.commit(*(delivery(x) for x in "abc"))
        a, b, c = (e.delivery.position for e in result.fresh)
        harness.spool.settle(Settled(a, "h", "dead", 1, 9, True, 0, "broken"))
        harness.spool.settle(Settled(b, "h", "retry", 1, 9, True, 1, "later"))
        harness.spool.settle(Settled(c, "h", "retry", 2, 9, True, 2**62, "much later"))

    run(tmp_path, scenario)

    async def after(harness):
        assert harness.spool.counts[State.PENDING] == 2
        found = await harness.due()
        assert [(d.event_id, p[0].attempt) for d, p in found.deliveries] == [("b", 1)]
        assert harness.spool._indexer._index.counts()[State.DEAD] == 1

    run(tmp_path, after)


def test_a_directory_is_private(tmp_path):
    async def scenario(harness):
        await harness.commit(delivery())

    run(tmp_path / "s", scenario)
    for path in (tmp_path / "s").rglob("*"):
        wanted = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path


@pytest.mark.patches
def test_damage_in_the_middle_costs_one_record(tmp_path):
    journal = Journal(tmp_path / "0")
    _, second, third = journal.write([(ACCEPTED, [b"a" * 50, x]) for x in (b"1", b"2", b"3")])
    raw = bytearray(journal.path_of(1).read_bytes())
    raw[raw.index(b"a" * 50 + b"2")] ^= 1
    journal.path_of(1).write_bytes(raw)
    assert journal.read(second) is None
    assert bytes(journal.read(third).content) == b"a" * 50 + b"3"
    assert [isinstance(item, Damage) for item in journal.replay(1, 0)] == [False, True, False]
    journal.close()


def test_a_torn_tail_is_cut_and_what_is_whole_stays(tmp_path):
    async def store(harness):
        await harness.commit(delivery("a"), delivery("b"))

    run(tmp_path, store)
    (file,) = tmp_path.glob("journal/0/*.seg")
    size = file.stat().st_size
    os.truncate(file, size - 3)
    for index in tmp_path.glob("index.db*"):
        index.unlink()

    async def after(harness):
        assert harness.spool.counts[State.PENDING] == 1
        assert len((await harness.commit(delivery("b"))).fresh) == 1

    run(tmp_path, after)
    assert file.stat().st_size < size - 3


def test_a_record_that_is_damaged_later_is_set_apart(tmp_path):
    async def store(harness):
        await harness.commit(delivery("a", b"AAAA"), delivery("b", b"BBBB"))

    run(tmp_path, store)
    (file,) = tmp_path.glob("journal/0/*.seg")
    file.write_bytes(file.read_bytes().replace(b"AAAA", b"AAXA"))

    async def after(harness):
        found = await harness.due()
        assert [d.event_id for d, _ in found.deliveries] == ["b"]
        assert harness.spool._indexer._index.counts()[State.RUNNING] == 1

    run(tmp_path, after)


@pytest.mark.patches
def test_old_segments_are_dropped_unless_something_in_them_is_open(tmp_path):
    async def store(event_id, kind):
        async def scenario(harness):
            (entry,) = (await harness.commit(delivery(event_id))).fresh
            if kind:
                position = entry.delivery.position
                harness.spool.settle(Settled(position, "h", kind, 1, 9, True, 0, "x"))

        return scenario

    for event_id, kind in (("done", "done"), ("open", ""), ("dead", "dead"), ("last", "done")):
        run(tmp_path, asyncio.run(store(event_id, kind)))
    assert len(list(tmp_path.glob("journal/0/*.seg"))) == 4

    async def look(harness):
        index, journal = harness.spool._indexer._index, harness.spool._journals.own
        with pytest.MonkeyPatch.context() as behind:  # what the index lacks may be open
            behind.setattr(index, "cursor", lambda worker: Cursor(0, 0))
            prune(index, journal, 0, 10**9)
        assert journal.segments() == [1, 2, 3, 4]
        prune(index, journal, 0, 10**9)
        # In order: what comes after an open one may say what became of those beside it.
        assert journal.segments() == [2, 3, 4]
        while harness.spool._committer._lag.keys:  # until the index tells what it has gathered
            await asyncio.sleep(0.01)
        result = await harness.commit(delivery("done"), delivery("open"))
        assert [e.token for e in result.duplicates] == ["open"]

    run(tmp_path, look)


def test_a_full_spool_drops_bodies_of_what_is_done_before_its_time_and_nothing_else(tmp_path):
    for event_id, kind in (("done", "done"), ("dead", "dead"), ("last", "done")):

        async def scenario(harness, event_id=event_id, kind=kind):
            recent = delivery(event_id, b"x" * 5000)
            recent.received_at_ns = time.time_ns()
            (entry,) = (await harness.commit(recent)).fresh
            harness.spool.settle(Settled(entry.delivery.position, "h", kind, 1, 9, True, 0, "x"))

        run(tmp_path, scenario)

    async def look(harness):
        index, journal = harness.spool._indexer._index, harness.spool._journals.own
        assert prune(index, journal, 3600, 1) > 4000
        assert journal.segments() == [1, 2, 3]
        assert journal.is_compact(1)
        assert not journal.is_compact(2)  # a dead letter may be replayed
        assert len((await harness.commit(delivery("done"))).duplicates) == 1

    run(tmp_path, look)
    for file in tmp_path.glob("index.db*"):
        file.unlink()

    async def again(harness):
        counts = harness.spool.counts
        assert (counts[State.PENDING], counts[State.DEAD]) == (0, 1)
        assert len((await harness.commit(delivery("done"))).duplicates) == 1
        assert prune(harness.spool._indexer._index, harness.spool._journals.own, 0, 10**9) > 0
        assert harness.spool._journals.own.segments() == [3]  # at its time it goes like the others

    run(tmp_path, again)


@pytest.mark.patches
def test_an_index_that_fails_holds_nothing_up_and_catches_up(tmp_path, monkeypatch):
    async def scenario(harness):
        real = harness.spool._indexer._index.apply
        monkeypatch.setattr("fasthook.spool.indexer._RETRY_S", 0.01)
        failures = []

        def failing(*args, **options):
            failures.append(1)
            raise apsw.FullError("database or disk is full")

        harness.spool._indexer._index.apply = failing
        await harness.commit(delivery("a"))
        while len(failures) < 2:
            await asyncio.sleep(0.01)
        again = await harness.commit(delivery("a"), delivery("b"))
        assert [len(again.fresh), len(again.duplicates)] == [1, 1]
        harness.spool._indexer._index.apply = real
        while harness.spool._committer._lag.unindexed:
            await asyncio.sleep(0.01)
        key = key_of(delivery("a"), is_id_signed=True)
        assert key in harness.spool._indexer._index.keys.fresh

    run(tmp_path, scenario)


def test_what_is_not_for_the_journal_does_not_move_the_cursor_back(tmp_path):
    """Else the next start reads a segment twice, and counts the deaths of workers in it twice."""

    async def store(harness):
        await harness.commit(delivery("a"))

    run(tmp_path, store)

    async def put_back(harness):
        index = harness.spool._indexer._index
        before = index.cursor(0)
        harness.spool.put_back(0)  # a position that is none: nothing changes
        while not harness.commits:
            await asyncio.sleep(0.001)
        await harness.due()  # comes after what was to be indexed
        assert before.offset > 0
        assert index.cursor(0) == before

    run(tmp_path, put_back)
