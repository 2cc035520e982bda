"""One worker process: a service that does what its parent says, and tells it how it is.

Parent and worker speak over a socket pair, one word a message:
    to the worker     share, alone, drain, last, stop, secrets, watch, unwatch
    to the parent     ready, failed TEXT, shared, beat, secrets, unwatched
"""

import asyncio
import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable
from typing import Final, NamedTuple

import uvloop

from fasthook import plan
from fasthook.config import Config
from fasthook.errors import FasthookError
from fasthook.logs import log
from fasthook.plan import Plan
from fasthook.service import Service
from fasthook.spool.spool import Place
from fasthook.wire.sockets import Sockets

#: The parent hears so often that the loop turns and the spool takes what comes.
BEAT_S: Final = 1.0
#: While a worker drains, a proxy may send on connections that it has open: see `Listener.drain`.
LINGER_S: Final = 6.0
#: One commit that takes longer is no progress.
_STUCK_S: Final = 5.0
#: For threads to end once they are told to.
_THREAD_GRACE_S: Final = 0.2
MAX_WORD_BYTES: Final = 16 * 1024


class Task(NamedTuple):
    """What a worker is to do."""

    config: Config
    sockets: Sockets
    place: Place
    is_spokesman: bool  # for its like: it says what is worth a warning in the configuration


def work(task: Task, parent: socket.socket) -> int:
    """Serve until told to stop; the exit code."""
    try:
        made = plan.make(task.config)
        if task.is_spokesman:
            for warning in made.warnings:
                log.warning("check", warning=warning)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_Worker(task, made, parent).run())
        _leave_threads_behind()
        return 0
    except (FasthookError, OSError) as error:
        _tell(parent, f"failed {error}")
        return 1
    finally:
        log.stop_writer()


def _tell(parent: socket.socket, word: str) -> None:
    with contextlib.suppress(OSError):  # it is gone, and we are about to be
        parent.send(word.encode()[:MAX_WORD_BYTES])


class _Worker:
    def __init__(self, task: Task, made: Plan, parent: socket.socket) -> None:
        self._task = task
        self._made = made
        self._parent = parent
        #: With how long connections linger, and whether new ones are taken meanwhile.
        self._ends: asyncio.Future[tuple[float, bool]] | None = None

    async def run(self) -> None:
        task = self._task
        loop = asyncio.get_running_loop()
        self._ends = loop.create_future()
        loop.add_signal_handler(signal.SIGTERM, self._end, LINGER_S)
        service = self._service = Service(task.config, self._made, log, task.place)
        service.on_secrets = lambda: _tell(self._parent, "secrets")
        self._parent.setblocking(False)
        loop.add_reader(self._parent.fileno(), self._hear)
        await service.start(task.sockets)
        log.flush()  # what it says of its start is there before the parent says that it has begun
        log.start_writer()
        _tell(self._parent, "ready")
        self._beat()
        linger_s, accepts = await self._ends
        await service.stop(linger_s, accepts=accepts)
        self._beats.cancel()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for other in others:
            other.cancel()
        if others and (await asyncio.wait(others, timeout=_THREAD_GRACE_S))[1]:
            log.warning("left behind", tasks=" ".join(task.get_name() for task in others))
            log.stop_writer()
            os._exit(0)  # a handler that swallows its cancellation would hold us for ever

    def _end(self, linger_s: float, *, accepts: bool = False) -> None:
        assert self._ends is not None  # noqa: S101 - it is made first
        if not self._ends.done():
            self._ends.set_result((linger_s, accepts))

    def _beat(self) -> None:
        self._beats = asyncio.get_running_loop().call_later(BEAT_S, self._beat)
        if self._service.stuck_s < _STUCK_S:
            _tell(self._parent, "beat")

    def _hear(self) -> None:
        try:
            word = self._parent.recv(MAX_WORD_BYTES).decode()
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            word = ""
        service = self._service
        does: dict[str, Callable[[], object]] = {
            "": lambda: self._end(0.0),  # no parent
            "stop": lambda: self._end(0.0),
            "drain": lambda: self._end(LINGER_S),
            "last": lambda: self._end(LINGER_S, accepts=True),
            "share": self._share,
            "alone": service.be_alone,
            "secrets": service.read_secrets,
            "watch": service.watch,
            "unwatch": self._unwatch,
        }
        if not word:
            asyncio.get_running_loop().remove_reader(self._parent.fileno())
        does[word]()

    def _share(self) -> None:
        async def share() -> None:
            await self._service.share()
            _tell(self._parent, "shared")

        self._sharing = asyncio.get_running_loop().create_task(share())

    def _unwatch(self) -> None:
        async def unwatch() -> None:
            await self._service.unwatch()
            _tell(self._parent, "unwatched")

        self._unwatching = asyncio.get_running_loop().create_task(unwatch())


def _leave_threads_behind() -> None:
    """End although a handler's thread goes on: a thread can't be ended, and Python would wait."""
    threads = [t for t in threading.enumerate() if t is not threading.current_thread()]
    for thread in threads:
        if not thread.daemon:
            thread.join(_THREAD_GRACE_S)
    left = [t.name for t in threads if t.is_alive() and not t.daemon]
    if left:
        log.warning("left behind", threads=" ".join(left))
        log.stop_writer()
        os._exit(0)
