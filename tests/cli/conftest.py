"""Commands are run in this process and as processes; no output ever holds a secret."""

import os
import queue
import subprocess
import sys
import threading
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner

from fasthook.cli import main
from fasthook.intake import catalogue
from fasthook.intake.signing import sample_secret
from tests.intake.support import PROVIDERS

WAIT_S = 20
COMMAND = [sys.executable, "-m", "fasthook.cli"]
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("FASTHOOK")}


def secret_of(provider: str) -> str:
    """A secret of the form that the provider has; the same in each run."""
    known = catalogue.load(provider)
    return sample_secret(known.schemes[known.default_scheme], b"tests/cli")


SECRETS = {name: secret_of(name) for name in PROVIDERS}


def assert_no_secret(*texts: str) -> None:
    for text in texts:
        for secret in SECRETS.values():
            assert secret not in text
            assert secret.removeprefix("whsec_") not in text


def endpoint(name: str, *, provider: str = "", more: str = "") -> str:
    """An `[[endpoint]]` with its secret in the environment."""
    provider = provider or name
    lines = [f'name = "{name}"', f'path = "/{name}"', f'provider = "{provider}"', more]
    if "secrets" not in more and provider != "none":
        lines.append(f'secrets = ["env:SECRET_{provider.upper().replace("-", "_")}"]')
    if "handlers" not in more:
        lines.append('handlers = ["log"]')
    return "[[endpoint]]\n" + "\n".join(lines) + "\n"


def configuration(*endpoints: str, form: str = "json", server: str = "") -> str:
    return (
        f'[server]\nlisten = ["tcp://127.0.0.1:0"]\n{server}\n'
        f'[admin]\nlisten = "tcp://127.0.0.1:0"\n[log]\nformat = "{form}"\n' + "".join(endpoints)
    )


def installed(project: Path, site: Path) -> dict[str, str]:
    """What `pip install -e` would leave behind, in `site`: metadata with the entry points.

    The environment in which they are found.
    """
    described = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    info = site / f"{described['name']}-{described['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {described['name']}\nVersion: {described['version']}\n"
    )
    points = described["entry-points"]["fasthook.handlers"].items()
    lines = "".join(f"{name} = {value}\n" for name, value in points)
    (info / "entry_points.txt").write_text(f"[fasthook.handlers]\n{lines}")
    return {"PYTHONPATH": f"{site}{os.pathsep}{project}"}


@pytest.fixture(autouse=True)
def secrets_in_environment(monkeypatch):
    monkeypatch.delenv("FASTHOOK_CONFIG", raising=False)
    for name, secret in SECRETS.items():
        monkeypatch.setenv(f"SECRET_{name.upper().replace('-', '_')}", secret)


@pytest.fixture
def run():
    """Run a command in this process; `exit_code`, `stdout`, `stderr`."""

    def run(*arguments, **options):
        result = CliRunner().invoke(main, [str(a) for a in arguments], **options)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert_no_secret(result.stdout, result.stderr)
        return result

    return run


@pytest.fixture
def run_process():
    """Run a command as a process; `returncode`, `stdout`, `stderr`."""

    def run(*arguments, **options):
        result = subprocess.run(
            [*COMMAND, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
            **options,
        )
        assert_no_secret(result.stdout, result.stderr)
        return result

    return run


@pytest.fixture
def write(tmp_path):
    """Write a configuration."""

    def write(text: str) -> Path:
        path = tmp_path / "fasthook.toml"
        path.write_text(text)
        tomllib.loads(text)
        return path

    return write


class Serving:
    """`fasthook serve` as a process; its lines are waited for, not guessed at."""

    def __init__(self, config: Path, **options) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "serve", "-c", str(config)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        self.lines: list[str] = []
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._queue.put(line)
        self._queue.put(None)

    def line_with(self, *words: str) -> str:
        """The next line with all of these words."""
        while (line := self._queue.get(timeout=WAIT_S)) is not None:
            self.lines.append(line)
            if all(word in line for word in words):
                return line
        raise AssertionError(f"{words} was never said, but: {''.join(self.lines)}")

    def wait_until_listening(self) -> None:
        line = self.line_with("listening")
        public, admin = [part.split('"')[0].split()[0] for part in line.split("tcp://")[1:3]]
        self.url, self.admin = f"http://{public}", f"http://{admin}"

    def admin_status(self, path: str) -> int:
        try:
            with urllib.request.urlopen(self.admin + path, timeout=WAIT_S) as response:
                return response.status
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def metrics(self) -> dict[str, float]:
        """By name and labels."""
        with urllib.request.urlopen(self.admin + "/metrics", timeout=WAIT_S) as response:
            lines = response.read().decode().splitlines()
        values = [line.rpartition(" ") for line in lines if not line.startswith("#")]
        return {name: float(value) for name, _, value in values}

    def kill(self) -> None:
        """SIGKILL, to the worker, too: it sees its parent's end."""
        self.process.kill()
        self.end()

    def stop(self) -> int:
        """The exit code, after a SIGTERM if it still runs."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.end()

    def end(self) -> int:
        """The exit code, once it ends; all lines are in `lines`."""
        try:
            code = self.process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            self._reader.join()
            assert self.process.stdout is not None
            assert self.process.stderr is not None
            self.out = self.process.stdout.read()
            self.process.stdout.close()
            self.process.stderr.close()
        while not self._queue.empty() and (line := self._queue.get_nowait()) is not None:
            self.lines.append(line)
        assert_no_secret(self.out, *self.lines)
        return code


@pytest.fixture
def serve(write):
    """Start `fasthook serve` with this configuration; it listens when this returns."""
    started: list[Serving] = []

    def serve(text: str, *, at: Path | None = None, **options) -> Serving:
        """`at`: of a configuration that is written already."""
        serving = Serving(at or write(text), **options)
        started.append(serving)
        serving.wait_until_listening()
        return serving

    yield serve
    for serving in started:
        if not serving.process.stdout.closed:
            serving.kill()
