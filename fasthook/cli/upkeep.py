"""`fasthook spool rebuild` and `prune`: what an operator may have to do, rarely."""

from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.filesize import decimal
from rich.progress import Progress

from fasthook import config
from fasthook.cli.options import DurationType, config_option
from fasthook.cli.orders import Orders, check_spool, spool_errors
from fasthook.cli.reading import path_of
from fasthook.control import MAX_RETENTION_S
from fasthook.errors import ConfigError
from fasthook.spool.indexer import Settings
from fasthook.spool.lock import InUse
from fasthook.spool.offline import Offline
from fasthook.values import Duration


@click.command("rebuild")
@config_option
def rebuild(config_path: Path) -> None:
    """Make the index again from the journal, while no service runs."""
    path = path_of(config.load(config_path, has_secrets=False))
    check_spool(path)
    total = sum(file.stat().st_size for file in path.glob("journal/*/*.seg"))
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("reading the journal", total=total)
        try:
            with (
                spool_errors(path),
                Offline(path, lambda count: progress.advance(task, count), is_rebuilt=True) as made,
            ):
                counts = made.counts()
        except InUse as error:
            raise ConfigError(f"{error}; stop it first") from None
    text = ", ".join(f"{count} {state}" for state, count in counts.items())
    click.echo(f"{decimal(total)} read; {text}")


_OLDER: Final = DurationType("no more than thirty years", most_s=MAX_RETENTION_S)


@click.command("prune")
@config_option
@click.option("--older-than", type=_OLDER, help="Instead of the configured retention.")
def prune(config_path: Path, older_than: Duration | None) -> None:
    """Drop segments of the journal that are old and have nothing open, now.

    A service does that by itself, once a minute.
    """
    settings = config.load(config_path, has_secrets=False)
    path, spool = path_of(settings), settings.spool
    retention_s = float(spool.retention if older_than is None else older_than)
    check_spool(path)
    with Orders(path) as orders:
        freed = orders.prune(Settings("fsync", spool.max_bytes, retention_s))
    if freed is None:
        click.echo("the service drops them now")
    else:
        click.echo(f"{decimal(freed)} freed")
