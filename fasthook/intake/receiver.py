"""Request → Delivery, or a Rejection: the steps, in order, one line each.

No I/O and no clock. Nothing is decoded, kept, or counted against an endpoint's own budget before
its signature is verified.
"""

from collections.abc import Iterable

import msgspec

from fasthook.errors import (
    BadPayload,
    NoSignature,
    RateExceeded,
    Rejection,
    Shed,
    UnknownPath,
    WrongContentType,
    WrongMethod,
)
from fasthook.intake.catalogue import Handshake
from fasthook.intake.identify import Identifier, OrderKey
from fasthook.intake.limiter import ClientBuckets, TokenBucket
from fasthook.intake.network import AllowList, Clients, limiter_key
from fasthook.intake.signatures import Verifier
from fasthook.intake.templates import Found, Selector, Template
from fasthook.model import Delivery, Reply, Request, Undecodable, request_of

#: A sender's challenge is echoed: short, and printable ASCII, so that it can be nothing else.
MAX_CHALLENGE_BYTES = 1024


class Endpoint(msgspec.Struct, frozen=True):
    """One configured path, compiled."""

    name: str
    path: bytes
    provider: str
    verifier: Verifier
    identifier: Identifier
    bucket: TokenBucket | None = None
    allow: AllowList | None = None
    events: frozenset[str] | None = None  # None: all of them
    greetings: tuple["Greeting", ...] = ()
    retries_429: bool = False
    security_headers: frozenset[bytes] = frozenset()
    is_id_signed: bool = False  # so that it alone makes a duplicate
    order_keys: tuple[OrderKey, ...] = ()  # one per distinct `ordered_by` of the handlers
    keep_rejected: bool = False  # head and body of what is refused
    is_plain: bool = False  # every delivery is an event for all handlers, in no order

    def __post_init__(self) -> None:
        is_plain = not (self.greetings or self.order_keys or self.events is not None)
        msgspec.structs.force_setattr(self, "is_plain", is_plain)


class Greeting:
    """A handshake, compiled."""

    __slots__ = ("name", "_in_headers", "_in_body", "_reply", "_template")

    def __init__(self, handshake: Handshake) -> None:
        self.name = handshake.name
        conditions = [(Selector.parse(text), value) for text, value in handshake.when.items()]
        self._in_headers = [(s.key, v.encode()) for s, v in conditions if s.kind == "header"]
        self._in_body = [(f"{s.kind}:{s.name}", v) for s, v in conditions if s.kind != "header"]
        self._reply = handshake.reply
        self._template = Template(handshake.reply.body) if handshake.reply is not None else None

    def applies(self, headers: dict[bytes, bytes], found: dict[str, str]) -> bool:
        """Whether this request is that handshake. `found`: what was read of its body."""
        for key, value in self._in_headers:
            if headers.get(key) != value:
                return False
        return not self._in_body or all(found.get(key) == text for key, text in self._in_body)

    def reply_to(self, request: Request) -> Reply | None:
        """What the sender wants to hear. Raises `BadPayload`."""
        if self._template is None or self._reply is None:
            return None
        try:
            body = b"".join(self._template.pieces(request, Found(())))
        except NoSignature:
            raise BadPayload("the handshake has no challenge") from None
        if len(body) > MAX_CHALLENGE_BYTES or not body.isascii() or not body.decode().isprintable():
            raise BadPayload("the challenge is too long, or not printable ASCII")
        return msgspec.structs.replace(self._reply, body=body.decode())


class Receiver:
    """All endpoints, and the budgets of those who knock."""

    def __init__(
        self, endpoints: Iterable[Endpoint], clients: Clients, unverified: ClientBuckets
    ) -> None:
        self._endpoints = {endpoint.path: endpoint for endpoint in endpoints}
        self._by_name = {endpoint.name: endpoint for endpoint in self._endpoints.values()}
        self._clients = clients
        self._unverified = unverified

    def receive(self, request: Request, peer: str, now_s: float, wall_ns: int) -> Delivery:
        """Raises `Rejection`, with the client and endpoint as far as they are known.

        `peer`: who is connected, an address or "unix". `now_s`: monotonic. `wall_ns`: wall clock.
        """
        client = self._clients.client_of(peer, request.headers)
        endpoint = self._endpoints.get(request.path)
        secret_index: int | None = None
        try:
            if self._unverified.refused:
                self._check_client(client, now_s)
            if endpoint is None:
                raise UnknownPath("no endpoint has this path")
            if request.method != b"POST":
                raise WrongMethod(f"method {request.method.decode()}; expected POST", "POST")
            if endpoint.allow is not None:
                endpoint.allow.check(client)
            secret_index = endpoint.verifier.verify(request, wall_ns / 1e9)
            if endpoint.bucket is not None:
                self._check_rate(endpoint, endpoint.bucket, now_s)
            if b"content-encoding" in request.headers:
                # What is signed are the encoded bytes; decoding them has no bound worth having.
                raise WrongContentType("encoded bodies are not taken")
            event_id, event_type, payloads, found = endpoint.identifier.identify(request)
            delivery = Delivery(
                endpoint.name,
                endpoint.provider,
                event_id,
                event_type,
                request.head,
                request.body,
                request.headers,
                wall_ns,
                client,
                secret_index,
                payloads,
            )
            if not endpoint.is_plain:
                _sort(endpoint, delivery, request, found)
            return delivery
        except Rejection as rejection:
            rejection.client = client
            rejection.endpoint = endpoint.name if endpoint is not None else ""
            if secret_index is None and not isinstance(rejection, Shed):
                self._unverified.charge(limiter_key(client), now_s)
            raise

    def restore(self, delivery: Delivery) -> None:
        """Give a delivery that was stored its payloads again. Raises `Rejection`."""
        endpoint = self._by_name.get(delivery.endpoint)
        if endpoint is None:
            raise UnknownPath("no endpoint has this name")
        request = request_of(delivery)
        _, _, delivery.payloads, found = endpoint.identifier.identify(request)
        delivery.order_keys = _keys_of(endpoint, request, delivery.event_id, found)

    def restore_as(self, delivery: Delivery, payload: Undecodable) -> None:
        """Give a delivery that can't be decoded any more that for a payload."""
        endpoint = self._by_name[delivery.endpoint]
        delivery.payloads = (payload,) * endpoint.identifier.payload_count
        delivery.order_keys = ("",) * len(endpoint.order_keys)

    def _check_client(self, client: str, now_s: float) -> None:
        wait_s = self._unverified.wait(limiter_key(client), now_s)
        if wait_s:
            raise RateExceeded(f"client {client} was refused too often", wait_s)

    def _check_rate(self, endpoint: Endpoint, bucket: TokenBucket, now_s: float) -> None:
        wait_s = bucket.take(now_s)
        if wait_s:
            raise RateExceeded("the endpoint's rate is exceeded", wait_s, endpoint.retries_429)


def _keys_of(
    endpoint: Endpoint, request: Request, event_id: str, found: dict[str, str]
) -> tuple[str, ...]:
    return tuple(read(request, event_id, found) for read in endpoint.order_keys)


def _sort(endpoint: Endpoint, delivery: Delivery, request: Request, found: dict[str, str]) -> None:
    """Set apart what no handler should see, handshakes and events that are not wanted; and find
    the keys of what is to be handled in order.
    """
    delivery.order_keys = _keys_of(endpoint, request, delivery.event_id, found)
    for greeting in endpoint.greetings:
        if greeting.applies(request.headers, found):
            delivery.kind = greeting.name
            delivery.reply = greeting.reply_to(request)
            return
    if endpoint.events is not None and delivery.event_type not in endpoint.events:
        delivery.kind = "ignored"
