"""Braintree: a form of `bt_payload` and `bt_signature`, HMAC-SHA1 in hex of the former.

Rule: braintree_python's webhook_notification_gateway and util/crypto. The key is the SHA-1 of the
private key. The signature is `public key|hex`; several are joined by "&", and the one of our
public key counts. The payload may have lost its last newline on the way.
The secret is written `public_key:private_key`.
"""

import hashlib
import hmac
import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlencode

from fasthook.errors import BadPayload, BadSignature, ConfigError, NoSignature
from fasthook.intake.providers import common
from fasthook.intake.schemes import Terms
from fasthook.intake.signatures import Verifier
from fasthook.intake.templates import Selector
from fasthook.model import Reply, Request

_SIGNATURE: Final = b"bt_signature"
_PAYLOAD: Final = b"bt_payload"
_CHALLENGE: Final = re.compile(rb"[a-f0-9]{20,32}")


class _Braintree:
    def __init__(self, keys: Sequence[tuple[bytes, bytes]]) -> None:
        self._keys = keys

    def verify(self, request: Request, now_s: float) -> int:
        """See `signatures.Verifier`."""
        pairs = common.form_of(request.body)
        fields = dict(pairs)
        # No third field, since nothing would sign it.
        if len(pairs) != len(fields) or fields.keys() != {_SIGNATURE, _PAYLOAD}:
            raise NoSignature("expected a form of bt_signature and bt_payload")
        signatures = fields[_SIGNATURE].split(b"&")
        if len(signatures) > common.MAX_SIGNATURES:
            raise NoSignature(f"{len(signatures)} signatures, limit {common.MAX_SIGNATURES}")
        payload, matched = fields[_PAYLOAD], -1
        for index, (public, key) in enumerate(self._keys):
            mine = [text for name, _, text in (s.partition(b"|") for s in signatures)
                    if hmac.compare_digest(name, public)]  # fmt: skip
            expected = [_signature(key, payload), _signature(key, payload + b"\n")]
            try:
                common.matching([expected], mine)
            except BadSignature:
                continue
            matched = index if matched < 0 else matched
        return common.found(matched)


def _key_of(secret: bytes) -> tuple[bytes, bytes]:
    public, _, private = secret.partition(b":")
    if not public or not private:
        raise ConfigError("the secret is not public_key:private_key, as this scheme has it")
    return public, hashlib.sha1(private, usedforsecurity=False).digest()


def _signature(key: bytes, payload: bytes) -> bytes:
    return hmac.digest(key, payload, "sha1").hex().encode()


def verifier_of(terms: Terms, secrets: Sequence[bytes]) -> Verifier:
    """See `signatures.verifier_of`."""
    return _Braintree([_key_of(secret) for secret in secrets])


def sign(terms: Terms, secret: bytes, request: Request, now_s: float) -> None:
    """See `signing.sign`. The body is the form with `bt_payload`."""
    public, key = _key_of(secret)
    payload = dict(common.form_of(request.body)).get(_PAYLOAD)
    if not payload:
        raise ConfigError("the body can't be signed: expected a form with bt_payload")
    signature = public + b"|" + _signature(key, payload)
    request.body = urlencode({_SIGNATURE: signature, _PAYLOAD: payload}).encode()


def reply_to(request: Request, secret: bytes) -> Reply:
    """The answer to `GET ?bt_challenge=…`: it proves that the keys are known."""
    challenge = Selector.parse("query:bt_challenge").read(request) or b""
    if not _CHALLENGE.fullmatch(challenge):
        raise BadPayload("the challenge is not of the form that Braintree's has")
    public, key = _key_of(secret)
    proof = hmac.digest(key, challenge, "sha1").hex()
    return Reply(200, "text/plain", f"{public.decode('latin-1')}|{proof}")
