"""`fasthook pair`: take the secret that a sender hands over; list such secrets, remove them."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Final

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from fasthook import config, control, verifying
from fasthook.cli.options import DurationType, config_option, json_option
from fasthook.cli.orders import spool_errors
from fasthook.cli.reading import echo_json, moment
from fasthook.cli.tables import new_table, show
from fasthook.config import Config, Endpoint
from fasthook.control import Pair, PairingState, Unpair
from fasthook.errors import ConfigError
from fasthook.intake import catalogue
from fasthook.intake.catalogue import Provider
from fasthook.logs import escape
from fasthook.model import iso
from fasthook.pairing import MAX_PAIRING_S, State
from fasthook.spool import secrets
from fasthook.spool.lock import lock
from fasthook.spool.secrets import Kept
from fasthook.values import Duration

_LOOK_S: Final = 0.3
#: The state of a pairing is that of the worker which is furthest.
_FURTHEST: Final = ("taken", "storing", "waiting", "over", "none")
#: In the place of a secret's name.
_ALL: Final = "all"
_FOR: Final = DurationType(
    "more than nothing, and a day at the most", most_s=MAX_PAIRING_S, is_above_zero=True
)


@click.command("pair")
@click.argument("endpoint", required=False)
@config_option
@json_option
@click.option("--for", "for_s", type=_FOR, default="10m", show_default=True, help="How long.")
@click.option("--list", "is_list", is_flag=True, help="Show what was handed over, and when.")
@click.option("--forget", metavar="SECRET", help='Remove one, by its name in the list; or "all".')
def command(
    endpoint: str | None,
    config_path: Path,
    as_json: bool,
    for_s: Duration,
    is_list: bool,
    forget: str | None,
) -> None:
    """Let ENDPOINT of the running service take the secret that its sender hands over.

    Waits until it has come; the first one is taken, and later ones are refused. It is kept in the
    spool's directory, and valid at once, beside those that are there already: remove these with
    --forget once they are not used any more. Exit code 1: none came.
    """
    settings = config.load(config_path, has_secrets=False)
    if is_list:
        _list(settings, endpoint, as_json)
        return
    if endpoint is None:
        raise click.UsageError("ENDPOINT or --list must be given")
    found, provider = _pairable(settings, endpoint)
    if forget is not None:
        _forget(config.spool_of(settings), endpoint, forget)
        return
    _pair(config.spool_of(settings), found, provider, for_s)


def _pairable(settings: Config, name: str) -> tuple[Endpoint, Provider]:
    """The endpoint and its provider. Raises `ConfigError` where nothing is handed over to it."""
    found = next((e for e in settings.endpoint if e.name == name), None)
    if found is None:
        known = ", ".join(e.name for e in settings.endpoint)
        raise ConfigError(f"{settings.source}: no endpoint {name!r}; it has: {known}")
    provider = verifying.provider_of(found, name)
    if not provider.handovers:
        those = ", ".join(p.id for p in catalogue.everything() if p.handovers)
        what = f"{provider.id} hands over no secret; it is entered in the configuration"
        raise ConfigError(f"{settings.source}: {name}: {what} ({those} hand one over)")
    if settings.spool.durability == "none":
        what = 'spool.durability is "none", so that a secret could not be kept'
        raise ConfigError(f'{settings.source}: {what}; expected "fsync" or "os"')
    return found, provider


# --- pairing --------------------------------------------------------------------------------------


def _pair(path: Path, endpoint: Endpoint, provider: Provider, for_s: Duration) -> None:
    state = _ask(path, Pair(endpoint.name, float(for_s)))
    for number in (signal.SIGTERM, signal.SIGHUP):  # whoever goes leaves no door open
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        place = endpoint.public_url or f"the public URL of {endpoint.path}"
        click.echo(f"{endpoint.name} waits for the secret of {provider.name} ({place}).")
        for handover in provider.handovers:
            click.echo(f"At the sender: {handover.ask}.")
        state = _wait(path, endpoint.name, for_s)
    except KeyboardInterrupt:
        end = PairingState(endpoint.name, is_over=True)
        while (state := _ask(path, end)).state == "storing":  # it may be taken, or wait again
            time.sleep(_LOOK_S)
    if state.state != "taken":
        why = f"; the last one could not be kept: {state.failure}" if state.failure else ""
        click.echo(f"not paired: no secret was handed over{why}", err=True)
        sys.exit(1)
    click.echo(f"paired: {endpoint.name} has the secret that {escape(state.client)} handed over")
    for handover in provider.handovers:
        if handover.then:
            file = secrets.folder_of(path, endpoint.name) / state.kept
            click.echo(f"At the sender: {handover.then}: it is in {file}")


def _wait(path: Path, name: str, for_s: Duration) -> State:
    """How it ended."""
    console = Console(stderr=True)
    columns = (BarColumn(), TextColumn("{task.description}"))
    progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    if not console.is_terminal:
        click.echo(f"waiting for {for_s:g} s at the most", err=True)
    with progress:
        task = progress.add_task("", total=float(for_s))
        while (state := _ask(path, PairingState(name))).state in ("waiting", "storing"):
            left = f"waiting, {state.left_s:.0f} s left"
            progress.update(task, completed=float(for_s) - state.left_s, description=left)
            time.sleep(_LOOK_S)
    return state


def _ask(path: Path, order: Pair | PairingState) -> State:
    """How far the service is with it. Raises `ConfigError`."""
    try:
        states = [msgspec.json.decode(a, type=State) for a in control.ask(path, order)]
        return min(states, key=lambda state: _FURTHEST.index(state.state))  # of all workers
    except control.Refused as error:
        raise ConfigError(str(error)) from None
    except OSError:
        what = "no service takes orders there: start it with `fasthook serve`, then pair"
        raise ConfigError(f"{path}: {what}") from None


# --- what is kept ---------------------------------------------------------------------------------


def _list(settings: Config, only: str | None, as_json: bool) -> None:
    if only is not None:
        _pairable(settings, only)
    table = new_table("endpoint", "provider", "secret", "since")
    for endpoint in settings.endpoint:
        provider = verifying.provider_of(endpoint, endpoint.name)
        if not provider.handovers or only not in (None, endpoint.name):
            continue
        kept = verifying.kept_secrets(endpoint, provider, settings)
        if as_json:
            for one in kept:
                echo_json(
                    {"endpoint": endpoint.name, "provider": provider.id}
                    | {"secret": one.name, "since": iso(_ns_of(one))}
                )
        for one in kept:
            table.add_row(endpoint.name, provider.id, escape(one.name), moment(_ns_of(one)))
        if not kept:
            table.add_row(endpoint.name, provider.id, "none: not paired", "")
    if not as_json:
        show(table)


def _ns_of(kept: Kept) -> int:
    return int(kept.since.timestamp() * 1e9)


def _forget(path: Path, name: str, kept: str) -> None:
    wanted = "" if kept == _ALL else kept
    try:
        count = sum(map(msgspec.json.decode, control.ask(path, Unpair(name, wanted))))
    except control.Refused as error:
        raise ConfigError(str(error)) from None
    except OSError:
        count = _forget_here(path, name, wanted)
    if not count:
        click.echo(f"error: {name} has no such secret; `fasthook pair --list` shows them", err=True)
        sys.exit(1)
    click.echo(f"{count} {'secret' if count == 1 else 'secrets'} of {name} removed")


def _forget_here(path: Path, name: str, kept: str) -> int:
    """Where no service runs. Raises `ConfigError`."""
    if not path.is_dir():
        return 0
    with spool_errors(path):
        fd = lock(path)
        try:
            return secrets.forget(path, name, kept)
        finally:
            os.close(fd)
