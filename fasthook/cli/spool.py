"""`fasthook spool`: about the spool as a whole."""

import sys
from collections.abc import Iterable

import click
from rich.console import Console
from rich.progress import Progress

from fasthook.cli.export import command as export
from fasthook.cli.reading import Spool, echo_json, opens_spool, say
from fasthook.cli.tables import new_table, show
from fasthook.cli.upkeep import prune, rebuild
from fasthook.spool.survey import Survey, survey
from fasthook.spool.verify import Finding, Verification


@click.group("spool")
def command() -> None:
    """About the spool as a whole."""


command.add_command(rebuild)
command.add_command(prune)
command.add_command(export)


# --- stat -----------------------------------------------------------------------------------------


@command.command("stat")
@opens_spool
def stat(spool: Spool, as_json: bool) -> None:
    """Say how the spool stands: sizes, events by state, and which service has it."""
    found = survey(spool.reader)
    limit_bytes = int(spool.settings.spool.max_bytes)
    counts = {state.name.lower(): count for state, count in found.counts.items()}
    if as_json:
        values = {"path": str(spool.path.absolute()), **found._asdict(), "counts": counts}
        echo_json(values | {"limit_bytes": limit_bytes})
        return
    table = new_table("", "")
    table.show_header = False
    for name, text in _stat_lines(spool, found, limit_bytes).items():
        table.add_row(name, text)
    for state, count in counts.items():
        table.add_row(state, str(count))
    show(table)
    if found.is_index_damaged:
        say("warning: the index is damaged; the next start makes it again from the journal")


def _stat_lines(spool: Spool, found: Survey, limit_bytes: int) -> dict[str, str]:
    behind = f"{size(found.behind_bytes)} behind" if found.behind_bytes else "up to date"
    share = f"{100 * found.journal_bytes / limit_bytes:.0f} % of {size(limit_bytes)}"
    age_s = found.oldest_pending_s
    is_held = found.holder is not None
    return {
        "directory": str(spool.path.absolute()),
        "service": f"runs (process {found.holder})" if is_held else "none runs",
        "journal": f"{size(found.journal_bytes)} in {_segments(found.segments)}, {share}",
        "index": f"{size(found.index_bytes)}, {behind}",
        "oldest pending": "none" if age_s is None else f"received {_age(age_s)} ago",
    }


def size(count: int) -> str:
    """So many bytes, in the units of the configuration."""
    for unit, length in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if count >= length:
            return f"{count / length:.3g} {unit}"
    return f"{count} bytes"


def _segments(count: int) -> str:
    return f"{count} segment{'' if count == 1 else 's'}"


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


# --- verify ---------------------------------------------------------------------------------------


@command.command("verify")
@opens_spool
def verify(spool: Spool, as_json: bool) -> None:
    """Read the whole journal and compare it with the index; a service may run meanwhile.

    Exit code 1: something is damaged, or one lacks what the other has.
    """
    verification = Verification(spool.reader)
    total = sum(segment.size_bytes for segment in verification.segments)
    bad = 0
    progress = Progress(console=Console(stderr=True), transient=True)
    progress.disable = not progress.console.is_terminal
    with progress:
        task = progress.add_task("verifying", total=total)
        bad += _report(verification.index(), as_json)
        bad += _report(verification.gaps(), as_json)
        for segment in verification.segments:
            bad += _report(verification.segment(segment), as_json)
            progress.advance(task, segment.size_bytes)
    counts = {
        "records": dict(verification.records),
        "segments": len(verification.segments),
        "bytes": total,
        "dropped": verification.dropped,
        "behind": verification.behind,
        "findings": bad,
    }
    if as_json:
        echo_json({"summary": counts})
    else:
        _show_verified(verification, total, bad)
    sys.exit(1 if bad else 0)


def _report(findings: Iterable[Finding], as_json: bool) -> int:
    """Say them; how many."""
    count = 0
    for finding in findings:
        count += 1
        if as_json:
            values = {"finding": finding.what, **finding._asdict()}
            del values["what"]
            echo_json(values)
        else:
            click.echo(f"{finding.what} {finding.name}: {finding.text}")
    return count


def _show_verified(verification: Verification, total: int, bad: int) -> None:
    click.echo(f"{size(total)} in {_segments(len(verification.segments))} read")
    records = ", ".join(f"{count} {name}" for name, count in verification.records.items())
    click.echo(f"records: {records or 'none'}")
    if verification.dropped:
        click.echo(f"{verification.dropped} events are known whose head and body were dropped")
    if verification.behind:
        click.echo(f"{verification.behind} events are not in the index yet")
    click.echo(f"bad: {bad}" if bad else "all is well")
