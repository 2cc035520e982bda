"""Spikes: far more of something than is usual at this hour of the week, and than ever before.

A spike begins when the count of the last 5 or of the last 60 steps (a step is a look, a minute)
  - is three times what is usual at this hour of the week, or in the hour before or after it,
  - is more than chance makes of that: Poisson's tail is below 1 / 2,000,000,
  - is twice the highest count of the weeks before: who sends in bursts is known,
  - and reaches a floor, below which nobody cares.
It ends when the last 5 steps have less than half of that.
"""

import math
from typing import Annotated, Final

import msgspec

from fasthook.alerts.season import Season

SHORT: Final = 5
LONG: Final = 60
_TIMES_USUAL: Final = 3.0
_TIMES_RECORD: Final = 2.0
#: -ln of 1 / 2,000,000: one false alarm in four years, at 43,200 looks a month.
_IMPROBABLE: Final = 14.5
#: A spike that lasts for longer is learned like the rest.
_SPIKE_HOURS: Final = 24
#: What a record is worth a day later: a half after five weeks.
_FADES_DAILY: Final = 0.98


class Limits(msgspec.Struct, frozen=True):
    """From which counts on it is a spike."""

    short: float
    long: float
    usual_short: float  # what is usual in 5 steps


Count = Annotated[int, msgspec.Meta(ge=0, le=10**9)]


class Going(msgspec.Struct, array_like=True):
    """What is known of the present hour and day: so that another worker can go on."""

    window: Annotated[list[Count], msgspec.Meta(max_length=LONG)]  # of steps, the oldest first
    hour: Count
    hour_peak: tuple[Count, Count]
    peak: tuple[Count, Count]
    on_hours: Count


class Spikes:
    """One count of one endpoint."""

    __slots__ = (
        *("season", "record", "limits", "is_on"),
        *("_floors", "_learns_bursts", "_hours", "_ring", "_at", "short", "_long"),
        *("_hour", "_hour_peak", "_peak", "_on_hours"),
    )

    def __init__(self, floors: tuple[int, int], step_s: float, *, learns_bursts: bool) -> None:
        """`floors`: counts of 5 and of 60 steps below which nobody cares. `learns_bursts`: a spike
        that was told is known from then on, and not told again.
        """
        self.season = Season()
        #: The highest counts of 5 and of 60 steps in one of the days before, faded.
        self.record = [0.0, 0.0]
        self.is_on = False
        self.limits = Limits(math.inf, math.inf, 0.0)
        self._floors = floors
        self._learns_bursts = learns_bursts
        self._hours = step_s / 3600  # in a step
        self._ring = [0] * LONG
        self._at = 0
        self.short = 0  # what the last 5 steps had
        self._long = 0
        self._hour = 0
        self._hour_peak = [0, 0]  # the highest counts of 5 and of 60 steps
        self._peak = [0, 0]  # of this day
        self._on_hours = 0

    def step(self, count: int) -> str:
        """Take the count of a step; "started", "ended" or ""."""
        ring, at = self._ring, self._at
        if count or self._long:
            self.short += count - ring[at - SHORT]
            self._long += count - ring[at]
            self._hour += count
        ring[at] = count
        self._at = at + 1 if at + 1 < LONG else 0
        if not self.short and not self.is_on:
            return ""
        limits = self.limits
        if not self.is_on and (self.short >= limits.short or self._long >= limits.long):
            self.is_on = True
            self._on_hours = max(self._on_hours, 1)
            return "started"
        peak = self._hour_peak
        if self.short > peak[0]:
            peak[0] = self.short
        if self._long > peak[1]:
            peak[1] = self._long
        if self.is_on and self.short < min(limits.short, limits.long * SHORT / LONG) / 2:
            self.is_on = False
            self._ring = [0] * LONG
            self.short = self._long = 0
            return "ended"
        return ""

    @property
    def going(self) -> Going:
        """For another one to go on from; see `go_on`."""
        window = self._ring[self._at :] + self._ring[: self._at]
        used = next((at for at, count in enumerate(window) if count), LONG)
        hour_peak, peak = self._hour_peak, self._peak
        return Going(
            window[used:],
            self._hour,
            (hour_peak[0], hour_peak[1]),
            (peak[0], peak[1]),
            self._on_hours,
        )

    def go_on(self, going: Going) -> None:
        """Go on in the middle of an hour."""
        self._ring = [0] * (LONG - len(going.window)) + going.window
        self._at = 0
        self.short, self._long = sum(self._ring[-SHORT:]), sum(self._ring)
        self._hour, self._on_hours = going.hour, going.on_hours
        self._hour_peak, self._peak = list(going.hour_peak), list(going.peak)

    @property
    def found(self) -> tuple[int, int, float, float]:
        """What makes it a spike: in so many steps what came, what is usual, and the limit."""
        limits = self.limits
        if self.short >= limits.short:
            return SHORT, self.short, limits.usual_short, limits.short
        return LONG, self._long, limits.usual_short * LONG / SHORT, limits.long

    def end_hour(self, hour: int, watched: float) -> None:
        """Learn from an hour of the week. `watched`: which part of it was seen."""
        count, self._hour = self._hour / watched if watched else 0.0, 0
        if watched > 0.75:
            # One spike must not become what is usual; what goes on for a day is.
            is_spike = self._on_hours <= _SPIKE_HOURS
            most = self.limits.long / (LONG * self._hours) if is_spike else math.inf
            self.season.learn(hour, min(count, most))
        if self._learns_bursts or not self._on_hours:
            for each in (0, 1):
                self._peak[each] = max(self._peak[each], self._hour_peak[each])
        self._hour_peak = [0, 0]
        self._on_hours = self._on_hours + 1 if self.is_on else 0

    def end_day(self) -> None:
        """Keep what was highest in it."""
        for each in (0, 1):
            self.record[each] = max(self.record[each] * _FADES_DAILY, self._peak[each])
        self._peak = [0, 0]

    def begin_hour(self, hour: int, *, is_learned: bool) -> None:
        """Make the limits of this hour. `is_learned`: else the floor and what is known so far."""
        usual = self.season.highest_near(hour) * self._hours
        if not is_learned and self._learns_bursts:
            self.limits = Limits(math.inf, math.inf, usual * SHORT)
            return
        short, long = (
            spike_limit(usual * steps, floor, record)
            for steps, floor, record in zip((SHORT, LONG), self._floors, self.record, strict=True)
        )
        self.limits = Limits(short, long, usual * SHORT)


def spike_limit(usual: float, floor: float, record: float) -> float:
    """The lowest count that is a spike where `usual` is expected, and `record` was the highest."""
    count = max(floor, math.ceil(_TIMES_USUAL * usual), math.ceil(_TIMES_RECORD * record) + 1, 1)
    while improbability(count, usual) < _IMPROBABLE:
        count += max(1, count // 20)
    return float(count)


def improbability(count: float, usual: float) -> float:
    """At least -ln P(X ≥ count) of a Poisson count with mean `usual`; 0 up to the mean.

    Chernoff's bound: P(X ≥ k) ≤ exp(k - m - k ln(k / m)).
    """
    if count <= usual:
        return 0.0
    if usual <= 0:
        return math.inf
    return count * math.log(count / usual) - count + usual
