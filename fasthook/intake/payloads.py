"""Body → payload, of the type that a handler declares. Only verified bytes come here.

Three ways it can end: the value; `Undecodable`, a genuine body that is not of that type; or
`BadPayload`, which is no JSON (or form) at all.
"""

import gc
import itertools
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs

import msgspec
import orjson

from fasthook.errors import BadPayload, ConfigError, WrongContentType
from fasthook.model import Undecodable, Undecoded

#: Form fields that are read. Beyond: 400.
MAX_FORM_FIELDS: Final = 1000
# msgspec needs 10 µs for a float with a large exponent, so a megabyte of them would hold the loop
# for seconds; orjson needs no more for them than for others (bench/micro.py).
_SLOW_NUMBER: Final = re.compile(rb"[eE][+-]?[0-9]{2}")
_MAX_SLOW_NUMBERS: Final = 1000

_LARGE_BYTES: Final = 64 * 1024
_FORM: Final = "application/x-www-form-urlencoded"
_MULTIPART: Final = "multipart/form-data"


_JSON: Final = re.compile(r"(application|text)/([\w.+-]+\+)?json")


class Bodies(NamedTuple):
    """What an endpoint's requests may have for a body."""

    kinds: tuple[str, ...]  # the first one where the request does not say
    form_payload: str = ""  # the field of a form that holds the event as JSON
    json_types: tuple[str, ...] = ()  # other content types under which JSON comes
    may_be_empty: bool = False  # a request without one is none the less an event
    encodings: tuple[str, ...] = ()  # content codings that are undone
    max_bytes: int = 1024 * 1024  # of a body as received


@lru_cache(maxsize=256)  # senders use few content types; hostile ones displace each other
def kind_of(
    content_type: bytes | None, accepted: tuple[str, ...], json_types: tuple[str, ...] = ()
) -> str:
    """ "json", "form", "multipart" or "any", as the endpoint accepts. Raises `WrongContentType`.

    `json_types`: what else stands over JSON, as the sender has it.
    """
    if content_type is None:
        return accepted[0]
    media_type = content_type.partition(b";")[0].strip().lower().decode("latin-1")
    is_json = media_type in json_types or _JSON.fullmatch(media_type) is not None
    if "json" in accepted and is_json:
        _check_charset(content_type)
        return "json"
    if "form" in accepted and media_type == _FORM:
        return "form"
    if "multipart" in accepted and media_type == _MULTIPART:
        return "multipart"
    if "any" in accepted:
        return "any"
    raise WrongContentType(f"content type {media_type!r}; expected {' or '.join(accepted)}")


def _check_charset(content_type: bytes) -> None:
    charset = re.search(rb"charset\s*=\s*\"?([^\s;\"]+)", content_type, re.IGNORECASE)
    if charset and charset[1].lower() not in (b"utf-8", b"utf8", b"us-ascii"):
        raise WrongContentType("JSON in a charset other than UTF-8 (RFC 8259 §8.1)")


def check_json(body: bytes) -> None:
    """Raise `BadPayload` unless `body` is one JSON text, as whoever decodes it later sees it."""
    # A megabyte of empty lists is half a million objects, which the collector would look at again
    # and again while they come; none of them is garbage.
    is_large = len(body) > _LARGE_BYTES and gc.isenabled()
    if is_large:
        gc.disable()
    try:
        orjson.loads(body)
    except (ValueError, RecursionError) as error:
        raise not_json(error) from None
    finally:
        if is_large:
            gc.enable()


def not_json(error: Exception) -> BadPayload:
    """The rejection for what a JSON decoder raised."""
    if isinstance(error, RecursionError):
        return BadPayload("the JSON is nested too deep")
    return BadPayload(f"the body is not JSON: {error}")


def decoder_of(payload_type: Any) -> Callable[[bytes], Any]:
    """A function from body to payload. Raises `ConfigError` for a type that can't be decoded."""
    if payload_type in (Any, object):
        return _undecoded
    try:
        decode = msgspec.json.Decoder(payload_type).decode
        has_floats = _may_hold_floats(msgspec.inspect.type_info(payload_type))
    except TypeError as error:
        raise ConfigError(f"the payload type can't be decoded: {error}") from None

    def decode_typed(body: bytes) -> Any:
        try:
            if has_floats and len(body) > 2 * _MAX_SLOW_NUMBERS and _is_hostile(body):
                return msgspec.convert(orjson.loads(body), payload_type, str_keys=True)
            return decode(body)
        except msgspec.ValidationError as error:
            check_json(body)  # it stops at the first misfit, and what follows may be anything
            return Undecodable(str(error))
        except (ValueError, RecursionError) as error:
            raise not_json(error) from None

    return decode_typed


def _is_hostile(body: bytes) -> bool:
    """Whether the body has more slow numbers than a genuine one would."""
    numbers = _SLOW_NUMBER.finditer(body)
    return next(itertools.islice(numbers, _MAX_SLOW_NUMBERS, None), None) is not None


def _undecoded(body: bytes) -> Any:
    return _UNDECODED


_UNDECODED: Final = Undecoded()


def _may_hold_floats(info: Any, seen: frozenset[Any] = frozenset()) -> bool:
    """Whether a number of any kind, or anything at all, may stand somewhere in the type."""
    if isinstance(info, (msgspec.inspect.FloatType, msgspec.inspect.AnyType)):
        return True
    if isinstance(info, (msgspec.inspect.CustomType, msgspec.inspect.DecimalType)):
        return True
    cls = getattr(info, "cls", None)
    if cls in seen:
        return False
    inner = seen | {cls} if cls is not None else seen
    parts = [getattr(info, name, None) for name in ("item_type", "key_type", "value_type")]
    parts += list(getattr(info, "item_types", ()) or ()) + list(getattr(info, "types", ()) or ())
    parts += [field.type for field in getattr(info, "fields", ()) or ()]
    return any(_may_hold_floats(part, inner) for part in parts if part is not None)


def form_fields(body: bytes) -> dict[str, str | list[str]]:
    """The fields of a form; those that stand several times as lists. Raises `BadPayload`."""
    try:
        fields = parse_qs(
            body.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MAX_FORM_FIELDS,
        )
    except ValueError as error:
        raise BadPayload(f"the body is not a form: {error}") from None
    return {name: values[0] if len(values) == 1 else values for name, values in fields.items()}


def convert_form(fields: dict[str, Any], payload_type: Any) -> Any:
    """The fields as the handler's type; numbers are read from their text."""
    if payload_type in (Any, object):
        return fields
    try:
        return msgspec.convert(fields, payload_type, strict=False)
    except msgspec.ValidationError as error:
        return Undecodable(str(error))
