"""What a sender may be told: a known status and a fixed line."""

import re

import pytest

from fasthook import errors
from fasthook.errors import FasthookError, Rejection
from fasthook.wire.answers import refusal

#: DESIGN.md, "Answers".
# 417 is for RFC 9110 §10.1.1 alone: an expectation that nobody but the sender knows.
ANSWERS = {400, 401, 403, 404, 405, 408, 413, 414, 415, 417, 429, 431, 501, 503}


def subclasses(base):
    for child in base.__subclasses__():
        yield child
        yield from subclasses(child)


REJECTIONS = sorted({Rejection, *subclasses(Rejection)}, key=lambda c: c.__name__)


def made(rejection: type[Rejection]) -> Rejection:
    """One of this class, with a message that nobody outside may see."""
    if issubclass(rejection, errors.WrongMethod):
        return rejection("hush", "POST")
    if issubclass(rejection, errors.Shed | errors.KeyUnavailable):
        return rejection("hush", 2.5)
    if issubclass(rejection, errors.HandshakeRefused):
        return rejection("hush", 403)
    return rejection("hush")


@pytest.mark.parametrize("rejection", REJECTIONS)
def test_a_rejection_has_a_status_of_the_contract(rejection):
    assert rejection.status in ANSWERS


@pytest.mark.parametrize("rejection", REJECTIONS)
def test_a_rejection_is_told_in_a_few_fixed_words(rejection):
    assert re.fullmatch(r"[a-z ]{4,40}", rejection.answer)
    answer = refusal(made(rejection))
    assert b"hush" not in answer.start + answer.rest
    assert answer.rest.endswith(f"\r\n\r\n{rejection.answer}\n".encode())


def test_a_forger_is_told_the_same_whatever_was_wrong():
    told = {(c.status, c.answer, c.closes) for c in subclasses(errors.NotGenuine)}
    assert told == {(401, "signature verification failed", False)}


@pytest.mark.parametrize("rejection", REJECTIONS)
def test_what_may_be_sent_again_says_when(rejection):
    answer = refusal(made(rejection))
    assert (b"Retry-After: " in answer.rest) == (rejection.status == 503)


def test_a_wait_is_rounded_up_to_whole_seconds():
    waits = [0, 0.001, 1, 1.001, 2.5, 60]
    assert [errors.Shed("", s).retry_after_s for s in waits] == [1, 1, 1, 2, 3, 60]


def test_only_senders_that_retry_it_get_429():
    assert errors.RateExceeded("", 1).status == 503
    assert errors.RateExceeded("", 1, too_many=True).status == 429
    assert errors.RateExceeded.status == 503
    assert b"Retry-After: 1\r\n" in refusal(errors.RateExceeded("", 1, too_many=True)).rest


def test_405_names_the_methods_that_are_allowed():
    assert b"Allow: POST\r\n" in refusal(errors.WrongMethod("", "POST")).rest


def test_every_error_has_one_base():
    own = [
        c
        for c in vars(errors).values()
        if isinstance(c, type) and c.__module__ == "fasthook.errors"
    ]
    own.remove(errors.AlreadyDone)  # which is none
    assert all(issubclass(c, FasthookError) for c in own)


def test_a_retry_knows_its_time():
    assert errors.Retry().after_s is None
    assert errors.Retry("later", after=5).after_s == 5
