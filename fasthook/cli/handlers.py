"""`fasthook handlers`: which there are, and how they stand."""

from pathlib import Path
from typing import Any, Final

import click
from prometheus_client.parser import text_string_to_metric_families

from fasthook import config, control
from fasthook.admin import merged
from fasthook.cli.options import config_option, json_option
from fasthook.cli.reading import echo_json, moment
from fasthook.cli.tables import new_table, show
from fasthook.config import ALERTS, Config, spool_of
from fasthook.errors import ConfigError
from fasthook.model import iso
from fasthook.spool import pauses

_BREAKERS: Final = {0: "closed", 1: "tries one", 2: "open"}
#: What is shown of the metrics, by the name of the column.
_FIGURES: Final = {
    "running": "fasthook_handler_running",
    "waiting": "fasthook_handler_waiting",
    "coalescing": "fasthook_handler_coalescing",
    "breaker": "fasthook_handler_breaker",
}


@click.command("handlers")
@config_option
@json_option
def command(config_path: Path, as_json: bool) -> None:
    """List the handlers, what is paused since when, and, if the service runs, what they do.

    `breaker`: open while a handler that failed in a row is left alone.
    """
    settings = config.load(config_path, has_secrets=False)
    endpoints = _endpoints(settings)
    figures: dict[str, dict[str, float]] = {}
    paused = pauses.NOTHING
    if settings.spool.durability != "none":
        path = spool_of(settings)
        try:
            paused, figures = pauses.read(path), _figures(path)
        except OSError as error:
            raise ConfigError(f"{error.filename or path}: {error.strerror}") from None
    table = new_table("handler", "endpoints", "paused since", *_FIGURES)
    for name, of in endpoints.items():
        since_ns = paused.handlers.get(name, 0)
        known = {column: figures.get(metric, {}).get(name) for column, metric in _FIGURES.items()}
        row: dict[str, Any] = {c: None if n is None else int(n) for c, n in known.items()}
        if row["breaker"] is not None:
            row["breaker"] = _BREAKERS.get(row["breaker"])
        if as_json:
            facts = {"handler": name, "endpoints": of, "paused_since": iso(since_ns)}
            where = {e: iso(paused.endpoints[e]) for e in of if e in paused.endpoints}
            echo_json(facts | {"paused_endpoints": where} | row)
            continue
        listed = [f"{e} (paused)" if e in paused.endpoints else e for e in of]
        cells = ["" if value is None else str(value) for value in row.values()]
        table.add_row(name, ", ".join(listed), moment(since_ns), *cells)
    if not as_json:
        show(table)


def _endpoints(settings: Config) -> dict[str, list[str]]:
    """By handler: the endpoints that name it."""
    found: dict[str, list[str]] = {}
    for endpoint in settings.endpoint:
        for name in endpoint.handler_names:
            found.setdefault(name, []).append(endpoint.name)
    for name in settings.alerts.handlers:
        found.setdefault(name, []).append(ALERTS)
    return found


def _figures(path: Path) -> dict[str, dict[str, float]]:
    """By metric and handler, of all workers; nothing where no service runs."""
    try:
        texts = [text.decode() for text in control.ask(path, control.Figures())]
    except (OSError, control.Refused):
        return {}
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(merged(texts).decode()):
        for sample in family.samples:
            if "handler" in sample.labels:
                found.setdefault(sample.name, {})[sample.labels["handler"]] = sample.value
    return found
