"""The backlog: two bounds, kept whatever comes, and back to nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasthook.dispatch.backlog import OVERHEAD_BYTES, RETRY_AFTER_S, Backlog
from fasthook.errors import BacklogFull
from tests.dispatch.helpers import delivery


def test_the_delivery_beyond_the_count_is_refused_and_counts_nothing():
    backlog = Backlog(2, 10**9)
    assert backlog.enter(delivery())
    assert not backlog.is_full
    assert backlog.enter(delivery())
    assert backlog.is_full
    size = backlog.bytes

    assert not backlog.enter(delivery())

    assert (backlog.count, backlog.bytes) == (2, size)
    with pytest.raises(BacklogFull, match="2 events"):
        backlog.refuse()


def test_a_full_backlog_takes_again_once_one_has_left():
    backlog = Backlog(1, 10**9)
    first = delivery()
    backlog.enter(first)
    backlog.leave(first)

    assert (backlog.count, backlog.bytes, backlog.is_full) == (0, 0, False)
    assert backlog.enter(delivery())


def test_bytes_are_bounded_and_each_event_costs_more_than_its_body():
    backlog = Backlog(1000, 2 * OVERHEAD_BYTES + 100)
    assert backlog.enter(delivery(b"x" * 60))

    assert not backlog.enter(delivery(b"x" * 41))
    assert backlog.enter(delivery(b"x" * 40))

    assert backlog.bytes == backlog.capacity_bytes


def test_a_large_one_is_refused_while_a_small_one_still_finds_room():
    backlog = Backlog(1000, OVERHEAD_BYTES + 10)
    assert not backlog.enter(delivery(b"x" * 11))

    assert not backlog.is_full
    assert backlog.enter(delivery(b"x" * 10))


def test_a_refusal_says_when_to_come_again():
    with pytest.raises(BacklogFull) as caught:
        Backlog(1, 1).refuse()

    assert caught.value.status == 503
    assert caught.value.retry_after_s == RETRY_AFTER_S


def test_there_is_room_for_as_many_as_are_usual_by_either_bound():
    backlog = Backlog(10, 8 * OVERHEAD_BYTES)
    assert backlog.room == 8  # bodies of nothing
    backlog.readmit(delivery(b"x" * OVERHEAD_BYTES))
    assert backlog.room == 3  # of twice the size each
    few = Backlog(2, 10**9)
    few.readmit(delivery())
    assert few.room == 1


def test_what_was_asked_for_is_readmitted_and_fills_the_backlog():
    backlog = Backlog(2, 10**9)
    first, second = delivery(b"1"), delivery(b"22")
    backlog.readmit(first)
    assert not backlog.is_full
    backlog.readmit(second)

    assert (backlog.count, backlog.bytes) == (2, 3 + 2 * OVERHEAD_BYTES)
    assert backlog.is_full
    assert not backlog.enter(delivery())
    backlog.leave(first)
    assert backlog.enter(delivery())


@given(
    capacity=st.integers(1, 8),
    capacity_bytes=st.integers(1, 6 * OVERHEAD_BYTES),
    steps=st.lists(st.one_of(st.integers(0, 2 * OVERHEAD_BYTES), st.none()), max_size=60),
)
def test_no_order_of_comings_and_goings_passes_a_bound(capacity, capacity_bytes, steps):
    """A number: a body of that size comes; None: the oldest leaves."""
    backlog = Backlog(capacity, capacity_bytes)
    inside = []
    for size in steps:
        if size is None:
            if inside:
                backlog.leave(inside.pop(0))
        else:
            coming = delivery(b"x" * size)
            fits = (
                len(inside) < capacity and backlog.bytes + size + OVERHEAD_BYTES <= capacity_bytes
            )
            assert backlog.enter(coming) == fits
            if fits:
                inside.append(coming)
        assert backlog.count == len(inside) <= capacity
        assert backlog.bytes <= capacity_bytes
        assert backlog.is_full == (len(inside) == capacity)
    for each in inside:
        backlog.leave(each)
    assert (backlog.count, backlog.bytes, backlog.is_full) == (0, 0, False)
