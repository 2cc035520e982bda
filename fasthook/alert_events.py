"""Alerts as events: what a handler gets, and the endpoint from which it comes.

They go the way of all events, over the spool to the handlers, with retries and dead letters.
"""

from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from fasthook.alerts.detector import Alert
from fasthook.config import Config
from fasthook.errors import ConfigError
from fasthook.intake.identify import Identifier, order_key_of
from fasthook.intake.payloads import Bodies
from fasthook.intake.receiver import Endpoint
from fasthook.intake.signatures import Sealed
from fasthook.model import Delivery
from fasthook.routing import Routing

PROVIDER: Final = "fasthook"
_MAX_BODY_BYTES: Final = 65_536
_HEAD: Final = (
    b"POST /%s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n"
)


def can_watch(config: Config, workers: int) -> bool:
    """Whether anything is to be watched, and can be: several workers meet in the spool alone."""
    return config.alerts.watch and (workers == 1 or config.spool.durability != "none")


def check(config: Config, workers: int) -> list[str]:
    """Warnings. Raises `ConfigError` where something is asked for that nobody can tell."""
    if not config.alerts.watch or can_watch(config, workers):
        return []
    why = (
        f'with durability = "none" none of {workers} workers sees all; expected server.workers = 1'
    )
    if config.alerts.handlers:
        raise ConfigError(f"alerts.handlers: {why}")
    for endpoint in config.endpoint:
        if endpoint.expect_every:
            raise ConfigError(f'endpoint "{endpoint.name}".expect_every: {why}')
    return [f"alerts: nothing is watched; {why}, or alerts.watch = false"]


def endpoint_of(name: str, routes: Routing) -> Endpoint:
    """An endpoint that no request finds, for handlers with these routes.

    Raises `ConfigError` for a type that can't be decoded.
    """
    order_keys = [order_key_of(text) for text in routes.keys]
    also = [text for _, found in order_keys for text in found]
    bodies = Bodies(("json",), "", (), False, (), _MAX_BODY_BYTES)
    return Endpoint(
        name=name,
        path=b"",
        provider=PROVIDER,
        verifier=Sealed(),
        identifier=Identifier((), (), bodies, routes.types, also),
        is_id_signed=True,
        order_keys=tuple(read for read, _ in order_keys),
        handlers=len(routes.wanted),
        filters=routes.filters,
    )


def facts_of(alert: Alert) -> dict[str, Any]:
    """What is told of an alert; what does not apply is left out."""
    facts = {
        "kind": alert.kind,
        "state": alert.state,
        "endpoint": alert.endpoint,
        "client": alert.client,
        "error": alert.error,
        "since": _iso(alert.since),
        "until": _iso(alert.until) if alert.until else "",
        "over_s": alert.over_s,
        "seen": alert.seen,
        "usual": alert.usual,
        "limit": alert.limit,
    }
    return {key: value for key, value in facts.items() if value or key == "endpoint"}


def delivery_of(alert: Alert, endpoint: str, now_ns: int) -> Delivery:
    """The event that says that an alert began or ended: type "silence.started" and the like."""
    body = msgspec.json.encode({"id": alert.id} | facts_of(alert))
    return Delivery(
        endpoint,
        PROVIDER,
        f"{alert.id}-{alert.state}",
        f"{alert.kind}.{alert.state}",
        _HEAD % (endpoint.encode(), len(body)),
        body,
        now_ns,
        "",
        0,  # genuine: nobody but this process could have made it
    )


def _iso(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}Z"
