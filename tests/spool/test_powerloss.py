"""What a spool is after the machine lost its power at any moment: nothing that was acked is lost."""

import asyncio
import contextlib
import os
import random
import shutil
import tempfile
import time
from itertools import chain, combinations
from pathlib import Path

import pytest

from fasthook.errors import SpoolUnavailable
from fasthook.model import Delivery
from fasthook.spool import indexer, records, recovery, segment
from fasthook.spool.changes import State
from fasthook.spool.committer import Entry
from fasthook.spool.erasing import erase
from fasthook.spool.index import Index
from fasthook.spool.indexer import Settings
from fasthook.spool.journal import Journal, place_of
from fasthook.spool.records import (
    ACCEPTED,
    ERASED,
    RECORD_HEADER_BYTES,
    Forgotten,
    Replayed,
    Settled,
    accepted_content,
    accepted_of,
    later_record,
)
from fasthook.spool.rejects import Reject
from fasthook.spool.spool import REJECTS_NAME, Spool, key_of
from tests.spool import powerloss
from tests.spool.powerloss import Disk, Recorder, write_image

IS_FULL = os.environ.get("FASTHOOK_TORTURE") == "full"
HEAD = b"POST /h HTTP/1.1\r\nHost: a\r\n\r\n"
HANDLER = "h"


def body_of(event_id, rng):
    """A body that is known again by any forty bytes of it, and different for every event."""
    return b"<%b>" % event_id.encode() * rng.choice((1, 4, 60, 120, 400))


def settings_of(settings):
    """Keys are gathered while it is recorded, too."""
    return Settings(**{"fresh_keys": 20, **settings})


def known_in(spool, keys):
    """By the index, and by what is in memory beside it."""
    lag = spool._committer._lag.keys
    return spool._committer._lookup.keys.known(list(keys)) | lag.intersection(keys)


@pytest.fixture
def folder(tmp_path):
    """A folder in memory, where there is one: images are many, and need no real disk."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="fasthook-") as path:
        yield Path(path)


def delivery(event_id, body):
    now_ns = time.time_ns()
    return Delivery("shop", "none", event_id, "push", HEAD, body, now_ns, "192.0.2.1", 0)


# --- what happens ---------------------------------------------------------------------------------


class Workload:
    """Drives a spool at random, and notes what it asked for and what it was told.

    Marks: ("ask", step, id, what) with "accept", "done", "dead", "retry", "replay", "forget";
    ("ack", step, ids): those are durable, and so is all that was asked up to that step.
    """

    def __init__(self, path, recorder, seed, settings, orders, pages):
        self.rng = random.Random(seed)
        self.recorder = recorder
        self.spool = Spool(path, settings, self.committed, self.brought)
        self.spool._indexer._index._connection.wal_autocheckpoint(pages)
        self.orders = orders
        self.repeats = settings.retention_s > 1  # else they may be new again
        self.bodies = {}
        self.positions = {}
        self.in_hand = {}  # to the attempts made
        self.settled = set()
        self.failures = ("dead", "retry")
        self.acked_step = self.step = 0
        self.answered = self.refused = 0

    def committed(self, result):
        acked = [entry.token for entry in result.fresh + result.duplicates]
        self.answered += len(acked) + len(result.refused)
        self.refused += len(result.refused)
        if acked:
            self.acked_step = max(step for step, _ in acked)
            self.recorder.mark(("ack", self.acked_step, [event_id for _, event_id in acked]))
        for entry in result.fresh:
            event_id = entry.token[1]
            self.positions[event_id] = entry.delivery.position
            self.in_hand[event_id] = 0

    def brought(self, result):
        for found, parts in result.deliveries:
            assert found.body == self.bodies[found.event_id]
            self.in_hand[found.event_id] = max([part.attempt for part in parts], default=0)

    def ask(self, event_id, what):
        self.recorder.mark(("ask", self.step, event_id, what))

    def settle(self, event_id):
        rng, position = self.rng, self.positions[event_id]
        attempt = self.in_hand.pop(event_id) + 1
        what = rng.choice(("done", "done", "done", "done", *self.failures))
        self.ask(event_id, what)
        if what != "retry":
            self.settled.add(event_id)
        if what == "done" and attempt == 1:
            self.spool.done(HANDLER, position)
        else:
            error = "" if what == "done" else "broken"
            outcome = Settled(position, HANDLER, what, attempt, 1, True, 0, error)
            self.spool.settle(outcome)

    def order(self, event_id, what):
        positions = [self.positions[event_id]]
        self.settled.discard(event_id)
        self.ask(event_id, what)
        now_ns = time.time_ns()
        self.spool.order(
            Replayed(now_ns, self.rng.choice(("", HANDLER)), positions)
            if what == "replay"
            else Forgotten(now_ns, positions),
            lambda done: None,
        )

    def take_step(self):
        """Outcomes and orders, and then deliveries: they go with one batch."""
        rng, self.step = self.rng, self.step + 1
        for event_id in list(self.in_hand):
            if rng.random() < 0.6:
                self.settle(event_id)
        if self.orders and self.settled and rng.random() < 0.5:
            self.order(rng.choice(sorted(self.settled)), rng.choice(self.orders))
        for _ in range(rng.choice((1, 1, 2, 5))):
            event_id = f"event-{self.step}-{len(self.bodies)}"
            if self.bodies and self.repeats and rng.random() < 0.1:
                event_id = rng.choice(list(self.bodies))
            body = self.bodies.setdefault(event_id, body_of(event_id, rng))
            entry = Entry(
                key(event_id, body), delivery(event_id, body), True, (self.step, event_id)
            )
            self.ask(event_id, "accept")
            with contextlib.suppress(SpoolUnavailable):
                self.spool.accept(entry)
                self.asked += 1

    async def run(self, steps):
        self.asked = 0
        self.spool.start()
        for _ in range(steps):
            self.take_step()
            self.spool.read_back(self.rng.choice((1, 50)), 10**6)
            if self.rng.random() < 0.7:
                async with asyncio.timeout(20):
                    while self.answered < self.asked:
                        await asyncio.sleep(0)
        await self.spool.close()


def key(event_id, body):
    return key_of(delivery(event_id, body), is_id_signed=True)


class Recorded:
    """A workload that was run, with its log."""

    def __init__(
        self,
        folder,
        seed=1,
        steps=100,
        *,
        orders=("replay",),
        pages=12,
        failures=("dead", "retry"),
        direct_bytes=1500,
        **settings,
    ):
        """`pages`: how many the index changes between two of its syncs.

        `direct_bytes`: which batches are written in blocks, some of them.
        """
        self.root = folder / "recorded"
        self.root.mkdir()
        with pytest.MonkeyPatch.context() as patch, Recorder(self.root) as recorder:
            patch.setattr("fasthook.spool.spool.SEGMENT_BYTES", 8192)
            patch.setattr(segment, "DIRECT_BYTES", direct_bytes)
            patch.setattr(indexer, "_PRUNE_S", 0.0)
            patch.setattr(indexer, "_PRUNE_FULL_S", 0.0)
            patch.setattr(indexer, "_INDEX_S", 0.005)

            async def main():
                self.workload = Workload(
                    self.root, recorder, seed, settings_of(settings), orders, pages
                )
                self.workload.failures = failures
                await self.workload.run(steps)

            asyncio.run(main())
        self.log = recorder.log
        self.is_pruned = any(what[0] == "unlink" and what[1].endswith(".seg") for what in self.log)
        self.bodies = self.workload.bodies


# --- what must hold -------------------------------------------------------------------------------

_AFTER = {
    ("done", State.PENDING): State.DONE,
    ("dead", State.PENDING): State.DEAD,
    ("replay", State.DONE): State.PENDING,
    ("replay", State.DEAD): State.PENDING,
}


def state_after(what):
    state = State.PENDING
    for one in what:
        state = State.FORGOTTEN if one == "forget" else _AFTER.get((one, state), state)
    return state


class Truth:
    """What was acked, and in which states each delivery may be."""

    def __init__(self, *, acks_early=False):
        self.acked = set()
        self._what = {}  # by id: (step, what)
        self._durable_step = 0
        self._acks_early = acks_early

    def see(self, mark):
        if mark[0] == "ack":
            _, self._durable_step, event_ids = mark
            self.acked.update(event_ids)
        elif mark[3] != "accept":
            self._what.setdefault(mark[2], []).append((mark[1], mark[3]))
        elif self._acks_early:
            self.acked.add(mark[2])

    def states_of(self, event_id):
        what = self._what.get(event_id, [])
        sure = [one for step, one in what if step <= self._durable_step]
        maybe = [one for step, one in what if step > self._durable_step]
        some = chain.from_iterable(combinations(maybe, n) for n in range(len(maybe) + 1))
        return {state_after([*sure, *part]) for part in some}


class Findings:
    """What is wrong with the images of one recorded workload."""

    def __init__(self):
        self.images = 0
        self.lost = []
        self.wrong_bodies = []
        self.wrong_states = []
        self.not_erased = []
        self.unlike_rebuilt = []
        self.errors = []

    def all(self):
        """All of it, the first few of each kind."""
        return {name: found[:3] for name, found in vars(self).items() if name != "images" and found}


@contextlib.contextmanager
def opened(path, **settings):
    """A spool whose threads do not run."""
    spool = Spool(path, settings_of(settings), None, None)
    try:
        yield spool
    finally:
        for each in spool._closable:
            each.close()
        spool._journals.close()


def rows_of(index):
    """Key to position and state; what is in memory is also on disk."""
    rows = index._ask("SELECT key, position, state FROM deliveries")
    return {k: (p, State(0 if state == State.RUNNING else state)) for k, p, state in rows}


class Checker:
    """Opens images of a recorded workload, and collects what is wrong with them."""

    def __init__(self, recorded, folder, *, is_pruned_old=False, acks_early=False):
        self._recorded = recorded
        self._folder = folder / "image"
        self._is_pruned_old = is_pruned_old  # what is settled may be unknown
        self._may_be_gone = (State.DONE, State.DEAD) if is_pruned_old else (State.DONE,)
        self._truth = Truth(acks_early=acks_early)
        self._ids = {key(event_id, body): event_id for event_id, body in recorded.bodies.items()}
        self.findings = Findings()

    def check(self, count, seed=1):
        recorded, findings = self._recorded, self.findings
        root = recorded.root
        for cut, image in powerloss.images(recorded.log, root, count, seed, self._truth.see):
            findings.images += 1
            shutil.rmtree(self._folder, ignore_errors=True)
            write_image(
                {path: data for path, data in image.items() if REJECTS_NAME not in path},
                self._folder,
            )
            try:
                with opened(self._folder) as spool:
                    self._look(cut, spool)
            except Exception as error:
                findings.errors.append((cut, repr(error)))
        return findings

    def _look(self, cut, spool):
        journal, index = spool._journals.own, spool._indexer._index
        rows = rows_of(index)
        for event_id in self._truth.acked:
            row = rows.get(key(event_id, self._recorded.bodies[event_id]))
            states = self._truth.states_of(event_id)
            if row is None:
                if not self._is_pruned_old or states == {State.PENDING}:
                    self.findings.lost.append((cut, event_id, "unknown"))
            elif row[1] not in states:
                self.findings.wrong_states.append((cut, event_id, row[1], states))
        assert known_in(spool, rows) == set(rows)
        for k, (position, state) in rows.items():
            self._look_at_record(cut, journal, self._ids[k], position, state)
        if IS_FULL or self.findings.images % 3 == 0:
            self._compare(cut, journal, rows)

    def _look_at_record(self, cut, journal, event_id, position, state):
        findings, body = self.findings, self._recorded.bodies[event_id]
        number = place_of(position)[1]
        is_there = journal.path_of(number).exists() and not journal.is_compact(number)
        if state == State.FORGOTTEN:
            if is_there and body[:40] in journal.path_of(place_of(position)[1]).read_bytes():
                findings.not_erased.append((cut, event_id))
            return
        record = journal.read(position)
        if record is not None and record.kind == ACCEPTED:
            if records.read_delivery(record.content).body != body:
                findings.wrong_bodies.append((cut, event_id))
        elif (is_there or state not in self._may_be_gone) and (
            record is None
            or record.kind != ERASED
            or State.FORGOTTEN not in self._truth.states_of(event_id)
        ):
            findings.lost.append((cut, event_id, "unreadable", state))

    def _compare(self, cut, journal, rows):
        """The index is what the journal says, as far as that goes back."""
        path = self._folder / "again.db"
        again = Index(path)
        recovery.recover(Journal(journal.folder), again)
        again.recover(journal.worker)
        rebuilt = rows_of(again)
        again.close()
        path.unlink()
        oldest = min(journal.segments(), default=0)
        here = {k: row for k, row in rows.items() if place_of(row[0])[1] >= oldest}
        if rebuilt != here:
            wrong = {
                self._ids[k]: (rebuilt.get(k), here.get(k)) for k in rebuilt.keys() | here.keys()
            }
            wrong = {event_id: pair for event_id, pair in wrong.items() if pair[0] != pair[1]}
            self.findings.unlike_rebuilt.append((cut, wrong))


# --- tests ----------------------------------------------------------------------------------------


def batches_of(recorded):
    """Of each write to a journal: whether it was of blocks."""
    links = [what for what in recorded.log if what[0] == "link" and what[1].endswith(".seg")]
    files = {file for _, _, file in links}
    writes = [what for what in recorded.log if what[0] == "write" and what[1] in files]
    return [not (offset | len(data)) % segment.BLOCK_BYTES for _, _, offset, data in writes]


def test_a_power_loss_loses_nothing_that_was_acked(folder):
    recorded = Recorded(folder)
    with contextlib.suppress(OSError):  # what holds the folder may know no blocks
        os.close(os.open(folder / "recorded", os.O_TMPFILE | os.O_RDWR | os.O_DIRECT))
        batches = batches_of(recorded)
        assert 10 < sum(batches) < len(batches) - 10
    findings = Checker(recorded, folder).check(3500 if IS_FULL else 130)
    assert findings.all() == {}


def test_a_power_loss_leaves_nothing_of_what_was_to_be_forgotten(folder):
    recorded = Recorded(folder, seed=2, orders=("forget", "forget", "replay"))
    findings = Checker(recorded, folder).check(500 if IS_FULL else 40)
    assert findings.all() == {}


@pytest.mark.patches
def test_a_power_loss_while_a_full_spool_is_pruned_loses_nothing_that_was_acked(folder):
    # (A dead letter keeps its body, and in segments as small as these nearly all have one.)
    failures = ("retry",)
    recorded = Recorded(folder, seed=3, orders=(), pages=1000, failures=failures, max_bytes=150_000)
    assert recorded.is_pruned
    findings = Checker(recorded, folder).check(500 if IS_FULL else 40)
    assert findings.all() == {}


@pytest.mark.patches
def test_a_power_loss_while_old_segments_are_pruned_loses_nothing_that_was_acked(folder):
    recorded = Recorded(folder, seed=4, orders=(), pages=1000, retention_s=0.02)
    assert recorded.is_pruned
    findings = Checker(recorded, folder, is_pruned_old=True).check(500 if IS_FULL else 40)
    assert findings.all() == {}


# --- what the checker must find -------------------------------------------------------------------


def test_without_syncs_the_checker_finds_losses(folder):
    recorded = Recorded(folder, steps=40, durability="os")
    assert Checker(recorded, folder).check(40).lost


def test_with_an_answer_before_the_write_the_checker_finds_losses(folder):
    recorded = Recorded(folder, steps=40)
    assert Checker(recorded, folder, acks_early=True).check(80).lost


def test_without_the_check_of_contents_the_checker_finds_wrong_bodies(folder, monkeypatch):
    real, header_bytes = records.crc32, records._RECORD.size
    monkeypatch.setattr(
        records, "crc32", lambda data, crc=0: real(data, crc) if len(data) == header_bytes else 0
    )
    recorded = Recorded(folder, steps=40)
    findings = Checker(recorded, folder).check(400)
    assert findings.wrong_bodies


# --- places where a power loss hurts ----------------------------------------------------------------


def recorded_spool(path, recorder, *events):
    """A spool with these deliveries in it, and a refused request."""

    async def main():
        acked = asyncio.Event()
        spool = Spool(path, Settings(), lambda result: acked.set(), None)
        spool.start()
        for event_id in events:
            d = delivery(event_id, b"{}")
            spool.accept(Entry(key(event_id, b"{}"), d, True, None))
        spool.rejects.add(Reject(1, 401, "192.0.2.1", "shop", "POST", "/h", "wrong signature"))
        await acked.wait()
        recorder.mark("acked")
        await spool.close()

    asyncio.run(main())


def test_the_folder_of_a_new_spool_survives(folder):
    root = folder / "recorded"
    root.mkdir()
    with Recorder(root) as recorder:
        recorded_spool(root / "spool", recorder, "a")
    disk = Disk(root)
    for place, entry in enumerate(recorder.log):
        disk.feed(place, entry)
        if entry == ("mark", "acked"):
            break
    durable = disk.image(FirstOfAll())
    assert "spool/journal/0/0000000001.seg" in durable


class FirstOfAll:
    """In the place of a random generator: of an image, only what is synced."""

    def choice(self, choices):
        return choices[0]


def openings(folder, log, root, count, **options):
    """Every way in which a spool could not be opened on an image of this log."""
    errors = []
    for cut, image in powerloss.images(log, root, count, 1, lambda mark: None, **options):
        shutil.rmtree(folder / "image", ignore_errors=True)
        write_image(image, folder / "image")
        try:
            with opened(folder / "image"):
                pass
        except Exception as error:
            errors.append((cut, repr(error)))
    return errors


def test_a_file_that_grew_and_was_not_filled_does_not_keep_the_spool_from_opening(folder):
    """As some filesystems leave it: the size is there, what was written is not."""
    recorded = Recorded(folder, steps=40)
    log = [entry for entry in recorded.log if "rejects.db" not in str(entry[1])]
    assert openings(folder, log, recorded.root, 60, leaves_zeros=True) == []


def test_a_new_segment_of_zeros_does_not_keep_the_spool_from_opening(folder):
    """The same at the one place where it hurts: its header was written and not synced."""
    journal = Journal(folder / "journal" / "0")
    journal.path_of(1).write_bytes(bytes(records.SEGMENT_HEADER_BYTES))
    with opened(folder) as spool:
        assert rows_of(spool._indexer._index) == {}


def test_refused_requests_never_keep_the_spool_from_opening(folder):
    root = folder / "recorded"
    root.mkdir()
    with Recorder(root) as recorder:
        for event_id in "abc":
            recorded_spool(root, recorder, event_id)
    assert openings(folder, recorder.log, root, 60) == []


@pytest.mark.parametrize("torn_at", [2, 5, RECORD_HEADER_BYTES - 1])
def test_an_erasure_that_is_torn_in_a_header_is_finished_after_the_start(folder, torn_at):
    body = b"secret" * 300
    journal = Journal(folder / "journal" / "0")
    first = delivery("first", b"")
    meta = accepted_content(accepted_of(first, b"1" * 16), first)
    fill = 2 * powerloss.SECTOR - torn_at - records.SEGMENT_HEADER_BYTES - RECORD_HEADER_BYTES
    first.body = b"x" * (fill - sum(map(len, meta)))
    second = delivery("second", body)
    _, position = journal.write(
        [
            (ACCEPTED, accepted_content(accepted_of(d, key(d.event_id, body)), d))
            for d in (first, second)
        ]
    )
    journal.write([later_record(Forgotten(1, [position]))])
    path = journal.path_of(1)
    before = path.read_bytes()
    assert place_of(position)[2] % powerloss.SECTOR == powerloss.SECTOR - torn_at
    erase(journal, [position])
    journal.close()
    after = path.read_bytes()
    path.write_bytes(after[: 2 * powerloss.SECTOR] + before[2 * powerloss.SECTOR :])
    with opened(folder) as spool:
        assert body[:40] not in path.read_bytes()
        k = key("second", body)
        assert known_in(spool, [k]) == {k}
