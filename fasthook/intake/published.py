"""What senders publish, key sets and certificates, made the secrets that verify.

A certificate has to be valid now and issued to its sender; where it comes with its chain, that has
to lead to a root that is known here.
"""

import base64
import json
import re
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final, NamedTuple

from fasthook.intake.fetched import DEFAULT_LIFE_S, MAX_LIFE_S, MIN_LIFE_S, Wanted

MAX_BYTES: Final = 256 * 1024
_MAX_KEYS: Final = 32
_MAX_CERTIFICATES: Final = 8
_BLOCK: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


class Published(NamedTuple):
    """The secrets that verify, and for how many seconds."""

    secrets: list[bytes]
    life_s: float


def read(
    wanted: Wanted, content: bytes, max_age_s: float | None, roots: bytes, now_s: float
) -> Published:
    """Make secrets of what was fetched. Raises `ValueError` where it is not what is wanted.

    `max_age_s`: what its server says; None: nothing. `roots`: certificates in PEM.
    """
    life_s = DEFAULT_LIFE_S if max_age_s is None else max_age_s
    life_s = min(max(life_s, MIN_LIFE_S), MAX_LIFE_S)
    if wanted.source == "jwks":
        return Published(_key_set(content, wanted.form), life_s)
    if wanted.source == "json":
        return Published([_key_at(wanted.path, content)], life_s)
    leaf, ends_s = _certificate(wanted, content, roots, now_s)
    return Published([leaf], min(life_s, ends_s - now_s))


def _key_set(content: bytes, form: str) -> list[bytes]:
    try:
        table = json.loads(content)
        listed = table["keys"]
        kinds = {entry["kty"] for entry in listed}
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ValueError("it is no key set (RFC 7517)") from None
    if len(listed) > _MAX_KEYS:
        raise ValueError(f"{len(listed)} keys in the set, limit {_MAX_KEYS}")
    if form == "jwt":
        if not kinds - {"oct"}:
            raise ValueError("the set has no public key")
        return [json.dumps({"keys": [e for e in listed if e["kty"] != "oct"]}).encode()]
    found = [e.get("x", "") for e in listed if (e["kty"], e.get("crv")) == ("OKP", "Ed25519")]
    keys = [base64.b64encode(_raw(x)) for x in found]
    if not keys:
        raise ValueError("the set has no Ed25519 key")
    return keys


def _key_at(path: str, content: bytes) -> bytes:
    try:
        found = json.loads(content)
        for name in path.split("."):
            found = found[name]
        key: bytes = found.encode()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ValueError(f"it has no key at {path}") from None
    if not key.lstrip().startswith(b"-----BEGIN"):
        raise ValueError(f"what it has at {path} is no key in PEM")
    return key


def _raw(text: Any) -> bytes:
    """Base64url without padding."""
    if not isinstance(text, str):
        raise ValueError("a key of the set can't be read")
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _certificate(wanted: Wanted, content: bytes, roots: bytes, now_s: float) -> tuple[bytes, float]:
    """The leaf in PEM, and when its validity ends."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    chain = x509.load_pem_x509_certificates(content)
    if len(chain) > _MAX_CERTIFICATES:
        raise ValueError(f"{len(chain)} certificates, limit {_MAX_CERTIFICATES}")
    leaf, now = chain[0], datetime.fromtimestamp(now_s, UTC)
    if not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc:
        dates = f"{leaf.not_valid_before_utc:%F} to {leaf.not_valid_after_utc:%F}"
        raise ValueError(f"the certificate is valid from {dates}, not now")
    issued_to = _names_of(leaf)
    fitting = [name for name in wanted.names if name in issued_to]
    if not fitting:
        listed = ", ".join(sorted(issued_to)[:4]) or "nobody"
        raise ValueError(f"the certificate is issued to {listed}; expected {wanted.names[0]}")
    if wanted.is_chained:
        _check_chain(chain, fitting[0], roots, now)
    return leaf.public_bytes(serialization.Encoding.PEM), leaf.not_valid_after_utc.timestamp()


def _names_of(leaf: Any) -> set[str]:
    """The names that a certificate is for, by its extension (RFC 5280 §4.2.1.6) alone."""
    from cryptography import x509

    try:
        extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return set()
    return set(extension.value.get_values_for_type(x509.DNSName))


def _check_chain(chain: Sequence[Any], name: str, roots: bytes, now: datetime) -> None:
    from cryptography import x509
    from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

    policy = PolicyBuilder().store(Store(_parsed(roots))).time(now)
    verifier = policy.build_server_verifier(x509.DNSName(name))
    try:
        verifier.verify(chain[0], list(chain[1:]))
    except VerificationError as error:
        detail = " ".join(str(error).split())
        raise ValueError(f"the certificate's chain leads to no known root: {detail}") from None


@cache
def _parsed(roots: bytes) -> list[Any]:
    """Those that can be read: a system's list has old ones that break later rules."""
    from cryptography import x509

    warnings.filterwarnings("ignore", message="Parsed a (negative )?serial number")
    found = []
    for block in _BLOCK.findall(roots):
        try:
            found.append(x509.load_pem_x509_certificate(block))
        except ValueError:
            continue
    if not found:
        raise ValueError("no root certificate is known here; keys.ca_file names some")
    return found
