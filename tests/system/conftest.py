"""Real processes: a fasthook service, an nginx in front of it, a package with handlers."""

import contextlib
import json
import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.nginx import certify, configured
from tests.system.clocked import Clock

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
SECRET = "system-test-secret-0123456789"
PATIENCE_S = 20.0


def needs(program: str) -> str:
    """The program's path; without it the test fails in CI, where it can be installed."""
    path = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail(f"{program} is not installed; `make system` installs it")
        pytest.skip(f"{program} is not installed")
    return path


def wait_for(fact: Callable[[], object], what: str) -> object:
    """What `fact` returns, once it is true."""
    ends = time.monotonic() + PATIENCE_S
    while not (value := fact()):
        assert time.monotonic() < ends, f"waited {PATIENCE_S:g} s for {what}"
        time.sleep(0.01)
    return value


class Service:
    """A running `fasthook serve`."""

    def __init__(
        self,
        config: str,
        folder: Path,
        environment: dict[str, str],
        clock: Clock | None = None,
        passed: socket.socket | None = None,
    ) -> None:
        """`clock`: what sets the service's time. `passed`: listens, as a socket of systemd."""
        self.folder = folder
        self.config = folder / "fasthook.toml"
        self.config.write_text(config)
        self.record = folder / "record.jsonl"
        self.lines: list[str] = []
        self._is_told = False
        self._new_lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        program = ["fasthook.cli"] if clock is None else ["tests.system.clocked", str(clock.path)]
        if passed is not None:
            program = ["tests.system.activated", str(passed.fileno())]
        self.process = subprocess.Popen(
            [sys.executable, "-m", *program, "serve", "-c", str(self.config)],
            stderr=subprocess.PIPE,
            cwd=folder,
            text=True,
            pass_fds=() if passed is None else (passed.fileno(),),
            env=os.environ | environment | {"EXAMPLE_RECORD": str(self.record)},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.port, self.admin_port = self._ports()
        except BaseException:
            self.process.kill()
            self.stop()
            raise

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            self._new_lines.put(line)
        self._new_lines.put(None)

    def _ports(self) -> tuple[int, int]:
        line = self.wait_for_line("listening")
        ports = re.findall(r"tcp://127\.0\.0\.1:(\d+)", line)
        return int(ports[0]), int(ports[-1])

    def wait_for_line(self, part: str) -> str:
        """The first line, from here on, that contains `part`."""
        ends = time.monotonic() + PATIENCE_S
        while True:
            line = self._new_lines.get(timeout=max(0.01, ends - time.monotonic()))
            assert line is not None, f"ended before it said {part!r}: {''.join(self.lines)}"
            if part in line:
                return line

    def log(self) -> list[dict]:
        """All lines so far; needs `format = "json"`."""
        return [json.loads(line) for line in list(self.lines) if line.startswith("{")]

    def messages(self, message: str) -> list[dict]:
        """Log lines of one kind."""
        return [line for line in self.log() if line["message"] == message]

    def records(self) -> list[dict]:
        """What the handlers of the package wrote."""
        if not self.record.exists():
            return []
        return [json.loads(line) for line in self.record.read_bytes().splitlines()]

    def worker_pids(self) -> list[int]:
        """The processes that do the work."""
        pid = self.process.pid
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def rss_mib(self) -> float:
        """Resident memory of its worker."""
        text = Path(f"/proc/{self.worker_pids()[0]}/status").read_text()
        match = re.search(r"VmRSS:\s+(\d+) kB", text)
        assert match is not None
        return int(match[1]) / 1024

    def terminate(self) -> None:
        """SIGTERM."""
        self._is_told = True
        self.process.send_signal(signal.SIGTERM)

    def stop(self) -> int:
        """SIGTERM, unless it was sent before, and the exit code."""
        if self.process.poll() is None and not self._is_told:
            self.terminate()
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        if self.process.stderr is not None:
            self.process.stderr.close()
        return code


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example package, put there by `pip install`."""
    target = tmp_path_factory.mktemp("site")
    # A copy: building writes into the source.
    source = shutil.copytree(ROOT / "tests/system/package", target / "source")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--disable-pip-version-check", "--target"]
    subprocess.run([*command, str(target / "site"), str(source)], check=True)
    return target / "site"


@pytest.fixture
def serve(tmp_path: Path, package: Path) -> Iterator[Callable[..., Service]]:
    """Start services; they are stopped when the test ends."""
    services: list[Service] = []

    def start(
        config: str,
        *,
        after: Service | None = None,
        passed: socket.socket | None = None,
        **environment: str,
    ) -> Service:
        """`after`: the next start of that one, which has ended. `passed`: see `Service`."""
        folder = tmp_path / f"service{len(services)}" if after is None else after.folder
        folder.mkdir(exist_ok=after is not None)
        path = f"{package}:{ROOT}"
        environment = {"PYTHONPATH": path, "HOOK_SECRET": SECRET} | environment
        services.append(Service(config, folder, environment, passed=passed))
        return services[-1]

    yield start
    for service in services:
        with contextlib.suppress(subprocess.TimeoutExpired):
            service.stop()
        if service.process.poll() is None:
            service.process.kill()  # a second signal is no way to end one that hangs
            service.stop()


@contextlib.contextmanager
def nginx(folder: Path, http: str, listens: Path) -> Iterator[None]:
    """A running nginx with `http` in that block. `listens`: a socket that is there once it is."""
    needs("nginx")
    command = configured(folder, f"access_log off; {http}")
    with (folder / "nginx.log").open("wb") as said:
        process = subprocess.Popen(command, stderr=said)
    try:
        wait_for(lambda: listens.exists() or process.poll() is not None, "nginx to listen")
        assert process.poll() is None, (folder / "nginx.log").read_text()
        yield
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_S)


def certificate(folder: Path, name: str) -> None:
    """`cert.pem` and `key.pem` in `folder`, for the host `name`."""
    needs("openssl")
    certify(folder, name)


def exchange(port: int, raw: bytes, *, timeout_s: float = PATIENCE_S) -> bytes:
    """Send `raw`, read until the server closes or, for a kept connection, one answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as client:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(raw)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := client.recv(65536):
                received += piece
                head, blank, body = received.partition(b"\r\n\r\n")
                length = re.search(rb"Content-Length: (\d+)", head)
                if blank and length and len(body) >= int(length[1]):
                    break
        return received


def status_of(answer: bytes) -> int:
    """The status code of a raw answer; 0: none came."""
    match = re.match(rb"HTTP/1\.1 (\d{3}) ", answer)
    return int(match[1]) if match else 0
