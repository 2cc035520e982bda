"""Senders with kept connections over TLS, and what they were told. Needs nothing but Python."""

import asyncio
import hmac
import ssl
import threading
import time
from collections import Counter

HOST = "hooks.test"
BODY = b'{"ref": "refs/heads/main", "after": "9049f126", "commits": []}'
PATIENCE_S = 30.0


def request(secret: bytes, event_id: str, path: str = "/github", body: bytes = BODY) -> bytes:
    """A signed push."""
    signature = hmac.digest(secret, body, "sha256").hex()
    return (
        f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nX-GitHub-Event: push\r\nX-GitHub-Delivery: {event_id}\r\n"
        f"X-Hub-Signature-256: sha256={signature}\r\n\r\n"
    ).encode() + body


class Load:
    """`with Load(...) as load:` sends all the time; then `acked`, `failures`, `longest_s`."""

    def __init__(self, secret: bytes, cert: str, *, clients: int, pause_s: float, tag: str) -> None:
        self._secret = secret
        self._trusted = ssl.create_default_context(cafile=cert)
        self._clients, self._pause_s, self._tag = clients, pause_s, tag
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self.acked: list[str] = []
        self.failures: list[str] = []
        self.statuses: Counter[int] = Counter()
        self.longest_s = 0.0

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join(PATIENCE_S * 2)

    @property
    def sent(self) -> int:
        """So far, with an answer of whatever kind."""
        return len(self.acked) + len(self.failures)

    async def _run(self) -> None:
        await asyncio.gather(*(self._client(number) for number in range(self._clients)))

    async def _client(self, number: int) -> None:
        count = 0
        while not self._is_over.is_set():
            event_id = f"{self._tag}-{number}-{count}"
            try:
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", 443, ssl=self._trusted, server_hostname=HOST
                )
            except OSError as error:
                self.failures.append(f"{event_id}: {error!r}")
                count += 1
                continue
            is_open = True
            while is_open and not self._is_over.is_set():
                event_id = f"{self._tag}-{number}-{count}"
                count += 1
                try:
                    is_open = await asyncio.wait_for(
                        self._send(reader, writer, event_id), PATIENCE_S
                    )
                except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                    self.failures.append(f"{event_id}: {error!r}")
                    is_open = False
                await asyncio.sleep(self._pause_s)
            writer.close()

    async def _send(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, event_id: str
    ) -> bool:
        """Whether the connection stays."""
        began = time.monotonic()
        writer.write(request(self._secret, event_id))
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        _, _, length = head.partition(b"content-length: ")
        answer = await reader.readexactly(int(length.split(b"\r\n", 1)[0] or 0))
        self.longest_s = max(self.longest_s, time.monotonic() - began)
        status = int(head.split(b" ", 2)[1])
        self.statuses[status] += 1
        if status == 202:
            self.acked.append(event_id)
        else:
            self.failures.append(f"{event_id}: {status} {answer[:60]!r}")
        return b"connection: close" not in head
