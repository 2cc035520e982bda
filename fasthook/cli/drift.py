"""`fasthook drift`: what changed in the shape of payloads, from stored events."""

from typing import Any

import click

from fasthook.cli.reading import MOMENT, Spool, echo_json, moment, opens_spool, say
from fasthook.cli.tables import new_table, show
from fasthook.logs import escape
from fasthook.model import iso
from fasthook.shapes.drift import LEAST, Change, Drift
from fasthook.spool.found import Filter, Found
from fasthook.stored import genuine_payload

_COLUMNS = ("first seen", "event", "type", "change", "where", "was", "is", "after")


@click.command("drift")
@click.argument("endpoint")
@click.option("--type", "event_type", default="", help="Of this event type alone.")
@click.option("--since", type=MOMENT, help='Of events received then or later: "7d" ago, or a date.')
@click.option(
    "--limit", type=click.IntRange(1), default=10_000, show_default=True, help="Newest events."
)
@click.option(
    "--least",
    type=click.IntRange(2),
    default=LEAST,
    show_default=True,
    help="Seen so often, a shape is the rule.",
)
@opens_spool
def command(
    spool: Spool,
    as_json: bool,
    endpoint: str,
    event_type: str,
    since: int | None,
    limit: int,
    least: int,
) -> None:
    """Say what changed in the shape of the payloads of ENDPOINT, and when it was first seen.

    A field appeared, or vanished from all; it has another kind of value; an enumeration has a new
    value; a type of event is new. `fasthook show EVENT` shows the first event that has it.
    """
    wanted = Filter(endpoint=endpoint, event_type=event_type, since_ns=since or 0)
    found = spool.reader.newest(wanted, limit)
    if not found:
        spool.check_endpoint(endpoint)
    drift = Drift(least)
    changes: list[Change] = []
    count = 0
    for delivery in reversed(found):
        payload = genuine_payload(spool.reader.kept(delivery.position))
        if payload is not None:
            changes += drift.feed(delivery.event_type, payload, delivery)
            count += 1
    _show(changes, as_json)
    say(f"{len(changes)} changes in {count} events")


def _show(changes: list[Change], as_json: bool) -> None:
    table = new_table(*_COLUMNS)
    table.columns[1].no_wrap = True  # it is to be copied
    for change in sorted(changes, key=lambda change: int(change.at.received_at_ns)):
        first: Found = change.at
        if as_json:
            echo_json(_facts(change, first))
            continue
        texts = (change.event_type, change.kind, change.path, change.was, change.now)
        cells = (moment(first.received_at_ns), first.name, *map(escape, texts))
        table.add_row(*cells, str(change.after))
    if not as_json and changes:
        show(table)


def _facts(change: Change, first: Found) -> dict[str, Any]:
    return {
        "first_seen": iso(first.received_at_ns),
        "event": first.name,
        "type": change.event_type,
        "change": change.kind,
        "where": change.path,
        "was": change.was,
        "is": change.now,
        "after": change.after,
    }
