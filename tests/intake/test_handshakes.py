"""What a secret that is handed over has to look like, whatever the pattern of its provider lets by."""

import pytest

from fasthook.intake.handshakes import Greeting, Handover, Handshake
from tests.intake.support import request_of


def handing_over(at: str, pattern: str = "(?s).*") -> Greeting:
    return Greeting(
        Handshake(
            name="h",
            is_signed=False,
            when={at: "*"},
            handover=Handover(at=at, pattern=pattern, ask=""),
        )
    )


def in_header(secret: bytes):
    return request_of(b"", {"X-S": secret})


@pytest.mark.parametrize("secret", [b"a" * 16, b"a b" * 10, b"!~" * 256])
def test_printable_text_of_some_length_is_a_secret(secret):
    handshake = handing_over("header:x-s")
    assert handshake.applies(in_header(secret))
    assert handshake.secret_in(in_header(secret)) == secret


@pytest.mark.parametrize(
    "secret",
    [b"", b"a" * 15, b"a" * 513, b"a" * 20 + b"\n", b"a" * 20 + b"\xe9", b"a" * 20 + b"\x7f", b"\0" * 20],
)  # fmt: skip
def test_nothing_else_is(secret):
    handshake = handing_over("header:x-s")
    assert not handshake.applies(in_header(secret))
    assert handshake.secret_in(in_header(secret)) is None
    assert handshake.hands_over(in_header(secret)) == bool(secret)


def test_the_pattern_holds_for_the_whole():
    handshake = handing_over("header:x-s", "[a-f]+")
    assert handshake.applies(in_header(b"abcdef" * 4))
    assert not handshake.applies(in_header(b"abcdef" * 4 + b"g"))
    assert not handshake.applies(in_header(b"g" + b"abcdef" * 4))


@pytest.mark.parametrize("at", ["json:a.b", "form:s", "query:s"])
def test_it_may_stand_anywhere(at):
    body = {"json:a.b": b'{"a":{"b":"%b"}}', "form:s": b"s=%b", "query:s": b""}[at]
    secret = b"abcdefgh" * 4
    target = b"/hook?s=" + secret if at == "query:s" else b"/hook"
    request = request_of(body % secret if body else b"", {}, target)
    assert handing_over(at).secret_in(request) == secret
    assert handing_over(at).hands_over(request)
    assert not handing_over("header:x-s").hands_over(request)
