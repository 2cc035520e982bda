"""Listening sockets from the addresses of the configuration."""

import contextlib
import os
import socket
import stat

import pytest

from fasthook.errors import ConfigError
from fasthook.wire.sockets import open_sockets, parse_tcp


def test_tcp_listens_without_blocking():
    (listening,) = open_sockets("tcp://127.0.0.1:0")
    with listening, socket.create_connection(listening.getsockname()):
        assert not listening.getblocking()
        accepted, _ = listening.accept()
        accepted.close()


def test_a_tcp_address_may_be_ipv6():
    assert parse_tcp("tcp://[::1]:8080") == ("::1", 8080)


@pytest.mark.parametrize(
    "address",
    [
        "tcp://127.0.0.1",
        "tcp://:80",
        "tcp://h:99999",
        "tcp://h:x",
        "http://h:1",
        "h:1",
        "tcp://h:1/x",
        "",
    ],
)
def test_an_address_that_is_none_is_refused_by_name(address):
    with pytest.raises(ConfigError, match=r"expected tcp://|tcp://h:"):
        open_sockets(address)


def test_a_port_that_is_taken_is_refused():
    (listening,) = open_sockets("tcp://127.0.0.1:0")
    with listening, pytest.raises(ConfigError, match="can't listen on tcp://127.0.0.1"):
        open_sockets(f"tcp://127.0.0.1:{listening.getsockname()[1]}")


@pytest.mark.parametrize("mode", [0o660, 0o600, 0o666])
def test_a_unix_socket_has_its_mode_and_listens(tmp_path, mode):
    path = tmp_path / "s"
    (listening,) = open_sockets(f"unix:{path}", mode=mode)
    with listening, socket.socket(socket.AF_UNIX) as client:
        assert stat.S_IMODE(path.stat().st_mode) == mode
        assert not listening.getblocking()
        client.connect(str(path))


def test_the_umask_is_as_before(tmp_path):
    before = os.umask(0o027)
    try:
        open_sockets(f"unix:{tmp_path / 's'}")[0].close()
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


def test_the_file_of_a_killed_process_is_replaced(tmp_path):
    path = tmp_path / "s"
    open_sockets(f"unix:{path}")[0].close()  # closing leaves the file
    assert path.exists()

    (listening,) = open_sockets(f"unix:{path}")
    with listening, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_socket_on_which_another_process_listens_is_left_alone(tmp_path):
    path = tmp_path / "s"
    (listening,) = open_sockets(f"unix:{path}")
    with listening, socket.socket(socket.AF_UNIX) as client:
        with pytest.raises(ConfigError, match="another process listens there"):
            open_sockets(f"unix:{path}")
        client.connect(str(path))


def test_a_file_that_is_no_socket_is_left_alone(tmp_path):
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(ConfigError, match="no socket"):
        open_sockets(f"unix:{path}")
    assert path.read_text() == "precious"


def test_an_unknown_group_and_an_impossible_path_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no group named"):
        open_sockets(f"unix:{tmp_path / 's'}", group="no-such-group")
    with pytest.raises(ConfigError, match="can't listen on unix:"):
        open_sockets(f"unix:{tmp_path / 'missing' / 's'}")
    with pytest.raises(ConfigError, match="too long"):
        open_sockets(f"unix:{tmp_path / ('s' * 120)}")


@pytest.fixture
def pass_sockets(monkeypatch):
    """Pass sockets as systemd does. Descriptor 3 may be in use here, so they begin elsewhere."""
    first = 500
    passed = []

    def do(*names: str | None, listens: bool = True) -> list[tuple[str, int]]:
        addresses = []
        for index in range(len(names)):
            with socket.socket() as made:
                made.bind(("127.0.0.1", 0))
                if listens:
                    made.listen()
                addresses.append(made.getsockname())
                passed.append(os.dup2(made.fileno(), first + index))
        monkeypatch.setattr("fasthook.wire.sockets._FIRST_SYSTEMD_FD", first)
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        monkeypatch.setenv("LISTEN_FDS", str(len(names)))
        if None in names:
            monkeypatch.delenv("LISTEN_FDNAMES", raising=False)
        else:
            monkeypatch.setenv("LISTEN_FDNAMES", ":".join(filter(None, names)))
        return addresses

    yield do
    for fd in passed:
        with contextlib.suppress(OSError):  # closed by who took it
            os.close(fd)


def test_systemd_passes_sockets_to_the_process_it_names(pass_sockets):
    (address,) = pass_sockets(None)
    (listening,) = open_sockets("systemd")
    with listening:
        assert listening.getsockname() == address
        assert not os.get_inheritable(listening.fileno())
        assert not listening.getblocking()


@pytest.mark.parametrize("names", [("requests", "admin"), ("admin", "requests")])
def test_systemd_names_the_socket_for_metrics_which_is_never_one_for_requests(pass_sockets, names):
    addresses = dict(zip(names, pass_sockets(*names), strict=True))
    (public,), (admin,) = open_sockets("systemd"), open_sockets("systemd", is_admin=True)
    with public, admin:
        assert public.getsockname() == addresses["requests"]
        assert admin.getsockname() == addresses["admin"]


@pytest.mark.parametrize(
    ("names", "is_admin", "missing"),
    [
        (("admin",), False, "no socket with a name other than 'admin'"),
        (("fasthook.socket", "x"), True, r"no socket named 'admin' \(got: fasthook.socket, x\)"),
        ((None,), True, "no socket named 'admin'"),
        (("a:b",), False, "1 sockets, but 2 LISTEN_FDNAMES"),
    ],
)
def test_a_socket_of_systemd_that_is_missing_is_an_error(pass_sockets, names, is_admin, missing):
    pass_sockets(*names)
    with pytest.raises(ConfigError, match=missing):
        open_sockets("systemd", is_admin=is_admin)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_socket_of_systemd_that_does_not_listen_is_an_error(pass_sockets):
    pass_sockets("requests", listens=False)
    with pytest.raises(ConfigError, match="'requests' does not listen"):
        open_sockets("systemd")


@pytest.mark.parametrize(
    ("pid", "count", "missing"),
    [(None, "1", "LISTEN_PID"), ("1", "1", "LISTEN_PID"), ("own", "0", "LISTEN_FDS")],
)
def test_systemd_that_passed_nothing_is_an_error(monkeypatch, pid, count, missing):
    monkeypatch.delenv("LISTEN_PID", raising=False)
    if pid is not None:
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()) if pid == "own" else pid)
    monkeypatch.setenv("LISTEN_FDS", count)
    with pytest.raises(ConfigError, match=missing):
        open_sockets("systemd")
