"""One parent, several workers: none of them is missed, none of them loses or doubles an event."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.conftest import SECRET, exchange, status_of, wait_for
from tests.system.test_bad_input import request
from tests.system.test_life import admin, config, handled


def with_workers(count: int, handler: str = "record", **options) -> str:
    return config(handler, **options).replace("[server]", f"[server]\nworkers = {count}", 1)


class Load:
    """Clients with connections that are kept, as a proxy has them; and what they were told."""

    def __init__(self, port: int, clients: int = 4) -> None:
        self._port = port
        self._is_over = threading.Event()
        self.acked: list[str] = []
        self.failures: list[str] = []
        self.longest_s = 0.0
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(30)

    def _run(self, number: int) -> None:
        count = 0
        while not self._is_over.is_set():
            try:
                with socket.create_connection(("127.0.0.1", self._port), timeout=20) as client:
                    closes = False
                    while not closes and not self._is_over.is_set():
                        count += 1
                        closes = self._send(client, f"{number}-{count}")
                        time.sleep(0.002)
            except OSError as error:
                self.failures.append(f"{number}-{count}: {error!r}")

    def _send(self, client: socket.socket, event_id: str) -> bool:
        """Whether the answer says that it is the last one."""
        began = time.monotonic()
        client.sendall(request(x_github_delivery=event_id))
        answer = b""
        while b"\r\n\r\n" not in answer:
            piece = client.recv(65536)
            if not piece:
                raise ConnectionResetError("closed without an answer")
            answer += piece
        self.longest_s = max(self.longest_s, time.monotonic() - began)
        if status_of(answer) == 202:
            self.acked.append(event_id)
        else:
            self.failures.append(f"{event_id}: {answer[:40]!r}")
        return b"Connection: close" in answer


@contextlib.contextmanager
def loaded(service, *, clients: int = 4) -> Iterator[Load]:
    """Load, and at its end the wait for its handlers."""
    with Load(service.port, clients) as load:
        time.sleep(0.3)
        yield load
        time.sleep(0.3)
    wait_for(lambda: set(load.acked) <= set(handled(service)), "all to be handled")


def assert_each_once(service, load: Load) -> None:
    counts = Counter(handled(service))
    assert not load.failures, load.failures[:3]
    assert set(load.acked) == set(counts)
    assert {event_id for event_id, count in counts.items() if count > 1} == set()


def reload(service) -> None:
    """And wait until it has been."""
    count = len(service.messages("reloaded"))
    service.process.send_signal(signal.SIGHUP)
    wait_for(lambda: len(service.messages("reloaded")) > count, "the reload")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_reload_under_load_fails_no_request_and_runs_each_event_once(workers, serve):
    service = serve(with_workers(workers))
    first = set(service.worker_pids())
    assert len(first) == workers
    with loaded(service) as load:
        for _ in range(3):
            reload(service)
    wait_for(lambda: len(service.worker_pids()) == workers, "the old ones to end")
    assert not first & set(service.worker_pids())
    assert_each_once(service, load)
    assert service.stop() == 0
    assert not service.messages("internal error")
    assert not service.messages("worker lost")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_is_killed_is_replaced_and_what_it_had_is_handled(workers, serve):
    service = serve(with_workers(workers))
    with loaded(service) as load:
        for _ in range(2):
            pid = service.worker_pids()[0]
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: len(service.worker_pids()) == workers, "another one")
            time.sleep(0.5)
    assert len(service.messages("worker lost")) == 2
    assert service.messages("worker lost")[0]["reason"] == "signal 9"
    assert set(load.acked) <= set(handled(service))
    assert service.stop() == 0


def test_a_configuration_that_is_wrong_leaves_the_old_one_at_work(serve):
    service = serve(with_workers(1))
    whole, pids = service.config.read_text(), service.worker_pids()
    for text, reason in (
        (whole.replace("[server]", "[server]\nwokers = 2", 1), "wokers"),
        (whole + '\n[[endpoint]]\nname = "new"\npath = "/new"\nprovider = "github"\n', "handlers"),
        (whole.replace('handlers = ["', 'handlers = ["no_such_', 1), "no_such_"),
        (whole.replace("[spool]", '[spool]\npath = "elsewhere"', 1), "spool.path"),
    ):
        count = len(service.messages("not reloaded"))
        service.config.write_text(text)
        service.process.send_signal(signal.SIGHUP)
        wait_for(lambda c=count: len(service.messages("not reloaded")) > c, "a refusal")
        assert reason in service.messages("not reloaded")[-1]["reason"]
        assert status_of(exchange(service.port, request())) == 202
        wait_for(lambda: service.worker_pids() == pids, "the new one to be gone")
    service.config.write_text(whole)
    reload(service)
    assert status_of(exchange(service.port, request())) == 202
    assert service.stop() == 0


def test_a_reload_brings_new_secrets_and_more_workers(serve):
    service = serve(with_workers(1))
    assert status_of(exchange(service.port, request())) == 202
    changed = with_workers(2).replace("env:HOOK_SECRET", "plain:another-secret-of-today")
    service.config.write_text(changed)
    reload(service)
    wait_for(lambda: len(service.worker_pids()) == 2, "two workers")
    assert status_of(exchange(service.port, request())) == 401
    assert service.stop() == 0


def test_fewer_workers_than_before_take_over_all_journals(serve):
    service = serve(with_workers(3, "slow"))
    for number in range(9):
        answer = exchange(service.port, request(x_github_delivery=f"old-{number}"))
        assert status_of(answer) == 202
    service.process.kill()  # and its workers with it
    service.stop()
    again = serve(with_workers(1, "slow"), after=service)
    wait_for(lambda: len(set(handled(again))) == 9, "what the others had")
    assert again.stop() == 0


def test_who_sends_the_same_again_is_known_to_all_workers(serve):
    service = serve(with_workers(2))
    for _ in range(3):
        for number in range(20):
            answer = exchange(service.port, request(x_github_delivery=f"same-{number}"))
            assert status_of(answer) == 202
    wait_for(lambda: len(handled(service)) >= 20, "all of them")
    time.sleep(0.5)
    assert len(handled(service)) == 20
    assert service.stop() == 0


def test_the_metrics_are_those_of_all_workers(serve):
    service = serve(with_workers(2))
    for number in range(40):
        answer = exchange(service.port, request(x_github_delivery=f"{number}"))
        assert status_of(answer) == 202
    wait_for(lambda: len(handled(service)) >= 40, "all of them")
    for _ in range(5):
        text = admin(service, "/metrics")
        assert 'fasthook_requests_total{endpoint="github",result="event"} 40.0' in text
        assert 'fasthook_attempts_total{handler="record",outcome="done"} 40.0' in text
        assert 'fasthook_spool_events{state="dead"} 0.0' in text
    assert service.stop() == 0


def test_a_second_signal_ends_all_of_it(serve):
    service = serve(with_workers(2, "slow"))
    for _ in range(4):
        assert status_of(exchange(service.port, request())) == 202
    pids = service.worker_pids()
    service.terminate()
    service.wait_for_line("draining")
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(10) == 1
    wait_for(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in pids), "their end")


def test_a_worker_that_is_stopped_is_said_and_no_harm_to_the_rest(serve):
    service = serve(with_workers(2))
    stopped = service.worker_pids()[0]
    os.kill(stopped, signal.SIGSTOP)
    try:
        service.wait_for_line("worker stalled")
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert "fasthook_connections" in admin(service, "/metrics")
    assert service.stop() == 0


def test_order_is_kept_over_a_reload(serve):
    service = serve(config("patient"))
    for number in range(3):
        exchange(service.port, request(x_github_delivery=f"{number}"))
    service.wait_for_line('"retry"')
    reload(service)
    for number in range(3, 6):
        exchange(service.port, request(x_github_delivery=f"{number}"))
    wait_for(lambda: len(handled(service)) == 7, "all events")
    assert [(r["id"], r["attempt"]) for r in service.records()] == [
        ("0", 1),
        ("0", 2),
        *[(str(number), 1) for number in range(1, 6)],
    ]
    assert service.stop() == 0


def test_systemd_is_told_of_start_reload_life_and_end(serve, tmp_path):
    path = str(tmp_path / "notify.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(10)
        service = serve(with_workers(1), NOTIFY_SOCKET=path, WATCHDOG_USEC="1000000")

        def told(part: str) -> list[str]:
            """What it says up to that."""
            words = [manager.recv(4096).decode()]
            while part not in words[-1]:
                words.append(manager.recv(4096).decode())
            return words

        assert "EXTEND_TIMEOUT_USEC" in told("READY=1")[0]
        told("WATCHDOG=1")
        service.process.send_signal(signal.SIGHUP)
        assert "MONOTONIC_USEC=" in told("RELOADING=1")[-1]
        told("READY=1")
        os.kill(service.worker_pids()[-1], signal.SIGSTOP)
        service.wait_for_line("worker stalled")
        manager.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                manager.recv(4096)
        time.sleep(1.5)
        with pytest.raises(BlockingIOError):
            manager.recv(4096)  # no word that it lives
        manager.settimeout(10)
        os.kill(service.worker_pids()[-1], signal.SIGCONT)
        told("WATCHDOG=1")
        service.terminate()
        told("STOPPING=1")
        assert service.stop() == 0


def test_order_over_several_workers_is_refused(package, tmp_path):
    path = tmp_path / "fasthook.toml"
    path.write_text(with_workers(2, "patient"))
    command = [sys.executable, "-m", "fasthook.cli", "serve", "-c", str(path)]
    environment = os.environ | {"HOOK_SECRET": SECRET, "PYTHONPATH": str(package)}
    answer = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert answer.returncode == 2
    assert "server.workers: 2, but handler patient of endpoint github takes" in answer.stderr
    assert "Traceback" not in answer.stderr


def passed_socket() -> socket.socket:
    """One that listens, and stays while services come and go."""
    return socket.create_server(("127.0.0.1", 0), backlog=64)


def with_systemd(text: str) -> str:
    return text.replace('listen = ["tcp://127.0.0.1:0"]', 'listen = ["systemd"]', 1)


def test_on_a_socket_of_systemd_requests_are_answered_while_handlers_end(serve):
    with passed_socket() as passed:
        service = serve(with_systemd(config("slow")), passed=passed)
        for number in range(3):
            assert status_of(exchange(service.port, request(x_github_delivery=f"{number}"))) == 202
        service.terminate()
        wait_for(lambda: service.messages("draining"), "draining")
        assert not service.messages("stopped")
        answer = exchange(service.port, request(x_github_delivery="late"))
        assert status_of(answer) == 202
        assert service.stop() == 0
        assert "late" not in handled(service)

        with socket.create_connection(passed.getsockname(), timeout=20) as early:
            early.sendall(request(x_github_delivery="between"))  # nobody is there to accept it
            again = serve(with_systemd(config("slow")), after=service, passed=passed)
            assert status_of(early.recv(65536)) == 202
        wait_for(lambda: len(set(handled(again))) == 5, "all events")
        assert again.stop() == 0
    assert sorted(handled(again)) == ["0", "1", "2", "between", "late"]


@pytest.mark.parametrize("workers", [1, 2])
def test_restarts_on_a_socket_of_systemd_fail_no_request_and_nobody_waits_for_long(workers, serve):
    text = with_systemd(with_workers(workers))
    with passed_socket() as passed:
        service = serve(text, passed=passed)
        with socket.create_connection(passed.getsockname()), loaded(service, clients=2) as load:
            for _ in range(2):
                reload(service)  # those who are dismissed by it accept no more
                assert service.stop() == 0
                service = serve(text, after=service, passed=passed)
            time.sleep(0.3)
        assert not load.failures, load.failures[:3]
        assert load.longest_s < 4
        counts = Counter(handled(service))
        assert set(load.acked) == set(counts)
        assert max(counts.values()) == 1
        assert service.stop() == 0


def test_order_is_kept_when_requests_are_taken_until_the_end(serve):
    text = with_systemd(config("patient"))
    with passed_socket() as passed:
        service = serve(text, passed=passed)
        ids = [f"{number}" for number in range(6)]
        for event_id in ids[:3]:
            exchange(service.port, request(x_github_delivery=event_id))
        service.wait_for_line('"retry"')
        with socket.create_connection(passed.getsockname()):  # kept, so that it lingers
            time.sleep(0.1)
            service.terminate()
            wait_for(lambda: service.messages("draining"), "draining")
            for event_id in ids[3:]:
                assert status_of(exchange(service.port, request(x_github_delivery=event_id))) == 202
        assert service.stop() == 0
        again = serve(text, after=service, passed=passed)
        wait_for(lambda: len(handled(again)) == 7, "all events")
        assert again.stop() == 0
    assert handled(again) == ["0", *ids]
