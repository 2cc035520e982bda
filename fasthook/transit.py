"""What passes along the line by the thousand: plain classes, whose attributes cost nothing where
they are compiled.
"""

from typing import Any, Literal

from fasthook.reply import Reply


class Request:
    """One parsed HTTP request, not yet trusted."""

    __slots__ = ("body", "head", "headers", "keep_alive", "method", "path", "repeated", "target")

    def __init__(
        self,
        method: bytes,
        target: bytes,
        path: bytes,
        head: bytes,
        headers: dict[bytes, bytes],
        keep_alive: bool,
        repeated: dict[bytes, list[bytes]] | None = None,
        body: bytes = b"",
    ) -> None:
        self.method = method
        self.target = target  # as received, with the query
        self.path = path  # the part of the target before "?"
        self.head = head  # request line and fields as received, up to and with the blank line
        self.headers = headers  # names in lower case; a repeated field's values joined by ", "
        self.keep_alive = keep_alive
        self.repeated = repeated  # only the fields sent more than once
        self.body = body  # as received: the bytes that are verified

    @property
    def query(self) -> bytes:
        """The part of the target after the first "?", or nothing."""
        return self.target.partition(b"?")[2]


def field_values(head: bytes) -> dict[bytes, list[bytes]]:
    """All values of each field of a whole head, trimmed; names in lower case."""
    values: dict[bytes, list[bytes]] = {}
    for line in head[:-4].split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        values.setdefault(name.lower(), []).append(value.strip(b" \t"))
    return values


def joined(values: dict[bytes, list[bytes]]) -> dict[bytes, bytes]:
    """One value a field: several are joined by ", " (RFC 9110 §5.3)."""
    return {name: b", ".join(several) for name, several in values.items()}


class Delivery:
    """An accepted request on its way to its handlers."""

    __slots__ = (
        "body",
        "client",
        "endpoint",
        "event_id",
        "event_type",
        "has_one_handler",
        "head",
        "key",
        "kind",
        "open_handlers",
        "order_keys",
        "payloads",
        "position",
        "provider",
        "received_at_ns",
        "reply",
        "secret_index",
        "unwanted",
    )

    def __init__(
        self,
        endpoint: str,
        provider: str,
        event_id: str,
        event_type: str,
        head: bytes,
        body: bytes,
        received_at_ns: int,
        client: str,
        secret_index: int,
        payloads: tuple[Any, ...] = (),
        kind: str = "event",
        reply: Reply | None = None,
        position: int = -1,
        order_keys: tuple[str, ...] = (),
        open_handlers: int = 0,
        has_one_handler: bool = False,
        unwanted: dict[str, str] | None = None,
        key: bytes = b"",
    ) -> None:
        self.endpoint = endpoint
        self.provider = provider
        self.event_id = event_id  # the provider's, or else the digest of the body
        self.event_type = event_type
        self.head = head  # as received
        self.body = body  # as received: the bytes that were verified
        self.received_at_ns = received_at_ns  # wall clock
        self.client = client
        #: Which of the endpoint's secrets signed it, counted from 0; -1: none did.
        self.secret_index = secret_index
        #: One per distinct payload type of the handlers: the value, or the `Undecodable`.
        self.payloads = payloads
        #: "event" goes to the handlers; "ignored" and handshakes (by name) are answered alone.
        self.kind = kind
        self.reply = reply  # None: the endpoint's success answer
        self.position = position  # in the spool, once it is stored
        #: One per distinct `ordered_by` of the endpoint's handlers; empty: in no order.
        self.order_keys = order_keys
        self.open_handlers = open_handlers  # that have it in line or in hand
        self.has_one_handler = has_one_handler  # in all, and it was not tried before
        #: Handlers of the endpoint whose `when` is not true of it, and why.
        self.unwanted = unwanted
        self.key = key  # by what the spool knows it when it comes again, once that has it

    @property
    def headers(self) -> dict[bytes, bytes]:
        """The fields of its head, names in lower case: read anew each time.

        Most deliveries are asked for none, and wait in memory by the thousand.
        """
        return joined(field_values(self.head))


#: "wait": there was no attempt yet, for events of the same key come first. "skip": there is none,
#: for the handler does not want it. "hold": not yet. "superseded": a newer one runs in its place.
OutcomeKind = Literal["done", "retry", "dead", "wait", "skip", "hold", "superseded"]


class Outcome:
    """What one attempt came to."""

    __slots__ = (
        "attempt",
        "by",
        "delivery",
        "due_ns",
        "duration_s",
        "error",
        "handler",
        "is_discarded",
        "kind",
        "leaves",
        "order_key",
        "retry_in_s",
        "since_ns",
        "traceback",
    )

    def __init__(
        self,
        delivery: Delivery,
        handler: str,
        attempt: int,
        kind: OutcomeKind,
        duration_s: float,
        error: str = "",
        retry_in_s: float = 0.0,
        traceback: str = "",
        is_discarded: bool = False,
        leaves: bool = False,
        order_key: str = "",
        due_ns: int = 0,
        since_ns: int = 0,
        by: int = -1,
    ) -> None:
        self.delivery = delivery
        self.handler = handler
        self.attempt = attempt
        self.kind = kind
        self.duration_s = duration_s
        self.error = error  # one line; empty when done
        self.retry_in_s = retry_in_s
        self.traceback = traceback  # of an error that the handler did not raise on purpose
        self.is_discarded = is_discarded  # the handler does not want to try it again
        self.leaves = leaves  # memory: no other handler has the delivery in line or in hand
        self.order_key = order_key  # where events of the same key wait on disk for this one
        self.due_ns = due_ns  # of what is held: until then, wall clock
        #: Of what is held: receipt of the first event of its key that it stands for.
        self.since_ns = since_ns
        self.by = by  # of what is superseded: position of the newer one, if it has one
