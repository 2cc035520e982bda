"""Answers as bytes."""

import pytest

from fasthook.errors import BadHttp, OutOfMemoryBudget, RateExceeded, UnknownPath, WrongMethod
from fasthook.wire.answers import CONTINUE, INTERNAL_ERROR, DateLine, refusal, render

DATE = b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"


def sent(answer):
    return answer.start + DateLine(0).line + answer.rest


def test_an_answer_has_a_date_a_length_and_its_body():
    assert sent(render(200, b"hello\n")) == (
        b"HTTP/1.1 200 OK\r\n" + DATE + b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Content-Length: 6\r\n\r\nhello\n"
    )


def test_an_empty_answer_says_that_it_is_empty():
    assert sent(render(202)) == b"HTTP/1.1 202 Accepted\r\n" + DATE + b"Content-Length: 0\r\n\r\n"


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_that_can_have_no_body_has_no_length(status):
    assert b"Content-Length" not in render(status).rest


def test_head_gets_the_fields_and_no_body():
    answer = render(404, b"not\r\n\r\nfound")

    assert answer.without_body().rest == answer.rest.removesuffix(b"not\r\n\r\nfound")
    assert answer.without_body().rest.endswith(b"Content-Length: 12\r\n\r\n")


def test_a_closing_answer_says_so_once():
    closing = render(200, b"x").closing()

    assert closing.closes
    assert closing.rest.count(b"Connection: close\r\n") == 1
    assert render(200, closes=True).rest.count(b"Connection: close\r\n") == 1


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: b", "a\r\n\r\nbody"])
def test_a_value_can_not_start_another_line(value):
    with pytest.raises(ValueError, match="line break"):
        render(200, fields=(("X-Note", value),))


@pytest.mark.parametrize("value", ["a\nSet-Cookie: b", "a\rSet-Cookie: b", "a\n\nbody"])
def test_a_value_can_not_start_another_line_with_half_a_line_end(value):
    with pytest.raises(ValueError, match="line break"):
        render(200, fields=(("X-Note", value),))


def test_a_content_type_can_not_start_another_line():
    with pytest.raises(ValueError, match="line break"):
        render(200, b"x", content_type="text/plain\r\nX: y")


def test_a_refusal_tells_the_fixed_line_of_its_class_and_never_its_message():
    answer = refusal(UnknownPath("/secret-path"))

    assert answer.status == 404
    assert answer.rest.endswith(b"\r\n\r\nnot found\n")
    assert b"secret" not in answer.rest
    assert not answer.closes


def test_a_refusal_closes_where_its_class_or_its_caller_says_so():
    assert refusal(BadHttp("x")).closes
    assert refusal(UnknownPath("x"), closes=True).closes


def test_retry_after_and_allow_are_sent_where_they_are_known():
    assert b"Retry-After: 1\r\n" in refusal(OutOfMemoryBudget("x")).rest
    assert b"Retry-After: 3\r\n" in refusal(RateExceeded("x", 2.1)).rest
    assert b"Allow: POST, HEAD\r\n" in refusal(WrongMethod("x", "POST, HEAD")).rest
    assert b"Retry-After" not in refusal(UnknownPath("x")).rest


def test_rate_refusals_are_429_only_where_the_sender_knows_it():
    assert refusal(RateExceeded("x", 1)).status == 503
    assert refusal(RateExceeded("x", 1, too_many=True)).status == 429


def test_the_date_line_follows_the_clock():
    date = DateLine(0)
    assert date.line == DATE
    date.update(784111777)
    assert date.line == b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"


def test_fixed_answers():
    assert CONTINUE == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert INTERNAL_ERROR.status == 500
    assert INTERNAL_ERROR.closes
