"""`fasthook replay`: run events once more."""

import itertools
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import click
import msgspec
from rich.console import Console
from rich.progress import Progress

from fasthook.cli.orders import Orders
from fasthook.cli.reading import (
    Spool,
    echo_deliveries,
    echo_json,
    fail,
    filter_of,
    filter_options,
    opens_spool,
    say,
)
from fasthook.control import MAX_POSITIONS, Replay
from fasthook.spool.changes import State
from fasthook.spool.queries import Filter, Found, Reader, position_named
from fasthook.values import Rate

#: What is over, so that it can run again.
_OVER: Final = (State.DONE, State.DEAD, State.IGNORED)
#: Orders go out this often, each with what the rate allows.
_TURN_S: Final = 0.25
_CHUNK: Final = 200
_PAGE: Final = 1000
#: The first ones have this long to come to something, before the others follow.
_FIRST_S: Final = 60.0
_LOOK_S: Final = 0.1


class _RateType(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    name = "rate"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        try:
            return float(Rate.parse(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command("replay")
@click.argument("ids", nargs=-1)
@filter_options(has_states=True)
@click.option("--handler", default="", help="Run this handler alone.")
@click.option("--dry-run", is_flag=True, help="Say what would run, and run nothing.")
@click.option("--rate", type=_RateType(), help='No more than "10/s".')
@click.option(
    "--stop-after",
    type=click.IntRange(0),
    default=10,
    show_default=True,
    help="Stop if the first N all fail; 0: never.",
)
@opens_spool
def command(spool: Spool, as_json: bool, ids: Sequence[str], **options: Any) -> None:
    """Run events once more, oldest first: those with these IDs or names, or all that match.

    Without --state that is dead letters alone, and of these the handlers that gave up. An event
    that is done runs at all its handlers again.
    """
    wanted = filter_of(options)
    if not ids and wanted == Filter():
        raise click.UsageError("say which: IDs, or a filter such as --since 2h or --state dead")
    if options["handler"]:
        _check_handler(spool, options["handler"])
    if not wanted.states and not ids:
        wanted = msgspec.structs.replace(wanted, states=(State.DEAD,))
    if ids and not wanted.states:
        wanted = msgspec.structs.replace(wanted, states=_OVER)
    found = _named(spool, ids, wanted) if ids else spool.reader.oldest_first(wanted)
    if options["dry_run"]:
        _show(found, as_json)
        return
    with Orders(spool.path) as orders:
        replay = _Replay(spool.reader, orders, options["handler"])
        try:
            replay.run(found, options["rate"], options["stop_after"])
        except KeyboardInterrupt:
            say("interrupted")
    _report(replay, as_json)


def _check_handler(spool: Spool, name: str) -> None:
    known = {handler for endpoint in spool.settings.endpoint for handler in endpoint.handlers}
    if name not in known:
        raise click.UsageError(f"--handler: {name!r}; endpoints have: {', '.join(sorted(known))}")


def _named(spool: Spool, ids: Sequence[str], wanted: Filter) -> Iterator[Found]:
    for text in ids:
        count = 0
        for found in _with_id(spool.reader, text, wanted):
            count += 1
            yield found
        if not count:
            fail(f"{text!r}: no event with this id or name is done, dead or ignored")


def _with_id(reader: Reader, text: str, wanted: Filter) -> Iterator[Found]:
    try:
        named = reader.at(position_named(text))
    except ValueError:
        named = None
    if named is not None and named.state in wanted.states:
        yield named
    else:
        yield from reader.oldest_first(msgspec.structs.replace(wanted, event_id=text))


def _show(found: Iterator[Found], as_json: bool) -> None:
    count = 0
    while page := list(itertools.islice(found, _PAGE)):
        echo_deliveries(page, as_json)
        count += len(page)
    say(f"{count} events would run")


class _Results(NamedTuple):
    """What became of some events since they were ordered."""

    done: int
    failed: int
    open: int


class _Replay:
    """Orders events in bounded pieces, and watches the first ones."""

    def __init__(self, reader: Reader, orders: Orders, handler: str) -> None:
        self._reader = reader
        self._orders = orders
        self._handler = handler
        self.is_service = orders.is_service
        self.count = 0
        self.has_stopped = False

    def run(self, found: Iterable[Found], rate: float | None, first: int) -> None:
        """Until all are ordered, or the first ones have all failed."""
        console = Console(stderr=True)
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("replaying", total=None)
            source = iter(found)
            first = min(first, MAX_POSITIONS) if self.is_service else 0
            began_ns = time.time_ns()
            watched = self._order(itertools.islice(source, first)) if first else []
            if watched and self._has_failed(watched, began_ns):
                self.has_stopped = True
                return
            chunk = max(1, int(min(_CHUNK, (rate or _CHUNK / _TURN_S) * _TURN_S)))
            while positions := self._order(itertools.islice(source, chunk)):
                progress.update(task, completed=self.count)
                if rate is not None and self.is_service:
                    time.sleep(len(positions) / rate)

    def _order(self, found: Iterable[Found]) -> list[int]:
        positions = [delivery.position for delivery in found]
        if positions:
            self._orders.give(Replay(positions, self._handler))
            self.count += len(positions)
        return positions

    def _has_failed(self, positions: Sequence[int], since_ns: int) -> bool:
        """Whether all of them have failed; waits until one has not, or none is open."""
        ends = time.monotonic() + _FIRST_S
        while True:
            results = self.results(positions, since_ns)
            if results.done or not results.open or time.monotonic() > ends:
                return results.failed == len(positions)
            time.sleep(_LOOK_S)

    def results(self, positions: Sequence[int], since_ns: int) -> _Results:
        """What became of them: one failed attempt is a failure."""
        failures = self._reader.failures_of(positions)
        done = failed = 0
        for position in positions:
            found = self._reader.at(position)
            if any(failure.at_ns >= since_ns for failure in failures.get(position, ())):
                failed += 1
            elif found is not None and found.state == State.DONE:
                done += 1
        return _Results(done, failed, len(positions) - done - failed)


def _report(replay: _Replay, as_json: bool) -> None:
    if as_json:
        echo_json({"events": replay.count, "stopped": replay.has_stopped})
    elif not replay.is_service and replay.count:
        click.echo(f"{replay.count} events run when the service starts")
    else:
        click.echo(f"{replay.count} events run again")
    if replay.has_stopped:
        say(f"stopped: the first {replay.count} have all failed; `fasthook dead` says why")
        sys.exit(1)
