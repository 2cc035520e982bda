"""`fasthook events`: what was accepted, newest first."""

from typing import Any

import click

from fasthook.cli.reading import (
    Spool,
    echo_deliveries,
    filter_of,
    filter_options,
    opens_spool,
    page_options,
    say,
    say_more,
)


@click.command("events")
@filter_options(has_states=True)
@page_options
@opens_spool
def command(spool: Spool, as_json: bool, limit: int, **options: Any) -> None:
    """List accepted events, newest first.

    Events of the last second may be missing. `fasthook show` takes the name of an event, or its id.
    """
    wanted = filter_of(options)
    found = spool.reader.newest(wanted, limit)
    if not found:
        spool.check_endpoint(wanted.endpoint)
        say("no event matches")
        return
    echo_deliveries(found, as_json)
    say_more(len(found), limit, found[-1].name)
