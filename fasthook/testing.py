"""For tests of handlers: events as a sender would sign them, and handlers run by themselves.

A plugin of pytest, found by its entry point: a test that has an argument `signed_event`,
`make_event`, `run_handler` or `recorded` gets the function of that name. Nothing of a service is
needed, and nothing is imported before a test asks for it.
"""

import asyncio
import base64
import inspect
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from fasthook.model import Event, Handler

#: Where signed events go to, for the providers that sign that.
URL: Final = "https://hooks.example.com/hook"
#: What signs where a test gives no secret; the same in each run.
_SEED: Final = b"fasthook.testing"


class SignedEvent(NamedTuple):
    """A request as the provider would send it."""

    method: str
    target: str  # path and query
    headers: dict[str, str]  # names in lower case
    body: bytes
    secret: str  # what verifies it


def signed_event(
    provider: str,
    type: str = "",
    payload: Any = None,
    *,
    secret: str = "",
    id: str = "evt_test_1",
    scheme: str = "",
    now_s: float | None = None,
) -> SignedEvent:
    """A request of `provider` with this payload, signed with a test secret.

    `payload`: what the JSON holds, or the body's bytes; None: the provider's sample of that type.
    `now_s`: the time that is signed; by default now. Raises `ConfigError` where the provider is
    unknown, or signs with a key that nobody else can make: then give its private key as `secret`.
    """
    from fasthook.cli.send import Target, build
    from fasthook.intake import catalogue
    from fasthook.intake.signing import sample_secret

    known = catalogue.load(provider)
    chosen = known.schemes[scheme or known.default_scheme]
    secret = secret or sample_secret(chosen, _SEED)
    body = (
        payload if payload is None or isinstance(payload, bytes) else json.dumps(payload).encode()
    )
    settings = dict.fromkeys(chosen.settings, "test")
    target = Target(URL, URL, known, chosen, secret.encode(), settings)
    at_s = time.time() if now_s is None else now_s
    request = build(target, type or None, body, id, None, at_s)
    headers = {name.decode(): value.decode("latin-1") for name, value in request.headers.items()}
    return SignedEvent("POST", request.target.decode(), headers, request.body, secret)


def make_event(
    handler: Handler,
    payload: Any,
    *,
    provider: str = "github",
    type: str = "event",
    id: str = "evt_test_1",
    attempt: int = 1,
    headers: dict[str, str] | None = None,
) -> Event[Any]:
    """The event that `handler` would get for this payload, decoded into the type it declares.

    Raises `ValueError` where the payload does not fit that type: a service would bury it.
    """
    from fasthook.intake.payloads import decoder_of
    from fasthook.model import Delivery, Undecodable

    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    decoded = decoder_of(handler.payload_type)(body)
    if isinstance(decoded, Undecodable):
        raise ValueError(f"the payload does not fit {handler.payload_type}: {decoded.error}")
    fields = {name.lower().encode(): value.encode() for name, value in (headers or {}).items()}
    delivery = Delivery(
        provider, provider, id, type, b"", body, fields, time.time_ns(), "test", 0, (decoded,)
    )
    return Event(delivery, decoded, attempt)


def run_handler(handler: Handler, event: Event[Any]) -> None:
    """Run one attempt, here and now; what the handler raises is raised.

    `async def` runs on a loop of its own, with the handler's timeout; the rest is called.
    """
    if inspect.iscoroutinefunction(handler.function):
        asyncio.run(asyncio.wait_for(handler.function(event), handler.timeout_s))
    else:
        handler.function(event)


def recorded(path: str | Path) -> Iterator[dict[str, Any]]:
    """The events of a file that `fasthook spool export` wrote: `provider`, `type`, `id`, `body`.

    They have no signature any more: `signed_event(one["provider"], one["type"], one["body"])` signs
    them again, at the time of the test.
    """
    for line in Path(path).read_bytes().splitlines():
        entry = json.loads(line)
        coded = entry.pop("body_base64", None)
        body = entry.get("body", "")
        entry["body"] = base64.b64decode(coded) if coded is not None else str(body).encode()
        yield entry


def _fixture(function: Callable[..., Any]) -> Any:
    def given() -> Callable[..., Any]:
        return function

    given.__doc__ = function.__doc__
    return pytest.fixture(name=function.__name__)(given)


_signed_event = _fixture(signed_event)
_make_event = _fixture(make_event)
_run_handler = _fixture(run_handler)
_recorded = _fixture(recorded)
__all__ = ["SignedEvent", "signed_event", "make_event", "run_handler", "recorded"]
