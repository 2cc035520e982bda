"""`fasthook pause` and `resume`: run nothing of an endpoint, or of a handler, for a while."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from fasthook import config
from fasthook.cli.options import config_option
from fasthook.cli.reading import fail, moment, path_of
from fasthook.config import ALERTS, Config
from fasthook.errors import ConfigError
from fasthook.spool import pauses
from fasthook.spool.pauses import Pauses, What
from fasthook.spool.survey import holder


def _options(function: Callable[..., Any]) -> Callable[..., Any]:
    for decorate in (
        click.argument("endpoint", required=False, default=""),
        click.option("--handler", default="", help="This handler, at all endpoints."),
        config_option,
    ):
        function = decorate(function)
    return function


@click.command("pause")
@_options
def command(config_path: Path, endpoint: str, handler: str) -> None:
    """Run nothing of ENDPOINT, or of a handler; events are accepted, and wait on disk.

    It lasts until `fasthook resume`, also over restarts and reloads. Works whether the service
    runs or not; what is in a handler's hands comes to its end.
    """
    settings = config.load(config_path, has_secrets=False)
    path = path_of(settings)
    what, name = _named(endpoint, handler)
    _check(settings, what, name)
    with _errors(path):
        if not pauses.pause(path, what, name):
            since = moment(_of(pauses.read(path), what)[name])
            click.echo(f"{what} {name} is paused already, since {since}")
            return
    click.echo(f"{what} {name} is paused{_when(path)}; `fasthook resume` ends that")


@click.command("resume")
@_options
def resume(config_path: Path, endpoint: str, handler: str) -> None:
    """Go on with ENDPOINT, or with a handler: what waits on disk runs, oldest first."""
    path = path_of(config.load(config_path, has_secrets=False))
    with _errors(path):
        paused = pauses.read(path)
        if not (endpoint or handler):
            raise click.UsageError(f"say which: ENDPOINT or --handler NAME; {_listed(paused)}")
        what, name = _named(endpoint, handler)
        if not pauses.resume(path, what, name):
            fail(f"{what} {name!r} is not paused; {_listed(paused)}")
    click.echo(f"{what} {name} goes on{_when(path)}")


def _named(endpoint: str, handler: str) -> tuple[What, str]:
    if bool(endpoint) == bool(handler):
        raise click.UsageError("say which: ENDPOINT or --handler NAME")
    return ("endpoint", endpoint) if endpoint else ("handler", handler)


def _check(settings: Config, what: What, name: str) -> None:
    """Raise `ConfigError` for what is not configured."""
    known = [endpoint.name for endpoint in settings.endpoint]
    if what == "handler":
        names = [name for endpoint in settings.endpoint for name in endpoint.handler_names]
        known = list(dict.fromkeys([*names, *settings.alerts.handlers]))
    elif settings.alerts.handlers:
        known.append(ALERTS)
    if name not in known:
        raise ConfigError(f"{what} {name!r}: {settings.source} has: {', '.join(known)}")


def _of(paused: Pauses, what: What) -> dict[str, int]:
    return paused.endpoints if what == "endpoint" else paused.handlers


def _listed(paused: Pauses) -> str:
    found = [f"endpoint {name}" for name in paused.endpoints]
    found += [f"handler {name}" for name in paused.handlers]
    return f"paused: {', '.join(found) or 'nothing'}"


def _when(path: Path) -> str:
    return "" if holder(path) is not None else " when the service starts"


@contextlib.contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Turn `OSError` into a `ConfigError` that names the file."""
    if not path.is_dir():
        raise ConfigError(f"{path}: there is no spool; `fasthook serve` makes it")
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{error.filename or path}: {error.strerror}") from None
