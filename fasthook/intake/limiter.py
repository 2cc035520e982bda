"""Token buckets: they answer at once and never wait.

Kept as one number each, the time at which the bucket will be full again (the "theoretical arrival
time" of GCRA, ITU-T I.371), instead of a level and the time of its last change.
"""

from typing import Final

from fasthook.intake.network import limiter_key

#: Clients remembered at once; about 12 MB. Beyond: those that were not seen for longest are
#: forgotten, which gives them a full bucket, and nobody else anything.
MAX_CLIENTS: Final = 65_536
#: Clients that an endpoint knows as genuine; those seen lately, and as many again, half a MB each.
#: Beyond: those that were not seen for longest are forgotten, until their next genuine request.
MAX_VOUCHED: Final = 4096


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
    A client that asks for more than its bucket has is kept out until it is full again, so that
    most of a flood is refused without a look at a signature.
    """

    __slots__ = ("refused", "_kept_out", "_interval", "_span", "_max_clients")

    def __init__(self, rate: float, burst: int, max_clients: int = MAX_CLIENTS) -> None:
        self._interval = 1.0 / rate
        self._span = burst * self._interval
        self._max_clients = max_clients
        #: Client → when its bucket is full again, oldest charge first. Empty: nobody was refused.
        self.refused: dict[str, float] = {}
        self._kept_out: set[str] = set()  # of these, until their buckets are full

    def wait(self, client: str, now: float) -> float:
        """Seconds until the client may try again; 0.0: it may now."""
        full_at = self.refused.get(client)
        if full_at is None:
            return 0.0
        if full_at > now + self._span:  # the clock jumped back
            full_at = self.refused[client] = now + self._span
        if client in self._kept_out:
            if full_at > now:
                return full_at - now
            self._kept_out.discard(client)
        wait = full_at + self._interval - now - self._span
        if wait <= 1e-9:
            return 0.0
        self._kept_out.add(client)
        return full_at - now

    def charge(self, client: str, now: float) -> None:
        """Take a token from the client's bucket, for a request that was refused."""
        full_at = self.refused.pop(client, now)
        full_at = min(max(full_at, now) + self._interval, now + self._span)
        if len(self.refused) >= self._max_clients:
            oldest = next(iter(self.refused))
            del self.refused[oldest]
            self._kept_out.discard(oldest)
        self.refused[client] = full_at


class Vouched:
    """Clients of one endpoint of whom something was genuine: they are never kept out of it.

    Who forges may share an address with who does not: behind one NAT, on one cloud, or where a
    proxy does not say who its client is. What it forges at this endpoint is then verified like the
    rest, which costs it nothing that the others would miss.
    """

    __slots__ = ("last", "young", "_old")

    def __init__(self) -> None:
        self.last = ""  # the last one that was added: it need not be again
        #: Seen since the last change of generation.
        self.young: set[str] = set()
        self._old: set[str] = set()

    def add(self, client: str) -> None:
        """Something of this client was genuine."""
        self.last = client
        if client in self.young:
            return
        if len(self.young) >= MAX_VOUCHED:
            self._old, self.young = self.young, set()
        # An IPv6 host changes its address within its network.
        self.young |= {client, limiter_key(client)}

    def knows(self, client: str) -> bool:
        """Whether something of it was genuine, as far as is remembered."""
        return not self.young.isdisjoint(keys := {client, limiter_key(client)}) or not (
            self._old.isdisjoint(keys)
        )
