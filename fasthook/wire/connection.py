"""One connection: bytes in, requests out; answers in, bytes out, in the order of the requests.

The edge of the wire: it has the transport and asks the loop for the time. What a request means is
not known here; `receive` answers it at once, or later through `answer`.
"""

import asyncio
import math
import select
from collections.abc import Callable
from typing import Any, Protocol

from fasthook.errors import Rejection, RequestTimeout
from fasthook.model import Request
from fasthook.wire.answers import CONTINUE, INTERNAL_ERROR, Answer, DateLine, refusal
from fasthook.wire.limits import (
    LINGER_BYTES,
    LINGER_S,
    MAX_A_TURN,
    MAX_UNANSWERED,
    WRITE_HIGH_WATER_BYTES,
    Limits,
)
from fasthook.wire.reader import Phase, RequestReader


class Receive(Protocol):
    """What the wire asks of the rest of fasthook."""

    def __call__(self, request: Request, connection: "Connection", number: int) -> Answer | None:
        """Answer request `number` of the connection now, or None: `connection.answer` follows."""


class Owner(Protocol):
    """Who keeps the connections: the listener."""

    limits: Limits
    date: DateLine
    is_draining: bool

    def opened(self, connection: "Connection") -> None:
        """The connection has a transport."""

    def closed(self, connection: "Connection") -> None:
        """The connection is gone."""

    def arrived(self, connection: "Connection") -> None:
        """Call its `take`, and then `flush`, once all sockets of this turn are read."""

    def refused(self, rejection: Rejection, peer: str) -> None:
        """A request was refused before `receive` saw it."""

    def failed(self, error: BaseException, peer: str) -> None:
        """Our code raised; the sender got 500."""


class Connection:
    """One client, or one of nginx's upstream connections; an `asyncio.Protocol` by its methods.

    Not by inheritance: what inherits from Python's own class is slower to get at when compiled.
    """

    __slots__ = (
        # for the life of the connection
        "_idle_timeout_s",
        "_loop_time",
        "_owner",
        "_reader",
        "_receive",
        "_transport",
        "peer",
        "served",
        # about now
        "deadline",
        "_due",
        "_asked",
        "_answered",
        "_early_answers",
        "_has_news",
        "_heads",
        "_is_paused",
        "_is_write_blocked",
        "_last",
        "_lingered_bytes",
        "_phase",
        "_unsent",
    )

    def __init__(
        self,
        owner: Owner,
        reader: RequestReader,
        receive: Receive,
        loop_time: Callable[[], float],
    ) -> None:
        self._owner = owner
        self._reader = reader
        self._receive = receive
        self._loop_time = loop_time
        self._idle_timeout_s = owner.limits.idle_timeout_s
        self._transport: asyncio.Transport | None = None
        self.peer = ""
        self.served = 0  # requests answered
        self.deadline = math.inf  # loop time; the listener calls expire() after it
        self._due = math.inf  # the deadline that a blocked client's stands in for
        self._asked = 0
        self._answered = 0
        #: Answers that came before those of earlier requests; at most MAX_UNANSWERED.
        self._early_answers: dict[int, Answer] = {}
        self._heads: set[int] = set()  # HEAD requests that are answered later
        self._has_news = False  # bytes came, and `take` is still to look at them
        self._is_paused = False
        self._is_write_blocked = False
        self._last = -1  # the request after whose answer the connection ends; -1: none yet
        self._lingered_bytes = -1  # -1: not lingering
        self._phase = Phase.IDLE
        self._unsent = b""  # answers that wait for `flush`

    # --- called by the loop -----------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(high=WRITE_HIGH_WATER_BYTES)
        address = transport.get_extra_info("peername")
        self.peer = address[0] if isinstance(address, tuple) and address else "unix"
        self.deadline = self._loop_time() + self._idle_timeout_s
        self._owner.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._last >= 0:
            self._linger(len(data))
            return
        self._reader.feed(data)
        # All sockets are read first, and only then what came is looked at: see `take`.
        if not self._has_news:
            self._has_news = True
            self._owner.arrived(self)

    def eof_received(self) -> bool:
        if self._has_news:
            self._advance()
        # A half-closed client still reads: what it asked for is answered before the end.
        if self._lingered_bytes < 0 and self._asked != self._answered:
            self._last = self._asked - 1
            return True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._reader.close()
        self._owner.closed(self)

    def pause_writing(self) -> None:
        self._is_write_blocked = True
        self._due = self.deadline
        self.deadline = self._loop_time() + self._owner.limits.write_timeout_s
        self._pause()

    def resume_writing(self) -> None:
        self._is_write_blocked = False
        self.deadline = self._due
        if self._is_paused:
            self._advance()

    # --- requests ---------------------------------------------------------------------------------

    def _advance(self) -> None:
        self.take()
        self.flush()

    def take(self) -> None:
        """Take requests until the bytes, or the places for unanswered ones, are used up.

        What is answered at once waits for `flush`, which is to follow in this turn of the loop:
        answers of many connections that are sent in a row wake their clients less often, and
        system calls in between would displace our code from the processor's caches.
        """
        self._has_news = False
        transport = self._transport
        if transport is None or transport.is_closing():
            return  # nobody would hear the answers
        if self._is_paused:
            self._read_on()
        before = self._asked
        reader = self._reader
        try:
            while self._last < 0 and not self._is_write_blocked:
                if self._asked - self._answered >= MAX_UNANSWERED:
                    self._pause()
                    break
                request = reader.next_request()
                if request is None:
                    break
                self._ask(request)
                if not reader.buffer:
                    break
                if self._asked - before >= MAX_A_TURN:
                    self._pause()
                    self._has_news = True
                    self._owner.arrived(self)
                    break
        except Rejection as rejection:
            self._refuse(rejection)
        except Exception as error:
            self._owner.failed(error, self.peer)
            self._end_with(INTERNAL_ERROR)
        self._set_deadline(self._asked != before)

    def _ask(self, request: Request) -> None:
        number = self._asked
        self._asked = number + 1
        owner = self._owner
        try:
            answer = self._receive(request, self, number)
        except Exception as error:
            owner.failed(error, self.peer)
            answer = INTERNAL_ERROR
        if request.method == b"HEAD":
            if answer is None:
                self._heads.add(number)
            else:
                answer = answer.without_body()
        if not request.keep_alive or owner.is_draining or (answer is not None and answer.closes):
            self._end_after(number, is_last_of_client=not request.keep_alive)
        elif number == self._answered and answer is not None:
            # By far most requests: nothing waits, nothing ends.
            self._answered = number + 1
            self.served += 1
            self._unsent += answer.start + owner.date.line + answer.rest
            return
        if answer is not None:
            self.answer(number, answer)

    def flush(self) -> None:
        """Send what is not sent yet."""
        if self._unsent:
            self._write(b"")

    def _end_after(self, number: int, *, is_last_of_client: bool) -> None:
        """Request `number` is the last one, because the client said so, or because we do."""
        self._last = number
        self.deadline = math.inf  # until it is answered
        rejection = self._reader.after_last() if is_last_of_client else None
        if rejection is not None:
            # No request any more (RFC 9112 §9.6), and worth a word: smuggling looks like this.
            self._owner.refused(rejection, self.peer)
            self._last = number + 1
            self._asked = number + 2
            self._early_answers[number + 1] = refusal(rejection)

    def _set_deadline(self, is_new: bool) -> None:
        """Absolute per phase: bytes that trickle in do not move it."""
        if self._last >= 0 or self._is_write_blocked:
            return  # set already, by what ends or blocks the connection
        phase = self._reader.phase
        if phase is Phase.IDLE:
            if self._asked == self._answered:
                self.deadline = self._loop_time() + self._idle_timeout_s
            else:
                self.deadline = math.inf  # an answer is due; what follows it is not known yet
        elif is_new or phase is not self._phase:
            limits = self._owner.limits
            allowed_s = limits.head_timeout_s
            if phase is Phase.BODY:
                allowed_s = limits.body_timeout_s
                allowed_s += self._reader.expected_bytes / limits.min_rate_bytes_s
                self._say_continue()
            self.deadline = self._loop_time() + allowed_s
        self._phase = phase

    def _say_continue(self) -> None:
        """Ask for the body, unless an earlier answer is due: then after that."""
        if self._asked == self._answered and self._reader.wants_continue():
            self._write(CONTINUE)

    # --- answers ----------------------------------------------------------------------------------

    def answer(self, number: int, answer: Answer) -> None:
        """Send the answer to request `number`, as soon as all earlier ones are sent.

        Nothing happens if the client is gone: whoever answers late need not know.
        """
        others = self._early_answers or self._heads or self._is_paused
        if others or number != self._answered or self._last >= 0 or answer.closes:
            self._answer_in_turn(number, answer)
            return
        # By far most: nothing else waits, nothing ends.
        self._answered = number + 1
        self.served += 1
        self._write(answer.start + self._owner.date.line + answer.rest)
        if self._phase is not Phase.HEAD:
            self._go_on()

    def _answer_in_turn(self, number: int, answer: Answer) -> None:
        if 0 <= self._last < number:
            return  # it ended before this one's turn
        if number in self._heads:
            self._heads.discard(number)
            answer = answer.without_body()
        if number != self._answered:
            self._early_answers[number] = answer
            return
        self._send(number, answer)
        while self._answered in self._early_answers and self._answered - 1 != self._last:
            number = self._answered
            self._send(number, self._early_answers.pop(number))
        if self._last >= 0:
            return
        if self._is_paused:
            self._advance()
        else:
            self._go_on()

    def _go_on(self) -> None:
        """An answer is sent: the next request may be waited for, or its body."""
        if self._phase is Phase.BODY:
            self._say_continue()
        elif self._answered == self._asked and self._phase is Phase.IDLE:
            self.deadline = self._loop_time() + self._idle_timeout_s

    def _send(self, number: int, answer: Answer) -> None:
        self._answered = number + 1
        self.served += 1
        if answer.closes:
            self._last = number  # whatever was asked behind it goes unanswered
        is_last = number == self._last
        if is_last and not answer.closes:
            answer = answer.closing()
        self._write(answer.start + self._owner.date.line + answer.rest)
        transport = self._transport
        if is_last and transport is not None and not transport.is_closing():
            self._start_linger(transport)

    def _refuse(self, rejection: Rejection) -> None:
        """The bytes after the last request are no request: say so behind its answer, and close."""
        self._owner.refused(rejection, self.peer)
        self._end_with(refusal(rejection, closes=True))

    def _end_with(self, answer: Answer) -> None:
        number = self._asked
        self._asked = number + 1
        self._last = number
        self.deadline = math.inf
        self.answer(number, answer)

    def _write(self, data: bytes) -> None:
        """Send it, behind what is not sent yet."""
        if self._unsent:
            data, self._unsent = self._unsent + data, b""
        transport = self._transport
        # uvloop's write raises on a closed transport; a client that left is no error of ours.
        if transport is not None and not transport.is_closing():
            transport.write(data)

    # --- the end ----------------------------------------------------------------------------------

    def _start_linger(self, transport: asyncio.Transport) -> None:
        """Close for writing, and read on for a while.

        Closing at once with unread bytes in the socket resets the connection, and the reset may
        overtake the answer.
        """
        self._lingered_bytes = 0
        self.deadline = self._loop_time() + LINGER_S
        if transport.can_write_eof():
            transport.write_eof()
        if self._is_paused:
            self._is_paused = False
            transport.resume_reading()

    def _linger(self, count: int) -> None:
        if self._lingered_bytes < 0:
            return  # an answer is still due; what follows the last request is not looked at
        self._lingered_bytes += count
        if self._lingered_bytes > LINGER_BYTES and self._transport is not None:
            self._transport.abort()

    def expire(self) -> None:
        """The deadline has passed."""
        if self._transport is None or (self._last >= 0 > self._lingered_bytes) or self._has_news:
            return
        if self._lingered_bytes >= 0 or self._is_write_blocked:
            self._transport.abort()
        elif self._phase is Phase.IDLE or self._reader.has_only_blank_lines:
            self.close()
        else:
            part = "head" if self._phase is Phase.HEAD else "body"
            self._refuse(RequestTimeout(f"the {part} was not complete in time"))

    def drain(self) -> None:
        """Close now if idle; else after the request that is under way."""
        if self._transport is None or self._last >= 0 or self._has_news:
            return  # `take` sees the draining by itself
        if self._asked != self._answered:
            self._last = self._asked - 1
        elif self._reader.phase is Phase.IDLE:
            self.close()

    def close(self) -> None:
        """End it; at once if the client has not read its answers, for it may never do so."""
        if self._transport is not None:
            if self._transport.get_write_buffer_size():
                self._transport.abort()
            else:
                self._transport.close()

    def abort(self) -> None:
        """Cut the connection off."""
        if self._transport is not None:
            self._transport.abort()

    @property
    def has_sent_nothing_whole(self) -> bool:
        """Whether it waits for the end of its first head."""
        return self._phase is Phase.HEAD and not self._asked

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        is_waiting = self._phase is Phase.IDLE and self._asked == self._answered
        return is_waiting and self._last < 0 and not self._has_news

    @property
    def has_unread(self) -> bool:
        """Whether the kernel has bytes, or the end, that the loop has not read yet."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        poll = select.poll()
        poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))

    # --- back-pressure ----------------------------------------------------------------------------

    def _pause(self) -> None:
        if not self._is_paused and self._transport is not None and self._last < 0:
            self._is_paused = True
            self._transport.pause_reading()

    def _read_on(self) -> None:
        if self._transport is not None and not self._is_write_blocked:
            self._is_paused = False
            self._transport.resume_reading()
