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

from fasthook.cli.options import RateType
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
from fasthook.spool.found import Filter, Found
from fasthook.spool.names import position_named
from fasthook.spool.queries import Reader

#: What is over, so that it can run again.
_OVER: Final = (State.DONE, State.DEAD, State.IGNORED, State.SUPERSEDED)
#: Orders go out this often, each with what the rate allows.
_TURN_S: Final = 0.25
_CHUNK: Final = 200
_PAGE: Final = 1000
#: The first ones have this long to come to something, before the others follow.
_FIRST_S: Final = 60.0
_LOOK_S: Final = 0.1


@click.command("replay")
@click.argument("ids", nargs=-1)
@filter_options(has_states=True)
@click.option("--handler", default="", help="Run this handler alone.")
@click.option("--dry-run", is_flag=True, help="Say what would run, and run nothing.")
@click.option("--rate", type=RateType(), help='No more than "10/s".')
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
    if wrong := [state.name.lower() for state in wanted.states if state not in _OVER]:
        expected = ", ".join(state.name.lower() for state in _OVER)
        raise click.UsageError(f"--state: {wrong[0]} can't be replayed; expected {expected}")
    if options["handler"]:
        _check_handler(spool, options["handler"])
    if not wanted.states:
        states = _OVER if ids else (State.DEAD,)
        wanted = msgspec.structs.replace(wanted, states=states)
    source = _named(spool, ids, wanted) if ids else spool.reader.oldest_first(wanted)
    search = _Search(spool, source, options["handler"])
    if options["dry_run"]:
        _show(search, as_json)
    else:
        with Orders(spool.path) as orders:
            replay = _Replay(spool.reader, orders, options["handler"])
            try:
                replay.run(search, options["rate"], options["stop_after"])
            except KeyboardInterrupt:
                replay.ended = "interrupted"
        _report(replay, as_json)
    search.check(wanted.endpoint)
    if not options["dry_run"] and replay.ended:
        sys.exit(1)


def _check_handler(spool: Spool, name: str) -> None:
    known = {handler for endpoint in spool.settings.endpoint for handler in endpoint.handler_names}
    if name not in known:
        raise click.UsageError(f"--handler: {name!r}; endpoints have: {', '.join(sorted(known))}")


def _named(spool: Spool, ids: Sequence[str], wanted: Filter) -> Iterator[Found]:
    """Those with these ids or names, each once; ends the command if there is none with one."""
    found: dict[int, Found] = {}
    for text in ids:
        named = list(_with_id(spool.reader, text, wanted)) if text else []
        if not named:
            fail(f"{text!r}: no event with this id or name is done, dead, ignored or superseded")
        found |= {delivery.position: delivery for delivery in named}
    return iter(sorted(found.values()))


def _with_id(reader: Reader, text: str, wanted: Filter) -> Iterator[Found]:
    try:
        named = reader.at(position_named(text))
    except ValueError:
        named = None
    if named is not None and named.state in wanted.states:
        yield named
    else:
        yield from reader.oldest_first(msgspec.structs.replace(wanted, event_id=text))


class _Search:
    """Those that can run: an iterator; and how many can't, and why."""

    def __init__(self, spool: Spool, source: Iterator[Found], handler: str) -> None:
        self._spool = spool
        self._handler = handler
        self._has = {e.name for e in spool.settings.endpoint if handler in e.handler_names}
        self._iterator = self._usable(source)
        self.found = self.gone = self.foreign = 0

    def __iter__(self) -> Iterator[Found]:
        return self._iterator

    def _usable(self, source: Iterator[Found]) -> Iterator[Found]:
        for delivery in source:
            self.found += 1
            if self._handler and delivery.endpoint not in self._has:
                self.foreign += 1
            elif self._spool.reader.kept(delivery.position) is None:
                self.gone += 1
            else:
                yield delivery

    def check(self, endpoint: str) -> None:
        """Say what could not run; ends the command if that was something."""
        if not self.found:
            self._spool.check_endpoint(endpoint)
        if self.foreign:
            raise click.UsageError(
                f"--handler: {self._handler!r} is none of the endpoints of {self.foreign} events"
            )
        if self.gone:
            fail(f"{self.gone} events have no body any more, and can't run")


def _show(search: _Search, as_json: bool) -> None:
    count = 0
    found = iter(search)
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
        self.ended = ""  # why it ended early

    def run(self, found: Iterable[Found], rate: float | None, first: int) -> None:
        """Until all are ordered, or the first ones have all failed."""
        console = Console(stderr=True)
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("replaying", total=None)
            source = iter(found)
            chunk = max(1, int(min(_CHUNK, (rate or _CHUNK / _TURN_S) * _TURN_S)))
            began_ns = time.time_ns()
            watched: list[int] = []
            first = min(first, MAX_POSITIONS) if self.is_service else 0
            while True:
                size = min(chunk, first - len(watched)) if len(watched) < first else chunk
                positions = self._order(itertools.islice(source, size))
                if len(watched) < first:
                    watched += positions
                    is_last = len(watched) == first or len(positions) < size
                    if is_last and watched and self._has_failed(watched, began_ns):
                        self.ended = f"stopped: the first {len(watched)} have all failed"
                        return
                if len(positions) < size:
                    return
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
        parts = self._reader.parts_of(positions)
        done = failed = 0
        for position in positions:
            found = self._reader.at(position)
            if any(failure.at_ns >= since_ns for failure in failures.get(position, ())):
                failed += 1
            elif self._handler:
                mine = [p for p in parts.get(position, ()) if p.handler == self._handler]
                done += any(part.state == State.DONE for part in mine)
            else:
                done += found is not None and found.state == State.DONE
        return _Results(done, failed, len(positions) - done - failed)


def _report(replay: _Replay, as_json: bool) -> None:
    if as_json:
        echo_json({"events": replay.count, "stopped": bool(replay.ended)})
    elif not replay.is_service and replay.count:
        click.echo(f"{replay.count} events run when the service starts, at its own pace")
    else:
        click.echo(f"{replay.count} events run again")
    if replay.ended:
        say(f"{replay.ended}; `fasthook dead` says what failed, and why")
