"""One worker process: a service that does what its parent says, and tells it how it is; and
the same from the parent's side, which makes it.

Parent and worker speak over a socket pair, one word a message:
    to the worker     share, alone, drain, last, stop, secrets, watch, unwatch
    to the parent     ready, failed TEXT, shared, beat, secrets, unwatched
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

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
#: A worker that has not been heard of for so long is stalled: systemd hears of nobody, then.
STALL_S: Final = 10.0
#: One commit that takes longer is no progress.
_STUCK_S: Final = 5.0
#: For threads to end once they are told to.
_THREAD_GRACE_S: Final = 0.2
#: A thread that has written, and is to sync, waits no longer for a busy loop (Python's own: 5 ms).
SWITCH_S: Final = 0.001
MAX_WORD_BYTES: Final = 16 * 1024
_PR_SET_PDEATHSIG: Final = 1  # prctl(2)


class Task(NamedTuple):
    """What a worker is to do."""

    config: Config
    sockets: Sockets
    place: Place
    is_spokesman: bool  # for its like: it says what is worth a warning in the configuration


# --- the parent's side ----------------------------------------------------------------------------


class Child:
    """A worker, as its parent sees it."""

    def __init__(self, pid: int, words: socket.socket, generation: int) -> None:
        self.pid = pid
        self.words = words
        self.generation = generation
        self.is_ready = False
        self.is_dismissed = False
        self.is_watching = False  # for unusual activity: one at a time, until it says that it ends
        self.is_shared = False  # it reckons with other workers
        self.was_asked_to_share = False
        self.failure = ""
        self.is_stalled = False
        self.since = self.heard_at = time.monotonic()

    def look(self, now: float) -> bool:
        """Whether it is stalled, and was not before. `now`: monotonic."""
        was_stalled, silent_s = self.is_stalled, now - self.heard_at
        self.is_stalled = self.is_ready and silent_s > STALL_S
        if self.is_stalled and not was_stalled:
            log.error("worker stalled", pid=self.pid, seconds=round(silent_s, 1))
        return self.is_stalled and not was_stalled

    def is_stopped(self) -> bool:
        """Whether it was told to stand still, by SIGSTOP or a debugger: proc(5)."""
        status = Path(f"/proc/{self.pid}/stat").read_text("ascii", "replace")
        return status.rpartition(")")[2].split()[0] in "Tt"

    def tell(self, word: str) -> None:
        """Say a word."""
        with contextlib.suppress(OSError):  # it has died: its end is noticed elsewhere
            self.words.send(word.encode())


def fork(task: Task, generation: int, leave: Callable[[], None]) -> Child:
    """A new worker. `leave` is called in it, to close what is the parent's alone.

    Raises `OSError`.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if not pid:
        ours.close()
        _become_worker(task, theirs, leave)
    theirs.close()
    ours.setblocking(False)
    return Child(pid, ours, generation)


def _become_worker(task: Task, parent: socket.socket, leave: Callable[[], None]) -> NoReturn:
    code = 1
    try:
        # Else it would go on to serve beside the next service.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        for number in (signal.SIGINT, signal.SIGHUP):  # a terminal sends them to all of us
            signal.signal(number, signal.SIG_IGN)
        leave()
        code = work(task, parent)
    except BaseException as error:  # whatever it is: no worker may go on as a parent
        log.exception("internal error", error, thread="worker")
    finally:
        log.flush()
        os._exit(code)


# --- the worker's side ----------------------------------------------------------------------------


def work(task: Task, parent: socket.socket) -> int:
    """Serve until told to stop; the exit code."""
    sys.setswitchinterval(SWITCH_S)
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
