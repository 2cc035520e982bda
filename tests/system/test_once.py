"""`event.once` in a service that dies between "done" and "recorded"."""

import hmac
import sqlite3
import subprocess
import sys

from tests.system.conftest import SECRET, exchange, status_of, wait_for
from tests.system.test_bad_input import request

CONFIG = """
[server]
listen = ["tcp://127.0.0.1:0"]
[admin]
listen = "tcp://127.0.0.1:0"
[log]
format = "json"
"""
ENDPOINT = """
[[endpoint]]
name = "{name}"
path = "/{name}"
provider = "{provider}"
secrets = ["env:HOOK_SECRET"]
handlers = ["{handler}"]
"""
HANDLERS = ("take", "take_in_process")


def test_what_was_committed_before_the_process_died_is_not_done_again(serve):
    """The same work is done beside it without `once`, and twice: that is the control."""
    service = serve(CONFIG + "".join(endpoint(name, name) for name in HANDLERS))
    for name in HANDLERS:  # one after the other: each is the death of the worker
        raw = request(path=f"/{name}", x_github_delivery=name)
        wait_for(lambda raw=raw: status_of(exchange(service.port, raw)) == 202, "to be accepted")
        wait_for(lambda name=name: is_over(service, name), f"{name} to be over")
    assert [line["handler"] for line in service.messages("already done")] == list(HANDLERS)
    counts = dict.fromkeys(HANDLERS, 1) | {f"{name} without": 2 for name in HANDLERS}
    assert taken(service) == counts

    # A replay on purpose does not do again what `once` guards: its row says that it is done.
    command = [sys.executable, "-m", "fasthook.cli", "replay", "-c", str(service.config), "take"]
    subprocess.run(command, check=True, capture_output=True)
    wait_for(lambda: len(service.messages("done")) == 3, "the replay to be over")
    assert taken(service) == counts | {"take without": 3}


def test_without_a_spool_each_request_is_an_event_where_nothing_tells_two_apart(serve):
    """Storyblok sends neither an id nor a time. GitHub does: that is the control."""
    providers = ("storyblok", "github")
    endpoints = "".join(endpoint(name, "take_and_live", provider=name) for name in providers)
    service = serve(CONFIG + '[spool]\ndurability = "none"\n' + endpoints)
    body = b'{"action": "published"}'
    signed = hmac.digest(SECRET.encode(), body, "sha1").hex()
    for raw in (request(body, path="/storyblok", webhook_signature=signed), request()):
        for _ in range(2):
            assert status_of(exchange(service.port, raw)) in (200, 202)
    wait_for(lambda: len(service.messages("done")) == 4, "all to be over")
    counts = taken(service)
    assert counts.pop("1") == 1
    assert set(counts.values()) == {2}


def endpoint(name, handler, provider="github"):
    return ENDPOINT.format(name=name, handler=handler, provider=provider)


def is_over(service, handler):
    return [line for line in service.messages("done") if line["handler"] == handler]


def taken(service):
    connection = sqlite3.connect(f"{service.record}.db")
    counts = dict(connection.execute("SELECT event, count(*) FROM stock GROUP BY event"))
    connection.close()
    return counts
