"""Body → payload: the value, `Undecodable`, or `BadPayload`."""

import time
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasthook.errors import BadPayload, ConfigError, WrongContentType
from fasthook.intake.payloads import (
    MAX_FORM_FIELDS,
    check_json,
    convert_form,
    decoder_of,
    form_fields,
    kind_of,
)
from fasthook.model import Undecodable, Undecoded

BOTH = ("json", "form")
PADDING = b" " * 9000  # so long that hostile numbers are looked for


class Order(msgspec.Struct):
    id: int
    price: float = 0.0


@dataclass
class Item:
    name: str


class Money(msgspec.Struct):
    amount: Decimal


class Tree(msgspec.Struct):
    value: float = 0.0
    below: "list[Tree]" = []


# --- JSON -----------------------------------------------------------------------------------------


def test_a_typed_payload_is_decoded_and_an_untyped_one_waits():
    assert decoder_of(Order)(b'{"id":1,"more":[]}') == Order(1)
    assert decoder_of(Item)(b'{"name":"a"}') == Item("a")
    assert isinstance(decoder_of(Any)(b"{"), Undecoded)
    assert decoder_of(Any)(b"{}").decode(b'{"a":1}') == {"a": 1}


@pytest.mark.parametrize("body", [b"{}", b'{"id":"1"}', b"[]", b"null", b'{"id":1.5}'])
def test_a_genuine_body_of_another_type_is_undecodable(body):
    assert isinstance(decoder_of(Order)(body), Undecodable)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b'{"id":1}}', b'{"id":1} x', b'{"id":1,}', b'{"id":01}', b'{"id":NaN}',
     b'{"id":Infinity}', b'\xef\xbb\xbf{"id":1}', b'{"id":1}\0', b"{'id':1}", b'{"id":1}//',
     '{"id":1}'.encode("utf-16"), b'{"id":1,"a":"\\ud800"}', b'{"id":1,"a":"\x01"}',
     b"[" * 100_000, b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 100_000],
)  # fmt: skip
def test_what_is_no_json_is_a_bad_payload_for_every_type(body):
    with pytest.raises(BadPayload):
        check_json(body)
    for payload_type in (Order, dict, list, list[float], Item, Tree):
        with pytest.raises(BadPayload):
            decoder_of(payload_type)(body)


@pytest.mark.parametrize(
    "body", [b'{"id":"x"} garbage', b'{"id":"x",}', b'{"id":"x"', b'[1] "', b'{"id":"x"}{}']
)
def test_a_misfit_that_is_followed_by_garbage_is_a_bad_payload(body):
    with pytest.raises(BadPayload):
        decoder_of(Order)(body)


@pytest.mark.parametrize(
    "body", [b'{"id":1,"a":"\xff"}', b'{"id":1,"a":"\xed\xa0\x80"}', b'"\xff"']
)
def test_invalid_utf8_is_a_bad_payload_wherever_it_stands(body):
    with pytest.raises(ValueError, match="UTF-8"):
        orjson.loads(body)
    with pytest.raises(BadPayload):
        check_json(body)


@pytest.mark.parametrize("body", [b'{"a":1e400}', b'{"a":-1e999}'])
def test_a_number_beyond_every_float_is_a_bad_payload(body):
    with pytest.raises(ValueError, match="infinity"):
        orjson.loads(body)
    with pytest.raises(BadPayload):
        check_json(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False,
    allow_infinity=False) | st.text(max_size=8),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(max_size=4), below),
    max_leaves=12,
)  # fmt: skip


@given(JSON, st.binary(max_size=4))
def test_what_orjson_reads_passes_the_check(value, noise):
    body = orjson.dumps(value)
    check_json(body)
    assert not isinstance(
        decoder_of(dict | list | str | float | int | bool | None)(body), Undecodable
    )
    for other in (body + noise, noise + body, body[: len(body) // 2] + noise):
        try:
            orjson.loads(other)
        except ValueError:
            pass
        else:
            check_json(other)


# --- numbers that cost time, or digits ------------------------------------------------------------

LITERALS = [
    b"1e308",
    b"1.7976931348623157e308",
    b"1e-308",
    b"1e0000308",
    b"12345678901234567890123.5",
    b"1234567890123456789.1234567890123456789e99",
    b"9007199254740993e-99",
]


@pytest.mark.parametrize("literal", LITERALS)
@pytest.mark.parametrize("payload_type", [list[float], Any, dict[str, list[float]], list, Order])
def test_a_megabyte_of_hostile_numbers_takes_no_time(literal, payload_type):
    numbers = b"[" + b",".join([literal] * (1_000_000 // (len(literal) + 1))) + b"]"
    body = numbers if payload_type in (list[float], list, Any) else b'{"id":' + numbers + b"}"
    if payload_type is Order:
        body = b'{"id":1,"price":1.5,"more":' + numbers + b"}"
    decode = decoder_of(payload_type)

    start = time.thread_time()
    payload = decode(body)
    if isinstance(payload, Undecoded):
        payload.decode(body)
    assert time.thread_time() - start < 0.2
    assert not isinstance(payload, Undecodable)


def test_a_type_that_contains_itself_is_searched_for_floats_once():
    body = b'{"below":[{"value":1e300}],"value":2}' + PADDING
    assert decoder_of(Tree)(body) == Tree(2.0, [Tree(1e300)])


@pytest.mark.parametrize(
    ("payload_type", "body"),
    [
        (Money, b'{"amount":0.1234567890123456789012345}'),  # digits are lost without a word
        (Order, b'{"id":123456789012345678901,"price":1.5}'),  # Undecodable
        (dict[int, float], b'{"1":1e300}'),  # Undecodable: keys are text (str_keys=True is missing)
    ],
)
def test_a_longer_body_decodes_to_the_same(payload_type, body):
    decode = decoder_of(payload_type)
    assert decode(body + PADDING) == decode(body)


def test_a_raw_field_survives_a_longer_body():
    class WithRaw(msgspec.Struct):
        raw: msgspec.Raw
        value: float

    payload = decoder_of(WithRaw)(b'{"raw":[1],"value":1e300}' + PADDING)
    assert bytes(payload.raw) == b"[1]"


def test_a_type_that_no_decoder_can_tell_apart_is_a_configuration_error():
    with pytest.raises(ConfigError, match="can't be decoded"):
        decoder_of(int | Order | Item)


# --- forms ----------------------------------------------------------------------------------------


def test_a_form_is_its_fields_and_repeated_ones_are_lists():
    fields = form_fields(b"a=1&b=%C3%A9+x&c=1&c=2&d=")

    assert fields == {"a": "1", "b": "é x", "c": ["1", "2"], "d": ""}
    assert convert_form(fields, Any) == fields


def test_numbers_are_read_from_the_text_of_a_form():
    assert convert_form({"id": "7", "price": "1.5"}, Order) == Order(7, 1.5)


@pytest.mark.parametrize("fields", [{"id": "x"}, {}, {"id": ["1", "2"]}, {"id": "9" * 5000}])
def test_a_form_of_another_type_is_undecodable(fields):
    assert isinstance(convert_form(fields, Order), Undecodable)


@pytest.mark.parametrize("body", [b"a=%FF", b"\xff=1", b"a=%ED%A0%80"])
def test_a_form_that_is_not_utf8_is_a_bad_payload(body):
    with pytest.raises(BadPayload):
        form_fields(body)


def test_a_thousand_fields_are_read_and_one_more_is_a_bad_payload():
    many = b"&".join(b"f%d=1" % number for number in range(MAX_FORM_FIELDS))
    assert len(form_fields(many)) == MAX_FORM_FIELDS
    with pytest.raises(BadPayload):
        form_fields(many + b"&x=1")
    with pytest.raises(BadPayload):
        form_fields(b"&" * 1_000_000)


# --- content types --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "kind"),
    [
        (None, "json"),
        (b"application/json", "json"),
        (b"APPLICATION/JSON", "json"),
        (b"application/json; charset=utf-8", "json"),
        (b'application/json;charset="UTF-8"', "json"),
        (b"application/json; charset=us-ascii", "json"),
        (b"application/vnd.github.v3+json", "json"),
        (b"application/cloudevents+json", "json"),
        (b"text/json", "json"),
        (b"application/x-www-form-urlencoded", "form"),
        (b"application/x-www-form-urlencoded; charset=utf-8", "form"),
    ],
)
def test_a_content_type_tells_the_kind(content_type, kind):
    assert kind_of(content_type, BOTH) == kind


@pytest.mark.parametrize(
    "content_type",
    [b"", b"text/plain", b"multipart/form-data; boundary=x", b"application/jsonp", b"json",
     b"application/json-seq", b"application/+json", b"application/json; charset=utf-16",
     b"application/json; charset=utf-7", b'application/json; CHARSET = "latin-1"', b"\xff\xfe",
     b"application/xml", b"x-application/json", b"application/json, text/plain"],
)  # fmt: skip
def test_another_content_type_is_refused(content_type):
    with pytest.raises(WrongContentType):
        kind_of(content_type, BOTH)


def test_what_an_endpoint_does_not_take_is_refused_unless_it_takes_any():
    form = b"application/x-www-form-urlencoded"
    with pytest.raises(WrongContentType, match="expected json"):
        kind_of(form, ("json",))
    assert kind_of(form, ("json", "any")) == "any"
    assert kind_of(None, ("form",)) == "form"
    assert kind_of(b"image/png", ("any",)) == "any"
