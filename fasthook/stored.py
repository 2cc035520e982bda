"""What is stored of an event, as an expression, a program or a person may see it.

Nothing here is a secret: fields that make a request genuine, or somebody trusted, are left out.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any, Final

import orjson

from fasthook.conditions import NOT_THERE, NoBoolean, compiled
from fasthook.config import Config
from fasthook.errors import BadPayload, BodyTooLarge, ConfigError
from fasthook.intake import catalogue
from fasthook.intake.inflating import gunzipped
from fasthook.intake.multiparts import multipart_fields
from fasthook.intake.payloads import form_fields
from fasthook.logs import escape
from fasthook.model import field_values, iso
from fasthook.spool.found import Found, Kept
from fasthook.spool.records import ACCEPTED, Accepted
from fasthook.verifying import provider_of, scheme_of

HIDDEN: Final = "…"
#: Headers with one of these in their name are not shown, whoever sent them.
_SECRET_WORDS: Final = (
    "api-key",
    "apikey",
    "authorization",
    "cookie",
    "hmac",
    "password",
    "secret",
    "signature",
    "token",
    "x-auth",
)


class Headers:
    """Which fields of a head may be seen."""

    def __init__(self, settings: Config) -> None:
        names = {name.decode() for name in catalogue.security_headers()}
        for endpoint in settings.endpoint:
            try:
                scheme = scheme_of(endpoint, provider_of(endpoint, ""), "")
            except ConfigError:
                continue  # a service would not start with it; the words below are left
            names |= {name.decode() for name in scheme.security_headers()} if scheme else set()
        self._names = names

    def is_secret(self, name: str) -> bool:
        """Whether a field may hold what makes a request genuine, or somebody trusted."""
        name = name.lower()
        return name in self._names or any(word in name for word in _SECRET_WORDS)

    def shown(self, head: bytes) -> list[str]:
        """A whole head for people: one line a field, secrets hidden."""
        line, *fields = head[:-4].decode("latin-1").split("\r\n")
        lines = [escape(line)]
        for field in fields:
            name, _, value = field.partition(":")
            value = HIDDEN if self.is_secret(name) else value.strip(" \t")
            lines.append(f"{escape(name)}: {escape(value)}")
        return lines

    def public(self, head: bytes) -> dict[str, str]:
        """The fields for programs, without the secret ones; names in lower case."""
        fields: dict[str, str] = {}
        for field in head[:-4].decode("latin-1").split("\r\n")[1:]:
            name, _, value = field.partition(":")
            name, value = name.lower(), value.strip(" \t")
            if not self.is_secret(name):
                fields[name] = f"{fields[name]}, {value}" if name in fields else value
        return fields


class Where:
    """An expression on what is stored: see `conditions.VARIABLES`."""

    def __init__(self, expression: str, settings: Config) -> None:
        """Raises `BadExpression`."""
        self._program = compiled(expression)
        self._names = self._program.variables()
        self._headers = functools.cache(lambda: Headers(settings))

    def __call__(self, found: Found, kept: Kept) -> bool:
        """Whether it is true; what it asks about and is not there, or of another type, is false.

        Raises `NoBoolean`, and `OverflowError` where it can't be computed.
        """
        known: dict[str, Callable[[], Any]] = {
            "id": lambda: found.event_id,
            "type": lambda: found.event_type,
            "endpoint": lambda: found.endpoint,
            "received_at": lambda: iso(found.received_at_ns),
            "headers": lambda: self._headers().public(kept.head),
            "payload": lambda: payload_of(kept),
        }
        try:
            result = self._program.execute({n: known[n]() for n in self._names if n in known})
        except NOT_THERE:
            return False
        if not isinstance(result, bool):
            raise NoBoolean(result)
        return result


def is_genuine(accepted: Accepted) -> bool:
    """Whether it was verified; or nothing ever is, at its endpoint."""
    return accepted.secret_index >= 0 or accepted.provider == "none"


def genuine_payload(kept: Kept | None) -> Any:
    """The payload of what is there and genuine; else None."""
    if kept is None or kept.kind != ACCEPTED or not is_genuine(kept.accepted):
        return None
    return payload_of(kept)


def payload_of(kept: Kept) -> Any:
    """The payload as an untyped handler has it; None if the body is neither JSON nor a form."""
    fields, body = field_values(kept.head), kept.body
    content_type = b"".join(fields.get(b"content-type", []))
    try:
        if fields.get(b"content-encoding") == [b"gzip"]:
            body = gunzipped(body, sys.maxsize)  # it was within bounds when it came
        if b"form-urlencoded" in content_type.lower():
            return _event_in(form_fields(body), kept.accepted.provider)
        if b"multipart/form-data" in content_type.lower():
            return _event_in(multipart_fields(content_type, body), kept.accepted.provider)
        return orjson.loads(body)
    except (ValueError, BadPayload, BodyTooLarge):
        return None


def _event_in(fields: dict[str, Any], provider: str) -> Any:
    """The JSON in the field where this provider has the event; else the fields."""
    name = catalogue.load(provider).form_payload if provider in catalogue.names() else ""
    inner = fields.get(name)
    return orjson.loads(inner) if name and isinstance(inner, str) else fields
