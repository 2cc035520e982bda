"""Request → Delivery, or a Rejection: the steps, in order, one line each.

No I/O and no clock. Nothing is decoded, kept, or counted against an endpoint's own budget before
its signature is verified.
"""

from collections.abc import Iterable

import msgspec

from fasthook.errors import (
    BadSignature,
    KeyUnavailable,
    NotGenuine,
    RateExceeded,
    Rejection,
    Shed,
    UnknownPath,
    WrongMethod,
)
from fasthook.intake.filters import Filter, unwanted
from fasthook.intake.handshakes import Greeting, first_that_applies
from fasthook.intake.identify import Identifier, OrderKey
from fasthook.intake.limiter import ClientBuckets, TokenBucket, Vouched
from fasthook.intake.network import AllowList, Clients, limiter_key
from fasthook.intake.signatures import Verifier
from fasthook.model import Delivery, Request, Undecodable, request_of


class Endpoint(msgspec.Struct, frozen=True):
    """One configured path, compiled."""

    # What each request asks for stands together: with thousands of endpoints it is in no cache.
    name: str
    provider: str
    verifier: Verifier
    identifier: Identifier
    path: bytes
    bucket: TokenBucket | None = None
    is_plain: bool = False  # every delivery is an event for all handlers, in no order
    is_guarded: bool = False  # something is to be asked before the signature, also of a POST
    vouched: Vouched = msgspec.field(default_factory=Vouched)
    greetings: tuple[Greeting, ...] = ()
    #: Handshakes that hand over a secret: among the openings only while the endpoint is paired.
    handovers: tuple[Greeting, ...] = ()
    events: frozenset[str] | None = None  # None: all of them
    filters: tuple[Filter, ...] = ()  # of those that do not get every event
    order_keys: tuple[OrderKey, ...] = ()  # one per distinct `ordered_by` of the handlers
    allow: AllowList | None = None
    #: Handshakes that are answered without a signature.
    openings: tuple[Greeting, ...] = ()
    retries_429: bool = False
    security_headers: frozenset[bytes] = frozenset()
    is_id_signed: bool = False  # so that it alone makes a duplicate
    may_repeat: bool = False  # nothing makes a duplicate
    handlers: int = 1  # how many it has
    keep_rejected: bool = False  # head and body of what is refused
    refusal_status: int = 401  # of what is not genuine
    methods: tuple[bytes, ...] = (b"POST",)
    is_refusal_bare: bool = False

    def __post_init__(self) -> None:
        is_plain = not (self.greetings or self.order_keys or self.events is not None)
        is_plain = is_plain and not (self.handovers or self.filters)
        msgspec.structs.force_setattr(self, "is_plain", is_plain)
        is_guarded = self.allow is not None or any(o.method == b"POST" for o in self.openings)
        is_guarded = is_guarded or b"POST" not in self.methods
        msgspec.structs.force_setattr(self, "is_guarded", is_guarded)

    def check(self, request: Request, client: str) -> Greeting | None:
        """What has to be asked before the signature: the unsigned handshake that this is, if any.

        Raises `WrongMethod`, or `ClientNotAllowed` for one that is not on the list.
        """
        opening = first_that_applies(self.openings, request, None)
        if opening is None and request.method not in self.methods:
            expected = b", ".join(self.methods).decode()
            raise WrongMethod(f"method {request.method.decode()}; expected {expected}", expected)
        if self.allow is not None:
            self.allow.check(client)
        return opening

    def sign_off(self, rejection: Rejection, request: Request) -> None:
        """Make a rejection this endpoint's: its name, and the status that its sender wants."""
        rejection.endpoint = self.name
        if isinstance(rejection, NotGenuine):
            rejection.status = self.refusal_status
            if self.is_refusal_bare:
                rejection.answer = ""
        if self.handovers and (self.keep_rejected or isinstance(rejection, NotGenuine)):
            self._withhold(rejection, request)

    def _withhold(self, rejection: Rejection, request: Request) -> None:
        """Keep a secret that was handed over out of everything that is kept of its refusal."""
        if any(handover.hands_over(request) for handover in self.handovers):
            rejection.is_withheld = True
            if isinstance(rejection, NotGenuine):
                rejection.args = (f"{rejection}; {self.unpaired}",)

    @property
    def unpaired(self) -> str:
        """What to say of a secret that nobody waits for."""
        return f"a secret is handed over, and taken only while `fasthook pair {self.name}` waits"


class Receiver:
    """All endpoints, and the budgets of those who knock."""

    def __init__(
        self, endpoints: Iterable[Endpoint], clients: Clients, unverified: ClientBuckets
    ) -> None:
        """`endpoints`: one without a path is never found by a request."""
        self._by_name = {endpoint.name: endpoint for endpoint in endpoints}
        self._endpoints = {each.path: each for each in self._by_name.values() if each.path}
        self._clients = clients
        self._unverified = unverified

    def receive(self, request: Request, peer: str, now_s: float, wall_ns: int) -> Delivery:
        """Raises `Rejection`, with the client and endpoint as far as they are known.

        `KeyNeeded`, where a key is to be fetched first: then it is to be called again.
        `peer`: who is connected, an address or "unix". `now_s`: monotonic. `wall_ns`: wall clock.
        """
        client = self._clients.client_of(peer, request.headers)
        endpoint = self._endpoints.get(request.path)
        secret_index: int | None = None
        try:
            if self._unverified.refused:
                self._check_client(client, endpoint, now_s)
            if endpoint is None:
                raise UnknownPath("no endpoint has this path")
            if request.method != b"POST" or endpoint.is_guarded:
                opening = endpoint.check(request, client)
                if opening is not None:
                    opened = _opened(endpoint, opening, request, client, wall_ns)
                    self._unverified.charge(limiter_key(client), now_s)
                    return opened
            secret_index = endpoint.verifier.verify(request, wall_ns / 1e9)
            if client != endpoint.vouched.last and secret_index >= 0:
                endpoint.vouched.add(client)
            if endpoint.bucket is not None:
                self._check_rate(endpoint, endpoint.bucket, now_s)
            event_id, event_type, payloads, found = endpoint.identifier.identify(request)
            delivery = Delivery(
                endpoint.name,
                endpoint.provider,
                event_id,
                event_type,
                request.head,
                request.body,
                wall_ns,
                client,
                secret_index,
                payloads,
            )
            if not endpoint.is_plain:
                _sort(endpoint, delivery, request, found)
            return delivery
        except Rejection as rejection:
            if secret_index is None and not isinstance(rejection, Shed):
                self._unverified.charge(limiter_key(client), now_s)
            _sign_off(rejection, endpoint, request, client)
            raise

    def shed_key(self, reason: KeyUnavailable, request: Request, peer: str, now_s: float) -> None:
        """Make it the refusal of this request, whose key can't be waited for."""
        reason.client = self.client_of(peer, request)
        endpoint = self._endpoints.get(request.path)
        if endpoint is not None:
            endpoint.sign_off(reason, request)
        self._unverified.charge(limiter_key(reason.client), now_s)

    def client_of(self, peer: str, request: Request) -> str:
        """Who sent it."""
        return self._clients.client_of(peer, request.headers)

    def use(self, endpoint: Endpoint) -> None:
        """From the next request on, in the place of the one of that name and path."""
        self._endpoints[endpoint.path] = self._by_name[endpoint.name] = endpoint

    def restore(self, delivery: Delivery) -> None:
        """Give a delivery that was stored its payloads again. Raises `Rejection`."""
        endpoint = self._by_name.get(delivery.endpoint)
        if endpoint is None:
            raise UnknownPath("no endpoint has this name")
        request = request_of(delivery)
        _, _, delivery.payloads, found = endpoint.identifier.identify(request)
        delivery.order_keys = _keys_of(endpoint, request, delivery.event_id, found)
        if endpoint.filters:
            delivery.unwanted = unwanted(endpoint.filters, delivery)

    def restore_as(self, delivery: Delivery, payload: Undecodable) -> None:
        """Give a delivery that can't be decoded any more that for a payload."""
        endpoint = self._by_name[delivery.endpoint]
        delivery.payloads = (payload,) * endpoint.identifier.payload_count
        delivery.order_keys = ("",) * len(endpoint.order_keys)

    def _check_client(self, client: str, endpoint: Endpoint | None, now_s: float) -> None:
        wait_s = self._unverified.wait(limiter_key(client), now_s)
        if wait_s and (endpoint is None or not endpoint.vouched.knows(client)):
            is_told_429 = endpoint is not None and endpoint.retries_429
            raise RateExceeded(f"client {client} was refused too often", wait_s, is_told_429)

    def _check_rate(self, endpoint: Endpoint, bucket: TokenBucket, now_s: float) -> None:
        wait_s = bucket.take(now_s)
        if wait_s:
            raise RateExceeded("the endpoint's rate is exceeded", wait_s, endpoint.retries_429)


def _sign_off(
    rejection: Rejection, endpoint: Endpoint | None, request: Request, client: str
) -> None:
    rejection.client = client
    if endpoint is not None:
        endpoint.sign_off(rejection, request)


def _opened(
    endpoint: Endpoint, opening: Greeting, request: Request, client: str, wall_ns: int
) -> Delivery:
    """A handshake that nobody signed, with its answer."""
    return Delivery(
        endpoint.name,
        endpoint.provider,
        "",
        "",
        request.head,
        b"",
        wall_ns,
        client,
        -1,
        kind=opening.name,
        reply=opening.reply_to(request),
    )


def _keys_of(
    endpoint: Endpoint, request: Request, event_id: str, found: dict[str, str]
) -> tuple[str, ...]:
    return tuple(read(request, event_id, found) for read in endpoint.order_keys)


def _sort(endpoint: Endpoint, delivery: Delivery, request: Request, found: dict[str, str]) -> None:
    """Set apart what no handler should see, handshakes and events that are not wanted; and find
    the keys of what is to be handled in order.
    """
    if endpoint.order_keys:
        delivery.order_keys = _keys_of(endpoint, request, delivery.event_id, found)
    for handover in endpoint.handovers:
        if handover.hands_over(request, found):
            if delivery.secret_index < 0:  # mode = "observe" takes what nobody signed, but not this
                raise BadSignature("no configured secret signs this request")
            # Signed, so that its sender knows a secret of ours: nothing is to be kept of it.
            delivery.kind = handover.name
            delivery.reply = handover.reply_to(request)
            return
    for greeting in endpoint.greetings:
        if greeting.applies(request, found):
            if endpoint.events is not None and delivery.event_type in endpoint.events:
                break  # it is asked for
            delivery.kind = greeting.name
            delivery.reply = greeting.reply_to(request)
            return
    if not _is_wanted(endpoint, delivery):
        delivery.kind = "ignored"


def _is_wanted(endpoint: Endpoint, delivery: Delivery) -> bool:
    """Whether any handler is to get it."""
    if endpoint.events is not None and delivery.event_type not in endpoint.events:
        return False
    if endpoint.filters:
        delivery.unwanted = unwanted(endpoint.filters, delivery)
    return delivery.unwanted is None or len(delivery.unwanted) < endpoint.handlers
