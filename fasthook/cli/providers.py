"""`fasthook providers`: who is known, and what each needs."""

import difflib
import sys
from typing import Any

import click
import msgspec

from fasthook.cli.options import json_option
from fasthook.cli.tables import new_table, show
from fasthook.fetch_plan import shown
from fasthook.intake import catalogue
from fasthook.intake.catalogue import Provider
from fasthook.intake.schemes import BARE, Scheme


@click.command("providers")
@click.argument("name", required=False)
@json_option
@click.option("--markdown", is_flag=True, help="As a table for a page.")
def command(name: str | None, as_json: bool, markdown: bool) -> None:
    """List the known providers, or show all about one.

    NAME may be a part of a name: then the list shows those that contain it.
    """
    known = catalogue.names()
    if markdown:
        click.echo(as_markdown(), nl=False)
        return
    if name in known:
        provider = catalogue.load(name)
        if as_json:
            click.echo(msgspec.json.format(msgspec.json.encode(_facts(provider))))
        else:
            _show(provider)
        return
    found = [p for p in catalogue.everything() if not name or _contains(p, name)]
    if not found:
        close = difflib.get_close_matches(str(name), known, 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        click.echo(f"error: no provider {name!r}{hint} (`fasthook providers` lists them)", err=True)
        sys.exit(1)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode([_facts(p) for p in found])))
        return
    table = new_table("provider", "name", "kind", "signature", "retries")
    for provider in found:
        scheme = provider.schemes[provider.default_scheme]
        table.add_row(
            provider.id, provider.name, provider.category, describe(scheme), provider.retries or "?"
        )
    show(table)


def as_markdown() -> str:
    """The whole catalogue as a table in Markdown."""
    lines = [
        "| provider | signature | body signed | evidence | handshakes |",
        "|---|---|---|---|---|",
    ]
    for provider in catalogue.everything():
        scheme = provider.schemes[provider.default_scheme]
        covers = "yes" if scheme.covers_body else "no"
        handshakes = ", ".join(handshake.name for handshake in provider.handshakes)
        cells = (f"{provider.name} (`{provider.id}`)", describe(scheme), covers, provider.evidence)
        lines.append(f"| {' | '.join(cells)} | {handshakes} |")
    return "\n".join(lines) + "\n"


def _contains(provider: Provider, part: str) -> bool:
    return part.lower() in f"{provider.id} {provider.name} {provider.category}".lower()


def describe(scheme: Scheme) -> str:
    """A scheme in a few words: algorithm and place."""
    places = [scheme.header] if isinstance(scheme.header, str) else scheme.header
    return f"{algorithm_of(scheme)} in {(places or [scheme.signature])[0]}"


def algorithm_of(scheme: Scheme) -> str:
    """What makes the signature, in the words of the field."""
    by_kind = {
        "hmac": f"HMAC-{(scheme.hashes[:1] or [scheme.hash])[0].upper()}",
        "digest": f"plain {scheme.hash.upper()}",
        "ecdsa": f"ECDSA-{scheme.hash.upper()}",
        "rsa": f"RSA-{scheme.hash.upper()}",
        "ed25519": "Ed25519",
        "jwt": "JWT",
        "code": scheme.code,
    }
    return by_kind.get(scheme.kind, scheme.kind)


def _facts(provider: Provider) -> dict[str, Any]:
    facts: dict[str, Any] = msgspec.to_builtins(provider, enc_hook=float)  # a Duration is one
    facts["covers_body"] = {name: s.covers_body for name, s in provider.schemes.items()}
    facts["signs_event_id"] = {n: provider.signs_event_id(s) for n, s in provider.schemes.items()}
    return facts


def block(provider: Provider) -> str:
    """A ready `[[endpoint]]` for this provider."""
    variable = provider.id.upper().replace("-", "_") + "_SECRET"
    scheme = provider.schemes[provider.default_scheme]
    lines = [
        "[[endpoint]]",
        f'name     = "{provider.id}"',
        f'path     = "/{provider.id}"',
        f'provider = "{provider.id}"',
        _secrets_line(provider, scheme, f'secrets  = ["env:{variable}"]'),
        'handlers = ["log"]',
    ]
    if scheme.needs_url:
        lines.append(f'public_url = "https://HOST/{provider.id}"   # as it stands at the sender')
    lines += [f'config.{name} = "…"' for name in scheme.settings]
    more = [name for name in provider.handshake_settings if name not in scheme.settings]
    lines += [f'config.{name} = "…"   # for its handshake' for name in more]
    return "\n".join(lines) + "\n"


def _secrets_line(provider: Provider, scheme: Scheme, secrets: str) -> str:
    if provider.handovers:
        return "# no secrets: `fasthook pair` takes the one that the sender hands over"
    if scheme.fetch is not None:
        return "# no secrets: the keys are fetched"
    return secrets


def _show(provider: Provider) -> None:
    click.secho(f"{provider.name}", bold=True)
    unsure = "" if provider.is_docs_certain else " (address from memory)"
    click.echo(f"{provider.docs or 'no page known'}{unsure}\n")
    if provider.setup:
        click.echo(f"At the sender: {provider.setup}")
    if provider.secret:
        click.echo(f"Secret: {provider.secret}")
    click.echo()
    for name, scheme in provider.schemes.items():
        click.echo(f"scheme {name}: {describe(scheme)}; signs {_signed_by(provider, scheme)}")
        if scheme.fetch is not None:
            click.echo(f"keys: fetched from {shown(scheme.fetch)}, unless secrets has one")
    for handshake in provider.handshakes:
        signed = "signed" if handshake.is_signed else "unsigned"
        answered = "answered here"
        if handshake.handover is not None:
            answered = f"hands over the secret: `fasthook pair {provider.id}` takes it"
        if handshake.visit is not None:
            answered = f"answered once the URL in {handshake.visit.at} was visited"
        click.echo(f"handshake {handshake.name}: {handshake.method}, {signed}, {answered}")
    deadline = f"{provider.deadline_s:g} s" if provider.deadline_s else "unknown"
    doubt = "" if provider.is_response_certain else " (from memory: check before relying on it)"
    click.echo(f"deadline: {deadline}; retries: {provider.retries or 'unknown'}{doubt}")
    click.echo(f"evidence for the signature: {provider.evidence}\n")
    click.echo(block(provider), nl=False)


def _signed_by(provider: Provider, scheme: Scheme) -> str:
    """What the signature covers, and what follows from it for duplicates."""
    what = "the request as its module says" if scheme.kind == "code" else scheme.message
    if scheme.kind in BARE:
        what = "nothing of the request"
    elif scheme.claims is not None:
        what = "a token about the body" if scheme.covers_body else "a token of the sender alone"
    what = what.encode("unicode_escape").decode()
    if not scheme.covers_body:
        what += ", not the whole body: equal bodies are duplicates"
    elif not provider.signs_event_id(scheme):
        what += "; no event id is signed: equal bodies are duplicates"
    return what
