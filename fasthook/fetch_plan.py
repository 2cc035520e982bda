"""Which endpoints have keys that are fetched, from where, and by what client."""

import functools
import ipaddress
import re
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Final

from fasthook.config import Endpoint as EndpointSettings
from fasthook.config import Keys
from fasthook.errors import ConfigError
from fasthook.intake.catalogue import Provider
from fasthook.intake.fetched import FetchedVerifier, KeyStore, Locator, Wanted
from fasthook.intake.handshakes import Handshake
from fasthook.intake.network import parse_network
from fasthook.intake.published import MAX_BYTES, Published, read
from fasthook.intake.schemes import KeySource, Scheme, Terms, selectors_of
from fasthook.intake.signatures import Verifier, verifier_of
from fasthook.model import Request
from fasthook.remote.urls import FetchError, parts_of

if TYPE_CHECKING:
    from fasthook.remote.client import Client

_RELAY: Final = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):([0-9]{1,5})")


class FetchPlan:
    """What a service fetches, filled endpoint by endpoint."""

    def __init__(self) -> None:
        self.store = KeyStore(time.monotonic)
        self.sources: dict[str, str] = {}  # endpoint → where its keys are fetched, in words
        self.fixed: list[Wanted] = []  # what is known to be wanted before anything comes
        #: Endpoint and name → the handshake that wants an address visited, or says farewell.
        self.handshakes: dict[tuple[str, str], Handshake] = {}

    def add_handshakes(self, endpoint: str, provider: Provider) -> None:
        """Those of this endpoint's provider."""
        for handshake in provider.handshakes:
            if handshake.visit is not None or handshake.is_farewell:
                self.handshakes[endpoint, handshake.name] = handshake

    def verifier(self, settings: EndpointSettings, scheme: Scheme, source: KeySource) -> Verifier:
        """The endpoint's. Raises `ConfigError` where it can't be one."""
        locator = Locator(scheme, source)
        self.sources[settings.name] = shown(source)
        if locator.fixed is not None and locator.fixed not in self.fixed:
            self.fixed.append(locator.fixed)
        build = functools.partial(
            _build, scheme=scheme, url=settings.public_url, settings=settings.config
        )
        _check_extra()
        check = _check_of(Terms(scheme, settings.public_url, settings.config))
        is_named = scheme.claims is not None
        return FetchedVerifier(locator, self.store, build, check, names_keys=is_named)


def _build(
    secrets: Sequence[bytes], scheme: Scheme, url: str, settings: Mapping[str, str]
) -> Verifier:
    return verifier_of(scheme, secrets, url, settings)


def _check_extra() -> None:
    try:
        import_module("cryptography")
        import_module("jwt")
    except ImportError:
        raise ConfigError(
            "keys that are fetched need: pip install '.[asymmetric]' in fasthook's folder"
        ) from None


def _check_of(terms: Terms) -> Callable[[Request], None] | None:
    """What the scheme's module asks before a key is fetched."""
    if terms.scheme.kind != "code":
        return None
    module = import_module(f"fasthook.intake.providers.{terms.scheme.code}")
    check = getattr(module, "check_before_fetch", None)
    return functools.partial(check, terms) if check is not None else None


def shown(source: KeySource) -> str:
    """Where keys come from, in words."""
    if source.url:
        return source.url
    where = " or ".join(selectors_of(source.at)).replace("header:", "header ")
    return f"the URL in {where}, at {', '.join(source.hosts)}"


def source_of(settings: EndpointSettings, scheme: Scheme, where: str) -> KeySource | None:
    """Where the endpoint's keys are fetched; None: it has secrets. Raises `ConfigError`."""
    if not settings.jwks_url:
        return None if settings.secrets else scheme.fetch
    if settings.secrets:
        raise ConfigError(f"{where}.jwks_url: expected either it or secrets")
    claims = scheme.claims
    takes_keys = claims is not None and any(not a.startswith("HS") for a in claims.algorithms)
    if not takes_keys and (scheme.fetch is None or scheme.fetch.kind != "jwks"):
        raise ConfigError(f"{where}.jwks_url: {settings.provider} is verified without key sets")
    try:
        parts_of(settings.jwks_url)
    except FetchError as error:
        got = "" if "@" in settings.jwks_url else f"{settings.jwks_url!r}; "  # it may be a password
        raise ConfigError(f"{where}.jwks_url: {got}{error}") from None
    return KeySource(kind="jwks", url=settings.jwks_url)


def fetch(client: "Client", wanted: Wanted, ca_file: str, now_s: float) -> Published:
    """The secrets that verify, from their sender. Blocks. Raises `FetchError` and `ValueError`."""
    from fasthook.remote.client import trusted_roots

    found = client.get(wanted.url, MAX_BYTES)
    roots = trusted_roots(ca_file) if wanted.is_chained else b""
    return read(wanted, found.body, found.max_age_s, roots, now_s)


def client_of(keys: Keys) -> "Client":
    """What fetches, by `[keys]`. Raises `ConfigError` that names the key."""
    from fasthook.remote.client import Client, trusted_roots  # most services fetch nothing

    networks = []
    for text in keys.allow:
        try:
            networks.append(parse_network(text))
        except ValueError as error:
            expected = "expected such as 192.0.2.0/24 or 2001:db8::1"
            raise ConfigError(f"keys.allow: {error}; {expected}") from None
    relays = {}
    for host, relay in keys.connect_to.items():
        match = _RELAY.fullmatch(relay)
        try:
            address = ipaddress.ip_address((match[1] or match[2]) if match else "")
        except ValueError:
            expected = "expected an address and a port, such as 192.0.2.1:443"
            raise ConfigError(f"keys.connect_to.{host}: {relay!r}; {expected}") from None
        relays[host.lower()] = (str(address), int(match[3]) if match else 0)
    try:
        trusted_roots(keys.ca_file)
        return Client(keys.ca_file, networks, relays, keys.timeout)
    except ConfigError as error:
        raise ConfigError(f"keys.{error}") from None
