"""`fasthook init` writes a project that checks, and overwrites nothing."""

import json
import os
import re
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from fasthook.cli.project import package_name
from fasthook.intake import catalogue
from tests.cli.conftest import COMMAND, PROVIDERS, installed

ROOT = Path(__file__).parents[2]


def in_project(project, environment, *command):
    return subprocess.run(
        [sys.executable, *command],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_new_project_checks_and_its_test_passes(provider, run, tmp_path):
    project = tmp_path / "my-hooks"
    result = run("init", project, "--provider", provider)

    assert result.exit_code == 0
    secret = (project / "secrets" / provider).read_text().strip()
    assert len(secret) >= 32
    assert secret not in result.stdout
    environment = os.environ | installed(project, tmp_path / "site")
    checked = in_project(project, environment, *COMMAND[1:], "check", "--json")
    assert checked.returncode == 0, checked.stderr
    report = json.loads(checked.stdout)
    assert report["endpoints"][0]["provider"] == provider
    assert report["endpoints"][0]["handlers"] == ["my_hooks"]
    assert report["warnings"] == []
    assert secret not in checked.stdout + checked.stderr
    tested = in_project(project, environment, "-m", "unittest", "discover", "tests")
    assert tested.returncode == 0, tested.stderr


def test_the_secret_is_for_its_owner_alone_and_new_each_time(run, tmp_path):
    secrets = set()
    for name in ("one", "two"):
        before = os.umask(0)
        try:
            run("init", tmp_path / name)
        finally:
            os.umask(before)
        path = tmp_path / name / "secrets" / "github"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        secrets.add(path.read_text())
    assert len(secrets) == 2
    assert "secrets/" in (tmp_path / "one" / ".gitignore").read_text().splitlines()


def tree(directory):
    return {p: p.read_bytes() for p in directory.rglob("*") if p.is_file()}


@pytest.mark.parametrize("existing", ["fasthook.toml", "secrets/github", "shop/handlers.py"])
def test_nothing_that_exists_is_overwritten(existing, run, tmp_path):
    path = tmp_path / "shop" / existing
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    before = tree(tmp_path)
    result = run("init", tmp_path / "shop")

    assert result.exit_code == 2
    assert result.stderr == f"error: {path}: exists already; nothing was written\n"
    assert tree(tmp_path) == before


def test_a_project_is_not_written_twice(run, tmp_path):
    run("init", tmp_path / "shop")
    before = tree(tmp_path)

    assert run("init", tmp_path / "shop").exit_code == 2
    assert tree(tmp_path) == before


def test_other_files_in_the_directory_do_not_matter(run, tmp_path):
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "README.md").write_text("mine")

    assert run("init", tmp_path / "shop").exit_code == 0
    assert (tmp_path / "shop" / "README.md").read_text() == "mine"


def test_by_default_the_project_is_written_here(run, tmp_path, monkeypatch):
    (tmp_path / "shop").mkdir()
    monkeypatch.chdir(tmp_path / "shop")
    result = run("init")

    assert result.exit_code == 0
    assert (tmp_path / "shop" / "shop" / "handlers.py").exists()
    assert "cd " not in result.stdout


def test_the_command_is_the_same_as_a_process(run_process, tmp_path):
    result = run_process("init", "shop", cwd=tmp_path)

    assert result.returncode == 0
    assert "cd shop" in result.stdout
    assert (tmp_path / "shop" / "fasthook.toml").exists()


@pytest.mark.parametrize(
    ("directory", "package"),
    [
        ("shop", "shop"),
        ("My-Web.Hooks", "my_web_hooks"),
        ("2fast", "hooks_2fast"),
        ("---", "hooks"),
        ("_x_", "x"),
        ("fasthook", "hooks_fasthook"),
        ("tests", "hooks_tests"),
        ("json", "hooks_json"),
        ("a  b", "a_b"),
    ],
)
def test_a_package_has_a_name_that_can_be_imported(directory, package, tmp_path):
    assert package_name(tmp_path / directory) == package


@pytest.mark.parametrize("directory", ["class", "import", "log", "exec", "file", "forward", "köln"])
def test_a_package_has_a_name_that_works_everywhere(directory, run, tmp_path):
    project = tmp_path / directory
    assert run("init", project).exit_code == 0

    described = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", described["name"])  # PEP 508
    environment = os.environ | installed(project, tmp_path / "site")
    for command in ([*COMMAND[1:], "check"], ["-m", "unittest", "discover", "tests"]):
        result = in_project(project, environment, *command)
        assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("provider", ["none", "custom", "gihub", "../github", ""])
def test_an_unknown_provider_is_exit_code_2(provider, run, tmp_path):
    result = run("init", tmp_path / "shop", "--provider", provider)

    assert result.exit_code == 2
    assert result.stderr
    assert not (tmp_path / "shop").exists()


def test_an_unknown_provider_comes_with_the_one_that_was_meant(run, tmp_path):
    assert "'github'" in run("init", tmp_path / "shop", "--provider", "gihub").stderr


def test_a_file_where_the_directory_should_be_is_exit_code_2(run_process, tmp_path):
    (tmp_path / "shop").write_text("mine")
    result = run_process("init", tmp_path / "shop")

    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert str(tmp_path / "shop") in result.stderr


@pytest.mark.parametrize("provider", ["aws-sns", "paypal", "google-pubsub", "kick"])
def test_where_keys_are_fetched_there_is_no_secret(provider, run, tmp_path):
    project = tmp_path / "my-hooks"
    result = run("init", project, "--provider", provider)
    assert result.exit_code == 0
    assert "There is no secret" in result.stdout
    assert not (project / "secrets").exists()
    text = (project / "fasthook.toml").read_text()
    (endpoint,) = tomllib.loads(text)["endpoint"]
    assert "secrets" not in endpoint
    assert list(endpoint.get("config", {})) == catalogue.load(provider).schemes["default"].settings


# --- nginx's part ---------------------------------------------------------------------------------

CONFIG = """
[server]
listen = ["tcp://127.0.0.1:8080", "unix:{socket}"]
max_body = "64KiB"
[[endpoint]]
name = "github"
path = "/github"
provider = "github"
secrets = ["env:NOT_SET_HERE"]
handlers = ["log"]
max_body = "2MiB"
"""


def test_nginx_has_its_part_for_a_host_and_no_project(run, tmp_path):
    result = run("init", "--nginx", "Hooks.Example.ORG.", tmp_path)

    assert result.exit_code == 0
    (path,) = tmp_path.iterdir()
    assert path.name == "hooks.example.org.conf"
    text = path.read_text()
    assert text.count("server_name hooks.example.org;") == 2
    assert "example.com" not in text
    assert "server unix:/run/fasthook/fasthook.sock;" in text
    assert "client_max_body_size 25m;" in text
    assert "certbot certonly --webroot -w /var/www/acme -d hooks.example.org" in result.stdout


@pytest.mark.parametrize("socket", ["/srv/hooks/a.sock", "a.sock"])
def test_nginx_takes_socket_and_largest_body_from_the_configuration(socket, run, tmp_path):
    config = tmp_path / "fasthook.toml"
    config.write_text(CONFIG.format(socket=socket))
    result = run("init", "--nginx", "hooks.test", "-c", config, tmp_path)

    assert result.exit_code == 0, result.stderr
    text = (tmp_path / "hooks.test.conf").read_text()
    assert f"server unix:{tmp_path / socket};" in text
    assert f"client_max_body_size {2 * 1024**2};" in text


@pytest.mark.parametrize("socket", ["/srv/a;b.sock", "/srv/a b.sock", "/srv/${x}.sock"])
def test_a_socket_that_would_be_more_than_a_path_for_nginx_is_refused(socket, run, tmp_path):
    config = tmp_path / "fasthook.toml"
    config.write_text(CONFIG.format(socket=socket))
    result = run("init", "--nginx", "hooks.test", "-c", config, tmp_path)

    assert result.exit_code == 2
    assert "server.listen" in result.stderr
    assert not (tmp_path / "hooks.test.conf").exists()


@pytest.mark.parametrize(
    "host",
    [
        "",
        "localhost",
        "a..b",
        "a b.c",
        "a.b;",
        "../a.b",
        "a.b/c",
        "-a.b",
        "a_b.c",
        "a." * 130 + "b",
    ],
)
def test_what_is_no_host_name_is_refused(host, run, tmp_path):
    result = run("init", "--nginx", host, tmp_path)

    assert result.exit_code == 2
    assert "expected a host name" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_part_of_nginx_that_exists_is_not_overwritten(run, tmp_path):
    (tmp_path / "hooks.test.conf").write_text("mine")
    result = run("init", "--nginx", "hooks.test", tmp_path)

    assert result.exit_code == 2
    assert "exists already; nothing was written" in result.stderr
    assert (tmp_path / "hooks.test.conf").read_text() == "mine"


def test_nginx_needs_a_directory_that_is_there(run, tmp_path):
    assert run("init", "--nginx", "hooks.test", tmp_path / "none").exit_code == 2
    assert run("init", "-c", tmp_path / "fasthook.toml", tmp_path / "shop").exit_code == 2
    assert list(tmp_path.iterdir()) == []


# --- a service of systemd ---------------------------------------------------------------------------


def test_units_and_a_configuration_for_them(run_process, tmp_path):
    said = run_process("init", "--systemd", "--provider", "stripe", tmp_path).stdout
    assert f"they start {sys.prefix}/bin/fasthook." in said
    units = tmp_path / "usr/local/lib/systemd/system"
    service = (units / "fasthook.service").read_text()
    assert (
        f"\nExecStart={sys.prefix}/bin/fasthook serve -c /etc/fasthook/fasthook.toml\n" in service
    )
    source = ROOT / "systemd"
    for path in ("fasthook.socket", "fasthook-admin.socket", *source.glob("*.d/*.example")):
        name = Path(path).relative_to(source) if isinstance(path, Path) else path
        assert (units / name).read_text() == (source / name).read_text()
    secret = tmp_path / "etc/fasthook/secrets/stripe"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert stat.S_IMODE(secret.parent.stat().st_mode) == 0o700
    dropin = tmp_path / "etc/systemd/system/fasthook.service.d/secrets.conf"
    catalog = tmp_path / "usr/local/lib/systemd/catalog/fasthook.catalog"
    assert catalog.read_text() == (source / "fasthook.catalog").read_text()
    assert dropin.read_text().endswith("LoadCredential=stripe:/etc/fasthook/secrets/stripe\n")
    # What it wrote is a configuration that serves, with the secret as systemd passes it.
    environment = os.environ | {"CREDENTIALS_DIRECTORY": str(secret.parent)}
    config = tmp_path / "etc/fasthook/fasthook.toml"
    check = run_process("check", "-c", config, env=environment)
    assert check.returncode == 0, check.stderr
    assert "stripe" in check.stdout


def test_units_are_written_anew_and_nothing_else_is(run_process, tmp_path):
    run_process("init", "--systemd", tmp_path)
    unit = tmp_path / "usr/local/lib/systemd/system/fasthook.service"
    config = tmp_path / "etc/fasthook/fasthook.toml"
    secret = tmp_path / "etc/fasthook/secrets/github"
    unit.write_text("[Service]\n")
    config.write_text("# mine\n")
    kept = secret.read_text()
    again = run_process("init", "--systemd", tmp_path)
    assert "was there, and is as it was" in again.stdout
    assert "DynamicUser=yes" in unit.read_text()
    assert config.read_text() == "# mine\n"
    assert secret.read_text() == kept


def test_a_service_without_a_network_does_not_begin_with_keys_that_are_fetched(
    run_process, tmp_path
):
    answer = run_process("init", "--systemd", "--provider", "aws-sns", tmp_path)
    assert answer.returncode == 2
    assert "handlers-call-out.conf.example" in answer.stderr
    assert list(tmp_path.iterdir()) == []
    assert run_process("init", "--systemd", "--nginx", "a.test", tmp_path).returncode == 2
    assert run_process("init", "--systemd", "-c", "x.toml", tmp_path).returncode == 2


def test_units_for_a_machine_that_is_none_are_refused(run_process, tmp_path):
    answer = run_process("init", "--systemd", tmp_path / "none")
    assert answer.returncode == 2
    assert "expected the root of a machine" in answer.stderr
