"""Handlers with the options that a configuration gives them."""

import difflib
from typing import Any, Final

import msgspec

from fasthook.converting import convert
from fasthook.dispatch import registry
from fasthook.dispatch.routes import Registered
from fasthook.errors import ConfigError
from fasthook.handling import Breaker, Handler, HandlerFactory, check_options
from fasthook.values import Duration, Rate


class _Breaker(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`breaker = { failures = 5, pause = "30s" }`; 0 failures: none."""

    failures: int
    pause: Duration = Duration(30)


class _RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Keys of `[handlers.NAME]` that every handler has; all others are its own settings."""

    use: str = ""  # the entry point; empty: the same name
    retries: int | None = None
    timeout: Duration | None = None
    concurrency: int | None = None
    rate: Rate | None = None
    ordered_by: str | None = None
    when: str | None = None
    coalesce_by: str | None = None
    within: Duration | None = None
    delay: Duration | None = None
    not_before: str | None = None
    breaker: _Breaker | None = None


#: Options whose field of a `Handler` has another name.
_FIELDS: Final = {"timeout": "timeout_s", "within": "within_s", "delay": "delay_s"}
RUN_OPTIONS: Final = frozenset(field.name for field in msgspec.structs.fields(_RunOptions))


def registered(name: str, table: dict[str, Any], where: str) -> Registered:
    """A handler as `[handlers.NAME]` has it. `where`: who names it. Raises `ConfigError`."""
    options = convert(
        {k: v for k, v in table.items() if k in RUN_OPTIONS}, _RunOptions, f"handlers.{name}"
    )
    settings = {k: v for k, v in table.items() if k not in RUN_OPTIONS}
    entry_point = options.use or name
    try:
        found = registry.find(entry_point)
    except ConfigError as error:
        place = f"handlers.{name}.use" if options.use else f"{where}.handlers"
        raise ConfigError(f"{place}: {error}") from None
    handler = _configured(name, found, settings)
    given = msgspec.structs.asdict(options)
    changes = {_FIELDS.get(n, n): v for n, v in given.items() if v is not None and n != "use"}
    if options.breaker is not None:
        changes["breaker"] = Breaker(options.breaker.failures, float(options.breaker.pause))
    seconds = {n: float(v) for n, v in changes.items() if isinstance(v, float)}
    handler = msgspec.structs.replace(handler, **changes | seconds)
    try:
        check_options(handler)
    except ValueError as error:
        option, _, rest = str(error).partition("=")
        raise ConfigError(f"handlers.{name}.{option}: {rest}") from None
    return Registered(name, handler, entry_point, settings)


def _configured(name: str, found: Handler | HandlerFactory, settings: dict[str, Any]) -> Handler:
    where = f"handlers.{name}"
    if isinstance(found, Handler):
        if settings:
            key = next(iter(settings))
            close = difflib.get_close_matches(key, RUN_OPTIONS, 1)
            hint = f"did you mean {close[0]!r}?" if close else "this handler has no settings"
            raise ConfigError(f"{where}.{key}: unknown key; {hint}")
        return found
    try:
        return found.build(convert(settings, found.settings, where))
    except ConfigError as error:
        text = str(error)
        raise ConfigError(text if text.startswith(where) else f"{where}.{text}") from None
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{where}: {error}") from None
