"""Every provider whose secret can be made up: what `send` signs is taken, what it spoils is not."""

import pytest

from fasthook.errors import ConfigError
from fasthook.intake import catalogue
from fasthook.intake.signing import sample_secret
from tests.cli.conftest import Serving, configuration

SECRETS = {}
for _name in catalogue.names():
    _provider = catalogue.load(_name)
    _scheme = _provider.schemes[_provider.default_scheme]
    if _scheme.kind not in ("ed25519", "code"):
        try:
            SECRETS[_name] = sample_secret(_scheme, b"send all")
        except ConfigError:
            continue  # only the sender has the key


def block(name):
    provider = catalogue.load(name)
    scheme = provider.schemes[provider.default_scheme]
    lines = [
        f'[[endpoint]]\nname = "{name}"\npath = "/{name}"\nprovider = "{name}"',
        f'secrets = ["plain:{SECRETS[name]}"]\nhandlers = ["log"]',
    ]
    if scheme.needs_url:
        lines.append(f'public_url = "https://hooks.example.com/{name}"')
    lines += [f'config.{setting} = "x"' for setting in scheme.settings]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def serving(tmp_path_factory):
    config = tmp_path_factory.mktemp("all") / "fasthook.toml"
    config.write_text(configuration(*map(block, SECRETS)))
    started = Serving(config)
    started.config = config
    try:
        started.wait_until_listening()
        yield started
    finally:
        assert started.stop() == 0


def test_nearly_all_can_be_sent():
    assert len(SECRETS) > 110


@pytest.mark.parametrize("name", SECRETS)
def test_what_is_sent_is_taken_and_what_is_spoilt_is_refused(name, run, serving):
    provider = catalogue.load(name)
    send = ["send", name, "-c", serving.config, "--url", f"{serving.url}/{name}"]

    good = run(*send)
    assert good.exit_code == 0, good.output
    assert good.stdout.startswith(f"{provider.status} ")
    bad = run(*send, "--tamper", "secret")
    assert bad.exit_code == 1
    assert bad.stdout.startswith(f"{provider.refusal_status} "), bad.stdout
