"""The other way round: the headers with which a provider would send a body.

For `fasthook send` and for tests; the receiving side never signs.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from importlib import import_module
from typing import Any
from urllib.parse import urlencode

import orjson

from fasthook.errors import ConfigError
from fasthook.intake.keys import ENCODERS, digest_of, encoding_of, key_of
from fasthook.intake.schemes import PUBLIC_KEY_KINDS, Claims, Scheme, Terms
from fasthook.intake.templates import SECRET, Found, Selector, Template
from fasthook.model import Request

_TOKEN_LIFE_S = 300


def sign(
    scheme: Scheme,
    secret: bytes,
    request: Request,
    now_s: float,
    url: str = "",
    settings: Mapping[str, str] | None = None,
) -> None:
    """Add the signature of `scheme` to `request`, which has all else.

    It goes into headers, or where the scheme has it there into the body or the query. For public
    keys the secret is the private one: PEM, or for Ed25519 32 bytes in the scheme's encoding.
    Raises `ConfigError`, or `NoSignature` where a header that is signed is missing.
    """
    settings = settings or {}
    if scheme.kind == "code":
        module = import_module(f"fasthook.intake.providers.{scheme.code}")
        module.sign(Terms(scheme, url, settings), secret, request, now_s)
        return
    for text, value in scheme.require.items():
        place(request, Selector.parse(text), Template(value, settings).text_of().encode())
    if scheme.claims is not None:
        token = _token(scheme.claims, secret, request, now_s, url, settings)
        place(request, _place_of(scheme), scheme.prefixes[0].encode() + token)
        return
    fields: dict[bytes, bytes] = {}
    timestamp = _stamped(scheme, request, now_s, fields)
    if scheme.timestamp_again:
        place(request, Selector.parse(scheme.timestamp_again), timestamp)
    found = Found([], timestamp, fields, url.encode())
    pieces = Template(scheme.message, settings).pieces(request, found)
    signature = scheme.prefixes[0].encode() + _signature(scheme, secret, pieces)
    place(request, _place_of(scheme), _formatted(scheme, signature, fields))


def _place_of(scheme: Scheme) -> Selector:
    return Selector.parse(scheme.signature or f"header:{scheme.headers[0]}")


def _stamped(scheme: Scheme, request: Request, now_s: float, fields: dict[bytes, bytes]) -> bytes:
    """The time in the scheme's form, put where the scheme has it, unless one is there already."""
    for selector in Template(scheme.message).selectors:
        if selector.kind == "signature":
            fields[selector.key] = b""  # nothing is signed beside what the template names
    if not scheme.timestamp:
        return b""
    selector = Selector.parse(scheme.timestamp)
    if selector.kind == "signature":
        stamp = fields[selector.key] = _time_text(scheme.timestamp_unit, now_s)
        return stamp
    present = selector.read(request)
    if present is None or selector.kind in ("json", "form"):
        present = _time_text(scheme.timestamp_unit, now_s)
        place(request, selector, present)
    return present


def _time_text(unit: str, now_s: float) -> bytes:
    if unit == "s":
        return b"%d" % int(now_s)
    if unit == "ms":
        return b"%d" % int(now_s * 1000)
    date = datetime.fromtimestamp(int(now_s), UTC)
    text = format_datetime(date, usegmt=True) if unit == "http-date" else f"{date:%FT%TZ}"
    return text.encode()


def place(request: Request, selector: Selector, value: bytes) -> None:
    """Put a value where the selector would find it."""
    if selector.kind == "header":
        request.headers[selector.key] = value
    elif selector.kind == "query":
        more = urlencode({selector.name: value}).encode()
        request.target += (b"&" if b"?" in request.target else b"?") + more
    elif selector.kind == "form":
        more = urlencode({selector.name: value}).encode()
        request.body += (b"&" if request.body else b"") + more
    else:
        request.body = _with_json(request.body, selector.name, value.decode())


def _with_json(body: bytes, path: str, value: str) -> bytes:
    try:
        return orjson.dumps(_put(orjson.loads(body or b"null"), path.split("."), value))
    except (ValueError, TypeError):
        raise ConfigError(f"the body has no place for {path}; expected JSON") from None


def _put(node: Any, path: list[str], value: str) -> Any:
    """The document with the value at the path: what is not there yet is made, lists by numbers."""
    if not path:
        return int(value) if isinstance(node, int) else value
    key, rest = path[0], path[1:]
    if key.isdigit():
        items: list[Any] = list(node or [])
        items += [{}] * (int(key) + 1 - len(items))
        items[int(key)] = _put(items[int(key)] or None, rest, value)
        return items
    if node is not None and not isinstance(node, dict):
        raise TypeError
    return {**(node or {}), key: _put((node or {}).get(key), rest, value)}


def _signature(scheme: Scheme, secret: bytes, pieces: list[bytes]) -> bytes:
    if scheme.kind == "token":
        return key_of(scheme, secret)
    if scheme.kind == "basic":
        return base64.b64encode(secret)
    if scheme.kind == "digest":
        key = key_of(scheme, secret)
        message = b"".join([key if piece is SECRET else piece for piece in pieces])
        digest = hashlib.new(scheme.hash, message).digest()
    elif scheme.kind == "hmac":
        name = scheme.hashes[-1] if scheme.hashes else scheme.hash
        digest = hmac.digest(key_of(scheme, secret), b"".join(pieces), name)
    else:
        digest = _with_private_key(scheme, secret, b"".join(pieces))
    text = ENCODERS[encoding_of(scheme)](digest)
    return scheme.hashes[-1].encode() + b"=" + text if scheme.hashes else text


def _with_private_key(scheme: Scheme, secret: bytes, message: bytes) -> bytes:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding

    private: Any
    if secret.lstrip().startswith(b"-----BEGIN"):
        private = serialization.load_pem_private_key(secret, None)
    else:
        private = ed25519.Ed25519PrivateKey.from_private_bytes(key_of(scheme, secret))
    arguments: tuple[Any, ...] = ()
    if scheme.kind == "ecdsa":
        arguments = (ec.ECDSA(digest_of(scheme.hash)),)
    elif scheme.kind == "rsa":
        arguments = (padding.PKCS1v15(), digest_of(scheme.hash))
    signature: bytes = private.sign(message, *arguments)
    return signature


def _token(
    claims: Claims,
    secret: bytes,
    request: Request,
    now_s: float,
    url: str,
    settings: Mapping[str, str],
) -> bytes:
    import jwt

    now = int(now_s)
    said: dict[str, Any] = {"iat": now, "nbf": now, "exp": now + _TOKEN_LIFE_S}
    said |= {name: "fasthook" for name in claims.required if name not in said}
    if claims.issuers:
        said["iss"] = claims.issuers[0]
    if claims.audience:
        said["aud"] = Template(claims.audience, settings).text_of()
    for name, value in claims.equal.items():
        said[name] = Template(value, settings).text_of() if isinstance(value, str) else value
    if claims.url_hash:
        said[claims.url_hash] = hashlib.sha256(url.encode()).hexdigest()
    if claims.body_hash and (request.body or not claims.is_body_hash_left_out):
        digest = hashlib.sha256(request.body).digest()
        encode = binascii.hexlify if claims.body_hash_encoding == "hex" else base64.b64encode
        said[claims.body_hash] = encode(digest).decode()
    is_private = secret.lstrip().startswith(b"-----BEGIN")
    fitting = [name for name in claims.algorithms if name.startswith("HS") != is_private]
    if not fitting:
        what = "a private key" if is_private else "a shared secret"
        raise ConfigError(f"{what} does not sign {', '.join(claims.algorithms)}")
    return jwt.encode(said, secret, algorithm=fitting[0]).encode()


def _formatted(scheme: Scheme, signature: bytes, fields: dict[bytes, bytes]) -> bytes:
    if scheme.format in ("raw", "method"):
        return signature
    key = scheme.signature_keys[0].encode() if scheme.signature_keys else b""
    if scheme.format == "versioned":
        return key + b"," + signature
    between = scheme.separator.encode() + (b" " if scheme.is_spaced else b"")
    if scheme.format == "list":
        return between.join([*fields.values(), signature])
    items = [name + b"=" + value for name, value in (*fields.items(), (key, signature))]
    return between.join(items)


def sample_secret(scheme: Scheme, seed: bytes) -> Any:
    """A secret of the scheme's form, the same for the same seed: for demonstrations.

    Raises `ConfigError` where it is a key of the sender's that nobody else can make.
    """
    raw = hashlib.sha256(seed).digest()
    is_public = scheme.kind in PUBLIC_KEY_KINDS or (
        scheme.claims is not None
        and not any(name.startswith("HS") for name in scheme.claims.algorithms)
    )
    if is_public and (scheme.kind != "ed25519" or scheme.key_encoding == "pem"):
        raise ConfigError(f"{scheme.kind} needs the sender's key: give it with --secret")
    if scheme.kind == "basic":
        return f"fasthook:{raw.hex()}"
    if scheme.key_encoding in ("base64", "der"):
        return scheme.key_prefix + base64.b64encode(raw).decode()
    return scheme.key_prefix + raw.hex()
