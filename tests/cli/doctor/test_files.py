"""Modes and owners of what holds secrets, and of what the service trusts."""

import os

import pytest

from fasthook.cli.doctor import files
from tests.cli.conftest import configuration, endpoint
from tests.cli.doctor.conftest import NOBODY, bads, goods, is_all_good, needs_root, warnings

TEXT = configuration(endpoint("github", more='secrets = ["file:secret"]'))


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret"
    path.write_text("0123456789abcdef")
    path.chmod(0o600)
    return path


def test_a_secret_that_is_its_owners_alone(case, secret):
    found = list(files.look(case(TEXT)))

    assert is_all_good(found)
    assert "1 files of secrets" in goods(found)[0]


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o644, 0o620])
def test_a_secret_that_others_can_read_or_change_is_bad(case, secret, mode):
    secret.chmod(mode)

    assert f"({mode:04o})" in bads(files.look(case(TEXT)))[0]


def test_a_secret_that_a_group_can_read_is_a_warning(case, secret):
    case(TEXT).spool.mkdir()
    os.chown(secret, -1, os.getgroups()[0] if os.geteuid() else NOBODY)
    secret.chmod(0o640)

    assert "can read a secret" in warnings(files.look(case(TEXT)))[0]


@needs_root
def test_a_secret_of_roots_for_the_group_of_the_service_is_good(case, secret):
    examined = case(TEXT)
    examined.spool.mkdir()
    os.chown(examined.spool, NOBODY, NOBODY)
    os.chown(secret, 0, NOBODY)
    secret.chmod(0o640)

    assert is_all_good(files.look(examined))


@needs_root
def test_a_secret_of_somebody_else_is_bad(case, secret):
    os.chown(secret, NOBODY, -1)

    assert "neither root nor the service" in bads(files.look(case(TEXT)))[0]


def test_a_secret_that_is_not_there_is_bad(case):
    assert "No such file" in bads(files.look(case(TEXT)))[0]


def test_a_folder_in_which_everybody_can_put_another_secret_is_bad(case, secret, tmp_path):
    tmp_path.chmod(0o777)
    found = bads(files.look(case(TEXT)))
    assert "everybody can put another secret there" in found[0]

    tmp_path.chmod(0o1777)  # as /tmp
    assert is_all_good(files.look(case(TEXT)))


@pytest.mark.parametrize("mode", [0o602, 0o622])
def test_a_configuration_that_everybody_can_change_is_bad(case, secret, mode):
    examined = case(TEXT)
    examined.path.chmod(mode)

    assert "everybody can change it" in bads(files.look(examined))[0]


def test_a_plain_secret_in_a_file_that_everybody_can_read_is_bad(case):
    examined = case(configuration(endpoint("github", more='secrets = ["plain:0123456789"]')))
    assert is_all_good(files.look(examined))

    examined.path.chmod(0o644)
    found = list(files.look(examined))
    assert "it holds a plain: secret" in bads(found)[0]
    assert "0123456789" not in repr(found)


def test_files_of_credentials_are_those_that_the_unit_names(case, units, secret):
    (units / "fasthook.service").write_text(f"[Service]\nLoadCredential=github:{secret}\n")
    assert is_all_good(files.look(case()))

    secret.chmod(0o644)
    assert str(secret) in bads(files.look(case()))[0]
