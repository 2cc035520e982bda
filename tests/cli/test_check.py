"""`fasthook check` says whether a configuration is good, and starts nothing."""

import json
import os

import pytest

from fasthook.plan import LOSES_EVENTS
from tests.cli.conftest import configuration, endpoint


def test_a_good_configuration_is_shown_and_called_good(run, write):
    path = write(configuration(endpoint("github"), endpoint("stripe")))
    result = run("check", "-c", path)

    assert result.exit_code == 0
    assert result.stdout.endswith(f"{path}: good\n")
    assert "/github" in result.stdout
    assert "env:SECRET_STRIPE" in result.stdout
    assert result.stderr == ""


def test_what_is_watched_is_shown(run, write):
    text = configuration(endpoint("github", more='expect_every = "1h"'))
    path = write(text + '[alerts]\nhandlers = ["log"]\n')
    result = run("check", "-c", path)
    assert "after 3600 s" in result.stdout
    assert "alerts: of refusals, volume, new errors and silence; told to log" in result.stdout

    result = run(
        "check", "-c", write(configuration(endpoint("github")) + "[alerts]\nwatch = false\n")
    )
    assert "alerts: nothing is watched" in result.stdout
    assert "not watched" in result.stdout


def test_events_that_are_not_stored_are_warned_of(run, write):
    path = write(configuration(endpoint("github")) + '[spool]\ndurability = "none"\n')
    result = run("check", "-c", path)

    assert result.exit_code == 0
    assert result.stderr == f"warning: {LOSES_EVENTS}\n"


def test_checking_makes_no_spool_and_needs_none(run, serve, tmp_path):
    path = tmp_path / "fasthook.toml"
    path.write_text(configuration(endpoint("github")))
    assert run("check", "-c", path).exit_code == 0
    assert os.listdir(tmp_path) == ["fasthook.toml"]

    serve(path.read_text())
    assert (tmp_path / "var").is_dir()
    assert run("check", "-c", path).exit_code == 0


def test_a_report_as_json_parses(run, write):
    path = write(configuration(endpoint("slack"), endpoint("open", provider="none")))
    result = run("check", "-c", path, "--json")

    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert report["config"] == str(path)
    assert report["endpoints"][0] == {
        "name": "slack",
        "path": "/slack",
        "provider": "slack",
        "secrets": ["env:SECRET_SLACK"],
        "handlers": ["log"],
        "status": 200,
        "silence": "as learned",
    }
    assert report["alerts"] == {"watch": True, "handlers": []}
    assert report["endpoints"][1]["secrets"] == []
    assert "anybody" in report["warnings"][0]


def test_warnings_stand_on_standard_error(run, write):
    result = run("check", "-c", write(configuration(endpoint("open", provider="none"))))

    assert result.exit_code == 0
    assert 'warning: endpoint[0] ("open"): provider = "none"' in result.stderr
    assert "warning:" not in result.stdout


def test_a_bad_configuration_is_one_line_and_exit_code_2(run, run_process, write):
    path = write(configuration(endpoint("github", more='handlers = ["logg"]')))
    for code, out, err in (
        (lambda r: (r.exit_code, r.stdout, r.stderr))(run("check", "-c", path)),
        (lambda r: (r.returncode, r.stdout, r.stderr))(run_process("check", "-c", path)),
    ):
        assert code == 2
        assert out == ""
        assert err.startswith(f'error: {path}: endpoint[0] ("github").handlers: no handler')
        assert err.count("\n") == 1


def test_a_missing_secret_is_exit_code_2(run, write, monkeypatch):
    monkeypatch.delenv("SECRET_GITHUB")
    result = run("check", "-c", write(configuration(endpoint("github"))))

    assert result.exit_code == 2
    assert "env:SECRET_GITHUB: the environment variable is not set" in result.stderr


def test_a_missing_file_is_exit_code_2(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("check")

    assert result.exit_code == 2
    assert result.stderr == "error: fasthook.toml: No such file or directory\n"


def test_the_environment_may_name_the_configuration(run, write, monkeypatch, tmp_path):
    path = write(configuration(endpoint("github")))
    monkeypatch.setenv("FASTHOOK_CONFIG", str(path))

    assert f"{path}: good" in run("check").stdout


def test_wrong_use_is_exit_code_2(run):
    for arguments in (["chek"], ["check", "--jsn"], ["check", "more"], ["--nope"], ["check", "-c"]):
        result = run(*arguments)
        assert result.exit_code == 2
        assert "Error: " in result.stderr
        assert result.stdout == ""


def test_help_and_version_are_good(run, run_process):
    assert run("--help").exit_code == run("-h").exit_code == 0
    assert run_process("--version").stdout.startswith("fasthook, version ")
    for name in ("serve", "check", "init", "providers", "send"):
        assert name in run("-h").stdout
        assert run(name, "-h").exit_code == 0


@pytest.mark.parametrize("path", ["/a[b]c", "/a[/b]"])
def test_a_path_with_brackets_is_shown_as_it_is(path, run_process, write):
    text = configuration(endpoint("github")).replace('"/github"', f'"{path}"')
    result = run_process("check", "-c", write(text))

    assert result.returncode == 0, result.stderr
    assert path in result.stdout


def test_nothing_is_cut_in_a_pipe(run, write):
    name = "a-rather-long-name-for-an-endpoint-but-not-beyond-what-is-allowed"[:64]
    result = run("check", "-c", write(configuration(endpoint(name, provider="standard-webhooks"))))

    assert result.exit_code == 0
    assert name in result.stdout
    assert "env:SECRET_STANDARD_WEBHOOKS" in result.stdout
