"""The client against a real server: what it takes, and all that it refuses."""

import socket
import sys
import threading
import time
from ipaddress import ip_network

import pytest

from fasthook.errors import ConfigError
from fasthook.remote.client import Client, trusted_roots
from fasthook.remote.urls import FetchError
from tests.remote.keyserver import Authority, KeyServer, ok

LOOPBACK = [ip_network("127.0.0.0/8")]
CONNECTS: list[object] = []
_IS_WATCHING = threading.local()


def _watch(event: str, args: tuple) -> None:
    if event == "socket.connect" and getattr(_IS_WATCHING, "on", False):
        CONNECTS.append(args[1])


sys.addaudithook(_watch)


@pytest.fixture
def connects():
    """Every connect() of this thread, whoever makes it."""
    CONNECTS.clear()
    _IS_WATCHING.on = True
    yield CONNECTS
    _IS_WATCHING.on = False


@pytest.fixture
def client(authority, tmp_path):
    return client_of(authority, tmp_path)


def client_of(authority, folder, timeout_s=2.0, allow=LOOPBACK, answers=("127.0.0.1",)) -> Client:
    ca_file = str(authority.write_root(folder))
    return Client(ca_file, allow, None, timeout_s, lambda host, port: list(answers))


def refusal(client: Client, url: str, limit: int = 1000) -> str:
    with pytest.raises(FetchError) as caught:
        client.get(url, limit)
    return str(caught.value)


def test_it_fetches_and_says_who_it_is(client, server, connects):
    server.answers["/keys?a=1"] = ok(b"the keys", "Cache-Control: public, max-age=900", "Age: 100")
    got = client.get(f"https://keys.test:{server.port}/keys?a=1", 8)
    assert got == (b"the keys", 800.0)
    head = server.heads[0].lower()
    assert b"\r\nhost: keys.test\r\n" in head
    assert b"\r\nuser-agent: fasthook/" in head
    assert b"cookie" not in head
    assert b"authorization" not in head
    assert connects == [("127.0.0.1", server.port)]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("max-age=60", 60.0), ("s-maxage=5", None), ("no-store, max-age=60", 0.0),
        ("private", None), ("max-age=junk", None), ('max-age="60"', 60.0),
    ],
)  # fmt: skip
def test_what_the_server_says_of_its_age_is_read(client, server, said, expected):
    server.answers["/"] = ok(b"x", f"Cache-Control: {said}")
    assert client.get(f"https://keys.test:{server.port}", 8).max_age_s == expected


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: https://keys.test/\r\nContent-Length: 0\r\n\r\n", "redirect"),
        (b"HTTP/1.1 307 T\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n", "redirect"),
        (b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", "answered 404"),
        (b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", "answered 500"),
        (b"HTTP/1.1 204 No\r\n\r\n", "answered 204"),
        (ok(b"x" * 1001), "larger than 1000 bytes"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 5000, "larger than 1000 bytes"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"400\r\n" + b"x" * 1024 + b"\r\n0\r\n\r\n", "larger"),
        (b"HTTP/1.1 200 OK\r\n\r\n{}", "does not say how long it is"),
        (b"HTTP/1.1 200 OK\r\nX: y", "does not say how long it is"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nshort", "broke off"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n400\r\nshort", "can't be read"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: what\r\n\r\nshort", ""),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 5000 + b"\r\n", "can't be read"),
        (b"this is not HTTP\r\n\r\n", "can't be read"),
        (b"", "can't be read"),
    ],
)  # fmt: skip
def test_other_answers_are_no_keys(client, server, answer, reason):
    server.answers["/"] = answer
    assert reason in refusal(client, f"https://keys.test:{server.port}/")
    assert server.asked == ["/"], "no redirect was followed, and nothing asked for again"


def test_compressed_answers_are_not_unpacked(client, server):
    server.answers["/"] = ok(b"\x1f\x8b bomb", "Content-Encoding: gzip")
    assert client.get(f"https://keys.test:{server.port}/", 99).body == b"\x1f\x8b bomb"


@pytest.mark.parametrize("text", [b"", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_a_slow_server_has_its_time_and_no_more(authority, server, tmp_path, text):
    client = client_of(authority, tmp_path, timeout_s=1.0)
    server.answers["/"] = server.drip(text)
    began = time.monotonic()
    assert "no whole answer within 1 s" in refusal(
        client, f"https://keys.test:{server.port}/", 10**6
    )
    assert time.monotonic() - began < 4


def test_a_server_that_hangs_has_its_time_and_no_more(authority, server, tmp_path):
    client = client_of(authority, tmp_path, timeout_s=1.0)
    server.answers["/"] = server.hang
    began = time.monotonic()
    assert "no whole answer" in refusal(client, f"https://keys.test:{server.port}/")
    with socket.create_server(("127.0.0.1", 0)) as mute:  # no handshake either
        port = mute.getsockname()[1]
        assert "no connection to keys.test" in refusal(client, f"https://keys.test:{port}/")
    assert "refused" in refusal(client, f"https://keys.test:{port}/")
    assert time.monotonic() - began < 6


@pytest.mark.parametrize(
    "url",
    [
        "http://keys.test/", "file:///etc/passwd", "ftp://keys.test/", "keys.test", "https://", "https:///x",
        "https://user@keys.test/", "https://user:word@keys.test/", "https://keys.test@evil.test/",
        "https://keys.test:port/", "https://keys.test:99999/", "https://keys.test\\@evil.test/",
        "https://keys test/", "https://keys.test/\r\nX: y", "https://kéys.test/", "https://[::1]/",
        "gopher://keys.test/", "//keys.test/", "https://-keys/", "https://*/", "HTTPX://keys.test/",
    ],
)  # fmt: skip
def test_what_is_no_https_url_is_not_even_connected_to(client, connects, url):
    assert refusal(client, url)
    assert connects == []


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "169.254.169.254", "10.0.0.7", "::1", "::ffff:127.0.0.1", "fd00:ec2::254"],
)
def test_private_addresses_are_not_even_connected_to(
    authority, tmp_path, server, connects, address
):
    client = client_of(authority, tmp_path, allow=(), answers=[address])
    said = refusal(client, f"https://keys.test:{server.port}/")
    assert f"keys.test has no public address, but {address}; keys.allow may" in said
    assert connects == []
    assert server.connections == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "0x7f.1", "2130706433", "localhost", "0"])
def test_nor_are_names_of_this_host(authority, tmp_path, connects, host):
    client = Client(str(authority.write_root(tmp_path)), (), None, 1.0)
    assert "no public address" in refusal(client, f"https://{host}/")
    assert connects == []


def test_a_name_is_looked_up_once_so_that_it_can_not_answer_otherwise_later(
    authority, tmp_path, server, connects
):
    answers = [["127.0.0.1"], ["127.0.0.2"]]
    client = Client(
        str(authority.write_root(tmp_path)), [ip_network("127.0.0.1/32")], None, 1.0,
        lambda host, port: answers.pop(0),
    )  # fmt: skip
    server.answers["/"] = ok(b"x")
    assert client.get(f"https://keys.test:{server.port}/", 9).body == b"x"
    assert len(answers) == 1
    assert connects == [("127.0.0.1", server.port)]
    assert "no public address, but 127.0.0.2" in refusal(
        client, f"https://keys.test:{server.port}/"
    )


def test_of_several_addresses_those_that_may_be_are_tried_in_turn(
    authority, tmp_path, server, connects
):
    client = client_of(authority, tmp_path, answers=["10.0.0.1", "127.0.0.9", "127.0.0.1"])
    server.answers["/"] = ok(b"x")
    assert client.get(f"https://keys.test:{server.port}/", 9).body == b"x"
    assert [address for address, _ in connects] == ["127.0.0.9", "127.0.0.1"]


def test_its_certificate_has_to_be_of_that_name_of_a_known_ca_and_valid(authority, tmp_path):
    def server_of(*names, authority=authority, **issued):
        made = KeyServer(authority, *names, folder=tmp_path, **issued)
        made.answers["/"] = ok(b"x")
        return made

    cases = {
        "hostname mismatch": server_of("other.test"),
        "expired": server_of("keys.test", began=-9, days=-1),
        "not yet valid": server_of("keys.test", began=1),
        "unable to get local issuer": server_of("keys.test", authority=Authority()),
    }
    client = client_of(authority, tmp_path)
    for reason, server in cases.items():
        said = refusal(client, f"https://keys.test:{server.port}/")
        assert "certificate is not to be trusted" in said
        assert reason in said.lower()
        assert server.asked == []
        server.close()
    # That it is not the server: the same one, asked for by its own name.
    other = server_of("other.test")
    assert client.get(f"https://other.test:{other.port}/", 9).body == b"x"
    other.close()


def test_the_environment_has_no_say(client, server, monkeypatch, connects):
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    server.answers["/"] = ok(b"x")
    assert client.get(f"https://keys.test:{server.port}/", 9).body == b"x"
    assert connects == [("127.0.0.1", server.port)]


def test_a_relay_reaches_it_and_is_not_trusted_for_that(authority, tmp_path, server):
    ca_file = str(authority.write_root(tmp_path))
    relays = {"keys.test": ("127.0.0.1", server.port), "bank.test": ("127.0.0.1", server.port)}
    client = Client(ca_file, (), relays, 1.0, lambda host, port: pytest.fail("was looked up"))
    server.answers["/"] = ok(b"x")
    assert client.get("https://keys.test/", 9).body == b"x"
    assert "certificate is not to be trusted" in refusal(client, "https://bank.test/")


def test_a_name_that_nobody_has_is_said(authority, tmp_path):
    def nobody(host, port):
        raise socket.gaierror(-2, "Name or service not known")

    client = Client(str(authority.write_root(tmp_path)), (), None, 1.0, nobody)
    said = refusal(client, "https://keys.test/")
    assert said == "the name keys.test can't be looked up: Name or service not known"


def test_whom_to_trust_has_to_be_there(tmp_path):
    with pytest.raises(ConfigError, match="ca_file: /none: No such file"):
        Client("/none")
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    with pytest.raises(ConfigError, match=r"ca_file: .*junk\.pem: "):
        Client(str(junk))


def test_roots_are_a_file_or_the_systems(tmp_path, authority):
    path = tmp_path / "root.pem"
    path.write_bytes(authority.root_pem)
    assert trusted_roots(str(path)) == authority.root_pem
    with pytest.raises(ConfigError, match="ca_file: /none: No such file"):
        trusted_roots("/none")


def test_without_the_guard_a_slow_server_has_all_the_time_it_wants(
    authority, server, tmp_path, monkeypatch
):
    monkeypatch.setattr("fasthook.remote.client._cut_off", lambda opened: None)
    client = client_of(authority, tmp_path, timeout_s=1.0)
    server.answers["/"] = server.drip(b"HTTP/1.1 200 OK\r\nX: ")
    timer = threading.Timer(2.0, server.released.set)
    timer.start()
    began = time.monotonic()
    refusal(client, f"https://keys.test:{server.port}/")
    assert time.monotonic() - began > 1.8
    timer.join()
