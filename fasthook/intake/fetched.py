"""Keys that are fetched from their sender: which one is wanted, and which are had.

No I/O: what is missing is said by `KeyNeeded`, and whoever can fetches it and asks again. Only one
thread uses a store.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from fasthook.errors import (
    BadSignature,
    ConfigError,
    KeyNeeded,
    KeyUnavailable,
    NoSignature,
    UnknownKey,
)
from fasthook.intake.schemes import KeySource, Scheme, selectors_of
from fasthook.intake.signatures import Verifier
from fasthook.intake.templates import Selector
from fasthook.model import Request

#: Addresses of which the keys are kept. Only who serves a sender's host can add one.
MAX_KEPT: Final = 64
#: Addresses of which it is known that nothing came from there; anybody can add some.
MAX_FAILURES: Final = 1024
#: Between two fetches from one address, whoever asks: a key that nobody has costs no more.
MIN_INTERVAL_S: Final = 60.0
#: How long a key is used, whatever its server says of it.
MIN_LIFE_S: Final = 300.0
MAX_LIFE_S: Final = 86_400.0
DEFAULT_LIFE_S: Final = 3_600.0
#: From this part of its life on it is fetched again, while it is still used.
_REFRESH_AFTER: Final = 0.75
_FIRST_RETRY_S: Final = 5.0
_MAX_URL: Final = 512


class Wanted(NamedTuple):
    """What is to be fetched, and what it has to be."""

    url: str
    source: str  # "jwks", "certificate" or "json": see `schemes.KeySource`
    form: str  # the kind of scheme that it is for
    names: tuple[str, ...] = ()
    is_chained: bool = False
    path: str = ""

    @property
    def host(self) -> str:
        """The host's name."""
        return urlsplit(self.url).hostname or ""


class Fetched(NamedTuple):
    """What was fetched. Times are those of the store's clock."""

    secrets: tuple[bytes, ...]  # as if they were configured
    began_s: float
    refresh_s: float
    ends_s: float


class _Failure(NamedTuple):
    reason: str
    retry_s: float  # when it may be tried again
    times: int


class KeyStore:
    """The keys that were fetched, each for a while; and what could not be, for a shorter one."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock`: seconds that never jump."""
        self._clock = clock
        self._kept: dict[Wanted, Fetched] = {}  # least used first
        self._failed: dict[Wanted, _Failure] = {}  # oldest first
        #: Told of what is to be fetched again before its time is over.
        self.on_due: Callable[[Wanted], None] = _nobody

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, wanted: Wanted) -> Fetched:
        """Raises `KeyNeeded`; or `KeyUnavailable`, where that was tried a moment ago."""
        now_s = self._clock()
        found = self._kept.pop(wanted, None)
        if found is None or now_s >= found.ends_s:
            self._check_failure(wanted, now_s)
            raise KeyNeeded(wanted)
        self._kept[wanted] = found
        if now_s >= found.refresh_s and not self._is_failed(wanted, now_s):
            self.on_due(wanted)
        return found

    def check_anew(self, wanted: Wanted) -> None:
        """Raise `KeyNeeded` where a newer set may have what this one has not.

        Raises `KeyUnavailable` where that was tried in vain; returns where it is new enough.
        """
        now_s = self._clock()
        self._check_failure(wanted, now_s)
        found = self._kept.get(wanted)
        if found is None or now_s >= found.began_s + MIN_INTERVAL_S:
            raise KeyNeeded(wanted)

    def put(self, wanted: Wanted, secrets: Sequence[bytes], life_s: float) -> None:
        """Use these for `life_s` seconds; a few, where it is less, or nobody ever had them."""
        now_s = self._clock()
        life_s = max(life_s, _FIRST_RETRY_S)
        self._failed.pop(wanted, None)
        self._kept.pop(wanted, None)
        if len(self._kept) >= MAX_KEPT:
            del self._kept[next(iter(self._kept))]
        ends_s, refresh_s = now_s + life_s, now_s + life_s * _REFRESH_AFTER
        self._kept[wanted] = Fetched(tuple(secrets), now_s, refresh_s, ends_s)

    def drop(self, wanted: Wanted) -> None:
        """Use what was fetched no more."""
        self._kept.pop(wanted, None)

    def fail(self, wanted: Wanted, reason: str) -> float:
        """Do not try it again for a while, which doubles each time: how many seconds."""
        before = self._failed.pop(wanted, None)
        times = before.times + 1 if before is not None else 1
        if len(self._failed) >= MAX_FAILURES:
            del self._failed[next(iter(self._failed))]
        wait_s = min(MIN_INTERVAL_S, _FIRST_RETRY_S * 2.0 ** min(times - 1, 10))
        self._failed[wanted] = _Failure(reason, self._clock() + wait_s, times)
        return wait_s

    def _is_failed(self, wanted: Wanted, now_s: float) -> bool:
        failure = self._failed.get(wanted)
        return failure is not None and now_s < failure.retry_s

    def _check_failure(self, wanted: Wanted, now_s: float) -> None:
        if self._is_failed(wanted, now_s):
            failure = self._failed[wanted]
            what = f"no key from {wanted.url}: {failure.reason}"
            raise KeyUnavailable(what, failure.retry_s - now_s)


def _nobody(wanted: Wanted) -> None:
    """Nobody fetches anything: a command that only verifies."""


class Locator:
    """Where a request's key is to be fetched."""

    def __init__(self, scheme: Scheme, source: KeySource) -> None:
        self._source = source
        self._form = scheme.kind
        self._headers = [name.encode() for name in scheme.headers]
        self._selectors = [Selector.parse(text) for text in selectors_of(source.at)]
        self._pattern = re.compile(source.pattern)
        self.fixed = self._wanted(source.url, {}) if source.url else None

    def wanted(self, request: Request) -> Wanted:
        """Raises `NoSignature` for what is not signed, or names no address of its sender's."""
        if self._headers and not any(name in request.headers for name in self._headers):
            raise NoSignature(f"no {self._headers[0].decode()} header")  # nothing to fetch for
        if self.fixed is not None:
            return self.fixed
        sent = next(filter(None, (one.read(request) for one in self._selectors)), None)
        if sent is None:
            raise NoSignature("it does not say where its key is")
        url = sent.decode("ascii", "replace")
        match = self._pattern.fullmatch(url) if len(url) <= _MAX_URL else None
        if match is None:
            raise NoSignature("the address of its key is none of its sender's")
        return self._wanted(url, match.groupdict(""))

    def _wanted(self, url: str, groups: Mapping[str, str]) -> Wanted:
        source = self._source
        names = tuple(dict.fromkeys(name.format_map(groups) for name in source.names))
        return Wanted(url, source.kind, self._form, names, source.is_chained, source.path)


class FetchedVerifier:
    """A scheme whose keys are fetched. They are all the sender's: none is counted apart."""

    def __init__(
        self,
        locator: Locator,
        store: KeyStore,
        build: Callable[[Sequence[bytes]], Verifier],
        check: Callable[[Request], None] | None = None,
        *,
        names_keys: bool,
    ) -> None:
        """`build` makes the verifier of what was fetched. `check` raises `NotGenuine` for what is
        not worth a fetch. `names_keys`: whether a signature says which key of a set made it.
        """
        self._locator = locator
        self._store = store
        self._build = build
        self._check = check
        self._names_keys = names_keys
        self._built: dict[Wanted, tuple[Fetched, Verifier]] = {}

    def verify(self, request: Request, now_s: float) -> int:
        """See `signatures.Verifier`."""
        if self._check is not None:
            self._check(request)
        wanted = self._locator.wanted(request)
        verifier = self._verifier_of(wanted, self._store.get(wanted))
        try:
            verifier.verify(request, now_s)
        except BadSignature as error:
            # There may be another key since; a certificate stays what it is.
            is_unknown = isinstance(error, UnknownKey) or not self._names_keys
            if is_unknown and wanted.source != "certificate":
                self._store.check_anew(wanted)
            raise
        return 0

    def _verifier_of(self, wanted: Wanted, fetched: Fetched) -> Verifier:
        known = self._built.get(wanted)
        if known is not None and known[0] is fetched:
            return known[1]
        try:
            verifier = self._build(fetched.secrets)
        except ConfigError as error:  # it is theirs, and not ours to mend
            reason = str(error)
            self._store.drop(wanted)
            wait_s = self._store.fail(wanted, reason)
            raise KeyUnavailable(f"no key from {wanted.url}: {reason}", wait_s) from None
        if len(self._built) >= MAX_KEPT:
            self._built.clear()
        self._built[wanted] = (fetched, verifier)
        return verifier
