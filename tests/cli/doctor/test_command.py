"""The command as a whole: its report, exit codes, and whom it can be run by."""

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import pytest

import tests.cli.conftest
from fasthook.cli.doctor import clock
from fasthook.cli.doctor.findings import guarded
from tests.cli.conftest import SECRETS, configuration, endpoint
from tests.cli.doctor.conftest import NOBODY, end, needs_root
from tests.system.conftest import ROOT

TEXT = configuration(endpoint("github"))
SUBJECTS = ["configuration", "secrets", "files", "spool", "clock", "limits", "unit", "nginx"]


def test_a_report_for_people(run, serve, tmp_path):
    serve(TEXT)
    result = run("doctor", "-c", tmp_path / "fasthook.toml")

    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    findings = [line for line in lines[:-1] if not line.startswith(" ")]
    assert {line.split()[0] for line in findings} <= {"good", "warning"}
    assert list(dict.fromkeys(line.split()[1] for line in findings)) == SUBJECTS
    for line, following in itertools.pairwise(lines):
        assert line.startswith("warning ") is following.startswith(" " * 24 + "→ ")
    assert lines[-1].endswith(" 0 bad")


def test_a_report_for_programs(run, write):
    path = write(TEXT + '[handlers.unused]\nuse = "log"\n')
    result = run("doctor", "--json", "-c", path)

    assert result.exit_code == 0
    report = json.loads(result.stdout)
    levels = [finding["level"] for finding in report["findings"]]
    assert report["config"] == str(path)
    assert report["good"] == levels.count("good")
    assert report["warnings"] == levels.count("warning")
    assert report["bad"] == 0
    assert any("no endpoint uses it" in finding["text"] for finding in report["findings"])
    assert all(set(f) == {"level", "subject", "text", "cure"} for f in report["findings"])


def test_what_is_bad_makes_an_exit_code_of_1(run, write):
    path = write(configuration(endpoint("github", more='handlers = ["lgo"]')))
    result = run("doctor", "-c", path)

    assert result.exit_code == 1
    assert result.stdout.startswith("bad      configuration")
    assert "1 bad" in result.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    "text", ["", "nonsense", "[[endpoint]]\nname = 1\n", '[spool]\npath = "\\u0000"']
)
def test_a_configuration_that_is_none_is_bad(run, tmp_path, text):
    path = tmp_path / "fasthook.toml"
    path.write_text(text)
    result = run("doctor", "-c", path)

    assert result.exit_code == 1
    assert result.stdout.startswith(f"bad      configuration  {path}: ")


def test_a_configuration_that_is_not_there_is_bad(run, tmp_path):
    result = run("doctor", "-c", tmp_path / "none.toml")

    assert result.exit_code == 1
    assert "No such file or directory" in result.stdout


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--endpoint", "github"], "--endpoint: belongs to --probe URL"),
        (["--ca-file", "x"], "--ca-file: belongs to --probe URL"),
        (["--probe", "hooks.example.com"], "expected a URL such as"),
        (["--probe", "ftp://hooks.example.com"], "expected a URL such as"),
        (["--probe", "https://host:port"], "--probe: "),
        (["--probe", "https://host", "--endpoint", "gitlab"], "has: github"),
        (["--wait", "soon"], "expected a time"),
        (["--nonsense"], "No such option"),
    ],
)
def test_wrong_use(run, write, options, text):
    result = run("doctor", "-c", write(TEXT), *options)

    assert result.exit_code == 2
    assert text in result.stderr


def test_an_error_that_nobody_expected_is_a_line(run, write, monkeypatch):
    def fails(_):
        raise RuntimeError(f"with {SECRETS['github']}")

    monkeypatch.setattr(clock, "look", fails)
    result = run("doctor", "-c", write(TEXT))

    assert result.exit_code == 0
    assert "clock          not looked at: RuntimeError while looking" in result.stdout
    assert "nginx" in result.stdout  # the others are still asked


def test_what_may_not_be_read_is_said():
    def fails():
        raise PermissionError(13, "Permission denied", "/secret")

    (found,) = guarded("files", fails)
    assert found.level == "warning"
    assert found.text == "not looked at: /secret: Permission denied"


def test_texts_of_others_do_not_reach_the_terminal_as_they_are(run, write):
    path = write(configuration(endpoint("github", more='handlers = ["log"]\npublic_url = ""')))
    folder = path.parent / "a\x1b[2Jb"
    folder.mkdir()
    moved = path.rename(folder / "fasthook.toml")
    result = run("doctor", "-c", moved)

    assert "\x1b" not in result.stdout
    assert "\\x1b" in result.stdout


# --- another user ---------------------------------------------------------------------------------

AS_NOBODY = {"user": NOBODY, "group": NOBODY, "extra_groups": []}


@pytest.fixture
def elsewhere():
    """A folder that any user can enter, unlike those of pytest."""
    folder = Path(tempfile.mkdtemp(prefix="fasthook-doctor-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def nobody(monkeypatch) -> dict:
    """Options for processes that run as nobody; with an interpreter that nobody can read."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = sysconfig.get_path("purelib")
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{packages}"}
    options = AS_NOBODY | {"env": environment, "cwd": "/"}
    for python in (sys.executable, f"/usr/bin/{version}"):
        with contextlib.suppress(OSError):
            command = [python, "-m", "fasthook.cli", "--version"]
            if not subprocess.run(command, capture_output=True, check=False, **options).returncode:
                monkeypatch.setattr(tests.cli.conftest, "COMMAND", command[:-1])
                return options
    pytest.skip("another user can't read this interpreter or this source")


@needs_root
def test_root_looks_at_a_service_of_somebody_else_and_leaves_nothing(
    run, serve, elsewhere, nobody, monkeypatch
):
    """The service is nobody's, with its secret in its own environment alone."""
    var = elsewhere / "var"
    var.mkdir(mode=0o700)
    os.chown(var, NOBODY, NOBODY)
    text = TEXT + f'[spool]\npath = "{var}"\n'
    conf = elsewhere / "fasthook.toml"
    conf.write_text(text)
    serving = serve(text, at=conf, **nobody)
    monkeypatch.delenv("SECRET_GITHUB")

    for _ in range(2):
        result = run("doctor", "-c", conf, "--probe", serving.url)
        assert result.exit_code == 0, result.output
        assert "probe handled  by log" in result.stdout
        assert f"process {serving.process.pid} has it, as nobody" in result.stdout
    owners = {path.lstat().st_uid for path in (var, *var.rglob("*"))}
    assert owners == {NOBODY}
    assert serving.admin_status("/readyz") == 200

    # Also while none runs: what SQLite makes beside the index to read it is nobody's, too.
    end(serving)
    result = run("doctor", "-c", conf)
    assert "no service has it" in result.stdout
    assert {path.lstat().st_uid for path in (var, *var.rglob("*"))} == {NOBODY}


@needs_root
def test_somebody_who_may_look_at_little_is_told_so(run_process, serve, elsewhere, nobody):
    var = elsewhere / "var"
    text = TEXT + f'[spool]\npath = "{var}"\n'
    conf = elsewhere / "fasthook.toml"
    conf.write_text(text)
    serving = serve(text, env=nobody["env"])
    nobody["env"] = {k: v for k, v in nobody["env"].items() if k != "SECRET_GITHUB"}
    result = run_process("doctor", "-c", conf, "--probe", serving.url, **nobody)

    assert "Traceback" not in result.stdout + result.stderr
    unseen = [line for line in result.stdout.splitlines() if "not looked at" in line]
    assert any("SECRET_GITHUB" in line for line in unseen)
    assert any("fasthook.service: Permission denied" in line for line in unseen)
    assert any(str(var) in line and "ermission denied" in line for line in unseen)
    assert result.stdout.splitlines()[-1].endswith(" 0 bad"), result.stdout
