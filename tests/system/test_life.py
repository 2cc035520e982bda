"""Start, overload, drain: what an operator sees."""

import hmac
import json
import os
import re
import socket
import subprocess
import sys
import urllib.request

from tests.system.conftest import SECRET, Service, exchange, needs, status_of, wait_for
from tests.system.test_bad_input import request

CONFIG = """
[server]
listen = ["tcp://127.0.0.1:0"]
drain_timeout = "{drain}"
[admin]
listen = "tcp://127.0.0.1:0"
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


def config(handler: str, backlog: int = 100, drain: str = "20s") -> str:
    return CONFIG.format(handler=handler, backlog=backlog, drain=drain)


def admin(service: Service, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{service.admin_port}{path}") as answer:
        return answer.read().decode()


def test_a_full_backlog_answers_503_with_retry_after_and_loses_nothing_it_took(serve):
    service = serve(config("slow", backlog=5))
    answers = [exchange(service.port, request()) for _ in range(20)]
    statuses = [status_of(answer) for answer in answers]
    taken = statuses.count(202)
    assert 5 <= taken < 20
    assert set(statuses) == {202, 503}
    assert all(b"Retry-After: " in a for a in answers if status_of(a) == 503)
    assert service.stop() == 0
    assert len(service.records()) == taken


def test_sigterm_finishes_what_was_accepted_and_refuses_new_connections(serve):
    service = serve(config("slow"))
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


def test_a_drain_that_takes_too_long_ends_and_says_what_was_left(serve):
    service = serve(config("slow", drain="300ms"))
    for _ in range(20):
        assert status_of(exchange(service.port, request())) == 202
    assert service.stop() == 0
    lost = service.messages("stopped")[0]["events_lost"]
    assert lost > 0
    assert len(service.records()) + lost == 20


def test_a_request_under_way_is_answered_while_draining(serve):
    service = serve(config("record"))
    raw = request()
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as client:
        client.sendall(raw[:-5])
        # Its head was read: an answer to a second connection is proof of a turn of the loop.
        assert status_of(exchange(service.port, request())) == 202
        service.terminate()
        wait_for(lambda: service.messages("draining"), "draining")
        client.sendall(raw[-5:])
        answer = client.recv(4096)
    assert status_of(answer) == 202
    assert b"Connection: close" in answer
    assert service.stop() == 0
    assert len(service.records()) == 2


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


def test_memory_is_flat_under_overload(serve, tmp_path):
    """A handler that takes 5 events a second, and as many requests as wrk can send."""
    service = serve(config("slow", backlog=1000, drain="100ms") + "\n")
    body = json.dumps({"id": 1, "padding": "x" * 7000})
    mac = hmac.digest(SECRET.encode(), body.encode(), "sha256").hex()
    script = tmp_path / "post.lua"
    script.write_text(
        f"wrk.method = 'POST'\nwrk.path = '/github'\nwrk.body = '{body}'\n"
        "wrk.headers['Content-Type'] = 'application/json'\n"
        f"wrk.headers['X-Hub-Signature-256'] = 'sha256={mac}'\n"
    )
    command = [needs("wrk"), "-t1", "-c64", "-d3s", "-s", str(script)]
    command.append(f"http://127.0.0.1:{service.port}")
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
