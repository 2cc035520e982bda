"""Those pitfalls of verification that need sockets, files or a running service, on each form of
scheme; and that of S1 to S33 none is missing.

One service has an endpoint of its own for each row and scheme. See tests/intake/test_pitfalls.py.
"""

import contextlib
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fasthook import config, plan
from fasthook.errors import ConfigError
from tests.intake.cases import URL, Case, everything, in_header, row
from tests.intake.support import NOW_S
from tests.system.clocked import Clock
from tests.system.conftest import PATIENCE_S, ROOT, Service, exchange, status_of, wait_for
from tests.system.road import Answer, Road
from tests.system.test_vectors import SERVER, Wanted

ROWS = ("S14", "S15", "S15b", "S16", "S18", "S19", "S21", "S21b", "S23", "S25", "S31")


def name_of(number: str, case: Case) -> str:
    return f"{number}-{everything().index(case)}"


def table_of(number: str, case: Case) -> str:
    settings = tuple(case.settings.items())
    secret = case.verifies.decode()
    wanted = Wanted(case.provider, case.scheme_name, (secret,), URL, settings)
    table = wanted.table(name_of(number, case))
    if number.startswith("S21"):
        return re.sub(r"secrets = .*", f'secrets = ["file:{name_of(number, case)}"]', table)
    return table


class Rows:
    """The service; requests to a row's endpoint."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.road = self.new_road()
        self.sent: set[bytes] = set()  # signatures, for S28

    def new_road(self) -> Road:
        address = ("127.0.0.1", self.service.port)
        return Road(lambda: socket.create_connection(address, PATIENCE_S), False)

    def send(self, number, case, request, road=None) -> Answer:
        if in_header(case):
            self.sent.add(case.text(case.request()))
        method = request.method.decode()
        return (road or self.road).exchange(method, name_of(number, case), URL, request)

    def told(self, number, case) -> list[str]:
        """The kinds of what was answered with success there, in order, once they are said."""
        name = name_of(number, case)
        return [
            line["message"]
            for line in self.service.log()
            if line.get("endpoint") == name and "secret" in line
        ]

    def is_told(self, number, case, *messages) -> bool:
        return wait_for(lambda: self.told(number, case) == list(messages), f"{messages}")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rows]:
    folder = tmp_path_factory.mktemp("pitfalls")
    clock = Clock(folder / "clock")
    clock.set(NOW_S)
    for case in everything():
        (folder / name_of("S21", case)).write_bytes(case.verifies + b"\n")
        more = b"\n\n" if has_plain_key(case) else b"\n"
        (folder / name_of("S21b", case)).write_bytes(case.verifies + more)
    tables = [table_of(number, case) for number in ROWS for case in everything()]
    text = SERVER.format(folder=folder) + "\n".join(tables)
    service = Service(text, folder, {"PYTHONPATH": str(ROOT)}, clock)
    made = Rows(service)
    yield made
    made.road.close()
    service.stop()


def has_plain_key(case: Case) -> bool:
    """Whether the secret is the key as it stands, and no byte of it is trimmed off."""
    scheme = case.scheme
    return scheme.key_encoding == "utf8" and scheme.kind in ("hmac", "digest", "token", "basic")


# --- replays --------------------------------------------------------------------------------------


@row(14)
def test_what_comes_again_is_handled_once(case, rows):
    first, second = (rows.send("S14", case, case.request()) for _ in range(2))
    assert 200 <= first.status < 300
    assert (second.status, second.body) == (first.status, first.body)
    rows.is_told("S14", case, "accepted", "duplicate")


@row(14, where=lambda case: case.provider in ("github", "stripe", "gitlab"))
def test_a_hundred_at_once_are_handled_once(case, rows):
    request = case.request(case.body.replace(b"evt_1", b"evt_2"))
    roads = [rows.new_road() for _ in range(20)]
    with ThreadPoolExecutor(20) as pool:
        sent = pool.map(lambda n: rows.send("S14", case, request, roads[n]), range(20))
        answers = [one.status for one in sent]
        for road in roads:
            answers += [rows.send("S14", case, request, road).status for _ in range(4)]
    for road in roads:
        road.close()
    assert len(answers) == 100
    assert len(set(answers)) == 1
    wait_for(lambda: rows.told("S14", case).count("duplicate") >= 99, "the duplicates")
    assert rows.told("S14", case).count("accepted") <= 2  # with the one of the test above


@row(15)
def test_two_endpoints_of_one_secret_have_ids_of_their_own(case, rows):
    for number in ("S15", "S15b"):
        assert 200 <= rows.send(number, case, case.request()).status < 300
        rows.is_told(number, case, "accepted")


@row(16)
def test_a_forged_request_takes_no_id(case, rows):
    request = case.request()
    forged = case.with_text(request, b"x" * len(case.text(request)))
    for _ in range(3):
        assert rows.send("S16", case, forged).status == case.known.refusal_status
    assert 200 <= rows.send("S16", case, request).status < 300
    rows.is_told("S16", case, "accepted")  # and no duplicate of what was refused


# --- headers --------------------------------------------------------------------------------------


@row(18, where=in_header)
def test_two_headers_of_one_signature_are_refused_in_either_order(case, rows):
    request = case.request()
    right = request.headers[case.place.key]
    for several in ([right, b"x"], [b"x", right], [right, right]):
        request.repeated = {case.place.key: several}
        answer = rows.send("S18", case, request)
        assert answer.status == (400 if not case.scheme.may_repeat else answer.status)
    request.repeated = None
    if case.scheme.format == "raw" and case.provider != "plivo":  # who sends several like that
        for joined in (right + b", x", b"x, " + right, right + b"," + right):
            sent = case.with_value(request, joined)
            assert rows.send("S18", case, sent).status == case.known.refusal_status
    assert 200 <= rows.send("S18", case, request).status < 300


@row(19, where=in_header)
def test_a_signature_in_a_trailer_is_none(case, rows):
    request = case.request()
    name = case.place.key
    signature = request.headers.pop(name)
    head = [b"POST /%s HTTP/1.1" % name_of("S19", case).encode(), b"Host: a"]
    head += [key + b": " + value for key, value in request.headers.items()]
    head += [b"Transfer-Encoding: chunked", b"", b""]
    size, end = b"%x\r\n" % len(request.body), b"\r\n0\r\n"
    trailer = name + b": " + signature + b"\r\n\r\n"
    raw = b"\r\n".join(head) + size + request.body + end
    port = rows.service.port
    assert status_of(exchange(port, raw + trailer)) in (case.known.refusal_status, 400)
    head.insert(2, name + b": " + signature)  # the control: the same in the head
    raw = b"\r\n".join(head) + size + request.body + end + b"\r\n"
    assert 200 <= status_of(exchange(port, raw)) < 300


@row(23, where=in_header)
def test_white_space_around_a_header_is_no_part_of_it(case, rows):
    request = case.request()
    value = request.headers[case.place.key]
    for spaced in (value + b"\t", b" \t " + value, value + b"  "):
        assert 200 <= rows.send("S23", case, case.with_value(request, spaced)).status < 300


# --- secrets in files -----------------------------------------------------------------------------


@row(21)
def test_one_line_break_ends_a_file_and_belongs_to_no_key(case, rows):
    assert 200 <= rows.send("S21", case, case.request()).status < 300


@row(21, where=has_plain_key)
def test_another_line_break_belongs_to_the_key(case, rows):
    """The control: had it been trimmed, too, this would have passed."""
    assert rows.send("S21b", case, case.request()).status == case.known.refusal_status


@row(21)
def test_a_secret_with_a_nul_is_refused_at_the_start(case, tmp_path):
    (tmp_path / "secret").write_bytes(case.verifies + b"\0")
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, case, "file:secret")
    assert case.verifies.decode() not in str(caught.value)


@pytest.mark.parametrize(
    "reference",
    ["plain:", "plain:   ", "env:NO_SUCH_NAME", "file:missing", "file:empty", "file:blank", ""],
)
@row(3)
def test_without_a_secret_nothing_starts(case, reference, tmp_path, monkeypatch):
    monkeypatch.delenv("NO_SUCH_NAME", raising=False)
    (tmp_path / "empty").write_bytes(b"\n")
    (tmp_path / "blank").write_bytes(b" \t\n")
    with pytest.raises(ConfigError):
        loaded(tmp_path, case, reference)


def loaded(folder: Path, case: Case, reference: str):
    table = re.sub(r"secrets = .*", f'secrets = ["{reference}"]', table_of("S14", case))
    (folder / "fasthook.toml").write_text(table)
    return plan.make(config.load(folder / "fasthook.toml"))


# --- bodies and paths -----------------------------------------------------------------------------


@row(25, where=lambda case: case.provider in ("github", "stripe", "gitlab", "aws-sns", "mailgun"))
def test_a_body_without_end_is_refused_at_the_limit_whoever_sends_it(case, rows):
    before_mib = rows.service.rss_mib()
    sent, piece = 0, b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    for path in (name_of("S25", case), "nowhere"):
        with socket.create_connection(("127.0.0.1", rows.service.port), PATIENCE_S) as client:
            head = f"POST /{path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            client.sendall(head.encode())
            received = b""
            with contextlib.suppress(ConnectionError):
                while sent < 2**30:
                    client.sendall(piece)
                    sent += len(piece)
            with contextlib.suppress(ConnectionError):
                received = client.recv(65536)
        assert status_of(received) in (413, 404, 0)  # 0: reset before it was read
        assert sent < 2**26
    assert rows.service.rss_mib() - before_mib < 16


PATHS = [
    "/x/../{}", "/./{}", "//{}", "/{}/", "/{}//", "/%53{}", "/{}%2f", "/{}%00", "/{};x", "/{}.", "/{}%20",
    "/x/%2e%2e/{}", "/{}/..", "/{}/../{}", "\\{}", "/{}%3Fa=b",
]  # fmt: skip


@row(31)
def test_another_path_is_another_place(case, rows):
    request = case.request()
    name = name_of("S31", case)
    query = request.target.partition(b"?")[2]
    lines = [key + b": " + value for key, value in request.headers.items()]
    lines += [b"Content-Length: %d" % len(request.body), b"Host: a", b"", request.body]
    for number, path in enumerate([f"/{name}", f"/{name.lower()}", *PATHS]):
        target = path.format(name, name).encode() + (b"?" + query if query else b"")
        raw = b"POST " + target + b" HTTP/1.1\r\n" + b"\r\n".join(lines)
        status = status_of(exchange(rows.service.port, raw))
        assert 200 <= status < 300 if number == 0 else status in (404, 400), path


# --- what is said ---------------------------------------------------------------------------------


def outputs(service: Service) -> str:
    """All that others can read of a service, but for what the handler `log` says of the events."""
    process = Path(f"/proc/{service.process.pid}")
    texts = [(process / "cmdline").read_text()]
    with urllib.request.urlopen(f"http://127.0.0.1:{service.admin_port}/metrics") as answer:
        texts.append(answer.read().decode())
    texts += [line for line in service.lines if '"message":"event"' not in line]
    return "\n".join(texts)


@row(28)
def test_neither_a_secret_nor_a_signature_is_said_anywhere(case, rows):
    """After all the others of this file."""
    rows.send("S14", case, case.request())
    rows.send("S16", case, case.with_text(case.request(), b"x" * 8))
    text = outputs(rows.service)
    told = [case.verifies.decode(), case.signs.decode()]
    if case.provider != "dropbox-sign":  # where the signature is what its sender names an event by
        told.append(case.text(case.request()).decode())
    for one in told:
        assert one not in text or len(one) < 6
    assert name_of("S14", case) in text, "the control: it is the log of these requests"


def test_a_row_is_missing_nowhere():
    """Of S1 to S33 each has a test, and those of every signature have one for each kind."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-v", "-p", "no:xdist"]
    command += ["tests/intake/test_pitfalls.py", "tests/system/test_pitfalls.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = set(re.findall(r"[\[-]S(\d+)-([a-z0-9]+)", done.stdout))
    assert {int(number) for number, _ in found} == set(range(1, 34))
    kinds = {case.scheme.kind for case in everything()}
    for number in (2, 3, 4, 5, 14, 15, 16, 20, 21, 26, 27, 28, 30, 31, 32):
        assert {kind for row_, kind in found if row_ == str(number)} >= kinds, f"S{number}"
