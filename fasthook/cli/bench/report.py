"""What was measured, and how it is shown."""

from collections import Counter
from typing import Final, NamedTuple

import click
import msgspec

from fasthook.cli.bench.load import Loaded, quantile
from fasthook.cli.bench.own import Own
from fasthook.cli.spool import size
from fasthook.cli.tables import new_table, show
from fasthook.config import Config

#: What a service counts that it has answered 2xx here.
_STORED: Final = ("event", "ignored", "duplicate")
_NO_ANSWER: Final = {0: "connection lost", -1: "no answer in time"}


class Measured(NamedTuple):
    """As it comes from the parts that measure."""

    loads: list[Loaded]
    request_bytes: float  # head and body, in the mean
    syncs_s: list[float]
    cpu_s: float
    counts: dict[str, int]  # the service's own, by what became of requests
    peak_bytes: int


class Quantiles(msgspec.Struct, frozen=True):
    """Of times, in milliseconds."""

    p50: float
    p99: float
    p999: float
    worst: float


class Report(msgspec.Struct, frozen=True):
    """All that `bench` found out."""

    config: str
    endpoints: list[str]
    left_out: dict[str, str]  # endpoint → why
    changed: list[str]  # keys of the configuration that do not hold here
    own_handlers: bool
    durability: str
    workers: int
    connections: int
    seconds: float  # of sending
    wanted_rate: float | None
    events: int  # accepted
    rate: float  # of these, a second
    bytes_per_event: float  # of the request, head and body
    answers: dict[str, int]  # status → how many
    latency_ms: Quantiles  # of those that were accepted
    cpu_us_per_event: float  # of all processes of the service, handlers included
    sync_ms: Quantiles
    memory_bytes: int  # resident, of the largest worker, at most
    notes: list[str]
    complaints: list[str]  # why the exit code is 1


def report_of(
    settings: Config, own: Own, measured: Measured, rate: float | None, connections: int
) -> Report:
    """What the figures say. `rate`: that was asked for."""
    answers = [each for load in measured.loads for each in load.answered]
    statuses = Counter(each.status for each in answers)
    took_s = sorted(each.took_s for each in answers if 200 <= each.status < 300)
    seconds = sum(load.took_s for load in measured.loads)
    return Report(
        config=settings.source,
        endpoints=[signer.endpoint for signer in own.signers],
        left_out=own.left_out,
        changed=own.changed,
        own_handlers="handlers" not in own.changed,
        durability=settings.spool.durability,
        workers=settings.server.workers,
        connections=connections,
        seconds=round(seconds, 3),
        wanted_rate=float(rate) if rate is not None else None,
        events=len(took_s),
        rate=round(len(took_s) / seconds, 1) if seconds else 0.0,
        bytes_per_event=round(measured.request_bytes),
        answers={_NO_ANSWER.get(key, str(key)): n for key, n in sorted(statuses.items())},
        latency_ms=_quantiles(took_s),
        cpu_us_per_event=round(measured.cpu_s * 1e6 / max(1, len(took_s)), 1),
        sync_ms=_quantiles(sorted(measured.syncs_s)),
        memory_bytes=measured.peak_bytes,
        notes=_notes(own, measured),
        complaints=_complaints(statuses, len(took_s), measured),
    )


def _quantiles(sorted_s: list[float]) -> Quantiles:
    return Quantiles(*(round(quantile(sorted_s, part) * 1e3, 3) for part in (0.5, 0.99, 0.999, 1)))


def _notes(own: Own, measured: Measured) -> list[str]:
    found = [f"{name} is left out: {reason}" for name, reason in own.left_out.items()]
    if own.is_in_memory:
        found.append("the spool is in memory, where a sync costs nothing: see --folder")
    if own.cores == 1:
        found.append("the sender runs on the only processor, beside the service")
    elif not all(load.keeps_up for load in measured.loads):
        found.append("the sender could not keep up: the service may be faster than this")
    if duplicates := measured.counts.get("duplicate", 0):
        found.append(f"{duplicates} events were taken for earlier ones, which costs less")
    return found


def _complaints(statuses: Counter[int], accepted: int, measured: Measured) -> list[str]:
    found = []
    if bad := {s: n for s, n in sorted(statuses.items()) if not 200 <= s < 300}:
        listed = ", ".join(f"{n} × {_NO_ANSWER.get(status, status)}" for status, n in bad.items())
        found.append(f"some events were not accepted: {listed}")
    unsent = sum(len(load.unsent) for load in measured.loads)
    if unsent:
        found.append(f"{unsent} events found no free connection within half a minute")
    counted = sum(measured.counts.get(name, 0) for name in _STORED)
    if counted != accepted and not bad:
        found.append(f"{accepted} events were answered 2xx, but the service counts {counted}")
    return found


def show_report(report: Report) -> None:
    """For a terminal."""
    handlers = "your handlers run" if report.own_handlers else "handlers do nothing"
    click.echo(
        f"{report.config}: endpoint {', '.join(report.endpoints)}; durability "
        f"{report.durability}, {report.workers} worker{'s' * (report.workers > 1)}; {handlers}"
    )
    took, syncs = report.latency_ms, report.sync_ms
    wanted = f" of {report.wanted_rate:,.0f}/s" if report.wanted_rate else ""
    table = new_table("", "")
    table.show_header = False
    table.add_row("accepted", f"{report.events:,} events in {report.seconds:.1f} s")
    table.add_row("rate", f"{report.rate:,.0f}/s{wanted}, {size(int(report.bytes_per_event))} each")
    table.add_row(
        "latency", f"p50 {took.p50:.1f} ms, p99 {took.p99:.1f} ms, p99.9 {took.p999:.1f} ms"
    )
    table.add_row("CPU", f"{report.cpu_us_per_event:.1f} µs an event")
    table.add_row("disk", f"a sync takes p50 {syncs.p50:.2f} ms, p99 {syncs.p99:.2f} ms")
    table.add_row("memory", f"{size(report.memory_bytes)} of a worker, at most")
    show(table)
    click.echo(f"not as configured: {', '.join(report.changed)}")
    for note in report.notes:
        click.secho(f"note: {note}", fg="yellow", err=True)
