"""The units as they stand here: systemd reads all of them, and finds them hardened."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from fasthook.config import Server
from fasthook.worker import STALL_S
from tests.system.conftest import ROOT, needs

UNITS = ROOT / "systemd"
#: Tenths of `systemd-analyze security`, whose worst is 100.
MAX_EXPOSURE = 10


def exposure(service: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = folder / "fasthook.service"
    path.write_text(service)
    command = [needs("systemd-analyze"), "security", "--no-pager", "--offline=true"]
    command += [f"--threshold={MAX_EXPOSURE}", str(path)]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_service_is_hardened(tmp_path):
    answer = exposure((UNITS / "fasthook.service").read_text(), tmp_path)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "Overall exposure level for fasthook.service: 0.2 SAFE" in answer.stdout


def test_it_still_is_when_handlers_may_call_out_to_some_addresses(tmp_path):
    drop_in = (UNITS / "fasthook.service.d/handlers-call-out.conf.example").read_text()
    service = (UNITS / "fasthook.service").read_text() + drop_in
    assert "exposure level for fasthook.service: 1.1" in exposure(service, tmp_path).stdout
    named = re.sub(r"^#   (IPAddress)", r"\1", drop_in, flags=re.MULTILINE)
    assert named != drop_in
    lines = [line for line in named.splitlines() if line.startswith("IPAddress")]
    named = service + "IPAddressDeny=\n" + "\n".join(lines[:2])
    answer = exposure(named, tmp_path)
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.parametrize("line", ["DynamicUser=yes", "SystemCallFilter=@system-service"])
def test_a_service_that_lacks_what_hardens_it_is_found_out(line, tmp_path):
    """The control: the threshold is one that can be missed."""
    service = (UNITS / "fasthook.service").read_text()
    assert line in service
    weaker = re.sub(
        rf"^({re.escape(line)}|User=.*|CapabilityBoundingSet=|PrivateUsers=.*)$",
        "",
        service,
        flags=re.MULTILINE,
    )
    assert exposure(weaker, tmp_path).returncode != 0


def test_systemd_understands_every_line(tmp_path):
    for path in UNITS.glob("*.s*"):
        if path.suffix in (".service", ".socket"):
            text = path.read_text().replace("/opt/fasthook/bin/fasthook", "/bin/true")
            (tmp_path / path.name).write_text(text)
    units = sorted(map(str, tmp_path.iterdir()))
    assert len(units) == 3
    answer = subprocess.run(
        [needs("systemd-analyze"), "verify", "--man=no", *units],
        capture_output=True,
        text=True,
        env=os.environ | {"SYSTEMD_LOG_LEVEL": "warning"},
    )
    said = [line for line in answer.stderr.splitlines() if "fasthook" in line or ".conf" in line]
    assert not said
    assert answer.returncode == 0


def seconds(service: str, key: str) -> float:
    (value,) = re.findall(rf"^{key}=(\d+)(?:s|min)$", service, re.MULTILINE)
    return float(value)


def test_the_times_fit_those_of_the_service():
    service = (UNITS / "fasthook.service").read_text()
    # What drains is not cut off.
    assert seconds(service, "TimeoutStopSec") > Server().drain_timeout + 5
    # One worker that is restarted by the kernel's grace is no reason to end all of them.
    assert seconds(service, "WatchdogSec") >= 2 * STALL_S
