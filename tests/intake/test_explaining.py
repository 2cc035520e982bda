"""Each way in which a signature breaks is named, and nothing secret is said."""

import base64
import json

import pytest

from fasthook.intake import catalogue
from fasthook.intake.explaining import Case, explain
from fasthook.intake.signing import place, sign
from fasthook.intake.templates import Selector
from tests.intake.support import NOW_S, copy_of, request_of

SECRET = b"the secret of these tests"
ENCODED = base64.b64encode(b"0123456789abcdef0123456789abcdef")
URL = "https://hooks.example.com/hook"
DOCUMENT = {"id": 1, "url": "https://x/y", "name": "caf\u00e9", "list": [1, 2]}
COMPACT = json.dumps(DOCUMENT, separators=(",", ":"), ensure_ascii=False).encode()


def signed(name, body=COMPACT, secret=SECRET, now_s=NOW_S, url=URL):
    request = request_of(body, {"webhook-id": "msg_1", "content-type": "application/json"})
    sign(catalogue.load(name).schemes["default"], secret, request, now_s, url)
    return request


def causes(name, request, secret=SECRET, url=URL, now_s=NOW_S):
    provider = catalogue.load(name)
    case = Case(request, provider, provider.schemes["default"], [secret], url, {}, now_s)
    found = explain(case)
    for one in found:
        assert secret.decode("latin-1").strip() not in one.text
        for value in request.headers.values():
            if len(value) > 30:
                assert value.decode() not in one.text
    return [(one.cause, one.is_enough) for one in found]


def test_what_is_genuine_needs_no_explanation():
    assert causes("github", signed("github")) == []


@pytest.mark.parametrize(
    "changed", [SECRET + b"\n", b" " + SECRET, b'"' + SECRET + b'"', b"'" + SECRET + b"'"]
)
def test_a_secret_that_a_file_or_a_shell_has_spoilt(changed):
    assert causes("github", signed("github"), changed) == [("secret form", True)]


def test_a_secret_that_is_decoded_or_is_not():
    request = signed("openai", secret=b"whsec_" + ENCODED)
    assert causes("polar", request, b"whsec_" + ENCODED) == [("secret encoding", True)]
    request = signed("polar", secret=b"whsec_" + ENCODED)
    assert causes("openai", request, b"whsec_" + ENCODED)[0] == ("secret encoding", True)


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(DOCUMENT).encode(),
        json.dumps(DOCUMENT, indent=2).encode(),
        json.dumps(DOCUMENT, separators=(",", ":")).encode(),
        COMPACT + b"\n",
        b"\xef\xbb\xbf" + COMPACT,
    ],
)
def test_a_body_that_was_written_anew(body):
    request = copy_of(signed("github"), body=body)
    assert causes("github", request) == [("body changed", True)]


def test_a_clock_that_is_wrong_by_how_much():
    request = signed("slack", now_s=NOW_S - 3600)
    provider = catalogue.load("slack")
    case = Case(request, provider, provider.schemes["default"], [SECRET], URL, {}, NOW_S)
    (found,) = explain(case)
    assert (found.cause, found.is_enough) == ("clock", True)
    assert "3600 s ago" in found.text


def test_a_url_that_a_proxy_has_changed():
    request = signed("square", url="http://hooks.example.com:8080/hook/")
    assert causes("square", request) == [("url", True)]


def test_a_signature_of_another_provider():
    request = signed("stripe")
    provider = catalogue.load("github")
    case = Case(request, provider, provider.schemes["default"], [SECRET], URL, {}, NOW_S)
    found = explain(case)
    assert found[0].cause == "other scheme"
    assert "stripe" in found[0].text


def test_a_header_that_is_missing_or_came_twice():
    request = signed("github")
    value = request.headers.pop(b"x-hub-signature-256")
    assert causes("github", request)[0] == ("header missing", False)
    request.headers[b"x-hub-signature-256"] = value + b", " + value
    request.repeated = {b"x-hub-signature-256": [value, value]}
    assert causes("github", request)[0] == ("header doubled", False)


def test_what_nothing_mends_is_most_likely_the_secret():
    assert causes("github", signed("github"), b"another secret of ours") == [
        ("wrong secret", False)
    ]


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"[" * 100_000, b"x" * 100_000, b'{"a":1e999}'])
@pytest.mark.parametrize("name", catalogue.names()[::7])
def test_no_request_is_too_strange_to_be_explained(name, body):
    provider = catalogue.load(name)
    scheme = provider.schemes[provider.default_scheme]
    if scheme.kind in ("rsa", "ecdsa", "ed25519", "jwt", "code", "basic"):
        return
    secret = b"a1" * 16
    headers = {header: "\x80" for header in scheme.headers}
    case = Case(request_of(body, headers), provider, scheme, [secret], URL, {}, NOW_S)
    assert explain(case)


def test_a_form_of_several_parts_is_looked_into():
    provider = catalogue.load("mailgun")
    scheme = provider.schemes["form"]
    form = request_of(b"sender=ada", {"content-type": "application/x-www-form-urlencoded"})
    place(form, Selector.parse("form:token"), b"t" * 50)
    sign(scheme, b"0123456789abcdef", form, NOW_S)
    parts = b"".join(
        b'--B\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % tuple(field.split(b"="))
        for field in form.body.split(b"&")
    )
    request = request_of(parts + b"--B--", {"content-type": "multipart/form-data; boundary=B"})

    def causes(secret, sent=request):
        case = Case(sent, provider, scheme, [secret], "", {}, NOW_S)
        return [finding.cause for finding in explain(case)]

    assert causes(b"0123456789abcdef") == []
    assert causes(b"0123456789abcdef\n") == ["secret form"]
    assert causes(b"another key 1234") == ["wrong secret"]
    assert "header missing" in causes(b"k" * 16, copy_of(request, body=parts))
