"""Token buckets: they answer at once and never wait.

Kept as one number each, the time at which the bucket will be full again (the "theoretical arrival
time" of GCRA, ITU-T I.371), instead of a level and the time of its last change.
"""

from typing import Final

#: Clients remembered at once; about 12 MB. Beyond: those that were not seen for longest are
#: forgotten, which gives them a full bucket, and nobody else anything.
MAX_CLIENTS: Final = 65_536


class TokenBucket:
    """`rate` tokens a second, `burst` at the most."""

    __slots__ = ("_full_at", "_interval", "_span")

    def __init__(self, rate: float, burst: int) -> None:
        self._interval = 1.0 / rate
        self._span = burst * self._interval
        self._full_at = 0.0

    def take(self, now: float) -> float:
        """Take a token: 0.0, or take none: the seconds until there is one.

        `now`: monotonic seconds. A clock that jumps back costs at most one burst.
        """
        full_at = self._full_at
        if full_at < now:
            full_at = now
        elif full_at > now + self._span:  # the clock jumped back
            full_at = self._full_at = now + self._span
        wait = full_at + self._interval - now - self._span
        if wait > 1e-9:
            return wait
        self._full_at = full_at + self._interval
        return 0.0


class ClientBuckets:
    """One bucket for each client, of which only those that are not full are remembered.

    What is counted is what was *refused*: a client whose requests verify never has an entry, so
    good traffic costs one look-up, and no flood of good events can lock its sender out.
    """

    __slots__ = ("refused", "_interval", "_span", "_max_clients")

    def __init__(self, rate: float, burst: int, max_clients: int = MAX_CLIENTS) -> None:
        self._interval = 1.0 / rate
        self._span = burst * self._interval
        self._max_clients = max_clients
        #: Client → when its bucket is full again, oldest charge first. Empty: nobody was refused.
        self.refused: dict[str, float] = {}

    def wait(self, client: str, now: float) -> float:
        """Seconds until the client may try again; 0.0: it may now."""
        full_at = self.refused.get(client)
        if full_at is None:
            return 0.0
        if full_at > now + self._span:  # the clock jumped back
            full_at = self.refused[client] = now + self._span
        wait = full_at + self._interval - now - self._span
        return wait if wait > 1e-9 else 0.0

    def charge(self, client: str, now: float) -> None:
        """Take a token from the client's bucket, for a request that was refused."""
        full_at = self.refused.pop(client, now)
        full_at = min(max(full_at, now) + self._interval, now + self._span)
        if len(self.refused) >= self._max_clients:
            del self.refused[next(iter(self.refused))]
        self.refused[client] = full_at
