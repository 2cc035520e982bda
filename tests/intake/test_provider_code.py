"""Providers that tables can't describe: what they sign verifies, what was changed does not."""

import base64
import gzip
import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from fasthook.errors import (
    BadSignature,
    ConfigError,
    NoSignature,
    NotGenuine,
    Rejection,
    StaleTimestamp,
)
from fasthook.intake import catalogue
from fasthook.intake.signatures import verifier_of
from fasthook.intake.signing import sign
from tests.intake.support import NOW_S, copy_of, request_of, with_header

URL = "https://example.com/hook"
RSA = rsa.generate_private_key(65537, 2048)
ECDSA = ec.generate_private_key(ec.SECP256R1())
ED25519 = ed25519.Ed25519PrivateKey.generate()
PEM, PUBLIC = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
XML = base64.b64encode(b"<notification><kind>check</kind></notification>") + b"\n"
ITEM = {"pspReference": "p", "amount": {"value": 1, "currency": "EUR"}, "success": "true"}
ADYEN = {"notificationItems": [{"NotificationRequestItem": {**ITEM, "eventCode": "AUTHORISATION"}}]}
SNS = {
    "Type": "Notification",
    "MessageId": "m",
    "TopicArn": "arn:aws:sns:us-east-1:1:t",
    "Message": "Hello world",
    "Timestamp": "2026-01-01T00:00:00.000Z",
}


def private(key):
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def public(key):
    return key.public_key().public_bytes(PEM, PUBLIC)


def dumps(document):
    return json.dumps(document).encode()


#: Provider → body, signing secret, configured secret, what is signed of the body, another secret.
CASES = {
    "twilio": (b"From=1&Body=Hello", b"token", b"token", b"Hello", b"tokeo"),
    "plivo": (b"From=1&Text=Hello", b"token", b"token", b"Hello", b"tokeo"),
    "adyen": (dumps(ADYEN), b"0a0b", b"0a0b", b"AUTHORISATION", b"0a0c"),
    "braintree": (
        b"bt_payload=" + XML.replace(b"\n", b"%0A"), b"me:key", b"me:key", b"bt_payload=", b"me:kez"
    ),
    "unisender-go": (b'{"events_by_user":["Hello"]}', b"key", b"key", b"Hello", b"kez"),
    "mailchannels": (
        b'[{"event":"Hello"}]', private(ED25519),
        base64.b64encode(ED25519.public_key().public_bytes(serialization.Encoding.DER, PUBLIC)),
        b"Hello", public(ed25519.Ed25519PrivateKey.generate()),
    ),
    "ebay": (
        b'{"metadata":{"topic":"Hello"}}', private(ECDSA),
        dumps({"fasthook": public(ECDSA).decode()}),
        b"Hello", public(ec.generate_private_key(ec.SECP256R1())),
    ),
    "contentful": (b'{"sys":"Hello"}', b"key", b"key", b"Hello", b"kez"),
    "hygraph": (b'{"operation":"Hello"}', b"key", b"key", b"Hello", b"kez"),
    "aws-sns": (
        dumps(SNS), private(RSA), public(RSA), b"Hello",
        public(rsa.generate_private_key(65537, 2048)),
    ),
    "msgraph": (b'{"value":[{"id":"1"},{"id":"2"}]}', b"state", b"state", b"state", b"statf"),
    "segment": (b'{"type":"track","event":"Hello"}', b"key", b"key", b"Hello", b"kez"),
}  # fmt: skip
NAMES = sorted(CASES)
DEEP = 100_000
HOSTILE = {
    "empty": b"",
    "a space": b" ",
    "not JSON": b"{",
    "not UTF-8": b'{"a":"\xff\xfe"}',
    "no UTF-8 at all": b"\xff\xfe\x00" * 9,
    "a surrogate": b'{"auth":"\\ud800","value":[{"clientState":"\\ud800"}]}',
    "compressed": gzip.compress(b"{}"),
    "null": b"null",
    "a number": b"7",
    "huge numbers": b'[{"a":1%s,"b":1e999999}]' % (b"0" * 9000),
    "text": b'"text"',
    "an empty list": b"[]",
    "an empty object": b"{}",
    "deep lists": b"[" * DEEP + b"]" * DEEP,
    "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "deep lists that do not end": b"[" * DEEP,
    "deep in a batch": b"[{}," + b"[" * DEEP + b"]" * DEEP + b"]",
    "many fields": b"a=1&" * 10_000,
    "many signatures": b"bt_payload=x&bt_signature=" + b"a%7Cb%26" * 10_000,
    "many items": dumps({
        "notificationItems": [{"NotificationRequestItem": {"additionalData": {"hmacSignature": "x"}}}] * 10_000,
        "value": [{"clientState": "state"}] * 10_000,
    }),
    "many events": dumps([{"event": "x"}] * 10_000),
    "wrong types": dumps({
        "notificationItems": {"0": 1}, "value": "x", "auth": ["0" * 32], "Type": ["Notification"],
        "Signature": 7, "Message": {}, "MessageId": 1,
    }),
    "wrong types within": dumps({
        "notificationItems": [7, None], "value": [None, 7], "auth": 7, **SNS, "Type": {},
    }),
    "wrong types deep within": dumps({
        "notificationItems": [{"NotificationRequestItem": {
            "amount": [], "success": True, "additionalData": {"hmacSignature": "x"}}}],
        "value": [{"clientState": {"a": 1}}], **SNS, "Signature": "!", "SignatureVersion": "3",
        "SigningCertURL": 7,
    }),
    "fields of a form alone": b"bt_payload=x&bt_payload=y&bt_signature=%FF%7C%FF",
}  # fmt: skip


def scheme_of(name):
    return catalogue.load(name).schemes["default"]


def verifier(name, *secrets, settings=None):
    return verifier_of(scheme_of(name), list(secrets) or [CASES[name][2]], URL, settings)


def made(name, body=None, **parts):
    """A request as the provider would sign it."""
    request = copy_of(request_of(CASES[name][0] if body is None else body), **parts)
    sign(scheme_of(name), CASES[name][1], request, NOW_S, URL)
    return request


def flipped(text, place):
    return text[:place] + bytes([text[place] ^ 1]) + text[place + 1 :]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_signed_verifies_and_the_secret_is_known(name):
    request = made(name)
    _, _, secret, _, other = CASES[name]

    assert verifier(name).verify(request, NOW_S) == 0
    assert verifier(name, other, secret).verify(request, NOW_S) == 1
    with pytest.raises(BadSignature):
        verifier(name, other).verify(request, NOW_S)


@pytest.mark.parametrize("name", NAMES)
def test_a_flipped_bit_of_what_is_signed_is_refused(name):
    request, covered = made(name), CASES[name][3]
    start = request.body.index(covered)
    for place in range(start, start + len(covered)):
        with pytest.raises(NotGenuine):
            verifier(name).verify(copy_of(request, body=flipped(request.body, place)), NOW_S)


@pytest.mark.parametrize("name", NAMES)
def test_a_flipped_bit_of_the_signature_is_refused(name):
    request, scheme = made(name), scheme_of(name)
    unsigned = request_of(CASES[name][0]).body
    for header in scheme.security_headers() & request.headers.keys():
        value = request.headers[header]
        for place in range(len(value)):
            changed = with_header(request, header.decode(), flipped(value, place))
            with pytest.raises(NotGenuine):
                verifier(name).verify(changed, NOW_S)
        with pytest.raises(NotGenuine):
            verifier(name).verify(with_header(request, header.decode(), None), NOW_S)
    if scheme.signature:
        assert request.body != unsigned
        with pytest.raises(NotGenuine):
            verifier(name).verify(copy_of(request, body=unsigned), NOW_S)


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_body_is_refused_and_nothing_else(name, what):
    request = copy_of(made(name), body=HOSTILE[what])
    with pytest.raises(Rejection):
        verifier(name).verify(request, NOW_S)


@pytest.mark.parametrize(
    "value", [b"", b"\xff", b"," * 5000, b"=" * 5000, b"A" * 4096, b"()", b"e30="]
)
@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_header_is_refused_and_nothing_else(name, value):
    request = made(name)
    for header in scheme_of(name).security_headers():
        changed = with_header(request, header.decode(), value)
        with pytest.raises(Rejection):
            verifier(name, CASES[name][4]).verify(changed, NOW_S)


@pytest.mark.parametrize("name", ["adyen", "braintree", "mailchannels", "ebay", "aws-sns"])
def test_a_secret_that_is_no_key_is_a_configuration_error_that_does_not_show_it(name):
    for secret in (
        b"not-a-key",
        b"\xff",
        b"-----BEGIN PUBLIC KEY-----\nnot-a-key",
        b'{"kid":"not-a-key"}',
    ):
        if name == "braintree" and b":" in secret:
            continue
        with pytest.raises(ConfigError) as caught:
            verifier(name, secret)
        assert "not-a-key" not in str(caught.value)


@pytest.mark.parametrize("name", ["mailchannels", "contentful", "hygraph"])
def test_an_old_request_is_stale(name):
    for now_s in (NOW_S - 301, NOW_S + 301):
        with pytest.raises(StaleTimestamp):
            verifier(name).verify(made(name), now_s)


@pytest.mark.parametrize(
    "name", ["adyen", "braintree", "ebay", "aws-sns", "msgraph", "mailchannels"]
)
def test_what_cannot_be_signed_is_said(name):
    body, secret = (
        (b"{}", b"no key") if name in ("ebay", "mailchannels") else (b"x", CASES[name][1])
    )
    with pytest.raises(ConfigError):
        sign(scheme_of(name), secret, request_of(body), NOW_S, URL)


@pytest.mark.parametrize("name", ["twilio", "plivo"])
def test_a_get_signs_the_url_alone(name):
    request = made(name, b"", method=b"GET", target=b"/hook?From=1&Body=It's")

    assert verifier(name).verify(request, NOW_S) == 0
    for changed in ({"target": b"/hook?From=2&Body=It's"}, {"body": b"a=1"}):
        with pytest.raises(NotGenuine):
            verifier(name).verify(copy_of(request, **changed), NOW_S)


def test_twilio_puts_the_digest_of_json_into_the_query():
    request = made("twilio", b'{"a":1}', target=b"/hook?x=1")

    assert b"x=1&bodySHA256=" in request.target
    assert verifier("twilio").verify(request, NOW_S) == 0
    for changed in ({"body": b'{"a":2}'}, {"target": request.target + b"&bodySHA256=0"}):
        with pytest.raises(NoSignature):
            verifier("twilio").verify(copy_of(request, **changed), NOW_S)


def test_every_item_of_adyen_has_to_be_genuine():
    two = {"notificationItems": ADYEN["notificationItems"] * 2}
    request = made("adyen", dumps(two))
    assert verifier("adyen").verify(request, NOW_S) == 0

    end = request.body.rindex(b"AUTHORISATION")
    with pytest.raises(BadSignature):
        verifier("adyen").verify(copy_of(request, body=flipped(request.body, end)), NOW_S)


def test_a_third_field_beside_those_of_braintree_is_refused():
    request = made("braintree")
    with pytest.raises(NoSignature):
        verifier("braintree").verify(copy_of(request, body=request.body + b"&x=1"), NOW_S)


def test_the_digest_of_unisender_must_not_stand_twice():
    request = made("unisender-go")
    digest = json.loads(request.body)["auth"].encode()
    body = request.body.replace(b"Hello", digest)
    with pytest.raises(NoSignature):
        verifier("unisender-go").verify(copy_of(request, body=body), NOW_S)


def test_a_topic_of_somebody_else_is_refused():
    request = made("aws-sns")
    assert verifier("aws-sns", settings={"topic_arn": SNS["TopicArn"]}).verify(request, NOW_S) == 0
    with pytest.raises(NoSignature, match="topic"):
        verifier("aws-sns", settings={"topic_arn": "arn:other"}).verify(request, NOW_S)


@pytest.mark.parametrize("version", ["1", "2"])
def test_both_versions_of_sns_verify(version):
    body = dumps({**SNS, "SignatureVersion": version, "Subject": "s"})
    assert verifier("aws-sns").verify(made("aws-sns", body), NOW_S) == 0


def test_a_key_of_ebay_is_found_by_its_id():
    keys = dumps({"other": public(ec.generate_private_key(ec.SECP256R1())).decode(),
                  "fasthook": "".join(public(ECDSA).decode().split("\n"))})  # fmt: skip
    assert verifier("ebay", keys).verify(made("ebay"), NOW_S) == 0
    assert verifier("ebay", public(ECDSA)).verify(made("ebay"), NOW_S) == 0
    with pytest.raises(BadSignature):
        verifier("ebay", dumps({"another": public(ECDSA).decode()})).verify(made("ebay"), NOW_S)


@pytest.mark.parametrize("time", [NOW_S, NOW_S * 1000])
def test_hygraph_may_mean_seconds_or_milliseconds(time):
    request = request_of(b"{}")
    sign(scheme_of("hygraph"), b"key", request, time / 1000, URL)
    assert b"t=%d" % time in request.headers[b"gcms-signature"]
    assert verifier("hygraph").verify(request, NOW_S) == 0


def test_one_wrong_state_makes_all_notifications_worthless():
    request = made("msgraph")
    end = request.body.rindex(b"state")
    with pytest.raises(BadSignature):
        verifier("msgraph").verify(copy_of(request, body=flipped(request.body, end)), NOW_S)


@pytest.mark.parametrize(
    "batch",
    [
        b'[{"a":1.0,"b":"x y"},{"c":2}]',
        b' [ { "a" : 1.0 , "b" : "x y" } ]',
        b'[{"a":1.0,"b":"x\\u0020y"}]',
    ],
)
def test_of_a_batch_the_first_event_is_signed(batch):
    for event in (b'{"a":1,"b":"x y"}', b'{"a":1.0,"b":"x y"}'):
        request = made("segment", event)
        changed = copy_of(request, body=batch)
        if b"u0020" in batch and b"1.0" in event:
            continue
        assert verifier("segment").verify(changed, NOW_S) == 0


def test_headers_of_sns_have_to_say_what_the_body_does():
    for header, value in (
        ("x-amz-sns-message-id", b"m"),
        ("x-amz-sns-message-type", b"Notification"),
    ):
        request = with_header(made("aws-sns"), header, value)
        assert verifier("aws-sns").verify(request, NOW_S) == 0
        with pytest.raises(NoSignature, match="another"):
            verifier("aws-sns").verify(with_header(request, header, b"other"), NOW_S)
