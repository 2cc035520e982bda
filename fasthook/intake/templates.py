"""Selectors and templates: how a description says where something stands, and what is signed.

A selector names one value of a request:
    header:NAME   json:PATH (dots between keys, numbers index lists)   form:NAME   query:NAME
    signature:KEY (a field of a key-value signature header)
A pattern is a selector, or text with several in braces, such as {json:type}.{json:action}.
A template is text with such selectors, and these words, in braces:
    {body} {timestamp} {method} {path} {target} {url} {secret}
    {body_sha256} (in hex) {body_sha256_bytes} {body_crc32} (in decimal)
    {form_sorted} (names and values, decoded, by name) {query_sorted} (the same, encoded)
    {config:NAME} (a setting of the endpoint)
    {signed_headers:KEY} (the values of the headers that a field of the signature header names)
"""

import hashlib
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs, parse_qsl, urlencode

import orjson

from fasthook.errors import NoSignature
from fasthook.model import Request

SELECTOR_KINDS: Final = ("header", "json", "form", "query", "signature")
#: Stands for the secret among the pieces of a message: which one, only the comparison knows.
SECRET: Final = b"{secret}"
#: What holds the whole body. A CRC does not: anybody can make another body with the same one.
_WHOLE: Final = ("{body}", "{body_sha256}", "{body_sha256_bytes}", "{form_sorted}")
#: Headers that a signature header may name as signed. Beyond: refused.
_MAX_SIGNED_HEADERS: Final = 20
_INDEX: Final = re.compile(r"[0-9]{1,9}")
_FIELD: Final = re.compile(r"\{([^{}]*)\}")
#: Form and query fields that are looked at. Beyond: none of them is found.
_MAX_FIELDS: Final = 1000


class Found:
    """What was read out of a signature header and its companions."""

    __slots__ = ("computed", "fields", "signatures", "timestamp", "url")

    def __init__(
        self,
        signatures: list[bytes],
        timestamp: bytes = b"",
        fields: dict[bytes, bytes] | None = None,
        url: bytes = b"",
    ) -> None:
        self.signatures = signatures
        self.timestamp = timestamp  # as sent: a re-formatted number would sign something else
        self.fields = fields
        self.url = url  # the public URL, as configured at the sender
        self.computed = b""  # what a handshake wants to see proven


class Selector(NamedTuple):
    """One value of a request."""

    kind: str
    name: str
    key: bytes = b""  # the name as bytes

    @classmethod
    def parse(cls, text: str) -> "Selector":
        """Raises `ValueError` that says what was expected."""
        kind, colon, name = text.partition(":")
        if not colon or kind not in SELECTOR_KINDS or not name:
            kinds = ", ".join(f"{kind}:…" for kind in SELECTOR_KINDS)
            raise ValueError(f"{text!r} selects nothing; expected one of {kinds}")
        name = name.lower() if kind == "header" else name
        return cls(kind, name, name.encode())

    def read(self, request: Request, fields: dict[bytes, bytes] | None = None) -> bytes | None:
        """The value as bytes, or None where the request has none."""
        if self.kind == "header":
            return request.headers.get(self.key)
        if self.kind == "signature":
            return (fields or {}).get(self.key)
        if self.kind == "query":
            return _form_value(request.query, self.name)
        if self.kind == "form":
            return _form_value(request.body, self.name)
        return scalar(json_at(request.body, self.name))


def pattern_of(text: str) -> list[Selector | str]:
    """The selectors of a pattern, and the texts between them. Raises `ValueError`."""
    if "{" not in text:
        return [Selector.parse(text)]
    pieces = _FIELD.split(text)  # texts, with the fields between them
    parts = [Selector.parse(piece) if at % 2 else piece for at, piece in enumerate(pieces)]
    if any(isinstance(part, str) and ("{" in part or "}" in part) for part in parts):
        raise ValueError(f"{text!r}: a brace without its partner")
    return [part for part in parts if part]


def spread(text: str, value: str) -> list[tuple[Selector, str]]:
    """The other way round: what each selector of a pattern has to find to make up `value`.

    Where the value is of another form, it is all for the first one.
    """
    parts = pattern_of(text)
    selectors = [part for part in parts if isinstance(part, Selector)]
    form = "".join(re.escape(part) if isinstance(part, str) else "(.+?)" for part in parts)
    found = re.fullmatch(form, value, re.DOTALL)
    if found is None:
        return [(selectors[0], value)]
    return list(zip(selectors, found.groups(), strict=True))


class Template:
    """What a provider signs, in pieces that are hashed one after the other."""

    def __init__(self, text: str, settings: Mapping[str, str] | None = None) -> None:
        """Raises `ValueError` for an unknown field or an unbalanced brace.

        `settings`: the endpoint's, for `{config:NAME}`.
        """
        self.text = text
        self._given = settings or {}
        #: Names of the settings that the template has a place for.
        self.settings: list[str] = []
        self.selectors: list[Selector] = []
        self._parts: list[bytes | Callable[[Request, Found], bytes]] = []
        position = 0
        for match in _FIELD.finditer(text):
            self._add_literal(text[position : match.start()])
            self._parts.append(self._getter(match[1]))
            position = match.end()
        self._add_literal(text[position:])
        #: Whether every byte of the body is signed.
        self.covers_body = any(word in text for word in _WHOLE)
        self._is_body_alone = text == "{body}"
        #: Whether it holds anything that the sender made up for this request.
        self.signs_something = bool(self.selectors) or any(
            f"{{{word}}}" in text for word in _GETTERS if word not in ("timestamp", "url", "secret")
        )

    def _add_literal(self, text: str) -> None:
        if "{" in text or "}" in text:
            raise ValueError(f"{self.text!r}: a brace without its partner")
        if text:
            self._parts.append(text.encode())

    def _getter(self, field: str) -> Callable[[Request, Found], bytes]:
        if field in _GETTERS:
            return _GETTERS[field]
        kind, _, name = field.partition(":")
        if kind == "config" and name:
            self.settings.append(name)
            value = self._given.get(name, "").encode()
            return lambda request, found: value
        if kind == "signed_headers" and name:
            return _signed_headers(name.encode())
        try:
            selector = Selector.parse(field)
        except ValueError as error:
            words = " ".join(f"{{{word}}}" for word in _GETTERS)
            raise ValueError(f"{self.text!r}: {error}, or {words}") from None
        self.selectors.append(selector)

        def read(request: Request, found: Found) -> bytes:
            value = selector.read(request, found.fields)
            if value is None:
                raise NoSignature(f"{field} is signed, but the request has none")
            return value

        return read

    def text_of(self) -> str:
        """The text with its settings filled in: for templates that have nothing else."""
        return _FIELD.sub(lambda match: self._given.get(match[1].partition(":")[2], ""), self.text)

    def pieces(self, request: Request, found: Found) -> list[bytes]:
        """The signed bytes, in order. Raises `NoSignature` where one of them is missing."""
        if self._is_body_alone:
            return [request.body]
        return [part if isinstance(part, bytes) else part(request, found) for part in self._parts]

    def signs(self, selector: Selector) -> bool:
        """Whether the selected value is among what is signed."""
        if selector.kind in ("json", "form"):
            return self.covers_body or selector in self.selectors
        return selector in self.selectors


_GETTERS: Final[dict[str, Callable[[Request, Found], bytes]]] = {
    "body": lambda request, found: request.body,
    "timestamp": lambda request, found: found.timestamp,
    "method": lambda request, found: request.method,
    "path": lambda request, found: request.path,
    "target": lambda request, found: request.target,
    "url": lambda request, found: found.url,
    "secret": lambda request, found: SECRET,
    "computed": lambda request, found: found.computed,
    "body_sha256": lambda request, found: hashlib.sha256(request.body).hexdigest().encode(),
    "body_sha256_bytes": lambda request, found: hashlib.sha256(request.body).digest(),
    "body_crc32": lambda request, found: str(zlib.crc32(request.body)).encode(),
    "form_sorted": lambda request, found: _sorted_form(request.body),
    "query_sorted": lambda request, found: urlencode(sorted(_pairs(request.query))).encode(),
}


def _signed_headers(key: bytes) -> Callable[[Request, Found], bytes]:
    def read(request: Request, found: Found) -> bytes:
        names = (found.fields or {}).get(key, b"").lower().split()
        if len(names) > _MAX_SIGNED_HEADERS:
            raise NoSignature(f"{len(names)} signed headers, limit {_MAX_SIGNED_HEADERS}")
        values = [request.headers.get(name) for name in names]
        missing = next((n for n, value in zip(names, values, strict=True) if value is None), None)
        if missing is not None:
            raise NoSignature(f"header:{missing.decode('latin-1')} is signed, but there is none")
        return b".".join([value for value in values if value is not None])

    return read


def _pairs(form: bytes) -> list[tuple[str, str]]:
    """Decoded names and values, as they come."""
    try:
        return parse_qsl(form.decode(), True, strict_parsing=False, max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise NoSignature("the form that is signed can't be read") from None


def _sorted_form(form: bytes) -> bytes:
    return "".join(name + value for name, value in sorted(_pairs(form))).encode()


def json_at(body: bytes, path: str) -> Any:
    """What stands at `path` of a JSON body; None where nothing does, or the body is no JSON."""
    try:
        value = orjson.loads(body)
    except (ValueError, RecursionError):
        return None
    return walk(value, path.split("."))


def walk(value: Any, keys: Sequence[str]) -> Any:
    """What stands behind `keys`, or None."""
    for key in keys:
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and _INDEX.fullmatch(key) and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return value


def scalar(value: Any) -> bytes | None:
    """Text and whole numbers as bytes; nothing else can name a thing."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value).encode()
    return None


def _form_value(form: bytes, name: str) -> bytes | None:
    try:
        fields = parse_qs(
            form.decode("latin-1"), True, encoding="latin-1", max_num_fields=_MAX_FIELDS
        )
    except ValueError:
        return None
    values = fields.get(name)
    return values[0].encode("latin-1") if values and len(values) == 1 else None
