"""Whether a request is genuine. Bytes are compared, in constant time, as they came.

A check raises; there is no boolean that somebody might forget to read. Every configured secret and
every signature that was sent is tried, so that the time taken does not tell which one matched.
"""

import functools
import hmac
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Final, Protocol

from fasthook.errors import (
    BadSignature,
    KeyUnavailable,
    NoSignature,
    NotGenuine,
    StaleTimestamp,
)
from fasthook.intake.comparing import KeyedHash, comparer_of
from fasthook.intake.extracting import EXTRACTORS, seconds_of
from fasthook.intake.jwts import JwtVerifier
from fasthook.intake.keys import ENCODERS, key_of
from fasthook.intake.schemes import Scheme, Terms
from fasthook.intake.templates import Found, Selector, Template
from fasthook.logs import log
from fasthook.model import Request

#: Signatures of one request that are compared; senders send one or two. Beyond: refused. Where a
#: scheme has more headers than that, each of them may hold one.
MAX_SIGNATURES: Final = 8


class Verifier(Protocol):
    """What an endpoint asks of its scheme."""

    def verify(self, request: Request, now_s: float) -> int:
        """Which secret signed the request, counted from 0; -1: unsigned by design.

        Raises `NotGenuine`; of keys that are fetched, `KeyNeeded` and `KeyUnavailable`, too.
        `now_s`: wall clock.
        """


class Unsigned:
    """`provider = "none"`: everything passes, on purpose."""

    def verify(self, request: Request, now_s: float) -> int:
        """-1."""
        return -1


class Sealed:
    """Nothing passes: of an endpoint whose events do not come by request."""

    def verify(self, request: Request, now_s: float) -> int:
        """Raises `BadSignature`."""
        raise BadSignature("this endpoint takes no requests")


class Observer:
    """`mode = "observe"`: what is not genuine passes, too, as signed by nobody, and is reported."""

    def __init__(self, verifier: Verifier, endpoint: str) -> None:
        self._verifier = verifier
        self._endpoint = endpoint

    def verify(self, request: Request, now_s: float) -> int:
        """See `Verifier`; -1 for what would be refused."""
        try:
            return self._verifier.verify(request, now_s)
        except (NotGenuine, KeyUnavailable) as error:
            fields = {"endpoint": self._endpoint, "reason": str(error)}
            log.repeatable(30, "would be refused", type(error).__name__, fields)
            return -1


def verifier_of(
    scheme: Scheme,
    secrets: Sequence[bytes],
    url: str = "",
    settings: Mapping[str, str] | None = None,
) -> Verifier:
    """What verifies requests by this scheme. Raises `ConfigError` for a secret that can't be a key.

    `url`: the public URL, for schemes that sign it. `settings`: the endpoint's, by name.
    """
    if scheme.kind == "code":
        module = import_module(f"fasthook.intake.providers.{scheme.code}")
        verifier: Verifier = module.verifier_of(Terms(scheme, url, settings or {}), secrets)
        return verifier
    if scheme.claims is not None:
        return JwtVerifier(scheme, scheme.claims, secrets, url, settings or {})
    general = SignatureVerifier(scheme, secrets, url, settings or {})
    is_plain = (
        scheme.kind == "hmac"
        and scheme.format == "raw"
        and scheme.message == "{body}"
        and scheme.is_padded
        and not (scheme.timestamp or scheme.require or scheme.may_repeat)
        and scheme.headers
        and len(scheme.prefixes) == 1
    )
    return BodyVerifier(scheme, secrets, general) if is_plain else general


class BodyVerifier:
    """The commonest of schemes, an HMAC of the body in a header, with nothing on the way.

    The same rules as `SignatureVerifier`, which is asked where the header stands under another of
    its names. A bad signature is refused here: hashing the body again would make forgeries dearer
    than what is genuine.
    """

    __slots__ = ("_encode", "_general", "_header", "_keyed", "_others", "_prefix")

    def __init__(self, scheme: Scheme, secrets: Sequence[bytes], general: Verifier) -> None:
        self._general = general
        # Endpoints of one scheme have these in common: of 10,000 they would be in no cache.
        place = _place_of(tuple(scheme.headers), scheme.prefixes[0])
        self._header, self._others, self._prefix = place
        self._encode = ENCODERS[scheme.encoding]
        keys = [key_of(scheme, secret) for secret in secrets]
        self._keyed = tuple([KeyedHash(key, scheme.hash) for key in keys])

    def verify(self, request: Request, now_s: float) -> int:
        """See `Verifier`."""
        claimed = request.headers.get(self._header)
        others = self._others
        if claimed is None or (others and not others.isdisjoint(request.headers)):
            return self._general.verify(request, now_s)
        matched = -1
        for index, keyed in enumerate(self._keyed):
            expected = self._prefix + self._encode(keyed.digest(request.body))
            if hmac.compare_digest(expected, claimed) and matched < 0:
                matched = index
        if matched < 0:
            if not claimed.startswith(self._prefix) or not claimed[len(self._prefix) :]:
                name = self._header.decode()
                raise NoSignature(f"no signature of the expected form in {name}")
            raise BadSignature("no configured secret signs this request")
        return matched


@functools.cache
def _place_of(headers: tuple[str, ...], prefix: str) -> tuple[bytes, frozenset[bytes], bytes]:
    """The header of a signature, other names of it, and what stands before the signature there."""
    header, *others = [name.encode() for name in headers]
    return header, frozenset(others), prefix.encode()


class SignatureVerifier:
    """A scheme with its secrets."""

    def __init__(
        self,
        scheme: Scheme,
        secrets: Sequence[bytes],
        url: str = "",
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Raises `ConfigError` where a secret can't be a key of this scheme."""
        self._headers = [name.encode() for name in scheme.headers]
        self._max_signatures = max(MAX_SIGNATURES, len(scheme.headers))
        self._place = Selector.parse(scheme.signature) if scheme.signature else None
        self._may_repeat = scheme.may_repeat
        self._prefixes = [prefix.encode() for prefix in scheme.prefixes]
        self._has_prefix = self._prefixes != [b""]
        self._ignores_case = scheme.kind == "basic"
        self._extract = EXTRACTORS[scheme.format]
        self._keys = [key.encode() for key in scheme.signature_keys]
        self._separator = scheme.separator.encode()
        self._group_separator = scheme.group_separator.encode()
        self._timestamp = Selector.parse(scheme.timestamp) if scheme.timestamp else None
        again = scheme.timestamp_again
        self._timestamp_again = Selector.parse(again) if again else None
        self._unit = scheme.timestamp_unit
        self._tolerance_s = scheme.tolerance
        self._required = [
            (text, Selector.parse(text), Template(value, settings).text_of().encode())
            for text, value in scheme.require.items()
        ]
        self._template = Template(scheme.message, settings)
        self._url = url.encode()
        self._comparers = [comparer_of(scheme, secret) for secret in secrets]

    def verify(self, request: Request, now_s: float) -> int:
        """See `Verifier`."""
        for text, selector, value in self._required:
            if not hmac.compare_digest(selector.read(request) or b"", value):
                raise NoSignature(f"{text} is not what this scheme has there")
        groups = self._find(request)
        refusal: NoSignature | StaleTimestamp | None = None
        matched = -1
        for found in groups:
            try:
                index = self._compare(request, found, now_s)
                matched = index if matched < 0 else matched
            except (NoSignature, StaleTimestamp) as error:
                refusal = error
        if matched >= 0:
            return matched
        raise refusal or BadSignature("no configured secret signs this request")

    def _compare(self, request: Request, found: Found, now_s: float) -> int:
        """Which secret made one of the signatures found; -1: none."""
        if self._timestamp is not None:
            found.timestamp = self._fresh_timestamp(request, found, now_s)
        pieces = self._template.pieces(request, found)
        matched = -1
        for index, comparer in enumerate(self._comparers):
            if comparer.signs(pieces, found.signatures) and matched < 0:
                matched = index
        return matched

    def _find(self, request: Request) -> list[Found]:
        """The signatures that were sent, in groups that have a time of their own."""
        values = self._values(request)
        if self._group_separator:
            values = [group for value in values for group in value.split(self._group_separator)]
        groups: list[Found] = []
        count = 0
        for value in values:
            signatures, fields = self._extract(value, self._keys, self._separator)
            signatures = self._without_prefix(signatures)
            if not signatures or not all(signatures):
                continue
            count += len(signatures)
            if fields is None and groups:
                groups[0].signatures.extend(signatures)
            else:
                groups.append(Found(signatures, b"", fields, self._url))
        if not groups:
            raise NoSignature(f"no signature of the expected form in {self._where(request)}")
        if count > self._max_signatures:
            raise NoSignature(f"{count} signatures, limit {self._max_signatures}")
        return groups

    def _values(self, request: Request) -> list[bytes]:
        """What stands where signatures are."""
        if self._place is not None:
            value = self._place.read(request)
            if not value:
                raise NoSignature(f"no signature in {self._where(request)}")
            return [value]
        headers = request.headers
        present = [name for name in self._headers if name in headers]
        if not present:
            raise NoSignature(f"no {self._headers[0].decode()} header")
        if self._may_repeat and request.repeated is not None:
            several = request.repeated
            return [value for name in present for value in several.get(name, [headers[name]])]
        return [headers[name] for name in present]

    def _where(self, request: Request) -> str:
        """Where signatures were found: for messages."""
        if self._place is not None:
            return f"{self._place.kind}:{self._place.name}"
        return next(name for name in self._headers if name in request.headers).decode()

    def _without_prefix(self, signatures: list[bytes]) -> list[bytes]:
        if not self._has_prefix:
            return signatures
        bare = []
        for signature in signatures:
            for prefix in self._prefixes:
                start = signature[: len(prefix)]
                if start == prefix or (self._ignores_case and start.lower() == prefix.lower()):
                    bare.append(signature[len(prefix) :])
                    break
        return bare

    def _fresh_timestamp(self, request: Request, found: Found, now_s: float) -> bytes:
        """The signed time as it was sent. Raises `NoSignature` and `StaleTimestamp`."""
        assert self._timestamp is not None  # noqa: S101 - asked by _compare
        sent = self._timestamp.read(request, found.fields)
        if sent is None:
            raise NoSignature("no timestamp")
        if self._timestamp_again is not None and self._timestamp_again.read(request) != sent:
            raise NoSignature("the timestamp stands in two places, and they do not agree")
        age_s = now_s - seconds_of(sent, self._unit)
        if abs(age_s) > self._tolerance_s:
            limit = f"tolerance is {self._tolerance_s:g} s"
            raise StaleTimestamp(f"signed {age_s:.0f} s ago, {limit}")
        return sent
