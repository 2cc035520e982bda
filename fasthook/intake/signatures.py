"""Whether a request is genuine. Bytes are compared, in constant time, as they came.

A check raises; there is no boolean that somebody might forget to read. Every configured secret and
every signature that was sent is tried, so that the time taken does not tell which one matched.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from fasthook.errors import BadSignature, ConfigError, NoSignature, StaleTimestamp
from fasthook.intake.schemes import Scheme
from fasthook.intake.templates import Found, Selector, Template
from fasthook.model import Request

#: Signatures of one request that are compared; senders send one or two. Beyond: refused.
MAX_SIGNATURES: Final = 8
# Digits alone: int() would take signs, spaces, underscores and the digits of other scripts.
_SECONDS: Final = re.compile(rb"[0-9]{1,12}")
_MILLISECONDS: Final = re.compile(rb"[0-9]{1,15}")


class Verifier(Protocol):
    """What an endpoint asks of its scheme."""

    def verify(self, request: Request, now_s: float) -> int:
        """Which secret signed the request, counted from 0; -1: unsigned by design.

        Raises `NotGenuine`. `now_s`: wall clock.
        """


class Unsigned:
    """`provider = "none"`: everything passes, on purpose."""

    def verify(self, request: Request, now_s: float) -> int:
        """-1."""
        return -1


def verifier_of(scheme: Scheme, secrets: Sequence[bytes], url: str = "") -> Verifier:
    """What verifies requests by this scheme. Raises `ConfigError` for a secret that can't be a key.

    `url`: the public URL, for schemes that sign it.
    """
    general = SignatureVerifier(scheme, secrets, url)
    is_plain = scheme.kind == "hmac" and scheme.format == "raw" and scheme.message == "{body}"
    return BodyVerifier(scheme, secrets, general) if is_plain else general


class KeyedHash:
    """HMAC (RFC 2104) with both halves of the key hashed beforehand.

    `hmac.HMAC` is three Python calls around the same; its tests say it is the same (bench/micro.py
    says what it saves).
    """

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes, hash_name: str) -> None:
        self._inner, self._outer = hashlib.new(hash_name), hashlib.new(hash_name)
        block_bytes = self._inner.block_size
        if len(key) > block_bytes:
            key = hashlib.new(hash_name, key).digest()
        key = key.ljust(block_bytes, b"\0")
        self._inner.update(bytes(byte ^ 0x36 for byte in key))
        self._outer.update(bytes(byte ^ 0x5C for byte in key))

    def digest(self, message: bytes, *more: bytes) -> bytes:
        """The MAC of one message, given in pieces."""
        inner = self._inner.copy()
        inner.update(message)
        if more:
            for piece in more:
                inner.update(piece)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.digest()


class BodyVerifier:
    """The commonest of schemes, an HMAC of the body in a header, with nothing on the way.

    The same rules as `SignatureVerifier`, which is asked where the header stands under another of
    its names. A bad signature is refused here: hashing the body again would make forgeries dearer
    than what is genuine.
    """

    __slots__ = ("_encode", "_general", "_header", "_keyed", "_prefix")

    def __init__(self, scheme: Scheme, secrets: Sequence[bytes], general: Verifier) -> None:
        self._general = general
        self._header = scheme.headers[0].encode()
        self._prefix = scheme.prefix.encode()
        self._encode = ENCODERS[scheme.encoding]
        keys = [key_of(scheme, secret) for secret in secrets]
        self._keyed = [KeyedHash(key, scheme.hash) for key in keys]

    def verify(self, request: Request, now_s: float) -> int:
        """See `Verifier`."""
        claimed = request.headers.get(self._header)
        if claimed is None:
            return self._general.verify(request, now_s)
        matched = -1
        for index, keyed in enumerate(self._keyed):
            expected = self._prefix + self._encode(keyed.digest(request.body))
            if hmac.compare_digest(expected, claimed) and matched < 0:
                matched = index
        if matched < 0:
            if not claimed.startswith(self._prefix) or not claimed[len(self._prefix) :]:
                name = self._header.decode()
                raise NoSignature(f"no signature of the expected form in {name}")
            raise BadSignature("no configured secret signs this request")
        return matched


class SignatureVerifier:
    """A scheme with its secrets."""

    def __init__(self, scheme: Scheme, secrets: Sequence[bytes], url: str = "") -> None:
        """Raises `ConfigError` where a secret can't be a key of this scheme."""
        self._scheme = scheme
        self._headers = [name.encode() for name in scheme.headers]
        self._prefix = scheme.prefix.encode()
        self._extract = _EXTRACTORS[scheme.format]
        self._keys = [key.encode() for key in scheme.signature_keys]
        self._separator = scheme.separator.encode()
        self._timestamp = Selector.parse(scheme.timestamp) if scheme.timestamp else None
        self._is_ms = scheme.timestamp_unit == "ms"
        self._template = Template(scheme.message)
        self._url = url.encode()
        self._comparers = [_comparer(scheme, key_of(scheme, secret)) for secret in secrets]

    def verify(self, request: Request, now_s: float) -> int:
        """See `Verifier`."""
        found = self._find(request)
        if self._timestamp is not None:
            found = self._with_timestamp(request, found, now_s)
        pieces = self._template.pieces(request, found)
        matched = -1
        for index, comparer in enumerate(self._comparers):
            if comparer.signs(pieces, found.signatures) and matched < 0:
                matched = index
        if matched < 0:
            raise BadSignature("no configured secret signs this request")
        return matched

    def _find(self, request: Request) -> Found:
        for name in self._headers:
            value = request.headers.get(name)
            if value is not None:
                break
        else:
            raise NoSignature(f"no {self._headers[0].decode()} header")
        signatures, fields = self._extract(value, self._keys, self._separator)
        if self._prefix:
            length = len(self._prefix)
            signatures = [s[length:] for s in signatures if s.startswith(self._prefix)]
        if not signatures or not all(signatures):
            raise NoSignature(f"no signature of the expected form in {name.decode()}")
        if len(signatures) > MAX_SIGNATURES:
            raise NoSignature(f"{len(signatures)} signatures, limit {MAX_SIGNATURES}")
        return Found(signatures, b"", fields, self._url)

    def _with_timestamp(self, request: Request, found: Found, now_s: float) -> Found:
        assert self._timestamp is not None  # noqa: S101 - asked by verify
        sent = self._timestamp.read(request, found.fields)
        if sent is None:
            raise NoSignature("no timestamp")
        if not (_MILLISECONDS if self._is_ms else _SECONDS).fullmatch(sent):
            raise NoSignature("the timestamp is not a whole number")
        age_s = now_s - (int(sent) / 1000 if self._is_ms else int(sent))
        tolerance_s = self._scheme.tolerance
        if abs(age_s) > tolerance_s:
            raise StaleTimestamp(f"signed {age_s:.0f} s ago, tolerance is {tolerance_s:g} s")
        return found._replace(timestamp=sent)


# --- where the signatures stand -------------------------------------------------------------------

_Extracted = tuple[list[bytes], dict[bytes, bytes] | None]


def _extract_raw(value: bytes, keys: list[bytes], separator: bytes) -> _Extracted:
    return [value], None


def _extract_kv(value: bytes, keys: list[bytes], separator: bytes) -> _Extracted:
    """`t=1,v1=…,v1=…`: a signature key may come several times; another that does has no value."""
    signatures: list[bytes] = []
    fields: dict[bytes, bytes] = {}
    for item in value.split(separator):
        key, _, text = item.strip(b" ").partition(b"=")
        if key in keys:
            signatures.append(text)
        else:
            fields[key] = b"" if key in fields else text
    return signatures, fields


def _extract_versioned(value: bytes, keys: list[bytes], separator: bytes) -> _Extracted:
    """`v1,… v1,… v1a,…`: unknown versions are skipped."""
    items = [item.partition(b",") for item in value.split(separator)]
    return [signature for version, _, signature in items if version in keys], None


_EXTRACTORS: Final = {"raw": _extract_raw, "kv": _extract_kv, "versioned": _extract_versioned}


# --- comparing ------------------------------------------------------------------------------------


class _Comparer(Protocol):
    def signs(self, pieces: list[bytes], signatures: Sequence[bytes]) -> bool: ...


class _Hmac:
    """The encoded forms are compared: decoding would forgive padding, spaces and case."""

    __slots__ = ("_encode", "_keyed")

    def __init__(self, key: bytes, hash_name: str, encoding: str) -> None:
        self._keyed = KeyedHash(key, hash_name)
        self._encode = ENCODERS[encoding]

    def signs(self, pieces: list[bytes], signatures: Sequence[bytes]) -> bool:
        expected = self._encode(self._keyed.digest(*pieces))
        matched = False
        for signature in signatures:
            matched |= hmac.compare_digest(expected, signature)
        return matched


class _Token:
    """The secret itself is sent. Digests are compared, so that its length does not show."""

    __slots__ = ("_digest",)

    def __init__(self, key: bytes) -> None:
        self._digest = hashlib.sha256(key).digest()

    def signs(self, pieces: list[bytes], signatures: Sequence[bytes]) -> bool:
        matched = False
        for signature in signatures:
            matched |= hmac.compare_digest(self._digest, hashlib.sha256(signature).digest())
        return matched


class _Ed25519:
    __slots__ = ("_encoding", "_invalid", "_key")

    def __init__(self, key: bytes, encoding: str) -> None:
        try:
            from cryptography.exceptions import InvalidSignature
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        except ImportError:
            raise ConfigError(
                "Ed25519 signatures need: pip install '.[asymmetric]' in fasthook's folder"
            ) from None
        self._invalid: type[Exception] = InvalidSignature
        self._encoding = encoding
        try:
            self._key: Any = Ed25519PublicKey.from_public_bytes(key)
        except ValueError as error:
            raise ConfigError(f"the public key is no Ed25519 key: {error}") from None

    def signs(self, pieces: list[bytes], signatures: Sequence[bytes]) -> bool:
        message = b"".join(pieces)
        matched = False
        for signature in signatures:
            raw = _decode_canonical(signature, self._encoding)
            if raw is None:
                continue
            try:
                self._key.verify(raw, message)
                matched = True
            except self._invalid:
                pass
        return matched


def _comparer(scheme: Scheme, key: bytes) -> _Comparer:
    if scheme.kind == "token":
        return _Token(key)
    if scheme.kind == "ed25519":
        return _Ed25519(key, scheme.encoding)
    return _Hmac(key, scheme.hash, scheme.encoding)


# --- keys and encodings ---------------------------------------------------------------------------


def _base64(digest: bytes) -> bytes:
    return binascii.b2a_base64(digest, newline=False)


ENCODERS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "hex": binascii.hexlify,
    "base64": _base64,
    "base64url": base64.urlsafe_b64encode,
}


def _decode_canonical(text: bytes, encoding: str) -> bytes | None:
    """The bytes of `text`, or None unless it is the one text that encodes them."""
    try:
        if encoding == "hex":
            raw = binascii.unhexlify(text)
        else:
            raw = base64.b64decode(text, altchars=b"-_" if encoding == "base64url" else None)
    except ValueError:
        return None
    return raw if ENCODERS[encoding](raw) == text else None


def key_of(scheme: Scheme, secret: bytes) -> bytes:
    """The key that a configured secret stands for. Raises `ConfigError`; never shows it."""
    text = secret.removeprefix(scheme.key_prefix.encode())
    if scheme.key_encoding == "utf8":
        key = text
    elif scheme.key_encoding == "hex":
        try:
            key = bytes.fromhex(text.decode("ascii"))
        except ValueError:
            raise ConfigError("the secret is not hexadecimal, as this scheme has it") from None
    else:
        try:  # some senders leave the padding off
            key = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
        except ValueError:
            raise ConfigError("the secret is not base64, as this scheme has it") from None
    if not key:
        raise ConfigError("the secret is empty")
    return key
