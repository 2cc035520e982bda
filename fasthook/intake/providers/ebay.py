"""eBay: ECDSA with SHA-1 of the body; the header is base64 of JSON: alg, kid, signature, digest.

Rule: developer.ebay.com, "Event notification", and eBay's event-notification-nodejs-sdk. The
secret is the public key, or a JSON object of key id → public key; eBay writes them in one line.
What the header calls the algorithm is only checked, never followed.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from fasthook.errors import ConfigError, NoSignature
from fasthook.intake.keys import decode_canonical, digest_of
from fasthook.intake.providers import common
from fasthook.intake.schemes import Terms
from fasthook.intake.signatures import Verifier
from fasthook.model import Request

_HEADER: Final = "x-ebay-signature"
_MAX_HEADER_BYTES: Final = 4096
_MARKS: Final = re.compile(rb"-----(BEGIN|END) [A-Z ]*-----")
#: Stands for the id of a key that was configured without one.
_ANY: Final = ""


class _Header(msgspec.Struct):
    alg: str
    kid: str
    signature: str
    digest: str


class _Ebay:
    def __init__(self, keys: Sequence[Mapping[str, Any]]) -> None:
        self._keys = keys

    def verify(self, request: Request, now_s: float) -> int:
        """See `signatures.Verifier`."""
        header = _header_of(common.header_of(request, _HEADER))
        raw = decode_canonical(header.signature.encode(), "base64")
        if raw is None:
            raise NoSignature("the signature is not base64")
        matched = -1
        for index, by_id in enumerate(self._keys):
            key = by_id.get(header.kid) or by_id.get(_ANY)
            if key is not None and common.index_of([key], raw, request.body, _ecdsa()) == 0:
                matched = index if matched < 0 else matched
        return common.found(matched)


def _ecdsa() -> Any:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.ECDSA(digest_of("sha1"))


def _header_of(text: bytes) -> _Header:
    if len(text) > _MAX_HEADER_BYTES:
        raise NoSignature(f"the {_HEADER} header is too long")
    decoded = decode_canonical(text, "base64")
    try:
        header: _Header = common.decoded(decoded or b"", _Header)
    except ValueError:
        raise NoSignature(f"the {_HEADER} header can't be read") from None
    if header.alg not in ("ecdsa", "ECDSA") or header.digest != "SHA1" or not header.kid:
        raise NoSignature("the signature is not ECDSA with SHA-1, as this scheme has it")
    return header


def _by_id(secret: bytes) -> dict[str, bytes]:
    """Key id → key; one without an id is for all of them."""
    if not secret.lstrip().startswith(b"{"):
        return {_ANY: secret}
    try:
        keys: dict[str, str] = common.decoded(secret, dict[str, str])
    except ValueError:
        raise ConfigError("the secret is neither a key nor JSON of key id → key") from None
    return {kid: key.encode() for kid, key in keys.items() if kid}


def verifier_of(terms: Terms, secrets: Sequence[bytes]) -> Verifier:
    """See `signatures.verifier_of`."""
    return _Ebay(
        [
            {
                kid: common.public_key("ecdsa", "der", _MARKS.sub(b"", key))
                for kid, key in _by_id(secret).items()
            }
            for secret in secrets
        ]
    )


def sign(terms: Terms, secret: bytes, request: Request, now_s: float) -> None:
    """See `signing.sign`."""
    kid, key = next(iter(_by_id(secret).items()), (_ANY, b""))
    signature = common.private_key(key).sign(request.body, _ecdsa())
    text = base64.b64encode(signature).decode()
    header = _Header("ecdsa", kid or "fasthook", text, "SHA1")
    request.headers[_HEADER.encode()] = base64.b64encode(msgspec.json.encode(header))
