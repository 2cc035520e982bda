"""Twilio: HMAC-SHA1, base64, of the URL as it was called, and of the form.

Rule: twilio.com/docs/usage/security and twilio-python's request_validator. The form's fields are
sorted by name, and by value within a name; a value that comes twice counts once. With `bodySHA256`
in the query the URL alone is signed, and the body has to have that digest. A GET has no body.
Twilio is not of one mind on whether the port is in the URL, nor on how "'" is written there.

Nothing stands between names and values: "AB=C" signs like "A=BC". That is how they do it.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from typing import Final

from fasthook.errors import NoSignature
from fasthook.intake.providers import common
from fasthook.intake.schemes import Terms
from fasthook.intake.signatures import Verifier
from fasthook.intake.signing import place
from fasthook.intake.templates import Selector
from fasthook.model import Request

_HEADER: Final = "x-twilio-signature"
_BODY_HASH: Final = b"bodySHA256"
_AUTHORITY: Final = re.compile(r"(https?)://([^/?#@]*@)?(\[[^\]/]*\]|[^:/?#]*)(:[0-9]*)?([^?#]*)")


class _Twilio:
    def __init__(self, keys: Sequence[bytes], url: str) -> None:
        self._keys = keys
        self._bases = _bases(url)
        self._query = url.partition("#")[0].partition("?")[2].encode()

    def verify(self, request: Request, now_s: float) -> int:
        """See `signatures.Verifier`."""
        claimed = common.header_of(request, _HEADER)
        messages = self.messages(request)
        expected = [[_signature(key, message) for message in messages] for key in self._keys]
        return common.matching(expected, [claimed])

    def messages(self, request: Request) -> list[bytes]:
        """What may be signed, the URL as configured first."""
        # The query is the request's own: Twilio adds to it what differs from call to call.
        query = request.query or self._query
        fields = _fields(request, query)
        tails = [b"?" + query if query else b""]
        if b"'" in query:
            tails.append(tails[0].replace(b"'", b"%27"))
        return [base + tail + fields for base in self._bases for tail in tails]


def _bases(url: str) -> list[bytes]:
    """The URL without its query: as it is, without a port, with the usual one."""
    split = _AUTHORITY.match(url)
    if split is None:
        return [url.partition("#")[0].partition("?")[0].encode()]
    name, user, host, port, path = (part or "" for part in split.groups())
    usual = ":443" if name == "https" else ":80"
    ports = [port, "", port or usual]
    return [f"{name}://{user}{host}{p}{path}".encode() for p in dict.fromkeys(ports)]


def _fields(request: Request, query: bytes) -> bytes:
    """What is signed beside the URL; the body is checked where that is its digest."""
    hashes = [value for name, value in common.form_of(query) if name == _BODY_HASH]
    if hashes:
        digest = hashlib.sha256(request.body).hexdigest().encode()
        if len(hashes) > 1 or not hmac.compare_digest(hashes[0].lower(), digest):
            raise NoSignature("the body is not what bodySHA256 says")
        return b""
    if request.method == b"GET":
        if request.body:
            raise NoSignature("a GET with a body, which nothing signs")
        return b""
    pairs = sorted(set(common.form_of(request.body)))
    return b"".join([name + value for name, value in pairs])


def _signature(key: bytes, message: bytes) -> bytes:
    return base64.b64encode(hmac.digest(key, message, "sha1"))


def verifier_of(terms: Terms, secrets: Sequence[bytes]) -> Verifier:
    """See `signatures.verifier_of`."""
    return _Twilio(common.keys_of(terms.scheme, secrets), terms.url)


def sign(terms: Terms, secret: bytes, request: Request, now_s: float) -> None:
    """See `signing.sign`. JSON gets its digest into the query."""
    is_json = request.method != b"GET" and request.body.lstrip()[:1] in (b"{", b"[")
    if is_json and _BODY_HASH not in request.query:
        digest = hashlib.sha256(request.body).hexdigest()
        place(request, Selector.parse(f"query:{_BODY_HASH.decode()}"), digest.encode())
    twilio = _Twilio(common.keys_of(terms.scheme, [secret]), terms.url)
    message = twilio.messages(request)[0]
    request.headers[_HEADER.encode()] = _signature(
        common.keys_of(terms.scheme, [secret])[0], message
    )
