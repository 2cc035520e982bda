"""`fasthook send`: sign and send events as a provider does."""

import sys
import time
import uuid
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urljoin, urlsplit

import click
import orjson
import urllib3
from rich.console import Console
from rich.progress import track

from fasthook import config
from fasthook.cli.options import config_option
from fasthook.config import Endpoint
from fasthook.errors import ConfigError, Rejection
from fasthook.intake import catalogue
from fasthook.intake.catalogue import Provider
from fasthook.intake.schemes import BARE, Scheme
from fasthook.intake.signing import place, sample_secret, sign
from fasthook.intake.templates import Selector, Template, spread
from fasthook.model import Request, texts
from fasthook.values import Secret
from fasthook.verifying import known_secrets, provider_of, scheme_of
from fasthook.wire.sockets import parse_tcp

TAMPERINGS = ("body", "signature", "secret", "timestamp")
_STALE_S = 3 * 3600
_FORM = b"application/x-www-form-urlencoded"


class Target(NamedTuple):
    """Where to send, and how to sign."""

    url: str
    signed_url: str  # what the sender was told its URL is
    provider: Provider
    scheme: Scheme | None
    secret: bytes
    settings: dict[str, str]


@click.command("send")
@click.argument("endpoint", required=False)
@config_option
@click.option("--provider", help="Sign as this provider does.")
@click.option("--scheme", "scheme_name", default="", help="One of the provider's schemes.")
@click.option("--secret", help="env:NAME, file:PATH, plain:TEXT, or the secret itself.")
@click.option("--url", help="Where to send.")
@click.option(
    "--setting",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="What the provider's scheme asks for beside the secret.",
)
@click.option("--event", help="Event type; without --body it also chooses the sample.")
@click.option("--body", "body_path", type=click.File("rb"), help="A file, or - for standard input.")
@click.option("--id", "event_id", help="Event id; by default each event gets a new one.")
@click.option("--count", type=click.IntRange(1), default=1, help="How many events.")
@click.option(
    "--tamper",
    is_flag=False,
    flag_value="body",
    type=click.Choice(TAMPERINGS),
    help="Spoil it after signing (body if no part is named), to see it refused.",
)
@click.option("-q", "--quiet", is_flag=True, help="Only a summary.")
def command(endpoint: str | None, config_path: Path, **options: Any) -> None:
    """Send signed events to a receiver.

    With ENDPOINT, address, provider and secret come from the configuration; without, they are
    given by --url, --provider and --secret. Exit code 1: some answer was not 2xx.
    """
    for name in ("event", "event_id"):
        if not (options[name] or "").isprintable():
            raise click.UsageError(f"--{name.removeprefix('event_')}: expected printable text")
    target = _target(endpoint, config_path, options)
    if options["tamper"] == "timestamp" and not (target.scheme and target.scheme.timestamp):
        raise click.UsageError(f"--tamper timestamp: {target.provider.id} signs no time")
    body_file = options["body_path"]
    if body_file is not None and options["event_id"] and not _has_id_header(target):
        raise click.UsageError("--id: the id stands in the body, which is sent as it is")
    given = body_file.read() if body_file is not None else None
    client = urllib3.PoolManager(retries=False, timeout=30)
    count, statuses = options["count"], list[int]()
    numbers: Any = range(count)
    if count > 1 and Console().is_terminal:
        numbers = track(numbers, "sending", transient=True)
    for _ in numbers:
        request = build(target, options["event"], given, options["event_id"], options["tamper"])
        statuses.append(_post(client, target.url, request, options["quiet"] or count > 1))
    if count > 1 or options["quiet"]:
        counts = {status: statuses.count(status) for status in sorted(set(statuses))}
        click.echo(", ".join(f"{number} × {status}" for status, number in counts.items()))
    sys.exit(0 if all(200 <= status < 300 for status in statuses) else 1)


def _target(name: str | None, config_path: Path, options: dict[str, Any]) -> Target:
    if name is None:
        return _named(options)
    for option in ("provider", "scheme_name"):
        if options[option]:
            raise click.UsageError("--provider and --scheme stand in the ENDPOINT's configuration")
    settings = config.load(config_path)
    endpoint = next((e for e in settings.endpoint if e.name == name), None)
    if endpoint is None:
        known = ", ".join(e.name for e in settings.endpoint)
        raise ConfigError(f"{config_path}: no endpoint {name!r}; it has: {known}")
    provider = provider_of(endpoint, name)
    scheme = scheme_of(endpoint, provider, name)
    if options["secret"]:
        secret = secret_of(options["secret"])
    else:
        secret = next(iter(known_secrets(endpoint, provider, settings)), b"")
        if scheme is not None and not secret:
            what = f"{name} has no secret yet; `fasthook pair {name}` takes one, or give --secret"
            if scheme.fetch is not None or endpoint.jwks_url:
                what = f"{name} is sent to with its sender's own key; give a private one: --secret"
            raise ConfigError(f"{config_path}: {what}")
    url = options["url"] or _url(settings.server.listen, endpoint)
    return Target(url, endpoint.public_url or url, provider, scheme, secret, endpoint.config)


def _named(options: dict[str, Any]) -> Target:
    missing = [f"--{key}" for key in ("url", "provider") if not options[key]]
    if missing:
        raise click.UsageError(f"without ENDPOINT, {' and '.join(missing)} must be given")
    if options["provider"] == "none":
        return Target(options["url"], options["url"], catalogue.NONE, None, b"", {})
    provider = catalogue.load(options["provider"])
    name = options["scheme_name"] or provider.default_scheme
    if name not in provider.schemes:
        raise click.UsageError(f"--scheme {name!r}; it has: {', '.join(provider.schemes)}")
    if not options["secret"]:
        raise click.UsageError("--secret must be given")
    url, secret = options["url"], secret_of(options["secret"])
    settings = dict(pair.partition("=")[::2] for pair in options["settings"])
    return Target(url, url, provider, provider.schemes[name], secret, settings)


def secret_of(text: str) -> bytes:
    """The secret that an option names, or is. Raises `click.UsageError`."""
    if text.partition(":")[0] not in ("env", "file", "credential", "plain"):
        return text.encode()
    try:
        return Secret.parse(text).reveal()
    except ValueError as error:
        raise click.UsageError(f"--secret: {error}") from None


def _url(listen: tuple[str, ...], endpoint: Endpoint) -> str:
    address = next((a for a in listen if a.startswith("tcp://")), None)
    if address is None:
        raise click.UsageError("the configuration listens on no tcp:// address; give --url")
    host, port = parse_tcp(address)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - any → this host
    return f"http://{f'[{host}]' if ':' in host else host}:{port}{endpoint.path}"


# --- one event ------------------------------------------------------------------------------------


def build(
    target: Target,
    event_type: str | None,
    given: bytes | None,
    event_id: str | None,
    tamper: str | None,
    at_s: float | None = None,
) -> Request:
    """A signed request: headers and body are what would be sent. `at_s`: wall clock, else now."""
    url, signed_url, provider, scheme, secret, settings = target
    parts = _split_url(url)
    path = (parts.path or "/").encode()
    if event_type is None:
        event_type = next(iter(provider.samples), "")
    new_id = event_id or f"{uuid.uuid4()}"
    body = given if given is not None else _sample(provider, scheme, event_type, new_id)
    headers = {b"content-type": _type_of(provider, body), b"user-agent": b"fasthook-send"}
    target_line = path + (b"?" + parts.query.encode() if parts.query else b"")
    request = Request(b"POST", target_line, path, b"", headers, True, None, body)
    if scheme is None:
        return request
    for selector, value in _places_of(provider, scheme, new_id, event_type):
        if selector.kind == "header":
            headers[selector.name.encode()] = value.encode()
    now_s = at_s if at_s is not None else time.time()
    if tamper == "timestamp":
        now_s -= _STALE_S
    key = sample_secret(scheme, b"another").encode() if tamper == "secret" else secret
    try:
        _complete(scheme, request)
        sign(scheme, key, request, now_s, signed_url, settings)
    except Rejection as error:
        raise ConfigError(str(error)) from None
    if tamper == "body":
        request.body = _flipped(request.body)
    elif tamper == "signature":
        selector = Selector.parse(scheme.signature or f"header:{scheme.headers[0]}")
        place(request, selector, _flipped(selector.read(request) or b""))
    return request


def _type_of(provider: Provider, body: bytes) -> bytes:
    """What the body is, where the provider sends several types; else the one it sends."""
    kinds = [kind for kind in provider.content if kind in ("json", "form")]
    if len(kinds) > 1 and body:
        return b"application/json" if body.lstrip()[:1] in (b"{", b"[") else _FORM
    return b"application/json" if kinds[:1] == ["json"] else _FORM


def _complete(scheme: Scheme, request: Request) -> None:
    """Give the request what is signed beside the body, if it has not got it."""
    if scheme.kind in (*BARE, "jwt", "code"):
        return
    for selector in Template(scheme.message).selectors:
        if selector.kind != "signature" and selector.read(request) is None:
            place(request, selector, b"fasthook")


def _has_id_header(target: Target) -> bool:
    selectors = target.provider.event_id_of(target.scheme) if target.scheme is not None else []
    return bool(selectors) and Selector.parse(selectors[0]).kind == "header"


def _split_url(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:
        raise click.UsageError(f"--url {url!r}: {error}") from None


def _sample(provider: Provider, scheme: Scheme | None, event_type: str, event_id: str) -> bytes:
    """The provider's sample for this type, or the first one; with the id and type put in."""
    text = provider.samples.get(event_type) or next(iter(provider.samples.values()), "{}")
    value = orjson.dumps(orjson.loads(text))
    if scheme is None or event_type == "url_verification":
        return value
    made = Request(b"POST", b"/", b"/", b"", {}, True, None, b"" if value == b"{}" else value)
    for selector, new in _places_of(provider, scheme, event_id, event_type or "event"):
        if selector.kind in ("json", "form"):
            place(made, selector, new.encode())
    return made.body or value


def _places_of(
    provider: Provider, scheme: Scheme, event_id: str, event_type: str
) -> list[tuple[Selector, str]]:
    """Where the receiver looks for id and type, and what has to stand there."""
    ids, types = provider.event_id_of(scheme), provider.event_type_of(scheme)
    found = [(Selector.parse(ids[0]), event_id)] if ids else []
    return found + (spread(types[0], event_type) if types else [])


def _flipped(data: bytes) -> bytes:
    """`data` with one bit of its last byte changed; a character stays a printable one."""
    return data[:-1] + bytes([data[-1] ^ 1]) if data else b"x"


def _post(client: urllib3.PoolManager, url: str, request: Request, is_quiet: bool) -> int:
    began = time.perf_counter()
    headers = texts(request.headers)
    url = urljoin(url, request.target.decode())
    try:
        response = client.request("POST", url, body=request.body, headers=headers)
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        is_refused = isinstance(error, urllib3.exceptions.NewConnectionError)
        reason = "no answer there; is `fasthook serve` running?" if is_refused else error
        click.echo(f"error: {url}: {reason}", err=True)
        sys.exit(1)
    if not is_quiet:
        took_ms = (time.perf_counter() - began) * 1000
        text = response.data.decode("utf-8", "replace").strip()
        click.echo(f"{response.status} {response.reason or ''} ({took_ms:.1f} ms) {text}".rstrip())
    return response.status
