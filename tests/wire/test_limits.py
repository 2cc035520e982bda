"""The byte budget, and that the bounds agree with each other."""

from hypothesis import given, settings
from hypothesis import strategies as st

from fasthook.wire import limits
from fasthook.wire.limits import ByteBudget, Limits


def test_a_budget_lends_up_to_its_capacity_and_no_byte_more():
    budget = ByteBudget(10)

    assert budget.reserve(4)
    assert budget.reserve(6)
    assert not budget.reserve(1)
    assert budget.used == 10


def test_a_refused_reservation_takes_nothing():
    budget = ByteBudget(10)

    assert not budget.reserve(11)
    assert budget.used == 0
    assert budget.reserve(10)


@settings(deadline=None)
@given(st.lists(st.integers(0, 50)))
def test_what_is_given_back_can_be_lent_again(counts):
    budget = ByteBudget(100)
    lent = [count for count in counts if budget.reserve(count)]

    assert budget.used == sum(lent) <= 100
    for count in lent:
        budget.release(count)
    assert budget.used == 0


def test_nginx_drops_its_idle_connections_before_we_do():
    assert Limits().idle_timeout_s > 60


def test_a_line_fits_into_a_head_and_a_head_into_what_is_lingered_for():
    assert limits.MAX_LINE_BYTES < limits.MAX_HEAD_BYTES < limits.LINGER_BYTES
