"""`fasthook check`: is the configuration good, and what would it do?"""

import contextlib
import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from fasthook import config, plan
from fasthook.alert_events import can_watch
from fasthook.cli.options import config_option, json_option
from fasthook.cli.tables import new_table, show
from fasthook.config import Config, Endpoint
from fasthook.plan import Plan


@click.command("check")
@config_option
@json_option
def command(config_path: Path, as_json: bool) -> None:
    """Say whether the configuration is good; start nothing.

    Reads the secrets and imports the handlers, as `serve` would. Exit code 2: it is not good.
    """
    settings = config.load(config_path)
    # Handlers are imported, and may print: standard output is for the report alone.
    with contextlib.redirect_stdout(sys.stderr):
        made = plan.make(settings)
    rows = [_row(settings, made, index) for index in range(len(made.endpoints))]
    if as_json:
        report = {
            "config": str(config_path),
            "endpoints": rows,
            "alerts": {"watch": _watches(settings), "handlers": settings.alerts.handlers},
            "warnings": made.warnings,
        }
        click.echo(msgspec.json.format(msgspec.json.encode(report)))
        return
    table = new_table("endpoint", "path", "provider", "secrets", "handlers", "silence")
    for row in rows:
        secrets = ", ".join(row["secrets"]) or "none"
        if "fetched_from" in row:
            secrets = f"fetched: {row['fetched_from']}"
        handlers = ", ".join(row["handlers"])
        silence = row["silence"] or "not watched"
        table.add_row(row["name"], row["path"], row["provider"], secrets, handlers, silence)
    show(table)
    click.echo(_watched(settings))
    for warning in made.warnings:
        click.secho(f"warning: {warning}", fg="yellow", err=True)
    click.echo(f"{config_path}: good")


def _row(settings: Config, made: Plan, index: int) -> dict[str, Any]:
    endpoint = settings.endpoint[index]
    kept = made.pairable[endpoint.name].kept if endpoint.name in made.pairable else []
    secrets = [*endpoint.secrets, *(one.secret for one in kept)]
    row = {
        "name": endpoint.name,
        "path": endpoint.path,
        "provider": endpoint.provider,
        "secrets": [secret.source for secret in secrets],
        "handlers": list(endpoint.handler_names),
        "status": made.answers[endpoint.name].status,
        "silence": _silence(settings, endpoint),
    }
    if endpoint.name in made.fetches.sources:
        row["fetched_from"] = made.fetches.sources[endpoint.name]
    return row


def _silence(settings: Config, endpoint: Endpoint) -> str:
    """After what time without an event there is an alert; empty: never."""
    if not _watches(settings):
        return ""
    return f"after {endpoint.expect_every:g} s" if endpoint.expect_every else "as learned"


def _watches(settings: Config) -> bool:
    return can_watch(settings, plan.workers_of(settings))


def _watched(settings: Config) -> str:
    alerts = settings.alerts
    if not _watches(settings):
        return "alerts: nothing is watched"
    told = ", ".join(alerts.handlers) or "the log and the metrics alone"
    return f"alerts: of refusals, volume, new errors and silence; told to {told}"
