"""Verification that the peers share: the fewest steps that are right."""

import hmac
import json
import os

import msgspec

from bench.workload import SECRET, Push, StripeEvent

_IS_STRIPE = os.environ.get("BENCH_PROVIDER") == "stripe"
PATH = "/stripe" if _IS_STRIPE else "/github"
HEADER = "stripe-signature" if _IS_STRIPE else "x-hub-signature-256"
#: A typed value, by the fastest decoder there is.
decode = msgspec.json.Decoder(StripeEvent if _IS_STRIPE else Push).decode


def _is_githubs(body: bytes, signature: str | bytes) -> bool:
    claimed = signature if isinstance(signature, bytes) else signature.encode("latin-1")
    expected = b"sha256=" + hmac.digest(SECRET, body, "sha256").hex().encode()
    return hmac.compare_digest(expected, claimed)


def _is_stripes(body: bytes, signature: str | bytes) -> bool:
    text = signature if isinstance(signature, bytes) else signature.encode("latin-1")
    time, _, claimed = text.removeprefix(b"t=").partition(b",v1=")
    expected = hmac.digest(SECRET, time + b"." + body, "sha256").hex().encode()
    return hmac.compare_digest(expected, claimed)


#: Whether the body is signed by this header's value.
is_genuine = _is_stripes if _IS_STRIPE else _is_githubs


class Counts:
    """Of one process."""

    def __init__(self) -> None:
        self.accepted = 0
        self.refused = 0

    def shown(self, stored: int | None = None) -> str:
        """As JSON."""
        return json.dumps({"accepted": self.accepted, "refused": self.refused, "stored": stored})
