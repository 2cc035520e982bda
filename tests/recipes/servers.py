"""What handlers call: an SMTP server that keeps its mail, an HTTP server that does as it is told."""

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from aiosmtpd.controller import Controller


class Mailbox:
    """A real SMTP server. `answer`: to the end of each mail; only 250 takes it."""

    def __init__(self) -> None:
        self.mails: list[bytes] = []
        self.answer = "250 OK"
        self.recipient_answer = "250 OK"
        #: Once a whole mail has come, its answer waits for `may_answer`.
        self.has_come, self.may_answer = threading.Event(), threading.Event()
        self.may_answer.set()
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"smtp://127.0.0.1:{port}"
        self._server = Controller(self, hostname="127.0.0.1", port=port)
        self._server.start()

    async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802
        if self.recipient_answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return self.recipient_answer

    async def handle_DATA(self, server, session, envelope):  # noqa: N802
        self.has_come.set()
        if self.answer.startswith("250"):
            self.mails.append(envelope.content)
        if not self.may_answer.is_set():
            await server.loop.run_in_executor(None, self.may_answer.wait)
        return self.answer

    def close(self) -> None:
        self.may_answer.set()
        self._server.stop()


class Call(NamedTuple):
    """A request that came."""

    method: str
    path: str
    headers: dict[str, str]  # names in lower case
    body: Any  # of the JSON, or bytes


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """Clients are killed here."""


class Api:
    """An HTTP server on loopback: `answers` are given in turn, then 200 and `value`."""

    def __init__(self, value: Any = None) -> None:
        self.calls: list[Call] = []
        self.answers: list[int] = []
        self.value = value
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body: Any = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                if "json" in headers.get("content-type", ""):
                    body = json.loads(body)
                api.calls.append(Call(self.command, self.path, headers, body))
                status = api.answers.pop(0) if api.answers else 200
                answer = json.dumps(api.value if status == 200 else {}).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_POST = do_PURGE = handle_any  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self._server = _Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
