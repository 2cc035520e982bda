"""Many lines of one cause → the first in full, and one line for the rest of each interval.

No clock and no I/O. Whoever forges requests must not be able to fill the log, nor to push the
journal past its rate limit, which would cost the lines of everything else.
"""

from typing import Any, Final

import msgspec

INTERVAL_S: Final = 30.0
#: In full, in an interval: of one cause at one endpoint, and of all.
FULL_OF_ONE: Final = 10
FULL_OF_ALL: Final = 50
#: Causes that get a line of their own at the end; the rest is one line together.
_MAX_SUMMARIES: Final = 20
#: Causes that are told apart in an interval. Names of endpoints and classes: a client adds none.
_MAX_CAUSES: Final = 1000
#: Clients that are counted for one cause; beyond, "at least".
_MAX_CLIENTS: Final = 1000

#: Message, cause, endpoint.
Key = tuple[str, str, str]
_OTHERS: Final = ("", "others", "")


class _Flood(msgspec.Struct):
    """One cause in this interval."""

    full: int = 0
    rest: int = 0
    clients: set[str] = msgspec.field(default_factory=set)


class Floods:
    """What was said often of late."""

    def __init__(self) -> None:
        self._floods: dict[Key, _Flood] = {}
        self._full = 0
        self._began = 0.0
        #: When `summaries` has something to say (monotonic); 0: not in sight.
        self.ends = 0.0

    def is_full(self, key: Key, client: str, now_s: float) -> bool:
        """Whether this one is to be said in full; else it is counted."""
        if not self.ends:
            self._began, self.ends = now_s, now_s + INTERVAL_S
        if key not in self._floods and len(self._floods) >= _MAX_CAUSES:
            key = _OTHERS
        flood = self._floods.setdefault(key, _Flood())
        if flood.full < FULL_OF_ONE and self._full < FULL_OF_ALL:
            flood.full += 1
            self._full += 1
            return True
        flood.rest += 1
        if len(flood.clients) < _MAX_CLIENTS:
            flood.clients.add(client)
        return False

    def summaries(self, now_s: float) -> list[dict[str, Any]]:
        """Fields of a line for each cause, most frequent first; a new interval begins.

        A cause that goes on gets no lines in full in the next interval.
        """
        seconds = round(now_s - self._began, 1)
        going_on = {key: flood for key, flood in self._floods.items() if flood.rest}
        ranked = sorted(going_on.items(), key=lambda item: -item[1].rest)
        lines = [_summary(key, flood, seconds) for key, flood in ranked[:_MAX_SUMMARIES]]
        if more := ranked[_MAX_SUMMARIES:]:
            both = _Flood(rest=sum(flood.rest for _, flood in more))
            both.clients = set().union(*(flood.clients for _, flood in more))
            lines.append(_summary(_OTHERS, both, seconds))
        self._floods = {key: _Flood(full=FULL_OF_ONE) for key in going_on}
        self._full = 0
        self._began = now_s
        self.ends = now_s + INTERVAL_S if going_on else 0.0
        return lines


def _summary(key: Key, flood: _Flood, seconds: float) -> dict[str, Any]:
    message, cause, endpoint = key
    clients = flood.clients - {""}
    count = len(clients)
    return {
        "what": message,
        "reason": cause,
        "endpoint": endpoint,
        "count": flood.rest,
        "clients": f"{count}+" if len(flood.clients) >= _MAX_CLIENTS else count or None,
        "client": next(iter(clients)) if count == 1 else None,
        "seconds": seconds,
    }
