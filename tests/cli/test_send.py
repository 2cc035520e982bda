"""`fasthook send` signs as a provider does: a real service accepts it, unless it is spoilt."""

import json
import re
import socket

import pytest

from fasthook.intake import catalogue
from tests.cli.conftest import PROVIDERS, SECRETS, Serving, configuration, endpoint

CUSTOM = """
[endpoint.scheme]
header = "X-Signature"
message = "{url}{body}"
"""


@pytest.fixture(scope="module")
def serving(tmp_path_factory):
    """One service for all: an endpoint for each provider, and one for anybody."""
    path = tmp_path_factory.mktemp("send") / "fasthook.toml"
    secret = 'secrets = ["env:SECRET_GITHUB"]'
    more = f'public_url = "https://hooks.example.com/custom"\n{secret}'
    path.write_text(
        configuration(
            *(endpoint(name) for name in SECRETS),
            endpoint("open", provider="none"),
            endpoint("custom", more=more) + CUSTOM,
        )
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SECRETS.items():
            patch.setenv(f"SECRET_{name.upper().replace('-', '_')}", value)
        started = Serving(path)
    started.config = path
    try:
        started.wait_until_listening()
        yield started
    finally:
        assert started.stop() == 0


@pytest.fixture
def send(run, serving):
    """Send to the endpoint of this name, as the configuration has it."""

    def send(name, *options):
        url = f"{serving.url}/{name}"
        return run("send", name, "-c", serving.config, "--url", url, *options)

    return send


def samples():
    for name in PROVIDERS:
        for event in catalogue.load(name).samples:
            yield name, event


@pytest.mark.parametrize(("name", "event"), list(samples()))
def test_every_sample_is_accepted(name, event, send):
    result = send(name, "--event", event)

    assert result.exit_code == 0, result.output
    assert re.match(r"20[02] \w+ \(\d+\.\d ms\)", result.stdout)


def test_an_event_of_another_type_is_sent_with_its_type(send, serving):
    assert send("github", "--event", "release", "--id", "of-another-type").exit_code == 0
    assert json.loads(serving.line_with("accepted", "of-another-type"))["type"] == "release"


@pytest.mark.parametrize("name", PROVIDERS)
def test_an_id_is_the_one_that_arrives(name, send, serving):
    if not catalogue.load(name).event_id:
        pytest.skip("sends no id")
    assert send(name, "--id", f"given-{name}").exit_code == 0
    serving.line_with("accepted", f"given-{name}")


@pytest.mark.parametrize("part", ["body", "signature", "secret", "timestamp"])
@pytest.mark.parametrize("name", PROVIDERS)
def test_what_is_spoilt_is_refused(name, part, send):
    result = send(name, "--tamper", part)

    if part == "timestamp" and not catalogue.load(name).schemes["default"].timestamp:
        assert result.exit_code == 2  # it can't be done: no 2xx, and nothing that looks refused
        return
    assert result.exit_code == 1, result.output
    assert result.stdout.startswith("401 Unauthorized")
    assert "signature verification failed" in result.stdout


def test_the_body_is_spoilt_unless_something_else_is_named(send):
    assert send("github", "--tamper").stdout.startswith("401")


def test_several_events_are_summed_up(send):
    assert send("stripe", "--count", "3").stdout == "3 × 202\n"
    result = send("stripe", "--count", "2", "--tamper", "body")
    assert (result.exit_code, result.stdout) == (1, "2 × 401\n")


def test_quiet_is_a_summary_of_one(send):
    assert send("shopify", "--quiet").stdout == "1 × 200\n"


def test_several_events_have_different_ids(send, serving):
    body_ids = set()
    assert send("standard-webhooks", "--count", "3").exit_code == 0
    for _ in range(3):
        body_ids.add(json.loads(serving.line_with('"accepted"', "standard-webhooks"))["id"])
    assert len(body_ids) == 3


def test_a_body_comes_from_a_file_or_standard_input(run, serving, tmp_path):
    body = b'{"zen": "caf\xc3\xa9",\n "n": 1}\n'
    (tmp_path / "body.json").write_bytes(body)
    url = f"{serving.url}/github"
    send = ["send", "github", "-c", serving.config, "--url", url, "--body"]

    assert run(*send, tmp_path / "body.json", "--id", "from-file").exit_code == 0
    assert json.loads(serving.line_with("accepted", "from-file"))["bytes"] == len(body)
    assert run(*send, "-", "--id", "from-stdin", input=body).exit_code == 0
    assert json.loads(serving.line_with("accepted", "from-stdin"))["bytes"] == len(body)


def test_a_body_that_is_no_json_is_refused(send, tmp_path):
    (tmp_path / "body").write_bytes(b"{")
    result = send("github", "--body", tmp_path / "body")

    assert result.exit_code == 1
    assert result.stdout.startswith("400 Bad Request")


@pytest.mark.parametrize("form", ["env", "file", "plain", "bare"])
def test_no_configuration_is_needed(form, run, serving, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s").write_text(SECRETS["stripe"] + "\n")
    secret = {
        "env": "env:SECRET_STRIPE",
        "file": "file:s",
        "plain": f"plain:{SECRETS['stripe']}",
        "bare": SECRETS["stripe"],
    }[form]
    result = run(
        "send", "--provider", "stripe", "--secret", secret, "--url", f"{serving.url}/stripe"
    )
    assert result.exit_code == 0


def test_who_does_not_sign_needs_no_secret(run, serving, send):
    assert run("send", "--provider", "none", "--url", f"{serving.url}/open").exit_code == 0
    assert send("open").exit_code == 0


def test_the_command_is_the_same_as_a_process(run_process, serving):
    send = ["send", "slack", "-c", serving.config, "--url", f"{serving.url}/slack"]
    good, bad = run_process(*send), run_process(*send, "--tamper", "secret")

    assert (good.returncode, bad.returncode) == (0, 1)
    assert good.stdout.startswith("200 OK")
    assert bad.stdout.startswith("401 Unauthorized")
    assert good.stderr == bad.stderr == ""


def test_an_endpoint_that_signs_its_url_signs_the_public_one(send):
    assert send("custom").stdout.startswith("202")


# --- what goes wrong ------------------------------------------------------------------------------


def one_line(result, code):
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def named(url, *options):
    secret = ["--secret", "env:SECRET_GITHUB"]
    return ["send", "--provider", "github", *secret, "--url", url, *options]


def test_where_nobody_listens_is_one_line_and_exit_code_1(run_process):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/github"
    result = run_process(*named(url))

    one_line(result, 1)
    assert url in result.stderr
    assert "is `fasthook serve` running?" in result.stderr


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1/", "http://", "nonsense", "http://[::1", "http://127.0.0.1:99999/"]
)
def test_an_address_that_can_not_be_is_one_line(url, run_process):
    result = run_process(*named(url))

    assert result.returncode in (1, 2)
    assert "Traceback" not in result.stderr
    assert url in result.stderr


@pytest.mark.parametrize("option", ["--id", "--event"])
def test_a_line_break_in_a_header_is_refused(option, run_process, serving):
    result = run_process(*named(f"{serving.url}/github", option, "a\r\nX-Evil: 1"))

    assert result.returncode in (1, 2)
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--url and --provider must be given"),
        (["--url", "http://x"], "--provider must be given"),
        (["--url", "http://x", "--provider", "github"], "--secret must be given"),
        (["--url", "http://x", "--provider", "gihub", "--secret", "x"], "'gihub'"),
        (
            ["--url", "http://x", "--provider", "github", "--secret", "x", "--scheme", "md5"],
            "--scheme 'md5'; it has: default",
        ),
        (
            ["--url", "http://x", "--provider", "github", "--secret", "env:FASTHOOK_NOPE"],
            "env:FASTHOOK_NOPE",
        ),
        (["--tamper", "all"], "--tamper"),
        (["--count", "0"], "--count"),
        (["--count", "many"], "--count"),
        (["--body", "/no/such/file"], "/no/such/file"),
        (["--nope"], "--nope"),
        (["a", "b"], "unexpected"),
    ],
)
def test_wrong_use_is_exit_code_2(arguments, words, run):
    result = run("send", *arguments)

    assert result.exit_code == 2
    assert result.stdout == ""
    assert words in result.stderr


def test_an_unknown_endpoint_comes_with_those_there_are(run, serving):
    result = run("send", "gihub", "-c", serving.config)

    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {serving.config}: no endpoint 'gihub'; it has: github")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("option", [["--provider", "stripe"], ["--scheme", "sha1"]])
def test_an_option_that_is_not_used_is_refused(option, send):
    assert send("github", *option).exit_code == 2


def test_an_id_that_can_not_be_set_is_refused(send, tmp_path):
    (tmp_path / "body").write_text("{}")
    assert send("stripe", "--body", tmp_path / "body", "--id", "x").exit_code == 2


def test_no_secret_was_ever_said(serving, send):
    """The rest is held by the fixtures, which look through all output."""
    send("github", "--id", "last", "--tamper", "secret")
    serving.line_with("rejected")
    text = "".join(serving.lines)
    assert not any(secret in text for secret in SECRETS.values())
