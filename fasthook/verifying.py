"""How the requests of an endpoint are verified: its provider, their scheme, all secrets.

For `plan`, and for commands that sign or verify a request without a whole plan.
"""

from collections.abc import Sequence

import msgspec

from fasthook.config import Config, spool_of
from fasthook.config import Endpoint as EndpointSettings
from fasthook.converting import convert
from fasthook.errors import ConfigError
from fasthook.fetch_plan import FetchPlan, source_of
from fasthook.intake import catalogue
from fasthook.intake.catalogue import Provider
from fasthook.intake.handshakes import Unpaired
from fasthook.intake.multiparts import looks_into_parts
from fasthook.intake.schemes import Scheme
from fasthook.intake.signatures import Observer, Unsigned, Verifier, verifier_of
from fasthook.spool import secrets
from fasthook.spool.secrets import Kept


def provider_of(settings: EndpointSettings, where: str) -> Provider:
    """Who sends, as `fasthook providers` has it. `where`: for the `ConfigError` that it raises."""
    if settings.provider == "none":
        return catalogue.NONE
    if settings.provider == "custom":
        scheme = convert(settings.scheme, Scheme, f"{where}.scheme")
        try:
            scheme.check()
        except ValueError as error:
            raise ConfigError(f"{where}.scheme.{error}") from None
        return catalogue.custom(scheme)
    try:
        return catalogue.load(settings.provider)
    except ConfigError as error:
        raise ConfigError(f"{where}.provider: {error}") from None


def scheme_of(settings: EndpointSettings, provider: Provider, where: str) -> Scheme | None:
    """How requests are signed; None: not at all. Raises `ConfigError`."""
    if not provider.schemes:
        return None
    name = settings.scheme if isinstance(settings.scheme, str) else ""
    scheme = provider.schemes.get(name or provider.default_scheme)
    if scheme is None:
        known = ", ".join(provider.schemes)
        raise ConfigError(f"{where}.scheme: {name!r}; {provider.id} has: {known}")
    if settings.tolerance is not None:
        if not scheme.timestamp:
            raise ConfigError(f"{where}.tolerance: {provider.id} signs no time")
        scheme = msgspec.structs.replace(scheme, tolerance=settings.tolerance)
    return scheme


def kept_secrets(settings: EndpointSettings, provider: Provider, config: Config) -> list[Kept]:
    """What the endpoint's sender handed over before. Raises `ConfigError`."""
    if not provider.handovers or config.spool.durability == "none":
        return []
    return secrets.read(spool_of(config), settings.name)


def known_secrets(settings: EndpointSettings, provider: Provider, config: Config) -> list[bytes]:
    """All that may sign, in the order in which they are counted. Raises `ConfigError`."""
    kept = kept_secrets(settings, provider, config)
    return [secret.reveal() for secret in (*settings.secrets, *(one.secret for one in kept))]


def verifier(
    settings: EndpointSettings,
    provider: Provider,
    scheme: Scheme | None,
    where: str,
    fetches: FetchPlan,
    kept: Sequence[Kept],
) -> Verifier:
    """What verifies its requests, with the configured secrets and `kept` ones behind them.

    Raises `ConfigError`, as for a setting that is missing.
    """
    if scheme is None:
        return Unsigned()
    source = source_of(settings, scheme, where)
    if source is None and not (settings.secrets or provider.handovers):
        raise ConfigError(
            f'{where}.secrets: missing; expected at least one such as "env:NAME" '
            '(an open endpoint says provider = "none")'
        )
    _check_settings(settings, provider, scheme, where)
    if source is not None:
        fetched = fetches.verifier(settings, scheme, source)
        return _observed(settings, looks_into_parts(fetched, scheme, provider.form_payload))
    try:
        known = [*settings.secrets, *(one.secret for one in kept)]
        revealed = [secret.reveal() for secret in known]
        verifier = verifier_of(scheme, revealed, settings.public_url, settings.config)
        verifier = looks_into_parts(verifier, scheme, provider.form_payload)
        verifier = verifier if known else Unpaired(settings.name)
    except ConfigError as error:
        raise ConfigError(f"{where}.secrets: {error}") from None
    return _observed(settings, verifier)


def _observed(settings: EndpointSettings, verifier: Verifier) -> Verifier:
    return Observer(verifier, settings.name) if settings.mode == "observe" else verifier


def _check_settings(
    settings: EndpointSettings, provider: Provider, scheme: Scheme, where: str
) -> None:
    """Raise `ConfigError` unless all is there that is verified beside the secret."""
    if scheme.needs_url and not settings.public_url:
        raise ConfigError(f"{where}.public_url: missing; the URL is part of what is signed")
    missing = [name for name in scheme.settings if not settings.config.get(name)]
    if missing:
        raise ConfigError(f"{where}.config.{missing[0]}: missing; it is part of what is verified")
    known_settings = [*scheme.settings, *provider.handshake_settings]
    unknown = [name for name in settings.config if name not in known_settings]
    if unknown:
        listed = ", ".join(known_settings) or "nothing there"
        raise ConfigError(f"{where}.config.{unknown[0]}: unknown key; this scheme has {listed}")
