"""False alarms and delays of the alerts, on simulated endpoints: months pass in seconds.

    python -m bench.alerts [--months N] [--endpoints N]

Each endpoint has a kind, random seeds of its own, and is fed to the detector minute by minute, as
the service does it. The first 14 days are for learning; what is told after them, where nothing is
wrong, is a false alarm. Then the same endpoint stops, or sends (or is sent to) far more, at several
moments of the week, and what is measured is how long that takes to be told.
"""

import argparse
import copy
import math
import random
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor

from fasthook.alerts.counts import Counts
from fasthook.alerts.detector import Alert, Detector, Settings

MINUTE, HOUR, DAY = 60, 3600, 86400
WEEK = 7 * DAY
START = 1_767_571_200  # a Monday, 00:00 UTC
LEARNING_DAYS = 14
MONTH_DAYS = 30.4

Shape = Callable[[float], float]  # wall clock → part of the mean rate


def flat(now: float) -> float:
    """Machines: at all hours."""
    return 1.0


def diurnal(now: float) -> float:
    """People all over a continent: nights at a tenth, weekends at a half."""
    hour = now % DAY / HOUR
    by_day = 0.1 + 0.9 * max(0.0, math.sin(math.pi * (hour - 5) / 18)) if 5 <= hour < 23 else 0.1
    return 1.9 * by_day * (0.5 if _weekday(now) >= 5 else 1.0)


def office(now: float) -> float:
    """An office: 8 to 18 on working days, nothing else."""
    hour = now % DAY / HOUR
    return 24 / 10 * 7 / 5 if 8 <= hour < 18 and _weekday(now) < 5 else 0.0


def _weekday(now: float) -> int:
    return int((now - START) // DAY) % 7


class Kind:
    """How an endpoint of one kind gets its events."""

    def __init__(
        self,
        name: str,
        per_day: float,
        shape: Shape,
        *,
        weekly_growth: float = 1.0,
        bursts_a_week: float = 0.0,
        holidays: bool = True,
        rejects_a_day: float = 2.0,
    ) -> None:
        self.name, self.per_day, self.shape = name, per_day, shape
        self.weekly_growth, self.bursts_a_week = weekly_growth, bursts_a_week
        self.holidays, self.rejects_a_day = holidays, rejects_a_day


KINDS = (
    Kind("100,000 a day, day and night", 100_000, diurnal),
    Kind("10,000 a day, machines", 10_000, flat, holidays=False),
    Kind("1,000 a day, day and night", 1_000, diurnal),
    Kind("1,000 a day, office hours", 1_000, office),
    Kind("100 a day, day and night", 100, diurnal),
    Kind("100 a day, office hours", 100, office),
    Kind("20 a day, day and night", 20, diurnal),
    Kind("3 a day, machines", 3, flat, holidays=False),
    Kind("3 a day, office hours", 3, office),
    Kind("200 a day, with deploys", 200, diurnal, bursts_a_week=5),
    Kind("growth of 5 % a week", 1_000, diurnal, weekly_growth=1.05),
    Kind("decline of 5 % a week", 1_000, diurnal, weekly_growth=0.95),
    Kind("scanned: 2,000 refusals a day", 1_000, diurnal, rejects_a_day=2_000),
)


def poisson(rng: random.Random, mean: float) -> int:
    """A Poisson count."""
    if mean > 30:
        return max(0, round(rng.gauss(mean, math.sqrt(mean))))
    limit, count, product = math.exp(-mean), 0, rng.random()
    while product > limit:
        count, product = count + 1, product * rng.random()
    return count


class Sender:
    """One endpoint's life, minute by minute."""

    def __init__(self, kind: Kind, seed: int) -> None:
        self.kind = kind
        self.rng = random.Random(seed)
        self.burst_until = 0.0
        self.burst_rate = 0.0
        self.holidays: set[int] = set()
        if kind.holidays:  # eight a year on working days, and a pair in each half of it
            days = [day for day in range(366) if day % 7 < 5]
            self.holidays = set(self.rng.sample(days, 8))
            for half in (0, 1):
                first = half * 182 + 7 * self.rng.randrange(25)
                self.holidays |= {first + 3, first + 4}  # Thursday and Friday
        self.quietness = {day: self.rng.uniform(0.5, 1.0) for day in sorted(self.holidays)}
        self.day_factor = 1.0
        self.hour_rate = 0.0

    def _rate(self, now: float) -> float:
        """Events a minute, at the beginning of an hour."""
        kind, day = self.kind, int((now - START) // DAY)
        if now % DAY < HOUR:
            self.day_factor = self.rng.lognormvariate(0, 0.15)
        rate = kind.per_day / 1440 * kind.shape(now) * self.day_factor
        if day % 366 in self.holidays:  # like a Sunday, or less
            sunday = now - day % 7 * DAY + 6 * DAY
            rate = kind.per_day / 1440 * kind.shape(sunday) * self.quietness[day % 366]
        return rate * float(kind.weekly_growth ** ((now - START) / WEEK))

    def minute(self, now: float) -> int:
        """How many events come in it."""
        if now % HOUR == 0:
            self.hour_rate = self._rate(now)
            chance = self.kind.bursts_a_week / 168 * self.kind.shape(now)
            if self.rng.random() < chance:  # twenty minutes of a deploy
                self.burst_until = now + 20 * MINUTE
                self.burst_rate = self.rng.lognormvariate(math.log(3), 0.5)
        rate = self.hour_rate + (self.burst_rate if now < self.burst_until else 0.0)
        if rate == 0.0:
            return 0
        if rate < 0.05:  # one look at the dice for most minutes
            draw = self.rng.random()
            return 0 if draw > rate else 1
        return poisson(self.rng, rate)

    def rejects(self) -> int:
        """How many requests are refused in it."""
        mean = self.kind.rejects_a_day / 1440
        return int(self.rng.random() < mean) if mean < 0.05 else poisson(self.rng, mean)


def run(
    kind: Kind, seed: int, days: float
) -> Iterator[tuple[float, list[Alert], Sender, Detector]]:
    """Feed a detector with one endpoint."""
    sender = Sender(kind, seed)
    detector = Detector({"e": 0.0}, Settings())
    now = float(START)
    while now < START + days * DAY:
        counts = Counts()
        if count := sender.minute(now):
            counts.events["e"] = count
        if count := sender.rejects():
            counts.rejects["e"] = count
        yield now, detector.observe(counts, now), sender, detector
        now += MINUTE


#: What happens, at which moments of the third month's first week (day, hour).
MOMENTS = ((1, 10.5), (2, 15.25), (3, 3.0), (5, 12.0), (6, 20.0))


def delay_of(detector: Detector, sender: Sender, now: float, event: str, seed: int) -> float | None:
    """Minutes until it is told; None: not within two weeks."""
    detector, sender = copy.deepcopy(detector), copy.deepcopy(sender)
    sender.rng = random.Random(seed)
    kind = {"stop": "silence", "ten times": "volume", "forged": "rejects"}[event]
    if any(alert.kind == kind for alert in detector.present.values()):
        return None
    began = now
    while now < began + 14 * DAY:
        now += MINUTE
        count, refused = sender.minute(now), sender.rejects()
        if event == "stop":
            count = 0
        elif event == "ten times":
            count = sum(sender.minute(now + 0.5) for _ in range(9)) + count
        else:
            refused += 100
        found = detector.observe(Counts(events={"e": count}, rejects={"e": refused}), now)
        if any(alert.kind == kind and not alert.until for alert in found):
            return (now - began) / MINUTE
    return None


def measure(job: tuple[Kind, int, float]) -> tuple[dict[str, int], dict[str, list[float | None]]]:
    """False alarms by kind, and delays by what happened, of one endpoint."""
    kind, seed, months = job
    false: dict[str, int] = {}
    delays: dict[str, list[float | None]] = {"stop": [], "ten times": [], "forged": []}
    base = START + 8 * WEEK
    moments = {base + day * DAY + int(hour * HOUR) for day, hour in MOMENTS}
    for now, found, sender, detector in run(kind, seed, LEARNING_DAYS + months * MONTH_DAYS):
        for alert in found:
            if not alert.until:
                false[alert.kind] = false.get(alert.kind, 0) + 1
        if now in moments:
            for event, known in delays.items():
                is_seen = event != "ten times" or sender.hour_rate > 0
                if is_seen:
                    known.append(delay_of(detector, sender, now, event, seed))
    return false, delays


def shown(minutes: list[float | None]) -> str:
    """Median and longest, in words."""
    known = [math.inf if m is None else m for m in minutes]
    if not known:
        return "-"
    return f"{_words(statistics.median(known))} / {_words(max(known))}"


def _words(minutes: float) -> str:
    if minutes == math.inf:
        return "never"
    if minutes < 120:
        return f"{minutes:.0f} min"
    return f"{minutes / 60:.0f} h" if minutes < 2880 else f"{minutes / 1440:.1f} d"


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(prog="bench.alerts", description=__doc__)
    parser.add_argument("--months", type=float, default=6, help="after the learning (6)")
    parser.add_argument("--endpoints", type=int, default=4, help="of each kind (4)")
    arguments = parser.parse_args()
    began = time.monotonic()
    jobs = [
        (kind, 1000 * n + seed, arguments.months)
        for n, kind in enumerate(KINDS)
        for seed in range(arguments.endpoints)
    ]
    with ProcessPoolExecutor(2) as pool:
        results = list(pool.map(measure, jobs))
    heads = ("false alarms a month", "stop", "10 x", "100 forged a minute")
    print(f"{'endpoint':32}{heads[0]:>22}{heads[1]:>20}{heads[2]:>20}{heads[3]:>22}")
    total = 0
    months = arguments.months * arguments.endpoints
    for kind in KINDS:
        mine = [r for job, r in zip(jobs, results, strict=True) if job[0].name == kind.name]
        false: dict[str, int] = {}
        for each, _ in mine:
            for name, count in each.items():
                false[name] = false.get(name, 0) + count
        total += sum(false.values())
        said = ", ".join(f"{n} {name}" for name, n in sorted(false.items()))
        rate = f"{sum(false.values()) / months:.2f}" + (f" ({said})" if said else "")
        ways = [
            shown([d for _, delays in mine for d in delays[event]])
            for event in ("stop", "ten times", "forged")
        ]
        print(f"{kind.name:32}{rate:>22}{ways[0]:>20}{ways[1]:>20}{ways[2]:>22}")
    all_months = months * len(KINDS)
    print(f"in all: {total} false alarms in {all_months:g} endpoint-months", end="")
    print(f" = {total / all_months:.3f} a month; {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
