"""Spools with something in them, written as a service writes them."""

import asyncio
import os
from pathlib import Path

from fasthook.model import Delivery
from fasthook.spool.committer import Entry
from fasthook.spool.files import make_folder
from fasthook.spool.indexer import Settings
from fasthook.spool.journals import Journals
from fasthook.spool.lock import lock
from fasthook.spool.records import Settled
from fasthook.spool.spool import Place, Spool, key_of

HEAD = b"POST /h?x=1 HTTP/1.1\r\nHost: a\r\nX-Hub-Signature-256: sha256=cafe\r\nX-Two: 1\r\nX-Two: 2\r\n\r\n"
SECOND_NS = 10**9


def delivery(
    event_id: str,
    *,
    endpoint: str = "shop",
    event_type: str = "push",
    at_s: float = 1000,
    body: bytes = b"{}",
    head: bytes = HEAD,
    kind: str = "event",
) -> Delivery:
    """As intake makes them; `at_s`: when it was received, wall clock."""
    at_ns = int(at_s * SECOND_NS)
    return Delivery(
        endpoint, "none", event_id, event_type, head, body, at_ns, "192.0.2.1", 0, kind=kind
    )


def outcome(kind: str, *, handler: str = "h", attempt: int = 1, due_ns: int = 0, error: str = ""):
    """What became of a delivery at a handler: for `fill`."""
    return kind, handler, attempt, due_ns, error


def fill(path: Path, *deliveries: Delivery, outcomes=None, beside=(), **options):
    """Store them and what became of them, by event id; their positions, by event id.

    One that has no outcomes is pending; the index is up to date when it returns. `beside`: workers
    whose journals are another one's meanwhile.
    """
    committed = []
    make_folder(path)
    held = lock(path)
    others = Journals(path)
    for worker in beside:
        others.hold(worker)
    place = Place(is_first=not beside, workers=1)

    async def main():
        spool = Spool(
            path,
            Settings(**options),
            committed.append,
            lambda result: None,
            place,
        )
        spool.start()
        try:
            for one in deliveries:
                spool.accept(Entry(key_of(one, is_id_signed=True), one, False, None))
            async with asyncio.timeout(10):
                while sum(len(c.fresh) + len(c.duplicates) for c in committed) < len(deliveries):
                    await asyncio.sleep(0.001)
            positions = {
                e.delivery.event_id: e.delivery.position for c in committed for e in c.fresh
            }
            for event_id, several in (outcomes or {}).items():
                for kind, handler, attempt, due_ns, error in several:
                    if kind == "done at once":
                        spool.done(handler, positions[event_id])
                    else:
                        position = positions[event_id]
                        spool.settle(
                            Settled(
                                position, handler, kind, attempt, 5 * SECOND_NS, True, due_ns, error
                            )
                        )
            return positions
        finally:
            await spool.close()
            others.close()
            os.close(held)

    return asyncio.run(main())
