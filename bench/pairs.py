"""Two systems in turn, A B A B: rates, CPU and latency of each round, and the ratio of the two.

Machines are noisy, and neighbours in time have the same noise: the ratio of a round says more than
the rates. What a server counted has to be what the load saw, or there is no figure: `WrongCount`.
"""

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from bench.servers import CONNECTIONS, Load, load
from bench.systems import Counts, Server, System, running
from bench.workload import FORGE_EVERY, PUSH, Work, path_of, write_script

#: On their way when the load ends: of 64 requests that follow on each other, hardly more than one.
MAX_FORGED_UNANSWERED = 3
#: Of fewer answers hardly one would be to a forged request: they are asked for longer.
FEW = FORGE_EVERY + 2 * CONNECTIONS
LONG_S = 9
#: For what runs beside the answers: the index, and answers that nobody waits for any more.
SETTLE_S = 0.3
HANDLED_S = 60
LATE_S = 10
#: How often in a row a measurement is made again in which something was shed.
MAX_AGAIN = 2


#: Called after each measurement.
Tell = Callable[[], None]


class How(NamedTuple):
    """How it is measured: where, how long each time, how often, and who is told of it."""

    folder: Path
    seconds: float
    rounds: int
    tell: Tell


class WrongCount(Exception):
    """What server and load counted disagrees, or a forged request was not refused."""


class Shed(WrongCount):
    """Something was shed, and nothing else was wrong: a machine may have hung for a moment."""


class Pair(NamedTuple):
    """`ours` is to reach `target` times the rate of `other`, or 0: it is only to be known."""

    ours: str
    other: str
    target: float = 0.0


class Sample(NamedTuple):
    """One measurement. `rate`: events a second; `cpu_us`: of the whole server, an event.

    `again`: how often it was made again before, since something was shed.
    """

    rate: float
    cpu_us: float
    latency_us: dict[str, int]
    events: int
    again: int = 0


class Measured(NamedTuple):
    """All rounds of a pair."""

    pair: Pair
    ours: list[Sample]
    other: list[Sample]

    @property
    def ratios(self) -> list[float]:
        """Of the rates, round by round."""
        return [a.rate / b.rate for a, b in zip(self.ours, self.other, strict=True)]

    @property
    def is_met(self) -> bool:
        """Whether the median reaches what it is to reach."""
        return statistics.median(self.ratios) >= self.pair.target


PAIRS = (
    Pair("fasthook none", "prototype", 0.7),
    Pair("fasthook none", "FastAPI", 4),
    Pair("fasthook none", "uvicorn ASGI", 1.5),
    Pair("fasthook none, log", "fasthook none", 0.85),
    Pair("fasthook none, all log", "fasthook none"),
    Pair("fasthook none, journald", "fasthook none"),
    Pair("fasthook none, all journald", "fasthook none"),
    Pair("fasthook os", "fasthook none"),
    Pair("fasthook hold", "prototype + journal", 0.8),
    Pair("fasthook hold", "fasthook none", 0.5),
    Pair("fasthook hold", "uvicorn ASGI", 0.9),
    Pair("fasthook hold", "FastAPI", 2.5),
    Pair("fasthook hold", "FastAPI + SQLite", 10),
    Pair("fasthook hold", "FastAPI + Redis always", 5),
    Pair("fasthook hold", "FastAPI + Redis everysec"),
    Pair("fasthook fsync", "FastAPI", 1.5),
    Pair("fasthook fsync, log", "fasthook fsync"),
    Pair("fasthook fsync, all log", "fasthook fsync"),
    Pair("fasthook fsync, journald", "fasthook fsync"),
    Pair("fasthook fsync, all journald", "fasthook fsync"),
    Pair("TLS: fasthook none", "TLS: prototype", 0.85),
    Pair("TLS: fasthook hold", "TLS: prototype + journal", 0.85),
    Pair("fasthook none", "Granian ASGI"),
    Pair("fasthook none", "Robyn"),
    Pair("fasthook none", "Flask"),
    Pair("fasthook none", "adnanh/webhook"),
    Pair("prototype", "fixed answer"),
    Pair("prototype", "nginx, 202"),
)


class Bench(NamedTuple):
    """One running system, and how it is loaded. `asking_s`: CPU for telling its counts once."""

    system: System
    server: Server
    work: Work
    script: Path
    asking_s: float = 0.0

    def sample(self, seconds: float) -> Sample:
        """Load it for so long, or longer if it is slow; again, if something was shed.

        Raises `WrongCount`: at once, or `Shed` when that was so each time.
        """
        for again in range(MAX_AGAIN):
            with contextlib.suppress(Shed):
                return self.once(seconds)._replace(again=again)
        return self.once(seconds)._replace(again=MAX_AGAIN)

    def once(self, seconds: float) -> Sample:
        """The same, but `Shed` is raised at once."""
        if self.work.provider == "stripe":  # signed for each anew: these ids are used up
            write_script(self.script, self.work, seconds)
        before, cpu_s = self.server.counts(), self.server.cpu_s()
        began_s = time.monotonic()
        url = self.server.url + (path_of(self.work, 0) if self.server.url[4] == "s" else "")
        result = load(url, self.script, seconds)
        if result.answered < FEW and seconds < LONG_S:
            self._settled()
            return self.once(3 * seconds)
        took_s = result.us / 1e6
        if self.system.handles:
            overhead_s = time.monotonic() - began_s - took_s
            cpu_s += self.asking_s * self._wait_until_handled(before, result)
            took_s = max(took_s, time.monotonic() - began_s - overhead_s)
        time.sleep(SETTLE_S)
        used_s = self.server.cpu_s() - cpu_s
        after = self._settled()
        check(self.system, before, after, result)
        events = result.accepted if self.system.verifies else result.answered
        all_events = after.accepted - before.accepted + after.refused - before.refused
        return Sample(events / took_s, used_s / all_events * 1e6, result.latency_us, events)

    def _settled(self) -> Counts:
        """Its counts, once they change no more: what it still has of the load is done."""
        ends = time.monotonic() + LATE_S
        counts, same = self.server.counts(), 0
        while same < 3 and time.monotonic() < ends:
            time.sleep(0.1)
            before, counts = counts, self.server.counts()
            is_late = bool({counts.stored, counts.handled} - {None, counts.accepted})
            same = same + 1 if counts == before and not is_late else 0
        return counts

    def _wait_until_handled(self, before: Counts, result: Load) -> int:
        """How often it was asked."""
        ends = time.monotonic() + HANDLED_S
        asked = 1
        assert before.handled is not None
        while (self.server.counts().handled or 0) - before.handled < result.accepted:
            if time.monotonic() > ends:
                break  # the check will say so
            time.sleep(0.02)
            asked += 1
        return asked


def check(system: System, before: Counts, after: Counts, result: Load) -> None:
    """Raise `WrongCount` unless server and load agree; `Shed` if they do, and something was shed.

    What was on its way when a load ended, one request a connection, only the server has seen: this
    load, or the one before, of which a slow server may have had some left.
    """
    accepted = after.accepted - before.accepted
    refused = after.refused - before.refused
    shed = after.shed - before.shed
    claims: dict[str, bool] = {
        f"{result.failed} requests failed": result.failed == 0,
        f"{after.failed - before.failed} had other answers": after.failed == before.failed,
        f"{after.dropped - before.dropped} lines were dropped": after.dropped == before.dropped,
        f"server accepted {accepted}, load had {result.accepted}": (
            0 <= accepted - result.accepted <= 2 * CONNECTIONS
        ),
        f"server refused {refused + shed}, load had {result.refused}": (
            0 <= refused + shed - result.refused <= 2 * CONNECTIONS
        ),
    }
    if system.verifies:
        # The load can't tell what was shed from what was refused; and forged ones were shed, too.
        seen = refused if shed else result.refused
        claims[f"{result.forged} were forged, {seen} refused"] = (
            seen + shed > 0 and 0 <= result.forged - seen <= MAX_FORGED_UNANSWERED + shed
        )
    for name in ("stored", "handled"):  # since the start: some may have been late before
        count = getattr(after, name)
        if count is not None:
            claims[f"{after.accepted} accepted, {count} {name}"] = count == after.accepted
    wrong = [claim for claim, is_right in claims.items() if not is_right]
    if wrong:
        raise WrongCount(f"{system.name}: {'; '.join(wrong)}")
    if shed:
        raise Shed(f"{system.name}: {shed} were shed")


@contextlib.contextmanager
def ready(
    system: System,
    folder: Path,
    work: Work = PUSH,
    *,
    is_warm: bool = True,
    connections: int = 1000,
) -> Iterator[Bench]:
    """The system, started and, unless that takes too long, warm."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        script = Path(name) / "work.lua"
        size = write_script(script, work)
        with running(system, folder, work, size, connections) as server:
            bench = Bench(system, server, work, script)
            if is_warm:
                bench.sample(1)
            yield bench._replace(asking_s=_asking_s(server))


def _asking_s(server: Server) -> float:
    times = 5
    before_s = server.cpu_s()
    for _ in range(times):
        server.counts()
    return (server.cpu_s() - before_s) / times


def measure(pair: Pair, systems: Mapping[str, System], how: How, is_warm: bool = True) -> Measured:
    """A B A B. Raises `WrongCount`."""
    benches = {
        name: ready(systems[name], how.folder, is_warm=is_warm) for name in (pair.ours, pair.other)
    }
    return Measured(pair, *in_turn(benches, how).values())


def in_turn(
    benches: Mapping[str, contextlib.AbstractContextManager[Bench]], how: How
) -> dict[str, list[Sample]]:
    """All of them run, and are loaded one after the other, round by round. Raises `WrongCount`."""
    found: dict[str, list[Sample]] = {name: [] for name in benches}
    with contextlib.ExitStack() as stack:
        entered = {name: stack.enter_context(bench) for name, bench in benches.items()}
        for _ in range(how.rounds):
            for name, bench in entered.items():
                found[name].append(bench.sample(how.seconds))
                how.tell()
    return found
