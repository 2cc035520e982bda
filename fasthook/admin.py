"""The admin listener: `/healthz`, `/readyz`, `/alerts`, and `/metrics` in Prometheus' text format.

Counting is done with plain integers on the line, and turned into metrics only when asked: a
library's counters, with their locks and labels, would cost the hot path a tenth of its speed.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from fasthook.alerts.counts import Tally
from fasthook.dispatch.counts import Counts
from fasthook.errors import Rejection
from fasthook.model import Request
from fasthook.wire.answers import Answer, render
from fasthook.wire.connection import Connection

_METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
#: Names of figures of what all workers share.
_OF_ALL: Final = ("fasthook_spool_", "fasthook_handler_breaker")


Alerts = Sequence[Mapping[str, Any]]


class Metrics:
    """What happened since the start. Labels are names of the configuration alone: bounded."""

    def __init__(self) -> None:
        #: Called by `sum_up`, before anybody looks: they add what they have counted meanwhile.
        self.sources: list[Callable[[], None]] = []
        #: By endpoint, and by kind of delivery or status.
        self.requests: defaultdict[tuple[str, str], int] = defaultdict(int)
        # Not metrics, whose labels they would make without bound, but what the alerts look at.
        self.event_clients: Tally[tuple[str, str]] = Tally()  # (endpoint, client) → accepted
        self.reject_clients: Tally[tuple[str, str]] = Tally()  # the same of those refused
        self.errors: Tally[tuple[str, str]] = Tally()  # (endpoint, kind of error)

    def sum_up(self) -> None:
        """Have all that was counted until now."""
        for source in self.sources:
            source()

    def refused(self, endpoint: str, client: str, rejection: Rejection) -> None:
        """Count a request that was refused."""
        self.requests[endpoint, str(rejection.status)] += 1
        self.reject_clients[endpoint, client] += 1
        self.errors[endpoint, type(rejection).__name__] += 1

    def failed(self, endpoint: str, error: str) -> None:
        """Count an attempt that failed. `error`: one line, as `dispatch.lane` has it; or none."""
        if error:
            self.errors[endpoint, kind_of(error)] += 1

    def families(self, handlers: Mapping[str, Counts]) -> Iterable[Metric]:
        """As Prometheus has them."""
        self.sum_up()
        requests = CounterMetricFamily(
            "fasthook_requests", "Requests by what became of them.", labels=("endpoint", "result")
        )
        for (endpoint, result), count in sorted(self.requests.items()):
            requests.add_metric((endpoint, result), count)
        yield requests
        attempts = CounterMetricFamily(
            "fasthook_attempts", "Attempts by what they came to.", labels=("handler", "outcome")
        )
        for name, counts in sorted(handlers.items()):
            for kind in ("done", "retry", "dead"):
                attempts.add_metric((name, kind), getattr(counts, kind))
        yield attempts
        skipped = CounterMetricFamily(
            "fasthook_handler_skipped", "Events that a handler did not want.", labels=("handler",)
        )
        for name, counts in sorted(handlers.items()):
            skipped.add_metric((name,), counts.skipped)
        yield skipped
        superseded = CounterMetricFamily(
            "fasthook_handler_superseded",
            "Events in whose place a newer one of their key ran.",
            labels=("handler",),
        )
        for name, counts in sorted(handlers.items()):
            superseded.add_metric((name,), counts.superseded)
        yield superseded
        duration = HistogramMetricFamily(
            "fasthook_attempt_duration_seconds", "How long attempts took.", labels=("handler",)
        )
        for name, counts in sorted(handlers.items()):
            duration.add_metric((name,), counts.cumulative(), counts.seconds)
        yield duration


_NUMBER: Final = re.compile(r"\d+")
_MAX_KIND_CHARS: Final = 60


def kind_of(error: str) -> str:
    """The part of a handler's error that another one of its kind has, too.

    The name of the exception; of an error without one its first words, whatever their numbers.
    """
    name, colon, _ = error.partition(":")
    if colon and name.replace(".", "").isidentifier():
        return name
    return _NUMBER.sub("N", name)[:_MAX_KIND_CHARS]


class _Families(Collector):
    def __init__(self, families: Callable[[], Iterable[Metric]]) -> None:
        self.collect = families  # type: ignore[method-assign]

    def collect(self) -> Iterable[Metric]:
        raise NotImplementedError


def gauge(name: str, help_text: str, values: dict[str, float], label: str = "") -> Metric:
    """A gauge with one value, or with one for each value of a label."""
    family = GaugeMetricFamily(name, help_text, labels=(label,) if label else ())
    for key, value in values.items():
        family.add_metric((key,) if label else (), value)
    return family


def counter(name: str, help_text: str, values: Mapping[str, int], label: str) -> Metric:
    """A counter with a value for each value of a label."""
    family = CounterMetricFamily(name, help_text, labels=(label,))
    for key, value in values.items():
        family.add_metric((key,), value)
    return family


class Admin:
    """Answers the requests of the admin listener."""

    def __init__(
        self,
        not_ready: Callable[[], str],
        families: Callable[[], Iterable[Metric]],
        gather: Callable[[Callable[[Sequence[str]], None]], bool] = lambda then: False,
        alerts: Callable[[Callable[[Alerts], None]], Alerts | None] = lambda then: (),
    ) -> None:
        """`not_ready()` says why the service is not ready, or "" if it is.

        `gather` has `then` called with the figures of all workers; whether there are others.
        `alerts` returns those that go on, ready to be made JSON; or None, and has `then` called
        with them.
        """
        self._not_ready = not_ready
        self._gather = gather
        self._gather_alerts = alerts
        self._registry = CollectorRegistry()
        self._registry.register(_Families(families))

    def receive(self, request: Request, connection: Connection, number: int) -> Answer | None:
        """See `wire.connection.Receive`."""
        answer = _PAGES.get(request.path)
        if answer is None:
            return render(404, b"not found\n")
        if request.method not in (b"GET", b"HEAD"):
            return render(405, b"method not allowed\n", fields=(("Allow", "GET, HEAD"),))
        return answer(self, connection, number)

    def _health(self, connection: Connection, number: int) -> Answer:
        return render(200, b"ok\n")

    def _readiness(self, connection: Connection, number: int) -> Answer:
        reason = self._not_ready()
        return render(503, f"{reason}\n".encode()) if reason else render(200, b"ready\n")

    def _alerts(self, connection: Connection, number: int) -> Answer | None:
        def answer(alerts: Alerts) -> None:
            connection.answer(number, _listed(alerts))

        alerts = self._gather_alerts(answer)
        return None if alerts is None else _listed(alerts)

    def _metrics(self, connection: Connection, number: int) -> Answer | None:
        def answer(texts: Sequence[str]) -> None:
            text = merged(texts) if texts else self.figures()
            connection.answer(number, render(200, text, content_type=_METRICS_TYPE))

        if self._gather(answer):
            return None
        return render(200, self.figures(), content_type=_METRICS_TYPE)

    def figures(self) -> bytes:
        """This worker's, in Prometheus' text format."""
        return generate_latest(self._registry)


def _listed(alerts: Alerts) -> Answer:
    body = msgspec.json.format(msgspec.json.encode(alerts))
    return render(200, body + b"\n", content_type="application/json")


def merged(texts: Sequence[str]) -> bytes:
    """The figures of several workers as those of one service, in Prometheus' text format.

    They are added up; but what is said of the spool is said of the one that all have.
    """
    families: dict[str, Metric] = {}
    totals: dict[str, dict[tuple[str, frozenset[tuple[str, str]]], float]] = {}
    for text in texts:
        for family in text_string_to_metric_families(text):
            families.setdefault(family.name, family)
            total = totals.setdefault(family.name, {})
            for name, labels, value, *_ in family.samples:
                key = name, frozenset(labels.items())
                is_shared = name.startswith(_OF_ALL)
                known = total.get(key, value if is_shared else 0.0)
                total[key] = max(known, value) if is_shared else known + value
    for name, family in families.items():
        found = [Sample(key[0], dict(key[1]), value) for key, value in totals[name].items()]
        family.samples = found
    registry = CollectorRegistry()
    registry.register(_Families(families.values))
    return generate_latest(registry)


_PAGES: Final[dict[bytes, Callable[[Any, Connection, int], Answer | None]]] = {
    b"/healthz": Admin._health,
    b"/readyz": Admin._readiness,
    b"/metrics": Admin._metrics,
    b"/alerts": Admin._alerts,
}
