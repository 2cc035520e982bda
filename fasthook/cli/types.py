"""`fasthook types`: structs for payloads, from stored events."""

from pathlib import Path

import click

from fasthook.cli.reading import Spool, fail, opens_spool, say
from fasthook.errors import ConfigError
from fasthook.shapes.shape import Shape
from fasthook.shapes.structs import module_of
from fasthook.spool.found import Filter
from fasthook.stored import genuine_payload


@click.command("types")
@click.argument("endpoint")
@click.option("--type", "event_type", default="", help="Of this event type alone.")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="Events.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write it there.")
@opens_spool
def command(
    spool: Spool, as_json: bool, endpoint: str, event_type: str, limit: int, out: Path | None
) -> None:
    """Write a module with msgspec structs for the payloads of ENDPOINT, from its newest events.

    One struct for each event type, which decodes all of the events that it was made of; no value
    of theirs is in it. The same events give the same module.
    """
    if as_json:
        raise click.UsageError("--json: a module is Python; expected no --json")
    found = spool.reader.newest(Filter(endpoint=endpoint, event_type=event_type), limit)
    shapes: dict[str, Shape] = {}
    count = 0
    for delivery in found:
        payload = genuine_payload(spool.reader.kept(delivery.position))
        if payload is not None:
            shapes.setdefault(delivery.event_type, Shape()).add(payload)
            count += 1
    if not count:
        spool.check_endpoint(endpoint)
        fail(f"no event of {endpoint}" + (f" of type {event_type!r}" if event_type else ""))
    named = f" --type {event_type}" if event_type.isidentifier() else ""
    source = module_of(shapes, f"Payloads, as `fasthook types {endpoint}{named}` found them.")
    if out is None:
        click.echo(source, nl=False)
    else:
        try:
            out.write_text(source, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"--out: {out}: {error.strerror}") from None
    say(f"{count} events of {len(shapes)} types")
