"""The other way round: the headers with which a provider would send a body.

For `fasthook send` and for tests; the receiving side never signs.
"""

import base64
import hashlib
import hmac
from typing import Any

from fasthook.errors import ConfigError
from fasthook.intake.schemes import Scheme
from fasthook.intake.signatures import ENCODERS, key_of
from fasthook.intake.templates import Found, Selector, Template
from fasthook.model import Request


def sign(scheme: Scheme, secret: bytes, request: Request, now_s: float, url: str = "") -> None:
    """Add the headers of `scheme` to `request`, which has all others and the body.

    For Ed25519 the secret is the private key, of 32 bytes, in the scheme's encoding.
    Raises `ConfigError`, or `NoSignature` where a header that is signed is missing.
    """
    timestamp = b""
    fields: dict[bytes, bytes] = {}
    if scheme.timestamp:
        selector = Selector.parse(scheme.timestamp)
        timestamp = str(int(now_s * (1000 if scheme.timestamp_unit == "ms" else 1))).encode()
        if selector.kind == "header":
            timestamp = request.headers.setdefault(selector.name.encode(), timestamp)
        elif selector.kind == "signature":
            fields[selector.name.encode()] = timestamp
        else:
            raise ConfigError(f"the timestamp stands in the body ({scheme.timestamp})")
    found = Found((), timestamp, fields, url.encode())
    message = b"".join(Template(scheme.message).pieces(request, found))
    signature = scheme.prefix.encode() + _signature(scheme, secret, message)
    request.headers[scheme.headers[0].encode()] = _placed(scheme, signature, fields)


def _signature(scheme: Scheme, secret: bytes, message: bytes) -> bytes:
    if scheme.kind == "token":
        return secret
    if scheme.kind == "hmac":
        digest = hmac.digest(key_of(scheme, secret), message, scheme.hash)
    else:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        private = key_of(scheme, secret)
        digest = Ed25519PrivateKey.from_private_bytes(private).sign(message)
    return ENCODERS[scheme.encoding](digest)


def _placed(scheme: Scheme, signature: bytes, fields: dict[bytes, bytes]) -> bytes:
    if scheme.format == "raw":
        return signature
    key = scheme.signature_keys[0].encode()
    if scheme.format == "versioned":
        return key + b"," + signature
    items = [name + b"=" + value for name, value in (*fields.items(), (key, signature))]
    return scheme.separator.encode().join(items)


def sample_secret(scheme: Scheme, seed: bytes) -> Any:
    """A secret of the scheme's form, the same for the same seed: for demonstrations."""
    raw = hashlib.sha256(seed).digest()
    if scheme.key_encoding == "base64":
        return scheme.key_prefix + base64.b64encode(raw).decode()
    return scheme.key_prefix + raw.hex()
