"""`exec`: a command for each event, without a shell.

The body is its standard input; what names the event stands in its environment, which holds nothing
else of ours but PATH, HOME and LANG: no secret of the service reaches a command.
"""

import asyncio
import base64
import contextlib
import os
import shutil
import signal
import tempfile
from typing import Any, Final

import msgspec

from fasthook.errors import ConfigError, Discard
from fasthook.handlers.values import Text, argument
from fasthook.handling import Handler, HandlerFactory, handler
from fasthook.logs import log
from fasthook.model import Event

_INHERITED: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR")
#: Of the output of one run; the rest is read and thrown away.
MAX_OUTPUT_BYTES: Final = 64 * 1024
_OUTPUT_GRACE_S: Final = 1.0
_BASE64: Final = "base64:"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[handlers.exec]`."""

    command: tuple[str, ...]  # program and arguments, as they are: no shell, no expansion
    directory: str = ""  # empty: where the service runs
    environment: dict[str, str] = {}
    #: Behind those of `command`, and beside `environment`: with values of the event (see `values`).
    arguments: tuple[str, ...] = ()
    variables: dict[str, str] = {}
    #: Variable → what is in the file whose path it has; behind "base64:", decoded.
    files: dict[str, str] = {}


class _Command:
    """What is run, and what of it is made anew for each event."""

    def __init__(self, settings: Settings, program: str) -> None:
        """Raises `ConfigError`."""
        self.program = program
        self.settings = settings
        self.fixed = [os.fsencode(part) for part in settings.command]
        self.arguments = [Text(text, "arguments") for text in settings.arguments]
        self.variables = {k: Text(v, f"variables.{k}") for k, v in settings.variables.items()}
        self.files = {
            name: (Text(text.removeprefix(_BASE64), f"files.{name}"), text.startswith(_BASE64))
            for name, text in settings.files.items()
        }
        for name in (*settings.environment, *self.variables, *self.files):
            if not name or "=" in name or "\0" in name:
                raise ConfigError(f"environment: {name!r} is no name of a variable")

    def whole(self, event: Event[Any]) -> list[bytes]:
        """The program, as it is called, and all arguments."""
        return self.fixed + [argument(text.of(event)) for text in self.arguments]

    def environment(self, event: Event[Any], folder: str) -> dict[str, str | bytes]:
        """All variables; files are written into `folder`."""
        made: dict[str, str | bytes] = dict(environment_of(event, self.settings.environment))
        made |= {name: argument(text.of(event)) for name, text in self.variables.items()}
        for number, (name, (text, is_base64)) in enumerate(self.files.items()):
            data = text.of(event)
            path = os.path.join(folder, str(number))
            with open(path, "xb") as file:
                file.write(_decoded(data) if is_base64 else data)
            made[name] = path
        return made


def _decoded(data: bytes) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except ValueError:
        raise Discard("what is to be a file is no base64") from None


def build(settings: Settings) -> Handler:
    """The handler for these settings. Raises `ConfigError`."""
    if not settings.command:
        raise ConfigError('command: expected a program and its arguments, such as ["/bin/true"]')
    program = shutil.which(settings.command[0])
    if program is None:
        raise ConfigError(f"command: {settings.command[0]!r} is no executable program")
    program = os.path.abspath(program)  # it is started from `directory`
    if settings.directory and not os.path.isdir(settings.directory):
        raise ConfigError(f"directory: {settings.directory!r} is no directory")

    command = _Command(settings, program)

    @handler(timeout=60, concurrency=4)
    async def exec_(event: Event[Any]) -> None:
        with contextlib.ExitStack() as stack:
            folder = ""
            if command.files:
                made = tempfile.TemporaryDirectory(prefix="fasthook-", ignore_cleanup_errors=True)
                folder = stack.enter_context(made)
            await _run(command, event, folder)

    return exec_


async def _run(command: _Command, event: Event[Any], folder: str) -> None:
    """One run, from its start to its end."""
    process = await _started(command, event, folder)
    reading = asyncio.ensure_future(_read(process))
    sending = asyncio.ensure_future(_send(process, event.body))
    try:
        code = await process.wait()
        _kill_group(process.pid)  # what it left running would keep the output open
        await asyncio.wait([reading], timeout=_OUTPUT_GRACE_S)
    finally:
        _kill_group(process.pid)
        sending.cancel()
        reading.cancel()
    output = b"" if reading.cancelled() or not reading.done() else reading.result()
    name = command.settings.command[0]
    _report(event, name, output)
    if code:
        raise CommandFailed(f"{name} ended with {_exit_text(code)}")


async def _started(command: _Command, event: Event[Any], folder: str) -> asyncio.subprocess.Process:
    """The running command. Where the attempt is cancelled meanwhile, nothing of it stays: the loop
    would end the command alone, and not what it started in those milliseconds.
    """
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *command.whole(event),
            executable=command.program,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=command.environment(event, folder),
            cwd=command.settings.directory or None,
            start_new_session=True,  # a group of its own, so that a timeout ends all of it
        )
    )
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        _kill_group((await starting).pid)
        raise


class CommandFailed(Exception):
    """The command ended with something other than 0."""

    def __str__(self) -> str:
        return str(self.args[0])


def environment_of(event: Event[Any], more: dict[str, str]) -> dict[str, str]:
    """What the command sees: a few variables of ours, and FASTHOOK_…"""
    environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    fields = {
        "ID": event.id,
        "TYPE": event.type,
        "ENDPOINT": event.endpoint,
        "PROVIDER": event.provider,
        "RECEIVED_AT": event.received_at.isoformat(),
        "ATTEMPT": str(event.attempt),
        "CONTENT_TYPE": event.headers.get("content-type", ""),
    }
    # A NUL would end the value early; JSON may hold one.
    return environment | {f"FASTHOOK_{k}": v.replace("\0", "") for k, v in fields.items()} | more


async def _send(process: asyncio.subprocess.Process, body: bytes) -> None:
    """Give the command its input; it need not read it. uvloop then raises RuntimeError."""
    stdin = process.stdin
    assert stdin is not None  # noqa: S101 - a pipe
    with contextlib.suppress(BrokenPipeError, ConnectionResetError, RuntimeError):
        stdin.write(body)
        await stdin.drain()
        stdin.close()


async def _read(process: asyncio.subprocess.Process) -> bytes:
    """The first part of the output; all of it is read, so that the command never waits."""
    stdout = process.stdout
    assert stdout is not None  # noqa: S101 - a pipe
    output = bytearray()
    while piece := await stdout.read(64 * 1024):
        output += piece[: MAX_OUTPUT_BYTES - len(output)]
    return bytes(output)


def _kill_group(pid: int) -> None:
    """Also what the command left running: it would outlive the attempt that started it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _report(event: Event[Any], program: str, output: bytes) -> None:
    for line in output.decode("utf-8", "replace").splitlines():
        log.info("output", endpoint=event.endpoint, id=event.id, program=program, line=line)
    if len(output) >= MAX_OUTPUT_BYTES:
        log.warning("output cut", endpoint=event.endpoint, id=event.id, bytes=MAX_OUTPUT_BYTES)


def _exit_text(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


exec_ = HandlerFactory(Settings, build)
