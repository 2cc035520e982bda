"""Plivo, version 3: HMAC-SHA256, base64, of URL, query, form and nonce.

Rule: plivo-python's signature_v3. The query is sorted and written decoded, `name=value` with "&";
after "." come the form's names and values, sorted, with nothing between them; then "." and the
nonce. A GET has no form, and then nothing of "?" and "." that stands for it. The header may hold
several signatures, of several tokens.
"""

import base64
import hmac
import re
from collections.abc import Sequence
from typing import Final

from fasthook.errors import NoSignature
from fasthook.intake.providers import common
from fasthook.intake.schemes import Terms
from fasthook.intake.signatures import Verifier
from fasthook.model import Request

_HEADER: Final = "x-plivo-signature-v3"
_NONCE: Final = "x-plivo-signature-v3-nonce"
_MAX_NONCE_BYTES: Final = 256
_END_OF_PATH: Final = re.compile(r"[;?#]")


class _Plivo:
    def __init__(self, keys: Sequence[bytes], url: str) -> None:
        self._keys = keys
        self._base = _END_OF_PATH.split(url, maxsplit=1)[0].encode()
        self._query = url.partition("#")[0].partition("?")[2].encode()

    def verify(self, request: Request, now_s: float) -> int:
        """See `signatures.Verifier`."""
        claimed = common.header_of(request, _HEADER).split(b",")
        nonce = common.header_of(request, _NONCE)
        if len(nonce) > _MAX_NONCE_BYTES:
            raise NoSignature("the nonce is too long")
        message = self.message(request, nonce)
        expected = [[_signature(key, message)] for key in self._keys]
        return common.matching(expected, [signature.strip(b" ") for signature in claimed])

    def message(self, request: Request, nonce: bytes) -> bytes:
        """What is signed."""
        # The query is the request's own: a GET has there what differs from call to call.
        query = sorted(common.form_of(request.query or self._query))
        if request.method == b"GET" and request.body:
            raise NoSignature("a GET with a body, which nothing signs")
        form = sorted(common.form_of(request.body))
        if request.body and not form:
            raise NoSignature("the body is no form, so nothing signs it")
        message = self._base
        if query or form:
            message += b"?" + b"&".join([name + b"=" + value for name, value in query])
        if query and form:
            message += b"."
        return message + b"".join([name + value for name, value in form]) + b"." + nonce


def _signature(key: bytes, message: bytes) -> bytes:
    return base64.b64encode(hmac.digest(key, message, "sha256"))


def verifier_of(terms: Terms, secrets: Sequence[bytes]) -> Verifier:
    """See `signatures.verifier_of`."""
    return _Plivo(common.keys_of(terms.scheme, secrets), terms.url)


def sign(terms: Terms, secret: bytes, request: Request, now_s: float) -> None:
    """See `signing.sign`."""
    keys = common.keys_of(terms.scheme, [secret])
    nonce = request.headers.setdefault(_NONCE.encode(), b"%d" % int(now_s * 1000))
    message = _Plivo(keys, terms.url).message(request, nonce)
    request.headers[_HEADER.encode()] = _signature(keys[0], message)
