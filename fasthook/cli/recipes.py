"""`fasthook init --recipe`: a whole project for one of the jobs that webhooks are taken for.

A recipe is a folder of files as they will stand in the project, each with ".txt" behind its name:
templates are neither compiled nor imported here. `PACKAGE` in them, and as a folder's name, is the
project's package; `PYTHON_PATH` is the interpreter that has fasthook.
"""

import shlex
import sys
import tomllib
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final

import click

from fasthook.cli import project
from fasthook.config import Endpoint
from fasthook.converting import convert
from fasthook.values import decode_without_secrets
from fasthook.verifying import provider_of, scheme_of

_FOLDER: Final = resources.files("fasthook.cli") / "template" / "recipes"
NAMES: Final = ("ecommerce", "cicd", "cms", "crm")


def write(directory: Path, name: str) -> None:
    """Write the project, and say what comes next. Raises `ConfigError`; overwrites nothing."""
    project.check_directory(directory)
    package = project.package_name(directory)
    python = shlex.quote(sys.executable).replace("$", "$$")  # as make reads it
    files = {
        directory / path.replace("PACKAGE", package): text.replace("PACKAGE", package).replace(
            "PYTHON_PATH", python
        )
        for path, text in _files(_FOLDER / name)
    }
    tables = tomllib.loads(files[directory / "fasthook.toml"])["endpoint"]
    secrets = {path: table for table in tables for path in _secret_files(directory, table)}
    project.check_absent((*files, *secrets))
    for path, text in files.items():
        project.write(path, text)
    for path, table in secrets.items():
        endpoint = convert(table, Endpoint, name, hook=decode_without_secrets)
        scheme = scheme_of(endpoint, provider_of(endpoint, name), name)
        assert scheme is not None  # noqa: S101 - who has secrets has a scheme
        project.write_secret(path, scheme)
    _say_what_next(directory, name)


def _files(folder: Traversable, above: str = "") -> Iterator[tuple[str, str]]:
    """Path and text of each file of a recipe, as they are to stand in the project."""
    for each in sorted(folder.iterdir(), key=lambda each: each.name):
        if each.is_dir():
            yield from _files(each, f"{above}{each.name}/")
        elif each.name.endswith(".txt"):
            name = each.name.removesuffix(".txt").replace("gitignore", ".gitignore")
            yield above + name, each.read_text(encoding="utf-8")


def _secret_files(directory: Path, endpoint: dict[str, Any]) -> list[Path]:
    """Where an endpoint's secrets are to stand."""
    return [directory / secret.removeprefix("file:") for secret in endpoint.get("secrets", ())]


def _say_what_next(directory: Path, name: str) -> None:
    click.echo(
        f"The recipe {name} stands in {directory.absolute()}.\n\n"
        f"  {project.step_into(directory)}make test\n"
        f"  make run\n\n"
        f"README.md says what to send, and what is to be configured."
    )
