"""One connection to a service, or to what stands in front of it; requests as they are written."""

from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from fasthook.model import Request


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Road:
    """One connection that is kept, to the service or to what stands in front of it."""

    def __init__(self, connect: Callable[[], Any], is_proxy: bool) -> None:
        self._connect = connect
        self.is_proxy = is_proxy
        self._socket: Any = None

    def exchange(self, method: str, endpoint: str, url: str, request: Request) -> Answer:
        """`url`: where the sender thinks that it sends it."""
        parts = urlsplit(url)
        path = (parts.path or "/") if self.is_proxy else f"/{endpoint}"
        query = request.target.partition(b"?")[2]
        target = path.encode() + (b"?" + query if query else b"")
        host = parts.netloc.rpartition("@")[2].encode()
        lines = [b"%s %s HTTP/1.1" % (method.encode(), target), b"Host: " + host]
        if self.is_proxy:
            lines.append(b"X-To-Endpoint: " + endpoint.encode())
        for name, value in request.headers.items():
            several = (request.repeated or {}).get(name, [value])
            if name != b"content-length":
                lines += [name + b": " + one for one in several]
        if request.body or method not in ("GET", "HEAD"):
            lines.append(b"Content-Length: %d" % len(request.body))
        raw = b"\r\n".join([*lines, b"", request.body])
        if self._socket is None:
            self._socket = self._connect()
        self._socket.sendall(raw)
        return self._answer(method)

    def _answer(self, method: str) -> Answer:
        received = b""
        while b"\r\n\r\n" not in received:
            piece = self._socket.recv(65536)
            assert piece, f"closed after {received!r}"
            received += piece
        head, _, body = received.partition(b"\r\n\r\n")
        first, *fields = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in fields)}
        status = int(first.split()[1])
        length = 0 if method == "HEAD" or status == 204 else int(headers["content-length"])
        while len(body) < length:
            body += self._socket.recv(65536)
        if headers.get("connection") == "close":
            self._socket.close()
            self._socket = None
        return Answer(status, headers, body)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
