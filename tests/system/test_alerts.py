"""Unusual activity at a real service: one line, one metric, one event, and the same when it ends."""

import re
import socket
import stat
import time

import pytest

from fasthook.watching import NAME
from tests.system.conftest import Service, exchange, status_of, wait_for
from tests.system.test_bad_input import request
from tests.system.test_life import admin

CONFIG = """
[server]
listen = ["tcp://127.0.0.1:0"]
unverified_rate = "10/s"
unverified_burst = {burst}
[admin]
listen = "tcp://127.0.0.1:0"
[spool]
durability = "{durability}"
[log]
format = "json"
[alerts]
{alerts}
[[endpoint]]
name = "github"
path = "/github"
provider = "github"
secrets = ["env:HOOK_SECRET"]
handlers = ["log"]
{endpoint}
"""
WATCHED = 'handlers = ["record"]\ninterval = "1s"\nrejects = 50'
FORGED = re.sub(rb"sha256=\w{4}", b"sha256=0000", request())


def config(alerts=WATCHED, endpoint="", durability="os", burst=10_000) -> str:
    return CONFIG.format(alerts=alerts, endpoint=endpoint, durability=durability, burst=burst)


def flood_of(service: Service, raw: bytes, count: int) -> bytes:
    """The answers to so many of a request, over one connection."""
    last = raw.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as client:
        client.sendall(raw * (count - 1) + last)
        received = b""
        while piece := client.recv(65536):
            received += piece
    return received


def metric(service: Service, kind: str, endpoint: str = "github", name="fasthook_alerts") -> float:
    labels = f'{name}{{endpoint="{endpoint}",kind="{kind}"}}'
    (line,) = [line for line in admin(service, "/metrics").splitlines() if line.startswith(labels)]
    return float(line.split()[-1])


def told(service: Service) -> list[tuple[str, str]]:
    """The types and endpoints of the alerts that a handler got."""
    return [(r["type"], r["payload"]["endpoint"]) for r in service.records()]


@pytest.mark.parametrize("durability", ["os", "none"])
def test_a_forged_flood_is_told_once_and_its_end_too(serve, durability):
    service = serve(config(durability=durability))
    assert status_of(exchange(service.port, request())) == 202
    assert metric(service, "rejects") == 0
    flood = flood_of(service, FORGED, 400)
    assert flood.count(b"HTTP/1.1 401 ") == 400

    wait_for(lambda: told(service), "the event")
    assert told(service) == [("rejects.started", "github")]
    wait_for(lambda: service.messages("unusual rejects"), "the line")
    (line,) = service.messages("unusual rejects")
    assert (line["level"], line["endpoint"], line["client"]) == ("warning", "github", "127.0.0.1")
    assert line["seen"] >= line["limit"] == 50
    assert metric(service, "rejects") == 1
    assert '"kind": "rejects"' in admin(service, "/alerts")

    wait_for(lambda: len(told(service)) == 2, "its end")
    assert told(service)[1] == ("rejects.ended", "github")
    first, last = (record["payload"] for record in service.records())
    assert (first["id"], first["since"]) == (last["id"], last["since"])
    assert "until" in last
    assert metric(service, "rejects") == 0
    assert metric(service, "rejects", name="fasthook_alerts_begun_total") == 1
    assert admin(service, "/alerts").strip() == "[]"
    wait_for(lambda: service.messages("rejects as usual"), "the last line")
    assert (
        len(service.messages("unusual rejects")) == len(service.messages("rejects as usual")) == 1
    )
    # The sender of what is genuine noticed nothing, though it has the same address.
    assert status_of(exchange(service.port, request(x_github_delivery="2"))) == 202


def test_what_is_expected_and_does_not_come_is_told(serve):
    service = serve(config(endpoint='expect_every = "2s"'))
    began = time.monotonic()
    service.wait_for_line('"message":"silence"')
    assert 1.5 < time.monotonic() - began < 10
    wait_for(lambda: told(service) == [("silence.started", "github")], "the event")
    assert metric(service, "silence") == 1
    assert status_of(exchange(service.port, request())) == 202
    service.wait_for_line('"message":"silence over"')
    wait_for(lambda: ("silence.ended", "github") in told(service), "its end")


def test_an_alert_goes_on_over_a_restart(serve):
    text = config(endpoint='expect_every = "1s"', durability="fsync")
    service = serve(text)
    service.wait_for_line('"message":"silence"')
    wait_for(lambda: (service.folder / "var" / NAME).exists(), "the file")
    service.stop()
    kept = service.folder / "var" / NAME
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600

    after = serve(text, after=service)
    assert '"kind": "silence"' in admin(after, "/alerts")
    assert status_of(exchange(after.port, request())) == 202
    after.wait_for_line('"message":"silence over"')
    wait_for(
        lambda: told(after)[:2] == [("silence.started", "github"), ("silence.ended", "github")],
        "both",
    )


def test_a_broken_file_is_said_and_nothing_else(serve):
    service = serve(config())
    service.stop()
    (service.folder / "var" / NAME).write_bytes(b"\x93broken")
    after = serve(config(), after=service)
    wait_for(lambda: after.messages("alerts learn anew"), "the line")
    assert status_of(exchange(after.port, request())) == 202


def test_a_handler_that_fails_in_a_new_way_is_told_once_learned(serve):
    service = serve(config(alerts=f'{WATCHED}\nlearning = "0s"').replace('"log"', '"strict_order"'))
    body = b'{"id": "no number"}'
    assert status_of(exchange(service.port, request(body, x_github_delivery="1"))) == 202
    wait_for(lambda: service.messages("new error"), "the line")
    assert status_of(exchange(service.port, request(body, x_github_delivery="2"))) == 202
    wait_for(lambda: len(service.messages("dead")) == 2, "the second")
    service.stop()
    assert len(service.messages("new error")) == 1
    assert service.messages("new error")[0]["endpoint"] == "github"


def test_without_watch_there_is_nothing_of_it(serve):
    service = serve(config(alerts="watch = false"))
    flood_of(service, FORGED, 400)
    assert "fasthook_alerts" not in admin(service, "/metrics")
    assert admin(service, "/alerts").strip() == "[]"
    service.stop()
    assert not (service.folder / "var" / NAME).exists()
    assert not service.messages("unusual rejects")


def test_no_request_reaches_the_endpoint_of_alerts(serve):
    service = serve(config())
    for target in (b"/alerts", b"alerts", b"", b"/", b"?x", b"*"):
        raw = re.sub(rb"^POST \S+", b"POST " + target, request())
        assert status_of(exchange(service.port, raw)) in (400, 404), target
    assert told(service) == []


def test_a_forger_is_refused_cheaply_for_a_while_and_who_is_known_is_not(serve):
    service = serve(config(burst=50))
    other = FORGED.replace(b"POST /github", b"POST /other")
    flood = flood_of(service, other, 100)
    assert 50 <= flood.count(b"HTTP/1.1 404 ") <= 52
    assert flood.count(b"HTTP/1.1 503 ") == 100 - flood.count(b"HTTP/1.1 404 ")
    # Nothing genuine came before: whoever has the address has to wait, and is told how long.
    refused = exchange(service.port, request())
    wait = re.search(rb"Retry-After: (\d+)", refused)
    assert status_of(refused) == 503
    assert wait is not None
    assert 1 <= int(wait[1]) <= 5
    time.sleep(int(wait[1]))
    assert status_of(exchange(service.port, request())) == 202
    flood_of(service, other, 100)
    assert status_of(exchange(service.port, other)) == 503
    assert status_of(exchange(service.port, request(x_github_delivery="2"))) == 202
