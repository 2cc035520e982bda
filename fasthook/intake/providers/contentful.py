"""Contentful: HMAC-SHA256 in hex of method, path, the headers that one of them lists, and body.

Rule: contentful/node-apps-toolkit, src/requests. The query is escaped, and then the path with it
once more. The list and the time have to be among the headers listed, as they always are.
"""

import hmac
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote, urlsplit

from fasthook.errors import NoSignature
from fasthook.intake.extracting import seconds_of
from fasthook.intake.providers import common
from fasthook.intake.schemes import Terms
from fasthook.intake.signatures import Verifier
from fasthook.model import Request

_HEADER: Final = "x-contentful-signature"
_LIST: Final = "x-contentful-signed-headers"
_TIME: Final = "x-contentful-timestamp"
_MAX_LISTED: Final = 32
#: What JavaScript's `encodeURI` and `querystring.escape` leave as it is, beside letters and digits.
_URI: Final = ";,/?:@&=+$-_.!~*'()#"
_ESCAPE: Final = "-_.!~*'()"


class _Contentful:
    def __init__(self, keys: Sequence[bytes], url: str, tolerance_s: float) -> None:
        self._keys = keys
        self._path = urlsplit(url).path.encode() if url else b""
        self._tolerance_s = tolerance_s

    def verify(self, request: Request, now_s: float) -> int:
        """See `signatures.Verifier`."""
        claimed = common.header_of(request, _HEADER)
        common.check_age(
            seconds_of(common.header_of(request, _TIME), "ms"), now_s, self._tolerance_s
        )
        message = self.message(request)
        expected = [[_signature(key, message)] for key in self._keys]
        return common.matching(expected, [claimed])

    def message(self, request: Request) -> bytes:
        """What is signed."""
        names = common.header_of(request, _LIST).decode("latin-1").split(",")
        if not {_LIST, _TIME} <= set(names) or not len(set(names)) == len(names) <= _MAX_LISTED:
            raise NoSignature(f"{_LIST} lists too little, too much, or something twice")
        headers = [b"%s:%s" % (n.encode("latin-1"), _value(request, n)) for n in names]
        path = self._path or request.target.partition(b"?")[0]
        if b"?" in request.query:
            raise NoSignature("a query with a second '?', behind which nothing is signed")
        if request.query:
            path += b"?" + quote(request.query, _ESCAPE).encode()
        return b"\n".join(
            [request.method, quote(path, _URI).encode(), b";".join(headers), request.body]
        )


def _value(request: Request, name: str) -> bytes:
    value = request.headers.get(name.encode("latin-1"))
    if value is None:
        raise NoSignature(f"{_LIST} lists a header that the request has not")
    return value.strip()


def _signature(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256").hex().encode()


def verifier_of(terms: Terms, secrets: Sequence[bytes]) -> Verifier:
    """See `signatures.verifier_of`. Without a public URL the path is the request's own."""
    return _Contentful(common.keys_of(terms.scheme, secrets), terms.url, terms.scheme.tolerance)


def sign(terms: Terms, secret: bytes, request: Request, now_s: float) -> None:
    """See `signing.sign`. Signed are those headers of the request that are Contentful's."""
    keys = common.keys_of(terms.scheme, [secret])
    request.headers[_TIME.encode()] = b"%d" % int(now_s * 1000)
    own = {name for name in request.headers if name.startswith(b"x-contentful-")}
    listed = sorted((own | {_LIST.encode()}) - {_HEADER.encode()})
    request.headers[_LIST.encode()] = b",".join(listed)
    message = _Contentful(keys, terms.url, terms.scheme.tolerance).message(request)
    request.headers[_HEADER.encode()] = _signature(keys[0], message)
