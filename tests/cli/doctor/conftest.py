"""Cases for the parts of `fasthook doctor`: real files, real services, a real nginx."""

import os
import signal
import socket
from pathlib import Path

import pytest

from fasthook import config
from fasthook.cli.doctor.case import Case, case_of
from fasthook.cli.doctor.findings import Finding, Level
from fasthook.cli.doctor.units import find_unit
from tests.cli.conftest import configuration, endpoint

IS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not IS_ROOT, reason="only root can give a file away")
NOBODY = 65534


def texts(findings, level: Level) -> list[str]:
    """What was found of a level."""
    found = list(findings)
    assert all(isinstance(each, Finding) for each in found)
    for each in found:
        # Each line that is not good says what to do.
        assert bool(each.cure) == (each.level is not Level.GOOD), each
    return [each.text for each in found if each.level is level]


def bads(findings) -> list[str]:
    return texts(findings, Level.BAD)


def warnings(findings) -> list[str]:
    return texts(findings, Level.WARNING)


def goods(findings) -> list[str]:
    return texts(findings, Level.GOOD)


def is_all_good(findings) -> bool:
    found = list(findings)
    return bool(found) and not (bads(found) + warnings(found))


@pytest.fixture(autouse=True)
def units(tmp_path, monkeypatch) -> Path:
    """A folder for units, in the place of the system's."""
    folder = tmp_path / "units"
    folder.mkdir()
    monkeypatch.setenv("SYSTEMD_UNIT_PATH", str(folder))
    return folder


@pytest.fixture
def case(write):
    """The case for a configuration."""

    def case(text: str = "") -> Case:
        path = write(text or configuration(endpoint("github")))
        path.chmod(0o600)
        settings = config.load(path, has_secrets=False)
        return case_of(path, settings, find_unit("fasthook.service"), find_unit("fasthook.socket"))

    return case


def end(serving) -> None:
    """As by Ctrl-C, which does not wait for a proxy."""
    serving.process.send_signal(signal.SIGINT)
    assert serving.end() == 0


def free_port() -> int:
    """A port on which nobody listens just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
