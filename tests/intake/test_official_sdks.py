"""The senders' own libraries, crosswise: they accept what `fasthook send` signs, and fasthook what
they sign; both refuse the same with a byte changed.

Others stand in test_sdks.py. Which ones are left out, and why, stands in pyproject.toml, at `sdks`.
"""

import base64
import contextlib
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fasthook.errors import NotGenuine
from fasthook.intake import catalogue
from fasthook.intake.signatures import verifier_of
from fasthook.intake.signing import sample_secret
from fasthook.testing import URL, SignedEvent, signed_event
from tests.intake.support import request_of

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
EVENT = {"id": "evt_1", "event": "t", "text": "caf\u00e9"}
KEY = ec.generate_private_key(ec.SECP256R1())


class Sdk(NamedTuple):
    """A library, by what of it is used here."""

    provider: str
    accepts: Callable[[SignedEvent, str], Any]  # raises, or gives what is false, where it refuses
    #: body, secret → headers; or with another body (headers, body). None: it has nothing that signs.
    signs: Callable[[bytes, str], Any] | None = None
    body: bytes = json.dumps(EVENT).encode()
    type: str = JSON
    secret: str = ""
    verifies: str = ""  # what is configured, where it is not the secret
    scheme: str = "default"
    settings: Mapping[str, str] = MappingProxyType({})
    changed: tuple[bytes, bytes] = (b"evt_1", b"evt_2")  # one byte of what is signed


def hex_of(secret: str, message: bytes) -> str:
    return hmac.new(secret.encode(), message, "sha256").hexdigest()


def now() -> str:
    return str(int(time.time()))


# --- Adyen ----------------------------------------------------------------------------------------

ITEM = {
    "pspReference": "evt_1", "originalReference": "", "merchantAccountCode": "M",
    "merchantReference": "r:1", "amount": {"value": 1130, "currency": "EUR"},
    "eventCode": "AUTHORISATION", "success": "true",
}  # fmt: skip


def adyen_body(signature: str = "") -> bytes:
    more = {"additionalData": {"hmacSignature": signature}} if signature else {}
    return json.dumps({"notificationItems": [{"NotificationRequestItem": ITEM | more}]}).encode()


def adyen_accepts(sent, secret):
    from Adyen.util import is_valid_hmac_notification

    return is_valid_hmac_notification(json.loads(sent.body), secret)


def adyen_signs(body, secret):
    from Adyen.util import generate_notification_sig

    return {}, adyen_body(generate_notification_sig(ITEM, secret).decode())


def adyen_platform_accepts(sent, secret):
    from Adyen.util import is_valid_hmac_payload

    return is_valid_hmac_payload(sent.headers["hmacsignature"], secret, sent.body)


def adyen_platform_signs(body, secret):
    from Adyen.util import generate_payload_sig

    return {"HmacSignature": generate_payload_sig(body, secret).decode()}


# --- Braintree ------------------------------------------------------------------------------------


def braintree_gateway(secret):
    from braintree import BraintreeGateway, Configuration, Environment

    public, private = secret.split(":")
    return BraintreeGateway(Configuration(Environment.Sandbox, "merchant", public, private))


def braintree_accepts(sent, secret):
    fields = dict(parse_qsl(sent.body.decode()))
    gateway = braintree_gateway(secret)
    return gateway.webhook_notification.parse(fields["bt_signature"], fields["bt_payload"])


def braintree_signs(body, secret):
    from braintree import WebhookNotification

    kind = WebhookNotification.Kind.SubscriptionWentPastDue
    return {}, urlencode(
        braintree_gateway(secret).webhook_testing.sample_notification(kind, "evt_1")
    ).encode()


XML = base64.encodebytes(b"<notification><kind>check</kind><subject><check type='boolean'>true</check>"
                         b"</subject><timestamp type='datetime'>2026-01-01T00:00:00Z</timestamp>"
                         b"</notification>")  # fmt: skip


# --- others ---------------------------------------------------------------------------------------


def cloudinary_accepts(sent, secret):
    import cloudinary.utils

    cloudinary.config(api_secret=secret)
    headers = sent.headers
    return cloudinary.utils.verify_notification_signature(
        sent.body.decode(), headers["x-cld-timestamp"], headers["x-cld-signature"]
    )


def cloudinary_signs(body, secret):
    from cloudinary.utils import compute_hex_hash

    stamp = now()
    return {
        "X-Cld-Timestamp": stamp,
        "X-Cld-Signature": compute_hex_hash(body.decode() + stamp + secret),
    }


def discord_accepts(sent, secret):
    from discord_interactions import verify_key

    signature = sent.headers["x-signature-ed25519"]
    return verify_key(
        sent.body, signature, sent.headers["x-signature-timestamp"], discord_key(secret)
    )


def discord_key(secret):
    from nacl.signing import SigningKey

    return bytes(SigningKey(bytes.fromhex(secret)).verify_key).hex()


def discord_signs(body, secret):
    from nacl.signing import SigningKey

    signed = SigningKey(bytes.fromhex(secret)).sign(now().encode() + body)
    return {"X-Signature-Ed25519": signed.signature.hex(), "X-Signature-Timestamp": now()}


def dropbox_sign_accepts(sent, secret):
    from dropbox_sign import EventCallbackHelper
    from dropbox_sign.models import EventCallbackRequest

    return EventCallbackHelper.is_valid(secret, EventCallbackRequest.init(json.loads(sent.body)))


def easypost_accepts(sent, secret):
    from easypost.util import validate_webhook

    return validate_webhook(
        sent.body, {"X-Hmac-Signature": sent.headers["x-hmac-signature"]}, secret
    )


def gocardless_accepts(sent, secret):
    from gocardless_pro import webhooks

    return webhooks.parse(sent.body, secret, sent.headers["webhook-signature"])


def livekit_accepts(sent, secret):
    from livekit.api import TokenVerifier, WebhookReceiver

    receiver = WebhookReceiver(TokenVerifier("fasthook", secret))
    return receiver.receive(sent.body.decode(), sent.headers["authorization"])


def livekit_signs(body, secret):
    from livekit.api import AccessToken

    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    token = AccessToken("fasthook", secret).with_sha256(digest).with_ttl(timedelta(minutes=5))
    return {"Authorization": token.to_jwt()}


def messagebird_accepts(sent, secret):
    from messagebird.request_validator import RequestValidator

    signature = sent.headers["messagebird-signature-jwt"]
    return RequestValidator(secret).validate_signature(signature, URL, sent.body)


class PaddleRequest:
    def __init__(self, sent):
        self.headers = {"Paddle-Signature": sent.headers["paddle-signature"]}
        self.body = sent.body


def paddle_accepts(sent, secret):
    from paddle_billing.Notifications import Secret, Verifier

    return Verifier(60).verify(PaddleRequest(sent), Secret(secret))


def paddle_signs(body, secret):
    from paddle_billing.Notifications.PaddleSignature import PaddleSignature

    stamp = now()
    mac = PaddleSignature.calculate_hmac(secret, stamp.encode() + b":" + body).hexdigest()
    return {"Paddle-Signature": f"ts={stamp};h1={mac}"}


def plivo_accepts(sent, secret):
    from plivo.utils import validate_v3_signature

    headers = sent.headers
    nonce, signature = (headers[f"x-plivo-signature-v3{end}"] for end in ("-nonce", ""))
    fields = dict(parse_qsl(sent.body.decode()))
    return validate_v3_signature("POST", URL, nonce, secret, signature, fields)


def plivo_signs(body, secret):
    from plivo.utils.signature_v3 import construct_post_url, get_signature_v3

    base = construct_post_url(URL, dict(parse_qsl(body.decode()))).decode()
    signature = get_signature_v3(secret.encode(), base, b"nonce").decode()
    return {"X-Plivo-Signature-V3": signature, "X-Plivo-Signature-V3-Nonce": "nonce"}


def pusher_accepts(sent, secret):
    from pusher import Pusher

    client = Pusher("1", "test", secret)
    headers = sent.headers
    return client.validate_webhook(
        headers["x-pusher-key"], headers["x-pusher-signature"], sent.body.decode()
    )


def pusher_signs(body, secret):
    from pusher.signature import sign

    return {"X-Pusher-Key": "test", "X-Pusher-Signature": sign(secret, body.decode())}


def razorpay_accepts(sent, secret):
    from razorpay import Utility

    signature = sent.headers["x-razorpay-signature"]
    return Utility().verify_webhook_signature(sent.body.decode(), signature, secret)


def sendgrid_accepts(sent, secret):
    from sendgrid.helpers.eventwebhook import EventWebhook

    prefix = "x-twilio-email-event-webhook-"
    signature, stamp = (sent.headers[prefix + end] for end in ("signature", "timestamp"))
    return EventWebhook(SENDGRID_KEY).verify_signature(sent.body.decode(), signature, stamp)


SENDGRID_KEY = base64.b64encode(
    KEY.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
).decode()
SENDGRID_PRIVATE = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()


def square_accepts(sent, secret):
    from square.utils.webhooks_helper import verify_signature

    return verify_signature(
        request_body=sent.body.decode(),
        signature_header=sent.headers["x-square-hmacsha256-signature"],
        signature_key=secret,
        notification_url=URL,
    )


def twilio_accepts(sent, secret):
    from twilio.request_validator import RequestValidator

    is_form = sent.headers["content-type"].startswith(FORM)
    body = dict(parse_qsl(sent.body.decode())) if is_form else sent.body.decode()
    query = sent.target.partition("?")[2]
    url = f"{URL}?{query}" if query else URL
    return RequestValidator(secret).validate(url, body, sent.headers["x-twilio-signature"])


def twilio_signs(body, secret):
    from twilio.request_validator import RequestValidator

    fields = dict(parse_qsl(body.decode()))
    return {"X-Twilio-Signature": RequestValidator(secret).compute_signature(URL, fields)}


def vonage_accepts(sent, secret):
    from vonage_jwt import verify_signature

    return verify_signature(sent.headers["authorization"].removeprefix("Bearer "), secret)


def workos_accepts(sent, secret):
    from workos.webhooks._verification import verify_header

    verify_header(
        event_body=sent.body, event_signature=sent.headers["workos-signature"], secret=secret
    )
    return True


FIELDS = b"From=%2B1&Body=evt_1"
NUMBERS = json.dumps({"id": "evt_1", "n": 1.0, "events": []}, indent=1).encode()
SDKS = [
    Sdk("adyen", adyen_accepts, adyen_signs, adyen_body(), secret="44" * 32),
    Sdk("adyen", adyen_platform_accepts, adyen_platform_signs, secret="44" * 32, scheme="platform_header"),
    Sdk("braintree", braintree_accepts, braintree_signs, urlencode({"bt_payload": XML}).encode(), FORM,
        secret="public:private", changed=(b"bt_payload=P", b"bt_payload=Q")),
    Sdk("cloudinary", cloudinary_accepts, cloudinary_signs),
    Sdk("discord", discord_accepts, discord_signs, secret="17" * 32, verifies=discord_key("17" * 32)),
    Sdk("dropbox-sign", dropbox_sign_accepts, None,
        b'{"event":{"event_type":"signature_request_sent","event_time":"1"}}',
        changed=(b"_sent", b"_seen")),
    Sdk("easypost", easypost_accepts, None, NUMBERS, secret="s\u00e9cret of some length"),
    Sdk("gocardless", gocardless_accepts, None, NUMBERS),
    Sdk("livekit", livekit_accepts, livekit_signs, b'{"event":"room_started","id":"evt_1"}'),
    Sdk("messagebird", messagebird_accepts),
    Sdk("paddle", paddle_accepts, paddle_signs),
    Sdk("plivo", plivo_accepts, plivo_signs, FIELDS, FORM),
    Sdk("pusher", pusher_accepts, pusher_signs, settings={"key": "test"},
        body=b'{"time_ms":%d,"events":[{"name":"evt_1"}]}' % int(time.time() * 1000)),
    Sdk("razorpay", razorpay_accepts),
    Sdk("sendgrid", sendgrid_accepts, None, b'[{"event":"evt_1"},\r\n{"event":"b"}]\r\n',
        secret=SENDGRID_PRIVATE, verifies=SENDGRID_KEY),
    Sdk("square", square_accepts),
    Sdk("twilio", twilio_accepts, twilio_signs, FIELDS, FORM),
    Sdk("twilio", twilio_accepts, None, NUMBERS),
    Sdk("vonage", vonage_accepts, scheme="signature_only", changed=(b"", b"")),
    Sdk("workos", workos_accepts),
]  # fmt: skip
IDS = [
    f"{sdk.provider}-{sdk.scheme}-{sdk.type.rpartition('/')[2]}-{n}" for n, sdk in enumerate(SDKS)
]
every_sdk = pytest.mark.parametrize("sdk", SDKS, ids=IDS)
signing_sdk = pytest.mark.parametrize(
    "sdk",
    [sdk for sdk in SDKS if sdk.signs is not None],
    ids=[name for name, sdk in zip(IDS, SDKS, strict=True) if sdk.signs is not None],
)


def secret_of(sdk: Sdk) -> str:
    scheme = catalogue.load(sdk.provider).schemes[sdk.scheme]
    return sdk.secret or sample_secret(scheme, b"sdk")


def does_accept(sdk: Sdk, sent: SignedEvent, secret: str) -> bool:
    with contextlib.suppress(Exception):  # each library has errors of its own
        return bool(sdk.accepts(sent, secret))
    return False


@every_sdk
def test_the_senders_library_accepts_what_we_sign(sdk):
    secret = secret_of(sdk)
    sent = signed_event(sdk.provider, "", sdk.body, secret=secret, scheme=sdk.scheme)
    sent = sent._replace(headers=sent.headers | {"content-type": sdk.type})

    assert sdk.accepts(sent, secret) not in (False, None)
    if sdk.changed[0]:
        assert sdk.changed[0] in sent.body
        other = sent._replace(body=sent.body.replace(*sdk.changed, 1))
        assert not does_accept(sdk, other, secret)
    assert not does_accept(sdk, sent, other_secret(sdk, secret)) or sdk.provider == "sendgrid"


def other_secret(sdk: Sdk, secret: str) -> str:
    return secret[:-1] + ("4" if secret[-1] != "4" else "5")


@signing_sdk
def test_we_accept_what_the_senders_library_signs(sdk):
    secret = secret_of(sdk)
    made = sdk.signs(sdk.body, secret)
    headers, body = made if isinstance(made, tuple) else (made, sdk.body)
    scheme = catalogue.load(sdk.provider).schemes[sdk.scheme]
    verifier = verifier_of(scheme, [(sdk.verifies or secret).encode()], URL, sdk.settings)
    request = request_of(body, {"Content-Type": sdk.type, **headers})

    assert verifier.verify(request, time.time()) == 0
    old, new = sdk.changed
    if sdk.provider == "braintree":
        old, new = b"bt_payload=", b"bt_payload=A"
    assert old in body
    with pytest.raises(NotGenuine):
        verifier.verify(
            request_of(body.replace(old, new, 1), {"Content-Type": sdk.type, **headers}),
            time.time(),
        )


def test_braintrees_library_answers_a_challenge_as_we_do():
    from fasthook.intake.handshakes import Greeting

    challenge, secret = "20f9f8ed05f77439fe955c977e4c8a53", "public:private"
    (handshake,) = catalogue.load("braintree").handshakes
    request = request_of(b"", {}, f"/hook?bt_challenge={challenge}".encode(), b"GET")
    reply = Greeting(handshake, secret.encode()).reply_to(request)
    assert reply.body == braintree_gateway(secret).webhook_notification.verify(challenge)
