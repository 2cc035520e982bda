"""The providers' own libraries, both ways: they verify what we sign, and we what they sign."""

import json
import time
from datetime import UTC, datetime

import gidgethub
import pytest
import standardwebhooks
import stripe
import svix.webhooks
from gidgethub import sansio
from slack_sdk.signature import Clock, SignatureVerifier

from fasthook.errors import NotGenuine
from fasthook.intake import catalogue
from fasthook.intake.signing import sample_secret
from tests.intake.support import NOW_S, endpoint_of, receive, request_of, signed

BODIES = ['{"id": "evt_1", "object": "event", "type": "t"}', '{"id":"é","object":"event"}\r\n']
every_body = pytest.mark.parametrize("body", BODIES)


class Frozen(Clock):
    def now(self):
        return float(NOW_S)


def scheme_and_secret(name):
    scheme = catalogue.load(name).schemes["default"]
    return scheme, sample_secret(scheme, b"sdk")


def text_headers(request):
    return {name.decode(): value.decode() for name, value in request.headers.items()}


def accepts(name, secret, body, headers, now_s=NOW_S):
    endpoint = endpoint_of(name, [secret.encode()])
    receive(endpoint, request_of(body.encode(), headers), now_s)
    with pytest.raises(NotGenuine):
        receive(endpoint, request_of(body.encode() + b" ", headers), now_s)


@every_body
def test_stripe_verifies_what_we_sign(body):
    scheme, secret = scheme_and_secret("stripe")
    # The library has no clock to set, so the signed time is now.
    request = signed(scheme, body.encode(), secret.encode(), time.time())
    header = request.headers[b"stripe-signature"].decode()

    event = stripe.Webhook.construct_event(body.encode(), header, secret)
    assert event.id == json.loads(body)["id"]
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(body.encode() + b" ", header, secret)


@every_body
def test_we_verify_what_stripe_signs(body):
    _, secret = scheme_and_secret("stripe")
    digest = stripe.WebhookSignature._compute_signature(f"{NOW_S}.{body}", secret)
    accepts("stripe", secret, body, {"Stripe-Signature": f"t={NOW_S},v1={digest}"})


@every_body
def test_slack_verifies_what_we_sign(body):
    scheme, secret = scheme_and_secret("slack")
    headers = text_headers(signed(scheme, body.encode(), secret.encode()))
    verifier = SignatureVerifier(secret, Frozen())

    assert verifier.is_valid_request(body, headers)
    assert not verifier.is_valid_request(body + " ", headers)


@every_body
def test_we_verify_what_slack_signs(body):
    _, secret = scheme_and_secret("slack")
    signature = SignatureVerifier(secret).generate_signature(timestamp=str(NOW_S), body=body)
    headers = {"X-Slack-Request-Timestamp": str(NOW_S), "X-Slack-Signature": signature}
    accepts("slack", secret, body, headers)


@every_body
@pytest.mark.parametrize("library", [standardwebhooks.Webhook, svix.webhooks.Webhook])
def test_standard_webhooks_and_svix_verify_what_we_sign(library, body):
    scheme, secret = scheme_and_secret("standard-webhooks")
    headers = text_headers(signed(scheme, body.encode(), secret.encode(), time.time()))

    library(secret).verify(body, headers)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        library(secret).verify(body + " ", headers)


@every_body
@pytest.mark.parametrize("library", [standardwebhooks.Webhook, svix.webhooks.Webhook])
def test_we_verify_what_standard_webhooks_and_svix_sign(library, body):
    _, secret = scheme_and_secret("standard-webhooks")
    signature = library(secret).sign("msg_1", datetime.fromtimestamp(NOW_S, UTC), body)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(NOW_S),
        "webhook-signature": signature,
    }
    accepts("standard-webhooks", secret, body, headers)


@every_body
def test_gidgethub_verifies_what_we_sign(body):
    scheme, secret = scheme_and_secret("github")
    request = signed(scheme, body.encode(), secret.encode())
    signature = request.headers[b"x-hub-signature-256"].decode()

    sansio.validate_event(body.encode(), signature=signature, secret=secret)
    with pytest.raises(gidgethub.ValidationFailure):
        sansio.validate_event(body.encode() + b" ", signature=signature, secret=secret)
