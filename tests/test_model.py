"""What a handler sees of an event."""

from datetime import UTC, datetime

import pytest

from fasthook.model import Request
from tests.dispatch.helpers import event


def test_an_event_shows_what_came():
    seen = event(b'{"a": 1}', attempt=3, headers={b"x-name": "Jörg".encode("latin-1")})

    assert (seen.id, seen.type, seen.endpoint, seen.provider) == ("id-1", "push", "e", "github")
    assert seen.body == b'{"a": 1}'
    assert seen.attempt == 3
    assert seen.headers == {"x-name": "Jörg"}
    assert seen.received_at == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert seen.received_at.utcoffset().total_seconds() == 0


def test_an_untyped_payload_is_decoded_when_asked_for_and_once():
    seen = event(b'{"a": [1, 2.5, null]}')

    assert seen.payload == {"a": [1, 2.5, None]}
    assert seen.payload is seen.payload


def test_an_untyped_payload_that_is_no_json_raises_only_when_asked_for():
    seen = event(b"not json")

    assert seen.body == b"not json"
    with pytest.raises(ValueError, match=r"unexpected|expected"):
        _ = seen.payload


def test_a_typed_payload_is_the_value_itself():
    order = object()

    assert event(b"", payloads=(order,)).payload is order
    assert event(b"", payloads=(None,)).payload is None


def test_the_repr_names_the_event_and_keeps_its_body_to_itself():
    text = repr(event(b"secret", attempt=2, headers={b"x": b"secret"}))

    assert text == "<Event e/push id-1 attempt=2>"


def test_the_query_is_what_follows_the_first_question_mark():
    request = Request(b"GET", b"/a?b?c", b"/a", b"", {}, True)

    assert request.query == b"b?c"


def test_headers_are_those_of_the_head_and_read_once_for_each_event():
    head = b"POST /a HTTP/1.1\r\nX-A:  one \r\nx-a: two\r\nHost: h\r\n\r\n"
    seen = event(head=head)
    assert seen.headers == {"x-a": "one, two", "host": "h"}
    assert seen.headers is seen.headers
    assert event(head=b"").headers == {}
