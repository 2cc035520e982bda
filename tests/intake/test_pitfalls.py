"""The pitfalls of verification, S1 to S33, on each form of scheme that the catalogue has.

The id of a test names its row, and the scheme that it is tried on. Rows that need sockets, files or
a running service stand in tests/system/test_pitfalls.py; that none is missing is tested there.
"""

import base64
import contextlib
import hashlib
import hmac
import itertools
import json
import random
import re
import socket
import statistics
import time
import unicodedata

import pytest

from fasthook.errors import (
    BadPayload,
    ConfigError,
    HandshakeRefused,
    NoSignature,
    NotGenuine,
    Rejection,
    StaleTimestamp,
    WrongContentType,
    WrongMethod,
)
from fasthook.intake import catalogue, signing
from fasthook.intake.network import AllowList
from fasthook.intake.schemes import BARE
from fasthook.intake.signatures import MAX_SIGNATURES
from fasthook.intake.templates import Selector
from tests.intake.cases import URL, covers_body, everything, in_header, row
from tests.intake.support import (
    NOW_S,
    copy_of,
    receive,
    receiver_of,
    request_of,
    with_header,
)
from tests.intake.test_vectors import (
    VALID,
    flips,
    meet,
    request_in,
)

HEADERS_AT = 8192  # of one value: nginx lets no more through


def refused(case, request, now_s=NOW_S, as_=NotGenuine, secrets=()):
    with pytest.raises(as_) as caught:
        case.verifier(*secrets).verify(request, now_s)
    for secret in (case.verifies, case.signs):
        assert secret.decode("latin-1") not in str(caught.value)
    return caught.value


def passes(case, request, now_s=NOW_S, secrets=()):
    """The control of each row: what is right is genuine."""
    return case.verifier(*secrets).verify(request, now_s)


def all_but_jwt(case):
    return case.scheme.kind != "jwt"


# --- S1: constant time ----------------------------------------------------------------------------


COPIES = 64


def welch_t(compare, early, late, rounds=3000):
    """Welch's t of the times that two kinds of input take, in turns; the slowest tenth is noise.

    Nothing but the comparison is within the time: even a look into a dictionary of two takes
    longer for one of them, if their hashes meet, in each round of a process.
    """
    chance, took = random.Random(1), ([], [])
    kinds = list(zip(took, (itertools.cycle(early), itertools.cycle(late)), strict=True))
    for _ in range(rounds):
        for times, values in chance.sample(kinds, 2):
            value = next(values)
            start = time.perf_counter_ns()
            compare(value)
            times.append(time.perf_counter_ns() - start)
    first, second = (sorted(times)[: rounds * 9 // 10] for times in took)
    noise = sum(statistics.variance(times) / len(times) for times in (first, second))
    return (statistics.fmean(first) - statistics.fmean(second)) / noise**0.5


def looks_constant(compare, prepare):
    """Whether no difference shows in one of some runs: machines are shared.

    Each run prepares its early and late values anew: where one lies in memory makes a difference
    of some nanoseconds, too, and one that lasts; what a comparison tells is in all of them.
    """
    return any(abs(welch_t(compare, *prepare())) < 4.5 for _ in range(8))


@row(1, "hmac", "digest", "token", "basic", where=lambda case: in_header(case) and case.provider in
     {"github", "stripe", "recharge", "gitlab", "alertmanager", "bitbucket", "shopify"})  # fmt: skip
def test_the_time_does_not_tell_how_much_of_a_signature_is_right(case):
    request, verifier = case.request(), case.verifier()
    text = case.text(request)
    wrong = bytes([text[0] ^ 1]) + text[1:], text[:-2] + bytes([text[-2] ^ 1]) + text[-1:]

    def prepare():
        made = [], []
        for _ in range(COPIES):  # in turns, so that none has the better places in memory
            for copies, value in random.sample(list(zip(made, wrong, strict=True)), 2):
                copies.append(case.with_text(request, value))
        return made

    def compare(request):
        with contextlib.suppress(NotGenuine):
            verifier.verify(request, NOW_S)

    assert looks_constant(compare, prepare)


def test_the_time_of_a_naive_comparison_would_have_told():
    """The control."""
    expected = b"k" * 64

    def compare(value):
        return all(ours == theirs for ours, theirs in zip(expected, value, strict=True))

    assert not looks_constant(compare, lambda: ([b"x" + b"k" * 63], [b"k" * 63 + b"x"]))


# --- S2 to S7: the form of a signature ------------------------------------------------------------


@row(2)
def test_a_signature_cut_anywhere_is_refused(case):
    request = case.request()
    assert passes(case, request) == 0
    text = case.text(request)
    for length in range(len(text)):
        refused(case, case.with_text(request, text[:length]))
    if in_header(case):
        value = request.headers[case.place.key]
        for length in range(len(value)):
            refused(case, case.with_value(request, value[:length]))


@row(3)
def test_an_empty_secret_is_none(case):
    prefix = case.scheme.key_prefix.encode()
    for secret in {b"", prefix}:
        with pytest.raises(ConfigError):
            case.verifier(secret)
        with pytest.raises(ConfigError):
            case.verifier(case.verifies, secret)


@row(4)
def test_no_signature_is_refused(case):
    request = case.request()
    text = case.text(request)
    refused(case, case.with_text(request, b""))
    if in_header(case):
        value = request.headers[case.place.key]
        before = value[: value.index(text)]
        for nothing in (None, b"", b" ", before, before.rstrip(), b",", b"=", b";", b"sha256="):
            refused(case, case.with_value(request, nothing), as_=NotGenuine)


@row(5)
def test_bytes_beyond_ascii_are_refused_and_no_error(case):
    request = case.request()
    text = case.text(request)
    places = [case.with_text] if in_header(case) or case.place.kind == "query" else []
    for byte in range(0x80, 0x100):
        for change in places:
            for changed in (bytes([byte]), text + bytes([byte]), text[:-1] + bytes([byte])):
                refused(case, change(request, changed))
        for header in case.scheme.security_headers() & request.headers.keys():
            value = request.headers[header] + bytes([byte])
            refused(case, with_header(request, header.decode(), value))
    if case.place.kind in ("json", "form"):
        name = case.place.name.rpartition(".")[2].encode()
        for body in (b'{"%s":"\xff"}' % name, name + b"=%ff", request.body + b"\xff", b"\xff"):
            refused(case, copy_of(request, body=body))


def in_base64(case):
    return case.scheme.encoding.startswith("base64") and case.scheme.kind not in (
        *BARE,
        "jwt",
        "code",
    )


@row(6, where=in_base64)
def test_base64_has_one_form(case):
    request = case.request()
    text = case.text(request)
    assert passes(case, request) == 0
    letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    if case.scheme.encoding == "base64url":
        letters = letters.replace(b"+/", b"-_")
    bare = text.rstrip(b"=")
    bumped = bare[:-1] + letters[letters.index(bare[-1]) + 1 :][:1] + text[len(bare) :]
    other = text.translate(bytes.maketrans(b"+/-_", b"-_+/"))
    for changed in (
        text[:8] + b"!" + text[8:], text[:8] + b"\n" + text[8:], text[:8] + b" " + text[8:],
        text + b"AAAA", text + b"=", text + b"==", bumped, b" " + text, text + b"\t",
        *([bare] if bare != text else []), *([other] if other != text else []),
    ):  # fmt: skip
        if base64.b64decode(bumped + b"==") != base64.b64decode(text + b"==") and changed == bumped:
            continue  # it is another signature
        refused(case, case.with_text(request, changed))


def in_hex(case):
    return case.scheme.encoding == "hex" and case.scheme.kind not in (*BARE, "jwt", "code")


@row(7, where=in_hex)
def test_hex_has_one_form(case):
    request = case.request()
    text = case.text(request)
    assert passes(case, request) == 0
    for changed in (
        text[:8] + b" " + text[8:], b"0x" + text, text.upper(), text + b" ", b" " + text,
        text + b"00", text[:2] + b":" + text[2:], text[:-1], text + b"\n",
    ):  # fmt: skip
        if changed.strip(b" ") != text or case.scheme.format not in ("kv", "list"):
            refused(case, case.with_text(request, changed))  # around items spaces may stand


# --- S8, S9: which algorithm ----------------------------------------------------------------------


@row(8, "hmac", where=in_header)
def test_no_other_hash_than_the_configured_is_taken(case):
    request = case.request()
    key = signing.key_of(case.scheme, case.signs)
    assert passes(case, request) == 0
    mine = case.scheme.hashes or [case.scheme.hash]
    text = case.text(request)
    for name in {"md5", "sha1", "sha224", "sha256", "sha512"} - set(mine):
        digest = hmac.new(key, request.body, name)
        encoded = digest.hexdigest().encode()
        if case.scheme.encoding != "hex":
            encoded = base64.b64encode(digest.digest())
        for prefix in (b"", name.encode() + b"="):
            refused(case, case.with_text(request, prefix + encoded))
            refused(case, case.with_value(request, prefix + encoded))
        refused(case, case.with_value(request, name.encode() + b"=" + text))


@row(8, "hmac", "ed25519", where=lambda case: case.scheme.format in ("kv", "versioned", "method"))
def test_another_version_is_not_looked_at(case):
    request = case.request()
    value, text = request.headers[case.place.key], case.text(request)
    joint = b"," if case.scheme.format == "versioned" else b"="
    keys = [key.encode() for key in (case.scheme.signature_keys or case.scheme.hashes)]
    for version in {b"v0", b"v2", b"v9", b"v1a", b"none", b"md5", b""} - set(keys):
        for key in keys:
            at = value.find(key + joint)
            if at >= 0:
                changed = value[:at] + version + value[at + len(key) :]
                refused(case, case.with_value(request, changed))
    # An unknown version before the right one is no reason to refuse it.
    separator = case.scheme.separator.encode()
    if case.scheme.format != "method":
        first = separator.join([b"v99" + joint + text, value])
        assert passes(case, case.with_value(request, first)) == 0


def jwt_parts(case, request):
    return case.text(request).split(b".")


def b64(document):
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=")


@row(9, "jwt")
def test_a_token_without_a_signature_or_by_a_public_key_as_a_secret_is_refused(case):
    request = case.request()
    assert passes(case, request) == 0
    _, claims, signature = jwt_parts(case, request)
    for name in ("none", "None", "NONE", "nOnE", "", None, 7, ["HS256"]):
        for end in (b"", signature):
            refused(case, case.with_text(request, b".".join([b64({"alg": name}), claims, end])))
    refused(case, case.with_text(request, b64({"alg": "none"}) + b"." + claims))
    for name, hash_name in (("HS256", "sha256"), ("HS512", "sha512")):
        for key in (case.verifies, case.verifies.strip(), b"", b"\0", hashlib.sha256(b"").digest()):
            if key != case.signs:
                head = b64({"alg": name, "typ": "JWT"}) + b"." + claims
                mac = b64(hmac.digest(key, head, hash_name))
                refused(case, case.with_text(request, head + b"." + mac))


@row(9, "jwt")
def test_the_name_of_a_key_opens_no_file_and_no_other_key(case):
    request = case.request()
    _, claims, signature = jwt_parts(case, request)
    for kid in (
        "",
        "../../../../dev/null",
        "/dev/null",
        "' OR 1=1",
        "https://x.example/jwks",
        7,
        {},
    ):
        for name in ("HS256", "RS256", "ES256", "none"):
            head = b64({"alg": name, "kid": kid, "jku": "https://x.example/", "x5u": "file:///"})
            empty = b64(hmac.digest(b"", head + b"." + claims, "sha256"))
            for end in (signature, empty, b""):
                refused(case, case.with_text(request, b".".join([head, claims, end])))


# --- S10, S11: which bytes ------------------------------------------------------------------------

ODD_BODIES = [
    b'{"a" : 1 ,\r\n "a":2, "b":1.0, "c":"\\/\\u00e9"}\r\n',
    b'{"a":1}',
    b"\xef\xbb\xbf{}",
    b"\xff\xfe\x00",
    b" {} ",
    '{"e":"e\u0301"}'.encode(),
    b'{"n":1e2}\n',
]


def all_but_timed_in_body(case):
    return not case.scheme.timestamp.startswith(("json", "form")) and case.provider not in (
        "plivo",  # parameters of a form
        "twilio",
        "segment",  # one event of a batch
    )


@row(10, where=lambda case: covers_body(case) and all_but_timed_in_body(case))
def test_the_bytes_as_they_came_are_verified(case):
    for body in ODD_BODIES:
        try:
            request = case.request(body)
        except (ConfigError, ValueError, Rejection):
            assert case.scheme.kind == "code"  # what is signed there are parts of a document
            continue
        assert passes(case, request) == 0
        anew = [body + b"\n", b" " + body, body.strip()]
        with contextlib.suppress(ValueError):
            anew += [
                json.dumps(json.loads(body)).encode(),
                json.dumps(json.loads(body), indent=1).encode(),
            ]
        for other in anew:
            if other != body:
                refused(case, copy_of(request, body=other))


@row(11, where=lambda case: covers_body(case) and case.body.startswith((b"{", b"[")))
def test_what_is_verified_is_what_is_read(case):
    request = case.request()
    if "any" not in case.known.content:
        for charset in ("utf-16", "utf-7", "utf-32", "shift_jis", '"utf-16"'):
            changed = with_header(
                request, "content-type", f"application/json; charset={charset}".encode()
            )
            with pytest.raises(WrongContentType):
                receive(case.endpoint(), changed)
    assert not case.known.encodings
    for encoding in (b"gzip", b"br", b"deflate", b"identity, gzip"):
        with pytest.raises(WrongContentType):
            receive(case.endpoint(), with_header(request, "content-encoding", encoding))


@row(11, where=lambda case: covers_body(case) and all_but_timed_in_body(case))
def test_another_unicode_form_of_a_body_is_another_body(case):
    body = '{"id":"evt_1","type":"t","e":"\u00e9"}'
    try:
        request = case.request(body.encode())
    except (ConfigError, ValueError, Rejection):
        assert case.scheme.kind == "code"
        return
    assert passes(case, request) == 0
    refused(case, copy_of(request, body=unicodedata.normalize("NFD", body).encode()))


# --- S12, S13: time -------------------------------------------------------------------------------


def is_timed(case):
    return case.is_timed


@row(12, where=is_timed)
def test_what_is_signed_with_a_time_ages_both_ways(case):
    request, limit_s = case.request(), case.scheme.tolerance
    for offset_s in (1 - limit_s, 0, limit_s - 1):
        assert passes(case, request, NOW_S + offset_s) == 0
    for offset_s in (-limit_s - 2, limit_s + 2, NOW_S, -NOW_S, NOW_S * 1000, 10 * limit_s):
        refused(case, request, NOW_S + offset_s, as_=StaleTimestamp)
    for then_s in (0, NOW_S * 1000, NOW_S // 1000):  # the epoch, and units that are mixed up
        if then_s < 1e11:
            refused(case, case.request(now_s=then_s), as_=StaleTimestamp)


@row(12, where=is_timed)
def test_another_time_under_the_same_signature_is_refused(case):
    earlier, later = case.request(now_s=NOW_S), case.request(now_s=NOW_S + 7)
    mixed = case.with_text(later, case.text(earlier))
    assert passes(case, later, NOW_S + 7) == 0
    refused(case, mixed, NOW_S + 7)


NO_TIMES = {
    "s": [b"nan", b"inf", b"1e400", b"1767225600.0", b" 1767225600", b"1767225600\t", b"12_3", b"-1",
          b"1_767_225_600", "١٧٦٧٢٢٥٦٠٠".encode(), b"9" * 5000, b"0" * 13, b"+1767225600",
          b"0x6955b900", b"1767225600000", b"\xff", b"0", b"t", b"1767225600,1767225600"],
    "ms": [b"nan", b"Infinity", b"1e12", b"1767225600000.0", b"-1", b"+1767225600000", b"1767225600",
           b"9" * 16, b"1_767_225_600_000", "١٧٦٧٢٢٥٦٠٠٠٠٠".encode(), b"\xff"],
    "iso8601": [b"2026-01-01", b"2026-01-01T00:00:00", b"2026-01-01 00:00:00Z", b"2026-13-01T00:00:00Z",
                b"2026-01-01T00:00:00.Z", b"2026-01-01T00:00:00+99:99", b"now", b"9" * 5000, b"\xff",
                "٢٠٢٦-01-01T00:00:00Z".encode(), b"2026-01-01T00:00:00.0000000000Z", b"-0"],
    "http-date": [b"Thu, 01 Jan", b"yesterday", b"9" * 5000, b"\xff", b"Thu, 99 Jan 2026 00:00:00 GMT",
                  b"Thu, 01 Jan 99999 00:00:00 GMT", b"nan"],
}  # fmt: skip


@pytest.mark.patches
@row(13, where=is_timed)
def test_what_is_no_plain_time_is_refused_though_it_is_signed(case, monkeypatch):
    place = Selector.parse(case.scheme.timestamp)
    for text in NO_TIMES[case.scheme.timestamp_unit]:
        if place.kind in ("json", "form") and not text.isascii():
            continue
        monkeypatch.setattr(signing, "_time_text", lambda *_, text=text: text)
        try:
            request = case.request()
        except (ValueError, TypeError):
            continue  # JSON has numbers alone there
        refused(case, request)
    monkeypatch.undo()
    assert passes(case, case.request()) == 0


@row(13, where=lambda case: is_timed(case) and case.scheme.format == "kv")
def test_a_second_time_is_refused_in_either_order(case):
    request = case.request()
    key = case.scheme.timestamp.partition(":")[2].encode()
    value, between = request.headers[case.place.key], case.scheme.separator.encode()
    for one in (key + b"=1", key + b"=%d" % NOW_S, key + b"="):
        for text in (one + between + value, value + between + one):
            refused(case, case.with_value(request, text), as_=NoSignature)


# --- S15, S20 to S22: keys ------------------------------------------------------------------------


@row(15)
def test_the_secret_of_one_endpoint_opens_no_other(case):
    first = case.endpoint(name="a", path=b"/a")
    second = case.endpoint(case.other, name="b", path=b"/b")
    receiver = receiver_of(first, second)
    request = case.request()
    assert receiver.receive(copy_of(request, path=b"/a"), "", 0.0, int(NOW_S * 1e9)).endpoint == "a"
    with pytest.raises(NotGenuine) as caught:
        receiver.receive(copy_of(request, path=b"/b"), "", 0.0, int(NOW_S * 1e9))
    assert (caught.value.endpoint, caught.value.status) == ("b", case.known.refusal_status)


@row(17, where=lambda case: in_header(case) and case.scheme.format in ("kv", "versioned", "list"))
def test_so_many_signatures_are_compared_and_no_more(case):
    request = case.request()
    value, text = request.headers[case.place.key], case.text(request)
    separator = case.scheme.separator.encode()
    between = b"," if case.scheme.format == "versioned" else b"="
    key = case.scheme.signature_keys[0].encode() + between if case.scheme.signature_keys else b""
    wrong = key + b"0" * len(text)
    for count, is_right in ((MAX_SIGNATURES - 1, True), (MAX_SIGNATURES, False), (10_000, False)):
        many = case.with_value(request, separator.join([value] + [wrong] * count))
        start = time.thread_time()
        if is_right:
            assert passes(case, many) == 0
        else:
            refused(case, many, as_=NoSignature)
        assert time.thread_time() - start < 0.1


@row(17, where=in_header)
def test_a_long_header_is_refused_in_no_time(case):
    request, verifier = case.request(), case.verifier()
    value = request.headers[case.place.key]
    for text in (b"v1=", b"v1,x ", b"=,", b"t=1,", b"a.", b"sha256=", b"\xff"):
        took_s = []
        for _ in range(3):  # one of them may have to collect garbage
            many = case.with_value(request, (text * HEADERS_AT)[:HEADERS_AT] + value[:0])
            start = time.thread_time()
            with pytest.raises(NotGenuine):
                verifier.verify(many, NOW_S)
            took_s.append(time.thread_time() - start)
        assert min(took_s) < 0.01


@row(20)
def test_while_secrets_change_both_pass_and_a_removed_one_does_not(case):
    request = case.request()
    assert passes(case, request, secrets=(case.verifies, case.other)) == 0
    assert passes(case, request, secrets=(case.other, case.verifies)) == 1
    refused(case, request, secrets=(case.other,))
    endpoint = case.endpoint(case.other, case.verifies)
    receiver = receiver_of(endpoint)
    assert receiver.receive(request, "", 0.0, int(NOW_S * 1e9)).secret_index == 1
    receiver.use(case.endpoint(case.other))
    with pytest.raises(NotGenuine):
        receiver.receive(case.request(), "", 0.0, int(NOW_S * 1e9))


@row(22, where=lambda case: case.scheme.key_encoding in ("hex", "base64", "der", "pem"))
def test_a_secret_in_another_form_than_documented_is_refused_at_the_start(case):
    prefix = case.scheme.key_prefix.encode()
    for secret in (b"!" * 32, b"not \xff it", prefix + b"!" * 32, b"abc def!", prefix + b"\xff"):
        with pytest.raises(ConfigError) as caught:
            case.verifier(secret)
        assert secret.decode("latin-1") not in str(caught.value)


@row(22, "hmac", where=lambda case: case.scheme.key_encoding == "base64")
def test_a_secret_in_base64_has_its_own_letters_and_no_spaces(case):
    raw = b"\xfb\xef\xbe" * 8
    prefix = case.scheme.key_prefix.encode()
    text = base64.b64encode(raw)
    request = case.request(signs=prefix + text)
    for known in (prefix + text, text, prefix + text.rstrip(b"=")):
        assert passes(case, request, secrets=(known,)) == 0
    for spoilt in (
        base64.urlsafe_b64encode(raw),
        b" " + text,
        text + b"\n",
        text[:4] + b" " + text[4:],
    ):
        with pytest.raises(ConfigError):
            case.verifier(prefix + spoilt)


# --- S16, S26, S27, S30: what comes before the signature ------------------------------------------

MALFORMED = [b"{", b"[" * 100_000, b"\xff\xfe", b'{"a":1e999999}', b'{"id":', b"%zz&&&=", b"\0"]


@row(26)
def test_nothing_is_decoded_before_it_is_verified(case):
    request = case.request()
    for body in MALFORMED:
        forged = copy_of(request, body=body)
        if case.scheme.kind in BARE and in_header(case):
            forged = case.with_text(forged, b"x" * 20)  # they sign no body
        if case.scheme.claims is not None and not case.scheme.covers_body:
            forged = case.with_text(forged, b"a.b.c")
        if case.place.kind == "query":
            forged = case.with_text(forged, b"x" * 20)
        with pytest.raises(NotGenuine) as caught:
            receive(case.endpoint(), forged)
        assert caught.value.status == case.known.refusal_status


@row(26, where=in_header)
def test_where_it_is_verified_the_same_is_malformed(case):
    """The control: the body would have been decoded."""
    if case.known.content[0] == "json" and case.scheme.kind in (*BARE, "hmac", "jwt"):
        with pytest.raises((BadPayload, ConfigError)):
            receive(case.endpoint(), case.request(b"{"))


@row(27)
def test_one_answer_for_all_that_is_not_genuine(case):
    request = case.request()
    wrong = [
        case.with_text(request, b"x" * len(case.text(request))),
        case.with_text(request, b""),
        case.request(signs=None if case.signs != case.other else case.other),
        request_of(case.body, {"content-type": "application/json"}),
    ]
    if case.is_timed:
        wrong.append(case.request(now_s=NOW_S - 10 * case.scheme.tolerance))
    answers = set()
    for number, forged in enumerate(wrong):
        endpoint = case.endpoint(case.other) if number == 2 else case.endpoint()
        with pytest.raises(NotGenuine) as caught:
            receive(endpoint, forged)
        answers.add((caught.value.status, caught.value.answer))
    assert len(answers) == 1


@row(30)
def test_another_method_is_refused_though_it_is_signed(case):
    for method in (b"GET", b"HEAD", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE"):
        if method.decode() in case.known.methods:
            continue
        request = copy_of(case.request(), method=method)
        try:
            delivery = receive(case.endpoint(), request)
        except Rejection as rejection:
            seen = type(rejection)
        else:  # a probe that the sender makes, which tells nothing
            seen = delivery.kind
        assert seen not in ("event", "ignored")
        assert isinstance(seen, str) or issubclass(
            seen, (WrongMethod, HandshakeRefused, NotGenuine)
        )
    assert receive(case.endpoint(), case.request()).kind == "event"


# --- S24: addresses that the sender chooses -------------------------------------------------------

SNS_HOSTS = [
    "http://sns.us-east-1.amazonaws.com/a.pem",
    "https://user@sns.us-east-1.amazonaws.com/a.pem",
    "https://sns.us-east-1.amazonaws.com.evil.example/a.pem",
    "https://sns.us-east-1.amazonaws.com:8443/a.pem",
    "https://evil.example/?sns.us-east-1.amazonaws.com/a.pem",
    "https://evil.example#sns.us-east-1.amazonaws.com/a.pem",
    "https://169.254.169.254/latest/a.pem",
    "https://[::ffff:169.254.169.254]/a.pem",
    "https://127.0.0.1/a.pem",
    "https://amazonaws.com/a.pem",
    "https://xsns.us-east-1.amazonaws.com/a.pem",
    "https://sns.us-east-1.amazonaws.com\\@evil.example/a.pem",
    "//evil.example/a.pem",
    "file:///etc/passwd",
    "gopher://127.0.0.1/a.pem",
    "",
]


@pytest.fixture
def connections(monkeypatch):
    """All that is connected to or looked up meanwhile; none of it happens."""
    asked = []

    def connect(*arguments, **_):
        asked.append(arguments)
        raise OSError("no connection leaves a test")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    monkeypatch.setattr(socket, "create_connection", connect)
    return asked


@pytest.mark.parametrize("url", SNS_HOSTS)
@row(24, where=lambda case: case.provider == "aws-sns")
def test_no_request_leaves_for_a_certificate_of_somebody_else(case, url, connections):
    document = json.loads(case.request().body)
    for name in ("SigningCertURL", "SigningCertUrl", "SubscribeURL"):
        for kind in ("Notification", "SubscriptionConfirmation"):
            body = json.dumps(
                {**document, name: url, "Type": kind, "Token": "t", "Signature": "AAAA"}
            )
            with pytest.raises(Rejection):
                receive(case.endpoint(), request_of(body.encode(), {"content-type": "text/plain"}))
    assert connections == []


def test_a_connection_would_have_been_seen(connections):
    """The control."""
    with pytest.raises(OSError, match="leaves"):
        socket.create_connection(("127.0.0.1", 1))
    assert len(connections) == 1


# --- S29: handshakes ------------------------------------------------------------------------------

HOSTILE = ["<script>alert(1)</script>", "a\r\nSet-Cookie: a=b", "x" * 2048, "\0", "é", ""]


ECHOED = re.compile(r"\{(?:query|json|header|form):([^}]*)\}")


def reflecting():
    """(provider, handshake) for each answer that holds something of the request."""
    for provider in catalogue.everything():
        for handshake in provider.handshakes:
            if handshake.reply is not None and ECHOED.search(repr(handshake.reply)):
                yield pytest.param(provider, handshake, id=f"S29-{provider.id}-{handshake.name}")


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize(("provider", "handshake"), list(reflecting()))
def test_what_is_echoed_is_bounded_text(provider, handshake, value):
    from urllib.parse import quote

    from fasthook.intake.handshakes import Greeting

    greeting = Greeting(
        handshake, b"secret of the tests", URL, dict.fromkeys(["verify_token"], "x")
    )
    names = set(ECHOED.findall(repr(handshake.reply)))
    tree, query, headers = {}, [], {"content-type": "application/json"}
    for name in names:
        query.append(f"{name}={quote(value)}")
        headers[name] = value.encode("latin-1", "replace")
        node = tree
        *parents, last = name.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    target = f"/hook?{'&'.join(query)}".encode()
    request = request_of(json.dumps(tree).encode(), headers, target, handshake.method.encode())
    try:
        reply = greeting.reply_to(request)
    except Rejection:
        return
    assert reply.content_type.partition(";")[0] in ("text/plain", "application/json")
    assert len(reply.body) < 3000
    if reply.content_type.startswith("text/plain"):
        assert reply.body.isascii()
        assert reply.body.isprintable()
    for field in reply.headers.values():
        assert field.isprintable()


# --- S32, S33 -------------------------------------------------------------------------------------


@row(32)
def test_an_address_in_a_header_opens_no_allow_list(case):
    endpoint = case.endpoint(allow=AllowList(["203.0.113.0/24"]))
    for header in ("x-forwarded-for", "forwarded", "x-real-ip", "true-client-ip"):
        value = b"for=203.0.113.9" if header == "forwarded" else b"203.0.113.9"
        with pytest.raises(Rejection) as caught:
            receive(endpoint, with_header(case.request(), header, value), peer="198.51.100.1")
        assert caught.value.status == 403
    trusted = with_header(case.request(), "x-forwarded-for", b"203.0.113.9")
    assert receive(endpoint, trusted, peer="127.0.0.1").client == "203.0.113.9"


OFFICIAL = [
    pytest.param(*case.values, id=f"S33-{case.id}")
    for case in VALID
    if case.values[0] in ("twilio", "mailgun", "shopify", "github")
]
NONE = pytest.param(None, None, id="S33-no-vectors", marks=pytest.mark.skip("none here"))


@pytest.mark.parametrize(("name", "vector"), OFFICIAL or [NONE])
def test_official_vectors_pass_and_with_a_bit_flipped_do_not(name, vector):
    request = request_in(vector)
    meet(name, vector, request)
    scheme = catalogue.load(name).schemes[vector["scheme"]]
    for header in scheme.security_headers() & request.headers.keys():
        for value in flips(request.headers[header]):
            with pytest.raises(NotGenuine):
                meet(name, vector, with_header(request, header.decode(), value))


def test_each_kind_of_scheme_is_among_the_cases():
    kinds = {scheme.kind for p in catalogue.everything() for scheme in p.schemes.values()}
    assert {case.scheme.kind for case in everything()} == kinds
