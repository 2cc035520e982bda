"""The number behind each trick on the hot path, beside the plain way.

    python -m bench.micro

One line a trick: what it costs, what the plain way costs, in µs on this machine; the best of
several runs, since noise only adds.
"""

import asyncio
import contextlib
import hashlib
import hmac
import logging
import mmap
import multiprocessing
import os
import re
import secrets
import select
import socket
import statistics
import sys
import tempfile
import threading
import time
import timeit
import zlib
from collections import defaultdict, deque
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Final

import httptools
import msgspec
import orjson
import uvloop
from isal import isal_zlib
from prometheus_client import Counter
from xxhash import xxh3_128_digest

from bench.workload import SECRET, headers_of, push_body
from fasthook.intake.comparing import KeyedHash
from fasthook.logs.shapes import as_text, shape_of
from fasthook.model import Delivery
from fasthook.spool.changes import Changes, Cursor, State
from fasthook.spool.index import Index
from fasthook.spool.indexer import Settings
from fasthook.spool.journal import position_of
from fasthook.spool.records import ACCEPTED, Accepted
from fasthook.spool.segment import BUFFER_BYTES, SegmentFile
from fasthook.spool.spool import KEY_BYTES, key_of
from fasthook.spool.transaction import transaction
from fasthook.wire.answers import render
from fasthook.worker import SWITCH_S

_EVENTS: Final = 400_000
_BATCH: Final = 8192


def best_us(function: Callable[[], object], number: int = 5000) -> float:
    """Microseconds a call."""
    return min(timeit.repeat(function, number=number, repeat=7)) / number * 1e6


class _OneStep:
    """Callbacks as wire/reader.py has them."""

    def __init__(self) -> None:
        self.fields: dict[bytes, bytes] = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields[name.lower()] = value


class _TwoSteps:
    """No Python frame for each field, but another look at each afterwards."""

    def __init__(self) -> None:
        self.fields: dict[bytes, bytes] = {}
        self.on_header = self.fields.__setitem__


def header_callbacks(head: bytes) -> tuple[float, float]:
    """wire/reader.py: names are put in lower case as they come."""
    one, two = _OneStep(), _TwoSteps()
    one_parser, two_parser = (httptools.HttpRequestParser(c) for c in (one, two))

    def in_one() -> dict[bytes, bytes]:
        one_parser.feed_data(head)
        fields, one.fields = one.fields, {}
        return fields

    def in_two() -> dict[bytes, bytes]:
        two_parser.feed_data(head)
        fields = {name.lower(): value for name, value in two.fields.items()}
        two.fields.clear()
        return fields

    return best_us(in_one), best_us(in_two)


def keyed_hash(body: bytes) -> tuple[float, float]:
    """intake/signatures.py: both halves of the key hashed beforehand."""
    keyed = KeyedHash(SECRET, "sha256")
    return best_us(lambda: keyed.digest(body)), best_us(lambda: hmac.digest(SECRET, body, "sha256"))


def hashing_alone(body: bytes) -> tuple[float, float]:
    """What no trick can save: SHA-256 over the body, beside our HMAC."""
    keyed = KeyedHash(SECRET, "sha256")
    return best_us(lambda: hashlib.sha256(body).digest()), best_us(lambda: keyed.digest(body))


def digits_alone() -> tuple[float, float]:
    """intake/extracting.py: whether a signed time is a whole number."""
    sent, pattern = b"1767225600", re.compile(rb"[0-9]{1,12}")
    ours = best_us(lambda: len(sent) <= 12 and sent.isdigit(), 50_000)
    return ours, best_us(lambda: pattern.fullmatch(sent), 50_000)


def pieces_fed(body: bytes) -> tuple[float, float]:
    """intake/comparing.py: what is signed is hashed piece by piece, and not joined before."""
    keyed, pieces = KeyedHash(SECRET, "sha256"), [b"1767225600", b".", body]
    return best_us(lambda: keyed.digest_of(pieces)), best_us(lambda: keyed.digest(b"".join(pieces)))


def hostile_floats() -> tuple[float, float]:
    """intake/payloads.py: 8 kB of 1e308, which msgspec reads slowly."""
    body = b"[" + b",".join([b"1e308"] * 1400) + b"]"
    decode = msgspec.json.Decoder(list[float]).decode
    ours = best_us(lambda: msgspec.convert(orjson.loads(body), list[float]), 50)
    return ours, best_us(lambda: decode(body), 50)


def checksum(body: bytes) -> tuple[float, float]:
    """spool/records.py: CRC-32 of what is stored, by isa-l."""
    return best_us(lambda: isal_zlib.crc32(body)), best_us(lambda: zlib.crc32(body))


def digest_in_key(body: bytes) -> tuple[float, float]:
    """spool/spool.py: two bodies under one unsigned id are told apart."""

    def by_blake2() -> bytes:
        return hashlib.blake2b(body, digest_size=16).digest()

    return best_us(lambda: xxh3_128_digest(body)), best_us(by_blake2)


def answer_rendered() -> tuple[float, float]:
    """wire/answers.py: of each kind once, not for each request."""
    answers = {"ok": render(202)}
    return best_us(lambda: answers["ok"]), best_us(lambda: render(202))


def _hear(ends: list[socket.socket]) -> None:
    """What the clients' machine does: take each answer as it comes."""
    poll, numbered = select.epoll(), {end.fileno(): end for end in ends}
    for number in numbered:
        poll.register(number, select.EPOLLIN)
    while numbered:
        for number, _ in poll.poll():
            if not numbered[number].recv(4096):
                poll.unregister(number)
                del numbered[number]


def in_a_row(body: bytes) -> tuple[float, float]:
    """wire/connection.py: answers of 16 clients after the work on all, not each after its own."""
    with contextlib.ExitStack() as opened:
        listening = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        theirs = [
            opened.enter_context(socket.create_connection(listening.getsockname()))
            for _ in range(16)
        ]
        ours = [opened.enter_context(listening.accept()[0]) for _ in theirs]
        client = multiprocessing.get_context("fork").Process(target=_hear, args=(theirs,))
        client.start()
        keyed, answer = KeyedHash(SECRET, "sha256"), render(202)
        said = answer.start + answer.rest

        def work() -> None:
            for _ in range(4):
                keyed.digest(body)

        def one_by_one() -> None:
            for end in ours:
                work()
                end.send(said)

        def together() -> None:
            for _ in ours:
                work()
            for end in ours:
                end.send(said)

        took = best_us(together, 200) / len(ours), best_us(one_by_one, 200) / len(ours)
        for end in ours:
            end.shutdown(socket.SHUT_RDWR)
        client.join()
        alone_us = best_us(work, 1000)
        return took[0] - alone_us, took[1] - alone_us


def _handed_over_us(switch_s: float, gives_way: bool) -> float:
    """Until what a loop hands over is written, while it goes on with 64 requests; in µs."""
    batches: SimpleQueue[float] = SimpleQueue()
    took_s: list[float] = []
    keyed, body = KeyedHash(SECRET, "sha256"), bytes(2000)  # so short that nobody else may run
    before_s = sys.getswitchinterval()

    def write(fd: int) -> None:
        while began_s := batches.get():
            for _ in range(100):
                keyed.digest(body)
            os.write(fd, bytes(200_000))  # for which others may run
            took_s.append(time.perf_counter() - began_s)

    with tempfile.TemporaryFile() as file:
        thread = threading.Thread(target=write, args=(file.fileno(),))
        thread.start()
        sys.setswitchinterval(switch_s)
        for _ in range(50):
            batches.put(time.perf_counter())
            if gives_way:
                os.sched_yield()
            for _ in range(64 * 12):
                keyed.digest(body)
            while not batches.empty():
                time.sleep(0.001)
            time.sleep(0.002)
        batches.put(0.0)
        thread.join()
        sys.setswitchinterval(before_s)
    return statistics.median(took_s) * 1e6


def handed_over() -> tuple[float, float]:
    """spool/spool.py, worker.py: who is to write begins at once, though the loop is busy."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        return _handed_over_us(SWITCH_S, True), _handed_over_us(sys.getswitchinterval(), False)
    finally:
        os.sched_setaffinity(0, cores)


def counted() -> tuple[float, float]:
    """admin.py: plain integers, made metrics only when they are asked for."""
    numbers: defaultdict[tuple[str, str], int] = defaultdict(int)
    metric = Counter("bench_requests", "As they come.", ("endpoint", "result"), registry=None)

    def ours() -> None:
        numbers["github", "event"] += 1

    return best_us(ours), best_us(lambda: metric.labels("github", "event").inc())


def line_of_request() -> tuple[float, float]:
    """logs/shapes.py: what lines of one kind have in common is made once; beside logging."""
    fields = {
        "endpoint": "github",
        "provider": "github",
        "type": "push",
        "id": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
        "client": "140.82.115.1",
        "bytes": 7324,
        "secret": 0,
    }
    now_ns, shape = 1_767_225_600_000_000_000, shape_of(20, "accepted", fields)
    form = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    pattern = " ".join(f"{key}=%s" for key in fields)

    def plain() -> str:
        values = tuple(fields.values())
        record = logging.LogRecord("bench", 20, "", 0, f"accepted {pattern}", values, None)
        return form.format(record)

    return best_us(lambda: as_text((now_ns, shape, tuple(fields.values())))), best_us(plain)


def living_worker() -> tuple[float, float]:
    """dispatch/lane.py: one task takes event after event, not a task for each; of 1,000."""

    async def handle() -> None: ...

    async def by_worker() -> None:
        line = deque(range(1000))
        while line:
            line.popleft()
            await handle()

    async def by_tasks() -> None:
        await asyncio.gather(*(asyncio.create_task(handle()) for _ in range(1000)))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        ours = best_us(lambda: runner.run(by_worker()), 20) / 1000
        return ours, best_us(lambda: runner.run(by_tasks()), 20) / 1000


def _indexed(folder: Path, gathers_at: int) -> float:
    """µs an event of an index that grows to `_EVENTS`, in batches as a busy spool has them."""
    index, number, took_s = Index(folder / f"{gathers_at}.db", is_writer=True), 0, 0.0
    while number < _EVENTS:
        changes = Changes()
        for _ in range(_BATCH):
            number += 1
            event_id = f"72d3162e-cc78-11e3-81ab-{number:012}"
            accepted = Accepted(
                *(secrets.token_bytes(KEY_BYTES), "github", "github", event_id, "push"),
                *(time.time_ns(), "192.0.2.1", 0, "event", 700),
            )
            changes.accept(position_of(0, 1, number * 64), accepted, State.DONE)
        began_s = time.thread_time()
        index.apply({0: Cursor(1, number * 64)}, changes, are_new=True)
        if len(index.keys.fresh) >= gathers_at:
            index.keys.gather()
        took_s += time.thread_time() - began_s
    index.close()
    return took_s / number * 1e6


def indexed() -> tuple[float, float]:
    """spool/keys.py: keys of many batches are gathered at once, not those of each."""
    with tempfile.TemporaryDirectory() as name:
        return _indexed(Path(name), Settings().fresh_keys), _indexed(Path(name), 1)


def unseen() -> tuple[float, float]:
    """spool/seen.py: of 32 new keys, most are not looked for in an index of 200,000; each."""
    new = [[secrets.token_bytes(KEY_BYTES) for _ in range(32)] for _ in range(200)]
    with tempfile.TemporaryDirectory() as name:
        index = Index(Path(name, "index.db"), is_writer=True)
        keys = index.keys
        keys.seen.begin()
        with transaction(index._connection):
            keys.add([secrets.token_bytes(KEY_BYTES) for _ in range(200_000)], are_fresh=False)
        keys.seen.end()

        def ours() -> None:
            for some in new:
                keys.known(keys.seen.perhaps(some))

        def plain() -> None:
            for some in new:
                keys.known(some)

        each = 32 * len(new)
        found = best_us(ours, 3) / each, best_us(plain, 3) / each
        index.close()
    return found


def key_made(body: bytes) -> tuple[float, float]:
    """spool/spool.py: a hash that is copied costs less than one that is made."""
    event_id = "72d3162e-cc78-11e3-81ab-4c9367dc0958"
    delivery = Delivery("github", "github", event_id, "push", b"", body, 7, "192.0.2.1", 0)

    def plain() -> bytes:
        name, number = delivery.endpoint.encode(), delivery.event_id.encode("utf-8", "replace")
        signed = xxh3_128_digest(delivery.body)
        text = b"%d %b %d %b %b" % (len(name), name, len(number), number, signed)
        return hashlib.blake2b(text, digest_size=KEY_BYTES).digest()

    assert key_of(delivery, is_id_signed=False) == plain()
    return best_us(lambda: key_of(delivery, is_id_signed=False)), best_us(plain)


def on_disk() -> tuple[float, float]:
    """spool/segment.py: a batch of 60 pushes goes in blocks, not through the page cache."""
    batch = [(ACCEPTED, (b"%04d" % number, push_body())) for number in range(60)]
    took_s: list[list[float]] = [[], []]
    with tempfile.TemporaryDirectory() as name:
        buffer, files = mmap.mmap(-1, BUFFER_BYTES), []
        for number in range(2):
            file = SegmentFile(Path(name, str(number)), buffer, syncs=True)
            file.begin()
            files.append(file)
        os.close(files[1]._direct)
        files[1]._direct = -1
        for _ in range(100):  # in turn, since disks are noisy
            for file, took in zip(files, took_s, strict=True):
                began_s = time.perf_counter()
                file.append(batch)
                took.append(time.perf_counter() - began_s)
        for file in files:
            file.close()
    ours, plain = (statistics.median(took) * 1e6 for took in took_s)
    return ours, plain


def main() -> None:
    """Print all of them."""
    body = push_body()
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers_of(body).items())
    head = f"POST /github HTTP/1.1\r\n{lines}\r\n".encode().replace(b"7324", b"0")
    rows = {
        "header callbacks": header_callbacks(head),
        "keyed hash, 7.3 kB": keyed_hash(body),
        "(SHA-256 alone, beside it)": hashing_alone(body),
        "signed pieces, 7.3 kB": pieces_fed(body),
        "digits of a signed time": digits_alone(),
        "hostile floats, 8 kB": hostile_floats(),
        "CRC-32, 7.3 kB": checksum(body),
        "digest in a key, 7.3 kB": digest_in_key(body),
        "key of a delivery": key_made(body),
        "answer": answer_rendered(),
        "answer sent": in_a_row(body),
        "batch written": handed_over(),
        "batch on disk": on_disk(),
        "count": counted(),
        "line of a request": line_of_request(),
        "event to a handler": living_worker(),
        "index, 400,000 events": indexed(),
        "new key": unseen(),
    }
    print(f"{'':28} {'ours':>9} {'plain':>9}")
    for name, (ours, plain) in rows.items():
        print(f"{name:28} {ours:9.2f} {plain:9.2f} µs")


if __name__ == "__main__":
    main()
