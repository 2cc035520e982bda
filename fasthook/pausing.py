"""What an operator has paused is not run: it waits on disk until it is resumed."""

import time
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import Metric

from fasthook.admin import gauge
from fasthook.dispatch.pool import Pool
from fasthook.logs import log
from fasthook.recall import Recall
from fasthook.spool import pauses
from fasthook.spool.pauses import NOTHING, Pauses


class Pausing:
    """Looks at what is paused, and has it done."""

    def __init__(self, path: Path, pool: Pool, recall: Recall) -> None:
        """`path`: the spool's directory. It looks whenever `recall` does."""
        self._path = path
        self._pool = pool
        self._recall = recall
        self._stamp = -1
        self._known: Pauses = NOTHING
        recall.on_look = self.look

    def look(self) -> None:
        """See whether something changed: often, and before anything runs."""
        try:
            stamp = pauses.stamp(self._path)
            if stamp == self._stamp:
                return
            found = pauses.read(self._path)
        except OSError as error:
            log.repeatable(30, "pauses not read", type(error).__name__, {"error": str(error)})
            return
        # What happens within one tick of the file system's clock does not change its time.
        is_settled = abs(time.time_ns() - stamp) > 100_000_000
        self._stamp = stamp if is_settled else -1
        before, self._known = self._known, found
        if before.endpoints.keys() == found.endpoints.keys() and (
            before.handlers.keys() == found.handlers.keys()
        ):
            return
        self._say(before, found)
        self._pool.holding.pause(found.endpoints, found.handlers)
        self._recall.withhold(found.endpoints)

    def _say(self, before: Pauses, found: Pauses) -> None:
        for what, old, new in (
            ("endpoint", before.endpoints, found.endpoints),
            ("handler", before.handlers, found.handlers),
        ):
            for name in sorted(new.keys() - old.keys()):
                log.warning("paused", **{what: name})
            for name in sorted(old.keys() - new.keys()):
                log.info("resumed", **{what: name})

    def families(self) -> Iterable[Metric]:
        """The metrics: since when, in seconds since 1970; nothing where nothing is paused."""
        for what, since in (
            ("endpoint", self._known.endpoints),
            ("handler", self._known.handlers),
        ):
            times = {name: since_ns / 1e9 for name, since_ns in since.items()}
            text = f"Since when an {what} is paused, in seconds since 1970."
            yield gauge(f"fasthook_spool_paused_{what}", text, times, what)
