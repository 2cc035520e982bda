"""`fasthook tail`: the last events, and those that come."""

import contextlib
import time
from typing import Any, Final

import click

from fasthook.cli.reading import (
    Spool,
    cells,
    echo_json,
    facts,
    filter_of,
    filter_options,
    opens_spool,
)
from fasthook.errors import ConfigError
from fasthook.spool.found import Filter, Found
from fasthook.spool.journal import place_of
from fasthook.spool.queries import Reader

#: Four times a second, as often as the index is brought up to date.
_LOOK_S: Final = 0.25


@click.command("tail")
@click.option("-f", "--follow", is_flag=True, help="Go on with new ones, until Ctrl-C.")
@click.option(
    "-n", "--lines", type=click.IntRange(0), default=10, show_default=True, help="Older ones."
)
@filter_options(has_states=False)
@opens_spool
def command(spool: Spool, as_json: bool, follow: bool, lines: int, **options: Any) -> None:
    """Show the last accepted events, oldest first; with -f also new ones.

    A line says the state of an event at that moment.
    """
    wanted = filter_of(options)
    tail = _Tail(spool.reader.ends(), as_json)
    found = spool.reader.newest(wanted, lines) if lines else []
    if not found and not follow:
        spool.check_endpoint(wanted.endpoint)
    for delivery in reversed(found):
        tail.print(delivery)
    if follow:
        spool.reader.close()
        with contextlib.suppress(KeyboardInterrupt):
            _follow(spool, wanted, tail)


class _Tail:
    """Prints deliveries, and knows up to where."""

    def __init__(self, ends: dict[int, int], as_json: bool) -> None:
        self.ends = ends  # the last position, by worker
        self._is_json = as_json

    def print(self, delivery: Found) -> None:
        if self._is_json:
            echo_json(facts(delivery))
        else:
            click.echo("  ".join(cells(delivery)))
        self.reached(place_of(delivery.position)[0], delivery.position)

    def reached(self, worker: int, position: int) -> None:
        self.ends[worker] = max(position, self.ends.get(worker, -1))


def _follow(spool: Spool, wanted: Filter, tail: _Tail) -> None:
    while True:
        time.sleep(_LOOK_S)
        try:
            # Opened each time: the index may have been made again, and is another file then.
            with Reader(spool.path) as reader:
                ends = reader.ends()
                for delivery in reader.oldest_first(wanted, dict(tail.ends)):
                    tail.print(delivery)
        except ConfigError:
            if not spool.path.exists():
                raise
            continue  # a service that starts is making the index
        for worker, position in ends.items():
            tail.reached(worker, position)  # what does not match is not looked at again
