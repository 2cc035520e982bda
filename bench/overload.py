"""More than it can take: fixed rates of arrivals, from half of what fasthook can take to ten times.

    python -m bench.overload [--seconds S] [--rounds N] [--out FOLDER]

Before each rate the capacity is measured, by some senders each of which sends as soon as it is
answered: goodput is told in parts of it, for a shared machine is never the same. Then events come
at a fixed rate whatever their answers take (open loop), from --connections senders with one request
under way each, as senders of webhooks have: half of the capacity for a while, then a multiple of
it, then half of it again. Latency counts from when an event was due. What finds no free connection
at once is not sent, and counts as shed; so does what is refused, and what has no answer within
--timeout.

Prints a table, and with --out writes overload.md and overload.svg (matplotlib, from `.[bench]`).
The server has core 0, the load core 1; a factor at which the load could not keep its own schedule
is marked, and no more than a lower bound.
"""

import argparse
import contextlib
import itertools
import math
import os
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import uvloop

from bench.catalogue import CATALOGUE
from bench.servers import LOAD_CORE, scratch
from bench.systems import Server, running
from bench.workload import PUSH, pushes
from fasthook.cli.bench.load import Load, Loaded, Senders, quantile, steadily

FACTORS = (0.5, 1.0, 2.0, 5.0, 10.0)
NORMAL = 0.5  # of the capacity, before and after
#: Normal latency, afterwards: twice the p99 from before, but not less than this.
LEAST_NORMAL_S = 0.05
SLOT_S = 0.1


class Row(NamedTuple):
    """What became of one rate."""

    factor: float
    capacity: float  # a second, measured just before
    offered: float  # a second
    goodput: float  # accepted a second
    p50_s: float  # of the accepted ones
    p99_s: float
    p999_s: float
    shed: dict[str, int]
    recovery_s: float  # until latencies were those of before
    cpu_us: float  # of the server for each that it accepted, in all of the run
    late_s: float  # p99 of how late the load itself was
    keeps_up: bool  # the load kept its schedule


def capacity(port: int, connections: int, seconds: float) -> float:
    """Events accepted a second, when each sender sends as soon as it is answered."""
    loaded = uvloop.run(Load(port, pushes(), Senders(connections), for_s=seconds).run())
    return sum(each.status == 202 for each in loaded.answered) / loaded.took_s


class Phases(NamedTuple):
    """Seconds of half of the capacity, of the overload, and of half of it again."""

    before_s: float
    during_s: float
    after_s: float


def overload(server: Server, factor: float, rate: float, senders: Senders, phases: Phases) -> Row:
    """One run. `rate`: the capacity."""
    begin_s = phases.before_s
    end_s = begin_s + phases.during_s
    dues = itertools.chain(
        steadily(rate * NORMAL, phases.before_s),
        steadily(rate * factor, phases.during_s, begin_s),
        steadily(rate * NORMAL, phases.after_s, end_s),
    )
    used_s = -server.cpu_s()
    loaded = uvloop.run(Load(server.port, pushes(), senders, dues=dues).run())
    used_s += server.cpu_s()
    row = row_of(loaded, factor, rate, (begin_s, end_s))
    return row._replace(cpu_us=used_s * 1e6 / sum(a.status == 202 for a in loaded.answered))


def row_of(loaded: Loaded, factor: float, rate: float, during: tuple[float, float]) -> Row:
    """The figures of one run. `during`: the overload, in seconds since its begin."""
    begin_s, end_s = during
    before = sorted(a.took_s for a in loaded.answered if begin_s / 4 < a.due_s < begin_s)
    inside = [a for a in loaded.answered if begin_s <= a.due_s < end_s]
    good = sorted(a.took_s for a in inside if a.status == 202)
    arrived = [a for a in loaded.answered if begin_s <= a.due_s + a.took_s < end_s]
    shed = Counter({0: "lost", -1: "no answer"}.get(a.status, str(a.status)) for a in inside)
    shed.pop("202", None)
    if unsent := sum(begin_s <= due_s < end_s for due_s in loaded.unsent):
        shed["no connection"] = unsent
    return Row(
        factor=factor,
        capacity=rate,
        offered=rate * factor,
        goodput=sum(a.status == 202 for a in arrived) / (end_s - begin_s),
        p50_s=quantile(good, 0.5),
        p99_s=quantile(good, 0.99),
        p999_s=quantile(good, 0.999),
        shed=dict(shed),
        recovery_s=recovery(loaded, end_s, max(LEAST_NORMAL_S, 2 * quantile(before, 0.99))),
        cpu_us=0.0,
        late_s=quantile(sorted(loaded.lags_s), 0.99),
        keeps_up=loaded.keeps_up,
    )


def recovery(loaded: Loaded, end_s: float, normal_s: float) -> float:
    """How long after the overload the first SLOT_S began in which all was accepted as usual."""
    bad = {int((due_s - end_s) / SLOT_S) for due_s in loaded.unsent if due_s >= end_s}
    slots: dict[int, list[float]] = {}
    for each in loaded.answered:
        slot = int((each.due_s - end_s) / SLOT_S)
        if each.due_s < end_s:
            continue
        if each.status != 202:
            bad.add(slot)
        slots.setdefault(slot, []).append(each.took_s)
    usual = [n for n, took_s in slots.items() if quantile(sorted(took_s), 0.99) <= normal_s]
    return min((n * SLOT_S for n in usual if n not in bad), default=math.inf)


def median_of(rows: list[Row]) -> tuple[Row, str]:
    """Of several rows of one factor the one in the middle, and goodput in parts of capacities."""
    ordered = sorted(rows, key=lambda row: row.goodput / row.capacity)
    row, first, last = ordered[len(ordered) // 2], ordered[0], ordered[-1]
    low, high = first.goodput / first.capacity, last.goodput / last.capacity
    text = f"{row.goodput / row.capacity:.2f}"
    return row, text if len(rows) == 1 else f"{text} ({low:.2f} to {high:.2f})"


def table(rows: list[Row]) -> str:
    """Markdown: a line for each factor."""
    lines = [
        "| offered | goodput | of the capacity | p50 | p99 | p99.9 | shed | recovery | CPU |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for factor in sorted({row.factor for row in rows}):
        row, part = median_of([row for row in rows if row.factor == factor])
        shed = ", ".join(f"{n:,} × {what}" for what, n in row.shed.items()) or "nothing"
        mark = "" if row.keeps_up else f" (the load was late: {row.late_s * 1e3:.0f} ms at p99)"
        lines.append(
            f"| {factor:g} × ({row.offered:,.0f}/s){mark} | {row.goodput:,.0f}/s | {part} "
            f"| {row.p50_s * 1e3:.1f} ms | {row.p99_s * 1e3:.1f} ms | {row.p999_s * 1e3:.1f} ms "
            f"| {shed} | {row.recovery_s:.1f} s | {row.cpu_us:.0f} µs |"
        )
    return "\n".join(lines) + "\n"


def picture(rows: list[Row], path: Path) -> None:
    """Goodput and latency by what was offered."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    factors = [row.factor for row in rows]
    left.plot(factors, [row.goodput / row.capacity for row in rows], "o-", label="accepted")
    left.plot(factors, [min(factor, 1.0) for factor in factors], ":", color="grey", label="ideal")
    left.set(xscale="log", xlabel="offered, × capacity", ylim=(0, None))
    left.set_ylabel("accepted, × capacity")
    for name, read in (("p50", "p50_s"), ("p99", "p99_s"), ("p99.9", "p999_s")):
        right.plot(factors, [getattr(row, read) * 1e3 for row in rows], "o-", label=name)
    right.axhline(1000, color="grey", linestyle=":", label="1 s")
    right.set(xscale="log", yscale="log", xlabel="offered, × capacity")
    right.set_ylabel("latency of the accepted ones since they were due, ms")
    for axes in (left, right):
        axes.set_xticks(factors, [f"{factor:g}" for factor in factors], minor=False)
        axes.minorticks_off()
        axes.legend()
        axes.grid(alpha=0.3)
    figure.savefig(path)


def measured(options: argparse.Namespace) -> list[Row]:
    """Rows of all factors, and of all rounds of them."""
    system = CATALOGUE[f"fasthook {options.durability}"]
    senders = Senders(options.connections, 0.0, options.timeout)
    phases = Phases(options.seconds / 4, options.seconds, options.seconds / 2)
    rows = []
    with scratch() as folder, running(system, folder, PUSH) as server:
        os.sched_setaffinity(0, {LOAD_CORE})
        with contextlib.suppress(OSError):  # without the right to it, the load may be late
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        capacity(server.port, options.busy, options.seconds / 4)
        for _ in range(options.rounds):
            for factor in options.factors:
                rate = capacity(server.port, options.busy, options.seconds / 4)
                rows.append(overload(server, factor, rate, senders, phases))
                print(rows[-1], flush=True)
                time.sleep(options.seconds / 8)  # its index catches up
    return rows


def main() -> None:
    """Measure, print, and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=8.0, help="of each overload; others follow"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--factors", type=float, nargs="+", default=list(FACTORS))
    parser.add_argument("--durability", choices=("fsync", "os", "none"), default="fsync")
    parser.add_argument("--busy", type=int, default=256, help="senders that find the capacity")
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--timeout", type=float, default=5.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = measured(options)
    text = table(rows)
    print(text)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "overload.md").write_text(text)
        shown = [median_of([r for r in rows if r.factor == f])[0] for f in options.factors]
        picture(shown, options.out / "overload.svg")


if __name__ == "__main__":
    main()
