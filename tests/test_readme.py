"""The README is tested: its code runs, its configurations load, its quick start works."""

import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from fasthook import config, plan
from fasthook.cli.providers import as_markdown
from fasthook.intake import catalogue
from tests.ports import free_ports

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SECRETS = {
    name: "readme-secret-0123456789"
    for name in ("GITHUB_SECRET", "GITHUB_SECRET_OLD", "SHOPIFY_SECRET", "INHOUSE_SECRET")
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_python_runs():
    for code in blocks("python"):
        exec(compile(code, "README.md", "exec"), {"__name__": "readme"})


@pytest.mark.parametrize("text", [t for t in blocks("toml") if "[[endpoint]]" in t])
def test_the_configurations_are_good(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "fasthook.toml"
    path.write_text(text)
    plan.make(config.load(path))


def test_the_keys_that_are_commented_out_exist():
    (text,) = [t for t in blocks("toml") if "unverified_rate" in t]
    shown = set(re.findall(r"^(?:# )?(\w+) +=", text[text.index("[[endpoint]]") :], re.MULTILINE))
    assert shown == set(config.Endpoint.__struct_fields__)


def test_the_defaults_are_what_the_readme_says(tmp_path, monkeypatch):
    (text,) = [t for t in blocks("toml") if "unverified_rate" in t]
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "fasthook.toml"
    path.write_text(text)
    said = config.load(path)
    bare = tmp_path / "bare.toml"
    bare.write_text(text[text.index("[[endpoint]]") :])
    meant = config.load(bare)
    for table in ("server", "admin", "spool", "dispatch", "log", "alerts"):
        assert getattr(said, table) == getattr(meant, table)
    # and every key of these tables is shown
    shown = tomllib.loads(text)
    for table in ("server", "admin", "spool", "dispatch", "log", "alerts"):
        keys = set(type(getattr(meant, table)).__struct_fields__)
        assert set(shown[table]) == keys


def test_the_quick_start_works_by_its_words(tmp_path):
    install, project, sends = blocks("sh")[:3]
    assert install.splitlines()[-1] == "pip install ."
    # The tests' own environment stands for the new one: what is installed is what was built here.
    binaries = str(Path(sys.executable).parent)
    environment = os.environ | {"PATH": f"{binaries}:{os.environ['PATH']}"}
    site = tmp_path / "site"
    environment |= {"PYTHONPATH": str(site), "PYTHONUNBUFFERED": "1"}
    offline = (
        f"{sys.executable} -m pip install -q --no-deps --no-index --no-build-isolation "
        f"--disable-pip-version-check --target {site} ."
    )
    folder = tmp_path
    *steps, serve = project.splitlines()
    for step in steps:
        if step.startswith("cd "):
            folder = folder / step.removeprefix("cd ")
            continue
        command = offline if step == "pip install -e ." else step
        subprocess.run(command.split(), cwd=folder, env=environment, check=True)
    shutil.rmtree(folder / "build", ignore_errors=True)
    free = (folder / "fasthook.toml").read_text()
    ports = [str(port) for port in free_ports(2)]
    (folder / "fasthook.toml").write_text(free.replace("8080", ports[0]).replace("8081", ports[1]))
    log = (tmp_path / "log").open("wb")
    service = subprocess.Popen(serve.split(), cwd=folder, env=environment, stderr=log, stdout=log)
    try:
        ends = time.monotonic() + 20
        while b"listening" not in (tmp_path / "log").read_bytes():
            assert service.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < ends
            time.sleep(0.05)
        good, many, bad = (
            subprocess.run(
                command.split(), cwd=folder, env=environment, capture_output=True, text=True
            )
            for command in sends.splitlines()
        )
    finally:
        service.terminate()
        service.wait(20)
        log.close()
    assert (good.returncode, many.returncode, bad.returncode) == (0, 0, 1)
    assert good.stdout.startswith("202 Accepted")
    assert many.stdout == "10 × 202\n"
    assert bad.stdout.startswith("401 Unauthorized")
    assert (tmp_path / "log").read_text().count("github says") == 11
    subprocess.run(
        [sys.executable, "-m", "unittest", "discover", "tests"],
        cwd=folder,
        env=environment | {"PYTHONPATH": f"{folder}:{site}"},
        check=True,
        capture_output=True,
    )


def test_the_table_of_providers_is_the_catalogue():
    assert as_markdown() in README
    assert f"{len(catalogue.names())} senders are known" in README
