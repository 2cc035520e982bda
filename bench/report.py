"""Results in words and tables, for people: RESULTS.md."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from bench.catalogue import CATALOGUE
from bench.pairs import Measured, Sample
from bench.pictures import by_system
from bench.results import Results, cores, form, machine, versions
from bench.sections import (
    LASTING,
    MANY,
    MAX_CONNECTION_BYTES,
    MAX_GROWTH,
    MAX_START_S,
    MAX_WORKER_BYTES,
    RATE,
    SLOW,
    WAITING,
    growth,
    is_flat,
    is_soon,
)
from bench.servers import CONNECTIONS
from bench.workload import FORGE_EVERY, PUSH


def written(results: Results, pictures: Sequence[str]) -> str:
    """The page. `pictures`: names of those that were drawn."""
    sections = (
        _head(results),
        _left_out(results),
        _ratios(results),
        _systems(results),
        _latency(results),
        _sizes(results),
        _endpoints(results),
        _pending(results),
        _connections(results),
        _memory(results),
        _backlog(results),
        _start(results),
    )
    lines: list[str] = []
    for section in sections:
        lines += section
    shown = {f"![{name.removesuffix('.svg')}](pictures/{name})" for name in pictures}
    return "\n".join(x for x in lines if not x.startswith("![") or x in shown).strip() + "\n"


def _head(results: Results) -> Iterator[str]:
    yield from ("# Results", "")
    date = results.began.strftime("%Y-%m-%d %H:%M UTC")
    yield f"Written by `make bench` on {date}, in {results.took_s / 60:.1f} minutes:"
    yield f"{results.rounds} rounds of {results.seconds:g} s for each pair."
    yield from ("", f"- machine: {machine()}")
    yield f"- {cores()}; {CONNECTIONS} connections of `wrk`"
    yield f"- fasthook: {form()}"
    yield "- " + ", ".join(f"{name} {version}" for name, version in versions().items())
    yield f"- sent: {PUSH.name} with 13 headers, each with an id of its own; one in {FORGE_EVERY}"
    yield "  is forged. All verify in constant time and decode into a typed value; the floor"
    yield "  (nginx, 202; fixed answer) does neither"
    yield "- checked in each measurement: server and load counted the same, whatever was forged was"
    yield "  refused, all that was accepted was stored or handled, where that is what is measured"
    yield "- events a second are of accepted ones; where a handler runs, until it has run for all"
    if again := results.again():
        yield f"- {again} rounds were measured again, since requests were shed, as happens when a"
        yield "  disk or the machine hangs for a moment"
    if results.busy:
        yield f"- **this machine had other work to do: {results.busy}. Rates are far below those"
        yield "  of a quiet one, ratios of rates are rough; the CPU an event is what to look at**"
    yield ""


def _left_out(results: Results) -> Iterator[str]:
    if results.missing:
        yield from ("Not installed, and left out:", "")
        yield from (f"- {name}: {how}" for name, how in results.missing.items())
        yield ""
    if results.wrong:
        yield from ("**Went wrong, and was left out:**", "")
        yield from (f"- {what}" for what in results.wrong)
        yield ""


def _spread(values: Sequence[float], digits: int = 2) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def _ratios(results: Results) -> Iterator[str]:
    if not results.pairs:
        return
    yield from ("## Side by side", "", "A B A B: ratios of one round, median (from to).", "")
    yield "| | beside | times its rate | to reach | times its CPU an event |"
    yield "|---|---|---|---|---|"
    yield from (_ratio(each) for each in results.pairs)
    yield from ("", "![ratios](pictures/ratios.svg)", "")


def _met(is_met: bool) -> str:
    return ": yes" if is_met else ": **no**"


def _ratio(each: Measured) -> str:
    target = f"{each.pair.target:g}{_met(each.is_met)}"
    cpu = [a.cpu_us / b.cpu_us for a, b in zip(each.ours, each.other, strict=True)]
    cells = [each.pair.ours, each.pair.other, _spread(each.ratios)]
    return f"| {' | '.join(cells)} | {target if each.pair.target else ''} | {_spread(cpu)} |"


def _systems(results: Results) -> Iterator[str]:
    if not results.pairs:
        return
    yield from ("## Throughput", "")
    yield "| system | what it does | events a second | µs of CPU an event | p50, p99 in ms |"
    yield "|---|---|---|---|---|"
    for name, samples in by_system(results.pairs).items():
        rates, cpu = _spread([s.rate for s in samples], 0), _spread([s.cpu_us for s in samples], 0)
        times = " / ".join(
            f"{statistics.median(s.latency_us[share] for s in samples) / 1000:.1f}"
            for share in ("50", "99")
        )
        yield f"| {name} | {CATALOGUE[name].says} | {rates} | {cpu} | {times} |"
    yield from ("", "![throughput](pictures/throughput.svg)", "", "![cpu](pictures/cpu.svg)", "")


def _latency(results: Results) -> Iterator[str]:
    if not results.latency:
        return
    yield from ("## Latency", "")
    yield f"At {RATE:,} requests a second, whatever the answers take (open loop), in ms:"
    yield from ("", "| system | p50 | p90 | p99 | p99.9 | longest |", "|---|---|---|---|---|---|")
    for name, times in results.latency.items():
        picked = [times[int(len(times) * share)] for share in (0.5, 0.9, 0.99, 0.999)]
        cells = " | ".join(f"{s * 1000:.1f}" for s in (*picked, times[-1]))
        yield f"| {name} | {cells} |"
    yield from ("", "![latency](pictures/latency.svg)", "")


def _sizes(results: Results) -> Iterator[str]:
    if not results.sizes:
        return
    systems = list(next(iter(results.sizes.values())))
    yield from ("## Sizes of bodies", "", "µs of CPU an event, and events a second:", "")
    yield f"| | {' | '.join(systems)} |"
    yield "|---" * (len(systems) + 1) + "|"
    for work, found in results.sizes.items():
        cells = " | ".join(_cost(found[name]) for name in systems)
        yield f"| {work} | {cells} |"
    yield from ("", "![sizes](pictures/sizes.svg)", "")


def _cost(samples: Sequence[Sample]) -> str:
    cpu_us = statistics.median(s.cpu_us for s in samples)
    return f"{cpu_us:,.0f}; {statistics.median(s.rate for s in samples):,.0f}/s"


def _endpoints(results: Results) -> Iterator[str]:
    says = f"{MANY}; requests are spread over all of them, and each has a secret of its own:"
    yield from _grown("Number of endpoints", says, ("endpoints", "of one"), results.endpoints)
    if results.endpoints:
        yield from ("![endpoints](pictures/endpoints.svg)", "")


def _pending(results: Results) -> Iterator[str]:
    says = f"{WAITING}, on whose disk so many wait already:"
    yield from _grown("Events that wait", says, ("waiting", "of none"), results.pending)


def _connections(results: Results) -> Iterator[str]:
    says = f"{MANY}, beside the {CONNECTIONS} that have the load; those that are idle were served:"
    found = results.connections
    more = {
        f"KiB each, at most {MAX_CONNECTION_BYTES // 1024}": [
            f"{f.bytes_each / 1024:.1f}{_met(f.is_small)}" if name != "0" else ""
            for name, f in found.items()
        ],
        "of a core, while nothing comes": [f"{f.core:.1%}" for f in found.values()],
    }
    samples = {name: each.samples for name, each in found.items()}
    yield from _grown("Idle connections", says, ("idle", "of none"), samples, more)


def _grown(
    title: str,
    says: str,
    heads: tuple[str, str],
    found: Mapping[str, Sequence[Sample]],
    more: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Iterator[str]:
    """How the CPU an event grows with a number, and whether it stays within what it may."""
    if not found:
        return
    number, part = heads
    names = [number, "µs of CPU an event", f"{part}, at most {MAX_GROWTH:g}", *more]
    yield from (f"## {title}", "", says, "", f"| {' | '.join(names)} |", "|---" * len(names) + "|")
    base = next(iter(found))
    for (count, ratios), *others in zip(growth(found).items(), *more.values(), strict=True):
        cost = _spread([s.cpu_us for s in found[count]], 0)
        ratio = _spread(ratios) + (_met(is_flat(ratios)) if count != base else "")
        yield f"| {' | '.join([count, cost, ratio, *others])} |"
    yield ""


def _start(results: Results) -> Iterator[str]:
    if results.start:
        yield from ("## Start", "")
        yield f"{LASTING} with ten endpoints is ready after {_spread(results.start)} s, at most"
        yield f"{MAX_START_S:g}{_met(is_soon(results.start))}."


def _memory(results: Results) -> Iterator[str]:
    if not results.memory:
        return
    first, last = results.memory[0], results.memory[-1]
    peak = max(moment.rss_bytes for moment in results.memory)
    yield from ("## Memory and disk", "")
    mib = 1024**2
    yield f"{LASTING} under full load for {last.seconds:.0f} s: {first.rss_bytes / mib:.0f} MiB"
    yield f"before it, {peak / mib:.0f} MiB at most; {last.disk_bytes / mib:,.0f} MiB on disk."
    yield from ("", "![memory](pictures/memory.svg)", "")


def _backlog(results: Results) -> Iterator[str]:
    full, mib = results.backlog, 1024**2
    if full is None:
        return
    yield from ("## Memory with a full backlog", "")
    yield f"{SLOW}: of {full.accepted:,} events in {full.seconds:g} s {full.held:,} were in memory,"
    yield f"the others waited on disk. Its worker's peak was {full.peak_bytes / mib:.0f} MiB, at"
    yield f"most {MAX_WORKER_BYTES / mib:.0f}{_met(full.is_small)}."
    yield ""
