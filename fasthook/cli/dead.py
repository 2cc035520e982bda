"""`fasthook dead`: what was given up, and why."""

from typing import Any

import click
import msgspec

from fasthook.cli.reading import (
    Spool,
    echo_json,
    facts,
    filter_of,
    filter_options,
    moment,
    opens_spool,
    page_options,
    say,
    say_more,
)
from fasthook.cli.tables import new_table, show
from fasthook.logs import escape
from fasthook.model import iso
from fasthook.spool.changes import State
from fasthook.spool.found import DeadLetter

_COLUMNS = ("died", "name", "endpoint", "type", "id", "handler", "attempts", "last error")


@click.command("dead")
@filter_options(has_states=False)
@page_options
@opens_spool
def command(spool: Spool, as_json: bool, limit: int, **options: Any) -> None:
    """List dead letters, newest event first: one line for each handler that gave up.

    `fasthook replay` runs them once more.
    """
    wanted = msgspec.structs.replace(filter_of(options), states=(State.DEAD,))
    found = spool.reader.newest(wanted, limit)
    if not found:
        spool.check_endpoint(wanted.endpoint)
        say("no dead letter matches")
        return
    letters = spool.reader.dead_letters(found)
    if as_json:
        for letter in letters:
            echo_json(_facts(letter))
    else:
        table = new_table(*_COLUMNS)
        table.columns[1].no_wrap = True  # it is to be copied
        for letter in letters:
            table.add_row(*_cells(letter))
        show(table)
    say_more(len(found), limit, found[-1].name)


def _facts(letter: DeadLetter) -> dict[str, Any]:
    last = letter.last
    return facts(letter.delivery) | {
        "handler": letter.part.handler,
        "attempts": letter.part.attempt,
        "died_at": iso(last.at_ns) if last is not None else None,
        "error": last.error if last is not None else "",
    }


def _cells(letter: DeadLetter) -> list[str]:
    delivery, part, last = letter
    at, error = (moment(last.at_ns), last.error) if last is not None else ("", "")
    texts = (delivery.name, delivery.endpoint, delivery.event_type, delivery.event_id, part.handler)
    return [at, *map(escape, texts), str(part.attempt), escape(error)]
