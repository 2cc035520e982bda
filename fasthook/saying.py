"""What the log says of deliveries and of what became of them (see logs/messages.py).

There may be two such lines a request: their shapes are kept.
"""

from typing import Final

from fasthook.logs import Log, Shape
from fasthook.model import Delivery, Outcome

_DELIVERY: Final = ("endpoint", "provider", "type", "id", "client", "bytes", "secret")
#: By kind of delivery; all others are handshakes.
_ACCEPTED: Final = {
    "event": Shape(20, "accepted", _DELIVERY),
    "ignored": Shape(20, "ignored", _DELIVERY),
    "duplicate": Shape(20, "duplicate", _DELIVERY),
}
_HANDSHAKE: Final = Shape(20, "handshake", (*_DELIVERY, "kind"))
_ATTEMPT: Final = ("handler", "endpoint", "provider", "type", "id", "attempt", "ms")
_DONE: Final = Shape(20, "done", _ATTEMPT)
_SUPERSEDED: Final = Shape(20, "superseded", (*_ATTEMPT, "by"))
_RETRY: Final = Shape(30, "retry", (*_ATTEMPT, "error", "traceback", "retry_in_s"))
_DEAD: Final = Shape(40, "dead", (*_ATTEMPT, "error", "traceback"))


def say_accepted(log: Log, delivery: Delivery, kind: str) -> None:
    """What was answered with success; `kind`: of the delivery, or "duplicate"."""
    values = (
        delivery.endpoint,
        delivery.provider,
        delivery.event_type,
        delivery.event_id,
        delivery.client,
        len(delivery.body),
        delivery.secret_index,
    )
    shape = _ACCEPTED.get(kind)
    if shape is None:
        log.fill(_HANDSHAKE, (*values, kind))
    else:
        log.fill(shape, values)


def say_attempt(log: Log, outcome: Outcome) -> None:
    """What an attempt came to: done, superseded, retry or dead."""
    delivery = outcome.delivery
    values = (
        outcome.handler,
        delivery.endpoint,
        delivery.provider,
        delivery.event_type,
        delivery.event_id,
        outcome.attempt,
        round(outcome.duration_s * 1000, 3),
    )
    if outcome.kind == "done":
        log.fill(_DONE, values)
    elif outcome.kind == "superseded":
        log.fill(_SUPERSEDED, (*values, outcome.error))
    elif outcome.kind == "retry":
        why = (outcome.error, outcome.traceback, round(outcome.retry_in_s, 3))
        log.fill(_RETRY, (*values, *why))
    else:
        log.fill(_DEAD, (*values, outcome.error, outcome.traceback))
