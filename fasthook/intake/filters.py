"""Which handlers of an endpoint get an event: those whose `when` is true of it.

Decided when the event comes, and once more when it comes back from disk and nobody had it before.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from fasthook.conditions import Condition, Verdict
from fasthook.model import Delivery, Undecodable, Undecoded, iso, texts


class Filter(NamedTuple):
    """A handler's condition."""

    handler: str
    when: Condition
    payload_index: int  # of the untyped payload; -1: it is not asked about


def unwanted(filters: Sequence[Filter], delivery: Delivery) -> dict[str, str] | None:
    """The handlers that do not get it, and why; None: all of them get it."""
    found: dict[str, str] = {}
    known: dict[Condition, Verdict] = {}  # several handlers may have the same one
    for handler, when, payload_index in filters:
        verdict = known.get(when)
        if verdict is None:
            verdict = known[when] = when(_facts(delivery, payload_index))
        if not verdict.is_true:
            found[handler] = f"{when.source}: {verdict.why}" if verdict.why else when.source
    return found or None


def _facts(delivery: Delivery, payload_index: int) -> dict[str, Callable[[], Any]]:
    return {
        "payload": lambda: _payload(delivery, payload_index),
        "id": lambda: delivery.event_id,
        "type": lambda: delivery.event_type,
        "endpoint": lambda: delivery.endpoint,
        "headers": lambda: texts(delivery.headers),
        "received_at": lambda: iso(delivery.received_at_ns),
    }


def _payload(delivery: Delivery, index: int) -> Any:
    payload = delivery.payloads[index]
    if isinstance(payload, Undecodable):
        raise ValueError(payload.error)
    return payload.decode(delivery.body) if isinstance(payload, Undecoded) else payload
