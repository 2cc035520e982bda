"""The admin listener: `/healthz`, `/readyz`, and `/metrics` in Prometheus' text format.

Counting is done with plain integers on the line, and turned into metrics only when asked: a
library's counters, with their locks and labels, would cost the hot path a tenth of its speed.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from fasthook.dispatch.counts import Counts
from fasthook.model import Request
from fasthook.wire.answers import Answer, render
from fasthook.wire.connection import Connection

_METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """What happened since the start. Labels are names of the configuration alone: bounded."""

    def __init__(self) -> None:
        #: By endpoint, and by kind of delivery or status.
        self.requests: defaultdict[tuple[str, str], int] = defaultdict(int)

    def families(self, handlers: Mapping[str, Counts]) -> Iterable[Metric]:
        """As Prometheus has them."""
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
        duration = HistogramMetricFamily(
            "fasthook_attempt_duration_seconds", "How long attempts took.", labels=("handler",)
        )
        for name, counts in sorted(handlers.items()):
            duration.add_metric((name,), counts.cumulative(), counts.seconds)
        yield duration


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


class Admin:
    """Answers the requests of the admin listener."""

    def __init__(
        self, not_ready: Callable[[], str], families: Callable[[], Iterable[Metric]]
    ) -> None:
        """`not_ready()` says why the service is not ready, or "" if it is."""
        self._not_ready = not_ready
        self._registry = CollectorRegistry()
        self._registry.register(_Families(families))

    def receive(self, request: Request, connection: Connection, number: int) -> Answer:
        """See `wire.connection.Receive`."""
        answer = _PAGES.get(request.path)
        if answer is None:
            return render(404, b"not found\n")
        if request.method not in (b"GET", b"HEAD"):
            return render(405, b"method not allowed\n", fields=(("Allow", "GET, HEAD"),))
        return answer(self)

    def _health(self) -> Answer:
        return render(200, b"ok\n")

    def _readiness(self) -> Answer:
        reason = self._not_ready()
        return render(503, f"{reason}\n".encode()) if reason else render(200, b"ready\n")

    def _metrics(self) -> Answer:
        return render(200, generate_latest(self._registry), content_type=_METRICS_TYPE)


_PAGES: Final[dict[bytes, Callable[[Any], Answer]]] = {
    b"/healthz": Admin._health,
    b"/readyz": Admin._readiness,
    b"/metrics": Admin._metrics,
}
