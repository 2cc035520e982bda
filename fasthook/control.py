"""Orders of commands to a running service: HTTP on sockets in the spool's directory.

Each worker has one of its own, and gets each order: it carries out what it holds the journal of.

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
from fasthook.watching import Watching
from fasthook.wire.answers import Answer, render
from fasthook.wire.connection import Connection
from fasthook.wire.sockets import open_sockets

_NAMES: Final = "control.*.sock"
MAX_ORDER_BYTES: Final = 256 * 1024
#: What a worker counted of many clients and kinds of errors.
_MAX_TALLY_BYTES: Final = 4 * 1024**2
_ORDER, _TALLY = b"/order", b"/tally"
#: Of one order: so that it is small, and its transaction short.
MAX_POSITIONS: Final = 1000
MAX_RETENTION_S: Final = 1e9  # thirty years
_TIMEOUT_S: Final = 30.0
#: Of a worker to another one, which answers at once unless it is stalled.
_SOON_S: Final = 2.0
#: Workers may be replaced just now, and a journal be in nobody's hands for a moment.
_PATIENCE_S: Final = 5.0
_AGAIN_S: Final = 0.2


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


class Figures(msgspec.Struct, tag=True):
    """Say the metrics of this worker."""


class Tally(msgspec.Struct, tag=True):
    """Say what this worker counted since it was asked last: of the worker that watches."""


class Counted(msgspec.Struct, tag=True):
    """Take over what a worker counted that is about to end."""

    tally: bytes


class Alerts(msgspec.Struct, tag=True):
    """Say which alerts go on, as JSON; null: another worker knows."""


Watch = Tally | Counted | Alerts
Order = Replay | Forget | Prune | Pair | PairingState | Unpair | Figures | Watch
_decode = msgspec.json.Decoder(Order).decode


class Refused(FasthookError):
    """The service did not take an order."""


class Control:
    """The service's end."""

    def __init__(
        self,
        spool: Spool,
        on_forget: Callable[[Sequence[int]], None],
        pairing: Pairing,
        figures: Callable[[], bytes],
        watching: Watching | None,
    ) -> None:
        """`on_forget` is told of deliveries that are not to run any more.

        `figures`: the metrics, in Prometheus' text format.
        """
        self._figures = figures
        self._watching = watching
        self._spool = spool
        self._on_forget = on_forget
        self._pairing = pairing

    def receive(self, request: Request, connection: Connection, number: int) -> Answer | None:
        """See `wire.connection.Receive`."""
        if request.method != b"POST" or request.path not in (_ORDER, _TALLY):
            return render(404, b"not found\n")
        try:
            order = _decode(request.body)
        except (ValueError, RecursionError) as error:
            return render(400, f"{error}\n".encode())
        if request.path != _path_of(order):
            return render(400, b"that is no place for this order\n")
        if isinstance(order, Figures):
            return render(200, self._figures())
        if isinstance(order, Prune):
            self._spool.prune(order.retention_s)
            return render(200)
        if isinstance(order, Pair | PairingState | Unpair):
            return self._pair(order, connection, number)
        if isinstance(order, Tally | Counted | Alerts):
            return self._watch(order)
        if len(order.positions) > MAX_POSITIONS:
            return render(400, b"too many deliveries in one order\n")
        if isinstance(order, Forget):
            self._on_forget(order.positions)
        self._spool.order(
            record_of(order), lambda done: connection.answer(number, _answer(list(done)))
        )
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

    def _watch(self, order: Watch) -> Answer:
        watching = self._watching
        if watching is None:
            return render(409, b"nothing is watched\n")
        if isinstance(order, Tally):
            return render(200, watching.tally(), content_type="application/octet-stream")
        if isinstance(order, Alerts):
            return _answer(watching.present() if watching.is_watching else None)
        try:
            watching.add(order.tally)
        except ValueError as error:
            return render(400, f"{error}\n".encode())
        return render(200)


def _answer(result: object) -> Answer:
    if isinstance(result, Exception):
        return render(409, f"{result}\n".encode())
    return render(200, msgspec.json.encode(result), content_type="application/json")


def record_of(order: Replay | Forget) -> Replayed | Forgotten:
    """What an order is in the journal."""
    if isinstance(order, Replay):
        return Replayed(time.time_ns(), order.handler, order.positions)
    return Forgotten(time.time_ns(), order.positions)


def body_limit(path: bytes) -> int:
    """How many bytes a request to this path may have."""
    return _MAX_TALLY_BYTES if path == _TALLY else MAX_ORDER_BYTES


def _path_of(order: Order) -> bytes:
    return _TALLY if isinstance(order, Counted) else _ORDER


def name_of(worker: int) -> str:
    """The socket of the worker with this journal."""
    return f"control.{worker}.sock"


def listen(path: Path, worker: int) -> list[socket.socket]:
    """A listening socket in the spool's directory. Raises `ConfigError`."""
    with _short(path, name_of(worker)) as short:
        return open_sockets(f"unix:{short}", mode=0o600)


def remove_sockets(path: Path) -> None:
    """Remove those of workers that were killed: no other may run. Raises `OSError`."""
    for socket_path in path.glob(_NAMES):
        socket_path.unlink(missing_ok=True)


def remove_socket(path: Path, worker: int) -> None:
    """Remove one's own, while its journal is one's own: whoever takes it listens there next.

    A disk that can't be written keeps nobody from ending: the next start removes what is left.
    """
    with contextlib.suppress(OSError):
        (path / name_of(worker)).unlink()


def is_alone(path: Path, own: int) -> bool:
    """Whether no worker has a socket but the one with the journal `own`. Raises `OSError`."""
    return all(file.name == name_of(own) for file in path.glob(_NAMES))


def send(path: Path, order: Replay | Forget | Prune) -> None:
    """Give an order to the service that holds the spool's directory, and wait for its effect.

    Raises `Refused`, and `OSError` where no service listens.
    """
    if isinstance(order, Prune):
        ask(path, order)
        return
    left, ends = set(order.positions), time.monotonic() + _PATIENCE_S
    while left:
        for answer in ask(path, msgspec.structs.replace(order, positions=sorted(left))):
            left.difference_update(msgspec.json.decode(answer, type=list[int]))
        if left and time.monotonic() > ends:
            raise Refused(f"no worker of the service holds {len(left)} of the deliveries")
        if left:
            time.sleep(_AGAIN_S)


def ask(path: Path, order: Order) -> list[bytes]:
    """Give an order to all workers; what they answer.

    Raises `Refused` where one does not take it, and `OSError` where none listens.
    """
    answers, missed = [], OSError(f"{path}: nobody listens there")
    for name in sorted(file.name for file in path.glob(_NAMES)):
        try:
            answers.append(_ask_one(path, name, order))
        except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError) as error:
            missed = error  # a worker that has ended
    if not answers:
        raise missed
    return answers


def ask_others(path: Path, order: Watch, own: int = -1) -> Iterator[bytes]:
    """Give an order to one worker after the other, but not to the one with the journal `own`.

    Those that do not answer soon, and with 200, are left out.
    """
    for name in sorted(file.name for file in path.glob(_NAMES)):
        if name != name_of(own):
            with contextlib.suppress(OSError, Refused):
                yield _ask_one(path, name, order, _SOON_S)


def _ask_one(path: Path, name: str, order: Order, timeout_s: float = _TIMEOUT_S) -> bytes:
    with _short(path, name) as short:
        connection = _UnixConnection(short, timeout_s)
        try:
            body = msgspec.json.encode(order)
            headers = {"Content-Type": "application/json"}
            connection.request("POST", _path_of(order).decode(), body, headers)
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
def _short(path: Path, name: str) -> Iterator[str]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout_s: float = _TIMEOUT_S) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock: Any = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
