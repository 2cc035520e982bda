"""Listening sockets from the addresses of the configuration."""

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


def test_systemd_passes_sockets_to_the_process_it_names(monkeypatch):
    with socket.socket() as passed:
        passed.bind(("127.0.0.1", 0))
        passed.listen()
        # Descriptor 3 may be in use here, so the first one is moved to where ours stands.
        duplicate = os.dup(passed.fileno())
        monkeypatch.setattr("fasthook.wire.sockets._FIRST_SYSTEMD_FD", duplicate)
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        monkeypatch.setenv("LISTEN_FDS", "1")
        (listening,) = open_sockets("systemd")
        with listening:
            assert listening.getsockname() == passed.getsockname()
            assert not os.get_inheritable(duplicate)
            assert not listening.getblocking()


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
