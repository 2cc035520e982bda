"""The order of the checks, and what each of them costs whom."""

from typing import Any

import msgspec
import orjson
import pytest

from fasthook.errors import (
    BadPayload,
    BadSignature,
    ClientNotAllowed,
    NotGenuine,
    RateExceeded,
    Rejection,
    UnknownPath,
    WrongContentType,
    WrongMethod,
)
from fasthook.intake import catalogue
from fasthook.intake.handshakes import Greeting, Handshake, Unpaired
from fasthook.intake.identify import Identifier
from fasthook.intake.limiter import ClientBuckets, TokenBucket
from fasthook.intake.network import AllowList
from fasthook.intake.payloads import Bodies
from fasthook.intake.signatures import Observer, verifier_of
from fasthook.logs import log
from fasthook.model import Reply
from tests.intake.support import (
    NOW_S,
    PROVIDERS,
    SECRET,
    copy_of,
    endpoint_of,
    receive,
    receiver_of,
    refusal,
    request_of,
    signed,
    with_header,
)

GITHUB = catalogue.load("github").schemes["default"]
SLACK = catalogue.load("slack").schemes["default"]
JSON = {"content_type": "application/json"}
CLIENT = "192.0.2.1"
WALL_NS = NOW_S * 10**9


class Counting:
    """Stands for a verifier, identifier or bucket: counts its calls, then asks the real one."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            self.calls += 1
            return getattr(self._real, name)(*arguments)

        return call


def push(body: bytes = b'{"ref":"main"}', **headers: str):
    return signed(GITHUB, body, x_github_event="push", x_github_delivery="d1", **headers)


def test_a_genuine_request_becomes_a_delivery():
    request = push()
    request.head = b"POST /hook HTTP/1.1\r\n\r\n"
    delivery = receive(endpoint_of("github"), request)

    assert (delivery.endpoint, delivery.provider) == ("hook", "github")
    assert (delivery.event_id, delivery.event_type, delivery.kind) == ("d1", "push", "event")
    assert (delivery.head, delivery.body) == (request.head, request.body)
    assert (delivery.client, delivery.secret_index) == (CLIENT, 0)
    assert delivery.received_at_ns == WALL_NS
    assert delivery.reply is None


# --- order ----------------------------------------------------------------------------------------


def test_each_check_comes_before_the_next():
    """A request that breaks every rule is told of them one by one, as each is mended."""
    bucket = TokenBucket(1, 1)
    verifier = endpoint_of("github").verifier
    endpoint = endpoint_of(
        "github", bucket=bucket, allow=AllowList(["192.0.2.0/24"]), retries_429=True
    )
    buckets = ClientBuckets(1, 1)
    receiver = receiver_of(endpoint, unverified=buckets)
    buckets.charge("203.0.113.1", 0.0)
    buckets.charge("192.0.2.9", 0.0)
    bucket.take(0.0)

    request = push(b"{", content_type="text/plain", content_encoding="gzip")
    request = copy_of(request, method=b"GET", path=b"/other")
    request.headers[b"x-hub-signature-256"] = b"sha256=00"

    def status(peer: str, now_s: float = 0.0) -> int:
        with pytest.raises(Rejection) as caught:
            receiver.receive(request, peer, now_s, WALL_NS)
        return caught.value.status

    assert status("192.0.2.9") == 503  # shed: refused too often
    assert status("203.0.113.2") == 404
    request.path = b"/hook"
    assert status("203.0.113.3") == 405
    request.method = b"POST"
    assert status("203.0.113.4") == 403
    assert status("192.0.2.1") == 401
    request = push(b"{", content_type="text/plain", content_encoding="gzip")
    assert verifier.verify(request, NOW_S) == 0
    assert status("192.0.2.2") == 429
    assert status("192.0.2.2", 1.0) == 415
    del request.headers[b"content-encoding"]
    assert status("192.0.2.2", 2.0) == 415
    request.headers[b"content-type"] = b"application/json"
    assert status("192.0.2.2", 3.0) == 400


@pytest.mark.parametrize(
    "path", [b"/hook/", b"/hook/../hook", b"//hook", b"/HOOK", b"/%68ook", b""]
)
def test_a_path_is_known_exactly_or_not_at_all(path):
    error = refusal(endpoint_of("github"), copy_of(push(), path=path))
    assert isinstance(error, UnknownPath)
    assert (error.status, error.endpoint, error.client) == (404, "", CLIENT)


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"post"])
def test_another_method_is_refused_though_signed(method):
    error = refusal(endpoint_of("github"), copy_of(push(), method=method))
    assert isinstance(error, WrongMethod)
    assert (error.status, error.allow, error.endpoint) == (405, "POST", "hook")


def test_a_client_off_the_list_is_refused_though_it_signs():
    error = refusal(endpoint_of("github", allow=AllowList(["10.0.0.0/8"])), push())
    assert isinstance(error, ClientNotAllowed)


def test_a_spoofed_address_opens_no_allow_list():
    endpoint = endpoint_of("github", allow=AllowList(["10.0.0.0/8"]))
    spoofing = push(X_Forwarded_For="10.0.0.1")
    assert isinstance(refusal(endpoint, spoofing), ClientNotAllowed)
    assert receive(endpoint, spoofing, peer="127.0.0.1").client == "10.0.0.1"
    for value in (b"nonsense", b""):
        with pytest.raises(ClientNotAllowed):
            receive(endpoint, with_header(push(), "x-forwarded-for", value), peer="127.0.0.1")


def test_a_rejection_carries_client_and_endpoint():
    error = refusal(endpoint_of("github", name="gh"), request_of())
    assert (error.endpoint, error.client) == ("gh", CLIENT)
    assert isinstance(error, NotGenuine)


# --- before the signature -------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.patches
def test_before_the_signature_nothing_is_decoded_and_no_token_is_taken(name):
    plain = endpoint_of(name)
    identifier, bucket = Counting(plain.identifier), Counting(TokenBucket(1, 1))
    endpoint = endpoint_of(name, identifier=identifier, bucket=bucket)
    genuine = signed(catalogue.load(name).schemes["default"], b'{"id":"1"}')

    for body in (b'{"id":"2"}', b"{", b"[" * 100_000, b"\xff"):
        assert refusal(endpoint, copy_of(genuine, body=body)).status == 401
    assert (identifier.calls, bucket.calls) == (0, 0)

    receive(endpoint, genuine)
    assert (identifier.calls, bucket.calls) == (1, 1), "the control"


def test_the_wrong_method_or_client_is_not_even_verified():
    verifier = Counting(endpoint_of("github").verifier)
    endpoint = endpoint_of("github", verifier=verifier, allow=AllowList(["10.0.0.0/8"]))
    refusal(endpoint, copy_of(push(), method=b"GET"))
    refusal(endpoint, push())
    assert verifier.calls == 0


def test_a_shed_client_is_not_even_verified():
    verifier = Counting(endpoint_of("github").verifier)
    buckets = ClientBuckets(1, 1)
    buckets.charge(CLIENT, 0.0)
    receiver = receiver_of(endpoint_of("github", verifier=verifier), unverified=buckets)
    with pytest.raises(RateExceeded) as caught:
        receiver.receive(push(), CLIENT, 0.0, WALL_NS)

    assert (caught.value.status, caught.value.retry_after_s, verifier.calls) == (503, 1, 0)
    assert receiver.receive(push(), "192.0.2.2", 0.0, WALL_NS).client == "192.0.2.2"
    assert receiver.receive(push(), CLIENT, 1.0, WALL_NS).client == CLIENT


def test_who_forges_does_not_lock_out_who_shares_its_address():
    first = endpoint_of("github", name="a", path=b"/a")
    second = endpoint_of("github", name="b", path=b"/b", retries_429=True)
    receiver = receiver_of(first, second, unverified=ClientBuckets(1, 100))
    bad = with_header(push(), "x-hub-signature-256", b"sha256=00")

    def send(request, path, now_s, peer=CLIENT):
        try:
            receiver.receive(copy_of(request, path=path), peer, now_s, WALL_NS)
        except Rejection as rejection:
            return rejection.status
        return 202

    assert send(push(), b"/a", 0.0) == 202
    assert [send(bad, b"/a", 0.0) for _ in range(101)] == [401] * 101
    # Known at the one endpoint: verified for ever, both ways. Kept out of the other, and of none.
    assert [send(push(), b"/a", 1.0), send(bad, b"/a", 1.0)] == [202, 401]
    assert [send(push(), b"/b", 1.0), send(bad, b"/b", 1.0)] == [429, 429]
    assert send(bad, b"/x", 1.0) == 503
    # Who never forged is never kept out, and the others only for a while.
    assert send(push(), b"/b", 1.0, "192.0.2.77") == 202
    assert send(push(), b"/b", 150.0) == 202


def test_what_nobody_signed_vouches_for_nobody():
    verifier = Observer(endpoint_of("github").verifier, "hook")
    endpoint = endpoint_of("github", verifier=verifier)
    bad = with_header(push(), "x-hub-signature-256", b"sha256=00")
    receiver_of(endpoint).receive(bad, CLIENT, 0.0, WALL_NS)

    assert not endpoint.vouched.knows(CLIENT)


def test_an_endpoint_without_a_path_is_found_by_no_request():
    receiver = receiver_of(endpoint_of("github", path=b""))
    with pytest.raises(UnknownPath):
        receiver.receive(copy_of(push(), path=b""), CLIENT, 0.0, WALL_NS)


def test_the_secret_of_one_endpoint_opens_no_other():
    first = endpoint_of("github", [b"secret of a"], name="a", path=b"/a")
    second = endpoint_of("github", [b"secret of b"], name="b", path=b"/b")
    receiver = receiver_of(first, second)
    request = copy_of(signed(GITHUB, b"{}", b"secret of a"), path=b"/a")

    assert receiver.receive(request, CLIENT, 0.0, WALL_NS).endpoint == "a"
    with pytest.raises(BadSignature) as caught:
        receiver.receive(copy_of(request, path=b"/b"), CLIENT, 0.0, WALL_NS)
    assert caught.value.endpoint == "b"


# --- who is charged -------------------------------------------------------------------------------


def test_refused_clients_are_charged_and_good_ones_are_not():
    buckets = ClientBuckets(1, 3)
    receiver = receiver_of(endpoint_of("github"), unverified=buckets)
    for _ in range(100):
        receiver.receive(push(), CLIENT, 0.0, WALL_NS)
    assert buckets.refused == {}

    bad = with_header(push(), "x-hub-signature-256", b"sha256=00")
    statuses = []
    for _ in range(5):
        with pytest.raises(Rejection) as caught:
            receiver.receive(bad, "2001:db8::1", 0.0, WALL_NS)
        statuses.append(caught.value.status)
    assert statuses == [401, 401, 401, 503, 503]
    assert list(buckets.refused) == ["2001:db8::"]
    with pytest.raises(RateExceeded):
        receiver.receive(push(), "2001:db8::2", 0.0, WALL_NS)
    assert receiver.receive(push(), CLIENT, 0.0, WALL_NS).client == CLIENT


@pytest.mark.parametrize(
    "request_", [copy_of(push(), path=b"/x"), copy_of(push(), method=b"GET"), request_of()]
)
def test_everything_that_is_refused_before_the_signature_is_charged(request_):
    buckets = ClientBuckets(1, 1)
    with pytest.raises(Rejection):
        receiver_of(endpoint_of("github"), unverified=buckets).receive(request_, CLIENT, 0, WALL_NS)
    assert list(buckets.refused) == [CLIENT]


def test_what_is_refused_after_the_signature_is_not_charged():
    buckets = ClientBuckets(1, 1)
    endpoint = endpoint_of("github", bucket=TokenBucket(1, 2))
    receiver = receiver_of(endpoint, unverified=buckets)
    for request in (push(b"{"), push(content_encoding="gzip"), push()):
        with pytest.raises(Rejection):
            receiver.receive(request, CLIENT, 0.0, WALL_NS)
    assert buckets.refused == {}


@pytest.mark.parametrize("retries_429", [True, False])
def test_only_a_sender_that_comes_again_after_it_is_told_429(retries_429):
    endpoint = endpoint_of("github", bucket=TokenBucket(0.1, 1), retries_429=retries_429)
    receiver = receiver_of(endpoint)
    receiver.receive(push(), CLIENT, 0.0, WALL_NS)
    with pytest.raises(RateExceeded) as caught:
        receiver.receive(push(), CLIENT, 0.0, WALL_NS)

    assert caught.value.status == (429 if retries_429 else 503)
    assert caught.value.retry_after_s == 10


# --- after the signature --------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity", ""])
def test_an_encoded_body_is_not_taken(encoding):
    error = refusal(endpoint_of("github"), push(content_encoding=encoding))
    assert isinstance(error, WrongContentType)


def test_events_that_are_not_wanted_are_ignored():
    for events, kind in ((None, "event"), (frozenset({"push"}), "event"), (frozenset(), "ignored")):
        assert receive(endpoint_of("github", events=events), push()).kind == kind


def test_githubs_ping_is_a_handshake_unless_it_is_asked_for():
    ping = signed(GITHUB, b'{"zen":"x"}', x_github_event="ping")
    delivery = receive(endpoint_of("github"), ping)
    assert (delivery.kind, delivery.event_type, delivery.reply) == ("ping", "ping", None)
    wanted = endpoint_of("github", events=frozenset({"ping"}))
    assert receive(wanted, ping).kind == "event"


def test_an_unsigned_handshake_costs_its_client_as_much_as_a_refusal():
    endpoint = endpoint_of("dropbox", [SECRET])
    receiver = receiver_of(endpoint, unverified=ClientBuckets(1, 2))
    request = request_of(b"", {}, b"/hook?challenge=abc", b"GET")

    def ask(now_s):
        return receiver.receive(request, CLIENT, now_s, WALL_NS)

    for now_s in (100.0, 100.0, 101.0):
        assert ask(now_s).reply == Reply(200, "text/plain", "abc")
    with pytest.raises(RateExceeded):
        ask(101.5)
    assert ask(103.0).kind == "challenge"


def test_a_handshake_that_needs_a_setting_is_refused_without_it():
    request = request_of(b"", {}, b"/hook?challenge_code=abc", b"GET")
    (shake,) = catalogue.load("ebay").handshakes
    settings = {"verification_token": "v" * 32}
    for url, config, status in (
        ("", settings, 403),
        ("https://x/hook", {}, 403),
        ("https://x/hook", settings, 200),
    ):
        greeting = Greeting(shake, b"", url, config)
        endpoint = endpoint_of("github", openings=(greeting,))
        if status == 200:
            assert receive(endpoint, request).reply is not None
        else:
            assert refusal(endpoint, request).status == status


def test_a_challenge_is_for_endpoints_of_that_provider_alone():
    request = request_of(b"", {}, b"/hook?challenge=abc", b"GET")
    assert isinstance(refusal(endpoint_of("github"), request), WrongMethod)
    endpoint = endpoint_of("dropbox", [SECRET])
    for target in (b"/hook", b"/hook?challenge=", b"/hook?challenge=a&challenge=b"):
        assert refusal(endpoint, request_of(b"", {}, target, b"GET")).status in (400, 405)
    for bad in (b"%0d%0aSet-Cookie:a", b"%ff", b"a" * 1100):
        request = request_of(b"", {}, b"/hook?challenge=" + bad, b"GET")
        assert refusal(endpoint, request).status == 400


def test_who_observes_takes_what_is_not_genuine_and_says_so(monkeypatch):
    said = []
    monkeypatch.setattr(
        log, "repeatable", lambda level, text, cause, fields: said.append((text, fields))
    )

    def meet(endpoint, request):
        delivery = receive(endpoint, request)
        return delivery.kind, delivery.secret_index

    genuine = signed(GITHUB, b'{"zen":"x"}', x_github_event="push")
    verifier = Observer(verifier_of(GITHUB, [SECRET]), "hook")
    endpoint = endpoint_of("github", verifier=verifier)
    assert meet(endpoint, genuine) == ("event", 0)
    assert meet(endpoint, copy_of(genuine, body=b'{"zen":"y"}')) == ("event", -1)
    assert meet(endpoint, with_header(genuine, "x-hub-signature-256", None)) == ("event", -1)
    assert [text for text, _ in said] == ["would be refused"] * 2
    assert {fields["endpoint"] for _, fields in said} == {"hook"}


def test_a_handshake_may_stand_in_a_header_and_comes_before_the_events_that_are_wanted():
    hello = Greeting(Handshake(name="hello", when={"header:X-Hello": "1", "json:a": "b"}))
    endpoint = endpoint_of("github", greetings=(hello,), events=frozenset())
    identifier = Identifier([], [], Bodies(("json",)), [Any], also=["json:a"])
    endpoint = msgspec.structs.replace(endpoint, identifier=identifier)

    for body, header, kind in (
        (b'{"a":"b"}', "1", "hello"),
        (b'{"a":"b"}', "2", "ignored"),
        (b'{"a":"c"}', "1", "ignored"),
        (b"{}", "1", "ignored"),
    ):
        delivery = receive(endpoint, signed(GITHUB, body, x_hello=header))
        assert (delivery.kind, delivery.reply) == (kind, None)


def challenge(value: Any):
    body = orjson.dumps({"type": "url_verification", "challenge": value})
    return signed(SLACK, body, **JSON)


@pytest.mark.parametrize("value", ["abc", "<script>", "x" * 1024, ""])
def test_slacks_challenge_is_echoed_as_plain_text(value):
    delivery = receive(endpoint_of("slack"), challenge(value))
    assert delivery.kind == "url_verification"
    assert delivery.reply == Reply(200, "text/plain", value)


@pytest.mark.parametrize("value", ["x" * 1025, "a\r\nSet-Cookie: a", "\0", "é", "\x7f", "\u202e"])
def test_a_challenge_that_could_be_something_else_is_refused(value):
    assert isinstance(refusal(endpoint_of("slack"), challenge(value)), BadPayload)


@pytest.mark.parametrize("value", [None, [], {}, 1.5, True])
def test_a_challenge_that_is_no_text_is_a_bad_payload(value):
    assert isinstance(refusal(endpoint_of("slack"), challenge(value)), BadPayload)


def test_an_unsigned_challenge_is_never_echoed():
    request = challenge("abc")
    for name in ("x-slack-signature", "x-slack-request-timestamp"):
        assert refusal(endpoint_of("slack"), with_header(request, name, None)).status == 401


# --- secrets that are handed over -----------------------------------------------------------------

HANDED = b"b537207f20cbfa02357cf448134da559"
TOKEN = b'{"verification_token":"secret_0FhTt9sWb2hZK1f6yYx7Yq3uQ0cJ5mN8"}'


def handing_over(provider: str, **headers: str):
    if provider == "asana":
        return request_of(b"", {"X-Hook-Secret": HANDED, **headers})
    return request_of(TOKEN, {"Content-Type": "application/json", **headers})


@pytest.mark.parametrize("provider", ["asana", "notion"])
@pytest.mark.parametrize("keep_rejected", [False, True])
def test_a_secret_that_is_handed_over_is_refused_and_not_kept(provider, keep_rejected):
    endpoint = endpoint_of(provider, keep_rejected=keep_rejected)
    error = refusal(endpoint, handing_over(provider))
    assert (error.status, error.is_withheld) == (401, True)
    assert "taken only while `fasthook pair hook` waits" in str(error)
    assert not any(secret in str(error).encode() for secret in (HANDED, b"secret_0"))


@pytest.mark.parametrize("provider", ["asana", "notion"])
@pytest.mark.parametrize(
    "change",
    [
        {"allow": AllowList(["203.0.113.0/24"])},
        {"bucket": TokenBucket(1, 1)},
        {"method": b"PUT"},
        {"content_type": b"text/plain"},
        {"content_encoding": b"gzip"},
        {"x_hook_secret": b"of another form"},
    ],
)
def test_why_ever_it_is_refused_it_is_not_kept(provider, change):
    request = handing_over(provider)
    settings = {"keep_rejected": True}
    for name, value in change.items():
        if name == "method":
            request.method = value
        elif isinstance(value, bytes):
            request.headers[name.replace("_", "-").encode()] = value
        else:
            settings[name] = value
    assert refusal(endpoint_of(provider, **settings), request).is_withheld


@pytest.mark.parametrize("provider", ["asana", "notion", "github"])
def test_what_hands_over_nothing_is_kept(provider):
    error = refusal(endpoint_of(provider, keep_rejected=True), request_of(b'{"token":"x"}'))
    assert not error.is_withheld
    assert "pair" not in str(error)


@pytest.mark.parametrize("provider", ["asana", "notion"])
def test_who_only_observes_takes_no_secret(provider):
    """Else the sender would believe that it is kept."""
    verifier = Observer(endpoint_of(provider).verifier, "hook")
    endpoint = endpoint_of(provider, verifier=verifier, keep_rejected=True)
    request = handing_over(provider, **{"Content-Type": "application/json"})
    request.body = request.body or b'{"events":[]}'
    error = refusal(endpoint, request)
    assert (error.status, error.is_withheld) == (401, True)
    request = request_of(b'{"events":[]}', {"Content-Type": "application/json"})
    assert receive(endpoint, request).kind == "event"


def test_a_token_that_is_sent_again_signed_is_no_event():
    """A handler, and the spool, would have it."""
    scheme = catalogue.load("notion").schemes["default"]
    request = signed(scheme, TOKEN, **JSON)
    for events in (None, frozenset({""}), frozenset({"verification_token"})):
        delivery = receive(endpoint_of("notion", events=events), request)
        assert delivery.kind == "verification_token"
        assert delivery.secret_index == 0
    assert receive(endpoint_of("notion"), signed(scheme, b'{"type":"t"}', **JSON)).kind == "event"


def test_an_endpoint_without_a_secret_refuses_everything():
    endpoint = endpoint_of("asana", verifier=Unpaired("hook"))
    asana = catalogue.load("asana").schemes["default"]
    for secret in (SECRET, HANDED):
        error = refusal(endpoint, signed(asana, b'{"events":[]}', secret, **JSON))
        assert error.status == 401
        assert "no secret yet; `fasthook pair hook`" in str(error)
    assert refusal(endpoint, handing_over("asana")).status == 401


def test_an_endpoint_is_replaced_from_the_next_request_on():
    first = endpoint_of("github")
    receiver = receiver_of(first)
    receiver.receive(push(), CLIENT, 0.0, WALL_NS)
    scheme = catalogue.load("github").schemes["default"]
    receiver.use(msgspec.structs.replace(first, verifier=verifier_of(scheme, [b"another"])))
    with pytest.raises(BadSignature):
        receiver.receive(push(), CLIENT, 0.0, WALL_NS)
