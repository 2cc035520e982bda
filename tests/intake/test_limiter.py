"""Token buckets, with time as an argument."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasthook.intake.limiter import MAX_VOUCHED, ClientBuckets, TokenBucket, Vouched

HOUR = 3600.0
RATES = st.sampled_from([0.5, 1.0, 3.0, 10.0, 1000.0])
BURSTS = st.integers(1, 20)
PAUSES = st.lists(st.sampled_from([0.0, 0.001, 0.1, 0.5, 1.0, 7.0]) | st.floats(0, 5), max_size=80)


def test_the_bucket_refills_at_its_rate():
    bucket = TokenBucket(rate=2, burst=2)

    assert [bucket.take(0.0) for _ in range(3)] == [0.0, 0.0, 0.5]
    assert bucket.take(0.5) == 0.0
    assert bucket.take(0.5) == 0.5


def test_a_refused_take_takes_nothing():
    bucket = TokenBucket(rate=1, burst=1)
    assert bucket.take(0.0) == 0.0

    assert [bucket.take(0.5) for _ in range(100)] == [0.5] * 100
    assert bucket.take(1.0) == 0.0


@given(RATES, BURSTS, PAUSES)
def test_no_window_holds_more_than_its_rate_and_one_burst(rate, burst, pauses):
    bucket = TokenBucket(rate, burst)
    now, taken = 5.0, []
    for pause in pauses:
        now += pause
        while bucket.take(now) == 0.0:
            taken.append(now)

    for first, start in enumerate(taken):
        for last in range(first, len(taken)):
            assert last - first + 1 <= rate * (taken[last] - start) + burst + 1e-6


@given(RATES, BURSTS, PAUSES)
def test_who_waits_as_long_as_told_is_served(rate, burst, pauses):
    bucket = TokenBucket(rate, burst)
    now = 0.0
    for pause in pauses:
        now += pause
        wait = bucket.take(now)
        if wait:
            assert wait <= 1 / rate + 1e-9
            now += wait
            assert bucket.take(now) == 0.0


@given(RATES, BURSTS, st.lists(st.sampled_from([-HOUR, HOUR]), max_size=10))
def test_a_clock_that_jumps_costs_at_most_one_burst(rate, burst, jumps):
    bucket = TokenBucket(rate, burst)
    now = 10 * HOUR
    for jump in [0.0, *jumps]:
        now += jump
        served = sum(bucket.take(now) == 0.0 for _ in range(burst + 5))
        assert served <= burst
        assert bucket.take(now) <= 1 / rate + 1e-6


def test_a_clock_that_jumped_back_starves_nobody():
    bucket = TokenBucket(rate=1, burst=1)
    assert bucket.take(HOUR) == 0.0

    waits = [bucket.take(float(second)) for second in range(5)]

    assert waits == [1.0, 0.0, 0.0, 0.0, 0.0]


def test_a_client_whose_clock_jumped_back_is_let_in_again():
    buckets = ClientBuckets(rate=1, burst=1)
    buckets.charge("a", HOUR)

    assert [buckets.wait("a", float(second)) for second in range(3)] == [1.0, 0.0, 0.0]


# --- clients --------------------------------------------------------------------------------------


def test_a_client_is_shed_after_its_burst_of_refusals_and_let_in_again_later():
    buckets = ClientBuckets(rate=1, burst=3)
    for _ in range(3):
        assert buckets.wait("bad", 0.0) == 0.0
        buckets.charge("bad", 0.0)

    assert buckets.wait("bad", 0.0) == pytest.approx(3.0)
    assert buckets.wait("other", 0.0) == 0.0
    assert buckets.wait("bad", 1.0) == pytest.approx(2.0)
    assert buckets.wait("bad", 3.0) == 0.0


def test_a_flood_is_verified_for_one_burst_in_the_time_that_a_bucket_takes_to_fill():
    buckets = ClientBuckets(rate=10, burst=100)
    verified = []
    for millisecond in range(60_000):
        if not buckets.wait("bad", millisecond / 1000):
            buckets.charge("bad", millisecond / 1000)
            verified.append(millisecond)

    assert len(verified) < 60 * 10 + 100
    gaps = [after - before for before, after in itertools.pairwise(verified)]
    assert max(gaps) >= 9_900  # seconds in which nothing of it is looked at
    assert sum(gap > 1 for gap in gaps) <= 6


def test_good_clients_never_have_an_entry():
    buckets = ClientBuckets(rate=1, burst=1)
    for number in range(1000):
        assert buckets.wait(f"good{number}", float(number)) == 0.0

    assert buckets.refused == {}


@given(RATES, BURSTS, PAUSES)
def test_charges_without_end_delay_a_client_by_no_more_than_a_full_bucket(rate, burst, pauses):
    buckets = ClientBuckets(rate, burst)
    now = 0.0
    for pause in pauses:
        now += pause
        buckets.charge("bad", now)
        assert buckets.wait("bad", now) <= burst / rate + 1e-6


def test_a_million_clients_leave_a_bounded_table_and_the_latest_in_it():
    buckets = ClientBuckets(rate=1, burst=1, max_clients=1000)
    for number in range(1_000_000):
        buckets.charge(str(number), 0.0)

    assert len(buckets.refused) == 1000
    assert next(iter(buckets.refused)) == "999000"
    assert buckets.wait("0", 0.0) == 0.0
    assert buckets.wait("999999", 0.0) > 0.0


def test_a_client_that_goes_on_is_not_the_one_that_is_forgotten():
    buckets = ClientBuckets(rate=1, burst=1, max_clients=10)
    for number in range(1000):
        buckets.charge("steady", 0.0)
        buckets.charge(str(number), 0.0)

    assert buckets.wait("steady", 0.0) > 0.0
    assert len(buckets.refused) == 10


# --- clients that are vouched for -----------------------------------------------------------------


def test_a_client_is_known_by_its_address_and_for_ipv6_by_its_network():
    vouched = Vouched()
    vouched.add("192.0.2.1")
    vouched.add("2001:db8::1")

    assert vouched.knows("192.0.2.1")
    assert vouched.knows("2001:db8::2")
    assert not vouched.knows("192.0.2.2")
    assert not vouched.knows("2001:db8:0:1::1")


def test_a_million_clients_leave_two_generations_and_those_that_go_on():
    vouched = Vouched()
    for number in range(1_000_000):
        for client in ("regular", str(number)):
            if client not in vouched.young:
                vouched.add(client)

    assert len(vouched.young) + len(vouched._old) <= 2 * MAX_VOUCHED + 4
    assert vouched.knows("regular")
    assert vouched.knows("999999")
    assert not vouched.knows("0")
