"""fasthook: a self-hosted webhook receiver.

The line from bytes to handler, and who knows what:

    wire/       bytes ⇄ Request           knows HTTP, knows no webhook
    intake/     Request → Delivery        verifies, limits, identifies; no I/O, no clock
    spool/      Delivery ⇄ disk           stores before the answer; the only SQL, the only fsync
    dispatch/   Delivery → Outcome        runs handlers, retries, gives up
    remote/     HTTPS to servers that need not be trusted: names, addresses, bounds
    handlers/   handlers that come along: log, file, exec, forward
    alerts/     counts → alerts           finds what is unusual; no I/O, no clock
    line        where these meet, and only here: request → answer → outcome
    recall      what waits on disk is read back when there is room
    pausing     what an operator has paused waits on disk
    service     one worker: its listeners, its line, from start to drain
    worker      the process of a worker; supervisor: its parent; notify: what systemd is told
    routing     which handler gets what of an endpoint; conditions: expressions on events
    control     orders of commands to a running service
    pairing     secrets that senders hand over, while an operator waits for them
    fetching    keys that senders publish: for requests that wait for them; visits
    watching    what is unusual, to the log, the metrics and, as alert_events, to handlers
    drifting    whether the shape of payloads changes, to the log; shapes: of payloads, and structs
    admin       health and metrics, on a listener of their own
    expecting   expect: waits for an event, from anywhere; stored: what may be seen of one
    plan        a configuration, compiled and checked; verifying: how an endpoint verifies
    fetch_plan  which endpoints have keys that are fetched, and from where
    doubts      what works, but is worth a warning
    config      the file; logs: the lines; values: numbers with units, secrets
    handling    what a handler is; model: what travels; errors: what can go wrong
    inbox       event.once: an event's identity in one transaction with what its handler writes
    cli/        the commands
    testing     for the tests of handlers: signed events, handlers run by themselves

Imports go down only, and the stages never import each other: tests/test_layers.py.
"""

from typing import TYPE_CHECKING, Any

from fasthook.errors import AlreadyDone, Discard, InboxError, Retry
from fasthook.handling import Breaker, Handler, HandlerFactory, handler
from fasthook.model import Event

__version__ = "0.1.0"
__all__ = [
    "handler",
    "Event",
    "Retry",
    "Discard",
    "Breaker",
    "AlreadyDone",
    "InboxError",
    "Handler",
    "HandlerFactory",
    "expect",
    "__version__",
]

if TYPE_CHECKING:
    from fasthook.expecting import expect


def __getattr__(name: str) -> Any:
    # What it needs is imported by nobody else before it is needed.
    if name == "expect":
        from fasthook.expecting import expect

        return expect
    raise AttributeError(f"module 'fasthook' has no attribute {name!r}")
