"""How one attempt is run: on the loop, in a thread, in a child process."""

import asyncio
import contextlib
import inspect
import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, Protocol

import msgspec

from fasthook.dispatch.child import HEADER, Call, Result
from fasthook.errors import AlreadyDone, Discard, FasthookError, Retry
from fasthook.model import Event, Undecoded, key_of

#: A child that does not go when its input ends is killed after this long.
_CHILD_GRACE_S = 2.0
_MAX_RESULT_BYTES = 64 * 1024


class TimedOut(FasthookError):
    """An attempt took longer than its handler may."""


class ChildDied(FasthookError):
    """The child process ended in the middle of an attempt."""


class Runner(Protocol):
    """Runs the attempts of one worker, one at a time."""

    #: Whether an attempt that was given up still runs: `recover` waits for its end.
    is_held: bool

    async def run(self, event: Event[Any]) -> None:
        """Returns when the attempt is done; raises what the handler raised.

        Cancelled: the attempt is given up, its time is over.
        """

    async def recover(self) -> None:
        """Return when the next attempt may run."""

    async def close(self) -> None:
        """Let go of what the runner holds."""


class LoopRunner:
    """`async def` on the event loop."""

    __slots__ = ("run",)
    is_held = False

    def __init__(self, function: Callable[[Event[Any]], Any]) -> None:
        self.run = function  # nothing in between

    async def recover(self) -> None:
        """At once: cancelling has ended the attempt."""

    async def close(self) -> None:
        """Nothing is held."""


class ThreadRunner:
    """`def` in a thread. A thread can't be ended: a timed-out one keeps its worker until it is."""

    __slots__ = ("is_held", "_executor", "_function", "_running")

    def __init__(self, function: Callable[[Event[Any]], Any], executor: Executor) -> None:
        self._function = function
        self._executor = executor
        self.is_held = False
        self._running: asyncio.Future[Any] | None = None

    async def run(self, event: Event[Any]) -> None:
        """See `Runner`."""
        loop = asyncio.get_running_loop()
        self._running = loop.run_in_executor(self._executor, _contained, self._function, event)
        self.is_held = True
        error = await asyncio.shield(self._running)
        self.is_held = False
        if error is not None:
            raise error

    async def recover(self) -> None:
        """Wait for the thread of an attempt that was given up."""
        if self._running is not None:
            await asyncio.wait([self._running])
        self.is_held = False

    async def close(self) -> None:
        """Nothing is held: the executor belongs to the pool."""


def _contained(function: Callable[[Event[Any]], Any], event: Event[Any]) -> BaseException | None:
    # StopIteration can't cross a future, and SystemExit would end the executor's thread.
    try:
        returned = function(event)
    except BaseException as error:
        return error
    if inspect.iscoroutine(returned):
        returned.close()
        return TypeError("the handler is an async def behind a decorator that hides it")
    return None


class ProcessRunner:
    """Either kind of function in a child process, which is killed when its time is over.

    The child dies with its attempt alone: other workers have children of their own.
    """

    __slots__ = ("_handler", "_process", "_settings")
    is_held = False

    def __init__(self, handler_name: str, settings: dict[str, Any]) -> None:
        self._handler = handler_name
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None

    async def run(self, event: Event[Any]) -> None:
        """See `Runner`; raises `ChildDied` if the child ended by itself."""
        process = self._process or await self._spawn()
        assert process.stdin is not None  # noqa: S101 - both are pipes, see _spawn
        assert process.stdout is not None  # noqa: S101
        try:
            process.stdin.write(_frame(msgspec.msgpack.encode(_call(event))))
            await process.stdin.drain()
            header = await process.stdout.readexactly(HEADER.size)
            (length,) = HEADER.unpack(header)
            if length > _MAX_RESULT_BYTES:
                raise ChildDied(f"the handler process sent a result of {length} bytes")
            result = msgspec.msgpack.decode(await process.stdout.readexactly(length), type=Result)
        except (asyncio.IncompleteReadError, ConnectionError):
            code = await process.wait()
            self._process = None
            raise ChildDied(f"the handler process ended ({_exit_text(code)})") from None
        except BaseException:
            self._kill()
            raise
        if result.kind == "already":
            raise AlreadyDone(result.error)
        if result.kind == "discard":
            raise Discard(result.error)
        if result.kind == "retry":
            raise Retry(result.error, after=result.after_s)
        if result.kind == "error":
            raise HandlerRaised(result.error, result.trace)

    async def _spawn(self) -> asyncio.subprocess.Process:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "fasthook.dispatch.child",
            self._handler,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in a terminal is for the service, which then drains
        )
        assert self._process.stdin is not None  # noqa: S101 - a pipe
        self._process.stdin.write(_frame(msgspec.json.encode(self._settings)))
        return self._process

    def _kill(self) -> None:
        """End the child, and whatever it started."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process = None

    async def recover(self) -> None:
        """At once: a child that was given up is dead."""

    async def close(self) -> None:
        """End the child."""
        process, self._process = self._process, None
        if process is None or process.stdin is None:
            return
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), _CHILD_GRACE_S)
        except TimeoutError:
            process.kill()
            await process.wait()


class HandlerRaised(FasthookError):
    """The handler raised in its child process; the text says what, and `trace` where."""

    def __init__(self, text: str, trace: str) -> None:
        super().__init__(text)
        self.trace = trace


def _call(event: Event[Any]) -> Call:
    delivery, payload = event._delivery, event._payload
    is_undecoded = isinstance(payload, Undecoded)
    return Call(
        delivery.endpoint,
        delivery.provider,
        delivery.event_id,
        delivery.event_type,
        delivery.head,
        delivery.body,
        delivery.received_at_ns,
        delivery.client,
        delivery.secret_index,
        event.attempt,
        event._handler,
        key_of(delivery),
        None if is_undecoded else msgspec.msgpack.encode(payload),
    )


def _frame(data: bytes) -> bytes:
    return HEADER.pack(len(data)) + data


def _exit_text(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
