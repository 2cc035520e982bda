"""Between a client and PostgreSQL: kills the client at one of its messages.

Each message that a client sends and waits for is one step. The client dies before the server has
seen it, or after the server has answered and before the client has seen that.
"""

import contextlib
import os
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.postgresql import PORT

#: Query, Sync: what a client waits behind for an answer. ReadyForQuery ends that.
_ASKS = (b"Q", b"S")
_READY = b"Z"


class Relay:
    """Listens in `folder` as a server would; one client after the other."""

    def __init__(self, folder: Path, host: str) -> None:
        self.folder = folder
        self._server = f"{host}/.s.PGSQL.{PORT}"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"{folder}/.s.PGSQL.{PORT}")
        self._listener.listen()
        self.asked = 0  # by all clients
        self.kills_at = -1
        self.is_after = False
        self.pid = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Take no more."""
        self._listener.close()

    def aim(self, step: int, *, is_after: bool) -> None:
        """Kill `pid` at this step, counted from 0, from now on."""
        self.asked, self.kills_at, self.is_after, self.pid = 0, step, is_after, 0

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._server)
            _forward_start(client, server)
            ready = threading.Event()
            for pump in (self._to_server, self._to_client):
                threading.Thread(target=pump, args=(client, server, ready), daemon=True).start()

    def _to_server(
        self, client: socket.socket, server: socket.socket, ready: threading.Event
    ) -> None:
        for message in _messages(client):
            ready.wait()  # for the end of what the server says by itself
            if message[:1] in _ASKS:
                step = self.asked
                self.asked += 1
                if step == self.kills_at and not self.is_after:
                    self._kill()
                    break
            server.sendall(message)
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)

    def _to_client(
        self, client: socket.socket, server: socket.socket, ready: threading.Event
    ) -> None:
        with client, server:
            for message in _messages(server):
                if message[:1] == _READY and ready.is_set() and self.asked - 1 == self.kills_at:
                    self._kill()
                    break
                with contextlib.suppress(OSError):
                    client.sendall(message)
                if message[:1] == _READY:
                    ready.set()
            for each in (client, server):  # to close it does not end a thread that reads from it
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def _kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


def _forward_start(client: socket.socket, server: socket.socket) -> None:
    """What comes before the first message: the start-up packet, and questions for TLS."""
    while True:
        head = _exactly(client, 8)
        length, code = struct.unpack(">II", head)
        rest = _exactly(client, length - 8)
        if code in (80877103, 80877104):  # SSLRequest, GSSENCRequest
            client.sendall(b"N")
            continue
        server.sendall(head + rest)
        return


def _messages(source: socket.socket) -> Iterator[bytes]:
    """Whole messages: one byte of kind, four of length."""
    while True:
        try:
            head = _exactly(source, 5)
            (length,) = struct.unpack(">I", head[1:])
            yield head + _exactly(source, length - 4)
        except (OSError, EOFError):
            return


def _exactly(source: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = source.recv(count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data
