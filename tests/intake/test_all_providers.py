"""What holds for every provider of the catalogue; and the traps that their schemes are."""

import base64
import hashlib
import hmac
import json
from urllib.parse import urlencode

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from fasthook.errors import BadSignature, NotGenuine, StaleTimestamp
from fasthook.intake import catalogue
from fasthook.intake.schemes import BARE
from fasthook.intake.signatures import Unsigned, verifier_of
from fasthook.intake.signing import place, sample_secret, sign
from fasthook.intake.templates import Selector, Template
from tests.intake.support import NOW_S, copy_of, endpoint_of, receive, refusal, request_of

URL = "https://hooks.example.com/hook"
PAIRS = {
    seed: {
        "rsa": rsa.generate_private_key(65537, 2048),
        "ecdsa": ec.generate_private_key(ec.SECP256R1()),
        "ed25519": ed25519.Ed25519PrivateKey.from_private_bytes(hashlib.sha256(seed).digest()),
    }
    for seed in (b"all", b"other")
}
PEM = serialization.Encoding.PEM
SPKI = serialization.PublicFormat.SubjectPublicKeyInfo


def schemes():
    for name in catalogue.names():
        for scheme_name, scheme in catalogue.load(name).schemes.items():
            if scheme.kind != "code" and scheme.key_encoding != "certificate":
                yield pytest.param(name, scheme_name, id=f"{name}-{scheme_name}")


def keys_of(scheme, seed=b"all"):
    """What signs, and what verifies it."""
    kind = scheme.kind
    if scheme.claims is not None and not scheme.claims.algorithms[0].startswith("HS"):
        kind = "ecdsa" if scheme.claims.algorithms[0] == "ES256" else "rsa"
    if kind not in PAIRS[seed]:
        secret = sample_secret(scheme, seed).encode()
        return secret, secret
    private = PAIRS[seed][kind]
    signs = private.private_bytes(
        PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    if kind == "ed25519":
        raw = private.public_key().public_bytes_raw()
        public = raw.hex().encode() if scheme.key_encoding == "hex" else base64.b64encode(raw)
        return signs, scheme.key_prefix.encode() + public
    if scheme.key_encoding == "der":
        der = private.public_key().public_bytes(serialization.Encoding.DER, SPKI)
        return signs, base64.b64encode(der)
    return signs, private.public_key().public_bytes(PEM, SPKI)


def request_for(scheme, body=b'{"id":"evt_1","n":1}'):
    request = request_of(body, {"content-type": "application/json"})
    if scheme.kind not in (*BARE, "jwt"):
        for selector in Template(scheme.message).selectors:
            if selector.kind != "signature" and selector.read(request) is None:
                place(request, selector, b"given")
    return request


def settings_of(scheme):
    return dict.fromkeys(scheme.settings, "a-setting")


@pytest.mark.parametrize(("name", "scheme_name"), list(schemes()))
def test_what_is_signed_is_genuine_and_what_is_changed_is_not(name, scheme_name):
    scheme = catalogue.load(name).schemes[scheme_name]
    signs, verifies = keys_of(scheme)
    request = request_for(scheme)
    settings = settings_of(scheme)
    sign(scheme, signs, request, NOW_S, URL, settings)
    verifier = verifier_of(scheme, [verifies], URL, settings)

    assert verifier.verify(request, NOW_S) == 0
    if scheme.covers_body and not scheme.signature:
        with pytest.raises(NotGenuine):
            verifier.verify(copy_of(request, body=request.body + b" "), NOW_S)
    selector = Selector.parse(scheme.signature or f"header:{scheme.headers[0]}")
    value = selector.read(request)
    if selector.kind == "header":
        for place_ in range(0, len(value), 7):
            flipped = value[:place_] + bytes([value[place_] ^ 1]) + value[place_ + 1 :]
            changed = copy_of(request)
            changed.headers[selector.key] = flipped
            with pytest.raises(NotGenuine):
                verifier.verify(changed, NOW_S)
        del request.headers[selector.key]
        with pytest.raises(NotGenuine):
            verifier.verify(request, NOW_S)


@pytest.mark.parametrize(("name", "scheme_name"), list(schemes()))
def test_what_is_old_is_refused_where_the_time_is_signed(name, scheme_name):
    scheme = catalogue.load(name).schemes[scheme_name]
    if not scheme.timestamp:
        return
    signs, verifies = keys_of(scheme)
    request = request_for(scheme)
    sign(scheme, signs, request, NOW_S, URL)
    verifier = verifier_of(scheme, [verifies], URL)
    edge_s = scheme.tolerance - 1
    assert [verifier.verify(request, NOW_S + late) for late in (-edge_s, edge_s)] == [0, 0]
    for late in (-scheme.tolerance - 2, scheme.tolerance + 2):
        with pytest.raises(StaleTimestamp):
            verifier.verify(request, NOW_S + late)


@pytest.mark.parametrize("name", catalogue.names())
def test_a_table_says_what_an_operator_needs(name):
    provider = catalogue.load(name)
    assert provider.id == name
    assert provider.name
    assert provider.category
    assert 200 <= provider.status < 300
    assert next(iter(provider.schemes))
    for scheme in provider.schemes.values():
        scheme.check()


def test_it_is_the_largest_open_catalogue():
    assert len(catalogue.names()) >= 141


def test_schemes_that_do_not_sign_the_body_say_so():
    bare = {
        name
        for name in catalogue.names()
        if not catalogue.load(name).schemes[catalogue.load(name).default_scheme].covers_body
    }
    assert {"mailgun", "dropbox-sign", "okta", "telegram", "azure-devops", "google-pubsub"} <= bare
    assert not {"github", "stripe", "slack", "mandrill", "falai", "ripple", "plaid"} & bare


# --- traps ----------------------------------------------------------------------------------------

BODY = b'{"id":"evt_1","type":"t"}'
SECRET = b"whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef")


def hex_of(key, message, name="sha256"):
    return hmac.new(key, message, name).hexdigest()


def base64_of(key, message, name="sha256"):
    return base64.b64encode(hmac.new(key, message, name).digest()).decode()


def test_one_prefix_of_a_secret_means_three_things():
    message = b"msg_1.%d." % NOW_S + BODY
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(NOW_S)}
    decoded = base64_of(base64.b64decode(SECRET[6:]), message)
    as_it_is = base64_of(SECRET, message)
    for name, right, wrong in (
        ("openai", decoded, as_it_is),
        ("bigcommerce", as_it_is, decoded),
        ("polar", as_it_is, decoded),
    ):
        endpoint = endpoint_of(name, [SECRET])
        good = request_of(BODY, {**headers, "webhook-signature": f"v1,{right}"})
        bad = request_of(BODY, {**headers, "webhook-signature": f"v1,{wrong}"})
        assert receive(endpoint, good).secret_index == 0
        assert refusal(endpoint, bad).status == 401
    value = f"t={NOW_S},v1=" + hex_of(SECRET, b"%d." % NOW_S + BODY)
    for name, header in (("stripe", "Stripe-Signature"), ("fintoc", "Fintoc-Signature")):
        assert receive(endpoint_of(name, [SECRET]), request_of(BODY, {header: value}))


def test_one_header_has_four_meanings_and_the_endpoint_says_which():
    key = b"0123456789abcdef"
    stamp = b"%d" % NOW_S
    values = {
        "gocardless": hex_of(key, BODY),
        "storyblok": hex_of(key, BODY, "sha1"),
        "cloudflare-stream": f"time={NOW_S},sig1=" + hex_of(key, stamp + b"." + BODY),
    }
    for name in values:
        endpoint = endpoint_of(name, [key])
        for other, value in values.items():
            request = request_of(BODY, {"Webhook-Signature": value})
            if name == other:
                assert receive(endpoint, request).secret_index == 0
            else:
                assert isinstance(refusal(endpoint, request), NotGenuine)


def test_a_digest_is_no_hmac():
    key = b"secret-of-the-app"
    plain = hashlib.sha256(key + BODY).hexdigest()
    endpoint = endpoint_of("recharge", [key])
    assert receive(endpoint, request_of(BODY, {"X-Recharge-Hmac-Sha256": plain})).secret_index == 0
    keyed = request_of(BODY, {"X-Recharge-Hmac-Sha256": hex_of(key, BODY)})
    assert refusal(endpoint, keyed).status == 401


def test_after_one_prefix_some_write_hex_and_some_base64():
    key = b"0123456789abcdef"
    for name, header, right, wrong in (
        ("notion", "X-Notion-Signature", hex_of(key, BODY), base64_of(key, BODY)),
        ("typeform", "Typeform-Signature", base64_of(key, BODY), hex_of(key, BODY)),
    ):
        endpoint = endpoint_of(name, [key])
        assert receive(endpoint, request_of(BODY, {header: "sha256=" + right})).secret_index == 0
        assert refusal(endpoint, request_of(BODY, {header: "sha256=" + wrong})).status == 401


def test_a_header_that_comes_twice_during_a_rotation_is_no_reason_to_refuse():
    key = b"0123456789abcdef"
    values = [b"sha256=" + hex_of(k, BODY).encode() for k in (b"the new one", key)]
    request = request_of(BODY, {"X-Mollie-Signature": b", ".join(values)})
    request.repeated = {b"x-mollie-signature": values}
    endpoint = endpoint_of("mollie", [key])
    assert receive(endpoint, request).secret_index == 0
    assert b"x-mollie-signature" not in endpoint.security_headers

    request.repeated = {b"x-mollie-signature": [values[0], values[0]]}
    assert refusal(endpoint, request).status == 401


def test_the_method_of_a_signature_is_one_that_is_allowed():
    key = b"0123456789abcdef"
    for name, method, is_allowed in (
        ("jira", "sha256", True), ("jira", "sha512", True), ("jira", "sha1", False),
        ("jira", "md5", False), ("jira", "SHA256", False), ("websub", "sha1", True),
    ):  # fmt: skip
        endpoint = endpoint_of(name, [key])
        value = f"{method}={hex_of(key, BODY, method.lower())}"
        request = request_of(BODY, {"X-Hub-Signature": value})
        if is_allowed:
            assert receive(endpoint, request).secret_index == 0
        else:
            assert refusal(endpoint, request).status == 401


def test_groups_of_a_header_have_times_of_their_own():
    key = b"0123456789abcdef"

    def group(secret, now):
        return f"t={now},v1=" + hex_of(secret, b"%d." % now + BODY)

    endpoint = endpoint_of("persona", [key])
    both = f"{group(b'another', NOW_S - 5)} {group(key, NOW_S)}"
    assert receive(endpoint, request_of(BODY, {"Persona-Signature": both})).secret_index == 0
    mixed = f"t={NOW_S},v1={'0' * 64} {group(key, NOW_S - 900)}"
    assert refusal(endpoint, request_of(BODY, {"Persona-Signature": mixed})).status == 401


def token(claims, key, algorithm="HS256"):
    def encoded(part):
        text = json.dumps(part).encode() if isinstance(part, dict) else part
        return base64.urlsafe_b64encode(text).rstrip(b"=")

    signed = encoded({"alg": algorithm, "typ": "JWT"}) + b"." + encoded(claims)
    return signed + b"." + encoded(hmac.digest(key, signed, "sha256"))


def test_a_token_does_not_choose_its_algorithm():
    body_hash = hashlib.sha256(BODY).hexdigest()
    claims = {"request_body_sha256": body_hash, "iat": NOW_S}
    public = PAIRS[b"all"]["ecdsa"].public_key().public_bytes(PEM, SPKI)
    verifier = verifier_of(catalogue.load("plaid").schemes["default"], [public])
    for forged in (
        token(claims, public),  # the public key taken for a shared secret
        token(claims, b"", "none"),
        token(claims, public).rpartition(b".")[0] + b".",
        b"", b".", b"..", b"a.b.c", b"\xff", b"e30.e30.e30",
    ):  # fmt: skip
        with pytest.raises(NotGenuine):
            verifier.verify(request_of(BODY, {"Plaid-Verification": forged}), NOW_S)


def test_a_token_is_about_one_body_and_one_issuer():
    key = b"0123456789abcdef0123456789abcdef"
    scheme = catalogue.load("netlify").schemes["default"]
    verifier = verifier_of(scheme, [key])
    claims = {"iss": "netlify", "sha256": hashlib.sha256(BODY).hexdigest()}
    good = request_of(BODY, {"X-Webhook-Signature": token(claims, key)})
    assert verifier.verify(good, NOW_S) == 0
    for changed in (
        {**claims, "iss": "another"}, {**claims, "sha256": "0" * 64}, {**claims, "sha256": 5},
        {"iss": "netlify"}, {**claims, "exp": NOW_S - 1}, {**claims, "exp": "soon"},
    ):  # fmt: skip
        bad = request_of(BODY, {"X-Webhook-Signature": token(changed, key)})
        with pytest.raises(NotGenuine):
            verifier.verify(bad, NOW_S)


def test_a_field_itself_is_signed_though_its_json_is_the_event():
    signs, verifies = keys_of(catalogue.load("travisci").schemes["default"])
    event = b'{"id": 7, "type": "push", "status_message": "Passed"}'
    headers = {"content-type": "application/x-www-form-urlencoded"}
    request = request_of(urlencode({"payload": event}).encode(), headers)
    sign(catalogue.load("travisci").schemes["default"], signs, request, NOW_S)
    endpoint = endpoint_of("travisci", [verifies])

    delivery = receive(endpoint, request)
    assert (delivery.event_type, delivery.payloads[0]["id"]) == ("Passed", 7)
    assert refusal(endpoint, copy_of(request, body=request.body.replace(b"7", b"6"))).status == 401
    assert refusal(endpoint, copy_of(request, body=event)).status == 401  # as JSON, without a form


def test_a_probe_with_a_wrong_signature_gets_401():
    public = PAIRS[b"all"]["ed25519"].public_key().public_bytes_raw().hex().encode()
    headers = {"X-Signature-Timestamp": str(NOW_S), "X-Signature-Ed25519": "00" * 64}
    probe = refusal(endpoint_of("discord", [public]), request_of(b'{"type":1}', headers))
    assert (probe.status, type(probe)) == (401, BadSignature)


def test_what_two_timestamps_say_must_agree():
    scheme = catalogue.load("ripple").schemes["default"]
    secret = sample_secret(scheme, b"x").encode()
    request = request_of(BODY)
    sign(scheme, secret, request, NOW_S)
    verifier = verifier_of(scheme, [secret])
    assert verifier.verify(request, NOW_S) == 0
    request.headers[b"x-webhook-timestamp"] = b"%d001" % NOW_S
    with pytest.raises(NotGenuine):
        verifier.verify(request, NOW_S)


# --- what else senders do -------------------------------------------------------------------------


def test_events_without_a_body_are_told_apart_by_their_query():
    key = b"0123456789abcdef0123456789abcdef"
    provider = catalogue.load("messagebird")

    def received(target, method):
        url = f"https://hooks.example.com{target}"
        request = request_of(b"", {}, target.encode(), method)
        sign(provider.schemes["default"], key, request, NOW_S, url)
        verifier = verifier_of(provider.schemes["default"], [key], url)
        endpoint = endpoint_of(provider, verifier=verifier)
        return receive(endpoint, request)

    for method in (b"GET", b"POST"):
        first, again, other = (
            received(f"/hook?id=7&status={status}", method)
            for status in ("sent", "sent", "delivered")
        )
        assert first.payloads == ({"id": "7", "status": "sent"},)
        assert first.event_id == again.event_id != other.event_id
        assert other.event_type == "delivered"


def test_an_empty_body_is_an_event_where_the_sender_has_such():
    key = b"0123456789abcdef"
    headers = {"content-type": "application/json", "request-id": "r1"}
    value = hex_of(key, b"")
    sentry = request_of(b"", {**headers, "Sentry-Hook-Signature": value})
    assert receive(endpoint_of("sentry", [key]), sentry).kind == "event"
    github = request_of(b"", {**headers, "X-Hub-Signature-256": f"sha256={value}"})
    assert refusal(endpoint_of("github", [key]), github).status == 400


def test_json_under_another_name_is_json_all_the_same():
    table = catalogue.load("aws-sns")
    private = PAIRS[b"all"]["rsa"].private_bytes(
        PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    body = {"Type": "Notification", "MessageId": "m1", "TopicArn": "arn:t", "Message": "hello"}
    body["Timestamp"] = "2026-01-01T00:00:00.000Z"
    request = request_of(json.dumps(body).encode(), {"content-type": "text/plain; charset=UTF-8"})
    scheme = table.schemes["default"]
    sign(scheme, private, request, NOW_S, URL, {"topic_arn": "arn:t"})
    public = PAIRS[b"all"]["rsa"].public_key().public_bytes(PEM, SPKI)
    verifier = verifier_of(scheme, [public], URL, {"topic_arn": "arn:t"})
    delivery = receive(endpoint_of(table, verifier=verifier), request)
    assert (delivery.event_id, delivery.event_type) == ("m1", "Notification")


def test_a_feed_is_no_json_and_none_is_asked_for():
    key = b"0123456789abcdef"
    headers = {"content-type": "application/atom+xml"}
    headers["X-Hub-Signature"] = f"sha256={hex_of(key, b'<feed/>')}"
    delivery = receive(endpoint_of("websub", [key]), request_of(b"<feed/>", headers))
    assert delivery.payloads == (b"<feed/>",)


def test_each_key_of_an_account_has_a_header_of_its_own():
    key = b"the fiftieth key"
    headers = {f"X-DocuSign-Signature-{n}": base64_of(b"%d" % n, BODY) for n in range(1, 101)}
    endpoint = endpoint_of("docusign", [key])
    assert refusal(endpoint, request_of(BODY, headers)).status == 401
    headers["X-DocuSign-Signature-50"] = base64_of(key, BODY)
    assert receive(endpoint, request_of(BODY, headers)).secret_index == 0


def test_a_time_beyond_all_numbers_is_no_time():
    key = b"0123456789abcdef0123456789abcdef"
    claims = {"iss": "netlify", "sha256": hashlib.sha256(BODY).hexdigest()}
    verifier = verifier_of(catalogue.load("netlify").schemes["default"], [key])
    for odd in (int("9" * 400), True, [], "1"):
        bad = request_of(BODY, {"X-Webhook-Signature": token({**claims, "exp": odd}, key)})
        with pytest.raises(NotGenuine):
            verifier.verify(bad, NOW_S)


def mandrill_form(events, key, url=URL):
    request = request_of(
        urlencode({"mandrill_events": events}).encode(),
        {"content-type": "application/x-www-form-urlencoded"},
    )
    sign(catalogue.load("mandrill").schemes["default"], key, request, NOW_S, url)
    return request


def test_a_webhook_that_is_being_made_is_tested_with_a_key_that_everybody_knows():
    endpoint = endpoint_of("mandrill", [b"the key of the webhook"], url=URL)
    test = receive(endpoint, mandrill_form("[]", b"test-webhook"))
    assert (test.kind, test.secret_index) == ("test of a new webhook", -1)
    assert test.reply.status == 200
    assert test.payloads == ()

    own = receive(endpoint, mandrill_form("[]", b"the key of the webhook"))
    assert (own.kind, own.secret_index) == ("empty batch", 0)


def test_the_key_that_everybody_knows_signs_no_event():
    endpoint = endpoint_of("mandrill", [b"the key of the webhook"], url=URL)
    event = '[{"event":"send","_id":"1"}]'
    assert receive(endpoint, mandrill_form(event, b"the key of the webhook")).kind == "event"
    for forged in (
        mandrill_form(event, b"test-webhook"),
        mandrill_form("[]", b"another key"),
        mandrill_form("[]", b"test-webhook", "https://elsewhere.example.com/"),
        request_of(
            b"mandrill_events=%5B%5D", {"content-type": "application/x-www-form-urlencoded"}
        ),
    ):
        assert refusal(endpoint, forged).status == 401


@pytest.mark.parametrize(
    ("name", "body", "event_type"),
    [
        ("asana", {"events": [{"action": "changed", "resource": {"resource_type": "task"}}]}, "task.changed"),
        ("customerio", {"object_type": "email", "metric": "sent", "event_id": "1"}, "email.sent"),
        ("gocardless", {"events": [{"resource_type": "payments", "action": "paid_out"}]}, "payments.paid_out"),
        ("heroku", {"resource": "release", "action": "update", "id": "1"}, "release.update"),
        ("linear", {"type": "Issue", "action": "create"}, "Issue.create"),
        ("linear", {"type": "AppUserNotification"}, "AppUserNotification"),
        ("meta", {"object": "page", "entry": [{"changes": [{"field": "feed"}]}]}, "page.feed"),
        ("meta", {"object": "page", "entry": [{"messaging": []}]}, "page"),
        ("onfido", {"payload": {"resource_type": "check", "action": "check.completed"}}, "check.completed"),
        ("plaid", {"webhook_type": "ITEM", "webhook_code": "ERROR"}, "ITEM.ERROR"),
        ("segment", {"type": "track", "event": "Order Completed"}, "track.Order Completed"),
        ("segment", {"type": "identify"}, "identify"),
        ("sentry", {"action": "created"}, "issue.created"),
        ("sentry", {}, "issue"),
        ("xero", {"events": [{"eventCategory": "INVOICE", "eventType": "UPDATE"}]}, "INVOICE.UPDATE"),
    ],
)  # fmt: skip
def test_what_happened_and_to_what_are_one_type(name, body, event_type):
    endpoint = endpoint_of(name, verifier=Unsigned())
    request = request_of(json.dumps(body).encode(), {"sentry-hook-resource": "issue"})
    assert receive(endpoint, request).event_type == event_type
