"""The configuration file: TOML → one frozen tree, or a `ConfigError` that names the place.

Unknown keys are refused. Stages never see this tree: `service` hands them plain values.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, field

from fasthook import values
from fasthook.converting import NAME, convert
from fasthook.errors import ConfigError
from fasthook.values import Duration, Rate, Secret, Size

#: Senders wait for their answer while a key is fetched, and none of them for long.
MAX_FETCH_S = 10.0
Count = Annotated[int, Meta(ge=1)]
#: Name of the endpoint from which alerts come as events.
ALERTS = "alerts"
MIN_INTERVAL_S, MAX_INTERVAL_S = 1.0, 3600.0
Name = Annotated[str, Meta(pattern=NAME)]


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all tables."""


class Server(_Table, frozen=True, kw_only=True):
    """`[server]`: where requests come in, and how much of a client is borne."""

    listen: tuple[str, ...] = ("tcp://127.0.0.1:8080",)
    workers: int = 1
    trusted_proxies: tuple[str, ...] = ("127.0.0.1", "::1", "unix")
    socket_mode: Annotated[str, Meta(pattern=r"^0?[0-7]{3}\Z")] = "0660"
    socket_group: str = ""
    #: What one client may have refused before it is shed without a look at its signature.
    unverified_rate: Rate = Rate(1000)
    unverified_burst: Count = 10_000
    max_body: Size = Size(1024**2)
    max_connections: Count = 1024
    max_bytes_in_flight: Size = Size(64 * 1024**2)
    head_timeout: Duration = Duration(5)
    body_timeout: Duration = Duration(10)
    idle_timeout: Duration = Duration(75)
    write_timeout: Duration = Duration(10)
    drain_timeout: Duration = Duration(30)


class Admin(_Table, frozen=True, kw_only=True):
    """`[admin]`: health and metrics, on a listener of their own. Empty `listen`: none."""

    listen: str = "tcp://127.0.0.1:8081"


class Spool(_Table, frozen=True, kw_only=True):
    """`[spool]`: how what was accepted is kept."""

    path: str = "var"
    durability: Literal["fsync", "os", "none"] = "fsync"
    max_bytes: Size = Size(10 * 1024**3)
    retention: Duration = Duration(7 * 86400)


class Dispatch(_Table, frozen=True, kw_only=True):
    """`[dispatch]`: the way from accepted to handled."""

    hold: bool = False
    backlog: Count = 10_000
    backlog_bytes: Size = Size(32 * 1024**2)  # more wait on disk; a worker stays below 100 MiB


class Keys(_Table, frozen=True, kw_only=True):
    """`[keys]`: how keys are fetched that senders publish."""

    #: Certificates of whom to trust, in PEM, in the place of the system's.
    ca_file: str = ""
    allow: tuple[str, ...] = ()  # networks that may be connected to although they are not public
    #: Host → address and port by which it is reached, such as a relay.
    connect_to: dict[str, str] = {}
    timeout: Duration = Duration(5)  # of a fetch, all in all


class LogSettings(_Table, frozen=True, kw_only=True):
    """`[log]`: what is said, and in which form."""

    #: "auto": the journal where standard error leads to it, else text.
    format: Literal["auto", "text", "json", "journal"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"
    journal_socket: str = "/run/systemd/journal/socket"
    requests: bool = True  # a line for each accepted request
    attempts: bool = True  # a line for each event that a handler has done


class Alerts(_Table, frozen=True, kw_only=True):
    """`[alerts]`: what is unusual is told."""

    watch: bool = True
    #: Get an event when an alert begins, and one when it ends.
    handlers: tuple[str, ...] = ()
    interval: Duration = Duration(60)  # between two looks
    learning: Duration = Duration(14 * 86400)  # watched before volume, errors, silence are judged
    #: Refused within five looks, at an endpoint or of a client: what is below is never told.
    rejects: Count = 100
    drift: bool = True  # say when the shape of payloads changes


class ToHandler(_Table, frozen=True, kw_only=True):
    """An element of an endpoint's `handlers`: a handler, and which events it gets."""

    name: Name
    when: str | None = None  # an expression; None: as the handler says


class Endpoint(_Table, frozen=True, kw_only=True):
    """`[[endpoint]]`: one path, who sends to it, and who handles what comes."""

    name: Name
    path: Annotated[str, Meta(pattern=r"^/[!-~]*\Z")]
    provider: str
    #: Name of one of the provider's schemes, or for "custom" a table: decoded by the service.
    scheme: str | dict[str, Any] = ""
    #: May be missing where the sender hands its own over: `fasthook pair`.
    secrets: tuple[Secret, ...] = ()
    handlers: tuple[str | ToHandler, ...] = ()
    events: tuple[str, ...] | None = None
    rate: Rate | None = None
    burst: Count | None = None
    allow: tuple[str, ...] = ()
    status: Annotated[int, Meta(ge=200, le=299)] | None = None
    max_body: Size | None = None
    tolerance: Duration | None = None
    content: tuple[Literal["json", "form", "multipart", "any"], ...] = ()
    public_url: str = ""
    #: Where the keys of tokens are fetched, in the place of secrets.
    jwks_url: str = ""
    #: "observe": what is not genuine is accepted like the rest, and reported: for a migration.
    mode: Literal["enforce", "observe"] = "enforce"
    #: What the provider's scheme asks for beside the secret, such as PayPal's webhook_id.
    config: dict[str, str] = {}
    #: Keep head and body of refused requests for a while, to find out why; they are not verified.
    keep_rejected: bool = False
    #: Something has to come within this time; else what is silence is learned.
    expect_every: Duration | None = None

    @property
    def handler_names(self) -> tuple[str, ...]:
        """Its handlers, in their order."""
        return tuple(each if isinstance(each, str) else each.name for each in self.handlers)


class Config(_Table, frozen=True, kw_only=True):
    """The whole file."""

    server: Server = field(default_factory=Server)
    admin: Admin = field(default_factory=Admin)
    spool: Spool = field(default_factory=Spool)
    dispatch: Dispatch = field(default_factory=Dispatch)
    log: LogSettings = field(default_factory=LogSettings)
    keys: Keys = field(default_factory=Keys)
    alerts: Alerts = field(default_factory=Alerts)
    endpoint: tuple[Endpoint, ...] = ()
    #: `[handlers.NAME]`: settings of a handler; decoded by the service into what it declares.
    handlers: dict[Name, dict[str, Any]] = {}
    source: str = ""  # set by `load`: the file, for messages


def text_of(path: Path) -> str:
    """What is in a file. Raises `ConfigError`, which names it."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text") from None


def load(path: Path, *, has_secrets: bool = True) -> Config:
    """The configuration in `path`. Raises `ConfigError`, which names the file and the key.

    `has_secrets`: without them it can be read where only the service finds its secrets.
    """
    text = text_of(path)
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    if "source" in tree:
        raise ConfigError(f"{path}: source: unknown key")
    try:
        hook = values.decode if has_secrets else values.decode_without_secrets
        config = convert(_anchored(tree, path.absolute().parent), Config, hook=hook)
        _check_together(config)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    keys = config.keys
    if keys.ca_file:
        ca_file = str(path.absolute().parent / keys.ca_file)
        keys = msgspec.structs.replace(keys, ca_file=ca_file)
    return msgspec.structs.replace(config, source=str(path), keys=keys)


def spool_of(config: Config) -> Path:
    """The spool's directory, from where the configuration stands."""
    return Path(config.source).parent / config.spool.path


def _anchored(tree: Any, directory: Path) -> Any:
    """`tree`, with "file:" references made relative to the file they stand in."""
    if isinstance(tree, dict):
        return {key: _anchored(value, directory) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_anchored(value, directory) for value in tree]
    if isinstance(tree, str) and tree.startswith("file:"):
        return f"file:{directory / tree.removeprefix('file:')}"
    return tree


def _check_together(config: Config) -> None:
    """What no single key can show. Raises `ConfigError`."""
    if not config.server.listen:
        raise ConfigError("server.listen: expected at least one address")
    if not config.endpoint:
        raise ConfigError("endpoint: expected at least one [[endpoint]] table")
    for key in ("head_timeout", "body_timeout", "idle_timeout", "write_timeout"):
        if not getattr(config.server, key):
            raise ConfigError(f'server.{key}: 0; expected a time above zero, such as "5s"')
    if not 0 < config.keys.timeout <= MAX_FETCH_S:
        expected = f"expected a time above zero, {MAX_FETCH_S:g}s at the most"
        raise ConfigError(f"keys.timeout: {config.keys.timeout:g}s; {expected}")
    for key in ("name", "path"):
        seen: dict[str, int] = {}
        for index, endpoint in enumerate(config.endpoint):
            value = getattr(endpoint, key)
            if value in seen:
                raise ConfigError(
                    f"endpoint[{index}].{key}: {value!r}; endpoint[{seen[value]}] has the same"
                )
            seen[value] = index
    for index, endpoint in enumerate(config.endpoint):
        where = f'endpoint[{index}] ("{endpoint.name}")'
        _check_endpoint(where, endpoint)
        _check_expected(where, endpoint, config.alerts)
    _check_alerts(config)


def _check_alerts(config: Config) -> None:
    alerts = config.alerts
    if not MIN_INTERVAL_S <= alerts.interval <= MAX_INTERVAL_S:
        got = f"alerts.interval: {alerts.interval:g}s"
        raise ConfigError(f'{got}; expected a time from "1s" to "1h"')
    if len(set(alerts.handlers)) != len(alerts.handlers):
        raise ConfigError("alerts.handlers: a handler is named twice")
    if alerts.handlers and not alerts.watch:
        raise ConfigError("alerts.handlers: get nothing with watch = false")
    for index, endpoint in enumerate(config.endpoint):
        if alerts.handlers and endpoint.name == ALERTS:
            why = "alerts.handlers get their events from an endpoint of this name"
            raise ConfigError(f"endpoint[{index}].name: {ALERTS!r}; expected another, since {why}")


def _check_expected(where: str, endpoint: Endpoint, alerts: Alerts) -> None:
    if endpoint.expect_every is None:
        return
    if not alerts.watch:
        raise ConfigError(f"{where}.expect_every: has no meaning with alerts.watch = false")
    if endpoint.expect_every < alerts.interval:
        got = f"{where}.expect_every: {endpoint.expect_every:g}s"
        raise ConfigError(f"{got}; expected alerts.interval ({alerts.interval:g}s) or more")


def _check_endpoint(where: str, endpoint: Endpoint) -> None:
    if "?" in endpoint.path or "#" in endpoint.path:
        raise ConfigError(f"{where}.path: {endpoint.path!r}; expected a path without query")
    if not endpoint.handlers:
        raise ConfigError(f'{where}.handlers: expected at least one, such as ["log"]')
    if len(set(endpoint.handler_names)) != len(endpoint.handlers):
        raise ConfigError(f"{where}.handlers: a handler is named twice")
    if endpoint.provider == "none":
        for key in ("secrets", "scheme", "tolerance", "jwks_url"):
            if getattr(endpoint, key):
                raise ConfigError(f'{where}.{key}: not used with provider = "none"')
    if endpoint.burst is not None and endpoint.rate is None:
        raise ConfigError(f"{where}.burst: has no meaning without rate")
    if isinstance(endpoint.scheme, dict) != (endpoint.provider == "custom"):
        raise ConfigError(
            f'{where}.scheme: a table belongs to provider = "custom", and it to a table'
        )
