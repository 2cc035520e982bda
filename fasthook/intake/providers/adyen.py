"""Adyen's classic webhooks: each item of a notification has an HMAC-SHA256, base64, of its own.

Rule: docs.adyen.com, "Verify HMAC signatures", and the fixtures of Adyen's libraries: eight fields
joined by ":", none escaped, a missing one empty. Nothing else of the body is signed.
"""

import base64
import hmac
from collections.abc import Sequence
from typing import Any, Final

import orjson

from fasthook.errors import ConfigError, NoSignature
from fasthook.intake.providers import common
from fasthook.intake.schemes import Terms
from fasthook.intake.signatures import Verifier
from fasthook.intake.templates import scalar, walk
from fasthook.model import Request

_FIELDS: Final = (
    ("pspReference",),
    ("originalReference",),
    ("merchantAccountCode",),
    ("merchantReference",),
    ("amount", "value"),
    ("amount", "currency"),
    ("eventCode",),
    ("success",),
)
#: Adyen sends one item in JSON, and up to six otherwise.
_MAX_ITEMS: Final = 100


class _Adyen:
    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = keys

    def verify(self, request: Request, now_s: float) -> int:
        """See `signatures.Verifier`. Every item has to be genuine."""
        matched = []
        for item in _items(common.object_of(request.body)):
            claimed = walk(item, ("additionalData", "hmacSignature"))
            if not isinstance(claimed, str) or not claimed:
                raise NoSignature("an item without additionalData.hmacSignature")
            message = _message(item)
            expected = [[_signature(key, message)] for key in self._keys]
            matched.append(common.matching(expected, [claimed.encode()]))
        return matched[0]


def _items(document: dict[str, Any]) -> list[dict[str, Any]]:
    entries = document.get("notificationItems")
    if not isinstance(entries, list) or not 0 < len(entries) <= _MAX_ITEMS:
        raise NoSignature(f"expected 1 to {_MAX_ITEMS} notificationItems")
    items = [walk(entry, ("NotificationRequestItem",)) for entry in entries]
    if not all(isinstance(item, dict) for item in items):
        raise NoSignature("expected a NotificationRequestItem in each of notificationItems")
    return items


def _message(item: dict[str, Any]) -> bytes:
    return b":".join([_text(walk(item, path), path) for path in _FIELDS])


def _text(value: Any, path: tuple[str, ...]) -> bytes:
    if value is None:
        return b""
    text = scalar(value)
    if text is None:
        raise NoSignature(f"{'.'.join(path)} is signed, but is neither text nor a whole number")
    return text


def _signature(key: bytes, message: bytes) -> bytes:
    return base64.b64encode(hmac.digest(key, message, "sha256"))


def verifier_of(terms: Terms, secrets: Sequence[bytes]) -> Verifier:
    """See `signatures.verifier_of`."""
    return _Adyen(common.keys_of(terms.scheme, secrets))


def sign(terms: Terms, secret: bytes, request: Request, now_s: float) -> None:
    """See `signing.sign`."""
    key = common.keys_of(terms.scheme, [secret])[0]
    try:
        document = common.object_of(request.body)
        for item in _items(document):
            signature = _signature(key, _message(item)).decode()
            item["additionalData"] = {
                **(item.get("additionalData") or {}),
                "hmacSignature": signature,
            }
    except (NoSignature, TypeError) as error:
        raise ConfigError(f"the body can't be signed: {error}") from None
    request.body = orjson.dumps(document)
