"""Segment's webhooks: HMAC-SHA1 in hex of the body; of a batch, of its first event alone.

Rule: segment.com/docs/connections/destinations/catalog/webhooks. They sign `JSON.stringify` of the
event, so the first one of an array is taken as it was sent, less the white space, or else written
anew as JavaScript does. Whatever follows it in the array is signed by nobody.
"""

import hmac
import json
import re
from collections.abc import Sequence
from typing import Final

from fasthook.errors import ConfigError, NoSignature
from fasthook.intake.providers import common
from fasthook.intake.schemes import Terms
from fasthook.intake.signatures import Verifier
from fasthook.model import Request

_HEADER: Final = "x-signature"
_MAX_EVENTS: Final = 1000
_SPACE: Final = " \t\r\n"
#: Texts, which stay, and the white space between them.
_TOKEN: Final = re.compile(r'("(?:[^"\\]|\\.)*")|[ \t\r\n]+')
#: Beyond, JavaScript's numbers are not exact.
_EXACT_DIGITS: Final = 15


class _Segment:
    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = keys

    def verify(self, request: Request, now_s: float) -> int:
        """See `signatures.Verifier`."""
        claimed = common.header_of(request, _HEADER)
        messages = _messages(request.body)
        expected = [[_signature(key, message) for message in messages] for key in self._keys]
        return common.matching(expected, [claimed])


def _messages(body: bytes) -> list[bytes]:
    """What may be signed."""
    if not body.lstrip().startswith(b"["):
        return [body]
    events = common.document_of(body)
    if not 0 < len(events) <= _MAX_EVENTS or not isinstance(events[0], dict):
        raise NoSignature(f"expected 1 to {_MAX_EVENTS} events")
    try:
        text = body.decode().lstrip(_SPACE)[1:].lstrip(_SPACE)
        decoder = json.JSONDecoder(parse_float=_number, parse_int=_number)
        event, end = decoder.raw_decode(text)
        anew = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
    except (ValueError, RecursionError, OverflowError):
        raise NoSignature("the first event of the batch can't be read") from None
    return [_TOKEN.sub(lambda token: token[1] or "", text[:end]).encode(), anew]


def _number(text: str) -> int | float:
    """A number as JavaScript has it: 1.0 is 1. (Below 1e-4 it writes exponents of its own.)"""
    if text.lstrip("-").isdigit() and len(text) <= _EXACT_DIGITS:
        return int(text)
    value = float(text)
    return int(value) if value.is_integer() and abs(value) < 1e21 else value


def _signature(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha1").hex().encode()


def verifier_of(terms: Terms, secrets: Sequence[bytes]) -> Verifier:
    """See `signatures.verifier_of`."""
    return _Segment(common.keys_of(terms.scheme, secrets))


def sign(terms: Terms, secret: bytes, request: Request, now_s: float) -> None:
    """See `signing.sign`."""
    try:
        message = _messages(request.body)[0]
    except NoSignature as error:
        raise ConfigError(f"the body can't be signed: {error}") from None
    request.headers[_HEADER.encode()] = _signature(
        common.keys_of(terms.scheme, [secret])[0], message
    )
