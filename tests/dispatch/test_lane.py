"""One handler's line: order, concurrency, timeouts, and a worker that nothing ends."""

import asyncio
import contextlib
import time

import pytest

from fasthook import AlreadyDone, Discard, Retry, handler
from fasthook.dispatch.lane import describe
from fasthook.dispatch.runners import TimedOut
from fasthook.model import Undecodable
from tests.dispatch.helpers import (
    DEADLINE_S,
    Harness,
    delivery,
    kinds,
    outcomes_of,
    quiet_retries,
    run,
)


def numbered(count):
    return [delivery(event_id=str(number)) for number in range(count)]


class BadExit(BaseException):
    """Not an `Exception`, as some libraries raise."""


# --- order and concurrency ------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 3])
def test_the_order_of_start_is_the_order_of_offer(concurrency):
    started = []

    @handler(concurrency=concurrency)
    async def note(event):
        started.append(event.id)
        await asyncio.sleep(0)

    outcomes_of(note, *numbered(50))

    assert started == [str(number) for number in range(50)]


def test_concurrency_is_reached_and_never_exceeded():
    async def main():
        gate = asyncio.Event()
        running = []

        @handler(concurrency=3)
        async def hold(event):
            running.append(event.id)
            assert harness.lane.running == len(running)
            await gate.wait()
            running.remove(event.id)

        async with Harness(hold) as harness:
            harness.offer(*numbered(10))
            while len(running) < 3:
                await asyncio.sleep(0)
            for _ in range(10):  # turns in which a fourth could start
                await asyncio.sleep(0)
            assert (len(running), harness.lane.running, harness.lane.waiting) == (3, 3, 7)
            gate.set()
            await harness.emptied()
            assert (harness.lane.running, harness.lane.waiting) == (0, 0)
            assert kinds(harness.outcomes) == ["done"] * 10

    run(main())


def test_idle_workers_are_used_again():
    tasks = set()

    @handler(concurrency=2)
    async def note(event):
        tasks.add(asyncio.current_task())
        await asyncio.sleep(0)

    async def main():
        async with Harness(note) as harness:
            for _ in range(5):
                harness.offer(*numbered(2))
                await harness.emptied()
            assert len(harness.outcomes) == 10
            assert len(tasks) == 2

    run(main())


def test_a_worker_is_named_after_its_handler():
    names = []

    @handler
    async def note(event):
        names.append(asyncio.current_task().get_name())

    outcomes_of(note, delivery())

    assert names == ["h0-1"]


def test_a_handler_that_never_waits_leaves_the_loop_to_others():
    async def main():
        done = 0

        @handler(concurrency=1)
        async def busy(event):
            nonlocal done
            began = time.perf_counter()
            while time.perf_counter() - began < 0.0005:
                pass
            done += 1

        async with Harness(busy) as harness:
            harness.offer(*numbered(400))
            turns = 0
            while done < 400:
                await asyncio.sleep(0)
                turns += 1
        assert turns >= 20, "200 ms of work are about 100 turns of 2 ms"

    run(main())


def test_a_rate_spaces_the_starts():
    starts = []

    @handler(rate=50, concurrency=4)
    async def note(event):
        starts.append((event.id, time.perf_counter()))

    outcomes_of(note, *numbered(6))

    assert [name for name, _ in starts] == [str(number) for number in range(6)]
    assert starts[-1][1] - starts[0][1] >= 0.09, "five pauses of 20 ms"


# --- what an attempt comes to ---------------------------------------------------------------------


def test_a_failed_attempt_comes_again_after_the_delay_that_chance_says():
    async def main():
        @handler
        async def fail(event):
            raise ValueError("no luck")

        async with Harness(fail, chance=0.25) as harness:
            harness.offer(delivery())
            (outcome,) = await harness.handled()
            assert (outcome.kind, outcome.attempt, outcome.handler) == ("retry", 1, "h0")
            assert outcome.error == "ValueError: no luck"
            assert outcome.retry_in_s == 5 * 0.75
            assert harness.backlog.count == 1

    run(main())


def test_after_its_retries_an_event_is_dead(monkeypatch):
    quiet_retries(monkeypatch)
    attempts = []

    @handler(retries=2)
    async def fail(event):
        attempts.append(event.attempt)
        raise ValueError("no luck")

    outcomes = outcomes_of(fail, delivery())

    assert attempts == [1, 2, 3]
    assert kinds(outcomes) == ["retry", "retry", "dead"]
    assert [outcome.attempt for outcome in outcomes] == [1, 2, 3]
    assert outcomes[-1].retry_in_s == 0


def test_a_later_success_ends_it(monkeypatch):
    quiet_retries(monkeypatch)

    @handler
    async def second_time(event):
        if event.attempt == 1:
            raise ValueError

    outcomes = outcomes_of(second_time, delivery())

    assert kinds(outcomes) == ["retry", "done"]
    assert outcomes[-1].error == ""


def test_retry_says_when_and_counts_like_any_other_attempt():
    @handler(retries=2)
    async def again(event):
        raise Retry("busy", after=0.001 * (event.attempt - 1))

    outcomes = outcomes_of(again, delivery())

    assert kinds(outcomes) == ["retry", "retry", "dead"]
    assert [outcome.retry_in_s for outcome in outcomes] == [0, 0.001, 0]
    assert outcomes[0].error == "busy"


def test_retry_without_a_time_takes_the_schedule(monkeypatch):
    quiet_retries(monkeypatch, 0.002)

    @handler(retries=1)
    async def again(event):
        raise Retry

    outcomes = outcomes_of(again, delivery())

    assert [outcome.retry_in_s for outcome in outcomes] == [0.002, 0]
    assert outcomes[0].error == "Retry"


def test_discard_is_dead_at_once():
    @handler
    async def drop(event):
        raise Discard("not for us")

    (outcome,) = outcomes_of(drop, delivery())

    assert (outcome.kind, outcome.attempt, outcome.error) == ("dead", 1, "not for us")


def test_what_was_done_before_is_done_though_the_handler_catches_exceptions():
    @handler
    async def stock(event):
        try:
            raise AlreadyDone(f"{event._handler} has done it")
        except Exception as error:
            raise Retry("again") from error

    harness = outcomes_of(stock, delivery())
    assert [(o.kind, o.attempt, o.error) for o in harness] == [("done", 1, "")]


def test_a_payload_that_does_not_fit_is_dead_and_the_handler_never_runs():
    ran = []

    @handler
    async def note(event):
        ran.append(event)

    (outcome,) = outcomes_of(note, delivery(b"{}", Undecodable("missing field `number`")))

    assert (outcome.kind, outcome.attempt) == ("dead", 1)
    assert "missing field `number`" in outcome.error
    assert not ran


def own_cancellation():
    raise asyncio.CancelledError("by the handler")


def raiser(error):
    def throw():
        raise error

    return throw


@pytest.mark.parametrize(
    ("throw", "said"),
    [
        (own_cancellation, "CancelledError: by the handler"),
        (raiser(SystemExit(3)), "SystemExit: 3"),
        (raiser(MemoryError("all of it")), "MemoryError: all of it"),
        (raiser(BadExit("worst")), "BadExit: worst"),
        (raiser(GeneratorExit()), "GeneratorExit:"),
        (raiser(StopIteration(5)), "RuntimeError: coroutine raised StopIteration"),
        (raiser(StopAsyncIteration()), "StopAsyncIteration"),
        (raiser(TimeoutError("its own")), "TimeoutError: its own"),
    ],
)
@pytest.mark.parametrize("runs_in", ["loop", "thread"])
def test_whatever_is_raised_is_an_attempt_and_the_worker_lives_on(
    monkeypatch, throw, said, runs_in
):
    quiet_retries(monkeypatch)

    def sync(event):
        if event.id == "bad":
            throw()

    async def coroutine(event):
        sync(event)

    function = handler(concurrency=1, retries=1)(coroutine if runs_in == "loop" else sync)

    outcomes = outcomes_of(function, delivery(event_id="bad"), delivery(event_id="good"))

    assert sorted(kinds(outcomes)) == ["dead", "done", "retry"]
    assert [o.attempt for o in outcomes if o.delivery.event_id == "bad"] == [1, 2]
    assert all(said in o.error for o in outcomes if o.kind != "done")


async def settle_two(function, **options):
    """Offer "bad", then "good", to one worker; the outcomes of both, or what there was in time."""
    async with Harness(function, **options) as harness:
        harness.offer(delivery(event_id="bad"), delivery(event_id="good"))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(harness.handled(2), 1)
        return {o.delivery.event_id: o.kind for o in harness.outcomes}


def test_an_error_whose_text_can_not_be_made_is_an_attempt_like_any_other():
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    @handler(concurrency=1, retries=0)
    async def fail(event):
        if event.id == "bad":
            raise Mute

    assert run(settle_two(fail)) == {"bad": "dead", "good": "done"}


@pytest.mark.parametrize("after", ["soon", float("nan")])
def test_a_retry_with_a_senseless_time_does_not_end_the_worker(after):
    @handler(concurrency=1, retries=5)
    async def again(event):
        if event.id == "bad":
            raise Retry("later", after=after)

    outcomes = run(settle_two(again))

    assert outcomes.get("good") == "done"


def test_a_handler_that_cancels_its_own_task_does_not_end_the_worker():
    @handler(concurrency=1, retries=0)
    async def cancel(event):
        if event.id == "bad":
            asyncio.current_task().cancel()

    async def main():
        async with Harness(cancel) as harness:
            harness.offer(delivery(event_id="bad"))
            await harness.handled()
            await asyncio.sleep(0)
            harness.offer(delivery(event_id="good"))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(harness.handled(2), 1)
            return len(harness.outcomes)

    assert run(main()) == 2


def test_an_error_is_described_in_one_line_of_bounded_length():
    assert describe(ValueError("  a  ")) == "ValueError: a"
    assert describe(Discard()) == "Discard"
    assert describe(Retry("later")) == "later"
    assert describe(TimedOut("took long")) == "took long"
    assert len(describe(ValueError("x" * 10_000))) == 500
    assert len(describe(Discard("x" * 10_000))) == 500


def test_an_error_of_several_lines_is_described_in_one():
    assert "\n" not in describe(ValueError("first\nsecond"))


# --- timeouts -------------------------------------------------------------------------------------


def test_an_attempt_that_takes_too_long_is_cancelled_and_counted(monkeypatch):
    quiet_retries(monkeypatch)
    cancelled = []

    @handler(timeout=0.03, retries=1, concurrency=1)
    async def hang(event):
        if event.id == "good":
            return
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(event.attempt)
            raise

    outcomes = outcomes_of(hang, delivery(event_id="bad"), delivery(event_id="good"))

    assert cancelled == [1, 2]
    assert sorted(kinds(outcomes)) == ["dead", "done", "retry"]
    (last,) = (o for o in outcomes if o.kind == "dead")
    assert last.error == "took more than 0.03 s"
    assert last.duration_s >= 0.03


def test_time_counts_from_the_start_of_each_attempt():
    """One timer is moved on lazily: it must not fire early for a later attempt."""

    @handler(timeout=0.1, retries=0, concurrency=1)
    async def steady(event):
        await asyncio.sleep(0.03)

    assert kinds(outcomes_of(steady, *numbered(8))) == ["done"] * 8


def test_a_timeout_after_idle_time_is_not_early():
    async def main():
        @handler(timeout=0.05, retries=0, concurrency=1)
        async def work(event):
            await asyncio.sleep(0.03)

        async with Harness(work) as harness:
            harness.offer(delivery())
            await harness.emptied()
            harness.offer(delivery())  # the first one's timer is still there
            await harness.emptied()
            assert kinds(harness.outcomes) == ["done", "done"]

    run(main())


@pytest.mark.parametrize("way", ["returns", "raises"])
def test_a_handler_that_swallows_its_cancellation_leaves_the_worker_sound(way):
    async def main():
        cancelling = []

        @handler(timeout=0.3, retries=0, concurrency=1)
        async def stubborn(event):
            if event.id == "bad":
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    if way == "raises":
                        raise ValueError("instead") from None
                return
            cancelling.append(asyncio.current_task().cancelling())
            try:
                async with asyncio.timeout(0.01):
                    await asyncio.Event().wait()
            except TimeoutError:
                cancelling.append("timeout works")

        async with Harness(stubborn) as harness:
            harness.offer(delivery(event_id="bad"), delivery(event_id="good"))
            bad, good = await harness.emptied()
            assert bad.kind == ("done" if way == "returns" else "dead")
            assert good.kind == "done"
            assert cancelling == [0, "timeout works"]

    run(main())


def test_after_a_timeout_the_workers_task_counts_no_cancellation(monkeypatch):
    quiet_retries(monkeypatch)
    seen = []

    @handler(timeout=0.02, retries=2, concurrency=1)
    async def hang_twice(event):
        seen.append(asyncio.current_task().cancelling())
        if event.attempt < 3:
            await asyncio.Event().wait()
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))

    assert kinds(outcomes_of(hang_twice, delivery())) == ["retry", "retry", "done"]
    assert seen == [0, 0, 0]


# --- the end --------------------------------------------------------------------------------------


def test_closing_cancels_what_runs_and_reports_no_outcome_for_it():
    async def main():
        started, cancelled = asyncio.Event(), asyncio.Event()

        @handler
        async def hang(event):
            started.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise

        async with Harness(hang) as harness:
            harness.offer(delivery())
            await started.wait()
        assert cancelled.is_set()
        assert harness.outcomes == []

    run(main())


@pytest.mark.parametrize("way", ["returns", "raises"])
def test_closing_ends_a_worker_whose_handler_swallows_the_cancellation(way):
    async def main():
        started = asyncio.Event()

        @handler
        async def stubborn(event):
            started.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if way == "raises":
                    raise ValueError("instead") from None

        harness = Harness(stubborn)
        harness.offer(delivery())
        await started.wait()
        await asyncio.wait_for(harness.pool.close(), 0.5)

    run(main())


def test_closing_an_idle_lane_returns_at_once():
    async def main():
        @handler
        async def note(event): ...

        async with Harness(note) as harness:
            await asyncio.wait_for(harness.lane.close(), DEADLINE_S)
            harness.offer(delivery())
            await harness.emptied()

    run(main())
