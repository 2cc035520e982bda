"""What is usual at an hour of the week, learned from the weeks before."""

from array import array
from typing import Final

HOURS: Final = 168
_DAY: Final = 24
#: The mean of so many weeks, and from then on each week counts for one of so many.
_WEEKS: Final = 4


def hour_of_week(now_s: float) -> int:
    """0: Monday, 00:00 to 01:00 UTC. `now_s`: wall clock."""
    return (int(now_s // 3600) + 72) % HOURS  # the epoch was a Thursday


class Season:
    """A mean count for each hour of the week."""

    __slots__ = ("means", "weeks")

    def __init__(self, means: bytes = b"", weeks: bytes = b"") -> None:
        """`means`, `weeks`: of a saved one. Raises `ValueError` where they are none."""
        self.means = array("f", means or bytes(4 * HOURS))
        #: How many weeks each mean is of, up to `_WEEKS`.
        self.weeks = bytearray(weeks or bytes(HOURS))
        is_sound = len(self.means) == len(self.weeks) == HOURS and max(self.weeks) <= _WEEKS
        if not is_sound or not all(0 <= mean < 1e12 for mean in self.means):
            raise ValueError("not the means of a week")

    def learn(self, hour: int, count: float) -> None:
        """`count`: what came in this hour of this week."""
        weeks = self.weeks[hour] = min(self.weeks[hour] + 1, _WEEKS)
        self.means[hour] += (count - self.means[hour]) / weeks

    def highest_near(self, hour: int) -> float:
        """What is usual in this hour or in the one before or after it, whichever is more.

        Rhythms are shifted a bit, by daylight saving time for one. Where that hour was never seen:
        the mean of all that were. One event more for what few weeks can't show.
        """
        near = [each % HOURS for each in (hour - 1, hour, hour + 1) if self.weeks[each % HOURS]]
        if near:
            return max(self.means[each] for each in near) + 1 / self.weeks[near[0]]
        seen = sum(1 for weeks in self.weeks if weeks)
        return sum(self.means) / seen + 1 if seen else 0.0

    def quietest(self, hour: int) -> float:
        """What is usual at this time of day on the day of the week that has least then.

        A holiday has about that.
        """
        means = self.means
        days = range(hour % _DAY, HOURS, _DAY)
        return min((means[h - 1] + means[h] + means[(h + 1) % HOURS]) / 3 for h in days)

    @property
    def week(self) -> float:
        """What is usual in a week."""
        return sum(self.means)

    @property
    def busiest_day(self) -> float:
        """What is usual on the day of the week that has most."""
        return max(self._days())

    @property
    def quietest_day(self) -> float:
        """What is usual on the day of the week that has least."""
        return min(self._days())

    def _days(self) -> list[float]:
        return [sum(self.means[first : first + _DAY]) for first in range(0, HOURS, _DAY)]
