"""Descriptions of schemes."""

import msgspec
import pytest

from fasthook.intake.schemes import Scheme, selectors_of


def scheme(**settings):
    return Scheme(**{"header": "X-Signature", **settings})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"header": ""}, "^header: expected"),
        ({"header": []}, "^header: expected"),
        ({"header": ["a", ""]}, "^header: expected"),
        ({"format": "kv"}, "^signature_keys: expected"),
        ({"format": "versioned"}, "^signature_keys: expected"),
        ({"message": "constant"}, "^message: .* signs nothing"),
        ({"message": ""}, "^message: .* signs nothing"),
        ({"message": "{timestamp}.{body}"}, "^timestamp: expected"),
        ({"message": "{bdoy}"}, "expected one of"),
        ({"timestamp": "x"}, "selects nothing"),
        ({"event_id": "x"}, "selects nothing"),
        ({"event_type": ["json:a", "x"]}, "selects nothing"),
    ],
)
def test_what_cannot_be_meant_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        scheme(**settings).check()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"kind": "token", "message": ""},
        {"message": "{json:id}"},
        {"message": "{timestamp}{body}", "timestamp": "header:x-time"},
        {"format": "kv", "signature_keys": ["v1"]},
    ],
)
def test_what_can_be_meant_passes(settings):
    scheme(**settings).check()


def test_security_headers_are_all_that_trust_rests_on():
    described = scheme(
        header=["X-A", "X-B"], message="{header:X-Id}{timestamp}{body}", timestamp="header:X-Time"
    )

    assert described.security_headers() == {b"x-a", b"x-b", b"x-id", b"x-time"}
    assert scheme().security_headers() == {b"x-signature"}


def test_a_token_covers_no_body():
    assert scheme().covers_body
    assert not scheme(kind="token").covers_body
    assert not scheme(message="{json:id}").covers_body


@pytest.mark.parametrize("key", ["hash", "encoding", "kind", "format", "key_encoding"])
def test_an_unknown_word_is_refused(key):
    with pytest.raises(msgspec.ValidationError, match=key):
        msgspec.convert({"header": "x", key: "rot13"}, Scheme)


def test_an_unknown_key_is_refused():
    with pytest.raises(msgspec.ValidationError, match="tolerance"):
        msgspec.convert({"header": "x", "tolerance": 1}, Scheme)


def test_selectors_come_as_one_or_several():
    assert selectors_of("json:id") == ["json:id"]
    assert selectors_of(["a", "b"]) == ["a", "b"]
