"""Each scheme of each provider, without the vectors: what is signed here is genuine at an endpoint of
that provider, and with one bit of its key, body, signature or time changed it is not.
"""

import pytest

from fasthook.errors import NotGenuine
from fasthook.intake import catalogue
from fasthook.intake.schemes import BARE
from tests.intake.cases import Case, case_of, covers_body
from tests.intake.support import NOW_S, copy_of, receive
from tests.intake.test_provider_code import CASES as CODE
from tests.intake.test_vectors import flips

CASES = [
    pytest.param(case_of(name, scheme), id=f"{name}-{scheme}")
    for name in catalogue.names()
    for scheme in catalogue.load(name).schemes
]
every_scheme = pytest.mark.parametrize("case", CASES)


def refused(case: Case, request, *secrets) -> None:
    with pytest.raises(NotGenuine) as caught:
        receive(case.endpoint(*secrets), request)
    assert caught.value.status == case.known.refusal_status


@every_scheme
def test_what_is_signed_is_an_event(case):
    delivery = receive(case.endpoint(), case.request())
    assert (delivery.kind, delivery.secret_index) == ("event", 0)
    assert delivery.provider == case.provider


@every_scheme
def test_with_another_key_it_is_not_genuine(case):
    refused(case, case.request(), case.other)
    if case.scheme.kind in (*BARE, "hmac", "digest") and case.scheme.key_encoding == "utf8":
        for secret in flips(case.verifies):  # each bit of the key counts
            if case.scheme.kind != "basic" or b":" in secret:
                refused(case, case.request(), secret)


@every_scheme
def test_with_a_bit_of_its_signature_changed_it_is_not_genuine(case):
    request = case.request()
    for text in list(flips(case.text(request)))[::5]:
        refused(case, case.with_text(request, text))


@every_scheme
def test_with_a_bit_of_its_body_changed_it_is_not_genuine(case):
    request = case.request()
    if case.scheme.kind == "code":
        signed = CODE[case.provider][3]
        start = request.body.index(signed)
        places = range(start, start + len(signed))
    elif covers_body(case) and "form_sorted" not in case.scheme.message:
        places = range(len(request.body))
    elif case.scheme.kind in BARE or not case.scheme.covers_body:
        return  # and the catalogue says so: see test_schemes_that_do_not_sign_the_body_say_so
    else:
        places = range(len(b"payload="), len(request.body), 3)
    for place in places:
        body = request.body[:place] + bytes([request.body[place] ^ 1]) + request.body[place + 1 :]
        refused(case, copy_of(request, body=body))


@every_scheme
def test_with_another_time_it_is_not_genuine(case):
    if case.is_timed:
        later = case.request(now_s=NOW_S + 1)
        refused(case, case.with_text(later, case.text(case.request())))


def test_every_provider_has_a_round_trip_of_its_own():
    """Also those for which nobody has published a vector."""
    assert {case.values[0].provider for case in CASES} == set(catalogue.names())
