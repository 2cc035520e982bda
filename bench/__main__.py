"""All of it with one command: fasthook beside its peers and its limits, on this machine.

    make bench        python -m bench [--seconds S] [--rounds N] [--only NAME,…] [--quick]

Writes RESULTS.md and pictures/. NAME is a section (pairs, latency, sizes, endpoints, connections,
memory, start) or a system of `--list`; with --only they go to .run/bench/, unless --out says where.
Exit status: 0; 1 where something counted wrong or did not start. A peer that is not installed is
left out, and named.
"""

import argparse
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bench import pairs, pictures, report, sections
from bench.catalogue import CATALOGUE
from bench.pairs import Pair, Tell, WrongCount
from bench.results import Results, busy
from bench.servers import LOAD_CORE, ROOT, NotThere, program
from bench.systems import System
from bench.workload import SIZES, Work

SECTIONS = ("pairs", "latency", "sizes", "endpoints", "connections", "memory", "start")


class Part(NamedTuple):
    """One part of a run: `measure` is told what to call after each of its steps."""

    name: str
    steps: int
    measure: Callable[[Tell], None]


class Run:
    """One run of what was asked for."""

    def __init__(self, options: argparse.Namespace, systems: Mapping[str, System]) -> None:
        self.results = Results(options.seconds, options.rounds, busy())
        self._is_warm = not options.quick
        only = set(options.only)
        self._sections = [name for name in SECTIONS if name in only] or list(SECTIONS)
        named = only - set(SECTIONS)
        wanted = {name: each for name, each in systems.items() if not named or name in named}
        self.results.missing = {n: how for n, s in wanted.items() if (how := s.lacks())}
        self.systems = {n: s for n, s in wanted.items() if n not in self.results.missing}

    def measure(self, folder: Path, progress: Progress) -> None:
        """All sections. What counts wrong or does not start has no figure."""
        began_s = time.monotonic()
        parts = [part for name in self._sections for part in getattr(self, f"_{name}")(folder)]
        task = progress.add_task("", total=sum(part.steps for part in parts))
        for part in parts:
            progress.update(task, description=part.name)
            try:
                part.measure(lambda: progress.advance(task))
            except (WrongCount, NotThere) as error:
                self.results.wrong.append(str(error))
        self.results.took_s = time.monotonic() - began_s

    def _present(self, names: Sequence[str]) -> list[System]:
        return [self.systems[name] for name in names if name in self.systems]

    def _pairs(self, folder: Path) -> Iterator[Part]:
        seconds, rounds = self.results.seconds, self.results.rounds
        for pair in pairs.PAIRS:
            if {pair.ours, pair.other} <= self.systems.keys():

                def measure(tell: Tell, pair: Pair = pair) -> None:
                    how = (folder, seconds, rounds, tell, self._is_warm)
                    self.results.pairs.append(pairs.measure(pair, self.systems, *how))

                yield Part(f"{pair.ours} / {pair.other}", 2 * rounds, measure)

    def _latency(self, folder: Path) -> Iterator[Part]:
        for system in self._present(sections.LATENCY):

            def measure(tell: Tell, system: System = system) -> None:
                found = sections.latency(system, folder, 2 * self.results.seconds)
                self.results.latency[system.name] = found
                tell()

            yield Part(f"latency of {system.name}", 1, measure)

    def _sizes(self, folder: Path) -> Iterator[Part]:
        seconds, rounds = self.results.seconds, self.results.rounds
        systems = self._present(sections.SIZED)
        for work in SIZES if systems else ():

            def measure(tell: Tell, work: Work = work) -> None:
                found = sections.size(work, systems, folder, seconds, rounds, tell)
                self.results.sizes[work.name] = found

            yield Part(work.name, rounds * len(systems), measure)

    def _endpoints(self, folder: Path) -> Iterator[Part]:
        seconds, rounds = self.results.seconds, self.results.rounds
        for system in self._present([sections.MANY]):

            def measure(tell: Tell, system: System = system) -> None:
                found = sections.endpoints(system, folder, seconds, rounds, tell)
                self.results.endpoints = found

            yield Part("endpoints", rounds * len(sections.ENDPOINTS), measure)

    def _connections(self, folder: Path) -> Iterator[Part]:
        seconds, rounds = self.results.seconds, self.results.rounds
        for system in self._present([sections.MANY]):

            def measure(tell: Tell, system: System = system) -> None:
                found = sections.connections(system, folder, seconds, rounds, tell)
                self.results.connections = found

            yield Part("idle connections", rounds * len(sections.IDLE), measure)

    def _start(self, folder: Path) -> Iterator[Part]:
        rounds = self.results.rounds
        for system in self._present([sections.LASTING]):

            def measure(tell: Tell, system: System = system) -> None:
                for _ in range(rounds):
                    self.results.starts_s.append(sections.starting(system, folder))
                    tell()

            yield Part("start", rounds, measure)

    def _memory(self, folder: Path) -> Iterator[Part]:
        for system in self._present([sections.LASTING]):

            def measure(tell: Tell, system: System = system) -> None:
                self.results.memory = sections.memory(system, folder, 10 * self.results.seconds)
                tell()

            yield Part("memory and disk", 1, measure)


def bench(options: argparse.Namespace, systems: Mapping[str, System] = CATALOGUE) -> int:
    """Measure, write, and return the exit status."""
    console = Console(stderr=True)
    out = Path(options.out or (ROOT / ".run" / "bench" if options.only else ROOT / "bench"))
    out.mkdir(parents=True, exist_ok=True)
    run = Run(options, systems)
    os.sched_setaffinity(0, {LOAD_CORE})  # what starts and asks the servers is no part of them
    columns = (TextColumn("{task.description:40}"), BarColumn(), MofNCompleteColumn())
    # On the disk that is measured: /tmp may be memory.
    (ROOT / ".run").mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=ROOT / ".run", prefix="bench-") as name,
        Progress(*columns, TimeRemainingColumn(), console=console) as progress,
    ):
        run.measure(Path(name), progress)
    try:
        drawn = pictures.draw(run.results, out / "pictures")
    except ImportError:
        console.print("no pictures: matplotlib is not installed (make bench does so)")
        drawn = []
    (out / "RESULTS.md").write_text(report.written(run.results, drawn))
    for each in run.results.wrong:
        console.print(f"went wrong, left out: {each}", style="red")
    for each, how in run.results.missing.items():
        console.print(f"not installed, left out: {each} ({how})")
    console.print(f"written: {out / 'RESULTS.md'}")
    return 1 if run.results.wrong else 0


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. Ends the process where it makes no sense."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m bench", description=__doc__, formatter_class=raw)
    parser.add_argument("--seconds", type=int, default=1, help="of each measurement (1)")
    parser.add_argument("--rounds", type=int, help="of each pair (5)")
    # Names may have a comma, with a space after it.
    names = re.compile(",(?! )").split
    parser.add_argument("--only", type=names, default=[], metavar="NAME,…")
    parser.add_argument(
        "--quick", action="store_true", help="2 rounds, of servers that are not warm"
    )
    parser.add_argument("--out", metavar="FOLDER", help="for RESULTS.md and pictures/")
    parser.add_argument("--list", action="store_true", help="the sections and systems there are")
    options = parser.parse_args(arguments)
    if options.rounds is None:
        options.rounds = 2 if options.quick else 5
    unknown = set(options.only) - set(SECTIONS) - set(CATALOGUE)
    if unknown:
        parser.error(f"--only: no section or system {', '.join(sorted(unknown))}; see --list")
    if options.seconds < 1 or options.rounds < 1:
        parser.error("--seconds and --rounds are 1 or more")
    return options


def main() -> int:
    """The command."""
    options = parsed()
    if options.list:
        print("sections:", ", ".join(SECTIONS))
        for each in CATALOGUE.values():
            lacks = f" (not installed: {each.lacks()})" if each.lacks() else ""
            print(f"{each.name:28} {each.says}{lacks}")
        return 0
    if not program("wrk"):
        print("wrk is not installed, which makes the load: apt-get install wrk", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the servers end with this
    return bench(options)


if __name__ == "__main__":
    sys.exit(main())
