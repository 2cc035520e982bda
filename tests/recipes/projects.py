"""Projects made of recipes, installed and served; their events are sent by `fasthook send`."""

import contextlib
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from fasthook.cli import main
from tests.cli.conftest import ENVIRONMENT, Serving, installed
from tests.ports import free_ports


class Project:
    """A recipe in a folder of its own. `environment`: of all that runs there."""

    def __init__(self, recipe: str, folder: Path, **environment: str) -> None:
        self.folder = folder
        result = CliRunner().invoke(main, ["init", "--recipe", recipe, str(folder)])
        assert result.exit_code == 0, result.output
        self.said = result.output
        self.environment = {
            **ENVIRONMENT,
            **made_and_installed(folder),
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

    def close(self) -> None:
        for serving in self._serving:
            if not serving.process.stdout.closed:
                serving.kill()


def made_and_installed(project: Path) -> dict[str, str]:
    """What `make` and pip would leave behind; the environment in which it is found."""
    (project / ".installed").touch()
    return installed(project, project.parent / f"{project.name}-site")
