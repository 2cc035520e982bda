"""From configured secrets to keys, and from digests to text and back."""

import base64
import binascii
import hashlib
import unicodedata
from collections.abc import Callable
from typing import Any, Final

from fasthook.errors import ConfigError
from fasthook.intake.schemes import Scheme

_ED25519_BYTES: Final = 32


def _base64(digest: bytes) -> bytes:
    return binascii.b2a_base64(digest, newline=False)


ENCODERS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "hex": binascii.hexlify,
    "base64": _base64,
    "base64url": base64.urlsafe_b64encode,
    "base64url, no padding": lambda digest: base64.urlsafe_b64encode(digest).rstrip(b"="),
}


def encoding_of(scheme: Scheme) -> str:
    """Which of `ENCODERS` writes the scheme's signatures."""
    return scheme.encoding if scheme.is_padded else f"{scheme.encoding}, no padding"


def decode_canonical(text: bytes, encoding: str) -> bytes | None:
    """The bytes of `text`, or None unless it is the one text that encodes them."""
    try:
        if encoding == "hex":
            raw = binascii.unhexlify(text)
        else:
            altchars = b"-_" if encoding.startswith("base64url") else None
            raw = base64.b64decode(text + b"=" * (-len(text) % 4), altchars=altchars)
    except ValueError:
        return None
    return raw if ENCODERS[encoding](raw) == text else None


def key_of(scheme: Scheme, secret: bytes) -> bytes:
    """The key that a configured secret stands for. Raises `ConfigError`; never shows it."""
    text = secret.removeprefix(scheme.key_prefix.encode())
    key = _DECODERS[scheme.key_encoding](text)
    if not key:
        raise ConfigError("the secret is empty")
    return key + scheme.key_suffix.encode()


def _from_hex(text: bytes) -> bytes:
    try:
        return bytes.fromhex(text.decode("ascii"))
    except ValueError:
        raise ConfigError("the secret is not hexadecimal, as this scheme has it") from None


def _from_base64(text: bytes) -> bytes:
    try:  # some senders leave the padding off
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise ConfigError("the secret is not base64, as this scheme has it") from None


def _normalised(text: bytes) -> bytes:
    try:
        return unicodedata.normalize("NFKD", text.decode()).encode()
    except UnicodeDecodeError:
        raise ConfigError("the secret is not UTF-8, as this scheme has it") from None


_DECODERS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "utf8": bytes,
    "pem": bytes,
    "certificate": bytes,
    "hex": _from_hex,
    "base64": _from_base64,
    "der": lambda text: _from_base64(b"".join(text.split())),
    "nfkd": _normalised,
}


def public_key_of(scheme: Scheme, key: bytes) -> Any:
    """The public key, of the kind that the scheme needs. Raises `ConfigError`."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    except ImportError:
        raise ConfigError(
            f"{scheme.kind} signatures need: pip install '.[asymmetric]' in fasthook's folder"
        ) from None
    wanted: Any = {
        "ed25519": ed25519.Ed25519PublicKey,
        "ecdsa": ec.EllipticCurvePublicKey,
        "rsa": rsa.RSAPublicKey,
    }[scheme.kind]
    found: Any
    try:
        if scheme.key_encoding == "certificate":
            found = x509.load_pem_x509_certificate(key).public_key()
        elif key.lstrip().startswith(b"-----BEGIN"):
            found = serialization.load_pem_public_key(key)
        elif scheme.kind == "ed25519" and len(key) == _ED25519_BYTES:
            found = ed25519.Ed25519PublicKey.from_public_bytes(key)
        else:
            found = serialization.load_der_public_key(key)
    except (ValueError, TypeError) as error:
        detail = str(error).partition(". ")[0]
        raise ConfigError(f"the public key can't be read: {detail}") from None
    if not isinstance(found, wanted):
        raise ConfigError(f"the public key is no {scheme.kind} key")
    return found


def digest_of(hash_name: str) -> Any:
    """The hash, as `cryptography` has it."""
    from cryptography.hazmat.primitives import hashes

    return getattr(hashes, hash_name.upper())()


def fingerprint(secret: bytes) -> bytes:
    """A digest to compare in the place of a secret, so that its length does not show."""
    return hashlib.sha256(secret).digest()
