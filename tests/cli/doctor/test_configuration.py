"""The configuration, its secrets where they can be had, and its handlers."""

import pytest

from fasthook.cli.doctor import configuration as examined
from fasthook.cli.doctor.case import borrowed_environment, environment_of
from tests.cli.conftest import SECRETS, configuration, endpoint
from tests.cli.doctor.conftest import bads, goods, is_all_good, warnings


def test_a_good_configuration(case):
    found = list(examined.look(case()))

    assert is_all_good(found)
    assert "1 endpoint; handlers: log" in goods(found)[0]
    assert goods(found)[1] == "1 secret found"


def test_what_check_refuses_is_bad(case):
    found = bads(examined.look(case(configuration(endpoint("github", more='config.x = "1"')))))

    assert "config.x: unknown key" in found[0]


def test_what_check_warns_of_is_a_warning(case):
    text = configuration(endpoint("open", provider="none"))

    assert "anybody who knows the path can send" in warnings(examined.look(case(text)))[0]


def test_a_handler_that_is_not_installed_is_bad(case):
    text = configuration(endpoint("github", more='handlers = ["lgo"]'))

    assert (
        "no handler 'lgo' is installed; did you mean 'log'?" in bads(examined.look(case(text)))[0]
    )


@pytest.mark.parametrize("name", ["env", "credential"])
def test_a_secret_that_only_the_service_has_is_a_warning(case, monkeypatch, name):
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    text = configuration(endpoint("github", more=f'secrets = ["{name}:NOT_HERE"]'))
    found = list(examined.look(case(text)))

    assert not bads(found)
    assert "not looked at" in warnings(found)[0]
    assert goods(found) == ["log can be imported"]


def test_handlers_are_imported_even_without_secrets(case):
    more = 'secrets = ["env:NOT_HERE"]\nhandlers = ["lgo"]'
    found = bads(examined.look(case(configuration(endpoint("github", more=more)))))

    assert "no handler 'lgo' is installed" in found[0]


def test_a_secret_file_that_is_missing_is_bad(case):
    text = configuration(endpoint("github", more='secrets = ["file:no-such-file"]'))

    assert "no-such-file: No such file" in bads(examined.look(case(text)))[0]


def test_secrets_are_found_in_the_environment_of_the_service(case, serve, monkeypatch):
    text = configuration(endpoint("github"))
    serve(text)
    monkeypatch.delenv("SECRET_GITHUB")

    running = case(text)
    assert running.holder is not None
    assert "SECRET_GITHUB" in environment_of(running.holder)
    with borrowed_environment(running):
        assert is_all_good(examined.look(running))
    assert warnings(examined.look(running))  # not lent any more


def test_a_secret_that_the_service_lacks_is_bad(case, serve, monkeypatch):
    serve(configuration(endpoint("github")))
    changed = case(configuration(endpoint("github", more='secrets = ["env:NOT_HERE"]')))

    assert "env:NOT_HERE: the environment variable is not set" in bads(examined.look(changed))[0]


def test_no_secret_is_shown(case):
    text = configuration(endpoint("github", more=f'secrets = ["plain:{SECRETS["github"]}"]'))
    found = list(examined.look(case(text)))

    assert not [each for each in found if SECRETS["github"] in repr(each)]
    assert SECRETS["github"] not in repr(case(text).references)


def test_relative_paths_of_handlers_are_those_of_the_service(case, serve, units, tmp_path):
    text = configuration(endpoint("github", more='handlers = ["file"]'))
    text += '[handlers.file]\npath = "events/all.jsonl"\n'
    assert "no such directory" in bads(examined.look(case(text)))[0]

    (tmp_path / "home" / "events").mkdir(parents=True)
    (units / "fasthook.service").write_text(f"[Service]\nWorkingDirectory={tmp_path}/home\n")
    assert is_all_good(examined.look(case(text)))

    (units / "fasthook.service").unlink()
    serve(text, cwd=tmp_path / "home")
    assert is_all_good(examined.look(case(text)))
