"""What the modules of providers share: reading requests that may be hostile, and comparing."""

import hmac
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec
import orjson

from fasthook.errors import BadSignature, ConfigError, NoSignature, StaleTimestamp
from fasthook.intake.keys import key_of, public_key_of
from fasthook.intake.schemes import KeyEncoding, Kind, Scheme
from fasthook.model import Request

#: As in `signatures`; beyond: refused.
MAX_SIGNATURES: Final = 8
#: Form and query fields; beyond: refused.
_MAX_FIELDS: Final = 1000
#: The same for every provider, so that it tells nothing.
_NO_MATCH: Final = "no configured secret signs this request"


def header_of(request: Request, name: str) -> bytes:
    """The header's value. Raises `NoSignature` without one."""
    value = request.headers.get(name.encode())
    if not value:
        raise NoSignature(f"no {name} header")
    return value


def document_of(body: bytes) -> Any:
    """The body as JSON. Raises `NoSignature` where it is none, or nests too deep."""
    try:
        return orjson.loads(body)
    except (ValueError, RecursionError):
        raise NoSignature("the body that is signed is no JSON") from None


def object_of(body: bytes) -> dict[str, Any]:
    """The body as a JSON object. Raises `NoSignature`."""
    document = document_of(body)
    if not isinstance(document, dict):
        raise NoSignature("the body that is signed is no JSON object")
    return document


def form_of(form: bytes) -> list[tuple[bytes, bytes]]:
    """Decoded names and values, as they come; the bytes, since they need not be UTF-8."""
    try:
        pairs = parse_qsl(form.decode("latin-1"), True, False, "latin-1", "strict", _MAX_FIELDS)
    except ValueError:
        raise NoSignature("the form that is signed can't be read") from None
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]


def matching(expected: Sequence[Sequence[bytes]], signatures: Sequence[bytes]) -> int:
    """The first secret of whose expected signatures one was sent. Raises `BadSignature`.

    Everything is compared, so that the time taken does not tell what matched.
    """
    if len(signatures) > MAX_SIGNATURES:
        raise NoSignature(f"{len(signatures)} signatures, limit {MAX_SIGNATURES}")
    matched = -1
    for index, several in enumerate(expected):
        for one in several:
            for signature in signatures:
                if hmac.compare_digest(one, signature) and matched < 0:
                    matched = index
    return found(matched)


def index_of(keys: Sequence[Any], raw: bytes, message: bytes, *arguments: Any) -> int:
    """Which public key verifies the signature; -1: none."""
    from cryptography.exceptions import InvalidSignature

    matched = -1
    for index, key in enumerate(keys):
        try:
            key.verify(raw, message, *arguments)
        except InvalidSignature:
            continue
        matched = index if matched < 0 else matched
    return matched


def found(matched: int) -> int:
    """The index itself. Raises `BadSignature` where it is of no secret."""
    if matched < 0:
        raise BadSignature(_NO_MATCH)
    return matched


def check_age(signed_s: float, now_s: float, tolerance_s: float) -> None:
    """Raise `StaleTimestamp` for a time that is too far from now, on either side."""
    age_s = now_s - signed_s
    if abs(age_s) > tolerance_s:
        raise StaleTimestamp(f"signed {age_s:.0f} s ago, tolerance is {tolerance_s:g} s")


def keys_of(scheme: Scheme, secrets: Sequence[bytes]) -> list[bytes]:
    """The keys that the secrets stand for. Raises `ConfigError`."""
    return [key_of(scheme, secret) for secret in secrets]


def public_key(kind: Kind, encoding: KeyEncoding, secret: bytes) -> Any:
    """The public key, of that kind; PEM wherever it looks like it. Raises `ConfigError`."""
    if encoding != "certificate" and secret.lstrip().startswith(b"-----BEGIN"):
        encoding = "pem"
    scheme = Scheme(kind=kind, header="x", key_encoding=encoding)
    return public_key_of(scheme, key_of(scheme, secret))


def private_key(secret: bytes) -> Any:
    """The private key, for signing. Raises `ConfigError` unless it is one in PEM."""
    try:
        from cryptography.hazmat.primitives import serialization

        return serialization.load_pem_private_key(secret, None)
    except (ImportError, ValueError, TypeError):
        raise ConfigError("signing needs the private key, in PEM") from None


def rewritten(request: Request, **changes: Any) -> None:
    """Put other fields into the JSON object that the request has as its body."""
    try:
        document = orjson.loads(request.body or b"{}")
        request.body = orjson.dumps({**document, **changes})
    except (ValueError, TypeError):
        raise ConfigError("the body has no place for a signature; expected a JSON object") from None


def decoded(data: bytes, kind: Any) -> Any:
    """JSON of a known form. Raises `ValueError`, also where it nests too deep."""
    try:
        return msgspec.json.decode(data, type=kind)
    except RecursionError:
        raise ValueError("nested too deep") from None
