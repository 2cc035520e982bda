"""Start, overload, drain: what an operator sees."""

import hmac
import json
import os
import re
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.system.conftest import SECRET, Service, exchange, needs, status_of, wait_for
from tests.system.test_bad_input import request

CONFIG = """
[server]
listen = ["tcp://127.0.0.1:0"]
drain_timeout = "{drain}"
[admin]
listen = "tcp://127.0.0.1:0"
[spool]
durability = "{durability}"
[dispatch]
backlog = {backlog}
[log]
format = "json"
[[endpoint]]
name = "github"
path = "/github"
provider = "github"
secrets = ["env:HOOK_SECRET"]
handlers = ["{handler}"]
"""


def config(handler: str, backlog: int = 100, drain: str = "20s", durability: str = "fsync") -> str:
    return CONFIG.format(handler=handler, backlog=backlog, drain=drain, durability=durability)


def send(service: Service, count: int) -> list[str]:
    """Send so many events, all of which are taken; their ids."""
    ids = [str(number) for number in range(count)]
    for event_id in ids:
        assert status_of(exchange(service.port, request(x_github_delivery=event_id))) == 202
    return ids


def handled(service: Service) -> list[str]:
    """The ids of what the handler has done, in order."""
    return [record["id"] for record in service.records()]


def admin(service: Service, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{service.admin_port}{path}") as answer:
        return answer.read().decode()


def test_a_full_backlog_answers_503_with_retry_after_and_loses_nothing_it_took(serve):
    service = serve(config("slow", backlog=5, durability="none"))
    answers = [exchange(service.port, request()) for _ in range(20)]
    statuses = [status_of(answer) for answer in answers]
    taken = statuses.count(202)
    assert 5 <= taken < 20
    assert set(statuses) == {202, 503}
    assert all(b"Retry-After: " in a for a in answers if status_of(a) == 503)
    assert service.stop() == 0
    assert len(service.records()) == taken


def test_beyond_a_full_backlog_events_wait_on_disk_and_are_handled_in_time(serve):
    service = serve(config("slow", backlog=3))
    ids = send(service, 12)
    wait_for(lambda: len(handled(service)) == 12, "all events")
    assert sorted(handled(service), key=int) == ids
    assert service.stop() == 0
    assert handled(service) == list(dict.fromkeys(handled(service)))
    assert not service.messages("rejected")


def test_what_comes_again_is_answered_alike_and_handled_once(serve):
    service = serve(config("record"))
    for _ in range(3):
        assert status_of(exchange(service.port, request())) == 202
    other = request(x_github_delivery="2")
    assert status_of(exchange(service.port, other)) == 202
    wait_for(lambda: "2" in handled(service), "the other event")
    service.stop()
    assert handled(service) == ["1", "2"]

    again = serve(config("record"), after=service)
    assert status_of(exchange(again.port, other)) == 202
    again.stop()
    assert handled(again) == ["1", "2"]
    assert [line["id"] for line in again.messages("duplicate")] == ["2"]


def test_sigterm_finishes_what_was_accepted_and_refuses_new_connections(serve):
    service = serve(config("slow", durability="none"))
    for _ in range(5):
        assert status_of(exchange(service.port, request())) == 202
    service.terminate()
    wait_for(lambda: service.messages("draining"), "draining")
    try:
        refused = status_of(exchange(service.port, request())) == 0
    except ConnectionRefusedError:
        refused = True
    assert refused
    assert service.stop() == 0
    assert len(service.records()) == 5
    assert service.messages("stopped")[0]["events_lost"] == 0


def test_sigterm_leaves_what_waits_to_the_next_start(serve):
    service = serve(config("slow"))
    ids = send(service, 6)
    assert service.stop() == 0
    before = handled(service)
    assert len(before) < 6
    assert service.messages("stopped")[0]["events_lost"] == 0

    again = serve(config("slow"), after=service)
    assert again.messages("events wait on disk")[0]["events"] == 6 - len(before)
    wait_for(lambda: len(handled(again)) >= 6, "the rest")
    assert again.stop() == 0
    assert sorted(handled(again), key=int) == ids
    assert {record["attempt"] for record in again.records()} == {1}


def test_what_was_answered_outlives_a_kill(serve):
    service = serve(config("slow", drain="1s"))
    ids = send(service, 6)
    service.process.kill()
    service.stop()

    again = serve(config("slow"), after=service)
    # What was in hand comes again after some seconds, in case it was that which killed us.
    wait_for(lambda: set(handled(again)) == set(ids), "all events")
    assert again.stop() == 0
    died = again.messages("worker died in an attempt")
    assert len(died) == 1
    assert [r["id"] for r in again.records() if r["attempt"] == 2] == [handled(again)[-1]]


def test_an_event_that_kills_the_worker_is_given_up_after_three_times(serve):
    service = serve(config("deadly"))
    send(service, 1)
    wait_for(lambda: len(service.messages("worker lost")) == 3, "its end")
    dead = 'fasthook_spool_events{state="dead"} 1.0'
    wait_for(lambda: dead in admin(service, "/metrics"), "the dead letter")
    assert [record["attempt"] for record in service.records()] == [1, 2, 3]
    assert service.stop() == 0


def test_a_stop_does_not_change_the_order_of_events_behind_a_retry(serve):
    service = serve(config("patient"))
    send(service, 3)
    service.wait_for_line('"retry"')
    assert service.stop() == 0
    assert handled(service) == ["0"]

    again = serve(config("patient"), after=service)
    wait_for(lambda: len(handled(again)) == 4, "all events")
    assert [(r["id"], r["attempt"]) for r in again.records()] == [
        ("0", 1),
        ("0", 2),
        ("1", 1),
        ("2", 1),
    ]
    assert again.stop() == 0


def test_a_drain_that_takes_too_long_ends_and_says_what_was_left(serve):
    service = serve(config("slow", drain="300ms", durability="none"))
    for _ in range(20):
        assert status_of(exchange(service.port, request())) == 202
    assert service.stop() == 0
    lost = service.messages("stopped")[0]["events_lost"]
    assert lost > 0
    assert len(service.records()) + lost == 20


@pytest.mark.parametrize("durability", ["fsync", "none"])
def test_a_request_under_way_is_answered_while_draining(durability, serve):
    service = serve(config("record", durability=durability))
    raw = request()
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as client:
        client.sendall(raw[:-5])
        # Its head was read: an answer to a second connection is proof of a turn of the loop.
        assert status_of(exchange(service.port, request(x_github_delivery="2"))) == 202
        service.terminate()
        wait_for(lambda: service.messages("draining"), "draining")
        client.sendall(raw[-5:])
        answer = client.recv(4096)
    assert status_of(answer) == 202
    assert b"Connection: close" in answer
    assert service.stop() == 0
    if durability != "none" and len(service.records()) < 2:  # it was stored, and not begun with
        service = serve(config("record"), after=service)
        wait_for(lambda: len(service.records()) == 2, "the next start")
    assert sorted(handled(service)) == ["1", "2"]


def test_health_and_metrics_stand_on_the_admin_listener_alone(serve):
    service = serve(config("record"))
    assert status_of(exchange(service.port, request())) == 202
    assert admin(service, "/healthz") == "ok\n"
    assert admin(service, "/readyz") == "ready\n"
    wait_for(lambda: 'outcome="done"' in admin(service, "/metrics"), "the handler")
    assert 'fasthook_requests_total{endpoint="github",result="event"} 1.0' in admin(
        service, "/metrics"
    )
    for path in ("/healthz", "/readyz", "/metrics"):
        get = f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
        assert status_of(exchange(service.port, get)) == 404


def wrk(service: Service, script: Path, padding: int) -> list[str]:
    """The command that sends as many events as it can, each with an id of its own."""
    body = json.dumps({"id": 1, "padding": "x" * padding})
    mac = hmac.digest(SECRET.encode(), body.encode(), "sha256").hex()
    script.write_text(
        f"wrk.method = 'POST'\nwrk.path = '/github'\nwrk.body = '{body}'\n"
        "wrk.headers['Content-Type'] = 'application/json'\n"
        f"wrk.headers['X-Hub-Signature-256'] = 'sha256={mac}'\n"
        "local count, began = 0, tostring(os.time())\n"
        "request = function()\n count = count + 1\n"
        " wrk.headers['X-GitHub-Delivery'] = began .. '-' .. count\n"
        " return wrk.format()\nend\n"
    )
    command = [needs("wrk"), "-t1", "-c64", "-d3s", "-s", str(script)]
    return [*command, f"http://127.0.0.1:{service.port}"]


def test_memory_is_flat_while_events_pile_up_on_disk(serve, tmp_path):
    """A handler that takes 5 events a second; all others are stored and answered."""
    service = serve(config("slow", backlog=1000, drain="1s", durability="os"))
    command = wrk(service, tmp_path / "post.lua", 500)
    subprocess.run(command, check=True, capture_output=True)
    first_mib = service.rss_mib()
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    assert service.rss_mib() - first_mib < 15
    assert first_mib < 200
    assert "Non-2xx" not in result.stdout
    sent = re.search(r"(\d+) requests in", result.stdout)
    assert sent is not None, result.stdout
    assert int(sent[1]) > 2000


def test_memory_is_flat_under_overload(serve, tmp_path):
    """A handler that takes 5 events a second, and as many requests as wrk can send."""
    service = serve(config("slow", backlog=1000, drain="100ms", durability="none"))
    command = wrk(service, tmp_path / "post.lua", 7000)
    subprocess.run(command, check=True, capture_output=True)
    first_mib = service.rss_mib()
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    assert service.rss_mib() - first_mib < 10
    assert first_mib < 150
    shed = re.search(r"Non-2xx or 3xx responses: (\d+)", result.stdout)
    assert shed is not None, result.stdout
    assert int(shed[1]) > 1000


def test_two_services_do_not_share_an_address(serve, tmp_path):
    service = serve(config("log"))
    taken = tmp_path / "taken.toml"
    taken.write_text(config("log").replace(":0", f":{service.port}", 1))
    answer = subprocess.run(
        [sys.executable, "-m", "fasthook.cli", "serve", "-c", str(taken)],
        capture_output=True,
        text=True,
        env=os.environ | {"HOOK_SECRET": SECRET},
    )
    assert answer.returncode == 2
    assert f"can't listen on tcp://127.0.0.1:{service.port}: " in answer.stderr
    assert "Traceback" not in answer.stderr
