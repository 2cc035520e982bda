"""The server block that `fasthook init --nginx` writes, in a real nginx before a real service."""

import contextlib
import hmac
import json
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.nginx import configured, moved
from bench.systems import is_open
from tests.ports import free_ports
from tests.system.conftest import PATIENCE_S, ROOT, SECRET, Service, certificate, needs, wait_for

HOST = "hooks.test"
CONFIG = """
[server]
listen = ["tcp://127.0.0.1:0", "unix:{socket}"]
max_body = "64KiB"
[admin]
listen = "tcp://127.0.0.1:0"
[spool]
durability = "os"
[log]
format = "json"
[[endpoint]]
name = "github"
path = "/github"
provider = "github"
secrets = ["env:HOOK_SECRET"]
handlers = ["record"]
"""
PUSH = {"ref": "refs/heads/main", "after": "9049f126", "commits": []}


def written(folder: Path, *options: str | Path) -> Path:
    """The block, as the command writes it into `folder`."""
    command = [sys.executable, "-m", "fasthook.cli", "init", "--nginx", HOST, str(folder)]
    subprocess.run([*command, *map(str, options)], check=True, capture_output=True)
    return folder / f"{HOST}.conf"


class Front:
    """nginx with the block, and the service behind it, if there is one."""

    def __init__(self, folder: Path, block: str) -> None:
        self.folder = folder
        self.service: Service | None = None
        self.http, self.https = free_ports(2)
        needs("nginx")
        certificate(folder, HOST)
        path = folder / f"{HOST}.conf"
        path.write_text(moved(block, HOST, folder, self.http, self.https))
        self.command = configured(folder, f"include {path};")

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stderr=subprocess.DEVNULL)
        wait_for((self.folder / "nginx.pid").exists, "nginx to begin")
        wait_for(lambda: is_open(self.https), "nginx to listen")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE_S)

    def curl(self, path: str, *options: str) -> tuple[int, str, str]:
        """Status, protocol and body of an answer over TLS."""
        answer = subprocess.run(
            [
                *(needs("curl"), "--silent", "--show-error", "--max-time", "20"),
                *("--cacert", str(self.folder / "cert.pem")),
                *("--resolve", f"{HOST}:{self.https}:127.0.0.1"),
                *("--write-out", "\n%{http_code} %{http_version}"),
                *(*options, f"https://{HOST}:{self.https}{path}"),
            ],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        body, _, end = answer.rpartition("\n")
        status, protocol = end.split()
        return int(status), protocol, body

    def post(self, body: bytes, *options: str, name: str = "event-1") -> tuple[int, str, str]:
        """Post a signed push."""
        (self.folder / "body.json").write_bytes(body)
        signature = hmac.digest(SECRET.encode(), body, "sha256").hex()
        return self.curl(
            "/github?token=not-for-logs",
            *("--header", "Content-Type: application/json", "--header", "X-GitHub-Event: push"),
            *("--header", f"X-GitHub-Delivery: {name}"),
            *("--header", f"X-Hub-Signature-256: sha256={signature}"),
            *("--data-binary", f"@{self.folder}/body.json", *options),
        )

    def accesses(self) -> list[dict]:
        """The access log, each line of it JSON."""
        text = (self.folder / "access.json").read_text("utf-8", "strict")
        return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def front(serve, folder: Path) -> Iterator[Front]:
    needs("nginx")
    service = serve(CONFIG.format(socket=folder / "fasthook.sock"))
    made = Front(folder, written(folder, "-c", service.config).read_text())
    made.service = service
    made.start()
    yield made
    made.stop()


def body_of(size: int) -> bytes:
    body = json.dumps({**PUSH, "padding": ""}).encode()
    return body.replace(b'"padding": ""', b'"padding": "%s"' % (b"x" * (size - len(body))))


@pytest.mark.parametrize(
    ("option", "protocol"), [("--http1.1", "1.1"), ("--http2", "2"), ("--tls-max=1.2", "2")]
)
def test_a_push_arrives_with_its_client_by_every_protocol(option, protocol, front: Front):
    forged = ("--header", "X-Forwarded-For: 192.0.2.66", "--header", "Forwarded: for=192.0.2.66")
    options = [*option.split("="), *forged]
    assert front.post(json.dumps(PUSH).encode(), *options)[:2] == (202, protocol)
    assert front.service is not None
    wait_for(front.service.records, "the handler")
    assert front.service.records()[0]["payload"] == PUSH
    wait_for(lambda: front.service.messages("accepted"), "the log")
    (line,) = front.service.messages("accepted")
    assert line["client"] == "127.0.0.1"


def test_the_largest_body_passes_and_a_larger_one_is_413(front: Front):
    assert front.post(body_of(64 * 1024))[0] == 202
    status, _, body = front.post(body_of(64 * 1024 + 1), name="event-2")
    assert (status, body) == (413, "body too large\n")
    status, _, _ = front.post(body_of(64 * 1024 + 1), "--http1.1", name="event-3")
    assert status == 413


def test_the_access_log_is_json_without_the_query(front: Front):
    front.post(json.dumps(PUSH).encode(), "--user-agent", 'a "b" \\ é')
    front.curl("/%22%0a%ff?secret=1")
    wait_for(lambda: len(front.accesses()) == 2, "nginx to write")
    first, second = front.accesses()
    assert (first["status"], first["path"], first["method"]) == (202, "/github", "POST")
    assert (first["client"], first["host"]) == ("127.0.0.1", HOST)
    assert (first["protocol"], first["tls"]) == ("HTTP/2.0", "TLSv1.3")
    assert first["upstream_status"] == "202"
    assert first["agent"] == 'a "b" \\ é'
    assert isinstance(first["seconds"], float)
    assert second["status"] == 404
    text = (front.folder / "access.json").read_text()
    assert "token" not in text
    assert "secret" not in text


def test_a_challenge_of_acme_is_served_and_nothing_else_without_tls(front: Front):
    place = front.folder / "acme/.well-known/acme-challenge"
    place.mkdir(parents=True)
    (place / "abc-DEF_123").write_text("abc.thumbprint")
    url = f"http://127.0.0.1:{front.http}"
    answers = {
        path: subprocess.run(
            [
                *(needs("curl"), "-s", "--max-time", "20", "--path-as-is", "-H", f"Host: {HOST}"),
                *("-w", " %{http_code}", url + path),
            ],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for path in (
            "/.well-known/acme-challenge/abc-DEF_123",
            "/.well-known/acme-challenge/none",
            "/.well-known/acme-challenge/../../../key.pem",
            "/github",
        )
    }
    found, none, outside, plain = answers.values()
    assert found == "abc.thumbprint 200"
    assert none.endswith(" 404")
    assert outside.endswith((" 400", " 403"))
    assert plain == "https only\n 403"


def handshake(port: int, version: ssl.TLSVersion, folder: Path) -> str | None:
    """The protocol that is agreed on. Raises `ssl.SSLError`."""
    context = ssl.create_default_context(cafile=str(folder / "cert.pem"))
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as opened,
        context.wrap_socket(opened, server_hostname=HOST) as wrapped,
    ):
        return wrapped.version()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_tls_is_refused(front: Front):
    assert handshake(front.https, ssl.TLSVersion.TLSv1_2, front.folder) == "TLSv1.2"
    assert handshake(front.https, ssl.TLSVersion.TLSv1_3, front.folder) == "TLSv1.3"
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        handshake(front.https, ssl.TLSVersion.TLSv1_1, front.folder)


class Dying:
    """A service that reads a whole request and dies, for each that comes: how many came?"""

    def __init__(self, path: Path) -> None:
        self.requests: list[bytes] = []
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        path.chmod(0o666)
        self._socket.listen()
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                opened, _ = self._socket.accept()
                with opened:
                    data = opened.recv(65536)
                    while b"commits" not in data:
                        data += opened.recv(65536)
                    self.requests.append(data)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.mark.parametrize("retries", [False, True])
def test_a_post_is_not_sent_again_when_the_service_dies_on_it(retries, folder: Path):
    """The control: with nginx's own setting for it, and a second server, it is."""
    block = written(folder).read_text().replace("/run/fasthook/fasthook.sock", f"{folder}/a.sock")
    if retries:
        server = f"server unix:{folder}/a.sock;"
        block = block.replace(server, f"{server} server unix:{folder}/b.sock;")
        assert "proxy_next_upstream off;" in block
        block = block.replace("upstream off;", "upstream error non_idempotent;")
    servers = [Dying(folder / name) for name in ("a.sock", "b.sock")]
    front = Front(folder, block)
    front.start()
    try:
        status, _, body = front.post(json.dumps(PUSH).encode())
    finally:
        front.stop()
        for server in servers:
            server.close()
    assert (status, body) == (503, "busy\n")
    assert sum(len(server.requests) for server in servers) == (2 if retries else 1)


def test_without_a_service_senders_are_told_to_come_again(folder: Path):
    front = Front(folder, written(folder).read_text())
    front.start()
    try:
        status, _, answer = front.curl("/github", "--include", "--data", "x")
    finally:
        front.stop()
    assert status == 503
    assert "retry-after: 5" in answer.lower()
    assert "strict-transport-security: max-age=63072000" in answer.lower()


def test_a_kept_connection_is_given_up_by_nginx_first(front: Front):
    """RELIABILITY: the other way round a POST may meet a connection that is just being closed."""
    text = (front.folder / f"{HOST}.conf").read_text()
    keep_s = int(re.search(r"keepalive_timeout (\d+)s;.*below", text)[1])  # type: ignore[index]
    assert keep_s < 75
    for number in range(3):
        assert front.post(json.dumps(PUSH).encode(), name=f"event-{number}")[0] == 202
    log = subprocess.run(
        ["grep", "-c", "connection", str(front.folder / "error.log")], capture_output=True
    )
    assert log.stdout.strip() == b"0"


def test_nginx_finds_nothing_wrong_with_it_and_neither_of_the_newer_form(folder: Path):
    needs("nginx")
    block = written(folder).read_text()
    front = Front(folder, block)
    result = subprocess.run([*front.command, "-t"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "[warn]" not in result.stderr
    assert "[emerg]" not in result.stderr


def test_the_file_in_the_repository_is_the_one_in_the_package():
    packaged = ROOT / "fasthook/cli/template/nginx.conf.txt"
    assert (ROOT / "nginx/fasthook.conf").read_text() == packaged.read_text()


def test_the_flood_beyond_the_outer_guard_is_503(folder: Path, serve):
    service = serve(CONFIG.format(socket=folder / "fasthook.sock"))
    block = written(folder, "-c", service.config).read_text()
    block = block.replace("rate=1000r/s", "rate=1r/s").replace("burst=2000", "burst=2")
    front = Front(folder, block)
    front.start()
    try:
        urls = [f"https://{HOST}:{front.https}/github"] * 7
        answer = subprocess.run(
            [
                *(needs("curl"), "-s", "--cacert", str(folder / "cert.pem")),
                *("--resolve", f"{HOST}:{front.https}:127.0.0.1", "-d", "x"),
                *("-o", "/dev/null", "-w", "%{http_code} ", *urls),
            ],
            check=False,
            capture_output=True,
            text=True,
        ).stdout
    finally:
        front.stop()
    first, *_, last = answer.split()
    assert (first, last) == ("401", "503")
