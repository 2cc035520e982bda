"""A circuit breaker: a handler that fails again and again is left alone for a while.

Closed, it counts failures in a row. Open, nothing begins until a pause is over; then one event is
tried. If that succeeds it is closed; else the pause doubles. Pure: no loop, no clock.
"""

from enum import Enum
from typing import Final

#: A pause is not doubled beyond this, unless the first one is longer already.
MAX_PAUSE_S: Final = 3600.0


class State(Enum):
    """Where a breaker stands."""

    CLOSED = 0
    PROBING = 1  # one event may begin
    OPEN = 2


class Breaker:
    """Of one handler."""

    __slots__ = ("state", "opened", "pause_s", "probe", "_failures", "_row", "_first_pause_s")

    def __init__(self, failures: int, pause_s: float) -> None:
        """It opens after `failures` in a row, at first for `pause_s` seconds."""
        self.state = State.CLOSED
        self.opened = 0  # how often
        self.pause_s = pause_s  # of the next time
        self.probe: object = None  # the delivery that is tried; None: none yet
        self._failures = failures
        self._row = 0
        self._first_pause_s = pause_s

    def failed(self) -> float:
        """An attempt failed; the pause that begins now, in seconds, or 0."""
        self._row += 1
        if self.state is State.OPEN or (self.state is State.CLOSED and self._row < self._failures):
            return 0.0
        pause_s = self.pause_s
        self.state, self.probe = State.OPEN, None
        self.opened += 1
        self.pause_s = max(self._first_pause_s, min(2 * pause_s, MAX_PAUSE_S))
        return pause_s

    def succeeded(self) -> bool:
        """An attempt came to a good end; whether the breaker closes by that."""
        self._row = 0
        if self.state is State.CLOSED:
            return False
        self.state, self.pause_s, self.probe = State.CLOSED, self._first_pause_s, None
        return True

    def pause_is_over(self) -> None:
        """One event may be tried."""
        self.state = State.PROBING

    def takes(self, delivery: object) -> bool:
        """Whether this one is to be tried."""
        if self.state is not State.PROBING or self.probe is not None:
            return False
        self.probe = delivery
        return True
