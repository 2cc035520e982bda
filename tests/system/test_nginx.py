"""From a client that is none of ours, through TLS and nginx, to an installed package's handler."""

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.system.conftest import SECRET, SHARED, Service, certificate, needs, nginx, wait_for

CONFIG = """
[server]
listen = ["tcp://127.0.0.1:0", "unix:{socket}"]
[admin]
listen = "tcp://127.0.0.1:0"
[log]
format = "json"
[[endpoint]]
name = "github"
path = "/github"
provider = "github"
secrets = ["env:HOOK_SECRET"]
handlers = ["record"]
[[endpoint]]
name = "push"
path = "/push"
provider = "github"
secrets = ["env:HOOK_SECRET"]
handlers = ["record_push"]
"""

HTTP = """
  client_max_body_size 25m;
  upstream fasthook {{ server unix:{socket}; keepalive 8; }}
  server {{
    listen unix:{folder}/tls.sock ssl;
    server_name hooks.test;
    ssl_certificate {folder}/cert.pem;
    ssl_certificate_key {folder}/key.pem;
    location / {{
      proxy_pass http://fasthook;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For 192.0.2.7;
      proxy_next_upstream off;
    }}
  }}
"""


class Front(NamedTuple):
    """nginx, and the service behind it."""

    folder: Path
    service: Service

    def post(self, path: str, body: Path, signature: str, event: str = "push") -> int:
        """Post a file with curl; the status."""
        answer = subprocess.run(
            [
                *(needs("curl"), "--silent", "--show-error", "--max-time", "20"),
                *("--cacert", str(self.folder / "cert.pem")),
                *("--unix-socket", str(self.folder / "tls.sock")),
                *("--output", "/dev/null", "--write-out", "%{http_code}"),
                *("--header", "Content-Type: application/json"),
                *("--header", f"X-GitHub-Event: {event}"),
                *("--header", f"X-GitHub-Delivery: {body.name}"),
                *("--header", f"X-Hub-Signature-256: sha256={signature}"),
                *("--data-binary", f"@{body}", f"https://hooks.test{path}"),
            ],
            check=True,
            capture_output=True,
            text=True,
        )
        return int(answer.stdout)


def openssl_hmac(body: Path, secret: str = SECRET) -> str:
    """The signature, as `openssl dgst` makes it."""
    command = [needs("openssl"), "dgst", "-sha256", "-hmac", secret, "-r", str(body)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[0]


@pytest.fixture
def front(serve, tmp_path: Path) -> Iterator[Front]:
    needs("nginx")
    socket_path = tmp_path / "fasthook.sock"
    service = serve(CONFIG.format(socket=socket_path))
    certificate(tmp_path, "hooks.test")
    http = HTTP.format(folder=tmp_path, socket=socket_path)
    with nginx(tmp_path, http, tmp_path / "tls.sock"):
        yield Front(tmp_path, service)


def own_push(folder: Path) -> Path:
    body = folder / "push.json"
    repository = {"id": 186853002, "full_name": "example/shop", "private": False}
    push = {"ref": "refs/heads/main", "after": "9049f126", "repository": repository, "commits": []}
    body.write_text(json.dumps(push, indent=2))
    return body


def test_a_signed_push_reaches_a_typed_handler(front: Front):
    body = own_push(front.folder)
    assert front.post("/push", body, openssl_hmac(body)) == 202
    wait_for(front.service.records, "the handler")
    (record,) = front.service.records()
    assert record["kind"] == "Push"
    sent = json.loads(body.read_text())
    assert record["payload"] == {
        "ref": sent["ref"],
        "after": sent["after"],
        "repository": {"id": 186853002, "full_name": "example/shop"},
    }
    wait_for(lambda: front.service.messages("accepted"), "the log")
    (line,) = front.service.messages("accepted")
    assert (line["client"], line["secret"]) == ("192.0.2.7", 0)


def test_a_flipped_bit_is_refused_and_the_handler_never_runs(front: Front):
    body = own_push(front.folder)
    good = openssl_hmac(body)
    flipped = front.folder / "flipped.json"
    flipped.write_bytes(body.read_bytes().replace(b"main", b"main"[:-1] + b"o"))
    assert front.post("/push", flipped, good) == 401
    assert front.post("/push", body, f"{int(good[0], 16) ^ 1:x}{good[1:]}") == 401
    assert front.post("/push", body, openssl_hmac(body, SECRET[:-1] + "8")) == 401
    assert front.service.stop() == 0
    assert front.service.records() == []
    assert len(front.service.messages("rejected")) == 3


def test_every_real_payload_arrives_as_it_was_sent(front: Front):
    files = sorted((SHARED / "payloads/github").glob("*.json"))
    if not files:
        pytest.skip("the real payloads are not here")

    def post(body: Path) -> int:
        return front.post("/github", body, openssl_hmac(body), body.name.partition("__")[0])

    with ThreadPoolExecutor(4) as posts:
        statuses = list(posts.map(post, files))
    assert set(statuses) == {202}
    assert front.service.stop() == 0
    got = {record["id"]: record for record in front.service.records()}
    # A ping is a handshake: answered, and for no handler unless it is asked for.
    pushed = [body for body in files if not body.name.startswith("ping__")]
    assert len(got) == len(pushed)
    assert len(files) - len(pushed) <= 3
    for body in pushed:
        record = got[body.name]
        assert record["payload"] == json.loads(body.read_text()), body.name
        assert record["type"] == body.name.partition("__")[0]
