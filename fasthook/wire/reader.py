"""Bytes → Request, or a Rejection. No I/O, no clock.

`feed` takes what came from the socket; `next_request` gives one whole request at a time, so the
caller decides how many it takes. httptools judges the grammar of each head and sees nothing but
one head at a time: it can neither be paused nor told a limit, and on an upgrade it reports an
empty body first. Where a head or a body ends, and every bound, is decided here.

What httptools 0.9 accepts and this module refuses: no Host or a malformed one, versions other
than 1.1, RTSP and ICE, transfer codings other than `chunked`, tunnels, repeated fields
that may stand only once, anything beyond the limits.
"""

import re
from collections.abc import Callable
from enum import IntEnum
from typing import Final

import httptools

from fasthook.errors import (
    BadHttp,
    BodyTooLarge,
    ExpectationFailed,
    HeadersTooLarge,
    NoTunnel,
    OutOfMemoryBudget,
    TargetTooLong,
)
from fasthook.model import Request, field_values, joined
from fasthook.wire.chunked import ChunkedBody
from fasthook.wire.limits import (
    MAX_BLANK_LINES,
    MAX_FIELDS,
    MAX_HEAD_BYTES,
    MAX_LINE_BYTES,
    ByteBudget,
)

# RFC 3986 §3.2.2, without user information, which RFC 9110 §4.2.4 wants refused.
_AUTHORITY: Final = rb"(?:[A-Za-z0-9\-._~!$&'()*+;=%]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?"
_HOST: Final = re.compile(_AUTHORITY)
_ABSOLUTE_FORM: Final = re.compile(rb"(?i:https?)://%b(/[^?]*)?(?:\?.*)?" % _AUTHORITY)
#: RFC 9110: fields with one value. Sent twice, a proxy may have read the other one.
SINGLETONS: Final = frozenset(
    {
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"content-type",
        b"content-encoding",
        b"authorization",
        b"expect",
        b"upgrade",
    }
)
# Hosts that were found well-formed. A sender always names the same; bounded, since it is its word.
_MAX_KNOWN_HOSTS: Final = 16
_MAX_KNOWN_HOST_BYTES: Final = 100
_MAX_LENGTH_DIGITS: Final = 20
_CR: Final = ord("\r")
_TAB: Final = ord("\t")


class Phase(IntEnum):
    """Where in a request the reader stands; each has its own deadline."""

    IDLE = 0
    HEAD = 1
    BODY = 2


class RequestReader:
    """The requests of one connection."""

    __slots__ = (
        # for the life of the connection
        "_body_limit",
        "_budget",
        "_parser",
        "_callbacks",
        "_singletons",
        "_small_body",
        "_known_hosts",
        "buffer",
        "_position",
        # for one request
        "phase",
        "_fed",
        "_blank_lines",
        "_request",
        "_parts",
        "_missing",
        "_received",
        "_reserved",
        "_chunked",
        "_was_asked",
    )

    def __init__(
        self,
        body_limit: Callable[[bytes], int],
        small_body: int,
        budget: ByteBudget,
        singletons: frozenset[bytes] = SINGLETONS,
    ) -> None:
        """`body_limit(path)` is asked for bodies longer than `small_body` bytes alone."""
        self._body_limit = body_limit
        self._small_body = small_body
        self._budget = budget
        self._singletons = singletons
        self._known_hosts: set[bytes] = set()
        #: What came and is not consumed yet, from `_position` on; empty as soon as all of it is.
        self.buffer = b""
        self._position = 0
        self._reserved = 0
        self._received = 0  # bytes of the parts of a body
        self._missing = 0
        self._parts: list[bytes] = []
        self._new_parser()
        self._start_request()

    def _new_parser(self) -> None:
        self._callbacks = _Callbacks()
        self._parser = httptools.HttpRequestParser(self._callbacks)

    def _start_request(self) -> None:
        self.phase = Phase.IDLE
        self._fed = 0
        self._blank_lines = 0
        self._request: Request | None = None
        self._was_asked = False
        self._chunked: ChunkedBody | None = None

    def feed(self, data: bytes) -> None:
        """Take what the socket gave; look at it only in `next_request`."""
        if self._position != len(self.buffer):
            self.buffer = self.buffer[self._position :] + data
        elif not self._missing:
            self.buffer = data
        # Parts of a long body are kept as they are and joined once, not copied at each read.
        elif len(data) <= self._missing:
            self._parts.append(data)
            self._received += len(data)
            self._missing -= len(data)
            return
        else:
            self._parts.append(data[: self._missing])
            self._received += self._missing
            self.buffer = data[self._missing :]
            self._missing = 0
        self._position = 0

    def next_request(self) -> Request | None:
        """The next whole request, or None: more bytes are needed. Raises `Rejection`."""
        request = self._request
        try:
            if request is None:
                if self._position == len(self.buffer):
                    return None
                request = self._take_head()
                if request is None:
                    return None
                missing = self._missing
                if missing:
                    # By far most bodies came with their head: nothing is kept, nothing joined.
                    start = self._position
                    end = start + missing
                    buffer = self.buffer
                    if end <= len(buffer):
                        request.body = body = buffer[start:end]
                        self._missing = 0
                        if end == len(buffer):
                            # Let go of it now: the next read then finds its memory warm, whereas
                            # each connection holding on to its last one costs a cache of them.
                            self.buffer = b""
                            end = 0
                        self._position = end
                        self._parser.feed_data(body)
                        self.phase = Phase.IDLE
                        return request
            return self._take_rest(request)
        except httptools.HttpParserUpgrade:
            raise NoTunnel("CONNECT or a protocol upgrade") from None
        except httptools.HttpParserCallbackError:
            raise  # ours, and no fault of the sender
        except httptools.HttpParserError as error:
            raise BadHttp(str(error)) from None

    def _take_rest(self, request: Request) -> Request | None:
        """The request, once its body is whole."""
        self._request = request
        if self._chunked is not None:
            is_whole = self._take_chunks(request, self._chunked)
        else:
            is_whole = self._take_body(request)
        if not is_whole:
            return None
        self._start_request()
        return request

    def after_last(self) -> BadHttp | None:
        """What to say of bytes behind a request that ends the connection, if there are any."""
        if self.buffer[self._position :].strip(b"\r\n"):
            return BadHttp("more bytes behind a request that ends the connection")
        return None

    def wants_continue(self) -> bool:
        """Whether the sender waits for `100 Continue`; true once a request."""
        request, was_asked = self._request, self._was_asked
        self._was_asked = True
        wants = request is not None and not was_asked and b"expect" in request.headers
        return wants and not self._parts and self._position == len(self.buffer)

    @property
    def has_only_blank_lines(self) -> bool:
        """Whether nothing of a request has come but blank lines in front of it."""
        return self.phase is Phase.HEAD and self._position == len(self.buffer)

    @property
    def expected_bytes(self) -> int:
        """The most that the body being read may come to."""
        if self._chunked is not None:
            return self._chunked.limit_bytes
        return self._missing + sum(map(len, self._parts))

    def close(self) -> None:
        """Give back what the budget lent."""
        self._budget.release(self._reserved)
        self._reserved = 0
        self._parts = []
        self.buffer = b""
        self._position = self._missing = 0

    # --- the head ---------------------------------------------------------------------------------

    def _take_head(self) -> Request | None:
        buffer, start, fed = self.buffer, self._position, self._fed
        if not fed and buffer[start] <= _CR:
            self._skip_blank_lines()
            start = self._position
            if len(buffer) - start < 1 or buffer[start:] == b"\r":
                return None
        end = buffer.find(b"\r\n\r\n", start + fed - 3 if fed > 3 else start) + 4
        if end == 3:
            self.phase = Phase.HEAD
            self._check_length(buffer, start, len(buffer))
            self._parser.feed_data(buffer[start + fed :])
            self._fed = len(buffer) - start
            return None
        if end - start > MAX_LINE_BYTES:
            self._check_length(buffer, start, end)
        head = buffer[start:end]
        self._parser.feed_data(head[fed:] if fed else head)
        if not self._callbacks.is_complete:
            raise BadHttp("the head does not end where its blank line stands")
        self._fed = self._blank_lines = 0
        self._position = end
        return self._begin_request(head)

    def _skip_blank_lines(self) -> None:
        while self.buffer.startswith(b"\r\n", self._position):
            self._position += 2
            self._blank_lines += 1
            self.phase = Phase.HEAD  # else they would keep an idle connection alive
            if self._blank_lines > MAX_BLANK_LINES:
                raise BadHttp(f"more than {MAX_BLANK_LINES} blank lines before a request")
        rest = self.buffer[self._position : self._position + 2]
        if rest[:1] == b"\n" or (rest[:1] == b"\r" and len(rest) == 2):
            raise BadHttp("bare CR or LF before a request")

    def _check_length(self, buffer: bytes, start: int, end: int) -> None:
        """Refuse a head that is too long, whole or not, and say which part of it is."""
        if buffer[end - 1] == _CR:
            end -= 1  # half of a line end is no part of the line
        if end - start <= MAX_LINE_BYTES:
            return
        line_end = buffer.find(b"\r\n", start, end)
        if line_end < 0 or line_end - start > MAX_LINE_BYTES:
            raise TargetTooLong(f"request line of more than {MAX_LINE_BYTES} bytes")
        if end - start > MAX_HEAD_BYTES:
            raise HeadersTooLarge(f"head of more than {MAX_HEAD_BYTES} bytes")
        if max(map(len, buffer[start:end].split(b"\r\n"))) > MAX_LINE_BYTES:
            raise HeadersTooLarge(f"header field of more than {MAX_LINE_BYTES} bytes")

    def _begin_request(self, head: bytes) -> Request:
        try:
            method, target, rest = head.split(b" ", 2)
        except ValueError:
            raise BadHttp("request line is not: method SP target SP version") from None
        callbacks = self._callbacks
        headers, callbacks.fields, callbacks.is_complete = callbacks.fields, {}, False
        path = target.partition(b"?")[0] if target.startswith(b"/") else _path_of(target)
        request = Request(method, target, path, head, headers, True)
        count = head.count(b"\n") - 2
        # Fields that came twice, in whatever case, or white space that httptools leaves behind a
        # value: rare, so one look decides whether to read the head with care.
        if count > MAX_FIELDS:
            raise HeadersTooLarge(f"{count} header fields, limit {MAX_FIELDS}")
        # (A byte of bytes is looked for as an int: as bytes it costs an exception inside CPython.)
        if count != len(headers) or _TAB in head or head.find(b" \r\n") >= 0:
            self._read_fields(request)
            headers = request.headers
        if headers.get(b"host") not in self._known_hosts or not rest.startswith(b"HTTP/1.1\r\n"):
            self._check_host(rest, headers.get(b"host"))
        if b"connection" in headers or b"transfer-encoding" in headers or b"expect" in headers:
            self._heed_special(request, headers)
        elif b"content-length" in headers:
            self._expect_bytes(request, headers[b"content-length"])
        return request

    def _heed_special(self, request: Request, headers: dict[bytes, bytes]) -> None:
        """The fields that change how a message is framed or answered."""
        if b"connection" in headers:
            tokens = _tokens(headers[b"connection"])
            request.keep_alive = b"close" not in tokens
            # Without a body httptools has raised by now; with one it would only after the body.
            if b"upgrade" in tokens and b"upgrade" in headers:
                raise NoTunnel("protocol upgrade")
        length = headers.get(b"content-length")
        if b"transfer-encoding" in headers:  # RFC 9112 §6.3
            if length is not None:
                raise BadHttp("both Transfer-Encoding and Content-Length")
            if headers[b"transfer-encoding"].lower() != b"chunked":
                raise BadHttp("Transfer-Encoding is not: chunked")
            self._chunked = ChunkedBody(self._body_limit(request.path))
            self.phase = Phase.BODY
        elif length is not None:
            self._expect_bytes(request, length)
        if headers.get(b"expect", b"100-continue").lower() != b"100-continue":
            raise ExpectationFailed("Expect is not: 100-continue")

    def _expect_bytes(self, request: Request, length: bytes) -> None:
        """Note the body's length; refuse it here if it is too long, before a byte of it."""
        if not length.isdigit() or len(length) > _MAX_LENGTH_DIGITS:
            raise BadHttp("Content-Length is no number")
        missing = int(length)
        if missing > self._small_body:
            limit = self._body_limit(request.path)
            if missing > limit:
                raise BodyTooLarge(f"body of {missing} bytes, limit {limit}")
        self._missing = missing

    def _read_fields(self, request: Request) -> None:
        """Set fields with their values trimmed, and those which were sent more than once."""
        values = field_values(request.head)
        request.headers = joined(values)
        request.repeated = {name: several for name, several in values.items() if len(several) > 1}
        for name in request.repeated:
            if name in self._singletons:
                raise BadHttp(f"header {name.decode()!r} was sent twice")

    def _check_host(self, rest: bytes, host: bytes | None) -> None:
        """`rest`: what follows the target, which begins with the version."""
        if rest.startswith(b"HTTP/1.0\r\n"):
            # Its framing and persistence differ; every sender and proxy can do better.
            raise BadHttp("HTTP/1.0; expected HTTP/1.1 (in nginx: proxy_http_version 1.1)")
        if not rest.startswith(b"HTTP/1.1\r\n"):
            raise BadHttp("the version is not HTTP/1.1")
        if host is None:
            raise BadHttp("no Host field")  # RFC 9112 §3.2
        if not _HOST.fullmatch(host):
            raise BadHttp("malformed Host field")
        if len(self._known_hosts) < _MAX_KNOWN_HOSTS and len(host) <= _MAX_KNOWN_HOST_BYTES:
            self._known_hosts.add(host)

    # --- the body ---------------------------------------------------------------------------------

    def _take_body(self, request: Request) -> bool:
        """Whether a body with a Content-Length is whole; if so the request has it."""
        if self._missing:
            self._wait_for_body()
            # As it comes, not as it is announced: announcing costs a client nothing.
            self._reserve(self._received - self._reserved)
            return False
        if self._parts:
            request.body = b"".join(self._parts)
            self._parts = []
            self._received = 0
            self._budget.release(self._reserved)
            self._reserved = 0
            # httptools has seen the head alone; with the body it is ready for the next one.
            self._parser.feed_data(request.body)
        return True

    def _wait_for_body(self) -> None:
        self.phase = Phase.BODY
        piece = self.buffer[self._position :]
        if piece:
            self._parts.append(piece)
            self._received += len(piece)
            self._missing -= len(piece)
            self._position = len(self.buffer)

    def _take_chunks(self, request: Request, chunked: ChunkedBody) -> bool:
        before = len(chunked.body)
        self._position = chunked.take(self.buffer, self._position)
        if not chunked.is_complete:
            self._reserve(len(chunked.body) - before)
            return False
        request.body = bytes(chunked.body)
        self._budget.release(self._reserved)
        self._reserved = 0
        self._new_parser()  # the old one waits for chunks that it will never see
        return True

    def _reserve(self, count: int) -> None:
        if not self._budget.reserve(count):
            raise OutOfMemoryBudget(
                f"{self._budget.used} bytes of bodies in flight, limit {self._budget.capacity}"
            )
        self._reserved += count


class _Callbacks:
    """What httptools calls, looked up once by it: callbacks that are not here cost nothing.

    A method for each field is faster than collecting them in C and lower-casing the names
    afterwards (bench/micro.py).
    """

    __slots__ = ("fields", "is_complete")

    def __init__(self) -> None:
        self.fields: dict[bytes, bytes] = {}
        self.is_complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields[name.lower()] = value

    def on_headers_complete(self) -> None:
        self.is_complete = True


def _path_of(target: bytes) -> bytes:
    """The path of a target in absolute form (RFC 9112 §3.2.2); other forms have none."""
    match = _ABSOLUTE_FORM.fullmatch(target)
    if match is None:
        raise BadHttp("request target is neither a path nor an absolute URL")
    return match[1] or b"/"


def _tokens(value: bytes) -> list[bytes]:
    return [token.strip(b" \t") for token in value.lower().split(b",")]
