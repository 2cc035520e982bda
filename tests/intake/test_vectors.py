"""Signatures made elsewhere: by formulas written out here, and by vectors of the providers.

The latter are read from a folder beside the checkout, where there is one.
"""

import base64
import hmac
import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from fasthook.errors import BadPayload, NotGenuine
from fasthook.intake import catalogue
from tests.intake.support import (
    NOW_S,
    PROVIDERS,
    copy_of,
    endpoint_of,
    receive,
    refusal,
    request_of,
    with_header,
)

VECTORS = Path(__file__).parents[3] / "shared" / "vectors" / "providers.json"
FILE = json.loads(VECTORS.read_bytes()) if VECTORS.exists() else None
CASES = [
    pytest.param(provider["id"], vector, id=f"{provider['id']}-{vector['id']}")
    for provider in (FILE["providers"] if FILE else [])
    if provider["id"] in PROVIDERS
    for vector in provider["vectors"]
]
HANDSHAKES = [
    pytest.param(test, id=f"{test['provider']}-{test['name']}")
    for test in (FILE["handshake_tests"] if FILE else [])
    if test["provider"] in PROVIDERS
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
    request = request_of(body_of(vector), vector["headers"], target.encode())
    return copy_of(request, path=b"/hook", method=vector["method"].encode())


def meet(name, vector, request, secret=None):
    """Receive the request; a body that is no payload is genuine all the same."""
    secret = vector["secret"].encode() if secret is None else secret
    endpoint = endpoint_of(name, [secret], vector["scheme"])
    try:
        return receive(endpoint, request, vector.get("now", FILE["fixed_clock_for_generated"]))
    except BadPayload:
        return None


@pytest.mark.parametrize(("name", "vector"), CASES or [NO_VECTORS])
def test_a_vector_is_genuine_exactly_if_it_says_so(name, vector):
    if vector["expected"] == "valid":
        meet(name, vector, request_in(vector))
        return
    with pytest.raises(NotGenuine) as caught:
        meet(name, vector, request_in(vector))
    assert caught.value.status == 401


def test_the_vectors_cover_every_provider():
    if FILE is None:
        pytest.skip("no vectors beside the checkout")
    assert {case.values[0] for case in VALID} == set(PROVIDERS)


def flips(text):
    """The bytes with one bit changed, at each place in turn."""
    for place in range(len(text)):
        yield text[:place] + bytes([text[place] ^ 1]) + text[place + 1 :]


@pytest.mark.parametrize(("name", "vector"), VALID or [NO_VECTORS])
def test_one_bit_makes_a_valid_vector_worthless(name, vector):
    request = request_in(vector)
    scheme = catalogue.load(name).schemes[vector["scheme"]]
    for place in {0, len(request.body) // 2, len(request.body) - 1} if request.body else ():
        body = bytearray(request.body)
        body[place] ^= 1
        with pytest.raises(NotGenuine):
            meet(name, vector, copy_of(request, body=bytes(body)))
    for header in scheme.security_headers() & request.headers.keys():
        for changed in flips_that_count(name, vector, request, header.decode()):
            with pytest.raises(NotGenuine):
                meet(name, vector, changed)
    with pytest.raises(NotGenuine):
        meet(name, vector, request, other_key(scheme, vector["secret"].encode()))


def flips_that_count(name, vector, request, header):
    """The request with each bit of the header changed; not in items that it can do without.

    A header may have signatures of other versions, or of other keys, beside the one that is right.
    """
    scheme = catalogue.load(name).schemes[vector["scheme"]]
    value = request.headers[header.encode()]
    is_list = scheme.format != "raw" and header in scheme.headers
    separator = scheme.separator.encode()
    items = value.split(separator) if is_list else [value]
    counting = 0
    for index, item in enumerate(items):
        others = items[:index] + items[index + 1 :]
        try:
            meet(name, vector, with_header(request, header, separator.join(others)))
        except NotGenuine:
            counting += 1
            for flipped in flips(item):
                changed = separator.join([*items[:index], flipped, *items[index + 1 :]])
                yield with_header(request, header, changed)
    assert counting == (2 if scheme.format == "kv" and is_list else 1)


def other_key(scheme, secret):
    """Another key, with one bit changed: for base64, in the bytes that it stands for."""
    if scheme.kind == "ed25519":
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return base64.b64encode(
            Ed25519PrivateKey.from_private_bytes(b"k" * 32).public_key().public_bytes_raw()
        )
    if scheme.key_encoding == "base64":
        text = secret.removeprefix(scheme.key_prefix.encode())
        return base64.b64encode(next(flips(base64.b64decode(text + b"=="))))
    return next(flips(secret))


@pytest.mark.parametrize("test", HANDSHAKES or [pytest.param(None, marks=pytest.mark.skip("none"))])
def test_a_handshake_is_answered_as_its_vector_says(test):
    request = test["request"]
    made = copy_of(request_of(request["body"].encode(), request["headers"]))
    endpoint = endpoint_of(test["provider"], [test["config"]["secret"].encode()])
    delivery = receive(endpoint, made, test["config"]["now"])

    assert delivery.kind == test["name"]
    assert delivery.reply is not None
    assert delivery.reply.status == test["expect"]["status"]
    assert delivery.reply.content_type == test["expect"]["headers"]["content-type"]
    assert delivery.reply.body == test["expect"]["body"]
    for place, body in enumerate(flips(made.body)):
        if place % 10 == 0:
            assert refusal(endpoint, copy_of(made, body=body)).status == 401


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
