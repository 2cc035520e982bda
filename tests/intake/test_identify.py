"""Event id, event type and payloads of a verified request."""

import hashlib
import json
import time
from typing import Any
from urllib.parse import urlencode

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasthook.errors import BadPayload, WrongContentType
from fasthook.intake.identify import MAX_NAME_CHARS, Identifier, envelope_reader
from fasthook.intake.payloads import Bodies
from fasthook.intake.templates import scalar, walk
from fasthook.model import Undecodable, Undecoded
from tests.intake.support import request_of

FORM = {"content-type": "application/x-www-form-urlencoded"}


class Push(msgspec.Struct):
    ref: str


def identifier(event_id=(), event_type=(), types=(Any,), content=("json", "form"), **settings):
    bodies = Bodies(tuple(content), settings.pop("form", ""))
    return Identifier(event_id, event_type, bodies, types, **settings)


def names_of(made, request):
    return made.identify(request)[:2]


def test_names_come_from_headers_queries_and_bodies():
    request = request_of(
        b'{"id":7,"event":{"type":"t"},"list":[{"id":"x"}]}', {"X-Id": "h"}, b"/hook?id=q"
    )
    for selector, value in (
        ("header:X-Id", "h"),
        ("query:id", "q"),
        ("json:id", "7"),
        ("json:event.type", "t"),
        ("json:list.0.id", "x"),
    ):
        assert names_of(identifier([selector], [selector]), request) == (value, value)


def test_the_first_selector_that_finds_a_name_wins():
    made = identifier(["header:x-none", "json:none", "json:b", "json:a"])
    assert names_of(made, request_of(b'{"a":"1","b":"2"}'))[0] == "2"


def test_a_type_is_joined_of_several_names_if_all_are_there():
    made = identifier(["json:id"], ["{header:X-Kind}/{json:a.b}:{json:c}!", "json:c"])
    body = b'{"id":"1","a":{"b":"two"},"c":3}'
    assert names_of(made, request_of(body, {"X-Kind": "one"})) == ("1", "one/two:3!")
    assert names_of(made, request_of(body)) == ("1", "3")
    assert names_of(made, request_of(b'{"a":{"b":"two"}}', {"X-Kind": "one"}))[1] == ""


def test_names_in_a_form_are_joined_as_well():
    made = identifier([], ["{form:a}.{form:b}"])
    assert names_of(made, request_of(b"a=1&b=2", FORM))[1] == "1.2"


def test_a_type_is_joined_of_items_of_a_list():
    made = identifier([], ["{json:events.0.kind}.{json:events.0.action}", "json:events.0.kind"])
    assert names_of(made, request_of(b'{"events":[{"kind":"a","action":"b"}]}'))[1] == "a.b"
    assert names_of(made, request_of(b'{"events":[{"kind":"a","action":{}}]}'))[1] == "a"
    assert names_of(made, request_of(b'{"events":[]}'))[1] == ""


@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b"null", b'"x"', b'{"id":null}', b'{"id":1.5}', b'{"id":true}',
             b'{"id":[]}', b'{"id":{}}', b'{"id":""}'],
)  # fmt: skip
def test_without_a_name_equal_bodies_are_equal_events(body):
    expected = hashlib.sha256(body).hexdigest()[:32]
    assert names_of(identifier(["json:id"], ["json:id"]), request_of(body)) == (expected, "")


def test_one_odd_value_does_not_hide_the_others():
    made = identifier(["json:id"], ["json:type"])
    assert names_of(made, request_of(b'{"id":"a","type":[1]}')) == ("a", "")
    assert names_of(made, request_of(b'{"id":false,"type":"t"}'))[1] == "t"


def test_a_long_id_is_digested_and_a_long_type_is_cut_off():
    body = orjson.dumps({"id": "x" * 257, "type": "y" * 257})
    event_id, event_type = names_of(identifier(["json:id"], ["json:type"]), request_of(body))

    assert event_id == hashlib.sha256(b"x" * 257).hexdigest()
    assert event_type == "y" * MAX_NAME_CHARS
    body = orjson.dumps({"id": "x" * 256})
    assert names_of(identifier(["json:id"]), request_of(body))[0] == "x" * 256


def test_a_name_in_a_header_may_be_any_bytes():
    made = identifier(["header:x-id"])
    assert names_of(made, request_of(headers={"X-Id": b"\xff\xc3\xa9"}))[0] == "\ufffdé"


def test_twenty_digits_of_an_id_are_all_kept():
    made = identifier(["json:id"])
    assert names_of(made, request_of(b'{"id":123456789012345678901}'))[0] == "123456789012345678901"


def test_of_equal_keys_the_last_counts_as_for_the_payload():
    body = b'{"id":"a","\\u0069d":"b"}'
    assert names_of(identifier(["json:id"]), request_of(body))[0] == orjson.loads(body)["id"] == "b"


# --- payloads -------------------------------------------------------------------------------------


def test_each_payload_type_has_its_payload():
    made = identifier(types=(Push, Any, list))
    typed, untyped, misfit = made.identify(request_of(b'{"ref":"main"}'))[2]

    assert typed == Push("main")
    assert isinstance(untyped, Undecoded)
    assert isinstance(misfit, Undecodable)


@pytest.mark.parametrize("types", [(Any,), (object,), (Push,), (Push, Any), ()])
@pytest.mark.parametrize("event_id", [[], ["json:id"], ["json:a.0"], ["header:x"]])
@pytest.mark.parametrize("body", [b"", b"{", b"{} x", b"[" * 100_000, b"\xef\xbb\xbf{}"])
def test_what_is_no_json_is_a_bad_payload_whoever_reads_it(types, event_id, body):
    with pytest.raises(BadPayload):
        identifier(event_id, types=types).identify(request_of(body))


def test_a_form_is_converted():
    class Command(msgspec.Struct):
        command: str
        count: int

    made = identifier([], ["json:type", "form:command"], (Command, Any))
    _, event_type, (typed, untyped), _ = made.identify(request_of(b"command=%2Fgo&count=2", FORM))

    assert event_type == "/go"
    assert typed == Command("/go", 2)
    assert untyped == {"command": "/go", "count": "2"}


@pytest.mark.parametrize("value", [{"ref": "main", "id": "i"}, {"ref": "é", "id": "i", "n": [1]}])
def test_the_json_in_a_form_is_the_payload(value):
    made = identifier(["json:id"], types=(Push, Any), form="payload")
    body = urlencode({"payload": json.dumps(value), "other": "1"}).encode()
    event_id, _, (typed, untyped), _ = made.identify(request_of(body, FORM))

    assert (event_id, typed, untyped) == ("i", Push(value["ref"]), value)


@pytest.mark.parametrize("inner", ["", "{", "[" * 100_000, "NaN", '"\\ud800"'])
def test_what_is_no_json_in_a_form_is_a_bad_payload(inner):
    made = identifier(form="payload")
    with pytest.raises(BadPayload):
        made.identify(request_of(urlencode({"payload": inner}).encode(), FORM))


@pytest.mark.parametrize("inner", ["1e400", "[" * 1100 + "]" * 1100])
def test_json_in_a_form_that_cannot_be_decoded_is_a_bad_payload(inner):
    made = identifier(form="payload")
    with pytest.raises(BadPayload):
        made.identify(request_of(urlencode({"payload": inner}).encode(), FORM))


def test_a_megabyte_of_hostile_numbers_in_a_form_takes_no_time():
    made = identifier(form="payload")
    body = b"payload=[" + b",".join([b"1e308"] * 160_000) + b"]"

    start = time.thread_time()
    made.identify(request_of(body, FORM))
    assert time.thread_time() - start < 0.2


def test_a_form_without_the_field_is_a_form():
    made = identifier(form="payload")
    assert made.identify(request_of(b"a=1", FORM))[2] == ({"a": "1"},)
    assert made.identify(request_of(b"payload=1&payload=2", FORM))[2] == ({"payload": ["1", "2"]},)


def test_any_other_content_is_its_bytes():
    made = identifier(["header:x-id"], content=("any",), types=(Any, bytes))
    request = request_of(b"\xff\x00", {"X-Id": "1", "content-type": "image/png"})
    assert made.identify(request) == ("1", "", (b"\xff\x00", b"\xff\x00"), {})


def test_a_content_type_that_is_not_taken_is_refused():
    with pytest.raises(WrongContentType):
        identifier().identify(request_of(headers={"content-type": "text/plain"}))


# --- the envelope ---------------------------------------------------------------------------------

KEYS = st.sampled_from(["a", "b", "id", "event", "0", "1"])
LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=3)
DOCUMENTS = st.recursive(
    LEAVES | st.floats(allow_nan=False, allow_infinity=False),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(KEYS, below, max_size=4),
    max_leaves=15,
)
PATHS = st.lists(st.lists(KEYS, min_size=1, max_size=3).map(".".join), min_size=1, unique=True)


@given(DOCUMENTS | st.dictionaries(KEYS, DOCUMENTS), PATHS)
def test_the_envelope_is_what_walking_the_document_finds(document, paths):
    body = orjson.dumps(document)
    values = {path: scalar(walk(orjson.loads(body), path.split("."))) for path in paths}
    expected = {f"json:{path}": value.decode() for path, value in values.items() if value}

    found = envelope_reader(paths)(body)

    # An empty value names nothing, so whether it is listed makes no difference.
    assert {name: value for name, value in found.items() if value} == expected
