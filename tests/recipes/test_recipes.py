"""What all recipes have in common: what is written, and that it is well written."""

import json
import os
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from fasthook.cli import main
from fasthook.cli.recipes import NAMES
from tests.recipes.projects import Project

ROOT = Path(__file__).parents[2]
RULES = "E,F,W,I,UP,B,ASYNC,C90,N,PERF,PT,RET,RUF,SIM"


@pytest.fixture(scope="module")
def projects(tmp_path_factory):
    """All recipes, each in a folder of its own, and installed."""
    folder = tmp_path_factory.mktemp("recipes")
    return {name: Project(name, folder / f"my-{name}") for name in NAMES}


@pytest.fixture(scope="module")
def folder(projects):
    """Where the project of the recipe NAME is `my-NAME`."""
    return next(iter(projects.values())).folder.parent


@pytest.mark.parametrize("name", NAMES)
def test_a_project_checks(name, projects):
    """The only warnings are of what the senders do: some sign no more than a token."""
    report = json.loads(projects[name].python("-m", "fasthook.cli", "check", "--json"))
    handlers = {handler for each in report["endpoints"] for handler in each["handlers"]}
    described = tomllib.loads((projects[name].folder / "pyproject.toml").read_text())
    assert handlers >= set(described["project"]["entry-points"]["fasthook.handlers"])
    assert all(each.startswith(f"my_{name}-") for each in handlers)
    senders = ("does not cover the whole body", "the time that is checked is not signed")
    assert all(any(known in each for known in senders) for each in report["warnings"])


def test_secrets_are_new_and_for_their_owner_alone(folder):
    seen = []
    for name in NAMES:
        config = tomllib.loads((folder / f"my-{name}" / "fasthook.toml").read_text())
        for endpoint in config["endpoint"]:
            for secret in endpoint["secrets"]:
                path = folder / f"my-{name}" / secret.removeprefix("file:")
                assert stat.S_IMODE(path.stat().st_mode) == 0o600
                assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
                assert len(path.read_text().strip()) >= 32
                seen.append(path.read_text())
    assert len(set(seen)) == len(seen) == 12


@pytest.mark.parametrize("existing", ["README.md", "my_crm/handlers.py", "secrets/intercom"])
def test_nothing_is_overwritten(existing, tmp_path):
    path = tmp_path / "my-crm" / existing
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    result = CliRunner().invoke(main, ["init", "--recipe", "crm", str(tmp_path / "my-crm")])

    assert result.exit_code == 2
    assert result.stderr == f"error: {path}: exists already; nothing was written\n"
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]


@pytest.mark.parametrize(
    "more",
    [["--provider", "github"], ["--systemd"], ["--nginx", "a.example.com"], ["-c", "x.toml"]],
)
def test_a_recipe_is_all_that_is_asked_for(more, tmp_path):
    result = CliRunner().invoke(main, ["init", "--recipe", "crm", *more, str(tmp_path)])
    assert result.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_readmes_are_of_one_screen(folder):
    for name in NAMES:
        text = (folder / f"my-{name}" / "README.md").read_text()
        assert text.count("\n") <= 60, name
        assert "PACKAGE" not in text


def test_the_code_is_as_tidy_as_our_own(folder):
    for name in NAMES:
        project = folder / f"my-{name}"
        ruff = [str(Path(sys.executable).with_name("ruff"))]
        for arguments in (["check", f"--extend-select={RULES}"], ["format", "--check"]):
            done = subprocess.run(
                [*ruff, *arguments, "--no-cache", "."], cwd=project, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stdout
        for path in project.rglob("*.py"):
            assert path.read_text().count("\n") <= 250, path


@pytest.mark.skipif(os.environ.get("FASTHOOK_TORTURE") != "full", reason="takes 12 s")
def test_the_types_are_right(folder):
    """By mypy, strict."""
    packages = [f"{folder}/my-{name}/my_{name}" for name in NAMES]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--config-file=",
            "--cache-dir=/dev/null",
            *packages,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
