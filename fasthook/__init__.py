"""fasthook: a self-hosted webhook receiver.

The line from bytes to handler, and who knows what:

    wire/       bytes ⇄ Request           knows HTTP, knows no webhook
    intake/     Request → Delivery        verifies, limits, identifies; no I/O, no clock
    dispatch/   Delivery → Outcome        runs handlers, retries, gives up
    handlers/   handlers that come along: log, file, exec, forward
    service     one worker: the only place where these meet
    admin       health and metrics, on a listener of their own
    config      the file; logs: the lines; values: numbers with units, secrets
    model       what travels; errors: what can go wrong
    cli/        the commands

Imports go down only, and the four stages never import each other: tests/test_layers.py.
"""

from fasthook.errors import Discard, Retry
from fasthook.model import Event, Handler, HandlerFactory, handler

__version__ = "0.1.0"
__all__ = ["handler", "Event", "Retry", "Discard", "Handler", "HandlerFactory", "__version__"]
