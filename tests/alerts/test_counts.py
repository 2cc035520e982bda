"""Tallies: bounded, never too high, and right about those who come most."""

import random
import sys

from hypothesis import given
from hypothesis import strategies as st

from fasthook.alerts.clients import MAX_CLIENTS, TopClients
from fasthook.alerts.counts import MAX_KEYS, Tally


def test_a_tally_counts_and_begins_anew_when_taken():
    tally: Tally[str] = Tally()
    for key in "abaac":
        tally[key] += 1

    assert tally.take() == {"a": 3, "b": 1, "c": 1}
    assert tally == {}


def test_a_million_clients_leave_a_bounded_table_with_the_one_that_came_most():
    tally: Tally[tuple[str, str]] = Tally()
    largest = 0
    for number in range(1_000_000):
        tally["e", f"client {number}"] += 1
        if number % 100 == 0:
            tally["e", "heavy"] += 1
        largest = max(largest, len(tally))

    assert largest <= MAX_KEYS
    assert 10_000 - 1_010_000 * 2 / MAX_KEYS <= tally["e", "heavy"] <= 10_000
    assert max(tally, key=lambda key: tally[key]) == ("e", "heavy")


@given(st.lists(st.integers(0, 30_000), max_size=200), st.integers(0, 2**32))
def test_a_count_is_never_too_high_and_hardly_too_low(keys, seed):
    rng = random.Random(seed)
    stream = [key for key in keys for _ in range(rng.randrange(1, 50))]
    stream += [100_000 + n for n in range(MAX_KEYS * 2)]
    rng.shuffle(stream)
    tally: Tally[int] = Tally()
    for key in stream:
        tally[key] += 1

    assert len(tally) <= MAX_KEYS
    for key in set(keys):
        true = stream.count(key) if len(keys) < 20 else None
        if true is not None:
            assert true - len(stream) * 2 / MAX_KEYS <= tally.get(key, 0) <= true


def test_scores_of_a_million_clients_are_bounded_and_the_highest_is_found():
    top = TopClients(floor=100, times_record=2.0)
    found = {}
    for step in range(80):
        counts = {("e", f"{step}.{n}"): 1 for n in range(4000)} | {("e", "heavy"): 50}
        found = top.step(counts)
        assert len(top._scores) <= MAX_CLIENTS

    assert found["e"][0] == "heavy"
    assert 240 < found["e"][1] <= 250
    assert sys.getsizeof(top._scores) < 1024 * 1024
