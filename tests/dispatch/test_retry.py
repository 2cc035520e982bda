"""When to try again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasthook.dispatch.retry import delay_s

DOCUMENTED_S = [5, 25, 125, 625, 3125, 3125, 3125]
CHANCES = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize(("attempt", "expected_s"), list(enumerate(DOCUMENTED_S, start=1)))
def test_the_middle_of_the_delays_is_the_documented_schedule(attempt, expected_s):
    assert delay_s(attempt, 0.5) == expected_s


@given(st.integers(1, 1000), CHANCES)
def test_chance_spreads_a_delay_from_half_to_one_and_a_half(attempt, chance):
    middle = delay_s(attempt, 0.5)

    assert 0.5 * middle <= delay_s(attempt, chance) <= 1.5 * middle


@given(st.integers(1, 1000), CHANCES)
def test_a_later_attempt_never_waits_less(attempt, chance):
    assert delay_s(attempt, chance) <= delay_s(attempt + 1, chance)
