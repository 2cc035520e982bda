"""What a handler is: a function that takes events, and how it wants to be run.

`handler` makes one of a function, and `check_options` says what can't be.
"""

import inspect
import math
import re
import typing
from collections.abc import Callable
from typing import Any, Literal, overload

import msgspec

from fasthook.model import Event

#: Where a handler runs: on the event loop (`async def`), in a thread (`def`), in a child process.
RunsIn = Literal["loop", "thread", "process"]


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
