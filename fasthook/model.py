"""What travels down the line: Request → Delivery → Event → Outcome.

Plain values. This module knows no stage, no disk, no network and no clock.
"""

import typing
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Generic, TypeVar

import msgspec
import orjson

from fasthook import inbox
from fasthook.reply import Reply as Reply
from fasthook.transit import Delivery as Delivery
from fasthook.transit import Outcome as Outcome
from fasthook.transit import OutcomeKind as OutcomeKind
from fasthook.transit import Request as Request
from fasthook.transit import field_values as field_values
from fasthook.transit import joined as joined

T = TypeVar("T")

#: Due never: something else has to happen first.
NEVER_NS: Final = 2**63 - 1


def iso(at_ns: int) -> str | None:
    """A time for programs: UTC, to the microsecond; None: never, or no time."""
    if not 0 < at_ns < NEVER_NS:
        return None
    whole = datetime.fromtimestamp(at_ns // 10**9, UTC)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{at_ns % 10**9 // 1000:06}Z"


def texts(fields: Mapping[bytes, bytes]) -> dict[str, str]:
    """Header fields as ISO-8859-1 text (RFC 9110 §5.5)."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in fields.items()}


def key_of(delivery: Delivery) -> bytes:
    """By what a delivery is known when it comes again, also where no spool knows it."""
    if not delivery.key:
        is_signed, id_ = delivery.provider != "none", delivery.event_id
        delivery.key = inbox.new_key(delivery.endpoint, id_, delivery.body, is_signed=is_signed)
    return delivery.key


def request_of(delivery: Delivery) -> Request:
    """The request that a delivery was, from its head and body; events of `testing` have no head."""
    line = delivery.head.partition(b"\r\n")[0]
    method, target = (*line.split(), b"", b"")[:2]
    path = target.partition(b"?")[0]
    headers, keep_alive = delivery.headers, True
    return Request(method, target, path, delivery.head, headers, keep_alive, None, delivery.body)


class Undecodable(msgspec.Struct, frozen=True):
    """Stands where a payload would: the body is genuine, but not of the type that is wanted."""

    error: str


class Event(msgspec.Struct, Generic[T], gc=False, eq=False):
    """What happened at the provider, as a handler sees it.

    `payload` has the type that the handler declares with `Event[Type]`; without one it is what
    the JSON holds (for forms: a dict of the fields).
    """

    _delivery: Delivery
    _payload: Any
    #: Which run of this handler for this event it is, counted from 1.
    attempt: int
    _key: str = ""  # events of a handler with the same one run in order; empty: in no order
    _handler: str = ""  # its name in the configuration, while it runs
    _finished: set[str] | None = None  # steps of `once`
    _headers: dict[str, str] | None = None  # once they were asked for

    @property
    def id(self) -> str:
        """The provider's identifier; the same when the provider sends the event again."""
        return self._delivery.event_id

    @property
    def type(self) -> str:
        """The provider's word for what happened, such as "push"; empty if it sends none."""
        return self._delivery.event_type

    @property
    def endpoint(self) -> str:
        """Name of the endpoint that took the event."""
        return self._delivery.endpoint

    @property
    def provider(self) -> str:
        """Who sent it, as in `fasthook providers`."""
        return self._delivery.provider

    @property
    def payload(self) -> T:
        """The decoded body."""
        if isinstance(self._payload, Undecoded):
            self._payload = self._payload.decode(self._delivery.body)
        return typing.cast(T, self._payload)

    @property
    def body(self) -> bytes:
        """The body as received, byte for byte."""
        return self._delivery.body

    @property
    def headers(self) -> Mapping[str, str]:
        """The header fields; names in lower case, values as ISO-8859-1 text (RFC 9110 §5.5)."""
        if self._headers is None:
            self._headers = texts(self._delivery.headers)
        return self._headers

    @property
    def received_at(self) -> datetime:
        """When the request was complete, in UTC."""
        return datetime.fromtimestamp(self._delivery.received_at_ns / 1e9, UTC)

    def once(
        self,
        connection: Any,
        *,
        step: str = "",
        table: str = inbox.TABLE,
        keep_days: float = inbox.KEEP_DAYS,
    ) -> inbox.Once:
        """One transaction of your database for what this handler writes there, and for the row
        that says that it is done: `async with event.once(connection):`, or `with`.

        If the handler has done the event before, `AlreadyDone` is raised before the block, which
        ends the attempt as done. `step` tells several blocks of one handler apart; `table` is made
        where it is missing; rows go after `keep_days`. Raises `InboxError`: see `inbox.drivers`.
        """
        if self._finished is None:
            self._finished = set()
        row = inbox.row_of(self._handler, step, self.endpoint, key_of(self._delivery), self.id)
        return inbox.Once(connection, row, self._finished, table, keep_days)

    def __repr__(self) -> str:
        return f"<Event {self.endpoint}/{self.type} {self.id} attempt={self.attempt}>"


class Undecoded(msgspec.Struct, frozen=True):
    """Stands where an untyped payload would, until a handler asks for it.

    Decoded by orjson, whose time is bounded by the length of the body even for hostile floats.
    """

    decode: Callable[[bytes], Any] = orjson.loads
