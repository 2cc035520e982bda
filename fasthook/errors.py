"""What can go wrong, by cause.

`Rejection`: a request is refused; the class is the cause and knows the status. Its message goes to
the log, in full; the sender sees only the status and the fixed `answer` of the class.
`ConfigError`: nothing starts; the message names the place and what was expected there.
Messages never carry a secret, nor the signature that would have been right.
"""

import math
from typing import Any, ClassVar


class FasthookError(Exception):
    """Base of all errors that fasthook raises on purpose."""


class ConfigError(FasthookError):
    """The configuration can't be used; the message says where, what was got, what is expected."""


class Rejection(FasthookError):
    """The request is refused; `status` and `answer` are what the sender is told.

    `closes`: the connection can't go on, since where the next request starts is unknown or the
    sender can't be trusted to say it.
    """

    status: int = 400
    answer: str = "bad request"
    closes: ClassVar[bool] = False
    retry_after_s: int = 0
    #: Names of the methods that are allowed, for 405 alone.
    allow: str = ""
    #: For the log, as far as known when it was raised.
    endpoint: str = ""
    client: str = ""
    #: Whether head and body are not kept, whatever the endpoint wants: they hold a secret.
    is_withheld: bool = False


# --- the wire: broken HTTP always ends the connection ---------------------------------------------


class BadHttp(Rejection):
    """The bytes are not one well-formed HTTP/1.1 request (RFC 9112)."""

    closes = True


class RequestTimeout(Rejection):
    """The request was not complete at its deadline."""

    status = 408
    answer = "request timeout"
    closes = True


class BodyTooLarge(Rejection):
    """The body is, or says it will be, longer than the limit."""

    status = 413
    answer = "body too large"
    closes = True


class TargetTooLong(Rejection):
    """The request line is longer than the limit."""

    status = 414
    answer = "request line too long"
    closes = True


class HeadersTooLarge(Rejection):
    """Too many header fields, or too many bytes of them."""

    status = 431
    answer = "header fields too large"
    closes = True


class ExpectationFailed(Rejection):
    """`Expect` asks for something other than 100-continue."""

    status = 417
    answer = "expectation failed"
    closes = True


class NoTunnel(Rejection):
    """CONNECT or a protocol upgrade, which a webhook receiver does not do."""

    status = 501
    answer = "not implemented"
    closes = True


class OutOfMemoryBudget(Rejection):
    """The bodies in flight use all the memory that is set aside for them."""

    status = 503
    answer = "busy"
    closes = True
    retry_after_s = 1


# --- intake: the request is whole, the connection goes on -----------------------------------------


class UnknownPath(Rejection):
    """No endpoint has this path."""

    status = 404
    answer = "not found"


class WrongMethod(Rejection):
    """The endpoint does not take this method."""

    status = 405
    answer = "method not allowed"

    def __init__(self, message: str, allow: str) -> None:
        super().__init__(message)
        self.allow = allow


class ClientNotAllowed(Rejection):
    """The client's address is not on the endpoint's allow list."""

    status = 403
    answer = "forbidden"


class NotGenuine(Rejection):
    """Base of everything that makes a signature worthless; one answer for all of it."""

    status = 401
    answer = "signature verification failed"


class HandshakeRefused(Rejection):
    """Somebody asks for what the endpoint's configuration does not have; the status is the
    provider's.
    """

    status = 403
    answer = "forbidden"

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class NoSignature(NotGenuine):
    """The signature, or something that the signature needs, is missing or malformed."""


class BadSignature(NotGenuine):
    """No configured secret signs this request."""


class UnknownKey(BadSignature):
    """The signature names a key that its sender's set does not have."""


class StaleTimestamp(NotGenuine):
    """The signed time is too far from now."""


class RepeatedHeader(Rejection):
    """A header that decides on trust was sent twice: whose copy was verified?"""

    answer = "repeated header"


class WrongContentType(Rejection):
    """The endpoint does not take this content type, or takes no encoded bodies."""

    status = 415
    answer = "unsupported media type"


class BadPayload(Rejection):
    """The body is not of the form that its content type says."""

    answer = "malformed payload"


class Shed(Rejection):
    """Base of refusals for want of room or rate; `status` 429 only to senders known to retry it."""

    status = 503
    answer = "busy"

    def __init__(self, message: str, retry_after_s: float, too_many: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s = max(1, int(retry_after_s + 0.999))
        if too_many:
            self.status = 429


class RateExceeded(Shed):
    """A token bucket is empty."""


class BacklogFull(Shed):
    """As many events wait as memory is set aside for."""


class SpoolUnavailable(Shed):
    """What was received can't be stored: the disk is full, fails, or can't follow."""


class Draining(Shed):
    """The service is stopping and takes nothing new."""


class VisitFailed(Shed):
    """A handshake wants an address of its sender's to be visited, and that did not succeed."""


class KeyUnavailable(Rejection):
    """The key that would verify it is the sender's to publish, and can't be fetched right now.

    Not a word on whether the request is genuine, but nobody knows that it is: it counts like one
    that is not.
    """

    status = 503
    answer = "key not available"

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = max(1, math.ceil(retry_after_s))


class KeyNeeded(FasthookError):
    """No refusal: the key that verifies the request is to be fetched, and then to be asked again.

    `wanted`: an `intake.fetched.Wanted`.
    """

    def __init__(self, wanted: Any) -> None:
        super().__init__(f"the key at {wanted.url} is needed")
        self.wanted = wanted


# --- raised by handlers ---------------------------------------------------------------------------


class Discard(FasthookError):
    """Raised by a handler: give this event up at once; it becomes a dead letter."""


class Retry(FasthookError):
    """Raised by a handler: run this event again, after `after` seconds if given.

    Such an attempt counts like any other: after `retries` of them the event is a dead letter.
    """

    def __init__(self, message: str = "", *, after: float | None = None) -> None:
        super().__init__(message)
        # A time that is none leaves the handler's own schedule.
        is_time = isinstance(after, int | float) and math.isfinite(after)
        self.after_s = max(0.0, float(after)) if is_time and after is not None else None


class InboxError(FasthookError):
    """`event.once` can't work like that; the message says why, and what to do."""


class AlreadyDone(BaseException):
    """Raised by `event.once`: the handler has done this event before.

    It ends the attempt, which counts as done. No `Exception`, so that an `except Exception` around
    the block does not make a failure of it.
    """
