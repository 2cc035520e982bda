"""A PostgreSQL of our own: a cluster in a temporary folder, on a unix socket alone."""

import contextlib
import glob
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PORT = 5432  # part of the socket's name, and nothing else
#: It is thrown away: nothing of it has to outlive a loss of power.
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "listen_addresses": "",
    "max_connections": "50",
    "shared_buffers": "16MB",
}


def program(name: str) -> str:
    """Its path; without it the test fails in CI, where it can be installed."""
    folders = sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True)
    path = shutil.which(name, path=":".join([*folders, os.environ.get("PATH", "")]))
    if path is None:
        if os.environ.get("CI"):
            pytest.fail(f"{name} is not installed; `make system` installs it")
        pytest.skip(f"{name} is not installed")
    return path


def somebody() -> dict[str, Any]:
    """PostgreSQL does not run as root: for `subprocess`, who it is then."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(name)
            return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    pytest.skip("there is nobody but root")


@contextlib.contextmanager
def cluster() -> Iterator[str]:
    """The folder of its socket, which is the `host` to connect to, as the user `postgres`."""
    initdb, postgres = program("initdb"), program("postgres")
    who = somebody()
    # Not in pytest's own folder, which nobody else may enter; and a socket's path is short.
    folder = Path(tempfile.mkdtemp(prefix="fasthook-pg-"))
    if who:
        os.chown(folder, who["user"], who["group"])
    folder.chmod(0o755)
    data = folder / "data"
    command = [initdb, "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8"]
    try:
        subprocess.run(
            [*command, "--no-locale", "--no-sync"],
            check=True,
            capture_output=True,
            cwd=folder,
            **who,
        )
        options = [f"-c{name}={value}" for name, value in SETTINGS.items()]
        with (folder / "log").open("wb") as said:
            server = subprocess.Popen(
                [postgres, "-D", str(data), "-k", str(folder), *options],
                cwd=folder,
                stderr=said,
                stdout=said,
                **who,
            )
        try:
            _wait(folder, server)
            yield str(folder)
        finally:
            server.send_signal(signal.SIGQUIT)
            server.wait(20)
    finally:
        shutil.rmtree(folder)


def _wait(folder: Path, server: "subprocess.Popen[bytes]") -> None:
    ends = time.monotonic() + 20
    while "ready to accept connections" not in (folder / "log").read_text():
        assert server.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < ends, (folder / "log").read_text()
        time.sleep(0.01)
