"""Texts for a command with values of the event in them: `--branch={payload.ref}`.

What stands in braces is one of `payload`, `payload.PATH` (names and places, as in
`payload.commits.0.id`), `header.NAME`, `headers`, `query.NAME`, `query`, `body`, `id`, `type`,
`client`, `method`; a brace itself is written twice. Texts are as they are, all else is JSON; what
is not there is empty.
"""

import json
import re
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qsl

from fasthook.errors import ConfigError
from fasthook.model import Event, request_of

Source = Callable[[Event[Any]], Any]
_PART: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")


class Text:
    """A text that is filled in for each event."""

    def __init__(self, text: str, where: str) -> None:
        """`where`: for messages. Raises `ConfigError`."""
        self._parts: list[str | Source] = []
        for found in _PART.finditer(text):
            part = found[0]
            if found[1] is not None:
                self._parts.append(_source(found[1], f"{where}: {text!r}"))
            elif part in "{}":
                raise ConfigError(f"{where}: {text!r}: a brace alone; a brace itself is {part * 2}")
            else:
                self._parts.append(part[0] if part in ("{{", "}}") else part)

    def of(self, event: Event[Any]) -> bytes:
        """The text for an event."""
        return b"".join(_bytes(p if isinstance(p, str) else p(event)) for p in self._parts)


def argument(data: bytes) -> bytes:
    """What can be an argument or a variable: a NUL would end it early."""
    return data.replace(b"\0", b"")


def _bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if value is None:
        return b""
    if not isinstance(value, str):
        value = json.dumps(
            value, ensure_ascii=False, separators=(",", ":"), sort_keys=True, default=str
        )
    return str(value).encode("utf-8", "replace")


def _payload(event: Event[Any]) -> Any:
    try:
        return event.payload
    except ValueError:
        return None  # the body is no JSON


def _query(event: Event[Any]) -> dict[str, str]:
    """Of several of one name the first."""
    query = request_of(event._delivery).query.decode("latin-1")
    return dict(reversed(parse_qsl(query, keep_blank_values=True)))


_WHOLE: Final[dict[str, Source]] = {
    "payload": _payload,
    "headers": lambda event: event.headers,
    "query": _query,
    "body": lambda event: event.body,
    "id": lambda event: event.id,
    "type": lambda event: event.type,
    "client": lambda event: event._delivery.client,
    "method": lambda event: request_of(event._delivery).method,
}


def _source(name: str, where: str) -> Source:
    if name in _WHOLE:
        return _WHOLE[name]
    kind, _, rest = name.partition(".")
    if rest and kind == "payload":
        return lambda event: _at(_payload(event), rest)
    if rest and kind == "header":
        return lambda event: event.headers.get(rest.lower())
    if rest and kind == "query":
        return lambda event: _query(event).get(rest)
    expected = f"{', '.join(_WHOLE)}, payload.PATH, header.NAME or query.NAME"
    raise ConfigError(f"{where}: no value {name!r}; expected {expected}")


def _at(value: Any, path: str) -> Any:
    """What stands at a path; a key that holds the whole rest of it comes first."""
    if isinstance(value, dict) and path in value:
        return value[path]
    name, dot, rest = path.partition(".")
    if isinstance(value, list) and name.isdecimal() and int(name) < len(value):
        inner = value[int(name)]
    elif isinstance(value, dict) and name in value:
        inner = value[name]
    else:
        return None
    return _at(inner, rest) if dot else inner
