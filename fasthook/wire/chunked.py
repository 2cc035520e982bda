"""Chunked bodies (RFC 9112 §7.1): bytes in, the body out; no I/O.

Strict: CRLF alone ends a line, no white space round a chunk size, quoted strings only where the
grammar has them. Framing is ours and not httptools', which does not tell a chunk's size before
its data comes: the size is where an endless body is refused, before a byte of it is read.
"""

import re
from typing import Final

from fasthook.errors import BadHttp, BodyTooLarge, HeadersTooLarge
from fasthook.wire.limits import MAX_CHUNK_OVERHEAD_BYTES, MAX_HEAD_BYTES, MAX_LINE_BYTES

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
_SIZE_LINE: Final = re.compile(
    rb"([0-9A-Fa-f]{1,16})(?:;%b(?:=(?:%b|%b))?)*" % (_TOKEN, _TOKEN, _QUOTED)
)
_TRAILER: Final = re.compile(rb"(%b):[\t \x21-\x7e\x80-\xff]*" % _TOKEN)
#: Fields that say where a message ends, or whom it is for, mean nothing good behind the body.
_FORBIDDEN_TRAILERS: Final = frozenset(
    {b"content-length", b"transfer-encoding", b"host", b"content-encoding", b"trailer"}
)

_SIZE, _DATA, _DATA_END, _TRAILERS, _DONE = range(5)


class ChunkedBody:
    """One body on its way in. `take` consumes; `is_complete` says that the last line was seen."""

    __slots__ = ("body", "limit_bytes", "_missing", "_overhead", "_phase", "_trailer_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.body = bytearray()
        self.limit_bytes = limit_bytes
        self._missing = 0  # bytes of the current chunk
        self._overhead = 0
        self._trailer_bytes = 0
        self._phase = _SIZE

    @property
    def is_complete(self) -> bool:
        """Whether the body and its trailers are whole."""
        return self._phase == _DONE

    def take(self, data: bytes, start: int) -> int:
        """Consume `data` from `start`; returns where it stopped.

        Stops at the end of the body, or where more bytes are needed to go on.
        Raises `BadHttp`, `BodyTooLarge`, `HeadersTooLarge`.
        """
        position = start
        while self._phase != _DONE:
            step = _STEPS[self._phase]
            stopped_at = step(self, data, position)
            if stopped_at < 0:
                break
            position = stopped_at
        return position

    def _take_size(self, data: bytes, position: int) -> int:
        end = _end_of_line(data, position)
        if end < 0:
            return -1
        match = _SIZE_LINE.fullmatch(data, position, end)
        if match is None:
            raise BadHttp("malformed chunk size line")
        size = int(match[1], 16)
        if len(self.body) + size > self.limit_bytes:
            raise BodyTooLarge(
                f"chunked body of at least {len(self.body) + size} bytes, limit {self.limit_bytes}"
            )
        self._overhead += end + 4 - position  # this line's CRLF, and the one behind the data
        if self._overhead > MAX_CHUNK_OVERHEAD_BYTES + (len(self.body) + size) // 4:
            raise BadHttp("chunk framing costs more than it carries")
        self._missing = size
        self._phase = _DATA if size else _TRAILERS
        return end + 2

    def _take_data(self, data: bytes, position: int) -> int:
        piece = data[position : position + self._missing]
        if not piece:
            return -1
        self.body += piece
        self._missing -= len(piece)
        if not self._missing:
            self._phase = _DATA_END
        return position + len(piece)

    def _take_data_end(self, data: bytes, position: int) -> int:
        ending = data[position : position + 2]
        if ending == b"\r\n":
            self._phase = _SIZE
            return position + 2
        if ending in (b"", b"\r"):
            return -1
        raise BadHttp("chunk data is not followed by CRLF")

    def _take_trailer(self, data: bytes, position: int) -> int:
        end = _end_of_line(data, position)
        if end < 0:
            return -1
        if end == position:
            self._phase = _DONE
            return end + 2
        match = _TRAILER.fullmatch(data, position, end)
        if match is None:
            raise BadHttp("malformed trailer field")
        if match[1].lower() in _FORBIDDEN_TRAILERS:
            raise BadHttp(f"trailer field {match[1].decode()!r} is not allowed")
        # Trailers are counted and thrown away: nothing behind the body may pass for a header.
        self._trailer_bytes += end + 2 - position
        if self._trailer_bytes > MAX_HEAD_BYTES:
            raise HeadersTooLarge(f"trailers of more than {MAX_HEAD_BYTES} bytes")
        return end + 2


_STEPS = (
    ChunkedBody._take_size,
    ChunkedBody._take_data,
    ChunkedBody._take_data_end,
    ChunkedBody._take_trailer,
)


def _end_of_line(data: bytes, position: int) -> int:
    """Where the CRLF of the line at `position` stands, or -1 while it has not come."""
    end = data.find(b"\r\n", position)
    line_end = end if end >= 0 else len(data) - data.endswith(b"\r", position)
    if line_end - position > MAX_LINE_BYTES:
        raise BadHttp(f"chunk framing line of more than {MAX_LINE_BYTES} bytes")
    if data.find(b"\n", position, line_end) >= 0:
        raise BadHttp("bare LF in chunk framing")
    return end
