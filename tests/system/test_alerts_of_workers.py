"""Several workers count, and one of them watches: what is unusual is told once, whoever saw it."""

import contextlib
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator

import msgspec
import pytest

from fasthook import control
from fasthook.watching import NAME
from tests.system.conftest import Service, exchange, status_of, wait_for
from tests.system.test_alerts import FORGED, config, flood_of, metric, told
from tests.system.test_bad_input import request
from tests.system.test_life import admin
from tests.system.test_workers import reload


def with_workers(count: int, **options) -> str:
    return config(**options).replace("[server]", f"[server]\nworkers = {count}", 1)


def workers(service: Service) -> dict[int, bool]:
    """By process id: whether it watches."""
    path, found = service.folder / "var", {}
    for name in sorted(each.name for each in path.glob("control.*.sock")):
        with contextlib.suppress(OSError), control._short(path, name) as short:
            with socket.socket(socket.AF_UNIX) as peer:
                peer.connect(short)
                raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            alerts = msgspec.json.decode(control._ask_one(path, name, control.Alerts()))
            found[struct.unpack("3i", raw)[0]] = alerts is not None
    return found


def settled(service: Service, count: int) -> tuple[int, list[int]]:
    """The worker that watches, and the others, once there are so many."""
    wait_for(lambda: len(workers(service)) == count and any(workers(service).values()), "one")
    found = workers(service)
    (watcher,) = [pid for pid, watches in found.items() if watches]
    return watcher, [pid for pid in found if pid != watcher]


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Its like have to accept what comes."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def states(service: Service) -> dict[str, list[str]]:
    """By the id of an alert, what handlers were told of it."""
    found: dict[str, list[str]] = {}
    for record in service.records():
        if "." in record["type"]:
            found.setdefault(record["payload"]["id"], []).append(record["type"])
    return found


def test_a_flood_that_each_worker_sees_the_half_of_is_told_once(serve):
    service = serve(with_workers(2))
    watcher, (other,) = settled(service, 2)
    for silent in (watcher, other):  # each half is below the 50 that are told
        with stopped(silent):
            assert flood_of(service, FORGED, 35).count(b"HTTP/1.1 401 ") == 35
    wait_for(lambda: told(service), "the event")
    assert metric(service, "rejects") == 1
    wait_for(lambda: len(told(service)) == 2, "its end")
    assert told(service) == [("rejects.started", "github"), ("rejects.ended", "github")]
    wait_for(lambda: service.messages("rejects as usual"), "the last line")
    assert (
        len(service.messages("unusual rejects")) == len(service.messages("rejects as usual")) == 1
    )
    assert service.messages("unusual rejects")[0]["seen"] == 70
    assert metric(service, "rejects") == 0


def test_the_half_of_it_is_told_to_nobody(serve):
    """That the flood above is told of is due to both workers."""
    service = serve(with_workers(2))
    watcher, (other,) = settled(service, 2)
    for silent in (watcher, other):
        with stopped(silent):
            flood_of(service, FORGED, 20)
    time.sleep(2.5)
    assert told(service) == []


def test_every_worker_knows_the_alerts(serve):
    service = serve(with_workers(2, endpoint='expect_every = "1s"'))
    watcher, (other,) = settled(service, 2)
    service.wait_for_line('"message":"silence"')
    for silent in (watcher, other):
        with stopped(silent):
            client = socket.create_connection(("127.0.0.1", service.admin_port), timeout=10)
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"ok\n" in client.recv(65536)
        with client:
            client.sendall(b"GET /alerts HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b'"kind": "silence"' in client.recv(65536)
    assert metric(service, "silence") == 1


def test_when_the_one_that_watches_is_killed_another_one_goes_on(serve):
    service = serve(with_workers(2, endpoint='expect_every = "1s"'))
    watcher, _ = settled(service, 2)
    service.wait_for_line('"message":"silence"')
    wait_for(lambda: (service.folder / "var" / NAME).exists(), "the file")
    wait_for(lambda: told(service), "the event")
    os.kill(watcher, signal.SIGKILL)
    wait_for(lambda: any(watches for pid, watches in workers(service).items()), "another one")
    for _ in range(5):
        assert admin(service, "/alerts").count('"kind": "silence"') == 1
    time.sleep(2)
    assert len(states(service)) == len(service.messages("silence")) == 1
    again, _ = settled(service, 2)
    assert again != watcher
    assert status_of(exchange(service.port, request())) == 202
    service.wait_for_line('"message":"silence over"')
    wait_for(lambda: ("silence.ended", "github") in told(service), "its end")
    first, *_ = states(service).values()  # a handler may run twice for what it did as it was killed
    assert list(dict.fromkeys(first)) == ["silence.started", "silence.ended"]


class Flood:
    """Forged requests without an end."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join(20)

    def _run(self) -> None:
        while not self._is_over.wait(0.2):
            with contextlib.suppress(OSError):
                flood_of(self._service, FORGED, 20)


@pytest.mark.parametrize("count", [1, 2])
def test_a_reload_ends_and_begins_no_alert(serve, count):
    service = serve(with_workers(count))
    before, _ = settled(service, count)
    with Flood(service):
        wait_for(lambda: told(service), "the event")
        for _ in range(3):
            reload(service)
            time.sleep(1)
            assert admin(service, "/alerts").count('"kind": "rejects"') == 1
        after, _ = settled(service, count)
        assert after != before
        assert told(service) == [("rejects.started", "github")]
    wait_for(lambda: len(told(service)) == 2, "its end")
    assert [*states(service).values()] == [["rejects.started", "rejects.ended"]]
    assert service.stop() == 0
    assert not service.messages("internal error")


@pytest.mark.parametrize("count", [1, 2])
def test_what_a_worker_counted_before_its_end_is_not_lost(serve, count):
    alerts = 'handlers = ["record"]\ninterval = "4s"\nrejects = 50'
    service = serve(with_workers(count, alerts=alerts))
    settled(service, count)
    assert flood_of(service, FORGED, 60).count(b"HTTP/1.1 401 ") == 60
    reload(service)
    service.wait_for_line('"message":"unusual rejects"')
    assert service.messages("unusual rejects")[0]["seen"] == 60


def test_without_a_spool_a_reload_has_the_new_worker_watch(serve):
    service = serve(with_workers(1, durability="none"))
    reload(service)
    wait_for(lambda: len(service.worker_pids()) == 1, "the old one to end")
    flood_of(service, FORGED, 100)
    wait_for(lambda: told(service), "the event")
    assert told(service) == [("rejects.started", "github")]
