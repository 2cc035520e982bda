"""The plugin for tests of handlers, as a user's test has it."""

import json

import msgspec
import pytest

from fasthook import Discard, Event, handler
from fasthook.errors import ConfigError
from fasthook.intake import catalogue
from fasthook.intake.signatures import verifier_of
from fasthook.model import Request


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


def test_recorded_events_are_signed_again(tmp_path, recorded, signed_event):
    path = tmp_path / "events.jsonl"
    lines = [{"provider": "github", "type": "push", "body": "{}"}, {"body_base64": "/w=="}]
    path.write_text("\n".join(map(json.dumps, lines)))
    first, second = recorded(path)
    assert second["body"] == b"\xff"
    sent = signed_event(first["provider"], first["type"], first["body"])
    assert sent.headers["x-github-event"] == "push"
    assert sent.body == b"{}"
