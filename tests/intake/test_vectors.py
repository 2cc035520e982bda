"""Signatures made elsewhere: by formulas written out here, and by vectors of the providers.

The latter are read from a folder beside the checkout, where there is one.
"""

import base64
import hmac
import json
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest

from fasthook.errors import BadPayload, NotGenuine, WrongContentType, WrongMethod
from fasthook.intake import catalogue
from fasthook.intake.handshakes import Greeting
from fasthook.intake.multiparts import looks_into_parts
from fasthook.intake.signatures import Unsigned, verifier_of
from fasthook.intake.signing import sample_secret
from fasthook.values import Duration
from tests.intake.support import (
    NOW_S,
    copy_of,
    endpoint_of,
    receive,
    refusal,
    request_of,
    with_header,
)
from tests.intake.test_formulas import GENUINE

VECTORS = Path(__file__).parents[3] / "shared" / "vectors" / "providers.json"
FILE = json.loads(VECTORS.read_bytes()) if VECTORS.exists() else None
CASES = [
    pytest.param(provider["id"], vector, id=f"{provider['id']}-{vector['id']}")
    for provider in (FILE["providers"] if FILE else [])
    if provider["id"] in catalogue.names()
    for vector in provider["vectors"]
    if vector["scheme"] in catalogue.load(provider["id"]).schemes
]
#: Those that hand a secret over need a state that is kept: see tests/test_pairing.py.
HANDSHAKES = [
    pytest.param(test, id=f"{test['provider']}-{test['name']}")
    for test in (FILE["handshake_tests"] if FILE else [])
    if test["provider"] in catalogue.names() and "state" not in test["config"]
]
VALID = [case for case in CASES if case.values[1]["expected"] == "valid"]
NO_VECTORS = pytest.param(None, None, marks=pytest.mark.skip("no vectors beside the checkout"))


def body_of(vector):
    if "body_b64" in vector:
        return base64.b64decode(vector["body_b64"])
    return vector["body"].encode()


def request_in(vector):
    url = urlsplit(vector["url"])
    target = url.path + (f"?{url.query}" if url.query else "")
    headers = {n: v if isinstance(v, str) else ", ".join(v) for n, v in vector["headers"].items()}
    request = request_of(body_of(vector), headers, target.encode())
    request.repeated = {
        name.lower().encode(): [value.encode() for value in values]
        for name, values in vector["headers"].items()
        if not isinstance(values, str)
    } or None
    return copy_of(request, path=b"/hook", method=vector["method"].encode())


def secrets_of(vector):
    """The configured secrets, as a configuration has them: keys that are objects are JSON."""
    several = vector["secret"] if isinstance(vector["secret"], list) else [vector["secret"]]
    return [
        (
            one
            if isinstance(one, str)
            else f"{one['public_key']}:{one['private_key']}"
            if one.keys() == {"public_key", "private_key"}
            else json.dumps(one)
        ).encode()
        for one in several
    ]


def endpoint_for(name, vector, secrets=None):
    """The endpoint that the vector is sent to. One without a clock says nothing of its age."""
    provider = catalogue.load(name)
    scheme = provider.schemes[vector["scheme"]]
    if "now" not in vector:
        scheme = msgspec.structs.replace(scheme, tolerance=Duration(1e10))
    config = {key: str(value) for key, value in vector.get("config", {}).items()}
    url = config.get("public_url", vector["url"])
    secrets = secrets_of(vector) if secrets is None else secrets
    verifier = verifier_of(scheme, secrets, url, config)
    verifier = looks_into_parts(verifier, scheme, provider.form_payload)
    return endpoint_of(provider, scheme=vector["scheme"], verifier=verifier)


def meet(name, vector, request, secrets=None):
    """Receive the request; a body that is no payload is genuine all the same."""
    endpoint = endpoint_for(name, vector, secrets)
    try:
        return receive(endpoint, request, vector.get("now", FILE["fixed_clock_for_generated"]))
    except (BadPayload, WrongContentType):
        return None


@pytest.mark.parametrize(("name", "vector"), CASES or [NO_VECTORS])
def test_a_vector_is_genuine_exactly_if_it_says_so(name, vector):
    if vector["expected"] == "valid":
        meet(name, vector, request_in(vector))
        return
    with pytest.raises((NotGenuine, WrongMethod)) as caught:
        meet(name, vector, request_in(vector))
    assert caught.value.status in (catalogue.load(name).refusal_status, 405)


def test_the_vectors_cover_every_provider():
    if FILE is None:
        pytest.skip("no vectors beside the checkout")
    without = {"docker-hub", "monzo"}  # they sign nothing: what they get is a token of ours
    covered = {case.values[0] for case in VALID} | {name for name, *_ in GENUINE}
    assert covered == set(catalogue.names()) - without


def test_no_vector_and_no_handshake_is_left_out():
    if FILE is None:
        pytest.skip("no vectors beside the checkout")
    assert len(CASES) == sum(len(provider["vectors"]) for provider in FILE["providers"])
    known = set(catalogue.names())
    assert [t for t in FILE["handshake_tests"] if t["provider"] not in known] == []


#: Senders that use no signature publish no vectors; the standards that they follow do:
#: RFC 6750 §2.1 and RFC 7617 §2. (provider, scheme, secret, its header)
STANDARDS = [
    ("cloudevents", "default", b"mF_9.B5f-4.1JqM", "Bearer mF_9.B5f-4.1JqM"),
    ("azure-devops", "default", b"Aladdin:open sesame", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
]
#: Forms of a header for which nobody is known to have published a vector.
UNPUBLISHED = {("hmac", "list"), ("ed25519", "versioned")}


@pytest.mark.parametrize(("name", "scheme", "secret", "value"), STANDARDS)
def test_the_vector_of_a_standard_is_genuine_and_with_any_bit_changed_is_not(
    name, scheme, secret, value
):
    endpoint = endpoint_of(name, [secret], scheme)
    headers = {"Authorization": value, "Content-Type": "application/json", "ce-id": "1"}
    request = request_of(b"{}", headers)
    assert receive(endpoint, request).secret_index == 0
    scheme_bytes = len(value.partition(" ")[0])
    for place, changed in enumerate(flips(value.encode())):
        if place >= scheme_bytes:
            assert refusal(endpoint, with_header(request, "authorization", changed)).status == 401


def test_each_kind_of_scheme_has_a_vector_that_somebody_else_published():
    if FILE is None:
        pytest.skip("no vectors beside the checkout")
    every = [s for name in catalogue.names() for s in catalogue.load(name).schemes.values()]
    published = [
        catalogue.load(provider["id"]).schemes[vector["scheme"]]
        for provider in FILE["providers"]
        for vector in provider["vectors"]
        if vector["published"] and vector["expected"] == "valid"
    ] + [catalogue.load(name).schemes[scheme] for name, scheme, *_ in STANDARDS]
    assert {s.kind for s in every} == {s.kind for s in published}
    forms = {(s.kind, s.format) for s in every} - {(s.kind, s.format) for s in published}
    assert forms == UNPUBLISHED


def flips(text):
    """The bytes with one bit changed, at each place in turn."""
    for place in range(len(text)):
        yield text[:place] + bytes([text[place] ^ 1]) + text[place + 1 :]


@pytest.mark.parametrize(("name", "vector"), VALID or [NO_VECTORS])
def test_one_bit_makes_a_valid_vector_worthless(name, vector):
    request = request_in(vector)
    scheme = catalogue.load(name).schemes[vector["scheme"]]
    if scheme.covers_body and request.body and "{form_sorted}" not in scheme.message:
        for place in {0, len(request.body) // 2, len(request.body) - 1}:
            body = bytearray(request.body)
            body[place] ^= 1
            with pytest.raises(NotGenuine):
                meet(name, vector, copy_of(request, body=bytes(body)))
    for header in scheme.security_headers() & request.headers.keys():
        for changed in flips_that_count(name, vector, request, header.decode()):
            with pytest.raises(NotGenuine):
                meet(name, vector, changed)
    is_public = scheme.kind == "code" and scheme.key_encoding in ("pem", "der", "certificate")
    is_secret = scheme.kind not in ("rsa", "ecdsa", "jwt") and not is_public
    if is_secret and isinstance(vector["secret"], str):
        with pytest.raises(NotGenuine):
            meet(name, vector, request, [other_key(scheme, vector["secret"].encode())])


def flips_that_count(name, vector, request, header):
    """The request with each bit of the header changed; not in items that it can do without.

    A header may have signatures of other versions, or of other keys, beside the one that is right.
    """
    scheme = catalogue.load(name).schemes[vector["scheme"]]
    value = request.headers[header.encode()]
    is_list = scheme.format in ("kv", "versioned") and header in scheme.headers
    separator = (scheme.group_separator or scheme.separator).encode()
    items = value.split(separator) if is_list else [value]
    counting = 0
    for index, item in enumerate(items):
        others = items[:index] + items[index + 1 :]
        without = with_header(request, header, separator.join(others) if others else None)
        try:
            meet(name, vector, without)
        except NotGenuine:
            counting += 1
            for flipped in flips(item):
                if scheme.kind == "basic" and flipped[:6].lower() == item[:6].lower():
                    flipped = flipped[:6].swapcase() + flipped[6:]
                changed = separator.join([*items[:index], flipped, *items[index + 1 :]])
                yield with_header(request, header, changed)
    assert counting or len(value.split()) > 1 or len(scheme.headers) > 1


def other_key(scheme, secret):
    """Another key, with one bit changed: for base64, in the bytes that it stands for."""
    if scheme.kind == "ed25519":
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        public = Ed25519PrivateKey.from_private_bytes(b"k" * 32).public_key().public_bytes_raw()
        return public.hex().encode() if scheme.key_encoding == "hex" else base64.b64encode(public)
    if scheme.key_encoding in ("base64", "der"):
        text = secret.removeprefix(scheme.key_prefix.encode())
        return base64.b64encode(next(flips(base64.b64decode(text + b"=="))))
    if scheme.key_encoding == "hex":
        return (
            bytes([secret[0] ^ 1 if chr(secret[0] ^ 1) in "0123456789abcdef" else 48]) + secret[1:]
        )
    return next(flips(secret))


def endpoint_that_greets(test):
    """The endpoint of a handshake test, with its settings under our names."""
    config = dict(test["config"])
    secret = config.get("secret") or config.get("public_key") or "ab" * 32
    if "private_key" in config:
        secret = f"{config['public_key']}:{config['private_key']}"
    provider = catalogue.load(test["provider"])
    names = {"topic": "topics"}
    settings = {
        names.get(key, key): " ".join(value) if isinstance(value, list) else str(value)
        for key, value in config.items()
    }
    url = config.get("public_url", test["request"]["url"])
    greetings = [Greeting(h, secret.encode(), url, settings) for h in provider.handshakes]
    scheme = provider.schemes[provider.default_scheme]
    verifier = (
        Unsigned() if scheme.kind == "code" else verifier_of(scheme, [key_for(scheme, secret)])
    )
    return endpoint_of(
        provider,
        verifier=verifier,
        greetings=tuple(g for g in greetings if g.is_signed),
        openings=tuple(g for g in greetings if not g.is_signed),
    )


def key_for(scheme, secret):
    """The secret, where it can be one of the scheme; else one that can."""
    if scheme.kind in ("hmac", "ed25519", "token"):
        return secret.encode()
    return sample_secret(scheme, b"seed").encode()


@pytest.mark.parametrize("test", HANDSHAKES or [pytest.param(None, marks=pytest.mark.skip("none"))])
def test_a_handshake_is_answered_as_its_vector_says(test):
    request, expect = test["request"], test["expect"]
    url = urlsplit(request["url"])
    target = url.path + (f"?{url.query}" if url.query else "")
    made = request_of((request.get("body") or "").encode(), request["headers"], target.encode())
    made = copy_of(made, path=b"/hook", method=request["method"].encode())
    endpoint = endpoint_that_greets(test)
    now_s = test["config"].get("now", NOW_S)

    if expect["status"] >= 400:
        assert refusal(endpoint, made, now_s).status == expect["status"]
        return
    delivery = receive(endpoint, made, now_s)
    assert delivery.kind not in ("event", "ignored")
    assert delivery.reply is not None
    assert delivery.reply.status == expect["status"]
    headers = {name.lower(): value for name, value in delivery.reply.headers.items()}
    headers |= {"content-type": delivery.reply.content_type, "x-content-type-options": "nosniff"}
    assert expect.get("headers", {}).items() <= headers.items()
    if "body" in expect:
        assert delivery.reply.body == expect["body"]
    if "json" in expect:
        assert json.loads(delivery.reply.body) == expect["json"]
        assert delivery.reply.content_type == "application/json"
    if delivery.secret_index is not None and delivery.secret_index >= 0:
        for place, body in enumerate(flips(made.body)):
            if place % 10 == 0:
                changed = refusal(endpoint, copy_of(made, body=body), now_s)
                assert changed.status == endpoint.refusal_status


# --- formulas -------------------------------------------------------------------------------------

KEY = b"0123456789abcdef0123456789abcdef"
BODY = b'{ "id": "evt_1", "type": "t",\r\n "caf\xc3\xa9": 1.0 }'
STAMP = b"%d" % NOW_S


def hex_of(hash_name, message):
    return hmac.new(KEY, message, hash_name).hexdigest()


def base64_of(message):
    return base64.b64encode(hmac.new(KEY, message, "sha256").digest()).decode()


FORMULAS = [
    ("github", "default", {"X-Hub-Signature-256": "sha256=" + hex_of("sha256", BODY)}),
    ("github", "sha1", {"X-Hub-Signature": "sha1=" + hex_of("sha1", BODY)}),
    ("github", "sha512", {"X-Hub-Signature": "sha512=" + hex_of("sha512", BODY)}),
    ("github", "sha256_in_legacy_header",
     {"X-Hub-Signature": "sha256=" + hex_of("sha256", BODY)}),
    ("shopify", "default", {"X-Shopify-Hmac-Sha256": base64_of(BODY)}),
    ("shopify", "default", {"shopify-hmac-sha256": base64_of(BODY)}),
    ("slack", "default", {
        "X-Slack-Request-Timestamp": STAMP,
        "X-Slack-Signature": "v0=" + hex_of("sha256", b"v0:" + STAMP + b":" + BODY)}),
    ("stripe", "default", {
        "Stripe-Signature": f"t={NOW_S},v1=" + hex_of("sha256", STAMP + b"." + BODY)}),
    ("stripe", "default", {
        "Stripe-Signature": f"t={NOW_S}, v1=" + hex_of("sha256", STAMP + b"." + BODY) + ",v0=1"}),
    ("standard-webhooks", "default", {
        "webhook-id": "msg_1", "webhook-timestamp": STAMP,
        "webhook-signature": "v1," + base64_of(b"msg_1." + STAMP + b"." + BODY)}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "scheme", "headers"), FORMULAS)
def test_what_the_providers_formula_signs_is_genuine_and_with_any_bit_changed_is_not(
    name, scheme, headers
):
    is_base64 = catalogue.load(name).schemes[scheme].key_encoding == "base64"
    secret = b"whsec_" + base64.b64encode(KEY) if is_base64 else KEY
    endpoint = endpoint_of(name, [secret], scheme)
    request = request_of(BODY, headers)
    assert receive(endpoint, request).secret_index == 0

    for body in flips(BODY):
        assert refusal(endpoint, copy_of(request, body=body)).status == 401
    for header, value in request.headers.items():
        end = value.find(b",v0=")  # of a version that is not looked at
        for flipped in flips(value[: end if end >= 0 else len(value)]):
            changed = flipped + value[len(flipped) :]
            if changed.replace(b"!v1", b" v1") != value:
                assert (
                    refusal(endpoint, with_header(request, header.decode(), changed)).status == 401
                )
    for key in flips(KEY):
        other = base64.b64encode(key) if is_base64 else key
        assert refusal(endpoint_of(name, [other], scheme), request).status == 401
