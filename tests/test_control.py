"""The socket for orders: who may, what is refused, and that nothing sent there breaks the spool."""

import errno
import http.client
import json
import os
import signal
import socket
import stat
import time
from pathlib import Path

import pytest

from fasthook import control
from fasthook.control import (
    MAX_ORDER_BYTES,
    MAX_POSITIONS,
    Forget,
    Pair,
    PairingState,
    Prune,
    Refused,
    Replay,
    Unpair,
    name_of,
)
from fasthook.spool.journal import position_of
from tests.cli.conftest import WAIT_S, run, serve, write
from tests.cli.hooks import Hooks, post, shop, wait_until

__all__ = ["run", "serve", "write"]  # fixtures


@pytest.fixture
def hooks(tmp_path, serve, run, monkeypatch):
    monkeypatch.delenv("FASTHOOK_CONFIG", raising=False)
    return Hooks(tmp_path, serve, run)


@pytest.fixture
def running(hooks):
    """A service that has done one event."""
    serving = hooks.serve()
    assert post(serving, "a") == 202
    hooks.wait_for(a="done")
    return serving


def ask(hooks, body: bytes, method: str = "POST", path: str = "/order") -> tuple[int, str]:
    """Status and text of an answer."""
    with control._short(hooks.spool, name_of(0)) as short:
        connection = control._UnixConnection(short)
        connection.connect()
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def assert_works(hooks, serving) -> None:
    """It takes events, runs them, takes orders, stops, and starts again."""
    assert post(serving, "next") == 202
    hooks.wait_for(next="done")
    hooks.run("replay", "next")
    hooks.wait_for(next="done")
    assert serving.stop() == 0
    assert not [line for line in serving.lines if "internal error" in line or "not written" in line]
    again = hooks.serve()
    assert post(again, "last") == 202
    hooks.wait_for(last="done")
    assert again.stop() == 0


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "truncated"),
        (b"{", "truncated"),
        (b"null", "Expected"),
        (b"[]", "Expected"),
        (b"{}", "missing required field `type`"),
        (b'{"type":"Stop"}', "Invalid value 'Stop'"),
        (b'{"type":"Replay"}', "missing required field `positions`"),
        (b'{"type":"Replay","positions":"1"}', "Expected `array`"),
        (b'{"type":"Replay","positions":["1"]}', "Expected `int`"),
        (b'{"type":"Replay","positions":[1.5]}', "Expected `int`"),
        (b'{"type":"Replay","positions":[null]}', "Expected `int`"),
        (b'{"type":"Replay","positions":[1],"handler":1}', "Expected `str`"),
        (b'{"type":"Forget","positions":{}}', "Expected `array`"),
        (b'{"type":"Prune"}', "missing required field `retention_s`"),
        (b'{"type":"Prune","retention_s":"1"}', "Expected `float`"),
        (b'{"type":"Pair","endpoint":"shop"}', "missing required field `for_s`"),
        (b'{"type":"Pair","endpoint":"shop","for_s":0}', "Expected `float` > 0"),
        (b'{"type":"Pair","endpoint":"shop","for_s":1e300}', "Expected `float` <= 86400"),
        (b'{"type":"Unpair"}', "missing required field `endpoint`"),
        (b'{"type":"Counted"}', "missing required field `tally`"),
        (b'{"type":"Counted","tally":"!"}', "Invalid base64"),
        (b"\xff\xfe", ""),
        (b"[" * 100_000, ""),
    ],
)
def test_a_bad_order_is_refused_with_a_reason(body, text, hooks, running):
    status, answer = ask(hooks, body)
    assert status == 400
    assert text in answer
    assert answer.endswith("\n")
    assert "Traceback" not in answer
    assert hooks.states() == {"a": "done"}


@pytest.mark.parametrize("kind", ["Replay", "Forget"])
@pytest.mark.parametrize("position", [-1, -(2**63), 2**63, 2**64 - 1, 2**64, 10**30])
def test_a_position_that_is_none_is_refused_and_never_stored(kind, position, hooks, running):
    """In the journal it would keep the index, and each later start, from going on."""
    order = json.dumps({"type": kind, "positions": [position]}).encode()
    assert ask(hooks, order)[0] == 400
    assert_works(hooks, running)


@pytest.mark.parametrize("retention", ["-1", "1e300", "1e400", "-1e300"])
def test_a_retention_that_is_none_is_refused(retention, hooks, running):
    order = b'{"type":"Prune","retention_s":%b}' % retention.encode()
    assert ask(hooks, order)[0] == 400
    assert_works(hooks, running)


@pytest.mark.parametrize("kind", ["Replay", "Forget"])
def test_too_many_deliveries_are_refused(kind, hooks, running):
    order = {"type": kind, "positions": [1] * (MAX_POSITIONS + 1)}
    status, text = ask(hooks, json.dumps(order).encode())
    assert (status, text) == (400, "too many deliveries in one order\n")
    order["positions"].pop()
    assert ask(hooks, json.dumps(order).encode())[0] == 200


def test_an_order_that_is_too_large_is_refused(hooks, running):
    # Announced alone: who sends it all may find the connection closed before the answer is read.
    head = b"POST /order HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (MAX_ORDER_BYTES + 1)
    with control._short(hooks.spool, name_of(0)) as short, socket.socket(socket.AF_UNIX) as client:
        client.settimeout(WAIT_S)
        client.connect(short)
        client.sendall(head)
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")
    assert_works(hooks, running)


@pytest.mark.parametrize(("method", "path"), [("GET", "/order"), ("POST", "/"), ("PUT", "/order")])
def test_anything_else_is_not_found(method, path, hooks, running):
    assert ask(hooks, b"{}", method, path)[0] in (404, 501)


def test_broken_http_ends_the_connection_alone(hooks, running):
    with control._short(hooks.spool, name_of(0)) as short, socket.socket(socket.AF_UNIX) as client:
        client.settimeout(WAIT_S)
        client.connect(short)
        client.sendall(b"\x00\x01nonsense\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 400 ")
    assert_works(hooks, running)


def test_deliveries_that_are_not_there_are_no_harm(hooks, running):
    for order in (
        Replay([]),
        Forget([]),
        Replay([0, 17, position_of(0, 1, 17), position_of(0, 99, 16), position_of(7, 1, 16)]),
        Forget([0, 17, position_of(0, 1, 17), position_of(0, 99, 16), position_of(7, 1, 16)]),
        Replay([0], handler="nope"),
        Replay([0], handler="\0" * 10),
    ):
        control.send(hooks.spool, order)
    time.sleep(0.5)
    assert hooks.states() == {"a": "done"}
    assert_works(hooks, running)


def test_a_tally_has_a_place_of_its_own_where_more_may_come(hooks, running):
    tally = {"type": "Counted", "tally": "A" * MAX_ORDER_BYTES}  # it is read, and is none
    assert ask(hooks, json.dumps(tally).encode(), path="/tally")[0] == 400
    assert "Expected `object`" in ask(hooks, b'{"type":"Counted","tally":"kzE="}', path="/tally")[1]
    for body, path in (
        (b'{"type":"Counted","tally":""}', "/order"),
        (b'{"type":"Tally"}', "/tally"),
    ):
        assert ask(hooks, body, path=path) == (400, "that is no place for this order\n")
    assert_works(hooks, running)


def test_a_refusal_is_raised(hooks, running):
    with pytest.raises(Refused, match="400: too many deliveries"):
        control.send(hooks.spool, Forget(list(range(MAX_POSITIONS + 1))))
    control.send(hooks.spool, Prune(1e6))


@pytest.mark.parametrize("name", ["shop", "nobody", "../shop"])
@pytest.mark.parametrize("order", [Pair("", 1), PairingState(""), Unpair("")])
def test_an_endpoint_that_cannot_be_paired_is_refused(order, name, hooks, running):
    order.endpoint = name
    with pytest.raises(Refused, match=f"409: the service has no endpoint '{name}' that can be"):
        control.ask(hooks.spool, order)
    assert_works(hooks, running)


# --- the socket -----------------------------------------------------------------------------------


def test_the_socket_and_its_directory_are_the_owners_alone(hooks, running):
    status = os.stat(hooks.spool / name_of(0))
    assert stat.S_ISSOCK(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert stat.S_IMODE(hooks.spool.stat().st_mode) == 0o700
    assert running.stop() == 0
    assert not (hooks.spool / name_of(0)).exists()


def test_a_path_that_is_longer_than_a_socket_may_have(hooks):
    path = hooks.spool.parent / ("d" * 100) / ("e" * 100)
    serving = hooks.serve(more=f'[spool]\npath = "{path}"\n')
    assert post(serving, "a") == 202
    hooks.wait_for(a="done")
    assert len(bytes(path)) > 200
    hooks.run("replay", "a")
    hooks.wait_for(a="done")
    hooks.run("forget", "--id", "a")
    hooks.wait_for(a="forgotten")
    assert serving.stop() == 0
    assert not (path / name_of(0)).exists()


def test_a_killed_services_socket_is_in_nobodys_way(hooks, running):
    parent = running.process.pid
    (worker,) = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    os.kill(int(worker), signal.SIGSTOP)  # else it might see that its parent is gone, and tidy up
    running.process.kill()
    running.end()
    assert (hooks.spool / name_of(0)).exists()
    hooks.run("replay", "a")  # done here, for nobody listens
    serving = hooks.serve()
    assert stat.S_IMODE(os.stat(hooks.spool / name_of(0)).st_mode) == 0o600
    hooks.wait_for(a="done")
    assert hooks.ids("one") == ["a", "a"]
    assert_works(hooks, serving)


def test_the_socket_is_gone_before_the_journal_is_anybody_elses(hooks, running):
    """Else it would be its follower's that goes: who takes the journal listens under its name."""
    hooks.hold("one")
    assert post(running, "b") == 202
    wait_until(lambda: hooks.ids("one") == ["a", "b"], "the handler at work")
    os.kill(running.process.pid, signal.SIGTERM)
    wait_until(lambda: not (hooks.spool / name_of(0)).exists(), "the socket gone")
    assert hooks.ids("one") == ["a", "b"]
    assert running.process.poll() is None
    (followers,) = control.listen(hooks.spool, 0)
    with followers:
        hooks.release("one")
        assert running.end() == 0
        assert (hooks.spool / name_of(0)).exists()


def test_a_disk_that_is_only_read_keeps_nobody_from_ending(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "unlink", refused)
    with control.listen(tmp_path, 0)[0], pytest.raises(OSError, match="Read-only"):
        os.unlink(tmp_path / name_of(0))
    control.remove_socket(tmp_path, 0)
    assert (tmp_path / name_of(0)).exists()


def test_who_is_alone(tmp_path):
    assert control.is_alone(tmp_path, 0)
    with control.listen(tmp_path, 0)[0]:
        assert control.is_alone(tmp_path, 0)
        assert not control.is_alone(tmp_path, 1)
        with control.listen(tmp_path, 1)[0]:
            assert not control.is_alone(tmp_path, 0)
        control.remove_socket(tmp_path, 1)
        control.remove_socket(tmp_path, 1)
        assert control.is_alone(tmp_path, 0)


def test_where_no_service_listens_it_is_an_os_error(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(OSError, match="nobody listens there"):
            control.send(path, Replay([1]))


def test_a_service_that_does_not_answer_is_said(tmp_path, monkeypatch):
    """It hangs, or died with the order in hand: one line, and no traceback."""
    monkeypatch.setattr(control, "_TIMEOUT_S", 0.2)
    (listening,) = control.listen(tmp_path, 0)
    with listening, pytest.raises((Refused, OSError)):
        control.send(tmp_path, Replay([1]))


def test_a_client_that_leaves_before_its_answer_is_no_harm(hooks, running):
    order = json.dumps({"type": "Replay", "positions": [1]}).encode()
    for _ in range(20):
        with control._short(hooks.spool, name_of(0)) as short:
            connection = control._UnixConnection(short)
            connection.connect()
        connection.request("POST", "/order", order)
        connection.close()
    with pytest.raises(http.client.HTTPException):
        connection.getresponse()
    assert_works(hooks, running)


def test_there_is_none_without_a_spool(hooks):
    serving = hooks.serve(shop(), more='[spool]\ndurability = "none"\n')
    assert not hooks.spool.exists()
    assert serving.stop() == 0
