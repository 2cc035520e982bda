"""Handlers in threads; those in child processes are in test_child.py."""

import asyncio
import functools
import threading

import pytest

from fasthook import Discard, Retry, handler
from tests.dispatch.helpers import (
    DEADLINE_S,
    Harness,
    delivery,
    kinds,
    outcomes_of,
    quiet_retries,
    run,
    until,
)


def test_a_plain_function_runs_in_a_thread_named_after_its_handler():
    threads = []

    @handler
    def note(event):
        threads.append(threading.current_thread())

    outcomes_of(note, delivery())

    assert threads[0] is not threading.main_thread()
    assert threads[0].name.startswith("h0")


def test_threads_run_at_once_up_to_the_concurrency():
    barrier = threading.Barrier(4)
    running, most = 0, 0
    lock = threading.Lock()

    @handler(concurrency=4)
    def meet(event):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        barrier.wait(DEADLINE_S)  # passes only when four are here together
        with lock:
            running -= 1

    outcomes = outcomes_of(meet, *(delivery() for _ in range(12)))

    assert kinds(outcomes) == ["done"] * 12
    assert most == 4


def test_discard_and_retry_are_heard_from_a_thread(monkeypatch):
    quiet_retries(monkeypatch)

    @handler(retries=1)
    def raiser(event):
        if event.id == "drop":
            raise Discard("no")
        raise Retry("later", after=0.001)

    outcomes = outcomes_of(raiser, delivery(event_id="drop"), delivery(event_id="again"))

    assert sorted((o.delivery.event_id, o.kind, o.error) for o in outcomes) == [
        ("again", "dead", "later"),
        ("again", "retry", "later"),
        ("drop", "dead", "no"),
    ]


def test_a_timed_out_thread_keeps_its_worker_until_it_ends():
    async def main():
        gate = threading.Event()
        started = []

        @handler(timeout=0.03, retries=0, concurrency=1)
        def hang(event):
            started.append(event.id)
            if event.id == "bad":
                gate.wait(DEADLINE_S)

        async with Harness(hang) as harness:
            harness.offer(delivery(event_id="bad"), delivery(event_id="good"))
            (outcome,) = await harness.handled()
            assert (outcome.kind, outcome.error) == ("dead", "took more than 0.03 s")
            for _ in range(20):
                await asyncio.sleep(0.001)
            assert started == ["bad"]
            assert harness.lane.waiting == 1
            gate.set()
            await harness.emptied()
            assert started == ["bad", "good"]
            assert kinds(harness.outcomes) == ["dead", "done"]

    run(main())


def test_a_held_worker_does_not_stop_the_others():
    async def main():
        gate = threading.Event()

        @handler(timeout=0.03, retries=0, concurrency=2)
        def hang(event):
            if event.id == "bad":
                gate.wait(DEADLINE_S)

        async with Harness(hang) as harness:
            harness.offer(delivery(event_id="bad"))
            await harness.handled()
            harness.offer(*(delivery(event_id="good") for _ in range(5)))
            await harness.emptied()
            assert kinds(harness.outcomes) == ["dead"] + ["done"] * 5
            gate.set()

    run(main())


def test_closing_does_not_wait_for_a_thread_that_hangs():
    async def main():
        gate, started = threading.Event(), threading.Event()

        @handler
        def hang(event):
            started.set()
            gate.wait(DEADLINE_S)

        async with Harness(hang) as harness:
            harness.offer(delivery(), delivery())
            await until(started.is_set)
            await asyncio.wait_for(harness.pool.close(), 1)
            gate.set()
        assert harness.outcomes == []

    run(main())


# The coroutine that nobody awaits is what the test is about.
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_wrapped_async_function_is_run_or_refused_but_never_taken_for_done():
    ran = []

    def traced(function):
        @functools.wraps(function)
        def wrapper(event):
            return function(event)

        return wrapper

    @traced
    async def ship(event):
        ran.append(event.id)

    try:
        made = handler(retries=0)(ship)
    except TypeError:
        return
    (outcome,) = outcomes_of(made, delivery())

    assert ran or outcome.kind != "done"
