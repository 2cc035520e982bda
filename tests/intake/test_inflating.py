"""Bodies that come as gzip: verified first, then unpacked, within bounds."""

import gzip
import hmac
import json
import os

import msgspec
import pytest

from fasthook.errors import BadPayload, BodyTooLarge, WrongContentType
from fasthook.intake.inflating import MAX_GROWTH, MAX_RATIO, gunzipped
from fasthook.intake.receiver import Receiver
from fasthook.model import Undecodable
from tests.intake.support import endpoint_of, receive, receiver_of, refusal, request_of

KEY = b"0123456789abcdef"
PLAIN = b'{"id":"evt_1","type":"message.created","data":{"subject":"hello"}}'
SENT = gzip.compress(PLAIN, mtime=0)
MEBIBYTE = 1024 * 1024


def request_with(body, encoding="gzip", signed=None, provider="nylas"):
    digest = hmac.new(KEY, body if signed is None else signed, "sha256").hexdigest()
    header = {"nylas": ("x-nylas-signature", digest)}.get(
        provider, ("X-Hub-Signature-256", f"sha256={digest}")
    )
    return request_of(
        body,
        {"content-type": "application/json", "content-encoding": encoding, header[0]: header[1]},
    )


def nylas(**settings):
    return endpoint_of("nylas", [KEY], **settings)


# --- unpacking ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 1000, 3 * MEBIBYTE])
def test_what_was_packed_comes_back(size):
    plain = os.urandom(size)
    assert gunzipped(gzip.compress(plain), MEBIBYTE) == plain


def test_no_more_is_unpacked_than_a_multiple_of_what_a_body_may_have():
    fits, exceeds = (os.urandom(MAX_GROWTH * 1000 + more) for more in (0, 1))
    assert gunzipped(gzip.compress(fits), 1000) == fits
    with pytest.raises(BodyTooLarge) as caught:
        gunzipped(gzip.compress(exceeds), 1000)
    assert caught.value.status == 413


def test_a_bomb_is_refused_by_its_ratio():
    bomb = gzip.compress(b" " * (4 * MEBIBYTE))
    assert len(bomb) * MAX_RATIO < 4 * MEBIBYTE
    with pytest.raises(BodyTooLarge):
        gunzipped(bomb, 1024 * MEBIBYTE)


def test_what_is_small_may_shrink_to_nearly_nothing():
    plain = b" " * 60_000
    assert gunzipped(gzip.compress(plain), MEBIBYTE) == plain


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "ends before"),
        (PLAIN, "not gzip"),
        (SENT[:-1], "ends before"),
        (SENT[:-8], "ends before"),
        (SENT + b"x", "other bytes"),
        (SENT + SENT, "other bytes"),
        (SENT[:-8] + bytes([SENT[-8] ^ 1]) + SENT[-7:], "not gzip"),
        (SENT[:12] + b"\xff\xff\xff" + SENT[15:], "not gzip"),
    ],
)
def test_what_is_not_one_whole_gzip_is_refused(body, reason):
    with pytest.raises(BadPayload) as caught:
        gunzipped(body, MEBIBYTE)
    assert reason in str(caught.value)


# --- deliveries -----------------------------------------------------------------------------------


class Message(msgspec.Struct):
    id: str


def test_the_bytes_as_received_are_verified_and_kept_and_the_payload_is_what_they_hold():
    endpoint = nylas(payload_types=[dict, Message, int])
    delivery = receive(endpoint, request_with(SENT))
    assert delivery.body == SENT
    assert delivery.headers[b"content-encoding"] == b"gzip"
    assert (delivery.event_id, delivery.event_type) == ("evt_1", "message.created")
    untyped, typed, misfit = delivery.payloads
    assert untyped == json.loads(PLAIN)
    assert typed == Message("evt_1")
    assert isinstance(misfit, Undecodable)


def test_an_untyped_payload_is_there_as_well():
    assert receive(nylas(), request_with(SENT, " GZip ")).payloads == (json.loads(PLAIN),)


def test_what_was_stored_has_its_payload_again():
    endpoint = nylas()
    delivery = receive(endpoint, request_with(SENT))
    delivery.payloads = ()
    receiver: Receiver = receiver_of(endpoint)
    receiver.restore(delivery)
    assert delivery.payloads == (json.loads(PLAIN),)


def test_nothing_is_unpacked_before_it_is_verified():
    bomb = gzip.compress(b" " * (8 * MEBIBYTE))
    assert refusal(nylas(), request_with(bomb, signed=b"another")).status == 401
    assert refusal(nylas(), request_with(bomb)).status == 413


def test_a_signature_of_the_plain_bytes_is_none():
    assert refusal(nylas(), request_with(SENT, signed=PLAIN)).status == 401


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "x-gzip", "identity", ""])
def test_other_encodings_are_not_taken(encoding):
    rejection = refusal(nylas(), request_with(SENT, encoding))
    assert isinstance(rejection, WrongContentType)
    assert str(rejection) == f"content encoding {encoding!r}; expected gzip"


def test_senders_that_pack_nothing_are_not_taken_to():
    request = request_with(SENT, provider="github")
    rejection = refusal(endpoint_of("github", [KEY]), request)
    assert isinstance(rejection, WrongContentType)
    assert str(rejection) == "content encoding 'gzip'; expected a body that is not encoded"


@pytest.mark.parametrize("plain", [b"no json", b"", b"{"])
def test_what_is_packed_has_to_be_json_all_the_same(plain):
    assert refusal(nylas(), request_with(gzip.compress(plain))).status == 400


def test_a_body_may_have_a_multiple_of_the_endpoints_limit():
    body = gzip.compress(json.dumps({"id": os.urandom(3000).hex()}).encode())
    assert receive(nylas(max_body=4000), request_with(body)).kind == "event"
    assert refusal(nylas(max_body=1000), request_with(body)).status == 413
