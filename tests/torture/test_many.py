"""Very many events that wait: they neither slow the start nor fill memory."""

import os
import time

from fasthook.model import Delivery
from fasthook.spool.changes import Changes, Cursor, State
from fasthook.spool.files import make_folder
from fasthook.spool.index import INDEX_NAME, Index
from fasthook.spool.journal import Journal
from fasthook.spool.records import ACCEPTED, accepted_content, accepted_of
from tests.torture.helpers import FULL, Site, say, wait_for

COUNT = 1_000_000 if FULL else 30_000
HEAD = b"POST /github HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\r\n"
READY_S = 2.0
RSS_BYTES = 200 * 1024**2


def fill(path, count):
    """A spool as a service leaves it that accepted so many, and ran none."""
    make_folder(path)
    journal, index = Journal(path / "journal" / "0", 0), Index(path / INDEX_NAME)
    for begin in range(0, count, 5000):
        made = []
        for number in range(begin, min(begin + 5000, count)):
            event_id, body = f"many-{number}", b'{"number": %d}' % number
            made.append(Delivery("github", "github", event_id, "push", HEAD, body, number, "", 0))
        stored = [accepted_of(d, b"%016d" % (d.received_at_ns * 7919 % count)) for d in made]
        records = [(ACCEPTED, accepted_content(s, d)) for s, d in zip(stored, made, strict=True)]
        changes = Changes()
        for position, accepted in zip(journal.write(records), stored, strict=True):
            changes.accept(position, accepted, State.PENDING)
        index.apply({0: Cursor(*journal.end)}, changes)
    journal.close()
    index.close()


def rss_bytes(pid):
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def handled_count(one):
    try:
        return one.record.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def test_many_events_that_wait_neither_slow_the_start_nor_fill_memory(site):
    one: Site = site()
    fill(one.spool, COUNT)
    began = time.monotonic()
    one.start()
    ready_s = time.monotonic() - began
    wait_for(lambda: handled_count(one) > 5000, "5,000 of them to be handled")
    rate = handled_count(one) / (time.monotonic() - began - ready_s)
    rss = rss_bytes(one.worker_pid)
    say(f"{COUNT:,} wait", ready_s=round(ready_s, 2), rss_mib=rss >> 20, per_s=round(rate))
    assert ready_s < READY_S
    assert rss < RSS_BYTES
    ids = [line.split()[0] for line in one.record.read_text().splitlines()[:2000]]
    oldest = {f"many-{number}" for number in range(3000)}
    assert set(ids) <= oldest, "the oldest first"
