"""`file`: each event as one line of JSON in a file that is rotated by size."""

import base64
import logging
import logging.handlers
import os
from errno import EISDIR, ENOENT
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from fasthook.handling import Handler, HandlerFactory, handler
from fasthook.model import Event
from fasthook.values import Size


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[handlers.file]`."""

    path: str
    max_bytes: Size = Size(100 * 1024**2)  # of one file; then it becomes PATH.1
    keep: Annotated[int, Meta(ge=1)] = 5  # rotated files; older ones are deleted


class Line(msgspec.Struct):
    """What stands in the file. `payload` is the JSON as it was sent, else `body` is base64."""

    id: str
    type: str
    endpoint: str
    provider: str
    received_at: str
    attempt: int
    payload: msgspec.Raw | None = None
    body: str | None = None


class _Writer(logging.handlers.RotatingFileHandler):
    """The standard library's rotation, with errors raised so that the attempt fails."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        raise

    def _open(self) -> Any:
        # The events are somebody's data: for the service's user alone, whatever the umask.
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return os.fdopen(descriptor, self.mode, encoding=self.encoding)


def build(settings: Settings) -> Handler:
    """The handler for these settings. Raises `OSError` if no file can stand at the path."""
    path = Path(settings.path)
    if path.is_dir():
        raise IsADirectoryError(EISDIR, "a directory stands there", settings.path)
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(ENOENT, "no such directory", str(path.absolute().parent))
    writer = _Writer(
        settings.path,
        maxBytes=settings.max_bytes,
        backupCount=settings.keep,
        encoding="utf-8",
        delay=True,  # `fasthook check` builds handlers, and leaves no file behind
    )
    writer.setFormatter(logging.Formatter("%(message)s"))
    encoder = msgspec.json.Encoder()

    # One at a time: lines keep the order of events, and rotation has the file to itself.
    @handler(concurrency=1)
    def file(event: Event[Any]) -> None:
        line = encoder.encode(line_of(event)).decode()
        writer.handle(logging.makeLogRecord({"msg": line, "levelno": logging.INFO}))

    return file


def line_of(event: Event[Any]) -> Line:
    """The event as a line; the payload is copied as it came, without its line breaks."""
    line = Line(
        event.id,
        event.type,
        event.endpoint,
        event.provider,
        event.received_at.isoformat(),
        event.attempt,
    )
    try:
        # `format` does not look into strings: the bytes may yet be no UTF-8.
        line.payload = msgspec.Raw(msgspec.json.format(event.body.decode(), indent=-1).encode())
    except (ValueError, RecursionError):
        line.body = base64.b64encode(event.body).decode()
    return line


file = HandlerFactory(Settings, build)
