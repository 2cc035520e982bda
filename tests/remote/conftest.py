"""A CA for all tests of this folder."""

import pytest

from tests.remote.keyserver import Authority, KeyServer


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def server(authority, tmp_path):
    """A server by the name of keys.test."""
    made = KeyServer(authority, "keys.test", folder=tmp_path)
    yield made
    made.close()
