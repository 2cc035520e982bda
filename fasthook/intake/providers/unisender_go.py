"""Unisender Go: the MD5, in hex, of the body in which the API key stands for the digest.

Rule: Unisender's page on webhooks, and django-anymail's unisender_go. The key stands amid the
message and the whole has to be JSON, so that what MD5 lets be appended is refused.
"""

import hashlib
import hmac
import re
from collections.abc import Sequence
from typing import Final

from fasthook.errors import NoSignature
from fasthook.intake.providers import common
from fasthook.intake.schemes import Terms
from fasthook.intake.signatures import Verifier
from fasthook.model import Request

_MD5: Final = re.compile(r"[0-9a-f]{32}")


class _Unisender:
    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = keys

    def verify(self, request: Request, now_s: float) -> int:
        """See `signatures.Verifier`."""
        claimed = common.object_of(request.body).get("auth")
        if not isinstance(claimed, str) or not _MD5.fullmatch(claimed):
            raise NoSignature("no auth of the expected form in the body")
        # The bytes as they came: written anew, they might be others.
        before, found, after = request.body.partition(claimed.encode())
        if not found or claimed.encode() in after:
            raise NoSignature("the value of auth stands in the body twice, or is escaped")
        expected = [[_digest(before, key, after)] for key in self._keys]
        return common.matching(expected, [claimed.encode()])


def _digest(before: bytes, key: bytes, after: bytes) -> bytes:
    return hashlib.md5(before + key + after, usedforsecurity=False).hexdigest().encode()


def verifier_of(terms: Terms, secrets: Sequence[bytes]) -> Verifier:
    """See `signatures.verifier_of`."""
    return _Unisender(common.keys_of(terms.scheme, secrets))


def sign(terms: Terms, secret: bytes, request: Request, now_s: float) -> None:
    """See `signing.sign`."""
    key = common.keys_of(terms.scheme, [secret])[0]
    blank = hmac.digest(key, request.body, "md5").hex()  # stands nowhere else in the body
    common.rewritten(request, auth=blank)
    before, _, after = request.body.partition(blank.encode())
    request.body = before + _digest(before, key, after) + after
