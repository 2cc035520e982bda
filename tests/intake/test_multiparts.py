"""Forms of several parts: what their fields are, what is refused, and what is signed inside."""

import hmac

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasthook.errors import BadPayload, NotGenuine, WrongContentType
from fasthook.intake import catalogue
from fasthook.intake.multiparts import (
    MAX_HEADER_BYTES,
    MAX_PART_HEADER_BYTES,
    MAX_PART_HEADERS,
    MAX_PARTS,
    multipart_fields,
)
from fasthook.model import Undecodable
from tests.intake.support import NOW_S, endpoint_of, receive, refusal, request_of

TYPE = b'multipart/form-data; boundary="-- a boundary"'
KEY = b"0123456789abcdef"


def part(name, content, filename=None, more=""):
    head = f'Content-Disposition: form-data; name="{name}"'
    head += f'; filename="{filename}"' if filename is not None else ""
    return f"{head}\r\n{more}\r\n".encode() + content


def body_of(*parts, end=b"\r\n"):
    return (
        b"".join(b"---- a boundary\r\n" + p + b"\r\n" for p in parts) + b"---- a boundary--" + end
    )


def hex_of(message):
    return hmac.new(KEY, message, "sha256").hexdigest()


# --- fields ---------------------------------------------------------------------------------------


def test_fields_are_text_and_files_have_a_name_a_type_and_bytes():
    body = body_of(
        part("subject", "Grüße".encode()),
        part("empty", b""),
        part("file", b"\x00\xff\r\n--", "a.bin"),
        part("image", b"GIF89a", "b.gif", "Content-Type: image/gif\r\n"),
    )
    assert multipart_fields(TYPE, body) == {
        "subject": "Grüße",
        "empty": "",
        "file": {
            "filename": "a.bin",
            "content_type": "application/octet-stream",
            "content": b"\x00\xff\r\n--",
        },
        "image": {"filename": "b.gif", "content_type": "image/gif", "content": b"GIF89a"},
    }


def test_what_comes_several_times_is_a_list_and_what_is_no_utf8_stays_bytes():
    body = body_of(part("a", b"1"), part("a", b"2"), part("b", b"caf\xe9"))
    assert multipart_fields(TYPE, body) == {"a": ["1", "2"], "b": b"caf\xe9"}


@pytest.mark.parametrize("end", [b"", b"\r\n", b"\r\nan epilogue"])
def test_what_stands_behind_the_last_boundary_is_nothing(end):
    assert multipart_fields(TYPE, body_of(part("a", b"1"), end=end)) == {"a": "1"}


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.binary(), max_size=5))
def test_any_bytes_come_back_as_they_were(files):
    parts = [part(name, content, "f") for name, content in files.items()]
    body = body_of(*parts)
    if body.count(b"---- a boundary") != len(files) + 1 or not files:
        return
    found = multipart_fields(TYPE, body)
    assert {name: value["content"] for name, value in found.items()} == files


GOOD = body_of(part("a", b"1"))


@pytest.mark.parametrize(
    ("content_type", "body", "reason"),
    [
        (b"multipart/form-data", GOOD, "names no boundary"),
        (b"multipart/form-data; boundary=", GOOD, "names no boundary"),
        (b"multipart/form-data; boundary=other", GOOD, "Boundary not found"),
        (TYPE, GOOD[:-6], "Unexpected end"),
        (TYPE, GOOD[:30], "Unexpected end"),
        (TYPE, b"", "Unexpected end"),
        (TYPE, b"{}", "Unexpected end"),
        (TYPE, b"x" * 100, "Boundary not found"),
        (TYPE, body_of(b"\r\n1"), "Content-Disposition"),
        (TYPE, body_of(b"Content-Disposition: form-data\r\n\r\n1"), "name"),
        (TYPE, body_of(b'Content-Disposition: attachment; name="a"\r\n\r\n1'), "Wrong type"),
        (TYPE, body_of(part("a" * MAX_PART_HEADER_BYTES, b"1")), "header"),
        (TYPE, body_of(part("a", b"1", None, "X: 1\r\n" * MAX_PART_HEADERS)), "header"),
        (TYPE, body_of(*[part("a", b"1")] * (MAX_PARTS + 1)), "segment"),
        (TYPE, body_of(*[part("a", b"1", "f" * 4000)] * 9), "32768 bytes of headers"),
        (TYPE, GOOD.replace(b'"a"', b'"\xff"'), "decode"),
    ],
)
def test_what_can_not_be_read_is_refused_with_the_reason(content_type, body, reason):
    with pytest.raises(BadPayload) as caught:
        multipart_fields(content_type, body)
    assert reason.lower() in str(caught.value).lower()


def test_as_many_parts_and_headers_as_there_may_be_are_read():
    headers = "X: 1\r\n" * (MAX_PART_HEADERS - 1)
    assert MAX_PARTS * (len(headers) + 60) < MAX_HEADER_BYTES
    body = body_of(*[part("a", b"1", None, headers)] * MAX_PARTS)
    assert multipart_fields(TYPE, body) == {"a": ["1"] * MAX_PARTS}


@pytest.mark.parametrize("cut", range(1, len(GOOD) - 2, 3))
def test_a_body_that_was_cut_off_is_none(cut):
    with pytest.raises(BadPayload):
        multipart_fields(TYPE, GOOD[:cut])


# --- Dropbox Sign: the event is the JSON of one field ---------------------------------------------


def sign_event(kind="signature_request_sent", **more):
    time = "1767225600"
    event = {"event_time": time, "event_type": kind}
    event["event_hash"] = hex_of(f"{time}{kind}".encode())
    return msgspec.json.encode({"event": {**event, **more}, "account_guid": "g"})


def sent(body, content_type=TYPE):
    return request_of(body, {"content-type": content_type})


def test_the_json_of_a_field_is_verified_and_is_the_payload():
    delivery = receive(
        endpoint_of("dropbox-sign", [KEY]), sent(body_of(part("json", sign_event())))
    )
    assert delivery.secret_index == 0
    assert delivery.event_type == "signature_request_sent"
    assert delivery.event_id == hex_of(b"1767225600signature_request_sent")
    assert delivery.payloads[0]["account_guid"] == "g"
    assert delivery.body == body_of(part("json", sign_event()))


class Inner(msgspec.Struct):
    event_type: str


class SignEvent(msgspec.Struct):
    event: Inner


def test_the_json_of_a_field_has_the_type_that_a_handler_wants():
    endpoint = endpoint_of("dropbox-sign", [KEY], payload_types=[SignEvent, dict[str, int]])
    typed, misfit = receive(endpoint, sent(body_of(part("json", sign_event())))).payloads
    assert typed == SignEvent(Inner("signature_request_sent"))
    assert isinstance(misfit, Undecodable)


@pytest.mark.parametrize(
    "body",
    [
        body_of(part("json", sign_event().replace(b"_sent", b"_seen"))),
        body_of(part("json", sign_event(event_hash="0" * 64))),
        body_of(part("json", sign_event()), part("json", sign_event())),
        body_of(part("json", sign_event(), "file.json")),
        body_of(part("other", sign_event())),
        body_of(part("json", b"no json")),
        body_of(part("json", sign_event()))[:-10],
        b"",
    ],
)
def test_a_field_that_is_changed_doubled_a_file_or_missing_is_not_genuine(body):
    assert isinstance(refusal(endpoint_of("dropbox-sign", [KEY]), sent(body)), NotGenuine)


def test_another_key_signs_nothing():
    request = sent(body_of(part("json", sign_event())))
    assert refusal(endpoint_of("dropbox-sign", [b"another key 1234"]), request).status == 401


# --- Mailgun: the signature is three fields -------------------------------------------------------

TOKEN = "a" * 50
STAMP = b"%d" % NOW_S


def message(*more, signature=None, token=TOKEN):
    right = hex_of(STAMP + token.encode())
    return body_of(
        part("sender", b"ada@example.com"),
        part("timestamp", STAMP),
        part("token", token.encode()),
        part("signature", (signature or right).encode()),
        *more,
    )


def test_a_message_with_attachments_is_verified_by_its_fields():
    endpoint = endpoint_of("mailgun", [KEY], "form")
    attachment = part("attachment-1", b"%PDF", "a.pdf", "Content-Type: application/pdf\r\n")
    delivery = receive(endpoint, sent(message(attachment)))
    assert delivery.secret_index == 0
    assert delivery.event_id == TOKEN  # it is signed, and comes once
    assert delivery.payloads[0]["sender"] == "ada@example.com"
    assert delivery.payloads[0]["attachment-1"]["content"] == b"%PDF"


class Upload(msgspec.Struct):
    filename: str
    content: bytes


class Mail(msgspec.Struct, rename="kebab"):
    sender: str
    timestamp: int
    attachment_1: Upload


def test_a_handler_has_files_as_a_type_of_its_own():
    endpoint = endpoint_of("mailgun", [KEY], "form", payload_types=[Mail])
    attachment = part("attachment-1", b"%PDF\xff", "a.pdf")
    (mail,) = receive(endpoint, sent(message(attachment))).payloads
    assert mail == Mail("ada@example.com", NOW_S, Upload("a.pdf", b"%PDF\xff"))


@pytest.mark.parametrize(
    "body",
    [
        message(signature="0" * 64),
        message(part("token", b"b" * 50)),  # which of the two was signed?
        message(part("signature", hex_of(STAMP + TOKEN.encode()).encode())),
        message().replace(b'name="signature"', b'name="signature"; filename="x"'),
        message().replace(STAMP + b"\r\n", b"%d\r\n" % (NOW_S + 1)),
        body_of(part("sender", b"ada@example.com")),
    ],
)
def test_a_message_whose_triple_is_not_the_one_that_was_signed_is_refused(body):
    rejection = refusal(endpoint_of("mailgun", [KEY], "form"), sent(body))
    assert isinstance(rejection, NotGenuine)
    assert rejection.status == 406  # so that it is not sent again


def test_a_message_without_attachments_comes_as_a_plain_form():
    form = f"sender=ada&timestamp={NOW_S}&token={TOKEN}&signature={hex_of(STAMP + TOKEN.encode())}"
    request = sent(form.encode(), b"application/x-www-form-urlencoded")
    delivery = receive(endpoint_of("mailgun", [KEY], "form"), request)
    assert delivery.payloads[0]["sender"] == "ada"


# --- who takes them -------------------------------------------------------------------------------


def test_senders_that_send_no_parts_are_not_taken_to():
    headers = {"content-type": TYPE, "X-Hub-Signature-256": f"sha256={hex_of(GOOD)}"}
    rejection = refusal(endpoint_of("github", [KEY]), request_of(GOOD, headers))
    assert isinstance(rejection, WrongContentType)
    assert str(rejection) == "content type 'multipart/form-data'; expected json or form"


def test_a_scheme_that_signs_the_body_sees_the_bytes_of_all_parts():
    provider = catalogue.custom(catalogue.load("github").schemes["default"])
    headers = {"content-type": TYPE, "X-Hub-Signature-256": f"sha256={hex_of(GOOD)}"}
    endpoint = endpoint_of(provider, [KEY])
    assert receive(endpoint, request_of(GOOD, headers)).payloads == ({"a": "1"},)
    assert refusal(endpoint, request_of(GOOD + b" ", headers)).status == 401
