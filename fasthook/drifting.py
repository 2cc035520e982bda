"""Whether the shape of payloads changes, at a running service: a warning for each change.

A thread of its own reads some of the stored events now and then, as `fasthook drift` does: nothing
is done where requests are taken and handled. Of several workers one does it, for all.
"""

import threading
import time
from pathlib import Path
from typing import Final

from fasthook.config import Config
from fasthook.errors import ConfigError
from fasthook.logs import log
from fasthook.shapes.drift import Change, Drift, Room
from fasthook.spool.found import Found
from fasthook.spool.journal import place_of
from fasthook.spool.queries import Reader
from fasthook.stored import genuine_payload

#: Events that are read when it begins, which tells nothing, and at each look after that.
_LEARNED: Final = 2000
_SAMPLE: Final = 200
#: Of all endpoints together: beyond, none is learnt any more.
_MAX_PLACES: Final = 40_000
#: Lines of one endpoint until the next start: beyond, it has no shape.
_MAX_SAID: Final = 100
#: Between two events the rest of the process has the interpreter, so many times as long.
_PAUSE: Final = 4
#: Of a body; a longer one takes too long to look at.
_MAX_BYTES: Final = 1024 * 1024
_STOP_S: Final = 5.0


class Drifting:
    """The thread, while this worker is the one."""

    def __init__(self, config: Config, path: Path) -> None:
        """`path`: the spool's."""
        self._endpoints = {e.name: e.provider for e in config.endpoint}
        self._interval_s = float(config.alerts.interval)
        self._path = path
        self._drifts: dict[str, Drift] = {}
        self._room = Room(_MAX_PLACES)
        self._said: dict[str, int] = {}
        self._ends: dict[int, int] = {}  # the last position that was looked at, by worker
        self._is_over = threading.Event()
        self._looking: threading.Thread | None = None

    def start(self) -> None:
        """Begin, unless it has begun."""
        if self._looking is None:
            self._is_over.clear()
            self._looking = threading.Thread(target=self._run, name="fasthook-drift", daemon=True)
            self._looking.start()

    def stop(self) -> None:
        """End; waits for the event that is looked at."""
        looking, self._looking = self._looking, None
        if looking is not None:
            self._is_over.set()
            looking.join(_STOP_S)

    def _run(self) -> None:
        is_first = True
        while not self._is_over.wait(0 if is_first else self._interval_s):
            try:
                with Reader(self._path) as reader:
                    self._look(reader, is_first=is_first)
                is_first = False
            except ConfigError:
                pass  # the index is being made; the next look tells more
            except Exception as error:  # whatever it is, the service goes on without
                log.exception("internal error", error)
                return
            if is_first and self._is_over.wait(1.0):
                return

    def _look(self, reader: Reader, *, is_first: bool) -> None:
        ends = reader.ends()
        for found in reader.samples(_LEARNED if is_first else _SAMPLE, self._ends):
            # What has come since `ends` was read is for the next look.
            if found.position <= ends.get(place_of(found.position)[0], -1):
                begun_s = time.monotonic()
                self._feed(reader, found, is_quiet=is_first)
                if self._is_over.wait(_PAUSE * (time.monotonic() - begun_s)):
                    return
        self._ends |= ends

    def _feed(self, reader: Reader, found: Found, *, is_quiet: bool) -> None:
        kept = reader.kept(found.position)
        is_long = kept is not None and len(kept.body) > _MAX_BYTES
        payload = None if is_long else genuine_payload(kept)
        if payload is None:
            return
        drift = self._drifts.get(found.endpoint)
        if drift is None:
            if not self._room.places:
                return
            drift = self._drifts[found.endpoint] = Drift(room=self._room)
        for change in drift.feed(found.event_type, payload, found):
            said = self._said.get(found.endpoint, 0)
            if not is_quiet and said < _MAX_SAID:
                self._said[found.endpoint] = said + 1
                self._say(found.endpoint, change)

    def _say(self, endpoint: str, change: Change) -> None:
        # A value is not for the log: what looks like an enumeration may be none.
        fields = {} if change.kind == "new value" else {"was": change.was, "now": change.now}
        log.warning(
            "payloads changed",
            endpoint=endpoint,
            provider=self._endpoints[endpoint],
            type=change.event_type,
            change=change.kind,
            where=change.path,
            **fields,
            after=change.after,
            event=change.at.name,
        )
