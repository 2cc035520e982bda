"""The limit line: httptools, HMAC, a typed msgspec decode, and a fixed answer. Nothing else.

No limits, no handler, no log; broken requests break it. What fasthook takes more than this is the
price of everything else that it does. With `--journal FILE` the raw request is stored, too: the
loop writes a batch, one thread has it on disk, and only then are the requests of it answered, while
the next batch gathers.

    python -m bench.prototype tcp://127.0.0.1:PORT|unix:PATH [--provider stripe] [--journal FILE]

GET, whatever of: how many were accepted, refused and stored, as JSON.
"""

import argparse
import asyncio
import hmac
import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import httptools
import msgspec
import uvloop

from bench.workload import SECRET, Push, StripeEvent

ANSWER = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
REFUSAL = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"


class Prototype(asyncio.Protocol):
    """One connection."""

    accepted = 0
    refused = 0
    header = b"x-hub-signature-256"
    decode = msgspec.json.Decoder(Push).decode

    def connection_made(self, transport):
        self.transport = transport
        self.headers = []
        self.body = b""
        self.parser = httptools.HttpRequestParser(self)

    def data_received(self, data):
        self.parser.feed_data(data)

    def on_header(self, name, value):
        self.headers.append((name, value))

    def on_body(self, body):
        self.body += body

    def on_message_complete(self):
        signature = b""
        for name, value in self.headers:
            if name.lower() == self.header:
                signature = value
        if self.is_genuine(signature):
            self.decode(self.body)
            Prototype.accepted += 1
            self.accept()
        elif self.body:
            Prototype.refused += 1
            self.transport.write(REFUSAL)
        else:
            self.tell_counts()
        self.headers = []
        self.body = b""

    def is_genuine(self, signature):
        expected = b"sha256=" + hmac.digest(SECRET, self.body, "sha256").hex().encode()
        return hmac.compare_digest(expected, signature)

    def accept(self):
        self.transport.write(ANSWER)

    def stored(self):
        return None

    def tell_counts(self):
        counts = {"accepted": self.accepted, "refused": self.refused, "stored": self.stored()}
        text = msgspec.json.encode(counts)
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text))


class Stripe(Prototype):
    """The same of Stripe's events."""

    header = b"stripe-signature"
    decode = msgspec.json.Decoder(StripeEvent).decode

    def is_genuine(self, signature):
        time, _, claimed = signature.removeprefix(b"t=").partition(b",v1=")
        expected = hmac.digest(SECRET, time + b"." + self.body, "sha256").hex().encode()
        return hmac.compare_digest(expected, claimed)


class Journal:
    """One file; a batch is what came while the one before was synced."""

    def __init__(self, path):
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.thread = ThreadPoolExecutor(1)
        self.loop = asyncio.get_running_loop()
        self.records = []
        self.transports = []
        self.stored = 0
        self.is_busy = False

    def append(self, record, transport):
        self.records.append(struct.pack("<II", len(record), zlib.crc32(record)))
        self.records.append(record)
        self.transports.append(transport)
        if not self.is_busy:
            self.is_busy = True
            self.loop.call_soon(self.write)

    def write(self):
        data, batch = b"".join(self.records), self.transports
        self.records, self.transports = [], []
        assert os.write(self.file, data) == len(data)
        syncing = self.loop.run_in_executor(self.thread, os.fdatasync, self.file)
        syncing.add_done_callback(lambda synced: self.answer(synced, batch))

    def answer(self, synced, batch):
        synced.result()
        self.stored += len(batch)
        for transport in batch:
            if not transport.is_closing():
                transport.write(ANSWER)
        if self.records:
            self.write()
        else:
            self.is_busy = False


def with_journal(kind, journal):
    """A connection that stores what it got, and answers when it is on disk."""

    class Stored(kind):
        raw = b""

        def data_received(self, data):
            self.raw += data
            self.parser.feed_data(data)

        def on_message_complete(self):
            super().on_message_complete()
            self.raw = b""

        def accept(self):
            journal.append(self.raw, self.transport)

        def stored(self):
            return journal.stored

    return Stored


async def serve(options):
    """Until the process is ended."""
    kind = Stripe if options.provider == "stripe" else Prototype
    if options.journal:
        kind = with_journal(kind, Journal(options.journal))
    loop = asyncio.get_running_loop()
    scheme, _, where = options.listen.partition(":")
    if scheme == "unix":
        server = await loop.create_unix_server(kind, where)
    else:
        host, _, port = where.removeprefix("//").partition(":")
        server = await loop.create_server(kind, host, int(port))
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("listen")
    parser.add_argument("--provider", default="github")
    parser.add_argument("--journal")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(parser.parse_args()))
