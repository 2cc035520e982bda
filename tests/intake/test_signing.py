"""The senders' side: what it signs is what the formula of the provider's page gives."""

import base64
import hmac

import pytest

from fasthook.errors import ConfigError, NoSignature
from fasthook.intake import catalogue
from fasthook.intake.keys import key_of
from fasthook.intake.schemes import Scheme
from fasthook.intake.signatures import verifier_of
from fasthook.intake.signing import sample_secret, sign
from tests.intake.support import NOW_S, PROVIDERS, request_of, signed


def test_a_timestamp_that_is_there_is_signed_as_it_stands():
    scheme = catalogue.load("slack").schemes["default"]
    request = signed(scheme, b"x", b"s", X_Slack_Request_Timestamp="7")

    digest = hmac.digest(b"s", b"v0:7:x", "sha256").hex().encode()
    assert request.headers[b"x-slack-signature"] == b"v0=" + digest


def test_the_public_url_can_be_signed():
    scheme = Scheme(header="x", message="{url}{method}{path}{target}{body}", encoding="base64url")
    request = request_of(b"B", target=b"/p?q")
    sign(scheme, b"k", request, NOW_S, "https://example.com/p")

    digest = hmac.digest(b"k", b"https://example.com/pPOST/p/p?qB", "sha256")
    assert request.headers[b"x"] == base64.urlsafe_b64encode(digest)
    assert verifier_of(scheme, [b"k"], "https://example.com/p").verify(request, NOW_S) == 0


def test_a_missing_header_that_is_signed_is_named():
    scheme = catalogue.load("standard-webhooks").schemes["default"]
    with pytest.raises(NoSignature, match="webhook-id"):
        sign(scheme, b"YWI=", request_of(), NOW_S)


def test_a_timestamp_in_the_body_is_put_there():
    scheme = Scheme(header="x", timestamp="json:at")
    request = request_of(b'{"a":1}')
    sign(scheme, b"k", request, NOW_S)
    assert request.body == b'{"a":1,"at":"%d"}' % NOW_S
    assert verifier_of(scheme, [b"k"]).verify(request, NOW_S) == 0
    with pytest.raises(ConfigError, match="no place for at"):
        sign(scheme, b"k", request_of(b"[]"), NOW_S)


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_sample_secret_has_the_form_of_the_scheme_and_depends_on_its_seed_alone(name):
    for scheme in catalogue.load(name).schemes.values():
        secret = sample_secret(scheme, b"seed")
        assert len(key_of(scheme, secret.encode())) >= 32
        assert secret == sample_secret(scheme, b"seed") != sample_secret(scheme, b"other")
