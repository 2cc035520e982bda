"""All handlers at work: everything once, the backlog left at the end, retries in between."""

import asyncio
import collections

import pytest

from fasthook import Discard, Retry, handler
from fasthook.dispatch.backlog import OVERHEAD_BYTES, Backlog
from fasthook.dispatch.pool import Pool, Registered
from fasthook.errors import BacklogFull
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
        pool = Pool(registered, Backlog(10, 10**6), lambda outcome: None)
        pool.connect({"e": [("a", 1), ("b", 0)], "other": [("b", 0)]})
        pool.offer(delivery(b"", "zero", "one"))
        assert await pool.drain(5) == 0
        assert seen == {"first": "one", "second": "zero"}
        seen.clear()
        pool.offer(delivery(b"", "zero", endpoint="other"))
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
