"""A detector with a life behind it: weeks pass in a fraction of a second."""

from fasthook.alerts.counts import Counts
from fasthook.alerts.detector import Alert, Detector, Settings

MONDAY = 1_767_571_200.0  # 00:00 UTC
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
WEEK = 7 * DAY
SETTINGS = Settings()


def steady(now: float) -> int:
    """Two events each minute."""
    return 2


def office(now: float) -> int:
    """One event a minute from 8 to 18 on working days."""
    return int(8 <= now % DAY / HOUR < 18 and (now - MONDAY) % WEEK < 5 * DAY)


class Life:
    """Feeds a detector minute by minute."""

    def __init__(self, rate=steady, expect_s: float = 0.0, settings: Settings = SETTINGS) -> None:
        self.detector = Detector({"e": expect_s, "idle": 0.0}, settings)
        self.now = MONDAY
        self.rate = rate
        self.step_s = settings.step_s

    def pass_by(self, seconds: float, rate=None, rejects=0, errors=(), clients=None) -> list[Alert]:
        """What began or ended in that time, in which so many were refused each minute."""
        found: list[Alert] = []
        ends = self.now + seconds
        while self.now < ends:
            self.now += self.step_s
            counts = Counts(reject_clients=dict(clients or {}))
            if count := (rate or self.rate)(self.now):
                counts.events["e"] = count
            if rejects:
                counts.rejects["e"] = rejects
            counts.errors = {("e", kind): 1 for kind in errors}
            found += self.detector.observe(counts, self.now)
        return found


def said(alerts: list[Alert]) -> list[tuple[str, str]]:
    """Kinds and states."""
    return [(alert.kind, alert.state) for alert in alerts]


def nothing(now: float) -> int:
    """Silence."""
    return 0
