"""Counts: plain integers that say, when asked, how many attempts took how long."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasthook import Discard, Retry, handler
from fasthook.dispatch.counts import BUCKETS_S, FIRST_BUCKET_S, Counts
from tests.dispatch.helpers import Harness, delivery, run


def counted(durations):
    counts = Counts()
    counts.done = len(durations)
    for took_s in durations:
        if took_s > FIRST_BUCKET_S:
            counts.slow(took_s)
    return counts


def test_nothing_was_counted_yet():
    bounds = [*map(str, BUCKETS_S), "+Inf"]
    assert Counts().cumulative() == [(bound, 0) for bound in bounds]


@given(st.lists(st.floats(0, 100) | st.sampled_from(BUCKETS_S)))
def test_each_bucket_has_what_took_no_longer(durations):
    for bound, count in counted(durations).cumulative():
        assert count == sum(took_s <= float(bound) for took_s in durations)


def test_attempts_of_every_outcome_have_their_duration_counted():
    counts = counted([0.0, 0.002])
    counts.retry, counts.dead = 2, 3
    buckets = dict(counts.cumulative())
    assert (buckets["0.001"], buckets["0.005"], buckets["+Inf"]) == (6, 7, 7)


def test_a_lane_counts_its_attempts():
    @handler(retries=1)
    async def by_id(event):
        if event.id == "retry" and event.attempt == 1:
            raise Retry("again", after=0)
        if event.id == "dead":
            raise Discard("no")

    async def main():
        async with Harness(by_id) as harness:
            for name in ("done", "done", "retry", "dead"):
                harness.offer(delivery(event_id=name))
            outcomes = await harness.emptied()
            counts = harness.lane.counts
            assert (counts.done, counts.retry, counts.dead) == (3, 1, 1)
            assert counts.seconds == pytest.approx(sum(o.duration_s for o in outcomes))
            assert counts.cumulative()[-1] == ("+Inf", 5)

    run(main())


def test_an_attempt_that_takes_its_time_is_in_no_bucket_below():
    @handler(timeout=0.02, retries=0)
    async def slow(event):
        await asyncio.Event().wait()

    async def main():
        async with Harness(slow) as harness:
            harness.offer(delivery())
            await harness.emptied()
            buckets = dict(harness.lane.counts.cumulative())
            assert (buckets["0.01"], buckets["+Inf"]) == (0, 1)

    run(main())
