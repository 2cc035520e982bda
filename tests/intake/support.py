"""What these tests share: requests, endpoints and a clock that stands still. No I/O."""

from typing import Any

import pytest

from fasthook.errors import Rejection
from fasthook.intake import catalogue
from fasthook.intake.catalogue import Provider
from fasthook.intake.handshakes import Greeting
from fasthook.intake.identify import Identifier
from fasthook.intake.limiter import ClientBuckets
from fasthook.intake.multiparts import looks_into_parts
from fasthook.intake.network import Clients
from fasthook.intake.payloads import Bodies
from fasthook.intake.receiver import Endpoint, Receiver
from fasthook.intake.schemes import Scheme
from fasthook.intake.signatures import verifier_of
from fasthook.intake.signing import sign
from fasthook.model import Delivery, Request

NOW_S = 1_767_225_600
#: 32 bytes in base64, so that it is a secret of every scheme.
SECRET = b"c2VjcmV0IG9mIHRoZSB0ZXN0cywgMzIgYnl0ZXMuLi4="
#: One of each common form, all with the same secret; what is said of every provider is tested in
#: test_catalogue.py and test_vectors.py.
PROVIDERS = ["github", "shopify", "slack", "standard-webhooks", "stripe"]


def request_of(
    body: bytes = b"{}",
    headers: dict[str, str | bytes] | None = None,
    target: bytes = b"/hook",
    method: bytes = b"POST",
) -> Request:
    """A parsed request; header names in any case."""
    fields = {
        name.lower().encode(): value if isinstance(value, bytes) else value.encode()
        for name, value in (headers or {}).items()
    }
    lines = [b"%b %b HTTP/1.1" % (method, target), *(b"%b: %b" % field for field in fields.items())]
    head = b"\r\n".join([*lines, b"", b""])
    return Request(method, target, target.partition(b"?")[0], head, fields, True, None, body)


_PARTS = ("method", "target", "path", "head", "headers", "keep_alive", "repeated", "body")


def copy_of(request: Request, **changes: Any) -> Request:
    """The request with its own headers, and `changes`."""
    parts = {name: getattr(request, name) for name in _PARTS}
    return Request(**{**parts, "headers": dict(request.headers), **changes})


def with_header(request: Request, name: str, value: bytes | None) -> Request:
    """The request with another value of a header; None: without it."""
    other = copy_of(request)
    if value is None:
        other.headers.pop(name.encode(), None)
    else:
        other.headers[name.encode()] = value
    return other


def endpoint_of(
    provider: Provider | str,
    secrets: list[bytes] | None = None,
    scheme: str = "",
    payload_types: list[Any] | None = None,
    url: str = "",
    **settings: Any,
) -> Endpoint:
    """An endpoint at /hook, made of the same pieces as `fasthook.plan` makes it of."""
    if isinstance(provider, str):
        provider = catalogue.load(provider)
    chosen = provider.schemes[scheme or provider.default_scheme]
    parts = {
        "name": "hook",
        "path": b"/hook",
        "provider": provider.id,
        "verifier": settings.pop("verifier", None)
        or looks_into_parts(
            verifier_of(chosen, [SECRET] if secrets is None else secrets, url),
            chosen,
            provider.form_payload,
        ),
        "identifier": Identifier(
            provider.event_id_of(chosen),
            provider.event_type_of(chosen),
            Bodies(
                tuple(provider.content),
                provider.form_payload,
                provider.json_types,
                provider.may_be_empty,
                provider.encodings,
                settings.pop("max_body", 1024 * 1024),
            ),
            [Any] if payload_types is None else payload_types,
            also=provider.handshake_selectors,
        ),
        "greetings": tuple(Greeting(h) for h in provider.handshakes if h.is_signed),
        "openings": tuple(
            Greeting(h, verifier=verifier_of(chosen, [h.key.encode()], url) if h.key else None)
            for h in provider.handshakes
            if not h.is_signed and h.handover is None
        ),
        "handovers": tuple(Greeting(h) for h in provider.handshakes if h.handover is not None),
        "retries_429": provider.retries_429,
        "security_headers": frozenset(chosen.security_headers()),
        "refusal_status": provider.refusal_status,
        "methods": tuple(method.encode() for method in provider.methods),
    }
    return Endpoint(**{**parts, **settings})


def receiver_of(*endpoints: Endpoint, unverified: ClientBuckets | None = None) -> Receiver:
    """A receiver that trusts a proxy at 127.0.0.1."""
    return Receiver(endpoints, Clients(["127.0.0.1"]), unverified or ClientBuckets(1000, 10_000))


def receive(
    endpoint: Endpoint, request: Request, now_s: float = NOW_S, peer: str = "192.0.2.1"
) -> Delivery:
    """What a receiver with this endpoint alone makes of the request."""
    return receiver_of(endpoint).receive(request, peer, 0.0, int(now_s * 1e9))


def refusal(endpoint: Endpoint, request: Request, now_s: float = NOW_S) -> Rejection:
    """The rejection that the request meets."""
    with pytest.raises(Rejection) as caught:
        receive(endpoint, request, now_s)
    return caught.value


def signed(
    scheme: Scheme, body: bytes = b"{}", secret: bytes = SECRET, now_s: float = NOW_S, **more: Any
) -> Request:
    """A request as the sender would sign it. `more`: header name → value, _ for -."""
    headers = {name.replace("_", "-"): value for name, value in more.items()}
    request = request_of(body, {"webhook-id": "msg_1", **headers})
    sign(scheme, secret, request, now_s)
    return request
