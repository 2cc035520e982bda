"""What commands say of keys that are fetched, and `explain` with a real key server."""

import json

import pytest

from tests.system.test_fetching import CERTIFICATE, PAYPAL, PAYPAL_PATH, SNS, World


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Key servers, and a configuration at `world.service`."""
    monkeypatch.setenv("HOOK_SECRET", "the secret of this test")

    def write(text):
        path = tmp_path / "fasthook.toml"
        path.write_text(text.replace('handlers = ["record"]', 'handlers = ["log"]'))
        return path

    made = World(write, tmp_path)
    made.serve()
    yield made
    made.close()


def captured(tmp_path, raw: bytes):
    path = tmp_path / "captured"
    path.write_bytes(raw)
    return path


def test_check_says_from_where(run, world):
    result = run("check", "-c", world.service, "--json")
    assert result.exit_code == 0
    rows = {row["name"]: row for row in json.loads(result.stdout)["endpoints"]}
    assert "fetched_from" not in rows["github"]
    assert rows["pubsub"]["fetched_from"] == "https://www.googleapis.com/oauth2/v3/certs"
    assert rows["paypal"]["fetched_from"].startswith(
        "the URL in header PAYPAL-CERT-URL, at api.paypal.com"
    )
    assert rows["fusionauth"]["fetched_from"].startswith("https://localhost:")
    assert "fetched: " in run("check", "-c", world.service).stdout
    assert sum(server.connections for server in world.servers.values()) == 0, (
        "check fetches nothing"
    )


def test_providers_says_from_where(run):
    shown = run("providers", "aws-sns").stdout
    assert "fetched from the URL in json:SigningCertURL" in shown
    assert "at sns.REGION.amazonaws.com" in shown
    assert "answered once the URL in json:SubscribeURL was visited" in shown
    assert "secrets  =" not in shown
    facts = json.loads(run("providers", "google-pubsub", "--json").stdout)
    assert (
        facts["schemes"]["default"]["fetch"]["url"] == "https://www.googleapis.com/oauth2/v3/certs"
    )


@pytest.mark.parametrize("name", ["orders", "paypal", "pubsub"])
def test_explain_fetches_if_it_may(run, world, tmp_path, name):
    raw = {"orders": world.sns, "paypal": world.paypal, "pubsub": world.pubsub}[name]()
    path = captured(tmp_path, raw)
    options = ("explain", path, "-c", world.service, "--endpoint", name)
    asked = run(*options)
    assert asked.exit_code == 1
    assert "--fetch gets it, --secret file:PATH takes it from a file" in asked.stderr
    assert sum(server.connections for server in world.servers.values()) == 0
    good = run(*options, "--fetch")
    assert (good.exit_code, good.stdout[:7]) == (0, "genuine")


def test_explain_takes_a_certificate_from_a_file_and_finds_what_is_wrong(run, world, tmp_path):
    pem = tmp_path / "certificate.pem"
    pem.write_bytes(world.paypal_certificate)
    options = ("-c", world.service, "--endpoint", "paypal")
    good = captured(tmp_path, world.paypal())
    assert run("explain", good, *options, "--secret", f"file:{pem}").exit_code == 0
    assert not world.asked(PAYPAL)
    bad = captured(tmp_path, world.paypal(key=world.sns_key))
    result = run("explain", bad, *options, "--fetch", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["cause"] == "wrong secret"
    assert world.asked(PAYPAL) == [PAYPAL_PATH]


def test_explain_fetches_from_nowhere_else(run, world, tmp_path):
    path = captured(tmp_path, world.sns(url="https://sns.us-east-1.amazonaws.com.evil.test/x.pem"))
    result = run("explain", path, "-c", world.service, "--endpoint", "orders", "--fetch", "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 1
    assert found["cause"] == "key address"
    assert "sns.REGION.amazonaws.com" in found["text"]
    assert sum(server.connections for server in world.servers.values()) == 0


def test_explain_says_why_a_key_can_not_be_had(run, world, tmp_path):
    world.servers[SNS].answers[CERTIFICATE] = b""
    path = captured(tmp_path, world.sns())
    result = run("explain", path, "-c", world.service, "--endpoint", "orders", "--fetch")
    assert result.exit_code == 1
    assert f"no key from https://{SNS}{CERTIFICATE}: " in result.stderr
    assert "Traceback" not in result.output


def test_explain_without_a_configuration_knows_who_publishes(run, tmp_path):
    path = captured(tmp_path, b"POST /x HTTP/1.1\r\nHost: x\r\n\r\n{}")
    unknown = run("explain", path, "--provider", "github", "--fetch")
    assert unknown.exit_code == 2
    assert "github publishes no keys" in unknown.stderr
    path = captured(
        tmp_path, b"POST /x HTTP/1.1\r\nHost: x\r\nPAYPAL-CERT-URL: https://x\r\n\r\n{}"
    )
    nothing = run("explain", path, "--provider", "paypal", "--fetch", "--json")
    first, *_ = map(json.loads, nothing.stdout.splitlines())
    assert first["cause"] == "header missing"
    assert "PAYPAL-TRANSMISSION-SIG" in first["text"].upper()


def test_send_asks_for_a_private_key(run, world):
    result = run("send", "paypal", "-c", world.service)
    assert result.exit_code == 2
    assert "give a private one: --secret" in result.stderr


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ('timeout = "1m"', "keys.timeout: 60s; expected a time above zero, 10s at the most"),
        ('timeout = "0s"', "keys.timeout: 0s; expected a time above zero"),
        ('allow = ["10.0.0.1/8"]', "keys.allow: 10.0.0.1/8 has host bits set; expected such as"),
        ('allow = ["keys.test"]', "keys.allow: "),
        ('ca_file = "/none.pem"', "keys.ca_file: /none.pem: No such file"),
        ('connect_to = { "keys.test" = "relay:443" }', "keys.connect_to.keys.test: 'relay:443'; expected an address"),
        ('connect_to = { "keys.test" = "10.0.0.1" }', "keys.connect_to.keys.test: '10.0.0.1'; expected an address"),
        ("proxy = 1", "keys.proxy: unknown key"),
    ],
)  # fmt: skip
def test_wrong_settings_are_named(run, write, change, reason):
    endpoint = '[[endpoint]]\nname = "p"\npath = "/p"\nprovider = "paypal"\nhandlers = ["log"]\n'
    path = write(f'[keys]\n{change}\n{endpoint}config.webhook_id = "w"\n')
    result = run("check", "-c", path)
    assert result.exit_code == 2
    assert reason in result.stderr


@pytest.mark.parametrize(
    ("provider", "more", "reason"),
    [
        ("github", 'jwks_url = "https://x.test/"', "jwks_url: github is verified without key sets"),
        ("paypal", 'jwks_url = "https://x.test/"', "jwks_url: paypal is verified without key sets"),
        ("fusionauth", 'jwks_url = "http://x.test/"', "'http://x.test/'; only https:// is fetched"),
        ("fusionauth", 'jwks_url = "https://u:p@x.test/"', "a URL with a user is not fetched"),
        ("fusionauth", 'jwks_url = "https://x.test/"\nsecrets = ["plain:' + "x" * 32 + '"]', "expected either it or secrets"),
        ("fusionauth", "", "secrets: missing"),
        ("paypal", "", "config.webhook_id: missing"),
        ("aws-sns", "", "config.topic_arn: missing"),
        ("none", 'jwks_url = "https://x.test/"', "jwks_url: not used with provider"),
    ],
)  # fmt: skip
def test_wrong_endpoints_are_named(run, write, provider, more, reason):
    endpoint = f'[[endpoint]]\nname = "p"\npath = "/p"\nprovider = "{provider}"\nhandlers = ["log"]\n{more}\n'
    result = run("check", "-c", write(endpoint))
    assert result.exit_code == 2
    assert reason in result.stderr
    assert "u:p" not in result.stderr
