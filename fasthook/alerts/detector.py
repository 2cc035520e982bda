"""The detector: counts of one step in, alerts that began or ended out.

It is fed once a step (a minute), with what was counted since the last time, by one worker or by all
of them; in one place, whatever the number of workers.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final, Literal

import msgspec

from fasthook.alerts.clients import TopClients
from fasthook.alerts.counts import Counts
from fasthook.alerts.kinds import Kinds
from fasthook.alerts.season import hour_of_week
from fasthook.alerts.silence import Silence
from fasthook.alerts.spikes import SHORT, Spikes

#: "rejects", "volume": far more than usual. "error": of a kind never seen here. "silence": nothing.
AlertKind = Literal["rejects", "volume", "error", "silence"]

#: Below this, in 5 steps or in 60, more events than usual are no spike.
_VOLUME_FLOOR: Final = 30
#: What refusals in 60 steps are below which nobody cares, of those in 5.
_LONG_REJECTS: Final = 4
#: The same of one client, and how much more than any client before it has to send.
_CLIENT_FLOOR: Final = 100
_CLIENT_TIMES: Final = 3.0
_REJECTS_TIMES: Final = 1.5
#: A pause between two steps that is longer than so many is no time in which something was due.
_MAX_STEPS: Final = 3
#: The client of whom a spike is said to come has at least this part of it.
_MOST: Final = 0.5


_NO_NAME: Final = re.compile(r"[^\w.:-]+", re.ASCII)


class Settings(msgspec.Struct, frozen=True):
    """How the detector looks."""

    step_s: float = 60.0  # between two looks
    learning_s: float = 14 * 86400.0  # watched before anything but refusals is unusual
    #: Refused in 5 steps, or four times as many in 60: what is below is never told.
    rejects: int = 100


class Alert(msgspec.Struct, kw_only=True):
    """Something unusual, from its begin to its end."""

    kind: AlertKind
    endpoint: str  # empty: requests for which there is none
    since: float  # wall clock, seconds
    client: str = ""  # whose, where it is mostly one
    error: str = ""  # the new kind
    over_s: float = 0.0  # the time that is looked at, when it began
    seen: float = 0.0  # counted in that time
    usual: float = 0.0  # to be expected in it
    #: From which count on it is unusual; of a silence, the seconds within which one is expected.
    limit: float = 0.0
    until: float = 0.0  # 0: it goes on

    @property
    def id(self) -> str:
        """The same for its begin and its end, and for no other."""
        subject = _NO_NAME.sub("_", self.subject)
        return f"{self.kind}-{self.endpoint or 'none'}-{self.since * 1000:.0f}-{subject}"

    @property
    def subject(self) -> str:
        """What it is about, beside kind and endpoint."""
        return self.error or self.client or "all"

    @property
    def state(self) -> Literal["started", "ended"]:
        """Whether it goes on."""
        return "ended" if self.until else "started"


def _rejects_of(settings: Settings) -> Spikes:
    floors = (settings.rejects, settings.rejects * _LONG_REJECTS)
    return Spikes(floors, settings.step_s, learns_bursts=False)


class Watched:
    """One endpoint."""

    def __init__(self, settings: Settings, expect_s: float = 0.0) -> None:
        self.watched_s = 0.0
        self.events = Spikes((_VOLUME_FLOOR, _VOLUME_FLOOR), settings.step_s, learns_bursts=True)
        self.rejects = _rejects_of(settings)
        self.silence = Silence(expect_s)
        self.kinds = Kinds()
        self.expect_s = expect_s
        self.learning_s = settings.learning_s

    @property
    def is_learned(self) -> bool:
        """Whether enough was seen to know what is usual."""
        return self.watched_s >= self.learning_s

    def end_hour(self, hour: int, watched: float) -> None:
        """See `Spikes.end_hour`."""
        self.events.end_hour(hour, watched)
        self.rejects.end_hour(hour, watched)
        self.silence.end_hour(hour, watched)

    def end_day(self) -> None:
        """See `Spikes.end_day`."""
        self.events.end_day()
        self.rejects.end_day()
        self.silence.end_day()

    def begin_hour(self, hour: int) -> None:
        """See `Spikes.begin_hour`."""
        self.events.begin_hour(hour, is_learned=self.is_learned)
        self.rejects.begin_hour(hour, is_learned=self.is_learned)
        self.silence.begin_hour(hour, is_learned=self.is_learned)


class Detector:
    """All endpoints. Plain values alone: no I/O, and the clock is an argument."""

    def __init__(self, endpoints: Mapping[str, float], settings: Settings) -> None:
        """`endpoints`: those to be watched, and within how many seconds each has to get something
        (0: that is learned). Counts of others are left alone, but for "".
        """
        self.settings = settings
        self.watched = {name: Watched(settings, expect_s) for name, expect_s in endpoints.items()}
        #: Requests for which there is no endpoint: only refusals.
        self.nowhere = _rejects_of(settings)
        self.event_clients = TopClients(_CLIENT_FLOOR, _CLIENT_TIMES)
        self.reject_clients = TopClients(settings.rejects, _REJECTS_TIMES)
        #: Those that go on, by what they are about.
        self.present: dict[tuple[str, str, str], Alert] = {}
        self.last_s = 0.0  # wall clock, of the last look
        self.hour = -1  # of the epoch
        self.hour_watched_s = 0.0

    def begin(self, now_s: float) -> None:
        """Look from now on; where another one looked within a step, from then on."""
        if not 0.0 <= now_s - self.last_s <= self.settings.step_s:
            self.last_s = now_s
        hour = int(now_s // 3600)
        if hour != self.hour:
            self._turn(hour)

    def observe(self, counts: Counts, now_s: float) -> list[Alert]:
        """Take the counts of a step: the alerts that it begins or ends.

        `now_s`: wall clock. Where it jumps, or nobody looked for a while, nothing is concluded of
        the time between.
        """
        hour = int(now_s // 3600)
        if hour != self.hour:
            self._turn(hour)
        seconds = min(max(0.0, now_s - self.last_s), _MAX_STEPS * self.settings.step_s)
        if not self.last_s:
            seconds = 0.0
        self.last_s = now_s
        self.hour_watched_s += seconds
        changed: list[Alert] = []
        top_events = self.event_clients.step(counts.event_clients)
        top_rejects = self.reject_clients.step(counts.reject_clients)
        errors: dict[str, dict[str, int]] = {}
        for (name, kind), count in counts.errors.items():
            errors.setdefault(name, {})[kind] = count
        events, rejects = counts.events, counts.rejects
        for name, watched in self.watched.items():
            watched.watched_s += seconds
            count = events.get(name, 0)
            if change := watched.events.step(count):
                self._spike(changed, change, "volume", name, watched.events, top_events)
            if change := watched.silence.step(count, seconds):
                self._silence(changed, change, name, watched.silence)
            if change := watched.rejects.step(rejects.get(name, 0)):
                self._spike(changed, change, "rejects", name, watched.rejects, top_rejects)
            if name in errors or watched.kinds.on:
                self._errors(changed, name, watched, errors.get(name, {}))
        if change := self.nowhere.step(rejects.get("", 0)):
            self._spike(changed, change, "rejects", "", self.nowhere, top_rejects)
        self._clients(changed, "volume", self.event_clients, top_events)
        self._clients(changed, "rejects", self.reject_clients, top_rejects)
        return changed

    # --- hours ------------------------------------------------------------------------------------

    def _turn(self, hour: int) -> None:
        """End an hour, and begin the next."""
        old, self.hour = self.hour, hour
        seen, self.hour_watched_s = min(1.0, self.hour_watched_s / 3600), 0.0
        if old >= 0:
            old_of_week = hour_of_week(old * 3600.0)
            for watched in self.watched.values():
                watched.end_hour(old_of_week, seen)
            self.nowhere.end_hour(old_of_week, seen)
            if old // 24 != hour // 24:
                for watched in self.watched.values():
                    watched.end_day()
                self.nowhere.end_day()
                self.event_clients.end_day()
                self.reject_clients.end_day()
        self.begin_hour()

    def begin_hour(self) -> None:
        """Make the limits of this hour; also after something was restored."""
        hour = hour_of_week(self.hour * 3600.0)
        for watched in self.watched.values():
            watched.begin_hour(hour)
        self.nowhere.begin_hour(hour, is_learned=True)

    # --- what began or ended ----------------------------------------------------------------------

    def _begin(self, changed: list[Alert], alert: Alert) -> None:
        self.present[alert.kind, alert.endpoint, alert.subject] = alert
        changed.append(alert)

    def _end(self, changed: list[Alert], kind: str, name: str, what: str) -> None:
        alert = self.present.pop((kind, name, what), None)
        if alert is not None:
            changed.append(msgspec.structs.replace(alert, until=self.last_s))

    def _end_all(self, changed: list[Alert], kind: str, name: str) -> None:
        for key in [key for key in self.present if key[:2] == (kind, name)]:
            self._end(changed, *key)

    def _spike(
        self,
        changed: list[Alert],
        change: str,
        kind: Literal["rejects", "volume"],
        name: str,
        spikes: Spikes,
        top: Mapping[str, tuple[str, float]],
    ) -> None:
        clients = self.event_clients if kind == "volume" else self.reject_clients
        self._end_all(changed, kind, name)  # also that of one client: it is part of this
        if change == "ended":
            clients.forget(name)
            return
        clients.on.pop(name, None)
        client, score = top.get(name, ("", 0.0))
        client = client if score >= _MOST * spikes.short else ""
        steps, seen, usual, limit = spikes.found
        alert = Alert(kind=kind, endpoint=name, since=self.last_s, client=client)
        alert.over_s = steps * self.settings.step_s
        alert.seen, alert.usual, alert.limit = seen, round(usual, 1), limit
        self._begin(changed, alert)

    def _silence(self, changed: list[Alert], change: str, name: str, silence: Silence) -> None:
        if change == "ended":
            self._end_all(changed, "silence", name)
            return
        seen = round(silence.quiet_s, 1)
        alert = Alert(kind="silence", endpoint=name, since=self.last_s, over_s=seen)
        alert.usual = round(silence.slow, 1)
        alert.limit = self.watched[name].expect_s
        self._begin(changed, alert)

    def _errors(
        self, changed: list[Alert], name: str, watched: Watched, counts: dict[str, int]
    ) -> None:
        started, ended = watched.kinds.step(counts, is_learned=watched.is_learned)
        for error in started:
            alert = Alert(kind="error", endpoint=name, since=self.last_s, error=error)
            alert.seen, alert.over_s = counts[error], self.settings.step_s
            self._begin(changed, alert)
        for error in ended:
            self._end(changed, "error", name, error)

    def _clients(
        self,
        changed: list[Alert],
        kind: Literal["rejects", "volume"],
        clients: TopClients,
        top: Mapping[str, tuple[str, float]],
    ) -> None:
        """One client at each endpoint that does not have a spike as a whole."""
        for name, client in list(clients.on.items()):
            if clients.score(name, client) < clients.limit(name) / 2:
                del clients.on[name]
                self._end(changed, kind, name, client)
        for name, (client, _) in top.items():
            score, limit = clients.score(name, client), clients.limit(name)
            if score < limit or name in clients.on or not self._may_tell(kind, name):
                continue
            clients.on[name] = client
            alert = Alert(kind=kind, endpoint=name, since=self.last_s, client=client)
            alert.over_s = SHORT * self.settings.step_s
            alert.seen, alert.limit = round(score), limit
            self._begin(changed, alert)

    def _may_tell(self, kind: str, name: str) -> bool:
        watched = self.watched.get(name)
        if watched is None:
            return not name and kind == "rejects" and not self.nowhere.is_on
        if kind == "rejects":
            return not watched.rejects.is_on
        return watched.is_learned and not watched.events.is_on

    @property
    def names(self) -> set[str]:
        """Of the endpoints, and "" for none."""
        return {"", *self.watched}

    def resume(self, alert: Alert, score: float) -> None:
        """An alert goes on that began before a restart. `score`: of its client, if it is of one."""
        self.present[alert.kind, alert.endpoint, alert.subject] = alert
        if alert.kind == "error":
            self.watched[alert.endpoint].kinds.on[alert.error] = 0
        spikes = self._spikes_of(alert)
        if spikes is not None and not spikes.is_on:  # else it is of the endpoint as a whole
            clients = self.event_clients if alert.kind == "volume" else self.reject_clients
            clients.resume(alert.endpoint, alert.client, score)

    def _spikes_of(self, alert: Alert) -> Spikes | None:
        if alert.kind not in ("rejects", "volume"):
            return None
        if not alert.endpoint:
            return self.nowhere
        watched = self.watched[alert.endpoint]
        return watched.events if alert.kind == "volume" else watched.rejects

    def alerts(self) -> Iterable[Alert]:
        """Those that go on, the oldest first."""
        return sorted(self.present.values(), key=lambda alert: alert.since)
