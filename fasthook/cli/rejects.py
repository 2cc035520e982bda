"""`fasthook rejects`: what was refused, and why."""

from pathlib import Path
from typing import Any, Final

import apsw
import click

from fasthook import config
from fasthook.cli.options import config_option, json_option
from fasthook.cli.reading import body_facts, echo_json, fail, moment, path_of, say, say_more
from fasthook.cli.show import show_body
from fasthook.cli.tables import new_table, show
from fasthook.errors import ConfigError
from fasthook.logs import escape
from fasthook.model import iso
from fasthook.spool.rejects import Reject, read
from fasthook.spool.spool import REJECTS_NAME
from fasthook.stored import Headers

_COLUMNS: Final = ("received", "id", "status", "endpoint", "client", "method", "path", "reason")
_MAX_ID: Final = 2**62


@click.command("rejects")
@click.argument("which", metavar="[ID]", required=False, type=click.IntRange(1, _MAX_ID - 1))
@config_option
@json_option
@click.option("--endpoint", default="", help="Of this endpoint.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="How many.")
@click.option("--before", type=click.IntRange(1, _MAX_ID), default=_MAX_ID, help="Older than this.")
def command(
    which: int | None, config_path: Path, as_json: bool, endpoint: str, limit: int, before: int
) -> None:
    """List refused requests, newest first, or show one: ID is its number.

    The last ten thousand are kept, of a flood a sample; head and body only where an endpoint has
    keep_rejected = true.
    """
    settings = config.load(config_path, has_secrets=False)
    path = path_of(settings)
    if which is not None:
        found = [reject for reject in _read(path, 1, "", which + 1) if reject.id == which]
        if not found:
            fail(f"no refused request has the number {which}; the oldest ones are dropped")
        _show_one(found[0], Headers(settings), as_json)
        return
    found = _read(path, limit, endpoint, before)
    if not found:
        say("no refused request matches")
        return
    table = new_table(*_COLUMNS)
    for reject in found:
        if as_json:
            echo_json(_facts(reject))
        table.add_row(*_cells(reject))
    if not as_json:
        show(table)
    say_more(len(found), limit, str(found[-1].id))


def _read(path: Path, limit: int, endpoint: str, before: int) -> list[Reject]:
    if not path.is_dir():
        raise ConfigError(f"{path}: no spool there; expected one that `fasthook serve` made")
    try:
        return list(read(path / REJECTS_NAME, limit, endpoint, before))
    except (OSError, apsw.Error) as error:
        raise ConfigError(f"{path / REJECTS_NAME}: {error}") from None


def _facts(reject: Reject) -> dict[str, Any]:
    return {
        "id": reject.id,
        "received_at": iso(reject.at_ns),
        "status": reject.status,
        "endpoint": reject.endpoint,
        "client": reject.client,
        "method": reject.method,
        "path": reject.path,
        "reason": reject.reason,
        "is_kept": reject.body is not None,
    }


def _cells(reject: Reject) -> list[str]:
    texts = (reject.endpoint, reject.client, reject.method, reject.path, reject.reason)
    return [moment(reject.at_ns), str(reject.id), str(reject.status), *map(escape, texts)]


def _show_one(reject: Reject, headers: Headers, as_json: bool) -> None:
    is_kept = reject.head is not None and reject.body is not None
    head, body = reject.head or b"", reject.body or b""
    if as_json:
        kept = {"headers": headers.public(head)} | body_facts(body) if is_kept else {}
        echo_json(_facts(reject) | kept)
        return
    for name, text in zip(_COLUMNS, _cells(reject), strict=True):
        click.echo(f"{name:<10}{text}".rstrip())
    if is_kept:
        click.echo("\n" + "\n".join(headers.shown(head)) + "\n")
        show_body(body)
