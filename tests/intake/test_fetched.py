"""Which key is wanted and which are had, on a clock that is set by hand; what senders publish."""

import base64
import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from fasthook.errors import (
    BadSignature,
    ConfigError,
    KeyNeeded,
    KeyUnavailable,
    NoSignature,
    UnknownKey,
)
from fasthook.intake import catalogue, fetched
from fasthook.intake.fetched import (
    MAX_FAILURES,
    MAX_KEPT,
    MIN_INTERVAL_S,
    FetchedVerifier,
    KeyStore,
    Locator,
    Wanted,
)
from fasthook.intake.published import MAX_BYTES, read
from fasthook.intake.schemes import KeySource, Scheme
from fasthook.intake.signatures import verifier_of
from fasthook.remote.client import trusted_roots
from tests.intake.support import request_of
from tests.remote.keyserver import PEM, Authority

WANTED = Wanted("https://keys.test/set", "jwks", "jwt")
RSA = rsa.generate_private_key(65537, 2048)


class Kept:
    """A store and its clock."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.store = KeyStore(lambda: self.now_s)
        self.due: list[Wanted] = []
        self.store.on_due = self.due.append

    def secrets(self, wanted: Wanted = WANTED) -> tuple[bytes, ...]:
        return self.store.get(wanted).secrets


@pytest.fixture
def kept() -> Kept:
    return Kept()


def test_what_was_never_fetched_is_needed(kept):
    with pytest.raises(KeyNeeded) as caught:
        kept.secrets()
    assert caught.value.wanted == WANTED


def test_what_was_fetched_is_used_renewed_in_time_and_never_past_its_life(kept):
    kept.store.put(WANTED, [b"one"], 1000)
    kept.now_s += 749
    assert kept.secrets() == (b"one",)
    assert not kept.due
    kept.now_s += 2
    assert kept.secrets() == (b"one",)
    assert kept.due == [WANTED]
    kept.store.put(WANTED, [b"two"], 1000)
    assert kept.secrets() == (b"two",)
    kept.now_s += 999
    assert kept.secrets() == (b"two",)
    kept.now_s += 1
    with pytest.raises(KeyNeeded):
        kept.secrets()


def test_while_it_can_not_be_renewed_it_is_used_to_its_end_and_asked_for_now_and_then(kept):
    kept.store.put(WANTED, [b"one"], 1000)
    kept.now_s += 800
    assert kept.store.fail(WANTED, "down") == 5
    for _ in range(3):
        assert kept.secrets() == (b"one",)
    assert not kept.due
    kept.now_s += 6
    kept.secrets()
    assert kept.due == [WANTED]
    kept.now_s += 180
    assert kept.store.fail(WANTED, "down") == 10
    kept.now_s += 15
    with pytest.raises(KeyNeeded):
        kept.secrets()
    kept.store.fail(WANTED, "down")
    with pytest.raises(KeyUnavailable, match="no key from https://keys.test/set: down"):
        kept.secrets()


def test_failures_space_the_tries_up_to_a_minute_and_are_forgotten_by_a_success(kept):
    waits = [kept.store.fail(WANTED, "down") for _ in range(7)]
    assert waits == [5, 10, 20, 40, 60, 60, 60]
    with pytest.raises(KeyUnavailable) as caught:
        kept.secrets()
    assert (caught.value.status, caught.value.retry_after_s) == (503, 60)
    kept.now_s += 60
    with pytest.raises(KeyNeeded):
        kept.secrets()
    kept.store.put(WANTED, [b"one"], 1000)
    assert kept.store.fail(WANTED, "down") == 5


def test_a_newer_set_is_asked_for_at_most_once_a_minute(kept):
    kept.store.put(WANTED, [b"one"], 1000)
    fetches = 0
    for _ in range(1200):
        kept.now_s += 0.5
        try:
            kept.store.check_anew(WANTED)
        except KeyNeeded:
            fetches += 1
            kept.store.put(WANTED, [b"one"], 1000)
    assert fetches == 600 // MIN_INTERVAL_S
    kept.now_s += 61
    kept.store.fail(WANTED, "down")
    with pytest.raises(KeyUnavailable):
        kept.store.check_anew(WANTED)


def test_the_minute_is_what_bounds_it(kept, monkeypatch):
    monkeypatch.setattr(fetched, "MIN_INTERVAL_S", 0.0)
    kept.store.put(WANTED, [b"one"], 1000)
    with pytest.raises(KeyNeeded):
        kept.store.check_anew(WANTED)


def test_what_is_kept_is_bounded_and_failures_push_no_key_out(kept):
    urls = [Wanted(f"https://keys.test/{n}", "jwks", "jwt") for n in range(2 * MAX_FAILURES)]
    for wanted in urls[: MAX_KEPT + 10]:
        kept.store.put(wanted, [b"one"], 1000)
        kept.store.get(urls[0])  # used all the time, so that it stays
    for wanted in urls:
        kept.store.fail(wanted, "down")
    assert len(kept.store) == MAX_KEPT
    assert len(kept.store._failed) == MAX_FAILURES
    assert kept.secrets(urls[0]) == (b"one",)
    assert kept.secrets(urls[MAX_KEPT + 9]) == (b"one",)
    with pytest.raises(KeyNeeded):
        kept.store.get(urls[1])


def test_a_life_of_nothing_is_no_reason_to_fetch_for_ever(kept):
    kept.store.put(WANTED, [b"one"], 0)
    assert kept.secrets() == (b"one",)


# --- where it is ----------------------------------------------------------------------------------


def sns(url):
    return request_of(json.dumps({"SigningCertURL": url}).encode())


def paypal(url):
    return request_of(b"", {"PAYPAL-CERT-URL": url, "PAYPAL-TRANSMISSION-SIG": "x"})


REGIONS = [
    ("us-east-1", ""), ("eu-central-1", ""), ("ap-southeast-5", ""), ("us-gov-west-1", ""),
    ("cn-northwest-1", ".cn"), ("mx-central-1", ""), ("il-central-1", ""),
]  # fmt: skip


@pytest.mark.parametrize(("region", "ending"), REGIONS)
def test_each_region_of_aws_has_its_host_and_its_names(region, ending):
    scheme = catalogue.load("aws-sns").schemes["default"]
    url = f"https://sns.{region}.amazonaws.com{ending}/SimpleNotificationService-5416b31f.pem"
    wanted = Locator(scheme, scheme.fetch).wanted(sns(url))
    assert (wanted.url, wanted.host) == (url, f"sns.{region}.amazonaws.com{ending}")
    expected = {
        f"sns-signing.{region}.amazonaws.com{ending}",
        f"sns.{region}.amazonaws.com{ending}",
    }
    assert expected < set(wanted.names)
    assert not [name for name in wanted.names if "{" in name]


@pytest.mark.parametrize(
    "host", catalogue.load("paypal").schemes["default"].fetch.hosts
)  # what is said there is what is taken
def test_paypals_hosts_are_those_that_are_said(host):
    scheme = catalogue.load("paypal").schemes["default"]
    url = f"https://{host}/v1/notifications/certs/CERT-360caa42-fca2a594-1d93a270"
    locator = Locator(scheme, scheme.fetch)
    assert locator.wanted(paypal(url)).url == url
    for bad in (
        f"{url}/../x",
        f"{url}?x",
        url.replace("https", "http"),
        f"https://x{url[8:]}",
        f"{url}, {url}",
    ):
        with pytest.raises(NoSignature, match="none of its sender's"):
            locator.wanted(paypal(bad))
    with pytest.raises(NoSignature, match="does not say"):
        locator.wanted(request_of(b"", {"PAYPAL-TRANSMISSION-SIG": "x"}))
    with pytest.raises(NoSignature, match="no paypal-transmission-sig header"):
        locator.wanted(request_of(b"", {"PAYPAL-CERT-URL": url}))


@pytest.mark.parametrize(
    "source",
    [
        {"kind": "jwks"}, {"kind": "jwks", "url": "http://x.test"}, {"kind": "json", "url": "https://x.test"},
        {"kind": "jwks", "url": "https://x.test", "path": "a.b"}, {"kind": "certificate", "url": "https://x.test"},
        {"kind": "jwks", "url": "https://x.test", "at": "header:x"}, {"kind": "jwks", "at": "header:x", "hosts": ["x"]},
        {"kind": "jwks", "at": "header:x", "pattern": "https://x", "names": ["x"], "hosts": ["x"]},
        {"kind": "certificate", "at": "nowhere", "pattern": "https://x", "names": ["x"], "hosts": ["x"]},
        {"kind": "certificate", "at": "header:x", "pattern": ".*", "names": ["x"], "hosts": ["x"]},
    ],
)  # fmt: skip
def test_a_source_that_can_not_be_meant_is_refused(source):
    with pytest.raises(ValueError, match="fetch"):
        KeySource(**source).check()


def test_a_source_may_name_no_group_that_its_pattern_has_not():
    source = KeySource(
        kind="certificate", at="header:x", pattern="https://x", names=["{y}"], hosts=["x"]
    )
    with pytest.raises(ValueError, match=r"fetch\.names: \{y\}"):
        source.check()


# --- verifying ------------------------------------------------------------------------------------


def verifier(kept, names_keys=True, fails=False):
    scheme = Scheme(
        kind="jwt", header="x", claims=catalogue.load("plaid").schemes["default"].claims
    )

    class Fake:
        error: Exception | None = None

        def verify(self, request, now_s):
            if self.error is not None:
                raise self.error
            return 3

    fake = Fake()

    def build(secrets):
        if fails:
            raise ConfigError("the public key can't be read")
        return fake

    source = KeySource(kind="jwks", url=WANTED.url)
    return fake, FetchedVerifier(Locator(scheme, source), kept.store, build, names_keys=names_keys)


def test_an_unknown_key_asks_for_a_newer_set_and_a_bad_signature_does_not(kept):
    fake, checked = verifier(kept)
    kept.store.put(WANTED, [b"one"], 1000)
    assert checked.verify(request_of(b"", {"x": "y"}), 0) == 0, "all of a set are one sender's"
    fake.error = BadSignature("bad")
    kept.now_s += 100
    with pytest.raises(BadSignature):
        checked.verify(request_of(b"", {"x": "y"}), 0)
    fake.error = UnknownKey("unknown")
    with pytest.raises(KeyNeeded):
        checked.verify(request_of(b"", {"x": "y"}), 0)
    kept.store.put(WANTED, [b"two"], 1000)
    with pytest.raises(UnknownKey):
        checked.verify(request_of(b"", {"x": "y"}), 0)
    fake.error = None
    assert checked.verify(request_of(b"", {"x": "y"}), 0) == 0


def test_where_signatures_do_not_name_their_key_a_bad_one_may_be_of_a_new_one(kept):
    fake, checked = verifier(kept, names_keys=False)
    kept.store.put(WANTED, [b"one"], 1000)
    fake.error = BadSignature("bad")
    with pytest.raises(BadSignature):
        checked.verify(request_of(b"", {"x": "y"}), 0)
    kept.now_s += 61
    with pytest.raises(KeyNeeded):
        checked.verify(request_of(b"", {"x": "y"}), 0)


def test_a_key_of_another_kind_than_the_scheme_needs_is_as_good_as_none(kept):
    _, checked = verifier(kept, fails=True)
    kept.store.put(WANTED, [b"one"], 1000)
    for _ in range(2):
        with pytest.raises(KeyUnavailable, match="can't be read"):
            checked.verify(request_of(b"", {"x": "y"}), 0)
    kept.now_s += 6
    with pytest.raises(KeyNeeded):
        checked.verify(request_of(b"", {"x": "y"}), 0)


# --- what is published ----------------------------------------------------------------------------


def certificate_of(*names):
    return Wanted("https://keys.test/c.pem", "certificate", "rsa", names)


@pytest.fixture(scope="module")
def authority():
    return Authority()


def refusal(wanted, content, roots=b"", now_s=None):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - what it says is looked at by who asks
        read(wanted, content, None, roots, now_s or time.time())
    return str(caught.value)


@pytest.mark.parametrize(
    ("said", "expected"), [(None, 3600), (0.0, 300), (900.0, 900), (10.0**9, 86_400)]
)
def test_the_life_of_a_set_is_bounded(said, expected):
    content = json.dumps({"keys": [{"kty": "RSA"}]}).encode()
    assert read(WANTED, content, said, b"", 0).life_s == expected


def test_a_certificate_lives_no_longer_than_it_is_valid(authority):
    _, pem = authority.issue("a.test", key=RSA, days=0.01)
    found = read(certificate_of("a.test"), pem, 86_400.0, b"", time.time())
    assert 800 < found.life_s <= 864
    verifier_of(Scheme(kind="rsa", header="x", key_encoding="certificate"), found.secrets)


def test_certificates_of_others_and_of_other_times_are_refused(authority):
    _, pem = authority.issue("a.test", "b.test", key=RSA)
    assert read(certificate_of("x.test", "b.test"), pem, None, b"", time.time()).secrets
    assert (
        refusal(certificate_of("c.test"), pem)
        == "the certificate is issued to a.test, b.test; expected c.test"
    )
    assert "not now" in refusal(certificate_of("a.test"), pem, now_s=time.time() + 11 * 86_400)
    assert "not now" in refusal(certificate_of("a.test"), pem, now_s=time.time() - 2 * 86_400)
    assert refusal(certificate_of("a.test"), b"junk")
    assert refusal(certificate_of("a.test"), b"")
    assert "9 certificates" in refusal(certificate_of("a.test"), pem * 9)


def test_a_chain_has_to_lead_to_a_known_root(authority):
    _, pem = authority.issue("a.test", key=RSA)
    wanted = certificate_of("a.test")._replace(is_chained=True)
    assert read(wanted, pem, None, authority.root_pem, time.time()).secrets
    assert "no known root" in refusal(wanted, pem, Authority().root_pem)
    assert "no known root" in refusal(wanted, pem + Authority().root_pem, Authority().root_pem)


def test_of_the_roots_those_that_can_be_read_count(authority):
    _, pem = authority.issue("a.test", key=RSA)
    wanted = certificate_of("a.test")._replace(is_chained=True)
    broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    assert read(wanted, pem, None, b"# ours\n" + broken + authority.root_pem, time.time()).secrets
    assert "no root certificate is known here" in refusal(wanted, pem, broken)


def test_the_systems_roots_can_be_read_and_are_not_ours(authority):
    _, pem = authority.issue("a.test", key=RSA)
    wanted = certificate_of("a.test")._replace(is_chained=True)
    assert "no known root" in refusal(wanted, pem, trusted_roots(""))


def test_a_certificate_that_signs_itself_is_no_chain(authority):
    forged = Authority()
    _, pem = forged.issue("a.test", key=RSA)
    wanted = certificate_of("a.test")._replace(is_chained=True)
    assert "no known root" in refusal(wanted, pem + forged.root_pem, authority.root_pem)


def jwk(private, **more):
    public = private.public_key()
    kind = (
        jwt.algorithms.RSAAlgorithm
        if isinstance(private, rsa.RSAPrivateKey)
        else jwt.algorithms.ECAlgorithm
    )
    return json.loads(kind.to_jwk(public)) | more


def test_a_set_gives_its_public_keys_and_no_others():
    ecdsa = ec.generate_private_key(ec.SECP256R1())
    listed = [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "shared", "alg": "HS256"}, {"kty": "new"},
        jwk(RSA, kid="r"), jwk(ecdsa, kid="e"), jwk(RSA, kid="enc", use="enc"),
    ]  # fmt: skip
    (secret,) = read(WANTED, json.dumps({"keys": listed}).encode(), None, b"", 0).secrets
    assert b"shared" not in secret
    claims = {"algorithms": ["HS256", "RS256", "ES256"]}
    scheme = Scheme(
        kind="jwt",
        header="x",
        claims=type(catalogue.load("plaid").schemes["default"].claims)(**claims),
    )
    checked = verifier_of(scheme, [secret])

    def sent(key, algorithm, kid):
        return request_of(b"", {"x": jwt.encode({"a": 1}, key, algorithm, {"kid": kid})})

    assert checked.verify(sent(RSA, "RS256", "r"), 0) == 0
    assert checked.verify(sent(ecdsa, "ES256", "e"), 0) == 0
    for key, algorithm, kid in (
        (b"s" * 32, "HS256", "shared"),
        (RSA, "RS256", "enc"),
        (RSA, "RS256", "none"),
    ):
        with pytest.raises(UnknownKey):
            checked.verify(sent(key, algorithm, kid), 0)
    with pytest.raises(BadSignature) as caught:
        checked.verify(sent(rsa.generate_private_key(65537, 2048), "RS256", "r"), 0)
    assert not isinstance(caught.value, UnknownKey)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no key set"), (b"[]", "no key set"), (b"{}", "no key set"), (b'{"keys": 7}', "no key set"),
        (b'{"keys": [7]}', "no key set"), (b'{"keys": []}', "no public key"), (b"[" * 100_000, "no key set"),
        (b'{"keys": [{"kty": ["x"]}]}', "no key set"), (b'{"keys": [{"kty": "oct", "k": "x"}]}', "no public key"),
        (json.dumps({"keys": [{"kty": "RSA"}] * 33}).encode(), "33 keys in the set, limit 32"), (b"\xff", "no key set"),
    ],
)  # fmt: skip
def test_what_is_no_set_is_none(content, reason):
    assert len(content) < MAX_BYTES
    assert reason in refusal(WANTED, content)


@pytest.mark.parametrize("name", ["kick", "travisci"])
def test_a_key_may_stand_in_json_of_another_form(name):
    scheme = catalogue.load(name).schemes["default"]
    wanted = Locator(scheme, scheme.fetch).fixed
    public = RSA.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    document: object = public.decode()
    for part in reversed(wanted.path.split(".")):
        document = {part: document}
    found = read(wanted, json.dumps(document).encode(), None, b"", 0)
    assert found.secrets == [public]
    verifier_of(scheme, found.secrets)
    for bad in (b"", b"{}", b"[]", b"7", json.dumps({wanted.path.split(".")[0]: 7}).encode()):
        assert refusal(wanted, bad) == f"it has no key at {wanted.path}"
    text = json.dumps(document).replace("BEGIN", "BEGUN").encode()
    assert "no key in PEM" in refusal(wanted, text)


def test_ed25519_keys_of_a_set_are_raw_ones():
    keys = [ed25519.Ed25519PrivateKey.generate().public_key().public_bytes_raw() for _ in range(2)]
    listed = [
        {"kty": "OKP", "crv": "Ed25519", "x": base64.urlsafe_b64encode(k).decode().rstrip("=")}
        for k in keys
    ]
    wanted = WANTED._replace(form="ed25519")
    content = json.dumps({"keys": [{"kty": "RSA"}, *listed]}).encode()
    assert [base64.b64decode(s) for s in read(wanted, content, None, b"", 0).secrets] == keys
    assert refusal(wanted, b'{"keys": [{"kty": "RSA"}]}') == "the set has no Ed25519 key"
    assert refusal(wanted, b'{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": 7}]}')
