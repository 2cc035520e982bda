"""Results as SVG pictures, by matplotlib."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.pairs import Measured, Sample
from bench.results import Results

OURS, LIMIT, OTHERS = "#1f6f54", "#8a8f98", "#c8772c"


def draw(results: Results, folder: Path) -> list[str]:
    """Draw what there is; the names of the files. Raises ImportError without matplotlib."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams |= {
        "svg.fonttype": "none",  # text stays text: small, and found by a search
        "svg.hashsalt": "fasthook",
        "font.family": "sans-serif",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.3,
        "axes.axisbelow": True,
    }
    pictures = {
        "throughput": (results.pairs, _throughput),
        "cpu": (results.pairs, _cpu),
        "ratios": (results.pairs, _ratios),
        "latency": (results.latency, _latency),
        "sizes": (results.sizes, _sizes),
        "endpoints": (results.endpoints, _endpoints),
        "memory": (results.memory, _memory),
    }
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, (data, function) in pictures.items():
        path = folder / f"{name}.svg"
        path.unlink(missing_ok=True)
        if data:
            figure = function(data)
            figure.savefig(path, metadata={"Date": None, "Creator": None}, bbox_inches="tight")
            drawn.append(path.name)
    return drawn


def _figure(height: float = 4.0) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, height))
    return figure, figure.subplots()


def colour(system: str) -> str:
    """Ours, the limits, and the others."""
    if "fasthook" in system:
        return OURS
    return LIMIT if "prototype" in system or system in ("fixed answer", "nginx, 202") else OTHERS


def by_system(pairs: Sequence[Measured]) -> dict[str, list[Sample]]:
    """All samples of each system, the fastest first."""
    found: dict[str, list[Sample]] = {}
    for each in pairs:
        found.setdefault(each.pair.ours, []).extend(each.ours)
        found.setdefault(each.pair.other, []).extend(each.other)
    return dict(sorted(found.items(), key=lambda item: -_median_rate(item[1])))


def _median_rate(samples: Sequence[Sample]) -> float:
    return statistics.median(s.rate for s in samples)


def _throughput(pairs: Sequence[Measured]) -> Any:
    rates = {name: [s.rate for s in samples] for name, samples in by_system(pairs).items()}
    return _bars(rates, "events a second: median, and range of the rounds")


def _cpu(pairs: Sequence[Measured]) -> Any:
    costs = {name: [s.cpu_us for s in samples] for name, samples in by_system(pairs).items()}
    costs = dict(sorted(costs.items(), key=lambda item: statistics.median(item[1])))
    return _bars(costs, "µs of CPU an event, of all the server's processes", log=True)


def _bars(values: Mapping[str, Sequence[float]], label: str, *, log: bool = False) -> Any:
    figure, axes = _figure(1 + 0.32 * len(values))
    for row, (name, found) in enumerate(reversed(list(values.items()))):
        middle = statistics.median(found)
        axes.barh(row, middle, color=colour(name))
        axes.plot([min(found), max(found)], [row, row], color="black", linewidth=1)
        axes.text(max(found), row, f"  {middle:,.0f}", va="center", fontsize=8)
    axes.set_yticks(range(len(values)), list(reversed(values)))
    if log:
        axes.set_xscale("log")
    axes.set_xlabel(label)
    return figure


def _ratios(pairs: Sequence[Measured]) -> Any:
    figure, axes = _figure(1 + 0.32 * len(pairs))
    for row, each in enumerate(reversed(pairs)):
        middle = statistics.median(each.ratios)
        axes.plot([min(each.ratios), max(each.ratios)], [row, row], color=OURS, linewidth=3)
        axes.plot(middle, row, "o", color=OURS)
        if each.pair.target:
            axes.plot(each.pair.target, row, "|", color="black", markersize=14)
    names = [f"{each.pair.ours}  /  {each.pair.other}" for each in reversed(pairs)]
    axes.set_yticks(range(len(pairs)), names, fontsize=8)
    axes.set_xscale("log")
    axes.set_xlabel("times the rate: median and range of the rounds; | is what it is to reach")
    return figure


def _latency(latencies_s: Mapping[str, Sequence[float]]) -> Any:
    figure, axes = _figure()
    lines = _styles()
    for name, sorted_s in latencies_s.items():
        count = len(sorted_s)
        shares = [1 / (1 - n / count) for n in range(count)]
        axes.plot(shares, [s * 1000 for s in sorted_s], label=name, **next(lines))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks([1, 2, 10, 100, 1000], ["0", "50 %", "90 %", "99 %", "99.9 %"])
    axes.set_xlabel("share of requests that were answered in this time, or less")
    axes.set_ylabel("ms")
    axes.legend(fontsize=8)
    return figure


def _styles() -> Iterator[dict[str, Any]]:
    colours = (LIMIT, OURS, "#4fb286", "#123f30", OTHERS, "#a3471d", "#5b4a8a", "#33658a")
    while True:
        yield from ({"color": each} for each in colours)


def _sizes(sizes: Mapping[str, Mapping[str, Sequence[Sample]]]) -> Any:
    figure, axes = _figure()
    lines = _styles()
    names = list(next(iter(sizes.values())))
    for name in names:
        costs = [statistics.median(s.cpu_us for s in found[name]) for found in sizes.values()]
        axes.plot(range(len(sizes)), costs, "o-", label=name, **next(lines))
    axes.set_xticks(range(len(sizes)), list(sizes))
    axes.set_yscale("log")
    axes.set_ylabel("µs of CPU an event")
    axes.legend(fontsize=8)
    return figure


def _endpoints(endpoints: Mapping[str, Sequence[Sample]]) -> Any:
    figure, axes = _figure(3)
    for column, samples in enumerate(endpoints.values()):
        costs = [s.cpu_us for s in samples]
        axes.bar(column, statistics.median(costs), color=OURS, width=0.5)
        axes.plot([column, column], [min(costs), max(costs)], color="black", linewidth=1)
    axes.set_xticks(range(len(endpoints)), list(endpoints))
    axes.set_xlabel("endpoints")
    axes.set_ylabel("µs of CPU an event")
    return figure


def _memory(moments: Sequence[Any]) -> Any:
    figure, axes = _figure(3)
    seconds = [m.seconds for m in moments]
    axes.plot(seconds, [m.rss_bytes / 1024**2 for m in moments], color=OURS, label="memory")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("seconds since the load began")
    axes.set_ylabel("memory, MiB")
    right = axes.twinx()
    right.plot(seconds, [m.disk_bytes / 1024**2 for m in moments], color=OTHERS, label="disk")
    right.set_ylim(bottom=0)
    right.set_ylabel("disk, MiB")
    figure.legend(fontsize=8, loc="upper left")
    return figure
