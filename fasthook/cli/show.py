"""`fasthook show`: all about one event."""

import sys
from typing import Any, Final

import click
import msgspec

from fasthook.cli.reading import (
    Spool,
    body_facts,
    echo_deliveries,
    echo_json,
    facts,
    fail,
    moment,
    opens_spool,
    say,
)
from fasthook.logs import escape, one_line
from fasthook.model import iso
from fasthook.spool.changes import EVERY_OTHER, NEVER_NS, Part, State
from fasthook.spool.found import Failure, Filter, Found, Kept
from fasthook.spool.names import position_named
from fasthook.spool.records import ERASED
from fasthook.stored import Headers

_GONE: Final = "head and body are gone: their segment was dropped, or the record is damaged"
_ERASED: Final = "head and body are erased"
#: With the same id, that are listed.
_MAX_SAME: Final = 50
#: Deeper JSON is not indented: a small body could become gigabytes of spaces.
_MAX_DEPTH: Final = 64
_UNTOUCHED: Final = {
    State.PENDING: "no handler had it yet",
    State.RUNNING: "its handlers have it in line or in hand",
    State.DONE: "its only handler did it at the first attempt",
    State.SUPERSEDED: "a newer one of its key ran in its place",
    State.IGNORED: "its endpoint does not want this type, or no handler wants it",
    State.DAMAGED: "its record is damaged, so no handler gets it",
}


@click.command("show")
@click.argument("which", metavar="ID")
@click.option("--raw", is_flag=True, help="The body's bytes as received, and nothing else.")
@opens_spool
def command(spool: Spool, as_json: bool, which: str, raw: bool) -> None:
    """Show all about one event: ID is its name, or the id that its sender gave it.

    Values of headers that hold signatures or tokens are not shown.
    """
    if raw and as_json:
        raise click.UsageError("--raw and --json: expected one of them")
    found = _find(spool, which, as_json)
    kept = spool.reader.kept(found.position)
    if raw:
        _write_body(kept)
        return
    parts = spool.reader.parts_of([found.position]).get(found.position, [])
    failures = spool.reader.failures_of([found.position]).get(found.position, [])
    headers = Headers(spool.settings)
    if as_json:
        echo_json(_facts(found, kept, headers) | {"handlers": _handlers(parts, failures)})
        return
    _show_verdict(found, kept)
    click.echo()
    _show_handlers(found, parts, failures)
    click.echo()
    if kept is None or kept.kind == ERASED:
        click.echo(_ERASED if kept is not None else _GONE)
    else:
        click.echo("\n".join(headers.shown(kept.head)) + "\n")
        show_body(kept.body)


def _find(spool: Spool, which: str, as_json: bool) -> Found:
    """The one that is meant; ends the command if that is none or several."""
    try:
        found = spool.reader.at(position_named(which))
    except ValueError:
        found = None
    if found is not None:
        return found
    same = spool.reader.newest(Filter(event_id=which), _MAX_SAME) if which else []
    if not same:
        fail(f"no event has the name or id {which!r} (the last second may be missing)")
    if len(same) > 1:
        echo_deliveries(same, as_json)
        count = f"{len(same)} or more" if len(same) == _MAX_SAME else len(same)
        fail(f"{count} events have the id {which!r}; `fasthook show NAME` shows one of them")
    return same[0]


def _write_body(kept: Kept | None) -> None:
    if kept is None or kept.kind == ERASED:
        fail(_ERASED if kept is not None else _GONE)
    sys.stdout.buffer.write(kept.body)
    sys.stdout.buffer.flush()


# --- for programs ---------------------------------------------------------------------------------


def _facts(found: Found, kept: Kept | None, headers: Headers) -> dict[str, Any]:
    return facts(found) | {"due_at": _due_for_programs(found)} | kept_facts(kept, headers)


def kept_facts(kept: Kept | None, headers: Headers) -> dict[str, Any]:
    """What only the record says, for programs; null where it is gone."""
    if kept is None:
        names = ("provider", "client", "secret_index", "kind", "headers", "body")
        return dict.fromkeys(names) | {"missing": "gone"}
    accepted = kept.accepted
    known = {
        "provider": accepted.provider,
        "client": accepted.client,
        "secret_index": accepted.secret_index if accepted.secret_index >= 0 else None,
        "kind": accepted.kind,
    }
    if kept.kind == ERASED:
        return known | {"headers": None, "body": None, "missing": "erased"}
    return known | {"headers": headers.public(kept.head)} | body_facts(kept.body)


def _due_for_programs(found: Found) -> str | None:
    return iso(found.due_ns) if found.state == State.PENDING else None


def _handlers(parts: list[Part], failures: list[Failure]) -> list[dict[str, Any]]:
    return [
        {
            "handler": part.handler or None,  # null: every other one
            "state": State(part.state).name.lower(),
            "attempts": part.attempt,
            "due_at": iso(part.due_ns) if part.state == State.PENDING else None,
            "order_key": part.order_key,
            "note": part.note,
            "failures": [
                {"attempt": f.attempt, "at": iso(f.at_ns), "error": f.error}
                for f in failures
                if f.handler == part.handler
            ],
        }
        for part in parts
    ]


# --- for people -----------------------------------------------------------------------------------


def _show_verdict(found: Found, kept: Kept | None) -> None:
    lines = {
        "name": found.name,
        "id": found.event_id,
        "type": found.event_type,
        "endpoint": found.endpoint,
    }
    if kept is not None:
        accepted = kept.accepted
        lines["provider"] = accepted.provider
        lines["client"] = accepted.client
        is_signed = accepted.secret_index >= 0
        lines["secret"] = f"number {accepted.secret_index}" if is_signed else "none: not verified"
    lines["received"] = moment(found.received_at_ns)
    lines["state"] = found.state.name.lower()
    if found.state == State.PENDING:
        lines["due"] = _due(found.due_ns)
    for name, text in lines.items():
        click.echo(f"{name:<10}{escape(text)}".rstrip())


def _due(due_ns: int) -> str:
    if due_ns == NEVER_NS:
        return "when what it waits for is over"
    return moment(due_ns) or "at once"


def _show_handlers(found: Found, parts: list[Part], failures: list[Failure]) -> None:
    if not parts:
        click.echo(f"handlers  {_UNTOUCHED.get(found.state, 'none')}")
    for part in parts:
        name = "every other handler" if part.handler == EVERY_OTHER else f"handler {part.handler}"
        text = f"{name}: {State(part.state).name.lower()}"
        if part.attempt:
            text += f", {part.attempt} attempt{'s' if part.attempt > 1 else ''}"
        if part.state == State.PENDING:
            is_held = part.due_ns == NEVER_NS
            text += ", held until it goes on" if is_held else f", due {_due(part.due_ns)}"
        if part.state == State.SKIPPED:
            text += f", since this is not true: {part.note}"
        if part.state == State.SUPERSEDED:
            text += f" by {part.note}" if part.note else ""
        if part.order_key:
            text += f", its key is {part.order_key!r}"
        click.echo(escape(text))
        for failure in failures:
            if failure.handler == part.handler:
                at = moment(failure.at_ns)
                click.echo(f"  attempt {failure.attempt}, {at}: {escape(failure.error)}")


def show_body(body: bytes) -> None:
    """A body for people: JSON indented, other text as it is, of the rest its length."""
    try:
        text = _indented(body).decode()
    except UnicodeDecodeError:
        say(f"the body is no text: {len(body)} bytes")
        return
    for line in text.splitlines():
        click.echo(one_line(line) if text[:1] in ("{", "[") else escape(line))


def _indented(body: bytes) -> bytes:
    """JSON with line breaks, its values as they came; anything else as it is."""
    depth = deepest = 0
    for byte in body:
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    if deepest > _MAX_DEPTH:
        return body
    try:
        return msgspec.json.format(body, indent=2)
    except ValueError:
        return body
