"""Hygraph: HMAC-SHA256, base64, of JSON that holds the body as text, the environment and the time.

Rule: hygraph.com/docs, "Webhooks", and @hygraph/utils. The header is `sign=…, env=…, t=…`. Their
page has `t` in milliseconds; others read seconds. It is signed, so its size may tell which.
"""

import base64
import hmac
import json
import re
from collections.abc import Sequence
from typing import Final

from fasthook.errors import NoSignature
from fasthook.intake.providers import common
from fasthook.intake.schemes import Terms
from fasthook.intake.signatures import Verifier
from fasthook.model import Request

_HEADER: Final = "gcms-signature"
_FORM: Final = re.compile(
    rb"sign=([A-Za-z0-9+/=]{1,100}), env=([\x21-\x2b\x2d-\x7e]{1,256}), t=([1-9][0-9]{0,14})"
)
#: Seconds beyond the year 5000; milliseconds of the year 1973.
_LEAST_MS: Final = 100_000_000_000


class _Hygraph:
    def __init__(self, keys: Sequence[bytes], tolerance_s: float) -> None:
        self._keys = keys
        self._tolerance_s = tolerance_s

    def verify(self, request: Request, now_s: float) -> int:
        """See `signatures.Verifier`."""
        parts = _FORM.fullmatch(common.header_of(request, _HEADER))
        if parts is None:
            raise NoSignature(f"no signature of the expected form in {_HEADER}")
        time = int(parts[3])
        signed_s = time / 1000 if time >= _LEAST_MS else time
        common.check_age(signed_s, now_s, self._tolerance_s)
        message = _message(request.body, parts[2], time)
        expected = [[_signature(key, message)] for key in self._keys]
        return common.matching(expected, [parts[1]])


def _message(body: bytes, environment: bytes, time: int) -> bytes:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise NoSignature("the body is signed as text, but is not UTF-8") from None
    signed = {"Body": text, "EnvironmentName": environment.decode(), "TimeStamp": time}
    return json.dumps(signed, ensure_ascii=False, separators=(",", ":")).encode()


def _signature(key: bytes, message: bytes) -> bytes:
    return base64.b64encode(hmac.digest(key, message, "sha256"))


def verifier_of(terms: Terms, secrets: Sequence[bytes]) -> Verifier:
    """See `signatures.verifier_of`."""
    return _Hygraph(common.keys_of(terms.scheme, secrets), terms.scheme.tolerance)


def sign(terms: Terms, secret: bytes, request: Request, now_s: float) -> None:
    """See `signing.sign`."""
    key, time = common.keys_of(terms.scheme, [secret])[0], int(now_s * 1000)
    signature = _signature(key, _message(request.body, b"master", time))
    request.headers[_HEADER.encode()] = b"sign=%s, env=master, t=%d" % (signature, time)
