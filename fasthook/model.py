"""What travels down the line: Request → Delivery → Event → Outcome; and what a handler is.

Plain values. This module knows no stage, no disk, no network and no clock.
"""

import inspect
import math
import re
import typing
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Generic, Literal, TypeVar, overload

import msgspec
import orjson

from fasthook import inbox

T = TypeVar("T")

#: Due never: something else has to happen first.
NEVER_NS: Final = 2**63 - 1

#: Where a handler runs: on the event loop (`async def`), in a thread (`def`), in a child process.
RunsIn = Literal["loop", "thread", "process"]


class Request(msgspec.Struct, gc=False):
    """One parsed HTTP request, not yet trusted."""

    method: bytes
    target: bytes  # as received, with the query
    path: bytes  # the part of the target before "?"
    head: bytes  # request line and fields as received, up to and with the blank line
    headers: dict[bytes, bytes]  # names in lower case; a repeated field's values joined by ", "
    keep_alive: bool
    repeated: dict[bytes, list[bytes]] | None = None  # only the fields sent more than once
    body: bytes = b""  # as received: the bytes that are verified

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


class Reply(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a sender is told where it wants more than a status."""

    status: int = 200
    content_type: str = "text/plain; charset=utf-8"
    body: str = ""
    headers: dict[str, str] = {}


class Delivery(msgspec.Struct, gc=False):
    """An accepted request on its way to its handlers."""

    endpoint: str
    provider: str
    event_id: str  # the provider's, or else the digest of the body
    event_type: str
    head: bytes  # as received
    body: bytes  # as received: the bytes that were verified
    headers: dict[bytes, bytes]
    received_at_ns: int  # wall clock
    client: str
    secret_index: int  # which of the endpoint's secrets signed it, counted from 0; -1: none did
    #: One per distinct payload type of the endpoint's handlers: the value, or the `Undecodable`.
    payloads: tuple[Any, ...] = ()
    #: "event" goes to the handlers; "ignored" and handshakes (by their name) are answered alone.
    kind: str = "event"
    reply: Reply | None = None  # None: the endpoint's success answer
    position: int = -1  # in the spool, once it is stored
    #: One per distinct `ordered_by` of the endpoint's handlers; empty: in no order.
    order_keys: tuple[str, ...] = ()
    open_handlers: int = 0  # that have it in line or in hand
    has_one_handler: bool = False  # in all, and it was not tried before
    #: Handlers of the endpoint whose `when` is not true of it, and why.
    unwanted: dict[str, str] | None = None
    key: bytes = b""  # by what the spool knows it when it comes again, once that has it


def key_of(delivery: Delivery) -> bytes:
    """By what a delivery is known when it comes again, also where no spool knows it."""
    if not delivery.key:
        is_signed, id_ = delivery.provider != "none", delivery.event_id
        delivery.key = inbox.new_key(delivery.endpoint, id_, delivery.body, is_signed=is_signed)
    return delivery.key


def request_of(delivery: Delivery) -> Request:
    """The request that a delivery was, from its head and body."""
    line = delivery.head.partition(b"\r\n")[0]
    method, target = line.split()[:2]
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
        return {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in self._delivery.headers.items()
        }

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


#: "wait": there was no attempt yet, for events of the same key come first. "skip": there is none,
#: for the handler does not want it. "hold": not yet. "superseded": a newer one runs in its place.
OutcomeKind = Literal["done", "retry", "dead", "wait", "skip", "hold", "superseded"]


class Outcome(msgspec.Struct, gc=False, eq=False):
    """What one attempt came to."""

    delivery: Delivery
    handler: str
    attempt: int
    kind: OutcomeKind
    duration_s: float
    error: str = ""  # one line; empty when done
    retry_in_s: float = 0.0
    traceback: str = ""  # of an error that the handler did not raise on purpose
    is_discarded: bool = False  # the handler does not want to try it again
    leaves: bool = False  # memory: no other handler has the delivery in line or in hand
    order_key: str = ""  # where events of the same key wait on disk for this one
    due_ns: int = 0  # of what is held: until then, wall clock
    since_ns: int = 0  # of what is held: receipt of the first event of its key that it stands for
    by: int = -1  # of what is superseded: position of the newer one, if it has one


class Breaker(msgspec.Struct, frozen=True):
    """After so many failures in a row a handler is left alone for `pause` seconds."""

    failures: int  # attempts that failed, of any events; 0: as many as there are
    pause: float = 30.0  # then one event is tried; if it fails, too, twice as long, up to an hour


class Handler(msgspec.Struct, frozen=True):
    """A function that takes events, and how it wants to be run."""

    function: Callable[..., Any]
    payload_type: Any
    runs_in: RunsIn
    retries: int = 5  # attempts after the first
    timeout_s: float = 30.0  # of one attempt
    concurrency: int = 16  # attempts at once
    rate: float = 0.0  # attempts per second; 0: as fast as they come
    #: "id", "payload.PATH" or "header.NAME": events that agree in it run one at a time, in order.
    ordered_by: str = ""
    #: An expression on the event (see `conditions`): the handler gets those of which it is true.
    when: str = ""
    #: As `ordered_by`: events that agree in it become one run, with the newest: see `within_s`.
    coalesce_by: str = ""
    within_s: float = 0.0  # no event of the key for so long: then it runs
    delay_s: float = 0.0  # from receipt to the first attempt, at the least
    not_before: str = ""  # "payload.PATH" or "header.NAME": the time before which it does not run
    breaker: Breaker | None = None


class HandlerFactory(msgspec.Struct, frozen=True):
    """A handler that takes settings: `build(settings)` makes the `Handler`.

    `settings` is a msgspec struct; the configuration's `[handlers.NAME]` table is decoded into it.
    """

    settings: type[msgspec.Struct]
    build: Callable[[Any], Handler]


#: Fields of a `Handler` that are options, in the order of `handler`'s.
_OPTIONS = (
    *("retries", "timeout_s", "concurrency", "rate", "ordered_by", "when", "coalesce_by"),
    *("within_s", "delay_s", "not_before", "breaker"),
)


@overload
def handler(function: Callable[..., Any], /) -> Handler: ...


@overload
def handler(
    *,
    retries: int = 5,
    timeout: float = 30.0,
    concurrency: int = 16,
    rate: float = 0.0,
    ordered_by: str = "",
    when: str = "",
    coalesce_by: str = "",
    within: float = 0.0,
    delay: float = 0.0,
    not_before: str = "",
    breaker: Breaker | None = None,
    runs_in: RunsIn | None = None,
) -> Callable[[Callable[..., Any]], Handler]: ...


def handler(  # noqa: PLR0913 - options, each by its name
    function: Callable[..., Any] | None = None,
    *,
    retries: int = 5,
    timeout: float = 30.0,
    concurrency: int = 16,
    rate: float = 0.0,
    ordered_by: str = "",
    when: str = "",
    coalesce_by: str = "",
    within: float = 0.0,
    delay: float = 0.0,
    not_before: str = "",
    breaker: Breaker | None = None,
    runs_in: RunsIn | None = None,
) -> Any:
    """Make a handler of a function that takes one `Event`.

    `async def` runs on the event loop, `def` in a thread; `runs_in="process"` runs either in a
    child process, for work that would hold the interpreter for long.
    `timeout`: seconds for one attempt. `rate`: attempts per second at the most.
    `ordered_by`: events that agree in it run one at a time, in order of receipt: "id",
    "payload.PATH" such as "payload.repository.id", or "header.NAME". One that fails holds back
    those of its key until it is done or dead; events without a value run in no order.
    `when`: a condition on the event, such as 'payload.ref == "refs/heads/main"': the handler gets
    the events of which it is true. It is checked when the service starts, and the endpoint's wins.
    `coalesce_by` and `within`: events that agree in it become one run, with the newest of them,
    once none has come for so many seconds; after ten times that in any case.
    `delay`: seconds from receipt to the first attempt, at the least. `not_before`: "payload.PATH"
    or "header.NAME", which holds the time (RFC 3339, or Unix) before which it does not run.
    `breaker`: such as `Breaker(failures=5, pause=30)`: see there.
    Raises `TypeError` or `ValueError` where the function or an option can't work.
    """

    values = (retries, timeout, concurrency, rate, ordered_by, when, coalesce_by, within, delay)
    options = dict(zip(_OPTIONS, (*values, not_before, breaker), strict=True))

    def decorate(function: Callable[..., Any]) -> Handler:
        return _made(function, runs_in, options)

    return decorate if function is None else decorate(function)


def _made(function: Callable[..., Any], runs_in: RunsIn | None, options: dict[str, Any]) -> Handler:
    if isinstance(function, Handler):
        raise TypeError("@handler stands twice over one function")
    is_async = inspect.iscoroutinefunction(function)
    where: RunsIn = runs_in or ("loop" if is_async else "thread")
    name = getattr(function, "__qualname__", repr(function))
    if where == "loop" and not is_async:
        raise TypeError(f"{name}: runs_in='loop' needs an async def")
    if where == "thread" and is_async:
        raise TypeError(f"{name}: runs_in='thread' needs a plain def")
    if where not in typing.get_args(RunsIn):
        raise ValueError(f"{name}: runs_in={where!r}; expected 'loop', 'thread' or 'process'")
    made = Handler(function, payload_type_of(function), where, **options)
    try:
        check_options(made)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return made


_FIELD = re.compile(r"(id|payload\.[^\s.]+(\.[^\s.]+)*|header\.[A-Za-z0-9-]+)?")


def check_options(handler: Handler) -> None:
    """Raise `ValueError`, "option=value; expected …", unless the handler can run like that."""
    for option, value, low in (
        ("retries", handler.retries, 0),
        ("concurrency", handler.concurrency, 1),
    ):
        if type(value) is not int or value < low:
            raise ValueError(f"{option}={value!r}; expected {low} or more, a whole number")
    for option, seconds in (
        ("timeout", handler.timeout_s),
        ("rate", handler.rate),
        ("within", handler.within_s),
        ("delay", handler.delay_s),
    ):
        if type(seconds) is bool or not isinstance(seconds, int | float):
            raise ValueError(f"{option}={seconds!r}; expected a number")
    for option, key in (
        ("ordered_by", handler.ordered_by),
        ("coalesce_by", handler.coalesce_by),
        ("not_before", handler.not_before),
    ):
        if not (isinstance(key, str) and _FIELD.fullmatch(key)):
            raise ValueError(f"{option}={key!r}; expected 'id', 'payload.PATH' or 'header.NAME'")
    _check_flow(handler)
    if not isinstance(handler.when, str):
        raise ValueError(f"when={handler.when!r}; expected an expression")
    if not 0 < handler.timeout_s < math.inf:
        raise ValueError(f"timeout={handler.timeout_s}; expected more than 0 seconds")
    if not 0 <= handler.rate < math.inf:
        raise ValueError(f"rate={handler.rate}; expected 0 (no limit) or more per second")


#: More than anybody waits; whatever waits is kept on disk.
_MAX_WAIT_S = 366 * 86400


def _check_flow(handler: Handler) -> None:
    """Raise `ValueError` where options that keep events from their runs can't be, or not both."""
    for option, seconds in (("within", handler.within_s), ("delay", handler.delay_s)):
        if not 0 <= seconds <= _MAX_WAIT_S:
            raise ValueError(f"{option}={seconds}; expected 0 seconds to {_MAX_WAIT_S}")
    breaker = handler.breaker
    if breaker is not None and not isinstance(breaker, Breaker):
        raise ValueError(f"breaker={breaker!r}; expected such as Breaker(failures=5, pause=30)")
    if breaker is not None and not (breaker.failures >= 0 and 0 < breaker.pause <= _MAX_WAIT_S):
        expected = "failures of 0 or more and a pause above zero"
        raise ValueError(f"breaker={breaker!r}; expected {expected}")
    if handler.coalesce_by and not handler.within_s:
        raise ValueError("within=0; expected more than 0 seconds, since there is a coalesce_by")
    if handler.within_s and not handler.coalesce_by:
        raise ValueError(f"within={handler.within_s}; has no meaning without coalesce_by")
    if handler.ordered_by and handler.coalesce_by:
        raise ValueError(
            f"coalesce_by={handler.coalesce_by!r}; expected it or ordered_by, not both"
        )
    for option, value in (("delay", handler.delay_s), ("not_before", handler.not_before)):
        if value and (handler.ordered_by or handler.coalesce_by):
            raise ValueError(f"{option}={value!r}; does not go with ordered_by or coalesce_by")


_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def payload_type_of(function: Callable[..., Any]) -> Any:
    """`Order` of `def f(event: Event[Order])`; `Any` where the function does not say.

    Raises `TypeError` if the function does not take exactly one argument.
    """
    name = getattr(function, "__qualname__", repr(function))
    parameters = list(inspect.signature(function).parameters.values())
    wanted = [p for p in parameters if p.default is p.empty and p.kind not in _VARIADIC]
    if len(wanted) != 1 or wanted[0].kind is inspect.Parameter.KEYWORD_ONLY:
        raise TypeError(f"{name}: a handler takes one argument, the event; got {len(wanted)}")
    try:
        hint = typing.get_type_hints(function).get(wanted[0].name, Any)
    except Exception as error:
        raise TypeError(f"{name}: its annotations can't be resolved: {error}") from None
    if typing.get_origin(hint) is Event:
        return typing.get_args(hint)[0]
    return Any
