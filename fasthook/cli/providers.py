"""`fasthook providers`: who is known, and what each needs."""

import difflib
import sys
from typing import Any

import click
import msgspec

from fasthook.cli.options import json_option
from fasthook.cli.tables import new_table, show
from fasthook.intake import catalogue
from fasthook.intake.catalogue import Provider
from fasthook.intake.schemes import Scheme


@click.command("providers")
@click.argument("name", required=False)
@json_option
def command(name: str | None, as_json: bool) -> None:
    """List the known providers, or show all about one.

    NAME may be a part of a name: then the list shows those that contain it.
    """
    known = catalogue.names()
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
            provider.id, provider.name, provider.category, describe(scheme), provider.retries
        )
    show(table)


def _contains(provider: Provider, part: str) -> bool:
    return part.lower() in f"{provider.id} {provider.name} {provider.category}".lower()


def describe(scheme: Scheme) -> str:
    """A scheme in a few words: algorithm and header."""
    algorithm = f"HMAC-{scheme.hash.upper()}" if scheme.kind == "hmac" else scheme.kind
    header = scheme.header if isinstance(scheme.header, str) else scheme.header[0]
    return f"{algorithm} in {header}"


def _facts(provider: Provider) -> dict[str, Any]:
    facts: dict[str, Any] = msgspec.to_builtins(provider, enc_hook=float)  # a Duration is one
    facts["covers_body"] = {name: s.covers_body for name, s in provider.schemes.items()}
    facts["signs_event_id"] = {n: provider.signs_event_id(s) for n, s in provider.schemes.items()}
    return facts


def block(provider: Provider) -> str:
    """A ready `[[endpoint]]` for this provider."""
    variable = provider.id.upper().replace("-", "_") + "_SECRET"
    return (
        "[[endpoint]]\n"
        f'name     = "{provider.id}"\n'
        f'path     = "/{provider.id}"\n'
        f'provider = "{provider.id}"\n'
        f'secrets  = ["env:{variable}"]\n'
        'handlers = ["log"]\n'
    )


def _show(provider: Provider) -> None:
    click.secho(f"{provider.name}", bold=True)
    click.echo(f"{provider.docs}\n")
    click.echo(f"At the sender: {provider.setup}\n")
    for name, scheme in provider.schemes.items():
        click.echo(f"scheme {name}: {describe(scheme)}; signs {scheme.message}")
    deadline = f"{provider.deadline_s:g} s" if provider.deadline_s else "unknown"
    click.echo(f"deadline: {deadline}; retries: {provider.retries}\n")
    click.echo(block(provider), nl=False)
