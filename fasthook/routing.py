"""How an endpoint's events come to its handlers: to which, with what payload, in what order."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from fasthook.conditions import BadExpression, Condition
from fasthook.config import Config, Endpoint
from fasthook.dispatch.flow import needs_flow
from fasthook.dispatch.routes import Wanted
from fasthook.errors import ConfigError
from fasthook.handling import Handler
from fasthook.intake.filters import Filter


class Routing(NamedTuple):
    """What an endpoint has to find in its events, and which handler takes what of it."""

    types: list[Any]  # the distinct types of payloads
    keys: list[str]  # the distinct fields by which events are ordered, coalesced or put off
    filters: tuple[Filter, ...]
    wanted: list[Wanted]


def routing(handlers: Mapping[str, Handler], whens: Mapping[str, Condition]) -> Routing:
    """Of these handlers, in their order; `whens`: the conditions of some."""
    types: list[Any] = []  # compared, since not all types can be hashed
    for handler in handlers.values():
        if handler.payload_type not in types:
            types.append(handler.payload_type)
    untyped = -1
    if any("payload" in when.variables for when in whens.values()):
        if Any not in types:
            types.append(Any)
        untyped = types.index(Any)
    asked = [(h.ordered_by or h.coalesce_by, h.not_before) for h in handlers.values()]
    keys = list(dict.fromkeys(key for each in asked for key in each if key))
    return Routing(
        types,
        keys,
        tuple(Filter(name, when, untyped) for name, when in whens.items()),
        [
            Wanted(
                name,
                types.index(h.payload_type),
                _index(keys, h.ordered_by or h.coalesce_by),
                _index(keys, h.not_before),
                name in whens or needs_flow(h),
            )
            for name, h in handlers.items()
        ],
    )


def _index(keys: list[str], key: str) -> int:
    return keys.index(key) if key else -1


def conditions_of(
    endpoint: Endpoint, handlers: Mapping[str, Handler], config: Config, where: str
) -> dict[str, Condition]:
    """By handler: `when` of the endpoint, or else the handler's own. Raises `ConfigError`."""
    texts: dict[str, tuple[str, str]] = {}  # by handler: where it stands, and the expression
    for index, each in enumerate(endpoint.handlers):
        if isinstance(each, str) or each.when is None:
            name = each if isinstance(each, str) else each.name
            texts[name] = own_when(name, handlers[name], config)
        else:
            texts[each.name] = f"{where}.handlers[{index}].when", each.when
    return compiled({name: text for name, text in texts.items() if text[1]})


def own_when(name: str, handler: Handler, config: Config) -> tuple[str, str]:
    """The handler's own `when`: where it stands, and the expression."""
    is_configured = "when" in config.handlers.get(name, {})
    return f"handlers.{name}.when" if is_configured else f"handler {name}: when", handler.when


def compiled(texts: Mapping[str, tuple[str, str]]) -> dict[str, Condition]:
    """Conditions by name, of where each stands and its text. Raises `ConfigError`."""
    same: dict[str, Condition] = {}
    found = {}
    for name, (where, text) in texts.items():
        try:
            found[name] = same[text] = same.get(text) or Condition(text)
        except BadExpression as error:
            raise ConfigError(f"{where}: {text!r}: {error}") from None
    return found
