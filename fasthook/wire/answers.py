"""Answers as bytes: rendered once each, written many times (RFC 9112 §4)."""

from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Final

import msgspec

from fasthook.errors import Rejection
from fasthook.model import Reply

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Answer(msgspec.Struct, frozen=True):
    """One response. What differs between two sendings, the date, goes in between."""

    status: int
    start: bytes  # status line
    rest: bytes  # fields after the date, the blank line, the body
    closes: bool = False  # the connection ends after it

    def without_body(self) -> "Answer":
        """What a HEAD request gets."""
        fields = self.rest[: self.rest.index(b"\r\n\r\n") + 4]
        return Answer(self.status, self.start, fields, self.closes)

    def closing(self) -> "Answer":
        """The same, announcing the end of the connection."""
        return Answer(self.status, self.start, b"Connection: close\r\n" + self.rest, True)


def render(
    status: int,
    body: bytes = b"",
    *,
    content_type: str = "text/plain; charset=utf-8",
    fields: tuple[tuple[str, str], ...] = (),
    closes: bool = False,
) -> Answer:
    """An answer with exactly these fields, a Content-Length and, when sent, a Date."""
    start = f"HTTP/1.1 {status} {_phrase_of(status)}\r\n"
    lines = [f"{name}: {value}\r\n" for name, value in fields]
    if body:
        lines.append(f"Content-Type: {content_type}\r\n")
    if status not in (204, 304):
        lines.append(f"Content-Length: {len(body)}\r\n")
    if closes:
        lines.append("Connection: close\r\n")
    text = "".join(lines).encode("latin-1")
    if any("\r" in line[:-2] or "\n" in line[:-2] for line in lines):
        raise ValueError("a header value contains a line break")
    return Answer(status, start.encode(), text + b"\r\n" + body, closes)


def _phrase_of(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:  # some senders have a status of their own; the phrase means nothing
        return "Refused"


def rendered(reply: Reply) -> Answer:
    """The answer that a reply is. A body is never a page, whatever a browser makes of it."""
    fields = tuple(reply.headers.items())
    if reply.body:
        fields = (*fields, ("X-Content-Type-Options", "nosniff"))
    body = reply.body.encode()
    return render(reply.status, body, content_type=reply.content_type, fields=fields)


def refusal(rejection: Rejection, *, closes: bool = False) -> Answer:
    """The answer to a rejection: its fixed line of text, never its message."""
    return _refusal(
        rejection.status,
        rejection.answer,
        int(rejection.retry_after_s),
        rejection.allow,
        closes or rejection.closes,
    )


# Bounded: status and text come from the classes of errors.py, seconds and methods from few values.
@lru_cache(maxsize=512)
def _refusal(status: int, text: str, retry_after_s: int, allow: str, closes: bool) -> Answer:
    fields: list[tuple[str, str]] = []
    if retry_after_s:
        fields.append(("Retry-After", str(retry_after_s)))
    if allow:
        fields.append(("Allow", allow))
    body = f"{text}\n".encode() if text else b""
    return render(status, body, fields=tuple(fields), closes=closes)


INTERNAL_ERROR: Final = render(500, b"internal error\n", closes=True)


class DateLine:
    """The Date field as bytes, made anew once a second (RFC 9110 §6.6.1)."""

    __slots__ = ("line",)

    def __init__(self, now: float) -> None:
        self.update(now)

    def update(self, now: float) -> None:
        """`now`: wall clock in seconds."""
        self.line = b"Date: " + formatdate(now, usegmt=True).encode() + b"\r\n"
