"""Watching a service: its counts to the detector, what that finds to log, metrics and handlers.

All workers count, and one of them watches: the parent says which. Once a minute that one asks the
others what they counted. A thread does so, and another one writes the file in which what was
learned is kept; all else happens on the loop.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from fasthook.admin import Metrics
from fasthook.alert_events import delivery_of, facts_of
from fasthook.alerts import counts, saved
from fasthook.alerts.counts import Counts
from fasthook.alerts.detector import Alert, AlertKind, Detector, Settings
from fasthook.config import ALERTS, Config
from fasthook.errors import Rejection
from fasthook.intake.network import canonical, limiter_key
from fasthook.logs import log
from fasthook.model import Delivery
from fasthook.spool.committer import Entry
from fasthook.spool.files import put
from fasthook.spool.spool import Spool, key_of
from fasthook.wire.answers import Answer

#: The file, in the spool's directory.
NAME: Final = "alerts"
_SAVE_S: Final = 300.0
#: What a file may have; one of 65,000 endpoints has less.
_MAX_FILE_BYTES: Final = 256 * 1024**2
#: Events that the spool did not take, and that are offered again. Beyond: the oldest ones are lost,
#: for which there is a line in the log.
_MAX_UNSENT: Final = 1000
_ACCEPTED: Final = ("event", "duplicate", "ignored")
_KINDS: Final[tuple[AlertKind, ...]] = ("rejects", "volume", "error", "silence")
#: What the log says when one begins, and when it ends.
MESSAGES: Final[Mapping[AlertKind, tuple[str, str]]] = {
    "rejects": ("unusual rejects", "rejects as usual"),
    "volume": ("unusual volume", "volume as usual"),
    "error": ("new error", "new error over"),
    "silence": ("silence", "silence over"),
}


class Ledger:
    """What was counted since the last look, from metrics that only grow."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._before: dict[tuple[str, str], int] = {}

    def take(self) -> Counts:
        """The counts since the last call."""
        counts = Counts()
        self._metrics.sum_up()
        for key, total in self._metrics.requests.items():
            count = total - self._before.get(key, 0)
            if not count:
                continue
            self._before[key] = total
            endpoint, result = key
            if result in _ACCEPTED:
                counts.events[endpoint] = counts.events.get(endpoint, 0) + count
            elif result.isdecimal():
                counts.rejects[endpoint] = counts.rejects.get(endpoint, 0) + count
        counts.errors = self._metrics.errors.take()
        counts.event_clients = _by_network(self._metrics.event_clients.take())
        counts.reject_clients = _by_network(self._metrics.reject_clients.take())
        return counts


def _by_network(counts: Mapping[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    """Clients by what they are told apart by: see `limiter_key`."""
    summed: dict[tuple[str, str], int] = {}
    for (endpoint, client), count in counts.items():
        # That of a request that was no HTTP is what the socket says.
        key = (endpoint, limiter_key(canonical(client)) if ":" in client else client)
        summed[key] = summed.get(key, 0) + count
    return summed


class Watching:
    """What one worker counts, and in the one that watches: the detector with clock, file, log."""

    def __init__(
        self,
        config: Config,
        metrics: Metrics,
        spool: Spool | None,
        hand_over: Callable[[Delivery], bool],
        tallies: Callable[[], Iterable[bytes]] = tuple,
    ) -> None:
        """`hand_over` takes an event where there is no spool; false: there is no room.

        `tallies` asks the other workers for what they counted, see `tally`; it may block.
        """
        alerts = config.alerts
        self._interval_s = float(alerts.interval)
        self._expected = {e.name: float(e.expect_every or 0.0) for e in config.endpoint}
        settings = Settings(self._interval_s, float(alerts.learning), alerts.rejects)
        self.detector = Detector(self._expected, settings)
        self._ledger = Ledger(metrics)
        self._tallies = tallies
        self._of_others = Counts()  # what they counted, and no look has seen
        self._has_handlers = bool(alerts.handlers)
        self._spool = spool
        self._hand_over = hand_over
        self._path: Path | None = spool.path / NAME if spool is not None else None
        self._unsent: list[Delivery] = []
        self._begun: dict[tuple[str, AlertKind], int] = {}
        self._saved_at = 0.0
        self._saving: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.Task[None] | None = None
        self._ending = asyncio.Lock()

    # --- of all workers ---------------------------------------------------------------------------

    def tally(self) -> bytes:
        """What this worker counted since it was asked last, for the one that watches."""
        return counts.encode(self._taken())

    def add(self, data: bytes) -> None:
        """Take what another worker counted: see `tally`. Raises `ValueError`."""
        self._of_others.add(counts.decode(data))

    def _taken(self) -> Counts:
        taken, self._of_others = self._of_others, Counts()
        taken.add(self._ledger.take())
        return taken

    # --- life -------------------------------------------------------------------------------------

    @property
    def is_watching(self) -> bool:
        """Whether it is this worker that watches."""
        return self._timer is not None

    def watch(self) -> None:
        """Go on from what was learned, and look from now on. Call within the running loop."""
        if self._timer is not None:
            return
        if self._path is not None:
            self._restore(self._path)
        self._loop = asyncio.get_running_loop()
        self._saved_at = self._loop.time()
        self.detector.begin(time.time())
        self._wait()

    async def unwatch(self) -> None:
        """Look no more, and keep what was learned: from when this returns another one may watch."""
        async with self._ending:
            if self._timer is None:
                return
            self._timer.cancel()
            if self._looking is not None:
                await self._looking
            if self._saving is not None:
                await asyncio.wait([self._saving])
            if self._path is not None:
                try:
                    data = saved.encode(self.detector)
                    await asyncio.to_thread(put, self._path, data, syncs=False)
                except OSError as error:
                    log.warning("alerts not kept", error=str(error))
            self._timer = None

    async def stop(self) -> None:
        """The same, after a last look. Call before the spool is closed."""
        if self._timer is not None and not self._ending.locked():
            self._timer.cancel()
            self._look_safely()
        await self.unwatch()

    def _wait(self) -> None:
        self._timer = self._loop.call_later(self._interval_s, self._tick)

    def _tick(self) -> None:
        self._wait()
        if self._looking is None or self._looking.done():
            self._looking = self._loop.create_task(self._look_at_all(), name="alerts")

    async def _look_at_all(self) -> None:
        """Look at the counts of all workers."""
        try:
            for data in await asyncio.to_thread(lambda: list(self._tallies())):
                self.add(data)
        except (OSError, ValueError) as error:
            log.exception("internal error", error, task="alerts")
        is_changed = self._look_safely()
        if is_changed or self._loop.time() - self._saved_at >= _SAVE_S:
            self._save()

    def _look_safely(self) -> bool:
        try:
            return self.look(time.time())
        except Exception as error:  # whatever it is: requests have nothing to do with it
            log.exception("internal error", error, task="alerts")
            return False

    # --- the look ---------------------------------------------------------------------------------

    def look(self, now_s: float) -> bool:
        """Take what was counted since the last look; whether alerts began or ended."""
        changed = self.detector.observe(self._taken(), now_s)
        for alert in changed:
            self._say(alert)
            if self._has_handlers:
                self._unsent.append(delivery_of(alert, ALERTS, time.time_ns()))
        if self._unsent:
            unsent = self._unsent[-_MAX_UNSENT:]
            self._unsent.clear()
            for delivery in unsent:
                self._send(delivery)
        return bool(changed)

    def _say(self, alert: Alert) -> None:
        began, ended = MESSAGES[alert.kind]
        facts = facts_of(alert)
        facts.pop("kind")
        facts.pop("state")
        if alert.until:
            log.info(ended, **facts)
            return
        key = (alert.endpoint, alert.kind)
        self._begun[key] = self._begun.get(key, 0) + 1
        log.warning(began, **facts)

    # --- as events --------------------------------------------------------------------------------

    def _send(self, delivery: Delivery) -> None:
        if self._spool is None:
            if not self._hand_over(delivery):
                self._unsent.append(delivery)
            return
        key = key_of(delivery, is_id_signed=True)
        try:
            # It waits on disk, from where the line brings it like all that does.
            self._spool.accept(Entry(key, delivery, False, (_Sender(self._unsent, delivery), 0)))
        except Rejection:
            self._unsent.append(delivery)

    # --- what was learned -------------------------------------------------------------------------

    def _restore(self, path: Path) -> None:
        try:
            data = read(path)
            if data:
                saved.restore(self.detector, saved.decode(data))
        except (OSError, ValueError) as error:
            # Half of it may be in place.
            self.detector = Detector(self._expected, self.detector.settings)
            log.warning("alerts learn anew", path=str(path), error=str(error))

    def _save(self) -> None:
        self._saved_at = self._loop.time()
        if self._path is None or (self._saving is not None and not self._saving.done()):
            return
        data = saved.encode(self.detector)
        write = partial(put, self._path, data, syncs=False)
        self._saving = self._loop.run_in_executor(None, write)
        self._saving.add_done_callback(_say_failure)

    # --- about ------------------------------------------------------------------------------------

    def present(self) -> list[dict[str, Any]]:
        """The alerts that go on, the oldest first."""
        return [facts_of(alert) for alert in self.detector.alerts()]

    def kept(self) -> list[dict[str, Any]]:
        """The same, for a moment at which no worker watches: from the file."""
        if self._path is not None:
            with contextlib.suppress(OSError, ValueError):
                return [facts_of(alert) for alert in saved.decode(read(self._path)).present]
        return []

    def families(self) -> Iterable[Metric]:
        """Metrics of the worker that watches: which alerts go on, and how many it saw begin."""
        if not self.is_watching:
            return []
        labels = ("endpoint", "kind")
        on = GaugeMetricFamily("fasthook_alerts", "Alerts that go on.", labels=labels)
        begun = CounterMetricFamily("fasthook_alerts_begun", "Alerts that began.", labels=labels)
        counts: dict[tuple[str, str], int] = {}
        for alert in self.detector.alerts():
            counts[alert.endpoint, alert.kind] = counts.get((alert.endpoint, alert.kind), 0) + 1
        for endpoint in sorted(self.detector.names):
            for kind in _KINDS if endpoint else _KINDS[:1]:
                on.add_metric((endpoint, kind), counts.get((endpoint, kind), 0))
                begun.add_metric((endpoint, kind), self._begun.get((endpoint, kind), 0))
        return [on, begun]


class _Sender:
    """Stands for the connection of an event that came over none."""

    def __init__(self, unsent: list[Delivery], delivery: Delivery) -> None:
        self._unsent = unsent
        self._delivery = delivery

    def answer(self, number: int, answer: Answer) -> None:
        """Keep what was refused for the next look; a second copy of an event is a duplicate."""
        if answer.status >= 300:
            self._unsent.append(self._delivery)


def _say_failure(future: "asyncio.Future[None]") -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        log.warning("alerts not kept", error=str(error))


def read(path: Path) -> bytes:
    """What was kept; nothing where nothing was. Raises `OSError`, `ValueError`."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    with os.fdopen(fd, "rb") as file:
        data = file.read(_MAX_FILE_BYTES + 1)
    if len(data) > _MAX_FILE_BYTES:
        raise ValueError("it is too long")
    return data
