"""Microsoft Graph: nothing is signed; each notification shows its subscription's `clientState`.

Rule: learn.microsoft.com/graph/change-notifications-delivery-webhooks. A request holds several
notifications: one with another state makes all of it worthless. The tokens of rich notifications
(`validationTokens`) are not looked at here.
"""

import hmac
from collections.abc import Sequence
from typing import Any, Final

import orjson

from fasthook.errors import ConfigError, NoSignature
from fasthook.intake.keys import fingerprint
from fasthook.intake.providers import common
from fasthook.intake.schemes import Terms
from fasthook.intake.signatures import Verifier
from fasthook.model import Request

_MAX_ITEMS: Final = 1000


class _Graph:
    def __init__(self, keys: Sequence[bytes]) -> None:
        self._fingerprints = [fingerprint(key) for key in keys]

    def verify(self, request: Request, now_s: float) -> int:
        """See `signatures.Verifier`. Which secret the first notification shows."""
        matched = [self._index(item) for item in _items(request.body)]
        return matched[0]

    def _index(self, item: Any) -> int:
        state = item.get("clientState") if isinstance(item, dict) else None
        if not isinstance(state, str):
            raise NoSignature("a notification without clientState")
        shown, matched = fingerprint(state.encode()), -1
        for index, expected in enumerate(self._fingerprints):
            if hmac.compare_digest(expected, shown) and matched < 0:
                matched = index
        return common.found(matched)


def _items(body: bytes) -> list[Any]:
    items = common.object_of(body).get("value")
    if not isinstance(items, list) or not 0 < len(items) <= _MAX_ITEMS:
        raise NoSignature(f"expected 1 to {_MAX_ITEMS} notifications in value")
    return items


def verifier_of(terms: Terms, secrets: Sequence[bytes]) -> Verifier:
    """See `signatures.verifier_of`."""
    return _Graph(common.keys_of(terms.scheme, secrets))


def sign(terms: Terms, secret: bytes, request: Request, now_s: float) -> None:
    """See `signing.sign`."""
    try:
        document = common.object_of(request.body)
        state = secret.decode()
        document["value"] = [{**item, "clientState": state} for item in _items(request.body)]
    except (NoSignature, TypeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the body can't be signed: {error}") from None
    request.body = orjson.dumps(document)
