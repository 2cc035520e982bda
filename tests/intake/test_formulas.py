"""Senders for whom there are no vectors: what they document, written out by hand."""

import base64
import hashlib
import hmac
import json

import msgspec
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from fasthook.errors import BadPayload, HandshakeRefused, NotGenuine
from fasthook.intake import catalogue
from fasthook.intake.handshakes import Greeting, Handshake
from fasthook.intake.signatures import verifier_of
from tests.intake.support import (
    NOW_S,
    copy_of,
    endpoint_of,
    receive,
    refusal,
    request_of,
    with_header,
)

KEY = b"0123456789abcdef0123456789abcdef"
NOW_MS = NOW_S * 1000 + 7
BODY = b'{"id":"1"}'
JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}
RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
SPKI = serialization.PublicFormat.SubjectPublicKeyInfo


def hex_of(message, name="sha256", key=KEY):
    return hmac.new(key, message, name).hexdigest()


def base64_of(message, name="sha256", key=KEY):
    return base64.b64encode(hmac.new(key, message, name).digest()).decode()


def url_safe(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(**claims):
    parts = [json.dumps(part).encode() for part in ({"alg": "HS256", "typ": "JWT"}, claims)]
    signed = ".".join(map(url_safe, parts))
    return f"{signed}.{url_safe(hmac.digest(KEY, signed.encode(), 'sha256'))}"


ACUITY = b"action=scheduled&id=1&calendarID=2&appointmentTypeID=3"
RING = b'{"uuid":"u1","event":"/restapi/v1.0/account/1/presence"}'
FIGMA = b'{"event_type":"FILE_UPDATE","passcode":"a passcode, not short"}'
QUICKBOOKS = b'[{"id":"88cd52aa","type":"qbo.invoice.created.v1"}]'
QUICKBOOKS_OLD = (
    b'{"eventNotifications":[{"realmId":"1","dataChangeEvent":'
    b'{"entities":[{"name":"Customer","id":"1","operation":"Create"}]}}]}'
)
PEM = RSA.public_key().public_bytes(serialization.Encoding.PEM, SPKI)
DER = base64.b64encode(EC.public_key().public_bytes(serialization.Encoding.DER, SPKI))
RSA_SIGNED = base64.b64encode(RSA.sign(BODY, padding.PKCS1v15(), hashes.SHA512())).decode()
EC_SIGNED = base64.b64encode(EC.sign(BODY, ec.ECDSA(hashes.SHA256()))).decode()
LI = b'{"type":"LEAD_ACTION"}'
PAIR = b"client-id-1&client-secret-2"

#: Provider, secret, what it sends (query, headers, body), and the type of the event.
FITBIT = b'[{"collectionType":"foods","date":"2026-01-01","ownerId":"228S74","ownerType":"user"}]'
LARK = b'{"schema":"2.0","header":{"event_id":"e","event_type":"im.message.receive_v1","token":"%s"},"event":{}}'
GENUINE = [
    ("acuity", KEY, "", {**FORM, "X-Acuity-Signature": base64_of(ACUITY)}, ACUITY, "scheduled"),
    ("adobe-sign", b"CBJCHBCAABAA", "", {"X-AdobeSign-ClientId": "CBJCHBCAABAA"},
     b'{"event":"AGREEMENT_CREATED"}', "AGREEMENT_CREATED"),
    ("alchemy", KEY, "", {"X-Alchemy-Signature": hex_of(b'{"type":"MINED_TRANSACTION"}')},
     b'{"type":"MINED_TRANSACTION"}', "MINED_TRANSACTION"),
    ("checkout-com", KEY, "", {"Cko-Signature": hex_of(b'{"type":"payment_captured"}')},
     b'{"type":"payment_captured"}', "payment_captured"),
    ("circle", DER, "", {"X-Circle-Signature": EC_SIGNED, "X-Circle-Key-Id": "879dc113"}, BODY, ""),
    ("clickup", KEY, "", {"X-Signature": hex_of(b'{"event":"taskCreated"}')},
     b'{"event":"taskCreated"}', "taskCreated"),
    ("cloudflare-notifications", KEY, "", {"cf-webhook-auth": KEY.decode()},
     b'{"text":"Hello World!"}', ""),
    ("figma", b"a passcode, not short", "", {}, FIGMA, "FILE_UPDATE"),
    ("fireblocks", PEM, "", {"Fireblocks-Signature": RSA_SIGNED}, BODY, ""),
    ("frameio", KEY, "", {"X-Frameio-Request-Timestamp": str(NOW_S),
     "X-Frameio-Signature": "v0=" + hex_of(b"v0:%d:" % NOW_S + b'{"type":"file.ready"}')},
     b'{"type":"file.ready"}', "file.ready"),
    ("ghost", KEY, "",
     {"X-Ghost-Signature": f"sha256={hex_of(BODY + b'%d' % NOW_MS)}, t={NOW_MS}"}, BODY, ""),
    ("linkedin", KEY, "", {"X-LI-Signature": hex_of(b"hmacsha256=" + LI)}, LI, "LEAD_ACTION"),
    ("lob", KEY, "", {"Lob-Signature-Timestamp": str(NOW_MS),
     "Lob-Signature": hex_of(b"%d." % NOW_MS + b'{"event_type":{"id":"letter.mailed"}}')},
     b'{"event_type":{"id":"letter.mailed"}}', "letter.mailed"),
    ("miro", b"a token of ours", "?token=a%20token%20of%20ours", {},
     b'{"event":{"type":"update"}}', "update"),
    ("monday", KEY, "", {"Authorization": token(aud="https://hooks.example.com/monday", exp=NOW_S + 9)},
     b'{"event":{"type":"create_pulse","triggerUuid":"t"}}', "create_pulse"),
    ("patreon", KEY, "", {"X-Patreon-Event": "members:create", "X-Patreon-Signature": hex_of(BODY, "md5")},
     BODY, "members:create"),
    ("fitbit", KEY, "", {"X-Fitbit-Signature": base64_of(FITBIT, "sha1", KEY + b"&")}, FITBIT, "foods"),
    ("lark", KEY, "", {}, LARK % KEY, "im.message.receive_v1"),
    ("quickbooks", KEY, "", {"intuit-signature": base64_of(QUICKBOOKS)}, QUICKBOOKS,
     "qbo.invoice.created.v1"),
    ("quickbooks", KEY, "", {"intuit-signature": base64_of(QUICKBOOKS_OLD)}, QUICKBOOKS_OLD,
     "Customer.Create"),
    ("recurly", KEY, "",
     {"recurly-signature": f"{NOW_MS}," + hex_of(b"%d." % NOW_MS + b'{"object_type":"account","event_type":"created"}')},
     b'{"object_type":"account","event_type":"created"}', "account.created"),
    ("recurly", KEY, "",
     {"recurly-signature": f"{NOW_MS},{'0' * 64}, " + hex_of(b"%d." % NOW_MS + BODY)}, BODY, ""),
    ("ringcentral", KEY, "", {"Verification-Token": KEY.decode()}, RING,
     "/restapi/v1.0/account/1/presence"),
    ("smartsheet", KEY, "",
     {"Smartsheet-Hmac-SHA256": hex_of(b'{"events":[{"objectType":"row","eventType":"created"}]}')},
     b'{"events":[{"objectType":"row","eventType":"created"}]}', "row.created"),
    ("strava", b"a token of ours", "?token=a%20token%20of%20ours", {},
     b'{"object_type":"activity","aspect_type":"create"}', "activity.create"),
    ("surveymonkey", PAIR, "",
     {"Sm-Signature": base64_of(b'{"event_type":"response_completed"}', "sha1", PAIR), "Sm-Apikey": "client-id-1",
      "content-type": "application/vnd.surveymonkey.response.v1+json"},
     b'{"event_type":"response_completed"}', "response_completed"),
    ("tiktok", KEY, "",
     {"TikTok-Signature": f"t={NOW_S},s=" + hex_of(b"%d." % NOW_S + b'{"event":"video.publish.completed"}')},
     b'{"event":"video.publish.completed"}', "video.publish.completed"),
    ("webex", KEY, "", {"X-Spark-Signature": hex_of(b'{"resource":"messages","event":"created"}', "sha1")},
     b'{"resource":"messages","event":"created"}', "messages.created"),
]  # fmt: skip

SETTINGS = {
    "audience": "https://hooks.example.com/monday",
    "client_id": "CBJCHBCAABAA",
    "verify_token": "tok",
}


def endpoint_for(name, secret):
    provider = catalogue.load(name)
    greetings = [Greeting(h, secret, "", SETTINGS) for h in provider.handshakes]
    return endpoint_of(
        provider,
        verifier=verifier_of(provider.schemes["default"], [secret], "", SETTINGS),
        greetings=tuple(g for g in greetings if g.is_signed),
        openings=tuple(g for g in greetings if not g.is_signed),
    )


def sent(query, headers, body, method=b"POST"):
    return request_of(body, {**JSON, **headers}, b"/hook" + query.encode(), method)


@pytest.mark.parametrize(("name", "secret", "query", "headers", "body", "event_type"), GENUINE)
def test_what_the_sender_documents_is_genuine_and_nothing_else_is(
    name, secret, query, headers, body, event_type
):
    endpoint = endpoint_for(name, secret)
    request = sent(query, headers, body)
    delivery = receive(endpoint, request)
    assert (delivery.secret_index, delivery.kind) == (0, "event")
    assert delivery.event_type == event_type

    scheme = catalogue.load(name).schemes["default"]
    other = b"another key" + secret if scheme.kind in ("hmac", "token", "jwt") else None
    if other is not None:
        assert refusal(endpoint_for(name, other), request).status == endpoint.refusal_status
    if scheme.covers_body:
        for place in range(len(body)):
            flipped = body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]
            assert isinstance(refusal(endpoint, copy_of(request, body=flipped)), NotGenuine)
    for header in scheme.security_headers() & request.headers.keys():
        value = request.headers[header]
        for place in range(0, len(value), 5):
            flipped = value[:place] + bytes([value[place] ^ 1]) + value[place + 1 :]
            if b"0000" not in value[max(0, place - 4) : place + 5]:  # of a key that is gone
                changed = with_header(request, header.decode(), flipped)
                assert isinstance(refusal(endpoint, changed), NotGenuine)
        assert isinstance(
            refusal(endpoint, with_header(request, header.decode(), None)), NotGenuine
        )
    if query:
        assert isinstance(refusal(endpoint, sent("?token=x", headers, body)), NotGenuine)


# --- what ages ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["frameio", "ghost", "lob", "recurly", "tiktok"])
def test_what_is_signed_with_a_time_ages(name):
    _, secret, query, headers, body, _ = next(case for case in GENUINE if case[0] == name)
    endpoint = endpoint_for(name, secret)
    request = sent(query, headers, body)
    assert receive(endpoint, request, NOW_S + 299).kind == "event"
    assert refusal(endpoint, request, NOW_S + 302).status == 401
    assert refusal(endpoint, request, NOW_S - 302).status == 401


@pytest.mark.parametrize(
    "value", ["", ",", str(NOW_MS), f"{NOW_MS},", f",{'0' * 64}", f"{NOW_MS},,"]
)
def test_a_list_without_a_time_and_a_signature_is_none(value):
    endpoint = endpoint_for("recurly", KEY)
    assert isinstance(refusal(endpoint, sent("", {"recurly-signature": value}, BODY)), NotGenuine)


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "https://elsewhere.example.com", "exp": NOW_S + 9},
        {"aud": SETTINGS["audience"]},
        {"aud": SETTINGS["audience"], "exp": NOW_S - 1},
        {"exp": NOW_S + 9},
    ],
)
def test_a_token_for_somebody_else_or_of_another_time_is_none(claims):
    request = sent("", {"Authorization": token(**claims)}, b'{"event":{}}')
    assert refusal(endpoint_for("monday", KEY), request).status == 401


# --- handshakes -----------------------------------------------------------------------------------

UUID = "890e4665-4dfe-4ab1-b689-ed553bceeed0"
#: Provider, request (method, query, headers, body), and the answer (body, headers).
HANDSHAKES = [
    ("adobe-sign", b"GET", "", {"X-AdobeSign-ClientId": "CBJCHBCAABAA"}, b"", "",
     {"X-AdobeSign-ClientId": "CBJCHBCAABAA"}),
    ("circle", b"HEAD", "", {}, b"", "", {}),
    ("lark", b"POST", "", {}, b'{"type":"url_verification","token":"tok","challenge":"c-1"}',
     {"challenge": "c-1"}, {}),
    ("linkedin", b"GET", f"?challengeCode={UUID}", {}, b"",
     {"challengeCode": UUID, "challengeResponse": hex_of(UUID.encode())}, {}),
    ("miro", b"POST", "", {}, b'{"challenge":"c-1"}', {"challenge": "c-1"}, {}),
    ("monday", b"POST", "", {}, b'{"challenge":"c-1"}', {"challenge": "c-1"}, {}),
    ("ringcentral", b"POST", "", {"Validation-Token": "v-1"}, b"", "", {"Validation-Token": "v-1"}),
    ("smartsheet", b"POST", "", {"Smartsheet-Hook-Challenge": "c-1"},
     b'{"challenge":"c-1","webhookId":1}', {"smartsheetHookResponse": "c-1"},
     {"Smartsheet-Hook-Response": "c-1"}),
    ("strava", b"GET", "?hub.mode=subscribe&hub.verify_token=tok&hub.challenge=15f7", {}, b"",
     {"hub.challenge": "15f7"}, {}),
    ("surveymonkey", b"HEAD", "", {}, b"", "", {}),
]  # fmt: skip


def secret_of(name):
    return next(case[1] for case in GENUINE if case[0] == name)


@pytest.mark.parametrize(
    ("name", "method", "query", "headers", "body", "answer", "more"), HANDSHAKES
)
def test_a_handshake_is_answered_and_no_handler_sees_it(
    name, method, query, headers, body, answer, more
):
    endpoint = endpoint_for(name, secret_of(name))
    delivery = receive(endpoint, sent(query, headers, body, method))
    assert delivery.kind not in ("event", "ignored")
    assert delivery.payloads == ()
    assert delivery.reply.status == 200
    assert delivery.reply.headers == more
    if isinstance(answer, dict):
        assert delivery.reply.content_type == "application/json"
        assert json.loads(delivery.reply.body) == answer
    else:
        assert delivery.reply.body == answer


@pytest.mark.parametrize(("code", "status"), [("tok", 204), ("tokx", 404), ("x", 404)])
def test_fitbit_asks_for_a_code_and_wants_404_for_another(code, status):
    endpoint, asked = endpoint_for("fitbit", KEY), sent(f"?verify={code}", {}, b"", b"GET")
    if status == 204:
        assert receive(endpoint, asked).reply.status == status
    else:
        assert refusal(endpoint, asked).status == status


def test_lark_signs_what_is_encrypted_with_the_same_key():
    body = b'{"encrypt":"AAAA"}'
    digest = hashlib.sha256(b"1767225600" + b"nonce" + KEY + body).hexdigest()
    headers = {"X-Lark-Request-Timestamp": "1767225600", "X-Lark-Request-Nonce": "nonce"}
    request = sent("", {**headers, "X-Lark-Signature": digest}, body)
    endpoint = endpoint_of("lark", [KEY], "signed")
    assert receive(endpoint, request).secret_index == 0
    for name in ("x-lark-request-timestamp", "x-lark-request-nonce", "x-lark-signature"):
        assert refusal(endpoint, with_header(request, name, b"x")).status == 401


def test_figma_pings_with_the_passcode():
    ping = b'{"event_type":"PING","passcode":"a passcode, not short"}'
    endpoint = endpoint_for("figma", b"a passcode, not short")
    assert receive(endpoint, sent("", {}, ping)).kind == "PING"
    assert refusal(endpoint, sent("", {}, ping.replace(b"not", b"too"))).status == 400


def test_who_does_not_know_the_word_gets_no_answer():
    for name, query, headers in (
        ("strava", "?hub.mode=subscribe&hub.verify_token=no&hub.challenge=15f7", {}),
        ("adobe-sign", "", {"X-AdobeSign-ClientId": "another"}),
    ):
        request = sent(query, headers, b"", b"GET")
        assert isinstance(refusal(endpoint_for(name, secret_of(name)), request), HandshakeRefused)


# --- an answer is no signature --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameter", "genuine"),
    [("linkedin", "challengeCode", UUID), ("x", "crc_token", "MDkzMjRiZGEtNDRkMS00")],
)
def test_nobody_gets_an_event_signed_by_way_of_a_challenge(name, parameter, genuine):
    provider = catalogue.load(name)
    greetings = [Greeting(h, KEY) for h in provider.handshakes]
    endpoint = endpoint_of(provider, [KEY], openings=tuple(greetings))
    assert receive(endpoint, sent(f"?{parameter}={genuine}", {}, b"", b"GET")).reply is not None
    for forged in (
        "%7B%22event%22%3A1%7D", "hmacsha256%3D%7B%7D", "hmac", "[]", "12345678", "%221%22",
        "123456789012", "1e123456789", "null", "true", "a%0Ab", "-1234567.5",
    ):  # fmt: skip
        rejection = refusal(endpoint, sent(f"?{parameter}={forged}", {}, b"", b"GET"))
        assert isinstance(rejection, BadPayload)


def test_a_table_that_would_sign_anything_is_refused():
    text = {"computed": {"message": "{query:c}"}, "body": "{computed}"}
    table = {"name": "c", "method": "GET", "when": {"query:c": "*"}, "reply": text}
    for more, is_refused in (
        ({"is_signed": False}, True),
        ({"is_signed": True}, False),
        ({"is_signed": False, "pattern": "[a-z]{9}"}, False),
    ):
        handshake = msgspec.convert({**table, **more}, Handshake)
        if is_refused:
            with pytest.raises(ValueError, match="anybody"):
                handshake.check()
        else:
            handshake.check()
