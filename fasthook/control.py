"""Orders of commands to a running service: HTTP on a socket in the spool's directory.

The directory is the owner's alone (0700), and so is the socket (0600): whoever can connect could
as well write the files. Both ends reach it through a descriptor of the directory, since the path
of a socket may have no more than 107 bytes.
"""

import contextlib
import http.client
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from fasthook.errors import FasthookError
from fasthook.model import Request
from fasthook.pairing import MAX_PAIRING_S, Pairing, PairingError
from fasthook.spool.records import Forgotten, Replayed
from fasthook.spool.spool import Spool
from fasthook.wire.answers import Answer, render
from fasthook.wire.connection import Connection
from fasthook.wire.sockets import open_sockets

NAME: Final = "control.sock"
MAX_ORDER_BYTES: Final = 256 * 1024
#: Of one order: so that it is small, and its transaction short.
MAX_POSITIONS: Final = 1000
MAX_RETENTION_S: Final = 1e9  # thirty years
_TIMEOUT_S: Final = 30.0


#: One that is none would keep the index, and each later start, from going on.
Position = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Replay(msgspec.Struct, tag=True):
    """Run these deliveries once more; `handler`: that one alone."""

    positions: list[Position]
    handler: str = ""


class Forget(msgspec.Struct, tag=True):
    """Erase head and body of these deliveries."""

    positions: list[Position]


class Prune(msgspec.Struct, tag=True):
    """Drop what is older than that and has nothing open."""

    retention_s: Annotated[float, msgspec.Meta(ge=0, le=MAX_RETENTION_S)]


class Pair(msgspec.Struct, tag=True):
    """Wait for so long for the secret that the endpoint's sender hands over."""

    endpoint: str
    for_s: Annotated[float, msgspec.Meta(gt=0, le=MAX_PAIRING_S)]


class PairingState(msgspec.Struct, tag=True):
    """Say how far that is; `is_over`: wait no longer."""

    endpoint: str
    is_over: bool = False


class Unpair(msgspec.Struct, tag=True):
    """Remove a secret that was handed over; `kept`: its name, or empty for all of them."""

    endpoint: str
    kept: str = ""


Order = Replay | Forget | Prune | Pair | PairingState | Unpair
_decode = msgspec.json.Decoder(Order).decode


class Refused(FasthookError):
    """The service did not take an order."""


class Control:
    """The service's end."""

    def __init__(
        self, spool: Spool, on_forget: Callable[[Sequence[int]], None], pairing: Pairing
    ) -> None:
        """`on_forget` is told of deliveries that are not to run any more."""
        self._spool = spool
        self._on_forget = on_forget
        self._pairing = pairing

    def receive(self, request: Request, connection: Connection, number: int) -> Answer | None:
        """See `wire.connection.Receive`."""
        if request.method != b"POST" or request.path != b"/order":
            return render(404, b"not found\n")
        try:
            order = _decode(request.body)
        except (ValueError, RecursionError) as error:
            return render(400, f"{error}\n".encode())
        if isinstance(order, Prune):
            self._spool.prune(order.retention_s)
            return render(200)
        if isinstance(order, Pair | PairingState | Unpair):
            return self._pair(order, connection, number)
        if len(order.positions) > MAX_POSITIONS:
            return render(400, b"too many deliveries in one order\n")
        if isinstance(order, Forget):
            self._on_forget(order.positions)
        self._spool.order(record_of(order), lambda: connection.answer(number, render(200)))
        return None

    def _pair(
        self, order: Pair | PairingState | Unpair, connection: Connection, number: int
    ) -> Answer | None:
        pairing = self._pairing
        try:
            if isinstance(order, Unpair):
                pairing.forget(
                    order.endpoint,
                    order.kept,
                    lambda count: connection.answer(number, _answer(count)),
                )
                return None
            if isinstance(order, Pair):
                pairing.begin(order.endpoint, order.for_s)
            elif order.is_over:
                pairing.end(order.endpoint)
            return _answer(pairing.state(order.endpoint))
        except PairingError as error:
            return _answer(error)


def _answer(result: object) -> Answer:
    if isinstance(result, Exception):
        return render(409, f"{result}\n".encode())
    return render(200, msgspec.json.encode(result), content_type="application/json")


def record_of(order: Replay | Forget) -> Replayed | Forgotten:
    """What an order is in the journal."""
    if isinstance(order, Replay):
        return Replayed(time.time_ns(), order.handler, order.positions)
    return Forgotten(time.time_ns(), order.positions)


def listen(path: Path) -> list[socket.socket]:
    """A listening socket in the spool's directory. Raises `ConfigError`."""
    with _short(path) as short:
        return open_sockets(f"unix:{short}", mode=0o600)


def send(path: Path, order: Order) -> bytes:
    """Give an order to the service that holds the spool's directory, and wait for its effect.

    What it answers. Raises `Refused`, and `OSError` where no service listens.
    """
    with _short(path) as short:
        connection = _UnixConnection(short)
        try:
            body = msgspec.json.encode(order)
            connection.request("POST", "/order", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            body = answer.read()
        except http.client.HTTPException as error:
            raise Refused(f"the service did not answer: {error!r}") from None
        finally:
            connection.close()
    if answer.status != 200:
        text = body.decode("utf-8", "replace").strip()
        raise Refused(f"the service answered {answer.status}: {text}")
    return body


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{NAME}"
    finally:
        os.close(fd)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock: Any = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_TIMEOUT_S)
        self.sock.connect(self._path)
