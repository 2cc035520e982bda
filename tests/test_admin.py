"""Health, readiness and metrics, as bytes; metrics are what Prometheus reads."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fasthook.admin import Admin, Metrics, gauge, kind_of
from fasthook.dispatch.counts import FIRST_BUCKET_S, Counts
from fasthook.model import Request
from fasthook.wire.answers import Answer


def request(path: bytes, method: bytes = b"GET") -> Request:
    return Request(method, path, path.partition(b"?")[0], b"", {}, True)


def counts(*durations: float, retry: int = 0, dead: int = 0) -> Counts:
    """As a lane counts attempts; all are done but for those."""
    counted = Counts()
    counted.done, counted.retry, counted.dead = len(durations) - retry - dead, retry, dead
    for took_s in durations:
        counted.seconds += took_s
        if took_s > FIRST_BUCKET_S:
            counted.slow(took_s)
    return counted


def ask(admin: Admin, path: bytes, method: bytes = b"GET") -> Answer:
    return admin.receive(request(path, method), None, 0)  # type: ignore[arg-type]


def body_of(answer: Answer) -> str:
    return answer.rest.partition(b"\r\n\r\n")[2].decode()


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def handlers():
    """Handler → what its attempts came to."""
    return {}


@pytest.fixture
def admin(metrics, handlers):
    return Admin(lambda: "", lambda: metrics.families(handlers))


def samples(admin: Admin) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Name and labels → value, as Prometheus' own parser reads them."""
    text = body_of(ask(admin, b"/metrics"))
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_service_is_healthy(admin):
    answer = ask(admin, b"/healthz")
    assert (answer.status, body_of(answer)) == (200, "ok\n")


def test_readiness_says_what_it_waits_for():
    reason = [""]
    admin = Admin(lambda: reason[0], lambda: ())

    answer = ask(admin, b"/readyz")
    assert (answer.status, body_of(answer)) == (200, "ready\n")
    reason[0] = "draining"
    answer = ask(admin, b"/readyz")
    assert (answer.status, body_of(answer)) == (503, "draining\n")
    assert ask(admin, b"/healthz").status == 200  # a restart would not help


@pytest.mark.parametrize("path", [b"/", b"/metrics/", b"/health", b"/github", b"/METRICS", b"*"])
@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_other_paths_are_not_found(path, method, admin):
    assert ask(admin, path, method).status == 404


@pytest.mark.parametrize("path", [b"/healthz", b"/readyz", b"/metrics"])
@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE", b"OPTIONS", b"get"])
def test_other_methods_are_refused_with_those_that_are_allowed(path, method, admin):
    answer = ask(admin, path, method)
    assert answer.status == 405
    assert b"Allow: GET, HEAD\r\n" in answer.rest


def test_a_query_does_not_matter(admin):
    assert ask(admin, b"/healthz?verbose=1").status == 200


def test_metrics_have_the_type_of_their_text(admin):
    answer = ask(admin, b"/metrics", b"HEAD")
    assert b"Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n" in answer.rest


def test_requests_and_attempts_are_counted_by_what_became_of_them(admin, metrics, handlers):
    for endpoint, result in [
        ("github", "event"),
        ("github", "event"),
        ("github", "401"),
        ("", "404"),
    ]:
        metrics.requests[endpoint, result] += 1
    handlers["log"] = counts(0.1, 0.1, 0.1, 0.1, retry=2, dead=1)

    found = samples(admin)
    requests, attempts = "fasthook_requests_total", "fasthook_attempts_total"
    assert found[requests, (("endpoint", "github"), ("result", "event"))] == 2
    assert found[requests, (("endpoint", "github"), ("result", "401"))] == 1
    assert found[requests, (("endpoint", ""), ("result", "404"))] == 1
    assert found[attempts, (("handler", "log"), ("outcome", "done"))] == 1
    assert found[attempts, (("handler", "log"), ("outcome", "retry"))] == 2
    assert found[attempts, (("handler", "log"), ("outcome", "dead"))] == 1


def test_the_buckets_of_a_histogram_are_cumulative(admin, handlers):
    durations = [0.0, 0.001, 0.002, 0.3, 0.3, 7.0, 1000.0]
    handlers["log"] = counts(*durations, retry=1, dead=2)
    handlers["other"] = counts(0.1)

    name = "fasthook_attempt_duration_seconds"
    found = samples(admin)
    buckets = {
        float(dict(labels)["le"]): value
        for (sample, labels), value in found.items()
        if sample == f"{name}_bucket" and dict(labels)["handler"] == "log"
    }
    assert buckets == {le: sum(d <= le for d in durations) for le in buckets}
    assert max(buckets) == float("inf")
    assert found[f"{name}_count", (("handler", "log"),)] == len(durations)
    assert found[f"{name}_sum", (("handler", "log"),)] == pytest.approx(sum(durations))


def test_a_fresh_service_has_metrics_that_parse(admin, handlers):
    assert samples(admin) == {}
    handlers["log"] = Counts()
    assert set(samples(admin).values()) == {0}


def test_gauges_have_one_value_or_one_for_each_label():
    families = [
        gauge("connections", "Open.", {"": 3}),
        gauge("waiting", "In line.", {"a": 1, 'b"\\\n': 2}, "handler"),
        gauge("nothing", "None.", {}, "handler"),
    ]
    admin = Admin(lambda: "", lambda: families)

    assert samples(admin) == {
        ("connections", ()): 3,
        ("waiting", (("handler", "a"),)): 1,
        ("waiting", (("handler", 'b"\\\n'),)): 2,
    }


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("ValueError: no such id 17", "ValueError"),
        ("urllib3.exceptions.HTTPError: x", "urllib3.exceptions.HTTPError"),
        ("answered 502 after 3 tries", "answered N after N tries"),
        ("exit code 3: boom", "exit code N"),
        ("x" * 500, "x" * 60),
    ],
)
def test_a_kind_of_error_is_what_another_one_has_too(error, kind):
    assert kind_of(error) == kind
