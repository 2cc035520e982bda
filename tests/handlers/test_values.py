"""Texts with values of the event: what is there, what is not, and braces."""

import pytest

from fasthook.errors import ConfigError
from fasthook.handlers.values import Text
from fasthook.model import Delivery, Event

PAYLOAD = {
    "ref": "refs/heads/é",
    "n": 5,
    "on": True,
    "no": None,
    "a": [{"b": "c"}],
    "dotted.key": "whole",
    "dotted": {"key": "inner"},
}


def of(text: str, payload=PAYLOAD) -> str:
    head = b"POST /h?token=42&token=43&empty= HTTP/1.1\r\nX-Name: v\r\n\r\n"
    delivery = Delivery("e", "p", "id-1", "push", head, b"\xffraw", 0, "192.0.2.1", 0)
    return Text(text, "arguments").of(Event(delivery, payload, 1)).decode("utf-8", "replace")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("--branch={payload.ref}", "--branch=refs/heads/é"),
        ("{payload.n}{payload.on}{payload.no}", "5true"),
        ("{payload.a}|{payload.a.0.b}|{payload.a.1.b}|{payload.x}", '[{"b":"c"}]|c||'),
        ("{payload.dotted.key}", "whole"),
        ("{header.X-Name}{header.x-name}{header.other}", "vv"),
        ("{query.token} {query.empty} {query.none}", "42  "),
        ("{query}", '{"empty":"","token":"42"}'),
        ("{headers}", '{"x-name":"v"}'),
        ("{body}", "\ufffdraw"),
        ("{id} {type} {client} {method}", "id-1 push 192.0.2.1 POST"),
        ("{{payload.ref}}", "{payload.ref}"),
        ("$(rm) `x` ; {payload.n}", "$(rm) `x` ; 5"),
    ],
)
def test_values_stand_where_their_names_do(text, expected):
    assert of(text) == expected


def test_an_event_of_a_test_has_no_request_and_empty_values_of_it():
    delivery = Delivery("e", "p", "id-1", "push", b"", b"{}", 0, "test", 0)
    assert Text("{method}|{query.token}|{query}", "arguments").of(Event(delivery, {}, 1)) == b"||{}"


@pytest.mark.parametrize("text", ["{", "}", "{payload.}", "{secret}", "{}", "{a{b}}", "{env.HOME}"])
def test_what_is_no_value_is_said(text):
    with pytest.raises(ConfigError, match="arguments: "):
        Text(text, "arguments")


def test_a_whole_payload_is_json_with_its_keys_in_order():
    assert of("{payload}", {"b": 1, "a": None}) == '{"a":null,"b":1}'
