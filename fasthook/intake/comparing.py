"""Whether one secret made a signature, for each kind of scheme, in constant time."""

import base64
import hashlib
import hmac
from collections.abc import Sequence
from typing import Any, Protocol

from fasthook.errors import ConfigError
from fasthook.intake.keys import (
    ENCODERS,
    decode_canonical,
    digest_of,
    encoding_of,
    fingerprint,
    key_of,
    public_key_of,
)
from fasthook.intake.schemes import Scheme
from fasthook.intake.templates import SECRET


class Comparer(Protocol):
    """A scheme with one secret."""

    def signs(self, pieces: list[bytes], signatures: Sequence[bytes]) -> bool:
        """Whether the secret made one of the signatures of the message that `pieces` are."""


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
        self._inner.update(bytes([byte ^ 0x36 for byte in key]))
        self._outer.update(bytes([byte ^ 0x5C for byte in key]))

    def digest(self, message: bytes) -> bytes:
        """The MAC of one message."""
        inner = self._inner.copy()
        inner.update(message)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.digest()

    def digest_of(self, pieces: list[bytes]) -> bytes:
        """The MAC of one message, given in pieces: a large one is not copied."""
        inner = self._inner.copy()
        for piece in pieces:
            inner.update(piece)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.digest()


class _Hmac:
    """The encoded forms are compared: decoding would forgive padding, spaces and case."""

    __slots__ = ("_encode", "_keyed")

    def __init__(self, key: bytes, hash_name: str, encoding: str) -> None:
        self._keyed = KeyedHash(key, hash_name)
        self._encode = ENCODERS[encoding]

    def signs(self, pieces: list[bytes], signatures: Sequence[bytes]) -> bool:
        return _is_among(self._encode(self._keyed.digest_of(pieces)), signatures)


class _HmacByMethod:
    """The signature says which hash made it; only those count that the scheme allows."""

    __slots__ = ("_by_hash",)

    def __init__(self, key: bytes, hashes: Sequence[str], encoding: str) -> None:
        self._by_hash = {name.encode(): _Hmac(key, name, encoding) for name in hashes}

    def signs(self, pieces: list[bytes], signatures: Sequence[bytes]) -> bool:
        matched = False
        for signature in signatures:
            method, _, text = signature.partition(b"=")
            by_hash = self._by_hash.get(method)
            if by_hash is not None:
                matched |= by_hash.signs(pieces, [text])
        return matched


class _Digest:
    """A hash over a message that holds the secret. It is no HMAC: what follows the secret could be
    made longer by anybody, were the digest of the message known before its end is.
    """

    __slots__ = ("_encode", "_hash", "_secret")

    def __init__(self, secret: bytes, hash_name: str, encoding: str) -> None:
        self._secret, self._hash = secret, hash_name
        self._encode = ENCODERS[encoding]

    def signs(self, pieces: list[bytes], signatures: Sequence[bytes]) -> bool:
        message = [self._secret if piece is SECRET else piece for piece in pieces]
        return _is_among(
            self._encode(hashlib.new(self._hash, b"".join(message)).digest()), signatures
        )


class _Token:
    """The secret itself is sent. Digests are compared, so that its length does not show."""

    __slots__ = ("_digest",)

    def __init__(self, key: bytes) -> None:
        self._digest = fingerprint(key)

    def signs(self, pieces: list[bytes], signatures: Sequence[bytes]) -> bool:
        return _is_among(self._digest, [fingerprint(signature) for signature in signatures])


class _PublicKey:
    """Ed25519 (RFC 8032), ECDSA in DER, or RSA with PKCS #1 v1.5."""

    __slots__ = ("_arguments", "_encoding", "_invalid", "_key")

    def __init__(self, scheme: Scheme, key: bytes) -> None:
        self._key: Any = public_key_of(scheme, key)
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric import ec, padding

        self._invalid: type[Exception] = InvalidSignature
        self._encoding = encoding_of(scheme)
        self._arguments: tuple[Any, ...] = ()
        if scheme.kind == "ecdsa":
            self._arguments = (ec.ECDSA(digest_of(scheme.hash)),)
        elif scheme.kind == "rsa":
            self._arguments = (padding.PKCS1v15(), digest_of(scheme.hash))

    def signs(self, pieces: list[bytes], signatures: Sequence[bytes]) -> bool:
        message = b"".join(pieces)
        matched = False
        for signature in signatures:
            raw = decode_canonical(signature, self._encoding)
            if raw is None:
                continue
            try:
                self._key.verify(raw, message, *self._arguments)
                matched = True
            except self._invalid:
                pass
        return matched


def _is_among(expected: bytes, signatures: Sequence[bytes]) -> bool:
    matched = False
    for signature in signatures:
        matched |= hmac.compare_digest(expected, signature)
    return matched


def comparer_of(scheme: Scheme, secret: bytes) -> Comparer:
    """What knows the signatures of one secret. Raises `ConfigError` if it can't be a key."""
    key = key_of(scheme, secret)
    if scheme.kind == "token":
        return _Token(key)
    if scheme.kind == "basic":
        if b":" not in key:
            raise ConfigError("the secret is not user:password, as this scheme has it")
        return _Token(base64.b64encode(key))
    if scheme.kind == "digest":
        return _Digest(key, scheme.hash, encoding_of(scheme))
    if scheme.kind == "hmac":
        if scheme.hashes:
            return _HmacByMethod(key, scheme.hashes, encoding_of(scheme))
        return _Hmac(key, scheme.hash, encoding_of(scheme))
    return _PublicKey(scheme, key)
