"""Where lines go: a stream, or the journal by its own protocol."""

import contextlib
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TextIO

from logging_journald import JournaldTransport, check_journal_stream

from fasthook.logs import shapes
from fasthook.logs.datagrams import MAX_DATAGRAMS, Sender
from fasthook.logs.shapes import Record, Render

JOURNAL_SOCKET: Final = "/run/systemd/journal/socket"


#: What a sink has made of a record: text, or a datagram; or the record itself, which the journal
#: gets the long way.
Line = str | bytes | Record
Make = Callable[[Record], Line]


class Sink(Protocol):
    """Makes lines of records, and writes them."""

    @property
    def make(self) -> Make:
        """Makes the line; called by whoever has something to say."""

    def write(self, lines: Sequence[Line]) -> None:
        """Write lines. A log that can't be written must not end the service: that is no error."""

    def close(self) -> None:
        """Give up what the sink has opened itself."""


class StreamSink:
    """A stream; None: standard error, whatever that is at the time."""

    def __init__(self, stream: TextIO | None, render: Render) -> None:
        self._stream = stream
        self.make: Make = render

    def write(self, lines: Sequence[Line]) -> None:
        """See `Sink`."""
        text = "".join([line for line in lines if isinstance(line, str)])
        stream = self._stream or sys.stderr
        with contextlib.suppress(OSError, ValueError):
            stream.write(text)
            stream.flush()

    def close(self) -> None:
        """See `Sink`; a stream is somebody else's."""


class JournalSink:
    """journald's own socket; a line that it does not take goes to standard error."""

    def __init__(self, path: str, fallback: Sink) -> None:
        """Raises `OSError` where nothing listens at `path`."""
        self._path = path
        self._fallback = fallback
        self._has_said = False
        self._socket = _connected(path)
        self.make: Make = shapes.packed
        self._sender = Sender()
        self._transport = JournaldTransport(path, connected=False)

    def write(self, lines: Sequence[Line]) -> None:
        """See `Sink`. Waits for a journal that is slow."""
        position = 0
        while position < len(lines):
            line = lines[position]
            if isinstance(line, tuple):
                self._write_long(line)
                position += 1
                continue
            assert isinstance(line, bytes)  # noqa: S101 - `packed` makes nothing else
            ready = [line]
            for other in lines[position + 1 : position + MAX_DATAGRAMS]:
                if not isinstance(other, bytes):
                    break
                ready.append(other)
            try:
                position += self._sender.send(self._socket, ready)
            except OSError:
                self._write_again(line)
                position += 1

    def _write_again(self, line: bytes) -> None:
        """The journal may have restarted."""
        self._socket.close()
        try:
            self._socket = _connected(self._path)
            self._socket.send(line)
        except OSError as error:
            self._fall_back(shapes.unpacked(line), error)

    def _write_long(self, record: Record) -> None:
        """By the library: any text, and any length by memfd."""
        try:
            self._transport.send(shapes.entry_of(record))
        except OSError as error:
            self._fall_back(record, error)

    def _fall_back(self, record: Record, error: OSError) -> None:
        if not self._has_said:
            self._has_said = True
            said = shapes.recorded(30, "journal not reached", {"error": str(error)})
            self._fallback.write([self._fallback.make(said)])
        self._fallback.write([self._fallback.make(record)])

    def close(self) -> None:
        """Close the sockets."""
        self._socket.close()
        self._transport.socket.close()


def _connected(path: str) -> socket.socket:
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        opened.connect(path)
    except OSError:
        opened.close()
        raise
    return opened


def choose(form: str, stream: TextIO | None, journal_socket: str) -> tuple[Sink, str]:
    """The sink for `[log] format`, and why it is another than asked for, or "".

    "auto" is the journal where standard error leads to it, else text, with colours on a terminal.
    """
    is_read = stream is None and _is_read_by_journal()
    plain = shapes.as_prefixed if is_read else shapes.as_text
    if form == "journal" or (form == "auto" and is_read):
        fallback = StreamSink(stream, plain)
        try:
            return JournalSink(journal_socket, fallback), ""
        except OSError as error:
            return fallback, f"{journal_socket}: {error.strerror}; lines go to standard error"
    if form == "json":
        return StreamSink(stream, shapes.as_json), ""
    if form == "auto" and _is_terminal(stream or sys.stderr):
        return StreamSink(stream, shapes.as_colored), ""
    return StreamSink(stream, plain), ""


def _is_terminal(stream: TextIO) -> bool:
    with contextlib.suppress(ValueError):  # it is closed
        return stream.isatty()
    return False


def _is_read_by_journal() -> bool:
    """Whether standard error leads to the journal, by JOURNAL_STREAM (systemd.exec(5))."""
    with contextlib.suppress(OSError, ValueError):  # no file, or not "device:inode"
        return bool(check_journal_stream())
    return False
