"""From an endpoint to its handlers: what each of them takes of a delivery."""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from fasthook.dispatch.lane import NO_MARKS, Lane, Marks
from fasthook.handling import Handler
from fasthook.model import Delivery, Event


class Registered(NamedTuple):
    """A handler under the name that endpoints use."""

    name: str
    handler: Handler
    entry_point: str  # how a child process finds it
    settings: dict[str, Any]


class Wanted(NamedTuple):
    """One handler of an endpoint, and which values of a delivery it takes."""

    name: str
    payload_index: int
    key_index: int = -1  # of `Delivery.order_keys`; -1: in no order
    due_index: int = -1  # of `Delivery.order_keys`: the time before which it does not run; -1: none
    is_special: bool = False  # it does not take every delivery, or not at once


class Route(NamedTuple):
    """`Wanted`, with the handler's lane."""

    lane: Lane
    payload_index: int
    key_index: int
    due_index: int


class Resumed(NamedTuple):
    """Where a handler stands with a delivery that comes back from disk."""

    attempt: int  # the last one
    was_parked: bool
    is_new: bool = False  # nothing was said of it yet, so that it may be unwanted


FRESH: Final = Resumed(0, False, is_new=True)
NewMarks = Callable[[str, Handler], Marks]


def no_marks(name: str, handler: Handler) -> Marks:
    """Nothing is kept of what runs."""
    return NO_MARKS


def event_of(delivery: Delivery, route: Route, attempt: int) -> Event[Any]:
    key = delivery.order_keys[route.key_index] if route.key_index >= 0 else ""
    return Event(delivery, delivery.payloads[route.payload_index], attempt, key)
