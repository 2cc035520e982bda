"""A service that may be killed, clients that remember what they were told, and the checker."""

import contextlib
import hashlib
import hmac
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import pytest

from fasthook.spool.changes import State

ROOT = Path(__file__).parents[2]
FULL = os.environ.get("FASTHOOK_TORTURE") == "full"
SECRET = b"torture-secret-0123456789"
PATIENCE_S = 30.0

CONFIG = """
[server]
listen = ["tcp://127.0.0.1:{port}"]
workers = {workers}
drain_timeout = "5s"
[admin]
listen = "tcp://127.0.0.1:{admin_port}"
[spool]
path = "{spool}"
max_bytes = "{max_bytes}"
[dispatch]
hold = {hold}
[log]
format = "json"
requests = false
attempts = false
[[endpoint]]
name = "github"
path = "/github"
provider = "github"
secrets = ["plain:{secret}"]
handlers = ["{handler}"]
"""
HANDLERS = '''
import asyncio
import ctypes
import hashlib
import os
import time

from fasthook import handler

fd = os.open(os.environ["TORTURE_RECORD"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def write(event):
    digest = hashlib.sha256(event.body).hexdigest()[:16]
    line = f"{event.id} {digest} {time.monotonic():.6f} {os.getpid()} {event.attempt}\\n"
    os.write(fd, line.encode())


@handler
async def note(event):
    write(event)


@handler(concurrency=16, retries=20)
async def fatal(event):
    """Some events are the death of the service, and others are in hand beside them."""
    if event.id.startswith("exit"):
        await asyncio.sleep(0.1)
        os._exit(3)
    if event.id.startswith("segv"):
        await asyncio.sleep(0.1)
        ctypes.string_at(0)
    await asyncio.sleep(0.4 if event.id.startswith("brief") else 2.0)
    write(event)
'''


def say(what: str, **figures: object) -> None:
    """Print what was measured; seen with `-rP`."""
    text = ", ".join(f"{name} {value}" for name, value in figures.items())
    sys.stdout.write(f"{what}: {text}\n")


def needs_strace() -> str:
    """Its path; in CI it is installed."""
    path = shutil.which("strace")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("strace is not installed; `make system` installs it")
        pytest.skip("strace is not installed")
    return path


def free_port() -> int:
    """One that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(fact: Callable[[], Any], what: str, timeout_s: float = PATIENCE_S) -> Any:
    """What `fact` returns, once it is true."""
    ends = time.monotonic() + timeout_s
    while not (value := fact()):
        assert time.monotonic() < ends, f"waited {timeout_s:g} s for {what}"
        time.sleep(0.01)
    return value


class Handled(NamedTuple):
    """One line of the handlers' record."""

    id: str
    digest: str
    at: float  # monotonic clock, which all processes share
    pid: int
    attempt: int


class Site:
    """A folder with a configuration, and the process that serves it: started, killed, started."""

    def __init__(
        self,
        folder: Path,
        *,
        handler: str = "note",
        hold: bool = False,
        max_bytes: str = "10GiB",
        spool: Path | None = None,
        workers: int = 1,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.spool = spool or folder / "var"
        self.record = folder / "record.txt"
        self.log_path = folder / "log.txt"
        self.trace_path = folder / "trace.txt"
        self.port, self.admin_port = free_port(), free_port()
        self.handler, self.max_bytes, self.workers = handler, max_bytes, workers
        self.configure(hold=hold)
        (folder / "torture_handlers.py").write_text(HANDLERS)
        info = folder / "torture_handlers-0.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: torture-handlers\nVersion: 0\n"
        )
        entry_points = "".join(f"{n} = torture_handlers:{n}\n" for n in ("note", "fatal"))
        (info / "entry_points.txt").write_text(f"[fasthook.handlers]\n{entry_points}")
        self.process: subprocess.Popen[bytes] | None = None
        self.killed_at: list[float] = []

    def configure(self, *, hold: bool) -> None:
        """Write the configuration, for the next start."""
        self.config = self.folder / "fasthook.toml"
        self.config.write_text(
            CONFIG.format(
                port=self.port,
                admin_port=self.admin_port,
                spool=self.spool,
                max_bytes=self.max_bytes,
                workers=self.workers,
                hold=str(hold).lower(),
                secret=SECRET.decode(),
                handler=self.handler,
            )
        )

    # --- the process ------------------------------------------------------------------------------

    def command(self, weak: str = "") -> list[str]:
        """What serves it."""
        module = ["tests.torture.weaken", weak] if weak else ["fasthook.cli"]
        return [sys.executable, "-m", *module, "serve", "-c", str(self.config)]

    @property
    def environment(self) -> dict[str, str]:
        """With the handlers, and this package."""
        path = f"{self.folder}:{ROOT}"
        return os.environ | {"PYTHONPATH": path, "TORTURE_RECORD": str(self.record)}

    def start(self, weak: str = "", trace: Sequence[str] = (), *, waits: bool = True) -> None:
        """`trace`: options of strace, which stands by.

        (With `--seccomp-bpf` it is much faster, and injects errors, but no signals and delays.)
        """
        command = self.command(weak)
        if trace:
            # -D: ours is the service, and strace the one that stands by.
            strace = [needs_strace(), "-D", "-f", "-qq", "-o", str(self.trace_path)]
            command = [*strace, *trace, *command]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command, stderr=log, stdout=log, cwd=self.folder, env=self.environment
            )
        if waits:
            self.wait_until_open()

    def is_open(self) -> bool:
        """Whether a worker answers. Fails where it has ended."""
        assert self.process is not None
        assert self.process.poll() is None, f"ended: {self.log_text()[-2000:]}"
        try:
            self.ask("/healthz", timeout_s=2)
        except (OSError, http.client.HTTPException):
            return False
        return True

    def wait_until_open(self) -> None:
        """Return once it takes connections."""
        wait_for(self.is_open, "an open port")

    def kill(self) -> None:
        """SIGKILL to the parent, with which its workers end."""
        assert self.process is not None
        workers = self.worker_pids()
        self.process.kill()
        self.process.wait(PATIENCE_S)
        wait_for(lambda: not any(map(_is_alive, workers)), "the end of its workers")
        self.killed_at.append(time.monotonic())

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """Until it has ended by itself; the exit code."""
        assert self.process is not None
        code = self.process.wait(timeout_s)
        self.killed_at.append(time.monotonic())
        return code

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)

    def end(self) -> None:
        """Whatever it is doing."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE_S)

    @property
    def worker_pid(self) -> int:
        """Of the one worker, once there is one."""
        return wait_for(self.worker_pids, "a worker")[-1]

    def worker_pids(self) -> list[int]:
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        try:
            return [int(pid) for pid in children.read_text().split()]
        except OSError:
            return []

    @contextlib.contextmanager
    def disturbed(self, *options: str) -> Any:
        """strace injects something, for a while, into a service that runs."""
        log = self.folder / "disturbed.txt"
        command = [needs_strace(), "-f", "-qq", "-o", str(log), *options]
        pid = self.worker_pid
        threads = Path(f"/proc/{pid}/task")
        with (self.folder / "strace.txt").open("wb") as output:
            tracer = subprocess.Popen([*command, "-p", str(pid)], stderr=output)

        def is_attached() -> bool:
            texts = [path.read_text() for path in threads.glob("*/status")]
            return all("TracerPid:\t0\n" not in text for text in texts)

        try:
            wait_for(is_attached, "strace to attach")
            yield
        finally:
            if _is_alive(pid):
                tracer.send_signal(signal.SIGTERM)
            tracer.wait(PATIENCE_S)  # else it ends with the worker; a signal can make it hang then

    # --- what it says -----------------------------------------------------------------------------

    def log_text(self) -> str:
        """All it has said."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def messages(self, message: str) -> list[dict[str, Any]]:
        """Log lines of one kind."""
        lines = [json.loads(t) for t in self.log_text().splitlines() if t.startswith("{")]
        return [line for line in lines if line["message"] == message]

    def ask(self, path: str, timeout_s: float = 10) -> tuple[int, str]:
        """Of the admin listener: status and text."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=timeout_s)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def metric(self, name: str) -> float:
        """Its value."""
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.ask("/metrics")[1], re.MULTILINE)
        return float(found[1]) if found else 0.0

    def handled(self) -> list[Handled]:
        """What the handlers have written."""
        if not self.record.exists():
            return []
        rows = [line.split() for line in self.record.read_text().splitlines()]
        return [Handled(a, b, float(c), int(d), int(e)) for a, b, c, d, e in rows]

    def states(self) -> dict[str, State]:
        """By id, as the index has it."""
        connection = apsw.Connection(
            f"file:{self.spool / 'index.db'}?mode=ro",
            flags=apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_READONLY,
        )
        try:
            connection.set_busy_timeout(5000)
            rows = connection.execute("SELECT event_id, state FROM deliveries").fetchall()
        finally:
            connection.close()
        return {event_id: State(state) for event_id, state in rows}

    def positions(self) -> dict[str, int]:
        """By id, as the index has it."""
        connection = apsw.Connection(str(self.spool / "index.db"))
        try:
            return dict(connection.execute("SELECT event_id, position FROM deliveries").fetchall())
        finally:
            connection.close()

    def is_idle(self, acked: Collection[str] = ()) -> bool:
        """Whether everything acknowledged is in the index, and nothing is left to do."""
        try:
            states = self.states()
            has_nothing = not {State.PENDING, State.RUNNING} & set(states.values())
            return (
                has_nothing
                and set(acked) <= set(states)
                and self.metric("fasthook_backlog_events") == 0
            )
        except (apsw.Error, OSError):
            return False

    def wait_until_idle(self, acked: Collection[str] = (), timeout_s: float = PATIENCE_S) -> None:
        """Return once everything acknowledged is in the index, and nothing is left to do.

        A service that has lost something is idle, too: then this returns, and the checker speaks.
        """
        ends = time.monotonic() + timeout_s
        quiet_since = 0.0
        while not self.is_idle(acked):
            now = time.monotonic()
            quiet_since = (quiet_since or now) if self.is_idle() else 0.0
            if quiet_since and now - quiet_since > 1.0:
                return
            assert now < ends, f"still pending: {Counter(self.states().values())}"
            time.sleep(0.05)


def _is_alive(pid: int) -> bool:
    """Whether the process runs; one that waits to be buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


# --- clients --------------------------------------------------------------------------------------


def digest_of(body: bytes) -> str:
    """By which a body is compared."""
    return hashlib.sha256(body).hexdigest()[:16]


def body_of(event_id: str) -> bytes:
    """One that no other event has."""
    pad = hashlib.shake_128(event_id.encode()).hexdigest(150)
    return json.dumps({"id": event_id, "pad": pad}).encode()


def request(event_id: str, body: bytes | None = None) -> bytes:
    """A signed event."""
    body = body_of(event_id) if body is None else body
    signature = hmac.digest(SECRET, body, "sha256").hex()
    head = (
        "POST /github HTTP/1.1\r\nHost: hooks.test\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nX-GitHub-Event: push\r\nX-GitHub-Delivery: {event_id}\r\n"
        f"X-Hub-Signature-256: sha256={signature}\r\n\r\n"
    )
    return head.encode() + body


def read_answer(client: socket.socket) -> bytes:
    """One whole answer. Raises `OSError` if none comes."""
    received = b""
    while True:
        piece = client.recv(65536)
        if not piece:
            raise ConnectionResetError("no whole answer")
        received += piece
        head, blank, body = received.partition(b"\r\n\r\n")
        if blank:
            length = re.search(rb"\r\nContent-Length: (\d+)", head)
            if len(body) >= (int(length[1]) if length else 0):
                return received


class Answer(NamedTuple):
    """What a client was told, and when."""

    id: str
    status: int
    sent_at: float
    at: float
    retries_after: bool


def send(port: int, event_id: str, body: bytes | None = None, timeout_s: float = 15.0) -> Answer:
    """One event over a connection of its own. Raises `OSError`."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as client:
        return _exchange(client, event_id, request(event_id, body))


def _exchange(client: socket.socket, event_id: str, raw: bytes) -> Answer:
    sent_at = time.monotonic()
    client.sendall(raw)
    answer = read_answer(client)
    return Answer(
        event_id, int(answer[9:12]), sent_at, time.monotonic(), b"\r\nRetry-After: " in answer
    )


class Load:
    """Clients that each send one event after the other, and come again after a broken connection.

    An event is sent once, whatever became of it.
    """

    def __init__(
        self, port: int, connections: int = 16, rate: float = 0.0, limit: int = 0, prefix: str = ""
    ) -> None:
        """`rate`: events a second, of all clients together. `limit`: how many at the most."""
        self._prefix = prefix
        self.port = port
        self._gap_s = connections / rate if rate else 0.0
        self._limit = limit
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.tried: set[str] = set()
        self.answers: list[Answer] = []
        self.silent: set[str] = set()  # sent, in part at least, and no answer came
        self.by_port: dict[int, list[str]] = {}  # ids in order, by the client's port
        self._threads = [
            threading.Thread(target=self._run, args=(number,), daemon=True)
            for number in range(connections)
        ]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """No new event is sent; what is under way is waited for."""
        self._stop.set()
        self.join()

    def join(self) -> None:
        """Wait for the last answer."""
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), "a client hangs"

    @property
    def acked(self) -> set[str]:
        """Answered 2xx."""
        return {a.id for a in list(self.answers) if 200 <= a.status < 300}

    @property
    def acks(self) -> list[Answer]:
        """Answered 2xx."""
        return [a for a in list(self.answers) if 200 <= a.status < 300]

    @property
    def refusals(self) -> list[Answer]:
        """Answered otherwise."""
        return [a for a in list(self.answers) if not 200 <= a.status < 300]

    def _run(self, client_number: int) -> None:
        count = 0
        while not self._stop.is_set():
            try:
                client = socket.create_connection(("127.0.0.1", self.port), timeout=15)
            except OSError:
                time.sleep(0.005)
                continue
            with client:
                own = self.by_port.setdefault(client.getsockname()[1], [])
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while not self._stop.is_set():
                    with self._lock:
                        if self._limit and len(self.tried) >= self._limit:
                            return
                        event_id = f"{self._prefix}{client_number}-{count}"
                        self.tried.add(event_id)
                    count += 1
                    own.append(event_id)
                    began = time.monotonic()
                    try:
                        raw = request(event_id)
                        self.answers.append(_exchange(client, event_id, raw))
                    except OSError:
                        self.silent.add(event_id)
                        break
                    if self._gap_s:
                        self._stop.wait(max(0.0, began + self._gap_s - time.monotonic()))


# --- the checker ----------------------------------------------------------------------------------


class Sets(NamedTuple):
    """RELIABILITY 3.2: what should be empty, and counts."""

    lost: set[str]
    unexpected: set[str]
    wrong: set[str]  # handled with a body that nobody sent
    twice: set[str]
    unexcused: set[str]  # handled twice, though the first time was long before any kill
    acked: int
    tried: int
    handled: int
    dead: int
    pending: int
    recovered: int

    def is_clean(self) -> bool:
        """At least once, and nothing else."""
        return not (self.lost or self.unexpected or self.wrong or self.unexcused)


#: Outcomes ride with the next batch or wait 50 ms; a busy machine, and the disk, take the rest.
_IN_FLIGHT_S = 1.0


def check(
    site: Site,
    tried: set[str],
    acked: set[str],
    in_flight_s: float = _IN_FLIGHT_S,
) -> Sets:
    """Call after the service has ended, or is idle.

    `in_flight_s`: an event handled so long before a kill may be handled again.
    """

    def is_excused(at: float) -> bool:
        return any(0 <= killed_at - at < in_flight_s for killed_at in site.killed_at)

    states = site.states()
    handled = site.handled()
    times: dict[str, list[float]] = {}
    for one in handled:
        times.setdefault(one.id, []).append(one.at)
    dead = {i for i, state in states.items() if state == State.DEAD}
    pending = {i for i, state in states.items() if state in (State.PENDING, State.RUNNING)}
    found = set(times) | dead | pending
    twice = {i for i, at in times.items() if len(at) > 1}
    unexcused = {i for i in twice if not all(is_excused(at) for at in sorted(times[i])[:-1])}
    wrong = {one.id for one in handled if one.digest != digest_of(body_of(one.id))}
    return Sets(
        acked - found,
        found - tried,
        wrong,
        twice,
        unexcused,
        len(acked),
        len(tried),
        len(times),
        len(dead),
        len(pending),
        len(found - acked),
    )


def say_sets(what: str, sets: Sets, **more: object) -> None:
    """Print the counts."""
    figures = {
        name: len(value) if isinstance(value, set) else value
        for name, value in sets._asdict().items()
    }
    say(what, **figures, **more)
