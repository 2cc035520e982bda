"""`fasthook explain`: captures in all forms, from a file or from what was refused."""

import hmac
import json

import pytest

BODY = b'{"zen":"Keep it logically awesome."}'
SECRET = "the secret of this test"
SIGNATURE = "sha256=" + hmac.new(SECRET.encode(), BODY, "sha256").hexdigest()
OPTIONS = ["--provider", "github", "--secret", f"plain:{SECRET}"]

RAW = (
    b"POST /github HTTP/1.1\r\nHost: hooks.example.com\r\nContent-Type: application/json\r\n"
    b"X-Hub-Signature-256: %b\r\n\r\n%b"
)
CURL = (
    "curl -X POST https://hooks.example.com/github \\\n  -H 'Content-Type: application/json' "
    "-H 'X-Hub-Signature-256: {}' --data-raw '{}'"
)


def raw(body=BODY):
    return RAW % (SIGNATURE.encode(), body)


def curl(body=BODY):
    return CURL.format(SIGNATURE, body.decode()).encode()


def har(body=BODY):
    headers = [{"name": "X-Hub-Signature-256", "value": SIGNATURE}]
    request = {"method": "POST", "url": "https://hooks.example.com/github", "headers": headers}
    request["postData"] = {"mimeType": "application/json", "text": body.decode()}
    return json.dumps({"log": {"entries": [{"request": request}]}}).encode()


@pytest.mark.parametrize("form", [raw, curl, har])
def test_a_capture_is_read_in_each_form(form, run, tmp_path):
    capture = tmp_path / "captured"
    capture.write_bytes(form())
    good = run("explain", capture, *OPTIONS)
    assert (good.exit_code, good.stdout) == (
        0,
        "genuine: it is signed with the configured secret\n",
    )

    capture.write_bytes(form(BODY.replace(b":", b": ")))
    bad = run("explain", capture, *OPTIONS, "--json")
    assert bad.exit_code == 1
    assert json.loads(bad.stdout)["cause"] == "body changed"
    assert SECRET not in bad.output
    assert SIGNATURE.removeprefix("sha256=") not in bad.output


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "expected a request as it is sent"),
        (b"GARBAGE", "a curl command line, or a HAR"),
        (b"curl -H 'unclosed", "can't be read"),
        (b"curl -H a:b", "has no URL"),
        (b"curl https://x -d @file", "another file"),
        (b'{"log": {"entries": []}}', "no request to look at"),
        (b"POST / HTTP/1.1\xff\xfe\r\n\xff", ""),
    ],
)
def test_what_is_no_capture_is_said(text, words, run, tmp_path):
    capture = tmp_path / "captured"
    capture.write_bytes(text)
    result = run("explain", capture, *OPTIONS)
    assert result.exit_code in (1, 2)
    assert words in result.output
    assert "Traceback" not in result.output


def test_without_a_capture_or_a_secret_nothing_can_be_explained(run, tmp_path):
    assert run("explain", *OPTIONS).exit_code == 2
    capture = tmp_path / "captured"
    capture.write_bytes(raw())
    assert run("explain", capture, "--provider", "github").exit_code == 2
    assert run("explain", capture, "--provider", "github", "--scheme", "x", *OPTIONS).exit_code == 2


def test_what_a_service_refused_is_explained_by_its_number(run, tmp_path, monkeypatch):
    from tests.cli.conftest import Serving, configuration, endpoint

    monkeypatch.setenv("SECRET_GITHUB", SECRET)
    config = tmp_path / "fasthook.toml"
    config.write_text(configuration(endpoint("github", more="keep_rejected = true")))
    started = Serving(config)
    try:
        started.wait_until_listening()
        url = f"{started.url}/github"
        sent = run("send", "github", "-c", config, "--url", url, "--tamper", "secret")
        assert sent.stdout.startswith("401")
        started.line_with("rejected")
        monkeypatch.setenv("SECRET_GITHUB", SECRET + "x")
    finally:
        assert started.stop() == 0
    result = run("explain", "-c", config, "--reject", "1")
    assert result.exit_code == 1
    assert "wrong secret" in result.stdout
    assert run("explain", "-c", config, "--reject", "99").exit_code == 1
