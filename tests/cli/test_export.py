"""`export`: lines and files, with and without personal data; and what a user does with them."""

import gzip
import json
import stat
import subprocess
import sys
from urllib.parse import urlencode

import pytest

from fasthook.recordings import read
from tests.cli.conftest import ENVIRONMENT, WAIT_S, configuration, endpoint
from tests.cli.test_spool_commands import lines, once
from tests.spool.filled import delivery, fill

HEAD = (
    b"POST /github?token=tok123456 HTTP/1.1\r\nHost: hooks.acme.org\r\nContent-Type: application/json\r\n"
    b"Content-Length: 7\r\nX-Hub-Signature-256: sha256=cafe\r\nCookie: a=b\r\nAuthorization: Basic eA==\r\n"
    b"X-Forwarded-For: 203.0.113.9\r\nX-Real-IP: 203.0.113.9\r\nCF-Connecting-IP: 203.0.113.9\r\n"
    b"Forwarded: for=203.0.113.9\r\nX-Contact: ann@acme.org\r\nX-GitHub-Event: push\r\n\r\n"
)
FORM_HEAD = b"POST /s HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n"
XML_HEAD = b"POST /s HTTP/1.1\r\nContent-Type: text/xml\r\n\r\n"
BODY = {
    "id": 7,
    "created": 1690000000,
    "action": "opened",
    "user": {"login": "annsmith", "email": "ann@acme.org", "phone": "+49 151 2345678"},
    "amount": 12.5,
    "token": "ghp_0123456789abcdefghij",
}
PERSONAL = (
    "annsmith",
    "ann@acme.org",
    "2345678",
    "0123456789abcdefghij",
    "203.0.113.9",
    "tok123456",
)


@pytest.fixture
def config(write, tmp_path):
    config = write(
        configuration(endpoint("shop", provider="github"), endpoint("site", provider="none"))
    )
    form = urlencode({"From": "ann@acme.org", "n": "1"}).encode()
    fill(
        tmp_path / "var",
        delivery("a", head=HEAD, body=json.dumps(BODY).encode()),
        delivery("b", endpoint="site", event_type="x/../y", head=FORM_HEAD, body=form),
        delivery("c", endpoint="site", head=XML_HEAD, body=b"<a>ann@acme.org</a>"),
    )
    return config


def files(directory):
    return {path.name: json.loads(path.read_text()) for path in sorted(directory.iterdir())}


def test_a_directory_gets_a_readable_file_for_each_event(run, config, tmp_path):
    out = tmp_path / "tests/events"
    result = run("export", "-c", config, "--out", out)
    assert (result.exit_code, result.stdout) == (0, "")
    assert f"3 events in {out}" in result.stderr
    first, third, second = files(out).values()
    assert first["payload"] == BODY
    assert first["version"] == 1
    assert (first["endpoint"], first["type"], first["id"]) == ("shop", "push", "a")
    assert first["headers"] == {
        "content-type": "application/json",
        "x-contact": "ann@acme.org",
        "x-github-event": "push",
    }
    assert second["form"] == [["From", "ann@acme.org"], ["n", "1"]]
    assert third["body"] == "<a>ann@acme.org</a>"
    path = next(path for path in out.iterdir() if path.name.startswith("shop-push-0."))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().startswith('{\n  "version": 1,\n')
    assert not list(out.glob("*.part"))


def test_redacted_there_is_no_person_left_and_the_rest_is(run, config, tmp_path):
    out = tmp_path / "events"
    result = run("export", "-c", config, "--redact", "--out", out)
    assert result.exit_code == 0
    first, second = files(out).values()
    text = "".join(path.read_text() for path in out.iterdir()) + result.stdout + result.stderr
    assert not [value for value in PERSONAL if value in text]
    assert {key: first["payload"][key] for key in ("id", "created", "action", "amount")} == {
        key: BODY[key] for key in ("id", "created", "action", "amount")
    }
    assert first["redacted"]
    email = first["payload"]["user"]["email"]
    assert first["headers"]["x-contact"] == email
    assert second["form"][0] == ["From", email]
    assert "left out: 1 (neither JSON nor a form; --all-bodies takes them, too)" in result.stderr
    assert "replaced: 3 email, 1 name, 1 phone, 1 secret" in result.stderr
    assert "free text may hold more" in result.stderr


def test_without_redact_all_of_it_would_be_there(run, config):
    text = run("export", "-c", config).stdout
    assert [value for value in PERSONAL[:4] if value not in text] == []


def test_redacted_lines_have_no_client_either(run, config):
    first, second = lines(run("export", "-c", config, "--redact"))
    assert "client" not in first
    assert json.loads(first["body"])["id"] == 7
    assert first["state"] == "pending"
    assert "ann%40acme.org" not in second["body"]


def test_other_bodies_are_taken_where_that_is_asked_for(run, config):
    found = lines(run("export", "-c", config, "--redact", "--all-bodies"))
    assert len(found) == 3
    assert found[2]["body"].startswith("<a>user-")


def test_what_came_packed_is_written_unpacked(run, write, tmp_path):
    config = write(configuration(endpoint("site", provider="none")))
    head = b"POST /s HTTP/1.1\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n\r\n"
    packed = gzip.compress(json.dumps(BODY).encode())
    unlike = delivery("b", endpoint="site", head=head, body=b"no gzip at all")
    fill(tmp_path / "var", delivery("a", endpoint="site", head=head, body=packed), unlike)
    run("export", "-c", config, "--redact", "--out", tmp_path / "events")
    (written,) = files(tmp_path / "events").values()
    assert written["payload"]["amount"] == BODY["amount"]
    assert written["headers"] == {"content-type": "application/json"}
    assert "ann@acme.org" not in json.dumps(written)


def test_paths_are_kept_and_added(run, config):
    options = (
        "--keep",
        "payload.user.login",
        "--redact-also",
        "payload.action",
        "--keep",
        "payload.x",
    )
    result = run("export", "-c", config, "--redact", *options, "--id", "a")
    body = json.loads(lines(result)[0]["body"])
    assert body["user"]["login"] == "annsmith"
    assert body["action"] != "opened"
    assert "warning: nothing stands at payload.x" in result.stderr


def test_filters_and_limit_are_those_of_events(run, config):
    def ids(*options):
        return [line["id"] for line in lines(run("export", "-c", config, *options))]

    assert ids("--limit", 2) == ["b", "c"]
    assert ids("--endpoint", "site", "--type", "push") == ["c"]
    assert ids("--since", "1h") == []
    result = run("export", "-c", config, "--endpoint", "shup")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--endpoint: 'shup'" in result.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--keep", "payload.a"], "expected with --redact"),
        (["--redact", "--keep", "a.b"], "--keep 'a.b'; expected"),
        (["--limit", "0"], "0 is not in the range"),
    ],
)
def test_wrong_use_is_told(options, words, run, config):
    result = run("export", "-c", config, *options)
    assert result.exit_code == 2
    assert words in result.stderr


def test_a_directory_that_can_not_be_is_told(run, config, tmp_path):
    (tmp_path / "events").write_text("")
    result = run("export", "-c", config, "--out", tmp_path / "events/below")
    assert result.exit_code == 1
    assert "Not a directory" in result.stderr


def test_the_summary_is_there_for_programs(run, config, tmp_path):
    result = run("export", "-c", config, "--redact", "--json", "--out", tmp_path / "x.jsonl")
    (summary,) = lines(result)
    assert summary["events"] == 2
    assert summary["replaced"]["email"] == 3
    assert len(read(tmp_path / "x.jsonl")) == 2


USER_TEST = """
import pytest
from fasthook import Event, handler

seen = []


@handler
async def greet(event: Event) -> None:
    seen.append((event.type, event.payload["customer"]["email"]))
    assert event.payload["customer"]["email"] in event.payload["note"]
    assert event.payload["amount"] == 1200


@pytest.mark.recorded("events/*.json")
def test_greets(recorded_event, run_handler):
    run_handler(greet, recorded_event)
    assert seen[-1][1].endswith("@example.com")
    assert recorded_event.signed().headers


@pytest.mark.recorded("events")
def test_greets_nobody(recorded_event, run_handler):
    with pytest.raises(KeyError):
        run_handler(greet, recorded_event._replace(body=b"{}"))
"""


def test_a_user_records_events_and_tests_a_handler_with_them(serve, run, run_process, tmp_path):
    """Serve, send, export, and pytest in a folder of its own: all as processes."""
    serving = serve(configuration(endpoint("stripe"), endpoint("github")))
    config, body = tmp_path / "fasthook.toml", tmp_path / "body.json"
    for number, name in enumerate(("stripe", "github")):
        customer = {"email": f"ann{number}@acme.org", "name": "Ann Smith"}
        note = f"write to ann{number}@acme.org, asks Ann Smith"
        event = {"id": f"evt_{number}", "type": "order.paid", "amount": 1200}
        body.write_text(json.dumps(event | {"customer": customer, "note": note}))
        url = f"{serving.url}/{name}"
        sent = run_process(
            "send", name, "-c", config, "--url", url, "--body", body, "--event", "x.y"
        )
        assert sent.returncode == 0, sent.stdout + sent.stderr
    once(lambda: len(lines(run("events", "-c", config, "--json"))) == 2)
    folder = tmp_path / "mine"
    exported = run_process("export", "-c", config, "--redact", "--out", folder / "events")
    assert exported.returncode == 0, exported.stderr
    written = "".join(path.read_text() for path in (folder / "events").iterdir())
    assert "acme" not in written + exported.stdout + exported.stderr
    assert "Ann Smith" not in written
    (folder / "test_greet.py").write_text(USER_TEST)
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-W",
            "error",
            "--strict-markers",
            "-p",
            "no:cacheprovider",
        ],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    assert "4 passed" in result.stdout
