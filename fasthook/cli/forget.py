"""`fasthook forget`: erase what was received, for good, and know it still."""

import sys
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final

import click
from rich.console import Console
from rich.progress import track

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
from fasthook.conditions import BadExpression, NoBoolean
from fasthook.control import MAX_POSITIONS, Forget
from fasthook.spool import rejects
from fasthook.spool.changes import State
from fasthook.spool.found import Filter, Found, Kept
from fasthook.spool.queries import Reader
from fasthook.spool.records import ERASED
from fasthook.spool.spool import REJECTS_NAME
from fasthook.stored import Where

#: How long the service may take to erase what it was told to.
_EFFECT_S: Final = 30.0
_LOOK_S: Final = 0.1


@click.command("forget")
@filter_options(has_states=False)
@click.option("--where", help="An expression (CEL) on payload, id, type, endpoint and headers.")
@click.option("--dry-run", is_flag=True, help="Say what would be erased, and erase nothing.")
@opens_spool
def command(spool: Spool, as_json: bool, where: str | None, dry_run: bool, **options: Any) -> None:
    """Erase head and body of events, for good; their ids stay, so that they are known again.

    An event that still waits will not run. Example:

    fasthook forget --endpoint shop --where 'payload.customer.email == "a@example.org"'
    """
    wanted = filter_of(options)
    if where is not None and not where.strip():
        raise click.UsageError("--where: empty; expected an expression")
    if where is None and wanted == Filter():
        raise click.UsageError("say which: --endpoint, --where, --id, or another filter")
    search = _Search(spool, wanted, where)
    if dry_run:
        _show(search, as_json)
        return
    count = 0
    endpoints = {wanted.endpoint} if wanted.endpoint else set[str]()
    with Orders(spool.path) as orders:
        while found := list(islice(search, MAX_POSITIONS)):
            orders.give(Forget([delivery.position for delivery in found]))
            _wait_until_erased(spool.reader, found)
            count += len(found)
            endpoints.update(delivery.endpoint for delivery in found)
    if not count:
        spool.check_endpoint(wanted.endpoint)
        if wanted.event_id and not spool.reader.newest(wanted, 1):
            fail(f"--id: no event {wanted.event_id!r} is known")
    # What was refused can't be told apart: nobody knows whose it was.
    bodies = rejects.forget(spool.path / REJECTS_NAME, sorted(endpoints))
    if as_json:
        echo_json({"erased": count, "unreadable": search.unreadable, "rejects": bodies})
    else:
        click.echo(f"{count} events erased" + (f", {bodies} refused requests" if bodies else ""))
    _warn(search)


def _warn(search: "_Search") -> None:
    if search.unreadable:
        say(f"warning: {search.unreadable} events could not be looked at, and are left as they are")
        sys.exit(1)


def _show(search: "_Search", as_json: bool) -> None:
    count = 0
    while page := list(islice(search, MAX_POSITIONS)):
        echo_deliveries(page, as_json)
        count += len(page)
    say(f"{count} events would be erased")
    _warn(search)


def _wait_until_erased(reader: Reader, found: Sequence[Found]) -> None:
    """The service stores the order at once, and erases a moment later."""
    ends = time.monotonic() + _EFFECT_S
    for delivery in found:
        while True:
            kept = reader.kept(delivery.position)
            if kept is None or kept.kind == ERASED:
                break
            if time.monotonic() > ends:
                say("warning: the service has the order, and has not erased everything yet")
                return
            time.sleep(_LOOK_S)


class _Search:
    """The deliveries that match, oldest first."""

    def __init__(self, spool: Spool, wanted: Filter, where: str | None) -> None:
        self._spool = spool
        self._wanted = wanted
        self.unreadable = 0
        try:
            self._where = Where(where, spool.settings) if where else None
        except BadExpression as error:
            raise click.UsageError(f"--where: {error}") from None
        self._iterator = self._found()

    def __iter__(self) -> Iterator[Found]:
        return self._iterator

    def _found(self) -> Iterator[Found]:
        deliveries = self._spool.reader.oldest_first(self._wanted)
        console = Console(stderr=True)
        if console.is_terminal:
            deliveries = iter(track(deliveries, "searching", console=console, transient=True))
        for delivery in deliveries:
            if delivery.state == State.FORGOTTEN:
                continue
            kept = self._spool.reader.kept(delivery.position)
            if kept is None:
                # Dropped before its time, or damaged: the first is no matter, the other one is.
                self.unreadable += delivery.state == State.DAMAGED
            elif self._where is None or self._is_match(self._where, delivery, kept):
                yield delivery

    def _is_match(self, where: Where, delivery: Found, kept: Kept) -> bool:
        try:
            return where(delivery, kept)
        except OverflowError:
            self.unreadable += 1
            return False
        except NoBoolean as error:
            raise click.UsageError(f"--where: for {delivery.name}: {error}") from None
