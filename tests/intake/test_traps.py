"""The traps of the senders, by their number in the catalogue of providers: one test or more each.

What is said of all schemes at once stands in test_pitfalls.py; here are the senders by name.
"""

import base64
import gzip
import hashlib
import hmac
import json
import re
import unicodedata
from datetime import UTC, datetime
from email.utils import format_datetime
from urllib.parse import quote, urlencode

import pytest

from fasthook import config, plan
from fasthook.errors import ConfigError, NoSignature, NotGenuine, Rejection
from fasthook.intake import catalogue
from fasthook.intake.handshakes import Greeting
from fasthook.intake.keys import key_of
from fasthook.intake.signatures import verifier_of
from tests.intake.cases import URL, case_of
from tests.intake.support import (
    NOW_S,
    copy_of,
    endpoint_of,
    receive,
    receiver_of,
    refusal,
    request_of,
    with_header,
)

RAW = b"0123456789abcdef0123456789abcdef"
TEXT = base64.b64encode(RAW)
BODY = b'{"id":"evt_1","type":"t"}'
MS = NOW_S * 1000
ISO = "2026-01-01T00:00:00Z"
HTTP_DATE = format_datetime(datetime.fromtimestamp(NOW_S, UTC), usegmt=True)


def mac(message, key=RAW, name="sha256"):
    return hmac.digest(key, message if isinstance(message, bytes) else message.encode(), name)


def hex_of(message, key=RAW, name="sha256"):
    return mac(message, key, name).hex()


def b64_of(message, key=RAW, name="sha256"):
    return base64.b64encode(mac(message, key, name)).decode()


def scheme_of(name, scheme="default"):
    return catalogue.load(name).schemes[scheme]


def verify(
    name, headers, body=BODY, secret=RAW, scheme="default", now_s=NOW_S, url=URL, **settings
):
    """Which secret signed it. `secret`: one, or several."""
    secrets = secret if isinstance(secret, list) else [secret]
    request = request_of(body, headers)
    return verifier_of(scheme_of(name, scheme), secrets, url, settings).verify(request, now_s)


def fails(name, headers, body=BODY, **more):
    with pytest.raises(NotGenuine):
        verify(name, headers, body, **more)


# --- key bytes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "scheme", "is_decoded"),
    [("standard-webhooks", "default", True), ("svix", "default", True), ("clerk", "default", True),
     ("resend", "default", True), ("openai", "default", True), ("gitlab", "signing_token", True),
     ("stripe", "default", False), ("fintoc", "default", False),
     ("bigcommerce", "default", False), ("polar", "default", False), ("polar", "standard", True)],
)  # fmt: skip
def test_t01_whsec_means_three_things(name, scheme, is_decoded):
    secret = b"whsec_" + TEXT
    if name == "bigcommerce" or (name, scheme) == (
        "polar",
        "default",
    ):  # the headers of Standard Webhooks, with the key as text
        secret = TEXT
    assert key_of(scheme_of(name, scheme), secret) == (RAW if is_decoded else secret)


@pytest.mark.parametrize("name", ["zendesk", "xero", "docusign", "square", "pagerduty"])
def test_t02_what_looks_like_base64_is_used_as_it_is(name):
    assert key_of(scheme_of(name), TEXT) == TEXT


@pytest.mark.parametrize("name", ["airtable", "ripple"])
def test_t02_what_is_base64_is_decoded(name):
    assert key_of(scheme_of(name), TEXT) == RAW


def test_t02_adyens_key_is_hex_of_either_case():
    case = case_of("adyen", "default")
    request = case.request(signs=b"0a0b" * 16)
    for secret in (b"0a0b" * 16, b"0A0B" * 16):
        assert case.verifier(secret).verify(request, NOW_S) == 0
    assert key_of(scheme_of("adyen", "platform_header"), b"0A0b") == b"\x0a\x0b"


def test_t03_braintrees_key_is_a_digest_of_the_private_key():
    payload = base64.b64encode(b"<notification/>") + b"\n"
    signature = hmac.digest(hashlib.sha1(b"private").digest(), payload, "sha1").hex()
    body = urlencode({"bt_signature": f"public|{signature}", "bt_payload": payload}).encode()
    headers = {"content-type": "application/x-www-form-urlencoded"}
    assert verify("braintree", headers, body, b"public:private") == 0
    fails("braintree", headers, body, secret=b"public:privatf")


def test_t03_easyposts_secret_is_normalised():
    secret = "s\u00e9cret"
    signature = hex_of(BODY, unicodedata.normalize("NFKD", secret).encode())
    headers = {"X-Hmac-Signature": f"hmac-sha256-hex={signature}"}
    for form in ("NFC", "NFD", "NFKD"):
        assert verify("easypost", headers, secret=unicodedata.normalize(form, secret).encode()) == 0


@pytest.mark.parametrize("name", catalogue.names())
def test_t04_no_secret_is_empty(name):
    for scheme in catalogue.load(name).schemes.values():
        with pytest.raises(ConfigError):
            verifier_of(
                scheme, [scheme.key_prefix.encode()], URL, dict.fromkeys(scheme.settings, "a")
            )


@pytest.mark.parametrize("secret", [" key of some length", "key of some length ", "'key of some length'",
                                    '"key of some length"', "\tkey of some length"])  # fmt: skip
def test_t04_nothing_is_stripped_silently(secret, tmp_path):
    headers = {"X-DocuSign-Signature-1": b64_of(BODY, secret.encode())}
    assert verify("docusign", headers, secret=secret.encode()) == 0
    fails("docusign", headers, secret=secret.strip(" \t\"'").encode())
    text = f"secrets = [{json.dumps('plain:' + secret)}]"
    assert "white space or quotes" in doubts(tmp_path, text)
    assert "white space or quotes" not in doubts(tmp_path, 'secrets = ["plain:key of some length"]')


def doubts(folder, text, provider="docusign"):
    (folder / "fasthook.toml").write_text(
        f'[[endpoint]]\nname = "a"\npath = "/a"\nprovider = "{provider}"\nhandlers = ["log"]\n{text}\n'
    )
    return "\n".join(plan.make(config.load(folder / "fasthook.toml")).warnings)


# --- which header, which encoding -----------------------------------------------------------------

SAME_HEADER = {
    "Webhook-Signature": {
        ("gocardless", "default"): hex_of(BODY),
        ("storyblok", "default"): hex_of(BODY, name="sha1"),
        ("cloudflare-stream", "default"): f"time={NOW_S},sig1="
        + hex_of(f"{NOW_S}.".encode() + BODY),
        ("standard-webhooks", "default"): "v1," + b64_of(f"m.{NOW_S}.".encode() + BODY),
    },
    "X-Hub-Signature": {
        ("github", "sha1"): "sha1=" + hex_of(BODY, name="sha1"),
        ("jira", "default"): "sha256=" + hex_of(BODY),
    },
    "X-Signature": {
        ("lemonsqueezy", "default"): hex_of(BODY),
        ("airwallex", "default"): hex_of(f"{MS}".encode() + BODY),
    },
}


@pytest.mark.parametrize("header", SAME_HEADER)
def test_t05_the_endpoint_says_who_sends_and_no_header_does(header):
    rest = {"webhook-id": "m", "webhook-timestamp": f"{NOW_S}", "x-timestamp": f"{MS}"}
    for sender, value in SAME_HEADER[header].items():
        for name, scheme in SAME_HEADER[header]:
            secret = b"whsec_" + TEXT if name == "standard-webhooks" else RAW
            headers = {**rest, header: value, "X-GitHub-Event": "push"}
            if (name, scheme) == sender:
                assert verify(name, headers, secret=secret, scheme=scheme) == 0
            else:
                fails(name, headers, secret=secret, scheme=scheme)


@pytest.mark.parametrize(
    ("name", "header", "is_hex"),
    [("github", "X-Hub-Signature-256", True), ("meta", "X-Hub-Signature-256", True),
     ("notion", "X-Notion-Signature", True), ("x", "x-twitter-webhooks-signature", False),
     ("typeform", "Typeform-Signature", False)],
)  # fmt: skip
def test_t06_after_one_prefix_some_write_hex_and_some_base64(name, header, is_hex):
    right, wrong = (hex_of(BODY), b64_of(BODY)) if is_hex else (b64_of(BODY), hex_of(BODY))
    assert verify(name, {header: f"sha256={right}"}) == 0
    fails(name, {header: f"sha256={wrong}"})


def test_t07_sanitys_signature_has_one_last_letter():
    signature = base64.urlsafe_b64encode(mac(f"{MS}.".encode() + BODY)).decode().rstrip("=")
    assert verify("sanity", {"sanity-webhook-signature": f"t={MS},v1={signature}"}) == 0
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = letters.index(signature[-1])
    same = [
        letter
        for letter in letters
        if letters.index(letter) >> 2 == last >> 2 and letter != signature[-1]
    ]
    for letter in same:
        other = signature[:-1] + letter
        assert base64.urlsafe_b64decode(other + "=") == base64.urlsafe_b64decode(signature + "=")
        fails("sanity", {"sanity-webhook-signature": f"t={MS},v1={other}"})


PLAIN = [
    (
        "recharge",
        "default",
        "X-Recharge-Hmac-Sha256",
        lambda: hashlib.sha256(RAW + BODY).hexdigest(),
    ),
    ("hubspot", "v1", "X-HubSpot-Signature", lambda: hashlib.sha256(RAW + BODY).hexdigest()),
    ("sellsy", "default", "X-Webhook-Signature", lambda: hashlib.sha1(RAW + BODY).hexdigest()),
    ("nango", "legacy_digest", "X-Nango-Signature", lambda: hashlib.sha256(RAW + BODY).hexdigest()),
]


@pytest.mark.parametrize(("name", "scheme", "header", "made"), PLAIN, ids=[row[0] for row in PLAIN])
def test_t08_what_is_called_hmac_may_be_a_plain_digest(name, scheme, header, made):
    header = scheme_of(name, scheme).headers[0]
    assert scheme_of(name, scheme).kind == "digest"
    assert verify(name, {header: made()}, scheme=scheme) == 0
    fails(name, {header: hex_of(BODY)}, scheme=scheme)


def test_t08_vercel_signs_with_sha1():
    assert verify("vercel", {"x-vercel-signature": hex_of(BODY, name="sha1")}) == 0
    fails("vercel", {"x-vercel-signature": hex_of(BODY)})


@pytest.mark.parametrize(
    ("name", "header"), [("jira", "X-Hub-Signature"), ("bitbucket", "X-Hub-Signature")]
)
def test_t09_the_request_chooses_no_algorithm_that_is_not_allowed(name, header):
    assert verify(name, {header: "sha256=" + hex_of(BODY)}) == 0
    for weak in ("md5", "sha1"):
        if weak not in scheme_of(name).hashes:
            fails(name, {header: f"{weak}=" + hex_of(BODY, name=weak)})
    fails(name, {header: "none="})
    fails(name, {header: hex_of(BODY)})


@pytest.mark.parametrize("algorithm", ["", "SHA1withRSA", "none", "SHA256WITHRSA"])
def test_t09_paypals_algorithm_is_pinned(algorithm):
    case = case_of("paypal", "default")
    request = case.request()
    assert case.verifier().verify(request, NOW_S) == 0
    for header in ("paypal-auth-algo",):
        if header.encode() in request.headers and algorithm:
            changed = with_header(request, header, algorithm.encode())
            if request.headers[header.encode()] != algorithm.encode():
                with pytest.raises(NotGenuine):
                    case.verifier().verify(changed, NOW_S)


# --- several signatures, several keys -------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [("stripe", "t={t},v1={bad},v1={good}"), ("mux", "t={t},v1={bad},v1={good}"),
     ("tailscale", "t={t},v1={bad},v1={good}"), ("pagerduty", "v1={bad},v1={plain}"),
     ("paddle", "ts={t};h1={bad};h1={paddle}"), ("standard-webhooks", "v1,AAAA v1,{standard}"),
     ("persona", "t=1,v1={bad} t={t},v1={good}")],
)  # fmt: skip
def test_t10_of_several_signatures_any_is_enough(name, value):
    fields = {
        "t": NOW_S, "bad": "0" * 64, "good": hex_of(f"{NOW_S}.".encode() + BODY), "plain": hex_of(BODY),
        "paddle": hex_of(f"{NOW_S}:".encode() + BODY), "standard": b64_of(f"m.{NOW_S}.".encode() + BODY),
    }  # fmt: skip
    header = scheme_of(name).headers[0]
    headers = {"webhook-id": "m", "webhook-timestamp": f"{NOW_S}"}
    secret = TEXT if name == "standard-webhooks" else RAW
    assert verify(name, {**headers, header: value.format_map(fields)}, secret=secret) == 0
    wrong = dict.fromkeys(fields, "0" * 64) | {"t": NOW_S}
    fails(name, {**headers, header: value.format_map(wrong)}, secret=secret)


@pytest.mark.parametrize(
    ("name", "headers", "body"),
    [("box", ["box-signature-primary", "box-signature-secondary"], BODY + ISO.encode()),
     ("docusign", ["X-DocuSign-Signature-1", "X-DocuSign-Signature-2"], BODY)],
)  # fmt: skip
def test_t10_a_signature_in_any_of_several_headers_is_enough(name, headers, body):
    more = {"box-delivery-timestamp": ISO, "box-signature-version": "1",
            "box-signature-algorithm": "HmacSHA256"}  # fmt: skip
    for right in headers:
        sent = {header: b64_of(body) if header == right else "A" * 43 + "=" for header in headers}
        assert verify(name, {**more, **sent}) == 0
    fails(name, {**more, **dict.fromkeys(headers, "A" * 43 + "=")})


def test_t10_mollie_sends_one_header_twice_during_a_rotation():
    values = [f"sha256={'0' * 64}".encode(), f"sha256={hex_of(BODY)}".encode()]
    for several in (values, values[::-1]):
        request = request_of(BODY, {"X-Mollie-Signature": several[0]})
        request.repeated = {b"x-mollie-signature": several}
        assert verifier_of(scheme_of("mollie"), [RAW]).verify(request, NOW_S) == 0
    assert b"x-mollie-signature" not in catalogue.security_headers()


def test_t11_unknown_versions_are_skipped():
    good = hex_of(f"{NOW_S}.".encode() + BODY)
    for value in (
        f"t={NOW_S},v0=x,v1={good}",
        f"t={NOW_S},v1={good},v9=",
        f"v2=y,t={NOW_S},v1={good}",
    ):
        assert verify("stripe", {"Stripe-Signature": value}) == 0
    fails("stripe", {"Stripe-Signature": f"t={NOW_S},v0={good}"})
    headers = {"webhook-id": "m", "webhook-timestamp": f"{NOW_S}"}
    standard = b64_of(f"m.{NOW_S}.".encode() + BODY)
    value = {"webhook-signature": f"v1a,{standard} v1,{standard}"}
    assert verify("standard-webhooks", headers | value, secret=TEXT) == 0
    fails("standard-webhooks", headers | {"webhook-signature": f"v1a,{standard}"}, secret=TEXT)


def test_t12_a_list_is_read_in_any_order_and_split_at_the_first_equals_sign():
    good = hex_of(f"{NOW_S}.".encode() + BODY)
    for value in (f"v1={good},t={NOW_S}", f"t={NOW_S}, v1={good}", f"t={NOW_S},  v1={good}"):
        assert verify("stripe", {"Stripe-Signature": value}) == 0
    padded = b64_of(f"{NOW_S},".encode() + BODY)
    assert padded.endswith("=")
    for value in (f"v1={padded},t={NOW_S}", f"t={NOW_S},v1={padded}"):
        headers = {"X-Convoy-Signature": value}
        assert verify("convoy", headers, scheme="advanced_sha256_base64") == 0
    for value in (f"t={NOW_S},t={NOW_S},v1={good}", f"t=1,v1={good},t={NOW_S}"):
        with pytest.raises(NoSignature):
            verify("stripe", {"Stripe-Signature": value})


# --- timestamps -----------------------------------------------------------------------------------

UNITS = {
    "s": ["stripe", "slack", "paddle", "calendly", "standard-webhooks", "discord", "sendgrid"],
    "ms": ["hubspot", "workos", "front", "webflow", "airwallex", "sanity", "ripple", "linear"],
    "iso8601": ["twitch", "box", "zendesk"],
    "http-date": ["klaviyo"],
}


@pytest.mark.parametrize(("unit", "name"), [(u, n) for u, names in UNITS.items() for n in names])
def test_t13_times_have_the_senders_unit(unit, name):
    if name in ("discord", "sanity"):  # they sign a time, and nobody asks for its age
        assert not scheme_of(name).timestamp
        return
    assert scheme_of(name).timestamp_unit == unit


@pytest.mark.parametrize("stamp", [ISO, "2026-01-01T00:00:00.123456789Z", "2026-01-01T01:00:00.5+01:00",
                                   "2025-12-31T16:00:00-08:00"])  # fmt: skip
def test_t13_times_are_signed_as_they_were_written(stamp):
    twitch = {
        "Twitch-Eventsub-Message-Id": "m",
        "Twitch-Eventsub-Message-Timestamp": stamp,
        "Twitch-Eventsub-Message-Signature": "sha256=" + hex_of(f"m{stamp}".encode() + BODY),
    }
    assert verify("twitch", twitch) == 0
    fails("twitch", {**twitch, "Twitch-Eventsub-Message-Timestamp": "2026-01-01T00:00:00.000Z"})


@pytest.mark.parametrize(
    "text", ["Infinity", "nan", "1e9", "+1767225600", "9" * 400, "1767225600.0"]
)
def test_t13_what_is_no_time_is_refused_though_it_is_signed(text):
    fails("convoy", {"X-Convoy-Signature": f"t={text},v1=" + hex_of(f"{text},".encode() + BODY)},
          scheme="advanced_sha256_hex")  # fmt: skip
    fails("hook0", {"X-Hook0-Signature": f"t={text},v0=" + hex_of(f"{text}.".encode() + BODY)},
          scheme="v0")  # fmt: skip


ORDERS = [
    ("stripe", "t={t},v1={hex}", "{t}.{body}", {}),
    ("paddle", "ts={t};h1={hex}", "{t}:{body}", {}),
    ("grafana", "{hex}", "{t}:{body}", {"X-Grafana-Alerting-Timestamp": "{t}"}),
    ("webflow", "{hex}", "{ms}:{body}", {"x-webflow-timestamp": "{ms}"}),
    ("front", "{b64}", "{ms}:{body}", {"X-Front-Request-Timestamp": "{ms}"}),
    ("zendesk", "{b64}", "{iso}{body}", {"X-Zendesk-Webhook-Signature-Timestamp": "{iso}"}),
    ("airwallex", "{hex}", "{ms}{body}", {"x-timestamp": "{ms}"}),
    ("klaviyo", "{hex}", "{body}{date}", {"Klaviyo-Timestamp": "{date}", "Klaviyo-Webhook-Id": "w"}),
    ("sinch", "{b64}", "{body}.n.{t}",
     {"x-sinch-webhook-signature-timestamp": "{t}", "x-sinch-webhook-signature-nonce": "n"}),
    ("slack", "v0={hex}", "v0:{t}:{body}", {"X-Slack-Request-Timestamp": "{t}"}),
    ("zoom", "v0={hex}", "v0:{t}:{body}", {"x-zm-request-timestamp": "{t}"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "message", "more"), ORDERS, ids=[row[0] for row in ORDERS]
)
def test_t14_time_and_body_are_joined_in_the_senders_order(name, value, message, more):
    fields = {"t": NOW_S, "ms": MS, "iso": ISO, "date": HTTP_DATE, "body": BODY.decode()}
    orders = {message, "{t}.{body}", "{t}{body}", "{body}{t}", "{body}"}
    for order in orders:
        signed = order.format_map(fields)
        made = fields | {"hex": hex_of(signed), "b64": b64_of(signed)}
        headers = {header: text.format_map(made) for header, text in more.items()}
        headers[scheme_of(name).headers[0]] = value.format_map(made)
        if order == message:
            assert verify(name, headers) == 0
        else:
            fails(name, headers)


@pytest.mark.parametrize(
    ("name", "tolerance_s"),
    [("stripe", 300), ("slack", 300), ("calendly", 180), ("workos", 180), ("paddle", 5),
     ("contentful", 30), ("box", 600), ("twitch", 600), ("elevenlabs", 1800), ("cloudinary", 7200)],
)  # fmt: skip
def test_t15_an_events_age_is_the_senders_own(name, tolerance_s):
    assert scheme_of(name).tolerance == tolerance_s


def test_t15_age_is_measured_when_it_arrives_and_never_again():
    case = case_of("stripe", "default")
    request = copy_of(case.request(), head=b"POST /hook HTTP/1.1\r\n\r\n")
    receiver = receiver_of(case.endpoint())
    delivery = receiver.receive(request, "", 0.0, int(NOW_S * 1e9))
    receiver.restore(delivery)  # whenever that is: what was stored is asked for no signature
    assert delivery.payloads


@pytest.mark.parametrize("name", ["sentry", "shopify", "github"])
def test_t16_a_time_that_is_not_signed_is_not_looked_at(name):
    assert not scheme_of(name).timestamp
    request = case_of(name, "default").request()
    for header in ("x-shopify-triggered-at", "sentry-hook-timestamp", "date"):
        changed = with_header(request, header, b"1970-01-01T00:00:00Z")
        assert case_of(name, "default").verifier().verify(changed, NOW_S) == 0


# --- bodies ---------------------------------------------------------------------------------------

RAW_BODIES = [
    ("github", b'{"a":"\\u00E9"}'), ("meta", b'{"a":"\\u00e9\\/"}'), ("box", b'{"a":"\\u00e9\\/"}'),
    ("easypost", b'{"weight":614.40}'), ("plaid", b'{\n  "webhook_type": "ITEM"\n}'),
    ("sendgrid", b'[{"event":"a"},\r\n{"event":"b"}]\r\n'), ("notion", b'{"type":"t"}'),
    ("xero", b'{"events": [ ] ,"entropy":"X"}'), ("shopify", b'"a \\"string\\""'),
    ("razorpay", b"not even JSON"), ("tally", b'{"eventId": 1.0}'), ("typeform", b"{ }\n"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "body"), RAW_BODIES, ids=[row[0] for row in RAW_BODIES])
def test_t17_the_bytes_are_signed_and_nothing_that_they_mean(name, body):
    case = case_of(name, "default")
    request = case.request(body)
    assert case.verifier().verify(request, NOW_S) == 0
    others = [body.strip() + b" ", body.rstrip() if body != body.rstrip() else body + b"\n"]
    try:
        others.append(json.dumps(json.loads(body)).encode())
        others.append(
            json.dumps(json.loads(body), ensure_ascii=False, separators=(",", ":")).encode()
        )
    except ValueError:
        pass
    for other in others:
        if other != body:
            with pytest.raises(NotGenuine):
                case.verifier().verify(copy_of(request, body=other), NOW_S)


def test_t18_nylas_signs_what_is_packed():
    packed = gzip.compress(BODY, mtime=0)
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    right = {**headers, "X-Nylas-Signature": hex_of(packed)}
    assert receive(endpoint_of("nylas", [RAW]), request_of(packed, right)).payloads is not None
    wrong = request_of(packed, {**headers, "X-Nylas-Signature": hex_of(BODY)})
    assert refusal(endpoint_of("nylas", [RAW]), wrong).status == 401


FORM_TYPE = {"content-type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize(
    ("name", "header", "made"),
    [("github", "X-Hub-Signature-256", lambda body: "sha256=" + hex_of(body)),
     ("slack", "X-Slack-Signature", lambda body: "v0=" + hex_of(f"v0:{NOW_S}:".encode() + body))],
)  # fmt: skip
def test_t19_some_sign_the_raw_form(name, header, made):
    body = urlencode({"payload": BODY}).encode()
    more = {**FORM_TYPE, "X-Slack-Request-Timestamp": f"{NOW_S}"}
    assert (
        receive(endpoint_of(name, [RAW]), request_of(body, {**more, header: made(body)})).kind
        == "event"
    )
    decoded = request_of(body, {**more, header: made(BODY)})
    assert refusal(endpoint_of(name, [RAW]), decoded).status == 401


def test_t19_mandrill_signs_url_and_sorted_fields():
    fields = {"b": "2", "mandrill_events": "[]", "a": "1 +"}
    message = URL + "".join(name + fields[name] for name in sorted(fields))
    headers = {**FORM_TYPE, "X-Mandrill-Signature": b64_of(message, name="sha1")}
    for order in (fields, dict(reversed(fields.items()))):
        assert verify("mandrill", headers, urlencode(order).encode()) == 0
    fails("mandrill", headers, urlencode(fields | {"a": "2"}).encode())


def test_t19_twilio_signs_url_and_sorted_fields_and_each_pair_once():
    body = urlencode([("b", "2"), ("a", "1"), ("a", "1"), ("a", "0")]).encode()
    headers = {**FORM_TYPE, "X-Twilio-Signature": b64_of(URL + "a0a1b2", name="sha1")}
    assert verify("twilio", headers, body) == 0
    twice = {**FORM_TYPE, "X-Twilio-Signature": b64_of(URL + "a0a1a1b2", name="sha1")}
    fails("twilio", twice, body)


@pytest.mark.parametrize("name", ["mailgun", "adyen", "dropbox-sign", "aws-sns", "msgraph", "segment",
                                  "okta", "auth0", "google-pubsub", "gitlab", "azure-devops", "telegram"])  # fmt: skip
def test_t20_where_the_body_is_not_all_signed_it_is_said_and_the_whole_is_the_id(name, tmp_path):
    provider = catalogue.load(name)
    assert not scheme_of(name, provider.default_scheme).covers_body
    case = case_of(name, provider.default_scheme)
    endpoint = case.endpoint()
    assert not endpoint.is_id_signed  # so that the whole body makes a duplicate
    secret = json.dumps(f"plain:{case.verifies.decode()}")
    settings = ", ".join(f"{key} = {json.dumps(value)}" for key, value in case.settings.items())
    said = doubts(tmp_path, f"secrets = [{secret}]\nconfig = {{ {settings} }}", name)
    assert "the signature does not cover the whole body" in said


def test_t21_an_empty_body_is_an_event_of_sentry():
    headers = {"Sentry-Hook-Signature": hex_of(b""), "Content-Type": "application/json",
               "Sentry-Hook-Resource": "issue", "Request-ID": "r"}  # fmt: skip
    assert receive(endpoint_of("sentry", [RAW]), request_of(b"", headers)).kind == "event"
    fails("sentry", {**headers, "Sentry-Hook-Signature": ""}, b"")


# --- URLs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "scheme"),
    [("square", "default"), ("twilio", "default"), ("plivo", "default"), ("trello", "default"),
     ("mandrill", "default"), ("hubspot", "v2"), ("hubspot", "default"), ("messagebird", "default"),
     ("contentful", "default")],
)  # fmt: skip
def test_t22_the_configured_url_is_signed_whatever_the_proxy_says(name, scheme):
    case = case_of(name, scheme)
    request = case.request()
    assert scheme_of(name, scheme).needs_url or name == "contentful"
    assert case.verifier().verify(request, NOW_S) == 0
    for header, value in {"host": b"evil.example", "x-forwarded-host": b"evil.example",
                          "x-forwarded-proto": b"http", "forwarded": b"host=evil.example"}.items():  # fmt: skip
        assert case.verifier().verify(with_header(request, header, value), NOW_S) == 0
    elsewhere = verifier_of(
        case.scheme, [case.verifies], "https://hooks.example.com/else", case.settings
    )
    with pytest.raises(NotGenuine):
        elsewhere.verify(request, NOW_S)


@pytest.mark.parametrize("signed", ["https://a.example/x", "https://a.example:443/x"])
@pytest.mark.parametrize("configured", ["https://a.example/x", "https://a.example:443/x"])
def test_t22_twilio_signs_with_the_port_or_without(signed, configured):
    headers = {**FORM_TYPE, "X-Twilio-Signature": b64_of(signed + "a1", name="sha1")}
    assert verify("twilio", headers, b"a=1", url=configured) == 0
    fails("twilio", headers, b"a=1", url="https://a.example/y")


@pytest.mark.parametrize("name", ["mandrill", "twilio"])
def test_t22_what_stands_before_the_host_is_signed_too(name):
    url = "https://user:pass@a.example/x"
    header = scheme_of(name).headers[0]
    headers = {**FORM_TYPE, header: b64_of(url + "a1", name="sha1")}
    assert verify(name, headers, b"a=1", url=url) == 0
    fails(name, headers, b"a=1", url="https://a.example/x")


# --- keys by reference, tokens --------------------------------------------------------------------


def test_t23_no_other_topic_of_sns_is_taken():
    case = case_of("aws-sns", "default")
    settings = {"topic_arn": "arn:aws:sns:us-east-1:1:other"}
    verifier = verifier_of(case.scheme, [case.verifies], URL, settings)
    with pytest.raises(NotGenuine):
        verifier.verify(case.request(), NOW_S)


def test_t23_paypals_address_of_a_certificate_is_not_followed(monkeypatch):
    import socket

    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a connection"))
    case = case_of("paypal", "default")
    for url in (
        b"https://evil.example/cert",
        b"http://api.paypal.com/cert",
        b"https://a.paypal.com.evil/",
    ):
        request = with_header(
            case.request(signs=case_of("kick", "default").signs), "paypal-cert-url", url
        )
        other = verifier_of(case.scheme, [case.other], URL, case.settings)
        with pytest.raises(NotGenuine):
            other.verify(request, NOW_S)


@pytest.mark.parametrize(
    "name", ["plaid", "messagebird", "vonage", "fusionauth", "livekit", "netlify"]
)
def test_t24_a_token_is_about_one_body(name):
    case = case_of(name, "default")
    request = case.request()
    assert case.verifier().verify(request, NOW_S) == 0
    with pytest.raises(NotGenuine):
        case.verifier().verify(copy_of(request, body=request.body + b" "), NOW_S)


def test_t24_a_token_is_young_and_for_us():
    plaid = case_of("plaid", "default")
    for late_s, passes in ((299, True), (301, False), (-301, False)):
        if passes:
            assert plaid.verifier().verify(plaid.request(), NOW_S + late_s) == 0
        else:
            with pytest.raises(NotGenuine):
                plaid.verifier().verify(plaid.request(), NOW_S + late_s)
    pubsub = case_of("google-pubsub", "default")
    for other in ("audience", "service_account"):
        settings = pubsub.settings | {other: "another"}
        with pytest.raises(NotGenuine):
            verifier_of(pubsub.scheme, [pubsub.verifies], URL, settings).verify(
                pubsub.request(), NOW_S
            )


# --- handshakes -----------------------------------------------------------------------------------


def answer_of(name, target="/hook", headers=None, method="GET", body=b"", url="", **settings):
    """What the first handshake that applies answers; None: it is none."""
    request = request_of(body, headers or {}, target.encode(), method.encode())
    for handshake in catalogue.load(name).handshakes:
        greeting = Greeting(handshake, b"0" * 32, url, settings)
        if greeting.applies(request):
            return greeting.reply_to(request)
    return None


ECHOES = [
    ("dropbox", "/hook?challenge=a%2Bb", "a+b"), ("nylas", "/hook?challenge=abc", "abc"),
    ("websub", "/hook?hub.mode=subscribe&hub.topic=t&hub.challenge=abc", "abc"),
    ("meta", "/hook?hub.mode=subscribe&hub.verify_token=v&hub.challenge=7", "7"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "target", "body"), ECHOES, ids=[row[0] for row in ECHOES])
def test_t25_a_challenge_is_echoed_as_plain_text(name, target, body):
    reply = answer_of(name, target, topics="t", verify_token="v")
    assert (reply.content_type.partition(";")[0], reply.body) == ("text/plain", body)
    long = target.replace(body, "x" * 5000) if body in target else f"/hook?challenge={'x' * 5000}"
    with pytest.raises(Rejection):
        answer_of(name, long, topics="t", verify_token="v")
    assert answer_of("github", target) is None  # on endpoints of that sender alone


def test_t25_microsoft_wants_it_decoded_and_others_as_json():
    token = "Validation: a+b&<c>"
    reply = answer_of("msgraph", f"/hook?validationToken={quote(token)}", method="POST")
    assert (reply.content_type.partition(";")[0], reply.body) == ("text/plain", token)
    okta = answer_of("okta", headers={"x-okta-verification-challenge": "v"})
    assert json.loads(okta.body) == {"verification": "v"}
    strava = answer_of(
        "strava", "/hook?hub.mode=subscribe&hub.verify_token=v&hub.challenge=c", verify_token="v"
    )
    assert json.loads(strava.body) == {"hub.challenge": "c"}


@pytest.mark.parametrize("value", ["%3Cscript%3E", "abc", "g" * 24, "a" * 33, "A" * 24])
def test_t25_braintrees_challenge_is_hex_of_some_length(value):
    with pytest.raises(Rejection):
        answer_of("braintree", f"/hook?bt_challenge={value}")


@pytest.mark.parametrize(
    ("name", "headers", "body"),
    [("asana", {"X-Hook-Secret": "s" * 32}, b""),
     ("notion", {"Content-Type": "application/json"},
      b'{"verification_token":"secret_tMrlL1qK5vuQAh1b6cZGhFChZTSYJlce98V0pYn7yBl"}')],
)  # fmt: skip
def test_t26_a_secret_is_taken_only_while_one_is_waited_for(name, headers, body):
    """Where it is: tests/test_pairing.py."""
    rejection = refusal(endpoint_of(name, [RAW]), request_of(body, headers))
    assert rejection.status == 401
    assert "is handed over" in str(rejection)
    assert rejection.is_withheld


@pytest.mark.parametrize(
    ("name", "method"),
    [("trello", "HEAD"), ("mandrill", "HEAD"), ("unisender-go", "GET"), ("intercom", "HEAD")],
)
def test_t27_an_unsigned_probe_is_answered_and_is_no_event(name, method):
    scheme = scheme_of(name)
    key = case_of(name, "default").verifies if scheme.kind == "code" else RAW
    delivery = receive(
        endpoint_of(name, [key], url=URL), request_of(b"", {}, method=method.encode())
    )
    assert delivery.kind not in ("event", "ignored")
    assert delivery.reply is None or delivery.reply.status < 300


def test_t27_woocommerces_ping_is_a_form_without_a_signature():
    ping = request_of(b"webhook_id=7", FORM_TYPE)
    assert receive(endpoint_of("woocommerce", [RAW]), ping).kind == "ping"
    body = b'{"note":"&webhook_id=7&"}'  # what a customer may write is no ping
    headers = {"content-type": "application/json", "X-WC-Webhook-Signature": b64_of(body)}
    assert receive(endpoint_of("woocommerce", [RAW]), request_of(body, headers)).kind == "event"


@pytest.mark.parametrize("name", ["discord", "xero", "shopify"])
def test_t28_a_probe_with_a_wrong_signature_gets_401(name):
    case = case_of(name, "default")
    forged = case.with_text(case.request(), b"0" * len(case.text(case.request())))
    assert refusal(case.endpoint(), forged).status == 401


@pytest.mark.parametrize(
    ("name", "what", "value"),
    [("adyen", "answer", "[accepted]"), ("dropbox-sign", "answer", "Hello API Event Received"),
     ("xero", "answer", ""), ("xero", "status", 200), ("mailgun", "refusal_status", 406),
     ("gocardless", "refusal_status", 498), ("ebay", "refusal_status", 412),
     ("xero", "is_refusal_bare", True)],
)  # fmt: skip
def test_t29_answers_are_the_senders_own(name, what, value):
    assert getattr(catalogue.load(name), what) == value


def test_t29_event_grid_wants_200_for_its_validation():
    body = json.dumps([{"eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
                        "data": {"validationCode": "c"}}]).encode()  # fmt: skip
    headers = {"aeg-event-type": "SubscriptionValidation", "content-type": "application/json"}
    reply = answer_of("azure-event-grid", headers=headers, method="POST", body=body)
    assert (reply.status, json.loads(reply.body)) == (200, {"validationResponse": "c"})


@pytest.mark.parametrize(
    ("name", "deadline_s"),
    [("sentry", 1), ("line", 2), ("slack", 3), ("zoom", 3), ("discord", 3), ("shopify", 5), ("xero", 5),
     ("mux", 5), ("github", 10), ("msgraph", 3), ("gitlab", 10)],
)  # fmt: skip
def test_t30_how_long_a_sender_waits_is_known(name, deadline_s):
    """Nothing but storing comes before the answer: tests/system/test_life.py."""
    assert catalogue.load(name).deadline_s == deadline_s


@pytest.mark.parametrize(
    ("name", "selector"),
    [("linear", "header:Linear-Delivery"), ("typeform", "json:event_id"),
     ("github", "header:X-GitHub-Delivery"), ("stripe", "json:id")],
)  # fmt: skip
def test_t31_events_are_named_as_their_sender_does(name, selector):
    found = catalogue.load(name).event_id_of(scheme_of(name))
    assert selector.lower() in [text.lower() for text in found]


@pytest.mark.parametrize("name", ["sendgrid", "calcom", "webflow", "storyblok"])
def test_t31_where_there_is_no_id_equal_bodies_are_one_event(name):
    case = case_of(name, "default")
    first, again = (receive(case.endpoint(), case.request(b'{"n":1}')).event_id for _ in range(2))
    other = receive(case.endpoint(), case.request(b'{"n":2}')).event_id
    assert first == again != other


def test_t31_githubs_id_is_not_signed_so_that_it_alone_makes_no_duplicate():
    assert not case_of("github", "default").endpoint().is_id_signed
    assert not catalogue.load("github").signs_event_id(scheme_of("github"))
    assert catalogue.load("standard-webhooks").signs_event_id(scheme_of("standard-webhooks"))


def test_none_of_the_traps_is_missing():
    found = {int(name[6:8]) for name in globals() if re.match(r"test_t\d\d_", name)}
    assert found == set(range(1, 32))
