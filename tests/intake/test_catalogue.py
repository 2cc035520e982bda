"""The catalogue: each description loads, and what it describes signs and verifies."""

import msgspec
import pytest

from fasthook.errors import ConfigError
from fasthook.intake import catalogue
from fasthook.intake.catalogue import NONE, Provider, custom
from fasthook.intake.handshakes import Handover, Handshake, HandshakeReply
from fasthook.intake.schemes import Scheme
from fasthook.intake.signing import sample_secret
from tests.intake.support import PROVIDERS, endpoint_of, receive, request_of, signed

HEADERS = {"content-type": "application/json"}
HANDOVER = Handover(at="header:x-s", pattern="[a-z]+", ask="")
WHEN = {"header:x-s": "*"}


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_description_loads_and_says_what_an_operator_needs(name):
    provider = catalogue.load(name)

    assert provider.id == name
    assert provider.docs.startswith("https://")
    assert provider.samples
    assert provider.setup
    assert provider.retries
    assert catalogue.load(name) is provider


@pytest.mark.parametrize("name", PROVIDERS)
def test_every_sample_signs_verifies_and_has_a_type(name):
    provider = catalogue.load(name)
    for scheme_name, scheme in provider.schemes.items():
        if scheme.kind == "ed25519":
            continue  # its secret is not what verifies: see test_signatures
        secret = sample_secret(scheme, b"x").encode()
        endpoint = endpoint_of(provider, [secret], scheme_name)
        for event_type, sample in provider.samples.items():
            headers = dict(HEADERS)
            for selector in provider.event_type_of(scheme)[:1]:
                if selector.startswith("header:"):
                    headers[selector.removeprefix("header:")] = event_type
            delivery = receive(endpoint, signed(scheme, sample.encode(), secret, **headers))
            assert delivery.event_type == event_type
            assert delivery.event_id


@pytest.mark.parametrize(
    ("name", "is_signed"),
    [("github", False), ("stripe", True), ("slack", True), ("shopify", False),
     ("standard-webhooks", True)],
)  # fmt: skip
def test_whether_the_event_id_is_signed_is_known(name, is_signed):
    provider = catalogue.load(name)
    for scheme in provider.schemes.values():
        assert provider.signs_event_id(scheme) is is_signed


def test_a_token_signs_no_event_id():
    provider = custom(Scheme(header="x", kind="token", event_id="json:id"))
    assert not provider.signs_event_id(provider.schemes["default"])


def test_no_event_id_is_no_signed_event_id():
    provider = custom(Scheme(header="x"))
    assert not provider.signs_event_id(provider.schemes["default"])


@pytest.mark.parametrize("name", ["", "nobody", "../providers/github", "github.toml", "GitHub"])
def test_an_unknown_provider_is_a_configuration_error(name):
    with pytest.raises(ConfigError, match="in the catalogue"):
        catalogue.load(name)


def test_security_headers_are_those_of_all_schemes():
    headers = catalogue.security_headers()

    assert {b"x-hub-signature", b"x-hub-signature-256", b"stripe-signature"} <= headers
    assert {b"x-slack-request-timestamp", b"webhook-id", b"webhook-timestamp"} <= headers
    assert {b"x-shopify-hmac-sha256", b"shopify-hmac-sha256"} <= headers
    assert b"x-hook-secret" in headers


@pytest.mark.parametrize(
    "settings",
    [
        {"schemes": {"default": Scheme(header="")}},
        {"event_id": "id"},
        {"event_type": ["json:a", "b"]},
        {"handshakes": [Handshake(name="h", when={"type": "x"})]},
        {
            "handshakes": [
                Handshake(name="h", when={"json:type": "x"}, reply=HandshakeReply(body="{x}"))
            ]
        },
        {"handshakes": [Handshake(name="h", is_signed=False)]},
        {"handshakes": [Handshake(name="h", handover=HANDOVER)]},
        {"handshakes": [Handshake(name="h", handover=HANDOVER, when=WHEN)]},
        {"handshakes": [Handshake(name="h", handover=HANDOVER, is_signed=False)]},
        {
            "handshakes": [
                Handshake(name="h", handover=HANDOVER, is_signed=False, when={"header:x-s": "y"})
            ]
        },
    ],
)
def test_a_description_that_cannot_be_meant_is_refused(settings):
    parts = {"schemes": {"default": Scheme(header="x")}, **settings}
    provider = Provider(id="x", name="X", category="c", docs="", **parts)
    with pytest.raises(ValueError, match="expected|every POST"):
        provider.check()


def test_a_secret_is_handed_over_unsigned_and_always_there():
    handshake = Handshake(name="h", handover=HANDOVER, is_signed=False, when=WHEN)
    schemes = {"default": Scheme(header="x")}
    provider = Provider(
        id="x", name="X", category="c", docs="", schemes=schemes, handshakes=[handshake]
    )
    provider.check()
    assert provider.handover_headers == {b"x-s"}


def test_an_unknown_key_in_a_description_is_refused():
    with pytest.raises(msgspec.ValidationError, match="secrets"):
        msgspec.convert({"id": "x", "secrets": []}, Provider)


def test_an_endpoint_of_its_own_scheme_has_its_ids():
    provider = custom(Scheme(header="x", event_id="json:key", event_type=["header:x-type"]))
    scheme = provider.schemes["default"]
    delivery = receive(endpoint_of(provider), signed(scheme, b'{"key":7}', x_type="t"))

    assert (delivery.event_id, delivery.event_type) == ("7", "t")


def test_no_verification_has_no_scheme():
    assert NONE.schemes == {}
    assert request_of().headers == {}
