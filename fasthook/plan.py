"""A configuration, compiled: endpoints that can verify and decode, handlers that can run.

Whatever is wrong with a configuration is found before anything starts: `check` and `serve` make
the same plan. `verifying` knows how one endpoint's requests are verified.
"""

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

import msgspec

from fasthook import alert_events
from fasthook.config import ALERTS, Config, spool_of
from fasthook.config import Endpoint as EndpointSettings
from fasthook.dispatch.routes import Registered, Wanted
from fasthook.doubts import doubts_of
from fasthook.errors import ConfigError
from fasthook.fetch_plan import FetchPlan, client_of
from fasthook.handler_options import registered
from fasthook.handling import Handler
from fasthook.intake.catalogue import Provider
from fasthook.intake.identify import order_key_of
from fasthook.intake.limiter import TokenBucket
from fasthook.intake.network import AllowList, parse_network
from fasthook.intake.receiver import Endpoint
from fasthook.intake.schemes import Scheme
from fasthook.intake.signatures import Verifier
from fasthook.intake.templates import Template
from fasthook.model import Reply
from fasthook.routing import compiled, conditions_of, own_when, routing
from fasthook.sharing import Shared
from fasthook.spool import pauses
from fasthook.spool.secrets import Kept
from fasthook.verifying import kept_secrets, provider_of, scheme_of, verifier
from fasthook.wire.sockets import check_address

#: Said at every start, for it is not what one expects of a receiver that answers 2xx.
LOSES_EVENTS: Final = 'durability = "none": events are lost if the process dies'
HOLDS_EVENTS: Final = "dispatch.hold: events are stored, and no handler runs"


#: As many as anybody has cores for one receiver.
MAX_WORKERS: Final = 64


class Pairable(NamedTuple):
    """What is needed to pair an endpoint, and to use what its sender handed over."""

    endpoint: Endpoint
    kept: list[Kept]
    #: The endpoint's verifier with these secrets behind the configured ones.
    verifier_with: Callable[[Sequence[Kept]], Verifier]


class Plan(NamedTuple):
    """What a service needs of a configuration."""

    endpoints: list[Endpoint]
    handlers: list[Registered]
    routes: dict[str, list[Wanted]]  # endpoint → its handlers
    answers: dict[str, Reply]  # endpoint → what its senders are told when all is well
    body_limits: dict[bytes, int]  # path → bytes
    pairable: dict[str, Pairable]  # endpoint → how, where secrets can be handed over and kept
    warnings: list[str]
    fetches: FetchPlan
    own_endpoints: list[Endpoint]  # which no request finds: fasthook's own events come from there


def make(config: Config) -> Plan:
    """Compile `config`. Raises `ConfigError` that names the file, the key and what was expected."""
    try:
        return _make(config)
    except ConfigError as error:
        raise ConfigError(f"{config.source}: {error}") from None


def _make(config: Config) -> Plan:
    _check_server(config)
    plan = Plan([], [], {}, {}, {}, {}, [], FetchPlan(), [])
    shared = Shared(config.server.max_body)
    handlers = {name: None for endpoint in config.endpoint for name in endpoint.handler_names}
    handlers |= dict.fromkeys(config.alerts.handlers)
    for name in config.handlers:
        if name not in handlers:
            plan.warnings.append(f"handlers.{name}: no endpoint uses it")
    for index, settings in enumerate(config.endpoint):
        where = f'endpoint[{index}] ("{settings.name}")'
        _register(plan, settings.handler_names, config, where)
        _add_endpoint(plan, shared, settings, config, where)
    if plan.fetches.sources or plan.fetches.handshakes:
        client_of(config.keys)
    if config.alerts.handlers:
        _register(plan, config.alerts.handlers, config, "alerts")
        _add_alerts(plan, config)
    if config.spool.durability == "none":
        plan.warnings.append(LOSES_EVENTS)
    if config.dispatch.hold:
        plan.warnings.append(HOLDS_EVENTS)
    plan.warnings.extend(_paused(config))
    plan.warnings.extend(alert_events.check(config, workers_of(config)))
    _check_order(plan, workers_of(config))
    return plan


def _paused(config: Config) -> Iterator[str]:
    """What does not run, since when, and what to do."""
    if config.spool.durability == "none":
        return
    try:
        found = pauses.read(spool_of(config))
    except OSError as error:  # of another user
        yield f"what is paused can't be read: {error.filename}: {error.strerror}"
        return
    for what, option, names in (
        ("endpoint", "", found.endpoints),
        ("handler", "--handler ", found.handlers),
    ):
        for name, since_ns in names.items():
            since = f"{datetime.fromtimestamp(since_ns / 1e9, UTC):%Y-%m-%d %H:%M:%S} UTC"
            cure = f"`fasthook resume {option}{name}` ends that"
            yield f"{what} {name} is paused since {since}, its events wait on disk; {cure}"


def workers_of(config: Config) -> int:
    """How many workers there are to be."""
    return config.server.workers or len(os.sched_getaffinity(0))


def _check_order(plan: Plan, workers: int) -> None:
    """Raise `ConfigError` where events would have to be kept in order across workers."""
    for name, wanted in plan.routes.items():
        for each in wanted:
            if each.key_index >= 0 and workers > 1:
                by_name = {one.name: one.handler for one in plan.handlers}
                how = "in order (ordered_by)"
                if by_name[each.name].coalesce_by:
                    how = "together (coalesce_by)"
                raise ConfigError(
                    f"server.workers: {workers}, but handler {each.name} of endpoint {name} takes "
                    f"events {how}, which one worker alone can keep; expected 1"
                )


def _register(plan: Plan, names: Sequence[str], config: Config, where: str) -> None:
    for name in names:
        if name not in {one.name for one in plan.handlers}:
            plan.handlers.append(registered(name, config.handlers.get(name, {}), where))


def _add_alerts(plan: Plan, config: Config) -> None:
    """The endpoint from which alerts come, and its handlers."""
    known = {one.name: one.handler for one in plan.handlers}
    handlers = {name: known[name] for name in config.alerts.handlers}
    texts = {name: own_when(name, handler, config) for name, handler in handlers.items()}
    routes = routing(handlers, compiled({n: text for n, text in texts.items() if text[1]}))
    try:
        plan.own_endpoints.append(alert_events.endpoint_of(ALERTS, routes))
    except ConfigError as error:
        raise ConfigError(f"alerts.handlers: {error}") from None
    plan.routes[ALERTS] = routes.wanted
    plan.answers[ALERTS] = Reply(202)


def _check_server(config: Config) -> None:
    if not 0 <= config.server.workers <= MAX_WORKERS:
        what = f"expected 1 to {MAX_WORKERS}, or 0 for one a core"
        raise ConfigError(f"server.workers: {config.server.workers}; {what}")
    if config.dispatch.hold and config.spool.durability == "none":
        raise ConfigError('dispatch.hold: needs a spool; with durability = "none" nothing is kept')
    seen: set[str] = set()
    for key, addresses in (
        ("server.listen", config.server.listen),
        ("admin.listen", [config.admin.listen] if config.admin.listen else []),
    ):
        for address in addresses:
            try:
                check_address(address)
            except ConfigError as error:
                raise ConfigError(f"{key}: {error}") from None
            # What systemd passes for one is by its name none of the other.
            place = f"{key}: {address}" if address == "systemd" else address
            if place in seen and not address.endswith(":0"):
                raise ConfigError(f"{key}: {address} stands there twice")
            seen.add(place)
    for network in config.server.trusted_proxies:
        if network != "unix":
            _network("server.trusted_proxies", network)


def _network(where: str, text: str) -> None:
    try:
        parse_network(text)
    except ValueError as error:
        raise ConfigError(
            f"{where}: {error}; expected such as 192.0.2.0/24 or 2001:db8::1"
        ) from None


# --- endpoints ------------------------------------------------------------------------------------


def _add_endpoint(
    plan: Plan, shared: Shared, settings: EndpointSettings, config: Config, where: str
) -> None:
    provider = provider_of(settings, where)
    scheme = scheme_of(settings, provider, where)
    known = {one.name: one.handler for one in plan.handlers}
    handlers = {name: known[name] for name in settings.handler_names}
    _check_endpoint(settings, handlers, provider, where)
    routes = routing(handlers, conditions_of(settings, handlers, config, where))
    order_keys = [order_key_of(text) for text in routes.keys]
    try:
        identifier = shared.identifier(settings, provider, scheme, routes.types, order_keys)
    except ConfigError as error:
        raise ConfigError(f"{where}.handlers: {error}") from None
    greetings = [shared.greeting(settings, scheme, each) for each in provider.handshakes]
    kept = kept_secrets(settings, provider, config)
    verifier_with = functools.partial(verifier, settings, provider, scheme, where, plan.fetches)
    plan.fetches.add_handshakes(settings.name, provider)
    plan.endpoints.append(
        Endpoint(
            name=settings.name,
            path=settings.path.encode(),
            provider=provider.id,
            verifier=verifier_with(kept),
            identifier=identifier,
            bucket=_bucket(settings),
            allow=AllowList(settings.allow) if settings.allow else None,
            events=frozenset(settings.events) if settings.events is not None else None,
            greetings=tuple(g for g in greetings if g.is_signed),
            openings=tuple(g for g in greetings if not (g.is_signed or g.is_handover)),
            handovers=tuple(g for g in greetings if g.is_handover),
            retries_429=provider.retries_429,
            security_headers=_security_headers(provider, scheme),
            is_id_signed=scheme is not None and provider.signs_event_id(scheme),
            may_repeat=provider.may_repeat,
            order_keys=tuple(read for read, _ in order_keys),
            handlers=len(handlers),
            filters=routes.filters,
            keep_rejected=settings.keep_rejected,
            refusal_status=provider.refusal_status,
            is_refusal_bare=provider.is_refusal_bare,
            methods=tuple(method.encode() for method in provider.methods),
        )
    )
    if provider.handovers:
        _add_pairing(plan, settings, Pairable(plan.endpoints[-1], kept, verifier_with), config)
    plan.routes[settings.name] = routes.wanted
    plan.answers[settings.name] = _answer(settings, provider)
    plan.body_limits[settings.path.encode()] = settings.max_body or config.server.max_body
    plan.warnings.extend(f"{where}: {text}" for text in doubts_of(settings, provider, scheme))


def _answer(settings: EndpointSettings, provider: Provider) -> Reply:
    """What the sender is told when all is well."""
    status = settings.status or provider.status
    if not provider.answer_json:
        return Reply(status, provider.answer_type, provider.answer)
    filled = {
        name: Template(text, settings.config).text_of()
        for name, text in provider.answer_json.items()
    }
    return Reply(status, "application/json", msgspec.json.encode(filled).decode())


def _security_headers(provider: Provider, scheme: Scheme | None) -> frozenset[bytes]:
    signed = scheme.security_headers() if scheme is not None else set()
    return provider.handover_headers | signed


def _add_pairing(
    plan: Plan, settings: EndpointSettings, pairable: Pairable, config: Config
) -> None:
    has_spool = config.spool.durability != "none"
    if has_spool:
        plan.pairable[settings.name] = pairable
    if settings.secrets or pairable.kept:
        return
    how = f"start the service, then `fasthook pair {settings.name}`"
    if not has_spool:
        how = 'one that is handed over needs a spool, and durability is "none"'
    what = "it has no secret yet, so that every request is refused"
    plan.warnings.append(f'endpoint "{settings.name}": {what}; {how}')


def _check_endpoint(
    settings: EndpointSettings, handlers: dict[str, Handler], provider: Provider, where: str
) -> None:
    """Raise `ConfigError` where a handler goes by fields that events do not have, or `allow` has
    what is no network.
    """
    for network in settings.allow:
        _network(f"{where}.allow", network)
    for name, handler in handlers.items():
        for how, key in (
            ("is ordered", handler.ordered_by),
            ("coalesces", handler.coalesce_by),
            ("is put off", handler.not_before),
        ):
            has_none = tuple(settings.content or provider.content) == ("any",)
            if key.startswith("payload.") and has_none:
                what = f'{where}.content: ["any"] has no fields; expected "json" or "form", too'
                raise ConfigError(f"{what}, since handler {name} {how} by {key}")


def _bucket(settings: EndpointSettings) -> TokenBucket | None:
    rate = settings.rate
    return TokenBucket(rate, settings.burst or max(1, round(rate))) if rate else None
