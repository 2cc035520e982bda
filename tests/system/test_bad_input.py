"""Bad input: each its answer, one line in the log, nothing else; and nothing in memory."""

import contextlib
import gzip
import hmac
import json
import socket
import time

import pytest

from tests.system.conftest import SECRET, Service, exchange, status_of, wait_for

CONFIG = """
[server]
listen = ["tcp://127.0.0.1:0"]
[admin]
listen = "tcp://127.0.0.1:0"
[log]
format = "json"
[[endpoint]]
name = "github"
path = "/github"
provider = "github"
secrets = ["env:HOOK_SECRET"]
handlers = ["strict_order"]
[[endpoint]]
name = "stripe"
path = "/stripe"
provider = "stripe"
secrets = ["env:HOOK_SECRET"]
handlers = ["strict_order"]
"""
BODY = b'{"id": 1, "total_price": "19.90"}'


def signature(body: bytes) -> str:
    return "sha256=" + hmac.digest(SECRET.encode(), body, "sha256").hex()


def request(
    body: bytes = BODY,
    *,
    method: str = "POST",
    path: str = "/github",
    drop: tuple[str, ...] = (),
    **fields: str | bytes,
) -> bytes:
    """A good request, with some fields dropped, replaced (`a_b` is `a-b`) or added."""
    headers: dict[str, str | bytes] = {
        "host": "hooks.test",
        "content-type": "application/json",
        "content-length": str(len(body)),
        "x-github-event": "order",
        "x-github-delivery": "1",
        "x-hub-signature-256": signature(body),
    }
    headers |= {name.replace("_", "-"): value for name, value in fields.items()}
    lines = [f"{method} {path} HTTP/1.1".encode()]
    for name, value in headers.items():
        if name not in drop:
            lines.append(
                name.encode() + b": " + (value if isinstance(value, bytes) else value.encode())
            )
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def stripe(body: bytes, signed_at: int) -> bytes:
    mac = hmac.digest(SECRET.encode(), f"{signed_at}.".encode() + body, "sha256").hex()
    return request(body, path="/stripe", stripe_signature=f"t={signed_at},v1={mac}")


GZIPPED = gzip.compress(BODY)
TWICE = request().replace(b"\r\n\r\n", b"\r\nX-Hub-Signature-256: sha256=00\r\n\r\n", 1)

CASES = {
    "wrong method": (request(method="PUT"), 405),
    "get": (request(b"", method="GET", drop=("content-length",)), 405),
    "unknown path": (request(path="/nowhere"), 404),
    "path with a dot segment": (request(path="/x/../github"), 404),
    "no signature": (request(drop=("x-hub-signature-256",)), 401),
    "empty signature": (request(x_hub_signature_256="sha256="), 401),
    "two signature headers": (TWICE, 400),
    "signed with another secret": (request(x_hub_signature_256=signature(b"other")), 401),
    "non-ASCII signature": (request(x_hub_signature_256=b"sha256=\xff\xfe\x80"), 401),
    "1 MB signature": (request(x_hub_signature_256="sha256=" + "a" * 1_000_000), 431),
    "wrong content type": (request(content_type="text/plain"), 415),
    "not JSON": (request(b"hello"), 400),
    "cut off JSON": (request(b'{"id": 1, "total_price": "19'), 400),
    "empty body": (request(b""), 400),
    "gzip body": (request(GZIPPED, content_encoding="gzip"), 415),
    "2 GiB declared": (request(content_length=str(2 * 1024**3)), 413),
    "nonsense": (b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03", 400),
}


@pytest.fixture
def service(serve) -> Service:
    return serve(CONFIG)


def test_each_bad_input_has_its_answer_and_one_line(service: Service):
    for name, (raw, status) in CASES.items():
        before = len(service.messages("rejected"))
        answer = exchange(service.port, raw)
        assert status_of(answer) == status, (name, answer[:200])
        assert (b"Allow: POST" in answer) == (status == 405), name
        wait_for(lambda n=before: len(service.messages("rejected")) > n, f"a line about {name}")
        lines = service.messages("rejected")[before:]
        assert [line["status"] for line in lines] == [status], (name, lines)
        assert lines[0]["reason"], name
    assert service.stop() == 0
    assert service.records() == []
    assert not service.messages("internal error")
    assert SECRET not in "".join(service.lines)


def test_a_stale_event_is_refused_and_a_fresh_one_taken(service: Service):
    body = b'{"id": 1, "type": "order", "total_price": "19.90"}'
    now = int(time.time())
    assert status_of(exchange(service.port, stripe(body, now - 301))) == 401
    assert status_of(exchange(service.port, stripe(body, now + 310))) == 401
    assert status_of(exchange(service.port, stripe(body, now - 200))) == 202


def test_json_that_does_not_fit_is_accepted_and_becomes_a_dead_letter(service: Service):
    assert status_of(exchange(service.port, request(b'{"id": "one"}'))) == 202
    wait_for(lambda: service.messages("dead"), "the dead letter")
    (dead,) = service.messages("dead")
    assert "`int`, got `str`" in dead["error"]
    assert service.records() == []


def test_a_gibibyte_streamed_is_refused_after_the_limit(service: Service):
    status_of(exchange(service.port, request()))
    before_mib = service.rss_mib()
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    sent = 0
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as client:
        client.sendall(request(b"", drop=("content-length",), transfer_encoding="chunked"))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while sent < 1024**3:
                client.sendall(chunk)
                sent += len(chunk)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            answer = client.recv(4096)
    assert status_of(answer) in (413, 0)  # 0: the reset overtook the answer
    assert sent < 16 * 1024**2  # what the kernel's buffers take
    wait_for(lambda: service.messages("rejected"), "the log")
    assert service.messages("rejected")[0]["status"] == 413
    assert service.rss_mib() - before_mib < 8


def test_what_a_client_sends_can_not_write_to_the_log(service: Service):
    path = "/%0d%0a\x1b"
    exchange(service.port, f"POST {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    exchange(service.port, "POST /a\u202eb HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    wait_for(lambda: len(service.messages("rejected")) == 2, "the log")
    for line in service.lines:
        assert "\x1b" not in line
        json.loads(line)
