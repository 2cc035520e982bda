"""The limit line: httptools, HMAC, a typed msgspec decode, and a fixed answer. Nothing else.

No limits, no storage, no handler, no log; broken requests break it. What fasthook takes more than
this is the price of everything else that it does.

    python -m bench.prototype PORT
"""

import asyncio
import hmac
import sys

import httptools
import msgspec
import uvloop

from bench.workload import SECRET, Push

ANSWER = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
REFUSAL = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"
decode = msgspec.json.Decoder(Push).decode


class Prototype(asyncio.Protocol):
    """One connection."""

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
            if name.lower() == b"x-hub-signature-256":
                signature = value
        expected = b"sha256=" + hmac.digest(SECRET, self.body, "sha256").hex().encode()
        if hmac.compare_digest(expected, signature):
            decode(self.body)
            self.transport.write(ANSWER)
        else:
            self.transport.write(REFUSAL)
        self.headers = []
        self.body = b""


async def serve(port):
    """Until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Prototype, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1])))
