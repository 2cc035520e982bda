"""What a handler is: its options, where it runs, and what can't be one."""

from typing import Any

import msgspec
import pytest

from fasthook import Event, Handler, handler
from fasthook.handling import payload_type_of


class Order(msgspec.Struct):
    """A payload type."""

    number: int


def test_a_bare_decorator_makes_a_handler_with_the_documented_options():
    @handler
    def ship(event): ...

    assert isinstance(ship, Handler)
    assert (ship.retries, ship.timeout_s, ship.concurrency, ship.rate) == (5, 30.0, 16, 0.0)
    assert ship.payload_type is Any


def test_options_are_kept():
    @handler(retries=0, timeout=0.5, concurrency=1, rate=2.5, runs_in="process")
    async def ship(event): ...

    assert (ship.retries, ship.timeout_s, ship.concurrency, ship.rate) == (0, 0.5, 1, 2.5)
    assert ship.runs_in == "process"


def test_where_it_runs_follows_from_the_kind_of_function():
    def plain(event): ...

    async def coroutine(event): ...

    assert handler(plain).runs_in == "thread"
    assert handler(coroutine).runs_in == "loop"
    for function in (plain, coroutine):
        assert handler(runs_in="process")(function).runs_in == "process"


def test_a_function_can_not_run_where_it_does_not_fit():
    def plain(event): ...

    async def coroutine(event): ...

    with pytest.raises(TypeError, match="plain: runs_in='loop' needs an async def"):
        handler(runs_in="loop")(plain)
    with pytest.raises(TypeError, match="coroutine: runs_in='thread' needs a plain def"):
        handler(runs_in="thread")(coroutine)
    with pytest.raises(ValueError, match="runs_in='moon'; expected 'loop', 'thread' or 'process'"):
        handler(runs_in="moon")(plain)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"retries": -1}, "retries=-1; expected 0 or more"),
        ({"timeout": 0}, "timeout=0; expected more than 0"),
        ({"timeout": -1}, "timeout=-1; expected more than 0"),
        ({"timeout": float("nan")}, "timeout=nan; expected more than 0"),
        ({"concurrency": 0}, "concurrency=0; expected 1 or more"),
        ({"rate": -1}, "rate=-1; expected 0"),
        ({"rate": float("nan")}, "rate=nan; expected 0"),
        ({"rate": float("inf")}, "rate=inf; expected 0"),
    ],
)
def test_an_option_out_of_range_names_the_function_and_what_is_expected(options, said):
    with pytest.raises(ValueError, match=said) as caught:

        @handler(**options)
        def ship(event): ...

    assert "ship: " in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"retries": "3"},
        {"timeout": "5s"},
        {"concurrency": 2.5},
    ],
)
def test_an_option_of_the_wrong_type_names_the_function_and_the_option(options):
    with pytest.raises((TypeError, ValueError), match=rf"ship: .*{next(iter(options))}"):

        @handler(**options)
        def ship(event): ...


@pytest.mark.parametrize(
    "function",
    [
        lambda: None,
        lambda event, more: None,
        lambda *, event: None,
    ],
)
def test_a_handler_takes_the_event_and_nothing_else(function):
    with pytest.raises(TypeError, match="a handler takes one argument, the event"):
        handler(function)


def test_further_arguments_are_fine_where_they_have_defaults():
    def ship(event: Event[Order], carrier: str = "post", *rest: int, **options: int): ...

    assert handler(ship).payload_type is Order


def test_a_thing_that_can_not_be_called_is_a_type_error():
    with pytest.raises(TypeError):
        handler(5)  # type: ignore[call-overload]


def test_the_payload_type_is_what_the_event_is_declared_with():
    def typed(event: Event[Order]): ...
    def of_list(event: Event[list[Order]]): ...
    def as_text(event: "Event[Order]"): ...
    def bare(event: Event): ...
    def other(event: dict): ...

    assert payload_type_of(typed) is Order
    assert payload_type_of(of_list) == list[Order]
    assert payload_type_of(as_text) is Order
    assert payload_type_of(bare) is Any
    assert payload_type_of(other) is Any


def test_a_method_is_a_handler_too():
    class Shop:
        async def ship(self, event: Event[Order]) -> None: ...

    made = handler(Shop().ship)

    assert (made.runs_in, made.payload_type) == ("loop", Order)


def test_a_hint_that_can_not_be_resolved_is_a_clear_type_error():
    def ship(event: "Event[NotThere]"): ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(TypeError, match=r"ship: .*NotThere"):
        handler(ship)
