"""Senders of webhooks, for locust: providers, sizes, repetitions, forgeries, slow ones, bursts.

`python -m bench.load` (or `make load`) starts fasthook behind nginx and TLS, and this against it.
By itself: `FASTHOOK_LOAD=load.json locust -f bench/locustfile.py --host https://…`, where the file
has endpoints with their secrets, and where to note what was sent and accepted (`bench.load.Site`).

Whatever is not answered as it should be is a failure: a genuine event with 2xx, the same again as
the first time, a forged one with 401.
"""

import json
import os
import random
import ssl
import time
import uuid
from collections import deque
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import gevent
import orjson
from gevent import socket
from locust import FastHttpUser, between, events, task
from locust.contrib.fasthttp import ResponseContextManager

from fasthook.cli.send import Target, build
from fasthook.intake import catalogue
from fasthook.model import Request

_SITE = json.loads(Path(os.environ["FASTHOOK_LOAD"]).read_text())
_SENT, _ACCEPTED = (os.open(_SITE[key], os.O_WRONLY | os.O_APPEND) for key in ("sent", "accepted"))
SMALL, USUAL, LARGE, HUGE = 0, 7_300, 32_000, 500_000
BURST = 15
_SLOW_PIECES, _SLOW_S = 8, 0.1
_REMEMBERED = 20


class Made(NamedTuple):
    """An event that was made, and where it goes."""

    name: str  # of the endpoint
    event_id: str
    request: Request

    @property
    def headers(self) -> dict[str, str]:
        """As a client takes them."""
        return {k.decode(): v.decode() for k, v in self.request.headers.items()}


def _target(entry: dict[str, str]) -> Target:
    provider = catalogue.load(entry["provider"])
    scheme = provider.schemes[provider.default_scheme]
    url = f"https://hooks.test{entry['path']}"
    return Target(url, url, provider, scheme, entry["secret"].encode(), {})


TARGETS = {entry["name"]: _target(entry) for entry in _SITE["endpoints"]}


def make(size: int, tamper: str | None = None) -> Made:
    """A new event of some endpoint, with a body of about so many bytes."""
    name, target = random.choice(list(TARGETS.items()))
    event_id = str(uuid.uuid4())
    request = build(target, None, None, event_id, None if size else tamper)
    if size:
        value = orjson.loads(request.body)
        value["padding"] = "x" * (size - len(request.body))
        request = build(target, None, orjson.dumps(value), event_id, tamper)
    return Made(name, event_id, request)


def note(file: int, made: Made) -> None:
    """For the comparison with the spool, afterwards."""
    os.write(file, f"{made.name} {made.event_id}\n".encode())


class Sender(FastHttpUser):
    """A sender that has several endpoints of ours."""

    wait_time = between(0.02, 0.2)
    concurrency = BURST + 1
    insecure = True  # the certificate is made for the run

    def on_start(self) -> None:
        """Nothing is sent yet that could be sent again."""
        self.before: deque[tuple[Made, int, str]] = deque(maxlen=_REMEMBERED)

    def sent(self, made: Made, what: str) -> ResponseContextManager:
        """Send it, as one of a kind of requests; who asks says whether the answer is right."""
        request = made.request
        path, body = request.target.decode(), request.body
        return self.client.post(
            path, data=body, headers=made.headers, name=what, catch_response=True
        )

    def post(self, made: Made, what: str) -> tuple[int, str]:
        """Send it, and expect that it is accepted; status and text of the answer."""
        note(_SENT, made)
        with self.sent(made, what) as answer:
            status, text = answer.status_code, answer.text or ""
            if 200 <= status < 300:
                note(_ACCEPTED, made)
            else:
                answer.failure(f"a genuine event was answered {status}: {text[:80]!r}")
        return status, text

    @task(20)
    def small(self) -> None:
        """A provider's own sample."""
        made = make(SMALL)
        self.before.append((made, *self.post(made, "small")))

    @task(8)
    def usual(self) -> None:
        """As large as GitHub's pushes."""
        made = make(USUAL)
        self.before.append((made, *self.post(made, "7 kB")))

    @task(2)
    def large(self) -> None:
        """Larger than what nginx's first buffer takes."""
        self.post(make(LARGE), "32 kB")

    @task(1)
    def huge(self) -> None:
        """Half of what is taken."""
        self.post(make(HUGE), "500 kB")

    @task(6)
    def again(self) -> None:
        """What was sent before, as a sender does whose connection broke: answered as before."""
        if not self.before:
            return
        made, status, text = random.choice(self.before)
        with self.sent(made, "again") as answer:
            if (answer.status_code, answer.text or "") != (status, text):
                answer.failure(f"the same event was answered {status}, then {answer.status_code}")

    @task(4)
    def forged(self) -> None:
        """Signed wrongly, or changed after it was signed."""
        made = make(random.choice((SMALL, USUAL)), random.choice(("body", "signature", "secret")))
        with self.sent(made, "forged") as answer:
            if answer.status_code == 401:
                answer.success()
            else:
                answer.failure(f"a forged event was answered {answer.status_code}")

    @task(1)
    def burst(self) -> None:
        """Many at once, as after an import."""
        made = [make(SMALL) for _ in range(BURST)]
        gevent.joinall([gevent.spawn(self.post, each, "burst") for each in made])

    @task(1)
    def slow(self) -> None:
        """A body that comes in pieces, over a connection of its own."""
        made = make(USUAL)
        note(_SENT, made)
        began, error, status = time.perf_counter(), None, 0
        try:
            status = self.trickle(made)
            if 200 <= status < 300:
                note(_ACCEPTED, made)
            else:
                error = ValueError(f"a slow event was answered {status}")
        except OSError as raised:
            error = raised
        events.request.fire(
            request_type="POST",
            name="slow",
            response_time=(time.perf_counter() - began) * 1000,
            response_length=0,
            exception=error,
            context={},
        )

    def trickle(self, made: Made) -> int:
        """Send head, then body piece by piece; the status. Raises `OSError`."""
        url, request = urlsplit(self.host or ""), made.request
        head = f"POST {request.target.decode()} HTTP/1.1\r\nHost: hooks.test\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in made.headers.items())
        head += f"Connection: close\r\nContent-Length: {len(request.body)}\r\n\r\n"
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with (
            socket.create_connection((url.hostname, url.port), timeout=20) as opened,
            context.wrap_socket(opened, server_hostname="hooks.test") as client,
        ):
            client.sendall(head.encode())
            step = len(request.body) // _SLOW_PIECES + 1
            for at in range(0, len(request.body), step):
                gevent.sleep(_SLOW_S)
                client.sendall(request.body[at : at + step])
            answer = client.recv(4096)
        return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0
