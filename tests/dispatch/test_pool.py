"""All handlers at work: everything once, the backlog left at the end, retries in between."""

import asyncio
import collections

import pytest

from fasthook import Discard, Retry, handler
from fasthook.dispatch.backlog import OVERHEAD_BYTES, Backlog
from fasthook.dispatch.pool import Pool, Registered, Resumed, Wanted
from fasthook.errors import BacklogFull
from fasthook.model import Undecodable
from tests.dispatch.helpers import Harness, delivery, kinds, quiet_retries, run


@pytest.mark.parametrize("runs_in", ["loop", "thread"])
def test_each_event_is_handled_exactly_once(runs_in):
    seen = collections.Counter()

    async def coroutine(event):
        await asyncio.sleep(0)
        seen[event.id] += 1

    def sync(event):
        seen[event.id] += 1

    async def main():
        async with Harness(handler(coroutine if runs_in == "loop" else sync)) as harness:
            for number in range(500):
                harness.offer(delivery(event_id=str(number)))
                if number % 7 == 0:
                    await asyncio.sleep(0)
            await harness.emptied()
            assert kinds(harness.outcomes) == ["done"] * 500
            assert (harness.backlog.count, harness.backlog.bytes) == (0, 0)

    run(main())
    assert seen == {str(number): 1 for number in range(500)}


def test_the_backlog_is_left_only_when_all_handlers_have_settled():
    async def main():
        gate = asyncio.Event()

        @handler
        async def quick(event): ...

        @handler
        async def drop(event):
            raise Discard("no")

        @handler
        async def slow(event):
            await gate.wait()

        async with Harness(quick, drop, slow) as harness:
            harness.offer(delivery(b"12345"), delivery())
            outcomes = await harness.handled(4)
            assert sorted(outcome.handler for outcome in outcomes) == ["h0", "h0", "h1", "h1"]
            assert harness.backlog.count == 2
            assert harness.backlog.bytes == 5 + 2 + 2 * OVERHEAD_BYTES
            gate.set()
            assert len(await harness.emptied()) == 6
            assert (harness.backlog.count, harness.backlog.bytes) == (0, 0)

    run(main())


def test_one_handlers_retries_run_no_other_handler_again(monkeypatch):
    quiet_retries(monkeypatch)
    ran = collections.Counter()

    @handler
    async def good(event):
        ran["good"] += 1

    @handler(retries=2)
    async def bad(event):
        ran["bad"] += 1
        raise ValueError

    async def main():
        async with Harness(good, bad) as harness:
            harness.offer(delivery(), delivery())
            await harness.emptied()
            assert harness.backlog.count == 0

    run(main())
    assert ran == {"good": 2, "bad": 6}


def test_each_handler_gets_the_payload_of_its_index():
    seen = {}

    @handler
    async def first(event):
        seen["first"] = event.payload

    @handler
    async def second(event):
        seen["second"] = event.payload

    async def main():
        registered = [Registered("a", first, "a", {}), Registered("b", second, "b", {})]
        backlog = Backlog(10, 10**6)
        pool = Pool(registered, backlog, lambda outcome: None)
        pool.connect({"e": [Wanted("a", 1), Wanted("b", 0)], "other": [Wanted("b", 0)]})
        assert pool.handlers_of("e") == ["a", "b"]
        assert pool.handlers_of("gone") == []

        def offer(coming):
            assert backlog.enter(coming)
            pool.dispatch(coming)

        offer(delivery(b"", "zero", "one"))
        assert await pool.drain(5) == 0
        assert seen == {"first": "one", "second": "zero"}
        seen.clear()
        offer(delivery(b"", "zero", endpoint="other"))
        assert await pool.drain(5) == 0
        assert seen == {"second": "zero"}
        await pool.close()

    run(main())


def test_a_full_backlog_puts_the_delivery_in_no_line():
    async def main():
        gate = asyncio.Event()

        @handler(concurrency=1)
        async def hold(event):
            await gate.wait()

        async with Harness(hold, hold) as harness:
            harness.backlog.capacity = 1
            harness.offer(delivery(event_id="in"))
            with pytest.raises(BacklogFull):
                harness.offer(delivery(event_id="out"))
            gate.set()
            await harness.emptied()
            assert {o.delivery.event_id for o in harness.outcomes} == {"in"}
            harness.offer(delivery())  # there is room again
            await harness.emptied()

    run(main())


def test_while_one_waits_for_its_retry_others_run():
    async def main():
        @handler(concurrency=1)
        async def fail_one(event):
            if event.id == "bad":
                raise ValueError

        async with Harness(fail_one) as harness:
            harness.offer(delivery(event_id="bad"), delivery(event_id="good"))
            outcomes = await harness.handled(2)
            assert [(o.delivery.event_id, o.kind) for o in outcomes] == [
                ("bad", "retry"),
                ("good", "done"),
            ]
            assert harness.backlog.count == 1

    run(main())


def test_draining_waits_for_a_retry_that_is_due_in_time():
    async def main():
        @handler
        async def second_time(event):
            if event.attempt == 1:
                raise Retry("soon", after=0.02)

        async with Harness(second_time) as harness:
            harness.offer(delivery())
            assert await harness.pool.drain(10) == 0
            assert kinds(harness.outcomes) == ["retry", "done"]

    run(main())


def test_draining_returns_how_many_are_left_when_its_time_is_over():
    async def main():
        @handler
        async def fail_or_hang(event):
            if event.id == "fail":
                raise ValueError
            if event.id == "hang":
                await asyncio.Event().wait()

        async with Harness(fail_or_hang) as harness:
            harness.offer(*(delivery(event_id=name) for name in ("fail", "hang", "fine")))
            assert await harness.pool.drain(0.05) == 2
            assert sorted(kinds(harness.outcomes)) == ["done", "retry"]

    run(main())


def test_draining_nothing_returns_at_once_and_may_be_repeated():
    async def main():
        @handler
        async def note(event): ...

        async with Harness(note) as harness:
            assert await harness.pool.drain(10) == 0
            for _ in range(2):
                harness.offer(delivery())
                assert await harness.pool.drain(10) == 0

    run(main())


def test_a_closed_pool_runs_no_retry():
    async def main():
        ran = []

        @handler
        async def again(event):
            ran.append(event.attempt)
            raise Retry("soon", after=0.01)

        async with Harness(again) as harness:
            harness.offer(delivery())
            await harness.handled()
        await asyncio.sleep(0.03)  # beyond the time the retry was due
        assert ran == [1]

    run(main())


# --- back from disk -------------------------------------------------------------------------------


def test_what_comes_back_runs_only_the_handlers_it_names_and_goes_on_with_their_attempts():
    ran = []

    def noting(name):
        @handler
        async def note(event):
            ran.append((name, event.attempt))

        return note

    async def main():
        async with Harness(*map(noting, "abc")) as harness:
            harness.resume(delivery(), h0=Resumed(3, False), h2=Resumed(0, False))
            outcomes = await harness.emptied()
            assert sorted((o.handler, o.attempt, o.kind) for o in outcomes) == [
                ("h0", 4, "done"),
                ("h2", 1, "done"),
            ]
            assert [o.leaves for o in outcomes] == [False, True]
            assert (harness.backlog.count, harness.backlog.bytes) == (0, 0)

    run(main())
    assert sorted(ran) == [("a", 4), ("c", 1)]


def test_attempts_before_it_went_to_disk_count_against_the_retries():
    @handler(retries=2)
    async def fail(event):
        raise ValueError

    async def main():
        async with Harness(fail) as harness:
            harness.resume(delivery(), h0=Resumed(2, False))
            assert [(o.kind, o.attempt) for o in await harness.emptied()] == [("dead", 3)]

    run(main())


def retrying(after_s):
    @handler
    async def second_time(event):
        if event.attempt == 1:
            raise Retry("again", after=after_s)

    return second_time


def test_a_retry_that_is_due_later_leaves_memory():
    async def main():
        async with Harness(retrying(2.1), patience_s=2.0) as harness:
            harness.offer(delivery())
            (retry,) = await harness.handled()
            assert (retry.kind, retry.retry_in_s, retry.leaves) == ("retry", 2.1, True)
            assert (harness.backlog.count, harness.backlog.bytes) == (0, 0)
            assert await harness.pool.drain(60) == 0  # nothing is due here any more
            harness.resume(retry.delivery, h0=Resumed(retry.attempt, False))
            assert [(o.kind, o.attempt) for o in await harness.emptied()] == [
                ("retry", 1),
                ("done", 2),
            ]

    run(main())


def test_a_retry_that_is_due_soon_stays_in_memory():
    async def main():
        async with Harness(retrying(0.01), patience_s=2.0) as harness:
            harness.offer(delivery())
            (retry,) = await harness.handled()
            assert (retry.kind, retry.leaves) == ("retry", False)
            assert harness.backlog.count == 1
            outcomes = await harness.emptied()
            assert [(o.kind, o.leaves) for o in outcomes] == [("retry", False), ("done", True)]

    run(main())


def test_one_leaves_memory_only_with_the_last_of_its_handlers():
    async def main():
        gate = asyncio.Event()

        @handler
        async def slow(event):
            await gate.wait()

        async with Harness(retrying(60), slow, patience_s=2.0) as harness:
            harness.offer(delivery())
            (retry,) = await harness.handled()
            assert (retry.kind, retry.leaves, harness.backlog.count) == ("retry", False, 1)
            gate.set()
            _, done = await harness.emptied()
            assert (done.kind, done.leaves, harness.backlog.count) == ("done", True, 0)

    run(main())


# --- in order -------------------------------------------------------------------------------------


def keyed(position, key):
    return delivery(event_id=str(position), position=position, order_keys=(key,))


def ids(outcomes, kind="done"):
    return [o.delivery.event_id for o in outcomes if o.kind == kind]


@pytest.mark.parametrize("runs_in", ["loop", "thread"])
def test_events_of_one_key_run_one_at_a_time_in_order(runs_in):
    running, began = collections.Counter(), collections.defaultdict(list)
    most = 0

    def enter(event):
        nonlocal most
        running[event._key] += 1
        assert running[event._key] == 1
        most = max(most, running.total())
        began[event._key].append(int(event.id))

    async def coroutine(event):
        enter(event)
        await asyncio.sleep(0)
        running[event._key] -= 1

    def sync(event):
        enter(event)
        running[event._key] -= 1

    async def main():
        function = coroutine if runs_in == "loop" else sync
        async with Harness(handler(ordered_by="id", retries=0)(function)) as harness:
            harness.offer(*(keyed(number, "abc"[number % 3]) for number in range(90)))
            assert kinds(await harness.emptied()) == ["done"] * 90
            assert len(harness.lane.order) == 0
            assert harness.backlog.count == 0

    run(main())
    assert began == {key: list(range(first, 90, 3)) for first, key in enumerate("abc")}
    assert most == 3 or runs_in == "thread"


def test_other_keys_and_events_without_one_run_while_a_key_is_held():
    async def main():
        gate = asyncio.Event()

        @handler(ordered_by="id")
        async def hold_first(event):
            if event.id == "0":
                await gate.wait()

        async with Harness(hold_first) as harness:
            harness.offer(keyed(0, "a"), keyed(1, "a"), keyed(2, "b"), keyed(3, ""), keyed(4, ""))
            assert sorted(ids(await harness.handled(3))) == ["2", "3", "4"]
            assert (harness.lane.running, harness.backlog.count) == (1, 2)
            gate.set()
            assert ids(await harness.emptied())[3:] == ["0", "1"]

    run(main())


@pytest.mark.parametrize("error", [Discard("no"), None])
def test_one_that_is_over_lets_the_next_of_its_key_run(error):
    @handler(ordered_by="id")
    async def fail_first(event):
        if event.id == "0" and error is not None:
            raise error

    async def main():
        async with Harness(fail_first) as harness:
            harness.offer(keyed(0, "a"), keyed(1, "a"))
            outcomes = await harness.emptied()
            assert [o.delivery.event_id for o in outcomes] == ["0", "1"]
            assert {o.order_key for o in outcomes} == {""}  # nobody waits on disk

    run(main())


def test_a_retry_in_memory_holds_its_key():
    async def main():
        async with Harness(ordered(retrying(0.01)), patience_s=2.0) as harness:
            harness.offer(keyed(0, "a"), keyed(1, "b"), keyed(2, "a"))
            outcomes = await harness.emptied()
            of_a = [o for o in outcomes if o.delivery.order_keys == ("a",)]
            assert [(o.delivery.event_id, o.kind) for o in of_a] == [
                ("0", "retry"),
                ("0", "done"),
                ("2", "retry"),
                ("2", "done"),
            ]

    run(main())


def ordered(unordered):
    return handler(ordered_by="id")(unordered.function)


def test_those_behind_a_late_retry_wait_on_disk_and_come_back_in_order():
    async def main():
        async with Harness(ordered(retrying(60)), patience_s=2.0) as harness:
            deliveries = [keyed(number, "a") for number in range(4)]
            harness.offer(*deliveries[:3])
            outcomes = await harness.handled(3)
            assert [(o.delivery.event_id, o.kind, o.attempt) for o in outcomes] == [
                ("0", "retry", 1),
                ("1", "wait", 0),
                ("2", "wait", 0),
            ]
            assert all(o.leaves and o.order_key == "a" for o in outcomes)
            assert harness.backlog.count == 0
            harness.offer(deliveries[3])  # a fresh one is not let past
            assert harness.outcomes[3].kind == "wait"
            assert harness.backlog.count == 0

            harness.resume(deliveries[0], h0=Resumed(1, False))
            done = (await harness.handled(5))[4]
            assert (done.kind, done.order_key, done.leaves) == ("done", "a", True)
            for each in deliveries[1:]:
                harness.resume(each, h0=Resumed(1, True))
            assert ids(await harness.emptied()) == ["0", "1", "2", "3"]

    run(main())


# --- the end, where all is stored -----------------------------------------------------------------


@pytest.mark.parametrize("key", ["", "a"])
def test_where_all_is_stored_draining_waits_for_running_attempts_alone(key):
    async def main():
        gate = asyncio.Event()

        @handler(concurrency=1, ordered_by="id")
        async def hold(event):
            await gate.wait()

        async with Harness(hold) as harness:
            harness.offer(*(keyed(number, key) for number in range(3)))
            while not harness.lane.running:
                await asyncio.sleep(0)
            draining = asyncio.create_task(harness.pool.drain(60, is_stored=True))
            for _ in range(10):  # turns in which it could end
                await asyncio.sleep(0)
            assert not draining.done()
            gate.set()
            assert await draining == 2
            assert ids(harness.outcomes) == ["0"]

    run(main())


def test_where_all_is_stored_draining_waits_for_no_retry():
    async def main():
        async with Harness(retrying(0.5), patience_s=2.0) as harness:
            harness.offer(delivery())
            await harness.handled()
            assert await harness.pool.drain(60, is_stored=True) == 1
            assert kinds(harness.outcomes) == ["retry"]

    run(main())


def test_where_all_is_stored_draining_ends_with_its_time():
    async def main():
        @handler
        async def hang(event):
            await asyncio.Event().wait()

        async with Harness(hang) as harness:
            harness.offer(delivery())
            while not harness.lane.running:
                await asyncio.sleep(0)
            assert await harness.pool.drain(0.01, is_stored=True) == 1

    run(main())


# --- marks ----------------------------------------------------------------------------------------


class Notes:
    """Marks that note what they are told."""

    def __init__(self):
        self.told = []

    def begin(self, slot, position, attempt):
        self.told.append(("begin", slot, position, attempt))

    def end(self, slot):
        self.told.append(("end", slot))


def test_each_attempt_stands_between_marks_also_one_that_raises(monkeypatch):
    quiet_retries(monkeypatch)
    notes = Notes()

    @handler(retries=1, concurrency=1, timeout=0.02)
    async def fail(event):
        notes.told.append("runs")
        if event.attempt == 1:
            raise ValueError
        await asyncio.Event().wait()

    async def main():
        async with Harness(fail, new_marks=lambda name, handler: notes) as harness:
            harness.offer(delivery(position=7))
            assert kinds(await harness.emptied()) == ["retry", "dead"]

    run(main())
    assert notes.told == [
        ("begin", 0, 7, 1),
        "runs",
        ("end", 0),
        ("begin", 0, 7, 2),
        "runs",
        ("end", 0),
    ]


def test_workers_at_once_have_marks_of_their_own():
    notes = Notes()

    @handler(concurrency=3)
    async def meet(event):
        await barrier.wait()

    async def main():
        nonlocal barrier
        barrier = asyncio.Barrier(3)
        async with Harness(meet, new_marks=lambda name, handler: notes) as harness:
            harness.offer(*(delivery(position=number) for number in range(3)))
            await harness.emptied()

    barrier = None
    run(main())
    begun = [told for told in notes.told if told[0] == "begin"]
    assert sorted(slot for _, slot, _, _ in begun) == [0, 1, 2]
    assert sorted(position for _, _, position, _ in begun) == [0, 1, 2]
    assert sorted(told[1] for told in notes.told if told[0] == "end") == [0, 1, 2]


def test_an_attempt_that_the_end_cuts_off_has_no_mark_left():
    notes = Notes()

    @handler
    async def hang(event):
        await asyncio.Event().wait()

    async def main():
        async with Harness(hang, new_marks=lambda name, handler: notes) as harness:
            harness.offer(delivery(position=7))
            while not notes.told:
                await asyncio.sleep(0)

    run(main())
    assert notes.told == [("begin", 0, 7, 1), ("end", 0)]


def test_what_can_not_be_decoded_is_no_attempt_to_mark():
    notes = Notes()

    @handler
    async def never(event): ...

    async def main():
        async with Harness(never, new_marks=lambda name, handler: notes) as harness:
            harness.offer(delivery(b"{}", Undecodable("bad")))
            assert kinds(await harness.emptied()) == ["dead"]

    run(main())
    assert notes.told == []
