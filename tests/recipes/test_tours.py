"""The README of each recipe is followed by its words, in a folder that was empty."""

import os
import re
import signal
import subprocess
import sys
import time
import venv
from pathlib import Path

import pytest
from click.testing import CliRunner

from fasthook.cli import main
from tests.ports import free_ports
from tests.recipes.projects import made_and_installed

WAIT_S = 60


#: Of the environment, where `make test` runs these tests: a newcomer has none of it.
_NOT_A_USERS = ("FASTHOOK", "PYTEST", "MAKE", "MFLAGS")


class Tour:
    """A recipe's folder, and its README's blocks of commands."""

    def __init__(self, recipe: str, folder: Path, *, is_real: bool) -> None:
        self.folder = folder / "tour"
        result = CliRunner().invoke(main, ["init", "--recipe", recipe, str(self.folder)])
        assert result.exit_code == 0, result.output
        self._take_free_ports()
        self.environment = self._environment(folder / "venv", is_real=is_real)
        text = (self.folder / "README.md").read_text()
        self.first, self.second = re.findall(r"^```sh\n(.*?)^```$", text, re.M | re.S)
        self._started: list[subprocess.Popen[bytes]] = []

    def _take_free_ports(self) -> None:
        ports = dict(zip(("8080", "8081", "8025"), map(str, free_ports(3)), strict=True))
        for path in self.folder.rglob("*"):
            if path.is_file():
                text = path.read_text()
                for port, free in ports.items():
                    text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{free}")
                path.write_text(text)

    def _environment(self, folder: Path, *, is_real: bool) -> dict[str, str]:
        """`is_real`: where `make` has pip install the project, from this interpreter's packages.

        Nothing is downloaded. Else the project is as good as installed, which is quick.
        """
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(_NOT_A_USERS)},
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
            "PYTEST_ADDOPTS": "-W error",
        }
        if not is_real:
            return environment | made_and_installed(self.folder)
        venv.create(folder, with_pip=False, symlinks=True)
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        site = Path(sys.prefix, "lib", version, "site-packages")
        path = folder / "lib" / version / "site-packages" / "parent.pth"
        path.write_text(f"import site; site.addsitedir({str(site)!r})\n")
        offline = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}  # 0: without it
        return environment | offline | {"MAKEFLAGS": f"-e PYTHON={folder / 'bin' / 'python'}"}

    def run(self, line: str) -> str:
        done = subprocess.run(
            line,
            shell=True,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}"
        return done.stdout

    def start(self, line: str) -> Path:
        """Have a line run on; what it says is in the file."""
        said = self.folder.parent / f"said-{len(self._started)}"
        with said.open("wb") as out:
            started = subprocess.Popen(
                line,
                shell=True,
                cwd=self.folder,
                env=self.environment,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self._started.append(started)
        return said

    def close(self) -> None:
        for started in self._started:
            os.killpg(started.pid, signal.SIGKILL)
            started.wait(20)


def wait_for(said: Path, text: str, count: int = 1) -> None:
    ends = time.monotonic() + WAIT_S
    while said.read_text().count(text) < count:
        assert time.monotonic() < ends, f"no {text!r} in\n{said.read_text()}"
        time.sleep(0.02)


@pytest.fixture
def follow(tmp_path):
    """Follow a README: what was said by each line of its second block, by the service, and others."""
    tours = []

    def follow(recipe, *, is_real=False):
        tour = Tour(recipe, tmp_path, is_real=is_real)
        tours.append(tour)
        others = []
        for line in tour.first.splitlines():
            if line == "make run":
                service = tour.start(line)
                wait_for(service, "listening")
            elif line.endswith(" &"):
                others.append(tour.start(line.removesuffix(" &")))
            else:
                assert "failed" not in tour.run(line)
        answers, sent = [], 0
        for line in tour.second.splitlines():
            answers.append(tour.run(line))
            if line.startswith("fasthook send"):
                assert re.match("20[02] ", answers[-1]), answers[-1]
                sent += 1
                wait_for(service, " done ", sent)
        return answers, service, others

    yield follow
    for tour in tours:
        tour.close()


def test_crm(follow):
    answers, _, (mailbox,) = follow("crm")

    assert answers[-1].splitlines()[-1] == "all were sent"
    wait_for(mailbox, "MESSAGE FOLLOWS", 2)
    said = mailbox.read_text()
    assert "To: ada@example.com" in said
    assert "Hello Grace," in said


def test_ecommerce(follow):
    answers, service, _ = follow("ecommerce", is_real=True)

    assert dict(line.split()[::-1] for line in answers[-1].splitlines()) == {
        "TEA-1": "8",
        "TEA-2": "9",
        "MUG-1": "4",
    }
    assert "low stock: 4 of MUG-1 left" in service.read_text()


def test_cicd(follow):
    answers, service, _ = follow("cicd")

    assert "all is well with refs/heads/main" in answers[-1]
    assert "success (2 commands); no token to tell it with" in service.read_text()


def test_cms(follow):
    answers, service, _ = follow("cms")

    assert [line.split("  ")[0].rpartition("/")[2] for line in answers[-1].splitlines()] == [
        "water",
        "brew-tea",
    ]
    # Three changes are one build, or on a very slow machine two of them.
    wait_for(service, "done         handler=tour-rebuild")
    built = (service.parent / "tour" / "var" / "site" / "built.txt").read_text().count("built at")
    assert built + service.read_text().count("superseded   handler=tour-rebuild") == 3
