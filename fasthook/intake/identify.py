"""What a verified request is about: event id, event type, payloads."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import orjson

from fasthook.errors import BadPayload, WrongContentType
from fasthook.intake.inflating import gunzipped
from fasthook.intake.multiparts import multipart_fields
from fasthook.intake.payloads import (
    Bodies,
    check_json,
    convert_form,
    decoder_of,
    form_fields,
    kind_of,
    not_json,
)
from fasthook.intake.templates import Selector, pattern_of, scalar, walk
from fasthook.model import Request, Undecoded

#: Ids and types are kept, logged and compared. Beyond: cut off (types), or digested (ids).
MAX_NAME_CHARS: Final = 256


#: Event id, event type, payloads; and what was read of the body, by selector.
Identity = tuple[str, str, tuple[Any, ...], dict[str, str]]


#: From request, event id and what was read of the body to the key; empty: there is none.
OrderKey = Callable[[Request, str, dict[str, str]], str]


class Identifier:
    """Reads id, type and payloads of one endpoint's requests."""

    def __init__(
        self,
        event_id: Sequence[str],
        event_type: Sequence[str],
        bodies: Bodies,
        payload_types: Sequence[Any],
        also: Sequence[str] = (),
    ) -> None:
        """`payload_types`: the distinct types of the handlers. Raises `ConfigError`.

        `event_id`: selectors; `event_type`: patterns. The first that finds something counts.
        `also`: selectors whose values somebody else wants to find in what was read of the body.
        """
        ids = [Selector.parse(text) for text in event_id]
        patterns = [pattern_of(text) for text in event_type]
        types = [part for pattern in patterns for part in pattern if isinstance(part, Selector)]
        self._ids = [_reader_of(selector) for selector in ids]
        self._types = [_joined_reader_of(pattern) for pattern in patterns]
        self._id_header = _only_header(ids)
        self._type_header = _only_header(types if len(patterns) == 1 else [])
        self._content, self._form_payload, self._json_types, self._may_be_empty = bodies[:4]
        self._encodings, self._max_bytes = bodies.encodings, bodies.max_bytes
        self._payload_types = list(payload_types)
        self._decoders = [decoder_of(payload_type) for payload_type in payload_types]
        wanted = ids + types + [Selector.parse(text) for text in also]
        json_paths = list(dict.fromkeys(s.name for s in wanted if s.kind == "json"))
        self._envelope = envelope_reader(json_paths) if json_paths else None
        #: Whether the decoders find out by themselves that a body is no JSON.
        self._is_checked = bool(payload_types) and all(
            t not in (Any, object) for t in payload_types
        )

    @property
    def payload_count(self) -> int:
        """How many payloads `identify` finds."""
        return len(self._payload_types)

    def identify(self, request: Request) -> Identity:
        """Raises `BadPayload` and `WrongContentType`."""
        if b"content-encoding" in request.headers:
            return self._identify_encoded(request)
        if not request.body and (self._may_be_empty or request.method == b"GET"):
            # What happened stands there.
            return self._identify_fields(request, form_fields(request.query))
        kind = kind_of(request.headers.get(b"content-type"), self._content, self._json_types)
        if kind == "json":
            return self._identify_json(request, request.body)
        if kind == "form":
            return self._identify_fields(request, form_fields(request.body))
        if kind == "multipart":
            content_type = request.headers[b"content-type"]
            return self._identify_fields(request, multipart_fields(content_type, request.body))
        payloads = tuple(request.body for _ in self._payload_types)
        return self._name(request, _NOTHING), self._type(request, _NOTHING), payloads, _NOTHING

    def _identify_json(self, request: Request, body: bytes) -> Identity:
        if not body:
            raise BadPayload("the body is empty; expected JSON")
        found = self._envelope(body) if self._envelope is not None else _NOTHING
        if not self._is_checked:
            check_json(body)
        decoders = self._decoders
        if len(decoders) == 1:
            payloads: tuple[Any, ...] = (decoders[0](body),)
        else:
            payloads = tuple([decode(body) for decode in decoders])
        headers = request.headers
        try:  # by far most ids and types are short ASCII in a header of their own
            event_id = str(headers[self._id_header], "ascii")
            event_type = str(headers[self._type_header], "ascii")
            if 0 < len(event_id) <= MAX_NAME_CHARS >= len(event_type):
                return event_id, event_type, payloads, found
        except (KeyError, UnicodeDecodeError):
            pass
        return self._name(request, found), self._type(request, found), payloads, found

    def _identify_encoded(self, request: Request) -> Identity:
        """What is signed, and stored, are the encoded bytes; the payload is what they hold."""
        coding = request.headers[b"content-encoding"].strip().lower().decode("latin-1")
        if coding not in self._encodings:
            expected = " or ".join(self._encodings) or "a body that is not encoded"
            raise WrongContentType(f"content encoding {coding!r}; expected {expected}")
        body = gunzipped(request.body, self._max_bytes)
        headers = {k: v for k, v in request.headers.items() if k != b"content-encoding"}
        identity = self.identify(
            Request(request.method, request.target, request.path, b"", headers, True, None, body)
        )
        return self._with_all_payloads(identity, body)

    def _with_all_payloads(self, identity: Identity, body: bytes) -> Identity:
        """The event's body is another than `body`, so nothing can be decoded from it later."""
        payloads = tuple(
            [orjson.loads(body) if isinstance(p, Undecoded) else p for p in identity[2]]
        )
        return identity[0], identity[1], payloads, identity[3]

    def _identify_fields(self, request: Request, fields: dict[str, Any]) -> Identity:
        inner = fields.get(self._form_payload) if self._form_payload else None
        found = {f"form:{name}": v for name, v in fields.items() if isinstance(v, str)}
        if isinstance(inner, str):
            body = inner.encode()
            identity = self._with_all_payloads(self._identify_json(request, body), body)
            return identity[0], identity[1], identity[2], found | identity[3]
        payloads = tuple(convert_form(fields, t) for t in self._payload_types)
        return self._name(request, found), self._type(request, found), payloads, found

    def _name(self, request: Request, found: dict[str, str]) -> str:
        for read in self._ids:
            event_id = read(request, found)
            if event_id:
                if len(event_id) <= MAX_NAME_CHARS:
                    return event_id
                return hashlib.sha256(event_id.encode("utf-8", "replace")).hexdigest()
        # Nothing names the event: equal bodies are equal events, or without one equal targets.
        return hashlib.sha256(request.body or request.target).hexdigest()[:32]

    def _type(self, request: Request, found: dict[str, str]) -> str:
        for read in self._types:
            event_type = read(request, found)
            if event_type:
                return event_type[:MAX_NAME_CHARS]
        return ""


_NOTHING: Final[dict[str, str]] = {}


def order_key_of(ordered_by: str) -> tuple[OrderKey, list[str]]:
    """The reader for "id", "payload.PATH" or "header.NAME"; and the selectors that the identifier
    has to find for it.
    """
    where, _, what = ordered_by.partition(".")
    if where == "id":
        return lambda request, event_id, found: event_id, []
    if where == "header":
        name = what.lower().encode()
        return lambda request, event_id, found: request.headers.get(name, b"").decode("latin-1"), []
    json, form = f"json:{what}", f"form:{what}"
    return lambda request, event_id, found: found.get(json) or found.get(form, ""), [json]


def _only_header(selectors: list[Selector]) -> bytes:
    """The name of the header that is the only place to look at, or "" where there is no such."""
    is_one = len(selectors) == 1 and selectors[0].kind == "header"
    return selectors[0].key if is_one else b""


def _reader_of(selector: Selector) -> Callable[[Request, dict[str, str]], str]:
    """A function that gives the selected value as text, or "" where there is none."""
    key = selector.key

    def from_header(request: Request, found: dict[str, str]) -> str:
        value = request.headers.get(key)
        return value.decode("utf-8", "replace") if value else ""

    def from_query(request: Request, found: dict[str, str]) -> str:
        value = selector.read(request)
        return value.decode("utf-8", "replace") if value else ""

    text = f"{selector.kind}:{selector.name}"

    def from_body(request: Request, found: dict[str, str]) -> str:
        return found.get(text, "")

    return {"header": from_header, "query": from_query}.get(selector.kind, from_body)


def _joined_reader_of(
    pattern: Sequence[Selector | str],
) -> Callable[[Request, dict[str, str]], str]:
    """A function that gives all of the pattern, or "" where one of the values is missing."""
    if len(pattern) == 1 and isinstance(pattern[0], Selector):
        return _reader_of(pattern[0])
    parts = [part if isinstance(part, str) else _reader_of(part) for part in pattern]

    def joined(request: Request, found: dict[str, str]) -> str:
        values = [part if isinstance(part, str) else part(request, found) for part in parts]
        return "".join(values) if all(values) else ""

    return joined


def envelope_reader(paths: Sequence[str]) -> Callable[[bytes], dict[str, str]]:
    """A function that reads the values at `paths` of a JSON body, and nothing else of it.

    It returns those which are text or whole numbers, under "json:PATH"; raises `BadPayload`.
    """
    tree = _tree_of(paths)
    if tree is None:
        return _slow_reader(paths)
    slow = _slow_reader(paths)
    decode = msgspec.json.Decoder(_envelope_type("Envelope", tree)).decode
    getters = [(f"json:{path}", _attribute_path(tree, path)) for path in paths]

    def read(body: bytes) -> dict[str, str]:
        try:
            envelope = decode(body)
        except msgspec.ValidationError:
            return slow(body)  # one of the values is of another kind; the rest still counts
        except (ValueError, RecursionError) as error:
            raise not_json(error) from None
        found = {}
        for name, attributes in getters:
            value: Any = envelope
            for attribute in attributes:
                value = getattr(value, attribute, None)
            if value is not None:
                found[name] = value if isinstance(value, str) else str(value)
        return found

    return read


def _tree_of(paths: Sequence[str]) -> dict[str, Any] | None:
    """Keys → the tree below them, or None for a leaf; None where structs can't say it."""
    tree: dict[str, Any] = {}
    for path in paths:
        node: Any = tree
        *parents, last = path.split(".")
        if any(key.isascii() and key.isdigit() for key in (*parents, last)):
            return None  # an index into a list
        for key in parents:
            node = node.setdefault(key, {})
            if node is None:
                return None  # one path is the parent of another
        if last in node:
            return None
        node[last] = None
    return tree


def _envelope_type(name: str, tree: dict[str, Any]) -> Any:
    fields: list[Any] = []
    for index, (key, below) in enumerate(tree.items()):
        inner: Any = str | int | None if below is None else _envelope_type(f"{name}{index}", below)
        # Attributes are numbered, since a key need not be a Python name.
        nothing: Any = None
        field = msgspec.field(default=nothing, name=key)
        fields.append((f"f{index}", inner | None, field))
    return msgspec.defstruct(name, fields)


def _attribute_path(tree: dict[str, Any], path: str) -> list[str]:
    attributes = []
    node: Any = tree
    for key in path.split("."):
        attributes.append(f"f{list(node).index(key)}")
        node = node[key]
    return attributes


def _slow_reader(paths: Sequence[str]) -> Callable[[bytes], dict[str, str]]:
    def read(body: bytes) -> dict[str, str]:
        check_json(body)
        document = orjson.loads(body)
        values = {path: scalar(walk(document, path.split("."))) for path in paths}
        return {f"json:{p}": v.decode("utf-8", "replace") for p, v in values.items() if v}

    return read
