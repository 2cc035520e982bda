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
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

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


def pem_of(private) -> str:
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


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
SENDGRID_PRIVATE = pem_of(KEY)


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


# --- those with keys or forms of their own --------------------------------------------------------


def box_accepts(sent, secret):
    from box_sdk_gen.managers.webhooks import WebhooksManager

    return WebhooksManager.validate_message(sent.body.decode(), dict(sent.headers), secret)


def box_signs(body, secret):
    from box_sdk_gen.internal.utils import compute_webhook_signature

    headers = {
        "box-signature-version": "1",
        "box-signature-algorithm": "HmacSHA256",
        "box-delivery-timestamp": f"{datetime.now(UTC):%FT%TZ}",
    }
    signature = compute_webhook_signature(body.decode(), headers, secret)
    return headers | {"box-signature-secondary": signature}


def coinbase_accepts(sent, secret):
    from coinbase_commerce.webhook import Webhook

    header = sent.headers["x-cc-webhook-signature"]
    return Webhook.construct_event(sent.body.decode(), header, secret)


def coinbase_signs(body, secret):
    from coinbase_commerce.webhook import WebhookSignature

    return {"X-CC-Webhook-Signature": WebhookSignature._compute_signature(body.decode(), secret)}


def convoy_accepts(hash_name):
    def accepts(sent, secret):
        from convoy.utils.webhook import Webhook

        header = sent.headers["x-convoy-signature"]
        # What it gives for a wrong one is a sentence, and so true.
        return Webhook(secret, hash=hash_name).verify_signature(sent.body.decode(), header) is True

    return accepts


def convoy_signs(hash_name):
    def signs(body, secret):
        from convoy.utils.webhook import Webhook

        signature = Webhook(secret, hash=hash_name).create_signature(body.decode())
        return {"X-Convoy-Signature": signature}

    return signs


def elevenlabs_accepts(sent, secret):
    from elevenlabs import ElevenLabs

    header = sent.headers["elevenlabs-signature"]
    return ElevenLabs(api_key="-").webhooks.construct_event(sent.body.decode(), header, secret)


def elevenlabs_signs(body, secret):
    stamp = now()
    return {"ElevenLabs-Signature": f"t={stamp},v0={hex_of(secret, f'{stamp}.'.encode() + body)}"}


GOOGLE_KEY = rsa.generate_private_key(65537, 2048)
GOOGLE_PUBLIC = GOOGLE_KEY.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)


def google_accepts(sent, secret):
    from google.oauth2 import id_token

    def request(url, **_):  # what fetches Google's keys
        certificates = json.dumps({"1": GOOGLE_PUBLIC.decode()}).encode()
        return type("Response", (), {"status": 200, "data": certificates})

    token = sent.headers["authorization"].removeprefix("Bearer ")
    return id_token.verify_oauth2_token(token, request, audience="test")


def google_signs(body, secret):
    from google.auth import jwt
    from google.auth.crypt import RSASigner

    claims = {"iss": "https://accounts.google.com", "aud": "test", "iat": int(now()),
              "exp": int(now()) + 60, "email": "test", "email_verified": True}  # fmt: skip
    token = jwt.encode(RSASigner.from_string(secret, key_id="1"), claims)
    return {"Authorization": f"Bearer {token.decode()}"}


def hook0_accepts(sent, secret):
    from hook0 import verify_webhook_signature

    header = sent.headers["x-hook0-signature"]
    return verify_webhook_signature(header, sent.body, sent.headers, secret, 300)


def hook0_signs(body, secret):
    message = f"{now()}.x-event-id.evt_1.".encode() + body
    header = f"t={now()},h=x-event-id,v1={hex_of(secret, message)}"
    return {"X-Event-Id": "evt_1", "X-Hook0-Signature": header}


def hubspot_accepts(version):
    def accepts(sent, secret):
        from hubspot.utils.signature import Signature

        headers, is_newest = sent.headers, version == "v3"
        header = headers["x-hubspot-signature-v3" if is_newest else "x-hubspot-signature"]
        stamp = headers["x-hubspot-request-timestamp"] if is_newest else None
        return Signature.is_valid(header, secret, sent.body.decode(), URL, "POST", version, stamp)

    return accepts


def hubspot_signs(version):
    def signs(body, secret):
        from hubspot.utils.signature import Signature

        stamp = now() + "000"
        signature = Signature.get_signature(secret, body.decode(), version, URL, "POST", stamp)
        if version != "v3":
            return {"X-HubSpot-Signature": signature}
        return {"X-HubSpot-Signature-v3": signature, "X-HubSpot-Request-Timestamp": stamp}

    return signs


def line_accepts(sent, secret):
    from linebot.v3.webhook import SignatureValidator

    return SignatureValidator(secret).validate(sent.body.decode(), sent.headers["x-line-signature"])


def line_signs(body, secret):
    mac = hmac.digest(secret.encode(), body, "sha256")
    return {"x-line-signature": base64.b64encode(mac).decode()}


def mailgun_accepts(sent, secret):
    from mailgun.security import SecurityGuard

    return SecurityGuard.verify_webhook(secret, **json.loads(sent.body)["signature"])


def mailgun_signs(body, secret):
    said = json.loads(body)
    said["signature"] |= {"timestamp": now(), "signature": hex_of(secret, f"{now()}tok_1".encode())}
    return {}, json.dumps(said).encode()


def mollie_accepts(sent, secret):
    from mollie.utils.webhooks.signature_validator import SignatureValidator

    header = sent.headers["x-mollie-signature"]
    return SignatureValidator.validate(sent.body.decode(), secret, header)


def mollie_signs(body, secret):
    from mollie.utils.webhooks.signature_validator import SignatureValidator

    signature = SignatureValidator.create_signature(body.decode(), secret)
    return {"X-Mollie-Signature": f"sha256={signature}"}


def onfido_accepts(sent, secret):
    from onfido.webhook_event_verifier import WebhookEventVerifier

    signature = sent.headers["x-sha2-signature"]
    return WebhookEventVerifier(secret).read_payload(sent.body.decode(), signature)


def onfido_signs(body, secret):
    return {"X-SHA2-Signature": hex_of(secret, body)}


def sinch_accepts(sent, secret):
    from sinch.domains.conversation.sinch_events.v1 import ConversationSinchEvent

    return ConversationSinchEvent(secret).validate_authentication_header(
        headers=sent.headers, json_payload=sent.body.decode()
    )


def sinch_signs(body, secret):
    from sinch.domains.authentication.sinch_events.v1 import authentication_validation as helpers

    signed = helpers.compute_signed_data(body.decode(), "nonce", now())
    prefix = "x-sinch-webhook-signature"
    return {
        prefix: helpers.calculate_sinch_event_signature(signed, secret),
        f"{prefix}-nonce": "nonce",
        f"{prefix}-timestamp": now(),
    }


def sinch_numbers_accepts(sent, secret):
    from sinch.domains.numbers.sinch_events.v1.sinch_events import SinchEvents

    return SinchEvents(secret).validate_authentication_header(sent.headers, sent.body.decode())


def sinch_numbers_signs(body, secret):
    from sinch.domains.authentication.sinch_events.v1.authentication_validation import (
        compute_hmac_signature,
    )

    return {"X-Sinch-Signature": compute_hmac_signature(body.decode(), secret)}


def telnyx_accepts(sent, secret):
    from telnyx.lib.webhook_verification import verify_webhook_signature

    verify_webhook_signature(sent.body, sent.headers, telnyx_key(secret))
    return True


def telnyx_key(secret):
    from nacl.signing import SigningKey

    return base64.b64encode(bytes(SigningKey(base64.b64decode(secret)).verify_key)).decode()


def telnyx_signs(body, secret):
    from nacl.signing import SigningKey

    signed = SigningKey(base64.b64decode(secret)).sign(f"{now()}|".encode() + body)
    signature = base64.b64encode(signed.signature).decode()
    return {"Telnyx-Signature-Ed25519": signature, "Telnyx-Timestamp": now()}


def viber_bot(secret):
    from viberbot import Api, BotConfiguration

    return Api(BotConfiguration(secret, "name", "avatar"))


def viber_accepts(sent, secret):
    signature = sent.headers["x-viber-content-signature"]
    return viber_bot(secret).verify_signature(sent.body, signature)


def viber_signs(body, secret):
    return {"X-Viber-Content-Signature": viber_bot(secret)._calculate_message_signature(body)}


# --- those of Standard Webhooks and Svix ----------------------------------------------------------


def standard_signs(prefix="webhook", key_of=str):
    """Signed by the library of Standard Webhooks, which takes its key in base64."""

    def signs(body, secret):
        from standardwebhooks import Webhook

        at = datetime.now(UTC)
        signature = Webhook(key_of(secret)).sign("msg_1", at, body.decode())
        values = {"id": "msg_1", "timestamp": str(int(at.timestamp())), "signature": signature}
        return {f"{prefix}-{name}": value for name, value in values.items()}

    return signs


def base64_of(secret):
    return base64.b64encode(secret.encode()).decode()


def dodopayments_accepts(sent, secret):
    from dodopayments import DodoPayments

    client = DodoPayments(bearer_token="-", webhook_key=secret)
    return client.webhooks.unwrap(sent.body.decode(), headers=sent.headers)


def openai_accepts(sent, secret):
    from openai import OpenAI

    OpenAI(api_key="-").webhooks.verify_signature(sent.body, sent.headers, secret=secret)
    return True


def polar_accepts(sent, secret):
    from polar.webhooks import validate_event

    return validate_event(sent.body, sent.headers, secret, frozenset({"t"}), dict)


def replicate_accepts(sent, secret):
    from replicate.webhook import Webhooks, WebhookSigningSecret

    key = WebhookSigningSecret(key=secret)
    Webhooks.validate(headers=sent.headers, body=sent.body.decode(), secret=key, tolerance=300)
    return True


def resend_accepts(sent, secret):
    from resend import Webhooks

    headers = {name: sent.headers[f"svix-{name}"] for name in ("id", "timestamp", "signature")}
    return Webhooks.verify(
        {"payload": sent.body.decode(), "headers": headers, "webhook_secret": secret}
    )


FIELDS = b"From=%2B1&Body=evt_1"
NUMBERS = json.dumps({"id": "evt_1", "n": 1.0, "events": []}, indent=1).encode()
TYPED = '{"type":"t","id":"evt_1","text":"caf\u00e9"}'.encode()
ED25519_SECRET = base64.b64encode(b"\x17" * 32).decode()
SDKS = [
    Sdk("adyen", adyen_accepts, adyen_signs, adyen_body(), secret="44" * 32),
    Sdk("adyen", adyen_platform_accepts, adyen_platform_signs, secret="44" * 32, scheme="platform_header"),
    Sdk("braintree", braintree_accepts, braintree_signs, urlencode({"bt_payload": XML}).encode(), FORM,
        secret="public:private", changed=(b"bt_payload=P", b"bt_payload=Q")),
    Sdk("box", box_accepts, box_signs),
    Sdk("box", box_accepts, box_signs, TYPED),  # not in ASCII: signed as it is
    Sdk("cloudinary", cloudinary_accepts, cloudinary_signs),
    Sdk("coinbase-commerce", coinbase_accepts, coinbase_signs, b'{"event":{"id":"evt_1"}}'),
    # Its own check of the advanced form leaves the time out of what is signed, which Convoy does not.
    Sdk("convoy", convoy_accepts("sha256"), convoy_signs("sha256"), scheme="simple_sha256_hex"),
    Sdk("convoy", convoy_accepts("sha512"), convoy_signs("sha512"), scheme="simple_sha512_hex"),
    Sdk("discord", discord_accepts, discord_signs, secret="17" * 32, verifies=discord_key("17" * 32)),
    Sdk("dodopayments", dodopayments_accepts, standard_signs(), TYPED),
    Sdk("dropbox-sign", dropbox_sign_accepts, None,
        b'{"event":{"event_type":"signature_request_sent","event_time":"1"}}',
        changed=(b"_sent", b"_seen")),
    Sdk("easypost", easypost_accepts, None, NUMBERS, secret="s\u00e9cret of some length"),
    Sdk("elevenlabs", elevenlabs_accepts, elevenlabs_signs, TYPED),
    Sdk("gocardless", gocardless_accepts, None, NUMBERS),
    Sdk("google-pubsub", google_accepts, google_signs, secret=pem_of(GOOGLE_KEY),
        verifies=GOOGLE_PUBLIC.decode(), settings={"audience": "test", "service_account": "test"},
        changed=(b"", b"")),
    Sdk("hook0", hook0_accepts, hook0_signs, TYPED),
    Sdk("hook0", hook0_accepts, scheme="v0"),
    Sdk("hubspot", hubspot_accepts("v3"), hubspot_signs("v3"), TYPED),
    Sdk("hubspot", hubspot_accepts("v2"), hubspot_signs("v2"), scheme="v2"),
    Sdk("hubspot", hubspot_accepts("v1"), hubspot_signs("v1"), scheme="v1"),
    Sdk("line", line_accepts, line_signs, TYPED),
    Sdk("livekit", livekit_accepts, livekit_signs, b'{"event":"room_started","id":"evt_1"}'),
    Sdk("mailgun", mailgun_accepts, mailgun_signs,
        b'{"signature":{"token":"tok_1"},"event-data":{"id":"evt_1"}}', changed=(b"tok_1", b"tok_2")),
    Sdk("messagebird", messagebird_accepts),
    Sdk("mollie", mollie_accepts, mollie_signs, TYPED),
    Sdk("onfido", onfido_accepts, onfido_signs, b'{"payload":{"resource_type":"check","object":{"id":"evt_1"}}}'),
    Sdk("openai", openai_accepts, standard_signs(), TYPED),
    Sdk("paddle", paddle_accepts, paddle_signs),
    Sdk("plivo", plivo_accepts, plivo_signs, FIELDS, FORM),
    Sdk("polar", polar_accepts, standard_signs(key_of=base64_of), TYPED),
    Sdk("polar", polar_accepts, standard_signs(key_of=base64_of), TYPED,
        secret="whsec_" + ED25519_SECRET),  # of before September 2026: all of it is the key
    Sdk("polar", polar_accepts, standard_signs(), TYPED, scheme="standard"),
    Sdk("pusher", pusher_accepts, pusher_signs, settings={"key": "test"},
        body=b'{"time_ms":%d,"events":[{"name":"evt_1"}]}' % int(time.time() * 1000)),
    Sdk("razorpay", razorpay_accepts),
    Sdk("replicate", replicate_accepts, standard_signs()),
    Sdk("resend", resend_accepts, standard_signs("svix"), TYPED),
    Sdk("sendgrid", sendgrid_accepts, None, b'[{"event":"evt_1"},\r\n{"event":"b"}]\r\n',
        secret=SENDGRID_PRIVATE, verifies=SENDGRID_KEY),
    Sdk("sinch", sinch_accepts, sinch_signs, TYPED),
    Sdk("sinch", sinch_numbers_accepts, sinch_numbers_signs, scheme="numbers"),
    Sdk("square", square_accepts),
    Sdk("telnyx", telnyx_accepts, telnyx_signs, TYPED, secret=ED25519_SECRET,
        verifies=telnyx_key(ED25519_SECRET)),
    Sdk("twilio", twilio_accepts, twilio_signs, FIELDS, FORM),
    Sdk("twilio", twilio_accepts, None, NUMBERS),
    Sdk("viber", viber_accepts, viber_signs, TYPED),
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
    else:
        other = sent._replace(headers=with_other_token(sent.headers))
    assert not does_accept(sdk, other, secret)
    has_own_key = sdk.provider in ("sendgrid", "google-pubsub")  # the public one, as above
    assert has_own_key or not does_accept(sdk, sent, other_secret(sdk, secret))


def with_other_token(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers with one character changed in the signature of a token."""
    said, _, signature = headers["authorization"].rpartition(".")
    other = ("B" if signature[0] == "A" else "A") + signature[1:]
    return {**headers, "authorization": f"{said}.{other}"}


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
    if not old:
        headers = with_other_token({name.lower(): value for name, value in headers.items()})
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


def test_polars_library_takes_a_secret_for_two_keys_and_an_endpoint_for_the_one_it_says():
    """Until September 2026 the whole secret was the key, and then what is encoded in it."""
    secret = "whsec_" + ED25519_SECRET
    for scheme, other in (("default", "standard"), ("standard", "default")):
        sent = signed_event("polar", "t", TYPED, secret=secret, scheme=scheme)
        assert polar_accepts(sent, secret)

        request = request_of(sent.body, sent.headers)
        schemes = catalogue.load("polar").schemes
        verifier_of(schemes[scheme], [secret.encode()], URL, {}).verify(request, time.time())
        with pytest.raises(NotGenuine):
            verifier_of(schemes[other], [secret.encode()], URL, {}).verify(request, time.time())
