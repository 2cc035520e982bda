"""`python -m tests.torture.weaken FAULTS serve -c FILE`: fasthook with something broken on purpose.

FAULTS: names of functions here, with commas between; each takes one thing away.
"""

import contextlib
import os
import sys
import threading
import time
from typing import Any

import tests.interpreted  # noqa: F401 - first: what is compiled can't be weakened
from fasthook import line, supervisor
from fasthook.cli import main
from fasthook.dispatch import flow, holding, lane
from fasthook.model import Outcome
from fasthook.spool import committer, recovery, segment, spool


class _Nobody:
    """Takes answers that have been given already."""

    def answer(self, number: int, answer: object) -> None:
        """Nothing is left to say."""


def early() -> None:
    """Answers before the commit."""
    store = line.Line._store

    def _store(self: Any, delivery: Any, connection: Any, number: int) -> None:
        store(self, delivery, _Nobody(), number)  # type: ignore[arg-type]
        answer = self._accounts[delivery.endpoint].success
        self.spool._loop.call_soon(connection.answer, number, answer)

    line.Line._store = _store  # type: ignore[method-assign]


def nosync() -> None:
    """`fdatasync` does nothing."""
    os.fdatasync = lambda fd: None


def deaf() -> None:
    """What the disk says about a sync is not heard."""
    for name in ("fdatasync", "fsync"):
        setattr(os, name, _suppressed(getattr(os, name)))


def _suppressed(function: Any) -> Any:
    def call(*arguments: Any) -> None:
        with contextlib.suppress(OSError):
            function(*arguments)

    return call


def blind() -> None:
    """What the disk says about a write is not heard."""
    segment.write_all = _suppressed(segment.write_all)
    flush = _suppressed(segment.SegmentFile._flush)
    segment.SegmentFile._flush = flush  # type: ignore[method-assign]


def nodedupe() -> None:
    """What comes again is not recognised."""
    line.key_of = lambda *delivery, **options: os.urandom(16)


def nowatch() -> None:
    """Who waits for a disk that is stuck waits as long as it takes."""
    spool.Spool._watch = lambda self: setattr(  # type: ignore[method-assign]
        self, "_watcher", self._loop.call_later(3600, lambda: None)
    )


def nomarks() -> None:
    """Nobody knows in whose attempt the process died."""
    line.Line._new_marks = lambda self, name, handler: lane.NO_MARKS  # type: ignore[method-assign]


def blocks() -> None:
    """No weakness: all batches are written in blocks, however small they are."""
    segment.DIRECT_BYTES = 0  # type: ignore[misc]


def hasty() -> None:
    """No weakness: what a crash took comes again after 1 s, not 5, so the test is over sooner."""
    recovery._CRASH_DELAY_S = 1.0  # type: ignore[misc]


def nolock() -> None:
    """Anybody may have the directory."""
    supervisor.lock = lambda path: os.open("/dev/null", os.O_RDONLY)


def carefree() -> None:
    """What begins to wait in memory counts as done."""
    wake = flow.Flow.wake

    def _wake(self: Any, key: str, after_ns: int) -> None:
        event = self.coalescer._keys[key].waiting.event
        done = Outcome(event._delivery, self._lane.name, 1, "done", 0.0)
        self._ways.tell(done)
        wake(self, key, after_ns)

    flow.Flow.wake = _wake  # type: ignore[method-assign]


def heedless() -> None:
    """What is paused counts as done."""

    def _put_off(self: Any, lane: Any, event: Any) -> None:
        self._desk.leave(Outcome(event._delivery, lane.name, 1, "done", 0.0))

    holding.Holding.put_off = _put_off  # type: ignore[method-assign]


def changed() -> None:
    """Bodies are not stored as they came."""
    whole = committer.accepted_content

    def accepted_content(accepted: Any, delivery: Any) -> tuple[bytes, ...]:
        first, head, body = whole(accepted, delivery)
        return first, head, body.replace(b'"pad"', b'"pat"')

    committer.accepted_content = accepted_content


def noisy() -> None:
    """A traceback in the log."""

    def fail() -> None:
        time.sleep(0.5)
        raise RuntimeError("on purpose")

    threading.Thread(target=fail, daemon=True).start()


if __name__ == "__main__":
    for name in sys.argv.pop(1).split(","):
        globals()[name]()
    main()
