"""The spool beside a plain model of it: whatever is asked in whatever order, with crashes."""

import asyncio
import copy
import itertools
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from fasthook.model import Delivery
from fasthook.spool import indexer
from fasthook.spool.committer import Entry
from fasthook.spool.index import INDEX_NAME, NEVER_NS, State
from fasthook.spool.indexer import Settings
from fasthook.spool.journal import place_of
from fasthook.spool.records import Forgotten, Replayed, Settled
from fasthook.spool.spool import Spool, key_of

IS_FULL = os.environ.get("FASTHOOK_TORTURE") == "full"
HEAD = b"POST /h HTTP/1.1\r\nHost: a\r\n\r\n"
HANDLER = "h"
FAR_NS = 2**62
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
OPEN = (State.PENDING, State.RUNNING)
SETTLED = (State.DONE, State.DEAD)
IDS = ("a", "b", "c")
STATES = {
    "done": State.DONE,
    "dead": State.DEAD,
    "retry": State.PENDING,
    "wait": State.WAITING,
}


class Part:
    """What is known of the handler's part of a delivery."""

    def __init__(self, state, due_ns, order):
        self.state, self.due_ns, self.order = state, due_ns, order


class Row:
    """What must be known of a delivery."""

    def __init__(self, position, received_ns):
        self.position = position
        self.state = State.PENDING
        self.due_ns = received_ns
        self.part = None


class Model:
    """What the index must say after what was asked."""

    def __init__(self):
        self.rows = {}  # by key

    def row_at(self, position):
        return next((row for row in self.rows.values() if row.position == position), None)

    def accept(self, key, position, received_ns):
        self.rows.setdefault(key, Row(position, received_ns))

    def done(self, position):
        row = self.row_at(position)
        if row and row.state in OPEN:
            row.state = State.DONE

    def settle(self, position, kind, due_ns, order):
        row = self.row_at(position)
        if row is None:
            return
        state = STATES[kind]
        row.part = Part(state, due_ns, order or (row.part.order if row.part else ""))
        if order and state in SETTLED:
            self.free(order)
        self.put_back(position)

    def put_back(self, position):
        row = self.row_at(position)
        if row is None or row.state not in OPEN:
            return
        part = row.part
        if part.state == State.PENDING:
            row.state, row.due_ns = State.PENDING, part.due_ns
        elif part.state == State.WAITING:
            row.state, row.due_ns = State.PENDING, NEVER_NS
        else:
            row.state = part.state

    def free(self, order):
        for row in self.rows.values():
            if row.part and row.part.order == order and row.part.state == State.WAITING:
                row.part.state, row.part.due_ns = State.PENDING, 0
                if row.state == State.PENDING:
                    row.due_ns = 0

    def replay(self, position, handler):
        row = self.row_at(position)
        if row and row.state in SETTLED:
            row.state, row.due_ns = State.PENDING, 0
            row.part = Part(State.PENDING, 0, "") if handler else None

    def forget(self, position):
        row = self.row_at(position)
        if row is None:
            return
        row.state = State.FORGOTTEN
        if row.part and row.part.state in (State.PENDING, State.WAITING):
            if row.part.order:
                self.free(row.part.order)
            row.part.state = State.DEAD

    def start(self):
        """What a start does: nothing is in memory, and nobody waits for nobody."""
        for row in self.rows.values():
            if row.state == State.RUNNING:
                row.state, row.due_ns = State.PENDING, 0
        parts = [row.part for row in self.rows.values() if row.part and row.part.order]
        waiting = {part.order for part in parts if part.state == State.WAITING}
        for order in waiting - {part.order for part in parts if part.state == State.PENDING}:
            self.free(order)

    def due(self):
        """Positions that are to be run, oldest first."""
        rows = [r for r in self.rows.values() if r.state == State.PENDING and r.due_ns < FAR_NS]
        return [row.position for row in sorted(rows, key=lambda row: (row.due_ns, row.position))]


class SpoolMachine(RuleBasedStateMachine):
    """Nothing runs on the loop but what a rule waits for, so it is known what is durable."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY))
        self.places = itertools.count()
        self.clock = itertools.count(1)
        self.loop = asyncio.new_event_loop()
        self.model = Model()
        self.journal = []  # of the model: (segment, method, arguments)
        self.bodies = {}  # by position
        self.older = None  # index and model of an earlier moment, and what the journal had then
        self.path = self.folder / "0"
        self.open()

    def teardown(self):
        self.close()
        self.loop.close()
        shutil.rmtree(self.folder)

    # --- life -------------------------------------------------------------------------------------

    def open(self):
        self.entries, self.unsent, self.put_backs = [], [], []
        self.commits, self.brought, self.turns = [], [], 0
        self.spool = Spool(
            self.path, Settings(fresh_keys=3), self.commits.append, self.brought.append
        )
        rows = self.spool._indexer._index._ask("SELECT key, position, state FROM deliveries")
        assert {key: (position, State(state)) for key, position, state in rows} == {
            key: (row.position, row.state) for key, row in self.model.rows.items()
        }
        follow = self.spool._indexer._follow

        def followed(*args):
            follow(*args)
            self.turns += 1

        self.spool._indexer._follow = followed

        async def start():
            self.spool.start()

        self.loop.run_until_complete(start())

    def close(self):
        self.loop.run_until_complete(self.spool.close())

    def wait_until(self, is_so):
        async def wait():
            async with asyncio.timeout(10):
                while not is_so():
                    await asyncio.sleep(0)

        self.loop.run_until_complete(wait())

    def catch_up(self):
        """Wait until the index has everything that was committed."""
        lag = self.spool._committer._lag
        self.wait_until(lambda: not lag.changes)
        turns = self.turns
        self.wait_until(lambda: self.turns > turns + 1)

    def note(self, what, *args):
        """Something that the journal has."""
        self.journal.append((self.spool._journals.own.end[0], what, args))
        getattr(self.model, what)(*args)

    def rebuilt(self):
        """The model of an index that is made again; what was pruned is not in the journal."""
        model, segments = Model(), set(self.spool._journals.own.segments())
        for segment, what, args in self.journal:
            if segment in segments:
                getattr(model, what)(*args)
        return model

    # --- in ---------------------------------------------------------------------------------------

    @rule(
        count=st.integers(0, 3),
        event_id=st.sampled_from(IDS),
        body=st.sampled_from((b"{}", b"[]" * 300)),
        is_signed=st.booleans(),
        runs=st.booleans(),
        data=st.data(),
    )
    def accept(self, count, event_id, body, is_signed, runs, data):
        for _ in range(count):
            self.accept_one(f"new-{next(self.clock)}", body, is_signed, runs)
        self.accept_one(event_id, body, is_signed, runs)
        self.flush_perhaps(data)

    def accept_one(self, event_id, body, is_signed, runs):
        received_ns = next(self.clock)
        d = Delivery("shop", "none", event_id, "push", HEAD, body, received_ns, "192.0.2.1", 0)
        entry = Entry(key_of(d, is_id_signed=is_signed), d, runs, len(self.entries))
        self.entries.append(entry)

    @precondition(lambda self: self.entries or self.unsent or self.put_backs)
    @rule()
    def commit(self):
        entries, self.entries = self.entries, []
        unsent, self.unsent = self.unsent, []
        put_backs, self.put_backs = self.put_backs, []
        known = set(self.model.rows)
        fresh = {}
        for entry in entries:
            self.spool.accept(entry)
            if entry.key not in known:
                fresh.setdefault(entry.key, entry)
        self.send(unsent, put_backs)
        self.commits.clear()

        async def submit():
            self.spool._submit()

        self.loop.run_until_complete(submit())
        self.wait_until(lambda: self.commits)
        (result,) = self.commits
        assert not result.refused
        assert [e.token for e in result.fresh] == [e.token for e in fresh.values()]
        assert {e.token for e in result.duplicates} == (
            {e.token for e in entries} - {e.token for e in fresh.values()}
        )
        for entry in result.fresh:
            position = entry.delivery.position
            self.bodies[position] = entry.delivery.body
            self.note("accept", entry.key, position, entry.delivery.received_at_ns)
            self.model.rows[entry.key].state = State.RUNNING if entry.runs else State.PENDING
        for what, args, _ in sorted(unsent, key=lambda one: one[0] != "done"):
            self.note(what, *args)
        for position in put_backs:
            self.model.put_back(position)

    def send(self, unsent, put_backs):
        for _, args, send in unsent:
            send(*args)
        for position in put_backs:
            self.spool.put_back(position)

    # --- out --------------------------------------------------------------------------------------

    def pick(self, data, states):
        """One of the deliveries of which nothing was said since the last commit."""
        said = {args[0] for _, args, _ in self.unsent} | set(self.put_backs)
        rows = [r for r in self.model.rows.values() if r.state in states and r.position not in said]
        return data.draw(st.sampled_from(rows)) if rows else None

    def say(self, what, args, send):
        self.unsent.append((what, args, send))

    @rule(
        data=st.data(),
        kinds=st.lists(st.sampled_from((*STATES, "later", "wait")), min_size=1, max_size=4),
        order=st.sampled_from(("", "k", "k")),
    )
    def settle(self, data, kinds, order):
        for kind in kinds:
            self.settle_one(data, kind, order)
        self.flush_perhaps(data)

    def flush_perhaps(self, data):
        if data.draw(st.booleans()):
            self.flush()

    def settle_one(self, data, kind, order):
        row = self.pick(data, (State.RUNNING,))
        if row is None:
            return
        if row.part is None and kind == "done" and not order:
            self.say("done", (row.position,), lambda position: self.spool.done(HANDLER, position))
            return
        if kind == "wait" and (row.part is not None or not order):
            kind = "retry"
        if row.part is not None and row.part.order:
            order = row.part.order
        due_ns = {"retry": next(self.clock), "later": FAR_NS}.get(kind, 0)
        args = (row.position, "retry" if kind == "later" else kind, due_ns, order)
        self.say("settle", args, self.send_settled)

    def send_settled(self, position, kind, due_ns, order):
        error = "broken" if kind in ("dead", "retry") else ""
        self.spool.settle(Settled(position, HANDLER, kind, 1, 1, True, due_ns, error, order))

    @rule(data=st.data())
    def put_back(self, data):
        row = self.pick(data, (State.RUNNING,))
        if row is not None and row.part is not None and row.part.state == State.PENDING:
            self.put_backs.append(row.position)

    @rule(data=st.data(), handler=st.sampled_from(("", HANDLER)))
    def replay(self, data, handler):
        row = self.pick(data, SETTLED)
        if row and self.spool._journals.own.path_of(place_of(row.position)[1]).exists():
            self.say("replay", (row.position, handler), self.send_replayed)
            self.flush_perhaps(data)

    def send_replayed(self, position, handler):
        self.spool.order(Replayed(1, handler, [position]), lambda done: None)

    @rule(data=st.data())
    def forget(self, data):
        row = self.pick(data, (State.PENDING, State.RUNNING, State.DONE, State.DEAD))
        if row:
            self.say("forget", (row.position,), self.send_forgotten)
            self.flush_perhaps(data)

    def send_forgotten(self, position):
        self.spool.order(Forgotten(1, [position]), lambda done: None)

    @rule(count=st.sampled_from((1, 2, 100)))
    def read_back(self, count):
        self.catch_up()
        due = self.model.due()
        self.brought.clear()
        self.spool.read_back(count, 10**9)
        self.wait_until(lambda: self.brought)
        (result,) = self.brought
        assert [d.position for d, _ in result.deliveries] == due[:count]
        assert result.is_all == (len(due) < count)
        for delivery, _ in result.deliveries:
            assert delivery.body == self.bodies[delivery.position]
            self.model.row_at(delivery.position).state = State.RUNNING

    def prune(self):
        self.catch_up()
        journal = self.spool._journals.own
        indexed = self.spool._indexer._index.cursor(0).segment
        segments = journal.segments()
        rows = self.model.rows
        is_open = {place_of(row.position)[1] for row in rows.values() if row.state in OPEN}
        stay = [n for n in segments if n >= indexed or n in is_open or n == segments[-1]]
        stays = [n for n in segments if n >= min(stay)] if stay else []
        self.spool.prune(0)
        turns = self.turns
        self.wait_until(lambda: self.turns > turns + 2)
        assert journal.segments() == stays
        first = min(stays, default=indexed)
        self.model.rows = {k: r for k, r in rows.items() if place_of(r.position)[1] >= first}
        self.older = None  # an older index would know of what is gone

    # --- ends and beginnings ------------------------------------------------------------------------

    def flush(self):
        """What waits is written by a clean end."""
        if self.entries or self.unsent or self.put_backs:
            self.commit()

    @rule(how=st.sampled_from(("restart", "lose the index", "crash", "crash behind", "prune")))
    def end(self, how):
        if how == "restart":
            self.restart()
        elif how == "prune":
            self.prune()
        elif how == "lose the index":
            self.lose_the_index()
        else:
            self.crash(is_behind=how == "crash behind")

    def restart(self):
        self.flush()
        self.close()
        self.model.start()
        self.older = None
        self.open()

    def lose_the_index(self):
        self.flush()
        self.close()
        for file in self.path.glob(INDEX_NAME + "*"):
            file.unlink()
        self.model = self.rebuilt()
        self.model.start()
        self.older = None
        self.open()

    def copy_index(self, to):
        to.mkdir(exist_ok=True)
        for file in self.path.glob(INDEX_NAME + "*"):
            if not file.name.endswith("-shm"):
                shutil.copy(file, to)

    @rule()
    def remember_the_index(self):
        """For a crash after which the index is behind."""
        self.catch_up()
        place = self.folder / f"index-{next(self.places)}"
        self.copy_index(place)
        self.older = place, copy.deepcopy(self.model), len(self.journal)

    def crash(self, *, is_behind):
        """What was not committed is gone, and what was is there."""
        self.catch_up()
        after = self.folder / f"crash-{next(self.places)}"
        after.mkdir()
        shutil.copytree(self.path / "journal", after / "journal")
        index = self.path
        if is_behind and self.older is not None:
            index, model, length = self.older
            for _, what, args in self.journal[length:]:
                getattr(model, what)(*args)
            self.model = model
        for file in index.glob(INDEX_NAME + "*"):
            if not file.name.endswith("-shm"):
                shutil.copy(file, after)
        self.close()  # the copy is what a crash would have left
        self.path = after
        self.model.start()
        self.older = None
        self.open()


@pytest.fixture(autouse=True)
def _only_what_is_waited_for(monkeypatch):
    monkeypatch.setattr("fasthook.spool.spool.SEGMENT_BYTES", 2048)
    monkeypatch.setattr("fasthook.spool.spool._SETTLE_S", 3600.0)
    monkeypatch.setattr(indexer, "_INDEX_S", 0.0005)


@pytest.mark.patches
def test_a_spool_does_what_its_model_does():
    run_state_machine_as_test(
        SpoolMachine,
        settings=settings(
            max_examples=1500 if IS_FULL else 110, stateful_step_count=40, deadline=None
        ),
    )
