"""`forward`: to a real HTTP server, byte for byte."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from standardwebhooks import Webhook

from fasthook import Discard, Retry
from fasthook.errors import ConfigError
from fasthook.handlers.forward import Settings, build
from fasthook.values import Secret
from tests.dispatch.helpers import delivery, event, kinds, outcomes_of, quiet_retries

WHSEC = "whsec_" + base64.b64encode(b"k" * 24).decode()


class Upstream:
    """Keeps what it gets; answers with `status` and `headers`."""

    def __init__(self) -> None:
        self.status = 200
        self.headers: dict[str, str] = {}
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.connections: set[int] = set()
        upstream = self

        class Answer(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                assert len(headers) == len(self.headers.items()), "no header stands twice"
                upstream.got.append((self.path, headers, body))
                upstream.connections.add(self.client_address[1])
                self.send_response(upstream.status)
                for name, value in upstream.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/in?a=1"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def upstream():
    made = Upstream()
    yield made
    made.close()


def send(upstream, made=None, **settings):
    build(Settings(upstream.url, **settings)).function(event() if made is None else made)
    return upstream.got[-1]


@pytest.mark.parametrize("body", [b"", b'{"a":  1}\n', bytes(range(256)) * 4096])
def test_the_body_arrives_byte_for_byte(upstream, body):
    path, headers, got = send(upstream, event(body))

    assert path == "/in?a=1"
    assert got == body
    assert headers["content-length"] == str(len(body))


def test_headers_are_kept_but_those_of_the_connection(upstream):
    came = {
        b"content-type": b"application/json",
        b"x-hub-signature-256": b"sha256=00",
        b"user-agent": b"GitHub-Hookshot/1",
        b"x-name": b"J\xf6rg",
        b"host": b"hooks.example.com",
        b"content-length": b"999",
        b"connection": b"keep-alive",
        b"keep-alive": b"timeout=5",
        b"transfer-encoding": b"chunked",
        b"te": b"trailers",
        b"trailer": b"x",
        b"upgrade": b"h2c",
        b"expect": b"100-continue",
        b"proxy-authorization": b"Basic eA==",
    }
    _, headers, _ = send(upstream, event(b"{}", attempt=3, headers=came))

    assert headers["content-type"] == "application/json"
    assert headers["x-hub-signature-256"] == "sha256=00"
    assert headers["user-agent"] == "GitHub-Hookshot/1"
    assert headers["x-name"] == "J\xf6rg"
    assert headers["host"].startswith("127.0.0.1:")
    assert headers["content-length"] == "2"
    assert (headers["x-fasthook-endpoint"], headers["x-fasthook-attempt"]) == ("e", "3")
    dropped = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade"}
    assert not headers.keys() & (dropped | {"expect", "proxy-authorization"})


def test_headers_that_connection_names_are_dropped(upstream):
    came = {b"connection": b"close, X-Hop", b"x-hop": b"1", b"x-end": b"1"}
    _, headers, _ = send(upstream, event(headers=came))

    assert "x-end" in headers
    assert "x-hop" not in headers


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_a_2xx_is_done(upstream, status):
    upstream.status = status
    if status == 204:
        upstream.headers = {"connection": "close"}  # our answer has a body, which is wrong for 204
    send(upstream)


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 502, 503])
def test_any_other_answer_is_tried_again_by_the_schedule(upstream, status):
    upstream.status = status
    with pytest.raises(Retry, match=f"answered {status}") as caught:
        send(upstream)
    assert caught.value.after_s is None


@pytest.mark.parametrize(
    ("value", "after_s"),
    [
        ("7", 7),
        ("0", 0),
        ("999999", 3600),
        ("9" * 400, 3600),
        ("-7", None),
        ("7.5", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", None),
        ("\xb2", None),
    ],
)
def test_the_upstream_may_say_when(upstream, value, after_s):
    upstream.status = 503
    upstream.headers = {"Retry-After": value}
    with pytest.raises(Retry) as caught:
        send(upstream)
    assert caught.value.after_s == after_s


def test_gone_is_given_up(upstream):
    upstream.status = 410
    with pytest.raises(Discard, match="410"):
        send(upstream)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(upstream, status):
    upstream.status = status
    upstream.headers = {"Location": upstream.url}
    with pytest.raises(Retry, match=str(status)):
        send(upstream)
    assert len(upstream.got) == 1


@pytest.mark.parametrize("secret", [WHSEC, WHSEC.removeprefix("whsec_"), WHSEC.rstrip("=")])
def test_it_is_signed_anew_as_the_sdk_wants_it(upstream, secret):
    body = json.dumps({"a": "ü"}).encode()
    came = {b"webhook-signature": b"v1,old", b"webhook-id": b"old", b"webhook-timestamp": b"1"}
    _, headers, got = send(
        upstream, event(body, headers=came), sign_with=Secret.parse(f"plain:{secret}")
    )

    assert headers["webhook-id"] == "id-1"
    assert Webhook(WHSEC).verify(got, headers) == {"a": "ü"}


def test_without_a_secret_the_signature_of_the_sender_passes_through(upstream):
    _, headers, _ = send(upstream, event(headers={b"webhook-signature": b"v1,old"}))

    assert headers["webhook-signature"] == "v1,old"


def test_an_identifier_beyond_latin_1_can_be_signed_too(upstream):
    send(upstream, event(event_id="イベント"), sign_with=Secret.parse(f"plain:{WHSEC}"))


@pytest.mark.parametrize("secret", ["whsec_", "whsec_!!!", "not base64"])
def test_a_secret_that_is_no_base64_stops_the_start_and_is_not_shown(secret):
    with pytest.raises(ConfigError, match="sign_with: expected whsec_ and base64") as caught:
        build(Settings("http://x/", sign_with=Secret.parse(f"plain:{secret}")))
    assert "!!!" not in str(caught.value)


def test_connections_are_used_again(upstream):
    made = build(Settings(upstream.url))
    for _ in range(3):
        made.function(event())

    assert len(upstream.connections) == 1


def test_what_fails_to_connect_is_tried_again(monkeypatch):
    quiet_retries(monkeypatch)
    gone = Upstream()
    gone.close()
    made = build(Settings(gone.url))

    outcomes = outcomes_of(made, delivery())

    assert kinds(outcomes) == ["retry"] * 5 + ["dead"]
    assert "refused" in outcomes[0].error


def test_an_upstream_that_comes_back_gets_the_event(monkeypatch, upstream):
    quiet_retries(monkeypatch, 0.02)
    upstream.status = 500
    made = build(Settings(upstream.url))
    answered = threading.Event()

    class Count(list):  # the upstream recovers after its second answer
        def append(self, item):
            super().append(item)
            if len(self) == 2:
                upstream.status = 200
                answered.set()

    upstream.got = Count()
    outcomes = outcomes_of(made, delivery())

    assert answered.is_set()
    assert outcomes[-1].kind == "done"
    assert [got[1]["x-fasthook-attempt"] for got in upstream.got] == ["1", "2"]


@pytest.mark.parametrize(
    "url",
    [
        *("", "example.com", "/path", "ftp://example.com/", "http://", "http:///path", "http://?a"),
        *("http://user:pw@example.com/", "http://user@example.com/", "http://h:99999/"),
        *("http://[::1/", "http://a b/", "file:///etc/passwd", "http://h:port/"),
    ],
)
def test_a_url_that_can_not_be_meant_stops_the_start(url):
    with pytest.raises(ConfigError, match="url: expected http:// or https://") as caught:
        build(Settings(url))
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize("connections", [0, -1])
def test_no_connections_at_all_stop_the_start_with_a_clear_word(connections):
    with pytest.raises(ConfigError, match="connections"):
        build(Settings("http://x/", connections=connections))


def test_it_takes_as_many_at_once_as_it_has_connections():
    made = build(Settings("https://example.com", connections=3))

    assert (made.concurrency, made.runs_in) == (3, "thread")
