"""A whole systemd, booted in a container over this machine's root, which stays as it was.

What is written there is gone with it (an overlay in memory), it has a network of its own, and the
bind mount of the root lives in a mount namespace that ends with it.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.system.conftest import ROOT

PYTHON = "/usr/bin/python3"  # one that the service's user may run
_UNIT = """
[Unit]
Description=What runs in the container
After=basic.target

[Service]
Type=oneshot
TimeoutStartSec=infinity
ExecStart={python} -B -m tests.systemd.inside {arguments}
ExecStopPost=/bin/systemctl poweroff --force --force
WorkingDirectory=/src
StandardOutput=file:/out/said
StandardError=file:/out/said
"""
_TARGET = "[Unit]\nRequires=basic.target\nWants=fasthook-test.service\n"
#: In a mount namespace of its own, so that no mount of the root is ever left in a folder of pytest.
_START = 'mount --bind / "$1" && shift && exec "$@"'


def give_up(reason: str) -> None:
    """Skip, with the reason; in CI, where all can be had, fail."""
    if os.environ.get("CI"):
        pytest.fail(f"no systemd could be booted: {reason}")
    pytest.skip(f"no systemd can be booted here: {reason}")


def boot(folder: Path, *arguments: object, timeout_s: float) -> dict[str, Any]:
    """The report of `tests.systemd.inside`, run with `arguments` as a unit in the container."""
    nspawn = shutil.which("systemd-nspawn")
    if os.geteuid() != 0:
        give_up("needs root")
    if nspawn is None:
        give_up("systemd-nspawn is not installed (apt-get install systemd-container)")
    if not Path(PYTHON).exists():
        give_up(f"{PYTHON} is missing")
    assert nspawn is not None
    out, root = folder / "out", folder / "root"
    out.mkdir()
    root.mkdir()
    unit, target = folder / "fasthook-test.service", folder / "fasthook-test.target"
    unit.write_text(_UNIT.format(python=PYTHON, arguments=" ".join(map(str, arguments))))
    target.write_text(_TARGET)
    command = [nspawn, f"--directory={root}", "--volatile=overlay", "--register=no", "--keep-unit"]
    command += ["--private-network", "--quiet", f"--machine=fasthook-{os.getpid()}"]
    command += [
        f"--bind={out}:/out",
        f"--bind-ro={ROOT}:/src",
        f"--bind-ro={wheels(folder)}:/wheels",
    ]
    command += [f"--bind-ro={each}:/etc/systemd/system/{each.name}" for each in (unit, target)]
    command += ["--boot", f"systemd.unit={target.name}", "systemd.show_status=no"]
    inside = ["unshare", "--mount", "--propagation=private", "sh", "-c", _START, "sh", str(root)]
    said = folder / "said"
    with said.open("wb") as output:
        process = subprocess.Popen(
            [*inside, *command], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()  # its init ends with it
            process.wait()
    if not (out / "began").exists():
        give_up(
            said.read_text(errors="replace")[-500:].strip() or f"exit code {process.returncode}"
        )
    report = out / "report.json"
    assert report.exists(), f"no report after {timeout_s} s: {(out / 'said').read_text()[-3000:]}"
    return dict(json.loads(report.read_text()))


def wheels(folder: Path) -> Path:
    """A folder with fasthook as it stands here, and all that it needs, for a place without network."""
    pins = (ROOT / "constraints.txt").read_bytes() + (ROOT / "pyproject.toml").read_bytes()
    version = subprocess.run([PYTHON, "-VV"], check=True, capture_output=True).stdout
    kept = ROOT / ".run" / f"wheels-{hashlib.sha256(pins + version).hexdigest()[:16]}"
    pip = [sys.executable, "-m", "pip", "--python", PYTHON, "wheel", "-q", "-c", "constraints.txt"]
    if not kept.exists():
        made = kept.with_suffix(f".{os.getpid()}")
        _run([*pip, "-w", str(made), f"{ROOT}[asymmetric]"])
        for own in made.glob("fasthook-*.whl"):
            own.unlink()
        made.rename(kept)
    whole = folder / "wheels"
    shutil.copytree(kept, whole)
    _run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(whole)])
    return whole


def _run(command: list[str]) -> None:
    environment = os.environ | {"HATCH_BUILD_HOOKS_ENABLE": "0"}
    answer = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr
