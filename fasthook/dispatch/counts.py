"""What one handler's attempts came to, in plain integers: turned into metrics only when asked."""

from bisect import bisect_left
from typing import Final

BUCKETS_S: Final[tuple[float, ...]] = (
    0.001,
    0.005,
    0.01,
    0.05,
    0.1,
    0.5,
    1.0,
    5.0,
    10.0,
    30.0,
    60.0,
)
FIRST_BUCKET_S: Final = BUCKETS_S[0]


class Counts:
    """Attempts by outcome, and how long they took."""

    __slots__ = ("done", "retry", "dead", "skipped", "superseded", "_slower", "seconds")

    def __init__(self) -> None:
        self.done = 0
        self.retry = 0
        self.dead = 0
        self.superseded = 0  # events in whose place a newer one ran
        self.skipped = 0  # events that the handler does not want: no attempts
        #: By bucket, but for the first: that has what is in none of the others.
        self._slower = [0] * (len(BUCKETS_S) + 1)
        self.seconds = 0.0

    def slow(self, took_s: float) -> None:
        """Count an attempt that took longer than the first bucket holds."""
        self._slower[bisect_left(BUCKETS_S, took_s)] += 1

    def cumulative(self) -> list[tuple[str, float]]:
        """Upper bounds in seconds, and how many attempts took no longer."""
        total = self.done + self.retry + self.dead - sum(self._slower)
        buckets = []
        for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), self._slower, strict=True):
            total += count
            buckets.append((bound, float(total)))
        return buckets
