"""All of it with one command: fasthook beside its peers and its limits, on this machine.

    make bench        python -m bench [--seconds S] [--rounds N] [--only NAME,…] [--quick]

Writes RESULTS.md and pictures/. NAME is a section or a system of `--list`; with --only they go to
.run/bench/, unless --out says where. Exit status: 0; 1 where something counted wrong or did not
start, or where a cost, memory or the start was more than it may be (ratios of pairs are only told).
A peer that is not installed is left out, and named.
"""

import argparse
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bench import pairs, pictures, report, sections
from bench.catalogue import CATALOGUE
from bench.pairs import How, Pair, Tell, WrongCount
from bench.results import Results, busy
from bench.servers import LOAD_CORE, ROOT, NotThere, program, scratch
from bench.systems import System
from bench.workload import SIZES, Work

SECTIONS = ("pairs", "latency", "sizes", *sections.ALONE)


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
        parts = [part for name in self._sections for part in self._parts(name, folder)]
        task = progress.add_task("", total=sum(part.steps for part in parts))
        for part in parts:
            progress.update(task, description=part.name)
            try:
                part.measure(lambda: progress.advance(task))
            except (WrongCount, NotThere) as error:
                self.results.wrong.append(str(error))
        self.results.took_s = time.monotonic() - began_s

    def _parts(self, name: str, folder: Path) -> Iterator[Part]:
        many = {"pairs": self._pairs, "latency": self._latency, "sizes": self._sizes}
        return many[name](folder) if name in many else self._alone(name, folder)

    def _present(self, names: Sequence[str]) -> list[System]:
        return [self.systems[name] for name in names if name in self.systems]

    def _pairs(self, folder: Path) -> Iterator[Part]:
        for pair in pairs.PAIRS:
            if {pair.ours, pair.other} <= self.systems.keys():

                def measure(tell: Tell, pair: Pair = pair) -> None:
                    how = self._how(folder, tell)
                    found = pairs.measure(pair, self.systems, how, self._is_warm)
                    self.results.pairs.append(found)

                yield Part(f"{pair.ours} / {pair.other}", 2 * self.results.rounds, measure)

    def _latency(self, folder: Path) -> Iterator[Part]:
        for system in self._present(sections.LATENCY):

            def measure(tell: Tell, system: System = system) -> None:
                found = sections.latency(system, folder, 2 * self.results.seconds)
                self.results.latency[system.name] = found
                tell()

            yield Part(f"latency of {system.name}", 1, measure)

    def _sizes(self, folder: Path) -> Iterator[Part]:
        systems = self._present(sections.SIZED)
        for work in SIZES if systems else ():

            def measure(tell: Tell, work: Work = work) -> None:
                self.results.sizes[work.name] = sections.size(
                    work, systems, self._how(folder, tell)
                )

            yield Part(work.name, self.results.rounds * len(systems), measure)

    def _alone(self, name: str, folder: Path) -> Iterator[Part]:
        section = sections.ALONE[name]
        for system in self._present([section.system]):

            def measure(tell: Tell, system: System = system) -> None:
                setattr(self.results, name, section.measure(system, self._how(folder, tell)))

            yield Part(section.says, section.steps(self.results.rounds), measure)

    def _how(self, folder: Path, tell: Tell) -> How:
        return How(folder, self.results.seconds, self.results.rounds, tell)


def bench(options: argparse.Namespace, systems: Mapping[str, System] = CATALOGUE) -> int:
    """Measure, write, and return the exit status."""
    console = Console(stderr=True)
    out = Path(options.out or (ROOT / ".run" / "bench" if options.only else ROOT / "bench"))
    out.mkdir(parents=True, exist_ok=True)
    run = Run(options, systems)
    os.sched_setaffinity(0, {LOAD_CORE})  # what starts and asks the servers is no part of them
    columns = (TextColumn("{task.description:40}"), BarColumn(), MofNCompleteColumn())
    with (
        scratch() as folder,
        Progress(*columns, TimeRemainingColumn(), console=console) as progress,
    ):
        run.measure(folder, progress)
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
    for each in run.results.missed():
        console.print(f"more than it may be: {each}", style="red")
    console.print(f"written: {out / 'RESULTS.md'}")
    return 1 if run.results.wrong or run.results.missed() else 0


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. Ends the process where it makes no sense."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m bench", description=__doc__, formatter_class=raw)
    parser.add_argument("--seconds", type=int, default=1, help="of each measurement (1)")
    parser.add_argument("--rounds", type=int, help="of each pair (7)")
    # Names may have a comma, with a space after it.
    names = re.compile(",(?! )").split
    parser.add_argument("--only", type=names, default=[], metavar="NAME,…")
    parser.add_argument(
        "--quick", action="store_true", help="2 rounds, and pairs that are not warm"
    )
    parser.add_argument("--out", metavar="FOLDER", help="for RESULTS.md and pictures/")
    parser.add_argument("--list", action="store_true", help="the sections and systems there are")
    options = parser.parse_args(arguments)
    if options.rounds is None:
        options.rounds = 2 if options.quick else 7
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
