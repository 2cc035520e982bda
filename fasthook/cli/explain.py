"""`fasthook explain`: why a request is refused, and what would make it pass."""

import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import click

from fasthook import config
from fasthook.cli.captured import Captured, from_raw, parse
from fasthook.cli.options import config_option, json_option
from fasthook.cli.reading import MOMENT, echo_json, fail, path_of
from fasthook.cli.send import secret_of
from fasthook.config import Keys
from fasthook.errors import ConfigError, NotGenuine
from fasthook.fetch_plan import client_of, fetch, shown, source_of
from fasthook.intake import catalogue
from fasthook.intake.catalogue import Provider
from fasthook.intake.explaining import Case, Finding, explain
from fasthook.intake.fetched import Locator
from fasthook.intake.schemes import KeySource, Scheme
from fasthook.logs import escape
from fasthook.remote.urls import FetchError
from fasthook.spool.rejects import read
from fasthook.spool.spool import REJECTS_NAME
from fasthook.verifying import known_secrets, provider_of, scheme_of


class _Signing(NamedTuple):
    """How it should have been signed."""

    provider: Provider
    scheme: Scheme
    secrets: list[bytes]
    url: str
    settings: dict[str, str]
    source: KeySource | None = None  # of keys that are fetched, where there is no secret
    keys: Keys = Keys()


@click.command("explain")
@click.argument("capture", required=False, type=click.File("rb"))
@config_option
@json_option
@click.option("--endpoint", help="Provider, secrets and URL come from this endpoint.")
@click.option("--reject", "reject_id", type=int, help="A refused request: see `fasthook rejects`.")
@click.option("--provider", help="As this provider signs.")
@click.option("--scheme", "scheme_name", default="", help="One of the provider's schemes.")
@click.option("--secret", help="env:NAME, file:PATH, plain:TEXT, or the secret itself.")
@click.option("--url", default="", help="The URL as it stands at the sender.")
@click.option("--fetch", "fetches", is_flag=True, help="Fetch the key that its sender publishes.")
@click.option("--at", type=MOMENT, help="When it came; by default now. 5m ago: 5m; or a date.")
def command(capture: Any, config_path: Path, as_json: bool, **options: Any) -> None:
    """Say why a captured request is not genuine, and which change would make it pass.

    CAPTURE is a file (- for standard input) with the request as it was sent, a curl command line,
    or a HAR; or --reject names one that an endpoint with keep_rejected = true has refused.
    Where the sender publishes its key, --fetch gets it as the service would.
    Exit code 1: it is not genuine.
    """
    at_s = options["at"] / 1e9 if options["at"] is not None else time.time()
    if options["reject_id"] is not None:
        captured, endpoint, at_s = _rejected(config_path, options["reject_id"])
        options["endpoint"] = options["endpoint"] or endpoint
    elif capture is not None:
        captured = parse(capture.read())
    else:
        raise click.UsageError("CAPTURE or --reject must be given")
    signing = _signing(config_path, options, captured)
    provider, scheme, secrets, url, settings, source, keys = signing
    if source is None:
        found = explain(Case(captured.request, provider, scheme, secrets, url, settings, at_s))
    else:
        case = Case(captured.request, provider, scheme, [], url, settings, at_s)
        found = _with_fetched(case, source, keys, fetches=options["fetches"])
    _say(found, as_json)
    sys.exit(1 if found else 0)


def _signing(config_path: Path, options: dict[str, Any], captured: Captured) -> _Signing:
    if options["endpoint"]:
        settings = config.load(config_path)
        name = options["endpoint"]
        endpoint = next((e for e in settings.endpoint if e.name == name), None)
        if endpoint is None:
            known = ", ".join(e.name for e in settings.endpoint)
            raise ConfigError(f"{config_path}: no endpoint {name!r}; it has: {known}")
        provider = provider_of(endpoint, name)
        scheme = scheme_of(endpoint, provider, name)
        secrets = known_secrets(endpoint, provider, settings)
        url = options["url"] or endpoint.public_url or captured.url
        given, keys = dict(endpoint.config), settings.keys
        source = source_of(endpoint, scheme, name) if scheme is not None else None
    else:
        keys = Keys()
        if not options["provider"] or not (options["secret"] or options["fetches"]):
            what = "--endpoint, or --provider and --secret (or --fetch), must be given"
            raise click.UsageError(what)
        provider = catalogue.load(options["provider"])
        wanted = options["scheme_name"] or provider.default_scheme
        scheme = provider.schemes.get(wanted)
        if scheme is None:
            known = ", ".join(provider.schemes)
            raise click.UsageError(f"--scheme {wanted!r}; it has: {known}")
        secrets, url, given = [], options["url"] or captured.url, {}
        source = scheme.fetch
        if source is None and not options["secret"]:
            raise click.UsageError(f"--fetch: {provider.id} publishes no keys; give --secret")
    if options["secret"]:
        secrets, source = [secret_of(options["secret"])], None
    if scheme is None:
        raise ConfigError('provider = "none" verifies nothing: nothing is to be explained')
    return _Signing(provider, scheme, secrets, url, given, source, keys)


def _with_fetched(case: Case, source: KeySource, keys: Keys, *, fetches: bool) -> list[Finding]:
    """Explained by the key that the request names, which only its sender has."""
    try:
        wanted = Locator(case.scheme, source).wanted(case.request)
    except NotGenuine as error:
        text = f"{error}; its key may only come from {shown(source)}"
        missing = [one for one in explain(case) if one.cause == "header missing"]
        return missing or [Finding("key address", text, False)]
    if not fetches:
        kinds = {"certificate": "the certificate", "jwks": "the key set", "json": "the key"}
        what = kinds[wanted.source]
        how = "--fetch gets it, --secret file:PATH takes it from a file"
        fail(f"it is verified by {what} at {wanted.url}: {how}")
    try:
        secrets = fetch(client_of(keys), wanted, keys.ca_file, case.now_s).secrets
    except (FetchError, ValueError) as error:
        fail(f"no key from {wanted.url}: {error}")
    return explain(case._replace(secrets=secrets))


def _rejected(config_path: Path, number: int) -> tuple[Captured, str, float]:
    path = path_of(config.load(config_path, has_secrets=False)) / REJECTS_NAME
    try:
        found = [one for one in read(path, 1, "", number + 1) if one.id == number]
    except (OSError, apsw.Error) as error:
        raise ConfigError(f"{path}: {error}") from None
    if not found:
        fail(f"no refused request has the number {number}; the oldest ones are dropped")
    reject = found[0]
    if reject.head is None or reject.body is None:
        fail(f"{number}: {reject.reason}\nIts bytes are not kept: set keep_rejected = true")
    return from_raw(reject.head, reject.body), reject.endpoint, reject.at_ns / 1e9


def _say(found: list[Finding], as_json: bool) -> None:
    if as_json:
        for one in found:
            echo_json(one._asdict())
        if not found:
            echo_json({"cause": "genuine", "text": "the request is genuine", "is_enough": True})
        return
    if not found:
        click.secho("genuine: it is signed with the configured secret", fg="green")
    for one in found:
        click.echo(f"{one.cause}: {escape(one.text)}")
        if one.is_enough:
            click.echo("  With that alone it passes.")
