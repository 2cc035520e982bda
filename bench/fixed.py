"""The floor: a fixed answer on uvloop whenever as many bytes came as one request has.

Nothing is parsed or verified.

    python -m bench.fixed PORT BYTES
"""

import asyncio
import sys

import uvloop

ANSWER = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"


class Fixed(asyncio.Protocol):
    """One connection."""

    size = 0
    accepted = 0

    def connection_made(self, transport):
        self.transport = transport
        self.got = 0

    def data_received(self, data):
        self.got += len(data)
        while self.got >= self.size:
            self.got -= self.size
            Fixed.accepted += 1
            self.transport.write(ANSWER)
        if self.got and data.startswith(b"GET"):
            text = b'{"accepted": %d, "refused": 0, "stored": null}' % Fixed.accepted
            head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(text)
            self.transport.write(head + text)
            self.transport.close()


async def serve(port, size):
    """Until the process is ended."""
    Fixed.size = size
    server = await asyncio.get_running_loop().create_server(Fixed, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1]), int(sys.argv[2])))
