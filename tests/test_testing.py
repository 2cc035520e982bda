"""The plugin for tests of handlers, as a user's test has it."""

import json

import msgspec
import pytest

from fasthook import Discard, Event, handler
from fasthook.errors import ConfigError, NotGenuine
from fasthook.intake import catalogue
from fasthook.intake.signatures import verifier_of
from fasthook.model import Request

pytest_plugins = ["pytester"]


class Order(msgspec.Struct):
    id: int


@handler
async def later(event: Event[Order]) -> None:
    if event.payload.id < 0:
        raise Discard("no such order")


@handler
def now(event: Event[Order]) -> None:
    assert event.id == "evt_7"


def test_a_handler_runs_by_itself(make_event, run_handler):
    run_handler(later, make_event(later, {"id": 7}))
    run_handler(now, make_event(now, {"id": 7}, id="evt_7"))
    with pytest.raises(Discard):
        run_handler(later, make_event(later, {"id": -1}))


def test_a_payload_that_does_not_fit_is_said(make_event):
    with pytest.raises(ValueError, match="does not fit"):
        make_event(later, {"id": "seven"})


@pytest.mark.parametrize("name", ["github", "stripe", "slack", "openai", "twitch", "paddle"])
def test_a_signed_event_is_genuine(name, signed_event):
    sent = signed_event(name, "order.created", {"id": 7}, now_s=1_767_225_600)
    headers = {key.encode(): value.encode() for key, value in sent.headers.items()}
    target = sent.target.encode()
    request = Request(b"POST", target, target, b"", headers, True, None, sent.body)
    verifier = verifier_of(catalogue.load(name).schemes["default"], [sent.secret.encode()])
    assert json.loads(sent.body)["id"] == 7
    assert verifier.verify(request, 1_767_225_600) == 0


def test_a_key_that_only_the_sender_has_is_asked_for(signed_event):
    with pytest.raises(ConfigError, match="--secret"):
        signed_event("wise", "x", {})


# --- recorded events ------------------------------------------------------------------------------

PUSH = {
    "version": 1,
    "provider": "github",
    "endpoint": "code",
    "type": "push",
    "id": "d-1",
    "received_at": "2026-05-17T14:30:00.000000Z",
    "headers": {"content-type": "application/json", "x-kept": "é"},
    "payload": {"id": 7},
}


def write(path, **values):
    path.write_text(json.dumps(PUSH | values))
    return path


def is_genuine(sent, provider, now_s):
    headers = {key.encode(): value.encode("latin-1") for key, value in sent.headers.items()}
    target = sent.target.encode()
    request = Request(b"POST", target, target, b"", headers, True, None, sent.body)
    verifier = verifier_of(catalogue.load(provider).schemes["default"], [sent.secret.encode()])
    return verifier.verify(request, now_s) == 0


@pytest.mark.parametrize("provider", ["github", "stripe", "standard-webhooks", "slack"])
def test_recorded_events_are_signed_again_at_the_time_of_the_test(
    provider, tmp_path, recorded_events
):
    (recorded,) = recorded_events(write(tmp_path / "a.json", provider=provider))
    sent = recorded.signed(now_s=1_767_225_600)
    assert is_genuine(sent, provider, 1_767_225_600)
    assert sent.headers["x-kept"] == "é"
    with pytest.raises(NotGenuine):
        is_genuine(sent._replace(body=sent.body + b" "), provider, 1_767_225_600)


def test_a_handler_gets_a_recorded_event_as_it_was(tmp_path, recorded_events):
    (recorded,) = recorded_events(write(tmp_path / "a.json"))
    event = recorded.event(now, attempt=2)
    assert event.payload == Order(7)
    assert (event.endpoint, event.provider, event.type, event.id) == (
        "code",
        "github",
        "push",
        "d-1",
    )
    assert event.headers["x-github-event"] == "push"
    assert event.headers["x-github-delivery"] == "d-1"
    assert event.received_at.isoformat() == "2026-05-17T14:30:00+00:00"
    assert event.attempt == 2


@pytest.mark.parametrize("provider", ["wise", "none", "custom", "aws_sns"])
def test_what_nobody_else_can_sign_is_handled_unsigned(
    provider, tmp_path, recorded_events, run_handler
):
    (recorded,) = recorded_events(write(tmp_path / "a.json", provider=provider, id="evt_7"))
    with pytest.raises(ConfigError):
        recorded.signed()
    run_handler(now, recorded)


def test_a_recorded_form_is_decoded_as_the_service_would(tmp_path, recorded_events):
    form_type = {"content-type": "application/x-www-form-urlencoded"}
    path = write(tmp_path / "a.json", headers=form_type, form=[["id", "7"]], provider="none")
    values = json.loads(path.read_text())
    del values["payload"]
    path.write_text(json.dumps(values))
    (recorded,) = recorded_events(path)
    assert recorded.event(now).payload == Order(7)
    wrapped = json.dumps(values | {"provider": "github", "form": [["payload", '{"id":8}']]})
    path.write_text(wrapped)
    assert recorded_events(path)[0].event(now).payload == Order(8)


def test_a_directory_a_pattern_and_a_file_of_lines(tmp_path, recorded_events):
    write(tmp_path / "b.json", id="b")
    write(tmp_path / "a.json", id="a")
    line = {"provider": "github", "type": "push", "id": "c", "state": "done", "client": None}
    gone = line | {"body": None, "missing": "erased"}
    texts = map(json.dumps, (line | {"body_base64": "/w=="}, gone))
    (tmp_path / "c.jsonl").write_text("\n".join(texts))
    assert [one.id for one in recorded_events(tmp_path)] == ["a", "b", "c"]
    assert [one.id for one in recorded_events(tmp_path / "[b]*.json")] == ["b"]
    assert recorded_events(tmp_path / "c.jsonl")[0].body == b"\xff"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (json.dumps(PUSH | {"version": 2}), "recorded in version 2; expected 1"),
        ("{", "no recorded event"),
        ("{}", "missing required field `version`"),
        ("[]", "no recorded event"),
    ],
)
def test_a_file_that_is_none_is_told(text, words, tmp_path, recorded_events):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ConfigError, match=f"a.json:1: .*{words}"):
        recorded_events(tmp_path / "a.json")


def test_no_files_are_told(tmp_path, recorded_events):
    with pytest.raises(ConfigError, match="no recorded events; `fasthook export"):
        recorded_events(tmp_path / "*.json")


def test_a_marked_test_runs_once_for_each(pytester):
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.recorded("events/*.json")
        def test_it(recorded_event):
            assert recorded_event.id
        """
    )
    (pytester.path / "events").mkdir()
    write(pytester.path / "events/first.json")
    write(pytester.path / "events/second.json", id="")
    result = pytester.runpytest_inprocess("-v", "--strict-markers")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*test_it?first? PASSED*", "*test_it?second? FAILED*"])


@pytest.mark.parametrize(
    ("mark", "words"),
    [
        ('@pytest.mark.recorded("none/*.json")', "no recorded events"),
        ("", "needs @pytest.mark.recorded"),
    ],
)
def test_a_marked_test_without_events_is_an_error(mark, words, pytester):
    pytester.makepyfile(f"import pytest\n{mark}\ndef test_it(recorded_event): pass\n")
    result = pytester.runpytest_inprocess()
    assert result.ret != 0
    assert words in result.stdout.str() + result.stderr.str()
