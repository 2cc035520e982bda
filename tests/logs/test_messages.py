"""Every line that fasthook writes has an id of its own, and the catalogue knows it."""

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fasthook.logs.messages import MESSAGES, catalog
from fasthook.watching import MESSAGES as ALERTS

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "fasthook"
CATALOG = ROOT / "systemd/fasthook.catalog"
LEVELS = ("debug", "info", "warning", "error", "exception")


def texts_of(node: ast.expr) -> list[str]:
    return [
        n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)
    ]


def written() -> set[str]:
    """First words of all log calls in the package."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            if getattr(node.func, "id", "") == "Shape" and len(node.args) == 3:
                found |= set(texts_of(node.args[1]))  # of lines of which there are many
            if not isinstance(node.func, ast.Attribute):
                continue
            owner, name = node.func.value, node.func.attr
            owner_name = getattr(owner, "attr", getattr(owner, "id", ""))
            if owner_name not in ("log", "_log"):
                continue
            if name in LEVELS:
                found |= set(texts_of(node.args[0]))
            elif name in ("write", "repeatable"):
                found |= set(texts_of(node.args[1]))
    return found


def test_every_line_has_an_entry_and_no_entry_is_for_nothing():
    own = {"log lines dropped", "journal not reached", "line not written", "repeated"}
    own |= {message for pair in ALERTS.values() for message in pair}
    assert written() | own == set(MESSAGES)


def test_an_id_is_128_bits_and_used_once():
    ids = [message.id for message in MESSAGES.values()]
    assert all(re.fullmatch(r"[0-9a-f]{32}", number) for number in ids)
    assert len(set(ids)) == len(ids)


def test_the_catalogue_file_is_made_of_the_table():
    """`python -c 'from fasthook.logs.messages import catalog; print(catalog(), end="")'`."""
    assert CATALOG.read_text() == catalog()


def test_the_readme_lists_them_all():
    text = (ROOT / "README.md").read_text()
    rows = dict(re.findall(r"^\| `([a-z][^`|]*)` \| `([0-9a-f]{32})` \|", text, re.MULTILINE))
    assert rows == {name: message.id for name, message in MESSAGES.items()}


def test_journalctl_takes_the_catalogue(tmp_path):
    journalctl = shutil.which("journalctl")
    if journalctl is None:
        pytest.skip("journalctl is not installed")
    folder = tmp_path / "usr/lib/systemd/catalog"
    folder.mkdir(parents=True)
    shutil.copy(CATALOG, folder)
    (tmp_path / "var/lib/systemd/catalog").mkdir(parents=True)
    for option in ("--update-catalog", "--list-catalog"):
        result = subprocess.run(
            [journalctl, f"--root={tmp_path}", option], capture_output=True, text=True, timeout=20
        )
        assert (result.returncode, result.stderr) == (0, "")
    assert len(result.stdout.splitlines()) == len(MESSAGES)
