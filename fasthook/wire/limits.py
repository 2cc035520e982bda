"""Every bound of the wire, with its reason, and what happens at it."""

from typing import Final

import msgspec

KiB: Final = 1024
MiB: Final = 1024 * KiB

#: As gunicorn and aiohttp do, rounded up. Beyond, in the request line: 414; in a field: 431.
MAX_LINE_BYTES: Final = 8 * KiB
#: Request line and all fields, as Node does; also of a chunked body's trailers. Beyond: 431.
#: It also bounds the time httptools needs for a head that comes byte by byte (quadratic).
MAX_HEAD_BYTES: Final = 16 * KiB
#: As gunicorn, HAProxy and hyper do. Beyond: 431.
MAX_FIELDS: Final = 100
#: RFC 9112 §2.2 asks to ignore at least one blank line before a request. Beyond: 400.
MAX_BLANK_LINES: Final = 4
#: Bytes of chunk framing that a body may cost: this, plus a quarter of the body. Beyond: 400.
MAX_CHUNK_OVERHEAD_BYTES: Final = 16 * KiB
#: Requests of one connection that wait for an answer. Beyond: reading pauses.
MAX_UNANSWERED: Final = 16
#: Requests of one connection in one turn of the loop. Beyond: the others have their turn first.
MAX_A_TURN: Final = 16
#: Bytes of answers that a client has not read. Beyond: nothing more is read from it.
WRITE_HIGH_WATER_BYTES: Final = 64 * KiB
#: After a refusal, what is read and thrown away so that the answer reaches the client. Beyond: RST.
LINGER_BYTES: Final = 64 * KiB
LINGER_S: Final = 1.0
#: How often deadlines are looked at; they are kept to within this.
SWEEP_S: Final = 0.25
#: Descriptors that connections never take: for logs, the spool, the admin listener.
RESERVED_DESCRIPTORS: Final = 32


class Limits(msgspec.Struct, frozen=True):
    """The bounds that an operator may set; times in seconds, absolute, never reset by a byte."""

    #: From the first byte of a request to the end of its head. Beyond: 408.
    head_timeout_s: float = 5.0
    #: From the end of the head to the end of the body, plus the body's size over `min_rate`.
    #: Beyond: 408.
    body_timeout_s: float = 10.0
    min_rate_bytes_s: int = 64 * KiB
    #: nginx keeps its upstream connections for 60 s: longer than that, or it meets closed ones.
    idle_timeout_s: float = 75.0
    #: A client that does not read its answers for this long is cut off.
    write_timeout_s: float = 10.0
    #: Beyond: an idle connection is closed for the new one, or else accepting pauses.
    max_connections: int = 1024
    #: All bodies being read, together. Beyond: 503.
    max_bytes_in_flight: int = 64 * MiB


class ByteBudget:
    """Bytes of bodies in flight, over all connections."""

    __slots__ = ("capacity", "used")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.used = 0

    def reserve(self, count: int) -> bool:
        """Take `count` bytes, or nothing if they are not there."""
        if self.used + count > self.capacity:
            return False
        self.used += count
        return True

    def release(self, count: int) -> None:
        """Give `count` bytes back."""
        self.used -= count
