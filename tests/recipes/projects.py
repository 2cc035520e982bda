"""Projects made of recipes, installed and served; their events are sent by `fasthook send`."""

import contextlib
import os
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

from click.testing import CliRunner

from fasthook.cli import main
from tests.cli.conftest import Serving


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as sockets:
        opened = [
            sockets.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [each.getsockname()[1] for each in opened]


class Project:
    """A recipe in a folder of its own. `environment`: of all that runs there."""

    def __init__(self, recipe: str, folder: Path, **environment: str) -> None:
        self.folder = folder
        result = CliRunner().invoke(main, ["init", "--recipe", recipe, str(folder)])
        assert result.exit_code == 0, result.output
        self.said = result.output
        site = installed(folder)
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("FASTHOOK")},
            "PYTHONPATH": f"{site}{os.pathsep}{folder}",
            "PYTHONUNBUFFERED": "1",
            **environment,
        }
        self._serving: list[Serving] = []
        public, admin = free_ports(2)
        self.url = f"http://127.0.0.1:{public}"
        self.replace("fasthook.toml", "127.0.0.1:8080", f"127.0.0.1:{public}")
        self.replace("fasthook.toml", "127.0.0.1:8081", f"127.0.0.1:{admin}")

    def replace(self, path: str, old: str, new: str) -> None:
        """Edit a file as its owner would."""
        file = self.folder / path
        text = file.read_text()
        assert old in text, f"{path} has no {old!r}"
        file.write_text(text.replace(old, new))

    def serve(self) -> Serving:
        """`fasthook serve`; it listens when this returns."""
        serving = Serving(self.folder / "fasthook.toml", cwd=self.folder, env=self.environment)
        self._serving.append(serving)
        serving.line_with("listening")
        return serving

    def send(self, *arguments: str) -> None:
        """`fasthook send`: accepted when this returns."""
        config = str(self.folder / "fasthook.toml")
        with contextlib.chdir(self.folder):
            result = CliRunner().invoke(main, ["send", *arguments, "-c", config])
        assert result.exit_code == 0, result.output
        assert " Accepted " in result.output or " OK " in result.output, result.output

    def run(self, *command: str) -> str:
        """What a command says that is run in the project; it has to succeed."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def python(self, *arguments: str) -> str:
        return self.run(sys.executable, *arguments)

    def kill(self, serving: Serving) -> None:
        """kill -9."""
        serving.process.kill()
        serving.end()

    def close(self) -> None:
        for serving in self._serving:
            if not serving.process.stdout.closed:
                serving.process.kill()
                serving.end()


def installed(project: Path) -> Path:
    """What `make` and pip would leave behind: metadata with the entry points, in this folder."""
    (project / ".installed").touch()
    described = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    site = project.parent / f"{project.name}-site"
    info = site / f"{described['name']}-{described['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {described['name']}\nVersion: {described['version']}\n"
    )
    points = described["entry-points"]["fasthook.handlers"].items()
    lines = "".join(f"{name} = {value}\n" for name, value in points)
    (info / "entry_points.txt").write_text(f"[fasthook.handlers]\n{lines}")
    return site
