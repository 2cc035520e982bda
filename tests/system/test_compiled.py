"""The way of a request runs compiled, and from no other source than what stands here."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_WHERE = "import importlib, sys; print(importlib.import_module(sys.argv[1]).__file__)"


def compiled_sources() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    hooks = project["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]
    sources: list[str] = hooks["mypyc"]["include"]
    return sources


@pytest.mark.parametrize("source", compiled_sources())
def test_what_is_to_be_compiled_is_and_is_not_older_than_its_source(source):
    module = source.removesuffix(".py").replace("/", ".")
    command = [sys.executable, "-c", _WHERE, module]
    result = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    found = Path(result.stdout.strip())
    if found.suffix != ".so":
        if os.environ.get("CI"):
            pytest.fail(f"{source} is not compiled")
        pytest.skip("not compiled here: needs a C compiler and Python.h; then `make venv`")
    assert found.stat().st_mtime >= (ROOT / source).stat().st_mtime, "stale: run `make venv`"
