"""`fasthook doctor`: what is wrong with an installation, or soon will be."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import click

from fasthook import config
from fasthook.cli.doctor import (
    clock,
    configuration,
    files,
    limits,
    probing,
    proxy,
    storage,
    supervision,
)
from fasthook.cli.doctor.case import Case, borrowed_environment, case_of
from fasthook.cli.doctor.findings import Finding, Level, bad, guarded, unseen
from fasthook.cli.doctor.units import Unit, find_unit
from fasthook.cli.options import DurationType, config_option, json_option
from fasthook.cli.reading import echo_json, say
from fasthook.errors import ConfigError
from fasthook.logs import escape

_COLOURS: Final = {Level.GOOD: "green", Level.WARNING: "yellow", Level.BAD: "red"}
_LEVEL_WIDTH: Final = 9
_SUBJECT_WIDTH: Final = 14
_UNIT: Final = "fasthook.service"
_SOCKET: Final = "fasthook.socket"


@click.command("doctor")
@config_option
@json_option
@click.option("--probe", "url", metavar="URL", help="Send a signed event there; its handlers RUN.")
@click.option("--endpoint", help="For --probe; by default the first that can be signed for.")
@click.option(
    "--ca-file",
    type=click.Path(path_type=Path),
    help="For --probe: certificates that are trusted in the place of the system's.",
)
@click.option(
    "--wait",
    "wait_s",
    type=DurationType(),
    default="30s",
    show_default=True,
    help="For --probe: how long its handlers may take.",
)
@click.option(
    "--nginx",
    "nginx_conf",
    type=click.Path(path_type=Path),
    help="The main configuration of nginx, if it is not its default one.",
)
def command(config_path: Path, as_json: bool, nginx_conf: Path | None, **options: Any) -> None:
    """Say what is wrong with an installation, or soon will be, and what to do.

    Looks at the configuration, files of secrets, the spool, the clock, limits, the unit and nginx;
    changes nothing. As root it sees everything, whoever the service is. --probe sends an event
    with an id that begins with fasthook-probe- to an endpoint, and its handlers really run.

    Exit code 1: something is bad.
    """
    _check_use(options)
    findings = []
    for finding in _examined(config_path, nginx_conf, options):
        findings.append(finding)
        if not as_json:
            _show(finding)
    counts = {each: sum(f.level is each for f in findings) for each in Level}
    if as_json:
        echo_json(
            {
                "config": str(config_path),
                "good": counts[Level.GOOD],
                "warnings": counts[Level.WARNING],
                "bad": counts[Level.BAD],
                "findings": [finding._asdict() for finding in findings],
            }
        )
    else:
        warnings = f"{counts[Level.WARNING]} warning{'' if counts[Level.WARNING] == 1 else 's'}"
        click.echo(f"{counts[Level.GOOD]} good, {warnings}, {counts[Level.BAD]} bad")
    sys.exit(1 if counts[Level.BAD] else 0)


def _check_use(options: dict[str, Any]) -> None:
    """Raise `click.UsageError` for options that make no sense together."""
    url = options["url"]
    if url is None:
        for name in ("endpoint", "ca_file"):
            if options[name] is not None:
                raise click.UsageError(f"--{name.replace('_', '-')}: belongs to --probe URL")
        return
    try:
        probing.check_url(url)
    except ValueError as error:
        raise click.UsageError(f"--probe: {error}") from None


def _examined(
    config_path: Path, nginx_conf: Path | None, options: dict[str, Any]
) -> Iterator[Finding]:
    unit, socket, unread = _units()
    try:
        settings = config.load(config_path, has_secrets=False)
        case = case_of(config_path, settings, unit, socket)
    except (ConfigError, OSError) as error:
        cure = "put it right; all the rest depends on it"
        yield bad("configuration", str(error), cure)
        return
    names = [endpoint.name for endpoint in settings.endpoint]
    if options["endpoint"] is not None and options["endpoint"] not in names:
        known = ", ".join(names)
        raise click.UsageError(f"--endpoint {options['endpoint']!r}; {config_path} has: {known}")
    with borrowed_environment(case):
        yield from guarded("configuration", lambda: configuration.look(case))
    yield from guarded("files", lambda: files.look(case))
    yield from guarded("spool", lambda: storage.look(case))
    yield from guarded("clock", lambda: clock.look(case))
    yield from guarded("limits", lambda: limits.look(case))
    yield from unread or guarded("unit", lambda: supervision.look(case))
    yield from guarded("nginx", lambda: proxy.look(case, nginx_conf))
    if options["url"] is not None:
        with borrowed_environment(case):
            yield from guarded("probe", lambda: _probed(case, options))


def _units() -> tuple[Unit | None, Unit | None, list[Finding]]:
    """Those of the service and of its socket, and why they can't be read."""
    try:
        return find_unit(_UNIT), find_unit(_SOCKET), []
    except OSError as error:
        what = f"{error.filename}: {error.strerror}"
        return None, None, [unseen("unit", what, "run it as root")]


def _probed(case: Case, options: dict[str, Any]) -> Iterable[Finding]:
    try:
        probe = probing.prepare(case, options["url"], options["endpoint"])
    except ConfigError as error:
        yield unseen("probe", str(error), "nothing was sent; see the lines about secrets")
        return
    handlers = ", ".join(probe.endpoint.handler_names)
    what = f"event {probe.event_id} goes to endpoint {probe.endpoint.name}"
    say(f"warning: {what}; what handles it really runs: {handlers}")
    yield from probing.run(case, probe, options["ca_file"], options["wait_s"])


def _show(finding: Finding) -> None:
    """A line, and one below it that says what to do."""
    level = click.style(f"{finding.level:<{_LEVEL_WIDTH}}", fg=_COLOURS[finding.level])
    click.echo(f"{level}{finding.subject:<{_SUBJECT_WIDTH}} {escape(finding.text)}")
    if finding.cure:
        click.echo(f"{'':<{_LEVEL_WIDTH + _SUBJECT_WIDTH}} → {escape(finding.cure)}")
