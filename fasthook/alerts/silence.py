"""Silence: nothing comes for longer than this endpoint's own weeks have ever had it.

Time is not counted in seconds but in what was to be expected of it: an empty night at an endpoint
that sleeps at night is no time at all. If events come at random at rate r(t), the expected number
in each gap, the sum of r over it, is distributed exponentially whatever the rhythm (time
rescaling; Brown et al. 2002), so that a gap in which n were due has the probability exp(-n).
What is counted are steps with events, not events: a burst of fifty is one.

Two such clocks run. On the quick one the rate is that of the day of the week that has least at
this time of the day, for a holiday has about that. It stands still where a day of the week is
usually empty. The slow one has the rate of this hour of the week, and is believed only after
two of the busiest day and a bit: holidays at an endpoint that rests on Sundays look like the
end of the world, until they are over, and two come in a row now and then.
"""

import math
from typing import Final

from fasthook.alerts.season import Season

#: Gaps of a month that may be called silence by chance.
_FALSE_A_MONTH: Final = 0.01
_WEEKS_A_MONTH: Final = 4.35
#: The rate of a holiday, as a part of that of the quietest day of the week.
_HOLIDAY: Final = 0.5
_BUSIEST_DAYS: Final = 2.2
#: A day of the week with less than this part of the busiest one is a day of rest. Where there is
#: one, what has to be improbable is what was not due on holidays, of which so many come in a row.
_RESTS: Final = 0.25
_HOLIDAYS: Final = 2.0
#: Longer than the longest gap before, by so much.
_TIMES_RECORD: Final = 1.5
#: A gap that was told is learned, too, but only up to this many times the limit.
_LEARNED: Final = 2.0
_FADES_DAILY: Final = 0.985


class Silence:
    """The gaps of one endpoint."""

    __slots__ = (
        *("season", "quick", "slow", "quick_record", "slow_record", "quiet_s", "is_on"),
        *("_expect_s", "_quick_rate", "_slow_rate", "_quick_limit", "_slow_limit", "steps"),
        *("_is_learned", "was_on"),
    )

    def __init__(self, expect_s: float = 0.0) -> None:
        """`expect_s`: seconds within which something has to come; 0: learn it."""
        self.season = Season()  # of steps with events
        self.quick = self.slow = 0.0  # what was due since the last event
        self.quick_record = self.slow_record = 0.0  # the most of that, of the weeks before, faded
        self.quiet_s = 0.0  # watched since the last event
        self.is_on = False
        self._expect_s = expect_s
        self._quick_rate = self._slow_rate = 0.0  # a second
        self._quick_limit = self._slow_limit = math.inf
        self.steps = 0  # of this hour, with events
        self._is_learned = False
        self.was_on = False  # in this hour

    def step(self, count: int, seconds: float) -> str:
        """Take the count of a step; "started", "ended" or ""."""
        if count:
            self.steps += 1
            if self._is_learned:
                self._keep_records()
            self.quick = self.slow = self.quiet_s = 0.0
            if self.is_on:
                self.is_on = False
                return "ended"
            return ""
        self.quiet_s += seconds
        self.quick += self._quick_rate * seconds
        self.slow += self._slow_rate * seconds
        if not self.is_on and self._is_too_long():
            self.is_on = self.was_on = True
            return "started"
        return ""

    def _is_too_long(self) -> bool:
        if self._expect_s:
            return self.quiet_s >= self._expect_s
        return self.quick >= self._quick_limit or self.slow >= self._slow_limit

    def _keep_records(self) -> None:
        if self.quick > self.quick_record:
            self.quick_record = min(self.quick, self._quick_limit * _LEARNED)
        if self.slow > self.slow_record:
            self.slow_record = min(self.slow, self._slow_limit * _LEARNED)

    def end_hour(self, hour: int, watched: float) -> None:
        """Learn from an hour of the week, but not from one of a silence that was told."""
        steps, self.steps = self.steps, 0
        if watched > 0.75 and not self.was_on:
            self.season.learn(hour, steps / watched)
        self.was_on = self.is_on

    def end_day(self) -> None:
        """Let records fade."""
        self.quick_record *= _FADES_DAILY
        self.slow_record *= _FADES_DAILY

    def begin_hour(self, hour: int, *, is_learned: bool) -> None:
        """Make the rates and limits of this hour."""
        season = self.season
        week = season.week
        self._is_learned = is_learned
        self._quick_rate = season.quietest(hour) * _HOLIDAY / 3600
        self._slow_rate = season.means[hour] / 3600
        self._quick_limit = self._slow_limit = math.inf
        if not is_learned or week <= 0:
            return
        chance = max(math.log(week * _WEEKS_A_MONTH / _FALSE_A_MONTH), 3.0)
        self._quick_limit = max(chance, _TIMES_RECORD * self.quick_record)
        whole_days = _BUSIEST_DAYS * season.busiest_day
        if season.quietest_day < _RESTS * season.busiest_day:
            whole_days = max(whole_days, _HOLIDAYS * season.busiest_day + chance)
        self._slow_limit = max(chance, whole_days, _TIMES_RECORD * self.slow_record)
