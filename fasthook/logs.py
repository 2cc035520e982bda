"""One structured line for each outcome, to standard error: for people, or as JSON.

Lines are collected and written together a few times a second, since a write for each would cost
more than verifying a signature. Nothing a client sends can break a line or reach a terminal:
control characters are escaped.
"""

import asyncio
import contextlib
import queue
import sys
import threading
import time
import traceback
from typing import Any, Final, TextIO

import msgspec

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
#: Lines that wait to be written. Beyond: they are dropped, counted, and the count is said.
MAX_WAITING: Final = 20_000
_FLUSH_S: Final = 0.1
#: Of these collections, what may wait for a stream that is slow; beyond, lines are dropped.
_MAX_TEXTS: Final = 64
_STOP_S: Final = 1.0
#: A value longer than this is cut: what a client sends must not fill the log.
MAX_VALUE_CHARS: Final = 512

_RESET, _DIM = "\033[0m", "\033[2m"
_COLORS: Final = {10: "\033[2m", 20: "\033[36m", 30: "\033[33m", 40: "\033[31m"}
_NAMES: Final = {number: name for name, number in LEVELS.items()}

_Record = tuple[int, int, str, dict[str, Any]]


class Log:
    """Where lines go. Fields are keyword arguments; `None` and empty ones are left out."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """`stream`: where lines go; None: standard error, whatever that is at the time."""
        self._stream = stream
        self.configure()
        self._waiting: list[_Record] = []
        self._dropped = 0
        self._flusher: asyncio.TimerHandle | None = None
        self._writer: _Writer | None = None

    def configure(self, form: str = "auto", level: str = "info") -> None:
        """`form`: "text", "json", or "auto": text with colours on a terminal, plain text else."""
        self._is_json = form == "json"
        self._has_colors = form == "auto" and (self._stream or sys.stderr).isatty()
        self._level = LEVELS[level]

    def debug(self, message: str, **fields: Any) -> None:
        """For whoever looks for a fault."""
        self.write(10, message, fields)

    def info(self, message: str, **fields: Any) -> None:
        """What is meant to happen."""
        self.write(20, message, fields)

    def warning(self, message: str, **fields: Any) -> None:
        """What an operator should know."""
        self.write(30, message, fields)

    def error(self, message: str, **fields: Any) -> None:
        """What an operator should do something about."""
        self.write(40, message, fields)

    def exception(self, message: str, error: BaseException, **fields: Any) -> None:
        """An error of ours, with the whole traceback in one field."""
        lines = traceback.format_exception(error)
        self.write(40, message, {**fields, "traceback": "".join(lines)})

    def write(self, level: int, message: str, fields: dict[str, Any]) -> None:
        """Take a line; `fields` belongs to the log from here on."""
        if level < self._level:
            return
        if len(self._waiting) >= MAX_WAITING:
            self._dropped += 1
            return
        self._waiting.append((time.time_ns(), level, message, fields))
        if self._flusher is None:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                self.flush()  # no loop runs, so nothing would ever write it
            else:
                self._flusher = loop.call_later(_FLUSH_S, self.flush)

    def flush(self) -> None:
        """Write what waits."""
        if self._flusher is not None:
            self._flusher.cancel()
            self._flusher = None
        records, self._waiting = self._waiting, []
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            records.append((time.time_ns(), 30, "log lines dropped", {"count": dropped}))
        render = self._as_json if self._is_json else self._as_text
        text = "".join([render(record) for record in records])
        if self._writer is None:
            write(self._stream or sys.stderr, text)
        elif not self._writer.take(text):
            self._dropped += len(records)

    def start_writer(self) -> None:
        """From here on a thread writes: a pipe that nobody reads must not hold the loop."""
        self._writer = _Writer(self._stream or sys.stderr)

    def stop_writer(self) -> None:
        """Write what waits, if it goes fast, and write by ourselves again."""
        self.flush()
        if self._writer is not None:
            self._writer.stop()
            self._writer = None

    def _as_text(self, record: _Record) -> str:
        time_ns, level, message, fields = record
        seconds, ns = divmod(time_ns, 1_000_000_000)
        clock = f"{time.strftime('%H:%M:%S', _local(seconds))}.{ns // 1_000_000:03d}"
        trace = _indented(fields.pop("traceback", ""))
        pairs = [f"{k}={_shown(v)}" for k, v in fields.items() if v is not None and v != ""]
        if not self._has_colors:
            line = f"{clock} {_NAMES[level]:7} {message:12} {' '.join(pairs)}"
            return f"{line.rstrip()}\n{trace}"
        color = _COLORS[level]
        return (
            f"{_DIM}{clock}{_RESET} {color}{message:12}{_RESET} "
            + " ".join(f"{_DIM}{k}={_RESET}{v}" for k, _, v in (p.partition("=") for p in pairs))
            + f"\n{trace}"
        )

    def _as_json(self, record: _Record) -> str:
        time_ns, level, message, fields = record
        seconds, ns = divmod(time_ns, 1_000_000_000)
        stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{ns // 1000:06d}Z"
        line = {"time": stamp, "level": _NAMES[level], "message": message}
        line |= {k: _plain(k, v) for k, v in fields.items() if v is not None and v != ""}
        return one_line(msgspec.json.encode(line).decode()) + "\n"


class _Writer:
    """Writes text to a stream, in a thread of its own, at most so much behind."""

    def __init__(self, stream: TextIO) -> None:
        self._texts: queue.Queue[str | None] = queue.Queue(_MAX_TEXTS)
        self._stream = stream
        self._thread = threading.Thread(target=self._work, name="log", daemon=True)
        self._thread.start()

    def take(self, text: str) -> bool:
        """Put `text` in line; false: there is no room."""
        try:
            self._texts.put_nowait(text)
        except queue.Full:
            return False
        return True

    def stop(self) -> None:
        """Wait for what is in line, but not for ever."""
        with contextlib.suppress(queue.Full):
            self._texts.put(None, timeout=_STOP_S)
        self._thread.join(_STOP_S)

    def _work(self) -> None:
        while (text := self._texts.get()) is not None:
            write(self._stream, text)


def write(stream: TextIO, text: str) -> None:
    """Write `text`; a log that can't be written must not end the service."""
    with contextlib.suppress(OSError, ValueError):
        stream.write(text)
        stream.flush()


_last_second: tuple[int, time.struct_time] = (0, time.localtime(0))


def _local(seconds: int) -> time.struct_time:
    """Local time, asked of the system once a second: it reads the time zone each time."""
    global _last_second
    if _last_second[0] != seconds:
        _last_second = (seconds, time.localtime(seconds))
    return _last_second[1]


def _plain(key: str, value: Any) -> Any:
    if isinstance(value, int | float | bool):
        return value
    text = str(value) if key == "traceback" else _cut(str(value))
    return text.encode("utf-8", "backslashreplace").decode()  # a lone surrogate is no UTF-8


def one_line(text: str) -> str:
    """JSON with its other control characters escaped, too, which a terminal would obey."""
    if text.isprintable():
        return text
    units = (char if char.isprintable() else char.encode("utf-16-be").hex() for char in text)
    return "".join(
        unit if len(unit) == 1 else "".join(f"\\u{unit[i : i + 4]}" for i in range(0, len(unit), 4))
        for unit in units
    )


def _cut(text: str) -> str:
    return text if len(text) <= MAX_VALUE_CHARS else text[:MAX_VALUE_CHARS] + "…"


def _shown(value: Any) -> str:
    """A value as it may stand in a line of text: escaped, and quoted where it has spaces."""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = _cut(str(value))
    if text.isprintable() and " " not in text and '"' not in text:
        return text
    text = escape(text)
    # JSON is what most values with quotes are: readable in the other kind of quotes.
    if "'" not in text:
        return f"'{text}'"
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _indented(trace: str) -> str:
    return "".join(f"    {escape(line)}\n" for line in trace.splitlines())


def escape(text: str) -> str:
    """`text` with everything that is not printable as an escape, which also takes bidi marks."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


#: The log of this process. The service configures it; handlers may write to it.
log: Final = Log()
