"""Selectors and templates."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasthook.errors import NoSignature
from fasthook.intake.templates import (
    Found,
    Selector,
    Template,
    json_at,
    pattern_of,
    scalar,
    spread,
    walk,
)
from tests.intake.support import request_of

REQUEST = request_of(
    b'{"a":{"b":["x",7,true,1.5]},"id":"\xc3\xa9"}', {"X-Id": "1"}, b"/hook?q=1&r=2&r=3"
)
FOUND = Found([b"sig"], b"42", {b"t": b"41"}, b"https://example.com/hook")
VALUES = {
    "body": REQUEST.body,
    "timestamp": b"42",
    "method": b"POST",
    "path": b"/hook",
    "target": b"/hook?q=1&r=2&r=3",
    "url": b"https://example.com/hook",
    "header:X-Id": b"1",
    "json:a.b.0": b"x",
    "json:a.b.1": b"7",
    "json:id": b"\xc3\xa9",
    "query:q": b"1",
    "signature:t": b"41",
}
LITERALS = st.text(st.characters(codec="utf-8", exclude_characters="{}"), max_size=5)


@given(st.lists(LITERALS.map(lambda text: (text, None)) | st.sampled_from(list(VALUES.items()))))
def test_the_pieces_are_what_replacing_the_fields_would_give(parts):
    text = "".join(name if value is None else f"{{{name}}}" for name, value in parts)
    expected = b"".join(name.encode() if value is None else value for name, value in parts)

    assert b"".join(Template(text).pieces(REQUEST, FOUND)) == expected


@pytest.mark.parametrize("text", ["{body", "body}", "{{body}}", "{body}}", "a{", "}{", "{a{b}"])
def test_a_brace_without_its_partner_is_named(text):
    with pytest.raises(ValueError, match=r"brace|selects nothing"):
        Template(text)


@pytest.mark.parametrize("field", ["", "bdoy", "header", "header:", "cookie:x", ":x", "BODY"])
def test_an_unknown_field_is_answered_with_what_was_expected(field):
    with pytest.raises(ValueError, match=r"expected one of header:….*json:….*\{body\}"):
        Template(f"{{{field}}}")


@pytest.mark.parametrize("text", ["", "x", "header:", "cookie:x", ":x", "Header:x"])
def test_what_selects_nothing_is_answered_with_what_was_expected(text):
    with pytest.raises(ValueError, match="expected one of header:…, json:…, form:…, query:…"):
        Selector.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "header:x-none",
        "json:none",
        "json:a",
        "json:a.b.2",
        "json:a.b.3",
        "json:a.b.9",
        "json:a.b.-1",
        "json:a.b.x",
        "json:a.b.0.c",
        "query:none",
        "query:r",
        "form:none",
        "signature:none",
    ],
)
def test_what_the_request_has_not_or_not_once_or_not_as_text_signs_nothing(text):
    assert Selector.parse(text).read(REQUEST, FOUND.fields) is None
    with pytest.raises(NoSignature, match="is signed, but the request has none"):
        Template(f"{{{text}}}").pieces(REQUEST, FOUND)


def test_header_names_are_the_same_in_any_case():
    assert Selector.parse("header:X-ID") == Selector.parse("header:x-id")
    assert Selector.parse("json:ID") != Selector.parse("json:id")


def test_form_values_are_the_bytes_that_were_sent():
    request = request_of(b"a=%E9%FF&b=&c=1&c=2")

    assert Selector.parse("form:a").read(request) == b"\xe9\xff"
    assert Selector.parse("form:b").read(request) == b""
    assert Selector.parse("form:c").read(request) is None


def test_none_of_a_thousand_and_one_fields_is_found():
    assert Selector.parse("query:a").read(request_of(target=b"/?a=1" + b"&b" * 1000)) is None


def test_a_template_knows_what_it_signs():
    template = Template("{header:x-id}.{timestamp}.{body}")

    assert template.covers_body
    assert template.signs(Selector.parse("header:X-Id"))
    assert template.signs(Selector.parse("json:anything"))
    assert not template.signs(Selector.parse("header:x-other"))
    assert not template.signs(Selector.parse("query:x"))
    assert not Template("{json:id}").covers_body
    assert Template("{json:id}").signs(Selector.parse("json:id"))
    assert not Template("{json:id}").signs(Selector.parse("json:type"))


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"\xff", b"null", b"NaN"])
def test_a_body_without_the_value_is_no_error(body):
    assert json_at(body, "a") is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [("a", b"a"), (0, b"0"), (-7, b"-7"), (True, None), (1.0, None), (None, None), ([], None)],
)
def test_text_and_whole_numbers_name_things_and_nothing_else_does(value, expected):
    assert scalar(value) == expected


def test_a_key_that_is_no_ascii_digit_indexes_no_list():
    assert walk([1, 2, 3], ["²"]) is None


@pytest.mark.parametrize(
    "text", ["", "x", "a.b", "{json:a", "{json:a}}", "{}", "{none:x}.{json:a}"]
)
def test_what_is_no_pattern_is_refused(text):
    with pytest.raises(ValueError, match=r"expected one of|partner"):
        pattern_of(text)


@pytest.mark.parametrize(
    ("pattern", "value", "parts"),
    [
        ("json:type", "a.b", ["a.b"]),
        ("{json:type}.{json:action}", "Issue.create", ["Issue", "create"]),
        ("{json:type}.{json:action}", "a.b.c", ["a", "b.c"]),
        ("{json:type}.{json:action}", "Issue", ["Issue"]),
        ("v-{json:a}+{header:b}!", "v-1+2!", ["1", "2"]),
    ],
)
def test_a_name_is_spread_over_the_places_that_make_it_up(pattern, value, parts):
    assert [part for _, part in spread(pattern, value)] == parts
