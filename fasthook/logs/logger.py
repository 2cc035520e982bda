"""The log: takes records, and has them written by a thread, a few times a second.

What waits is bounded, and what finds no room is counted and said. Whoever has something to say
makes the line, too: a thread that made them would fight with the loop for the interpreter, which
costs more than the lines do, and records that wait are work for the garbage collector, which lines
are not (bench/pairs.py). Without the thread (commands, tests) each is written at once.
"""

import contextlib
import math
import os
import queue
import threading
import time
import traceback
from collections import deque
from typing import Any, Final, TextIO

from fasthook.logs.floods import Floods
from fasthook.logs.shapes import LEVELS, Record, Shape, recorded, shape_of
from fasthook.logs.sinks import JOURNAL_SOCKET, Line, Make, Sink, choose

#: Lines that wait to be written. Beyond: they are dropped, counted, and the count is said.
MAX_WAITING: Final = 20_000
_COLLECT_S: Final = 0.1
#: Between two lines about lines that were dropped.
_SAY_DROPPED_S: Final = 10.0
#: Lines that are written in one go.
_WRITTEN: Final = 1024
_STOP_S: Final = 1.0


class Log:
    """Where lines go. Fields are keyword arguments; `None` and empty ones are left out."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """`stream`: where lines go; None: standard error, whatever that is at the time."""
        self._stream = stream
        self._sink: Sink | None = None
        self._forget()
        self.configure()

    def _forget(self) -> None:
        """Begin anew, in a process that was forked: the thread and what waits are the parent's."""
        self._waiting: deque[Line] = deque()
        self._is_idle = True
        self._writer: threading.Thread | None = None
        self._is_ending = False
        #: Lines that found no room, and lines that a summary stands for.
        self.dropped = 0
        self.summarised = 0
        self._dropped_said = 0
        self._say_dropped_at = 0.0
        #: What wakes the thread. Unlike an Event, a signal handler may ring it at any moment.
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._floods = Floods()
        self._floods_lock = threading.RLock()
        self._sink_lock = threading.RLock()

    def configure(
        self, form: str = "auto", level: str = "info", journal_socket: str = JOURNAL_SOCKET
    ) -> None:
        """`form`: "text", "json", "journal", or "auto": see `sinks.choose`."""
        self._form = form
        self._journal_socket = journal_socket
        self._level = LEVELS[level]
        self.close()

    def close(self) -> None:
        """Give up the connection to the journal; the next line opens it again."""
        with self._sink_lock:
            if self._sink is not None:
                self._write_all()
                self._sink.close()
            self._sink = None  # chosen when there is something to write
            self._make: Make = self._make_first

    # --- lines in ---------------------------------------------------------------------------------

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
        """An error of ours, with the whole traceback in one field; the first of many."""
        lines = traceback.format_exception(error)
        fields["traceback"] = "".join(lines)
        self.repeatable(40, message, type(error).__name__, fields)

    def repeatable(self, level: int, message: str, cause: str, fields: dict[str, Any]) -> None:
        """`write`, of what a client can bring about as often as it likes: see `floods`.

        `cause`: a name out of few, such as that of a class; never what a client has sent.
        """
        if level < self._level:
            return
        now_s = time.monotonic()
        key = (message, cause, fields.get("endpoint", ""))
        with self._floods_lock:
            is_full = self._floods.is_full(key, fields.get("client", ""), now_s)
        if is_full:
            self.write(level, message, fields)
        else:
            self.summarised += 1
        if self._writer is None:
            self._summarise(now_s)

    def write(self, level: int, message: str, fields: dict[str, Any]) -> None:
        """Take a line. From any thread."""
        if level >= self._level:
            self.fill(shape_of(level, message, fields), tuple(fields.values()))

    def fill(self, shape: Shape, values: tuple[Any, ...]) -> None:
        """`write`, of a line of which there are so many that its shape is kept."""
        if shape.level < self._level:
            return
        waiting = self._waiting
        if len(waiting) >= MAX_WAITING:
            self.dropped += 1
            return
        record = (time.time_ns(), shape, values)
        try:
            line = self._make(record)
        except Exception as error:
            line = self._made_instead(record, error)
        waiting.append(line)
        if self._is_idle:
            self._wake()

    def _made_instead(self, record: Record, error: Exception) -> Line:
        """A value that can't be shown must not cost whoever writes the line anything."""
        fields = {"what": record[1].message, "error": type(error).__name__}
        return self._make(recorded(40, "line not written", fields))

    def _make_first(self, record: Record) -> Line:
        return self._choose().make(record)

    def _wake(self) -> None:
        if self._writer is None:
            self._write_all()
        else:
            self._is_idle = False
            self._bell.put(None)

    # --- lines out --------------------------------------------------------------------------------

    def start_writer(self) -> None:
        """From here on a thread writes: a journal that is slow must not hold the loop.

        Threads do not survive a fork: each worker calls this after its own.
        """
        self._is_ending = False
        self._writer = threading.Thread(target=self._work, name="log", daemon=True)
        self._writer.start()

    def stop_writer(self) -> None:
        """Write what waits, if it goes fast, and write by ourselves again."""
        if self._writer is not None:
            self._is_ending = True
            self._bell.put(None)
            self._writer.join(_STOP_S)
            if self._writer.is_alive():
                return  # nobody takes lines any more, and we would only wait there, too
            self._writer = None
            self._is_idle = True
        self._write_all()
        self._summarise(math.inf)

    def flush(self) -> None:
        """Write what waits now, rather than in a moment."""
        if self._writer is None:
            self._write_all()

    def _work(self) -> None:
        while not self._is_ending:
            ends = self._floods.ends
            self._wait(max(0.0, ends - time.monotonic()) if ends else None)
            collected = time.monotonic() + _COLLECT_S  # more will come
            while not self._is_ending and (left_s := collected - time.monotonic()) > 0:
                self._wait(left_s)
            self._is_idle = True  # whoever writes from here on wakes us again
            self._write_all()
            self._summarise(time.monotonic())

    def _wait(self, timeout_s: float | None) -> None:
        with contextlib.suppress(queue.Empty):
            self._bell.get(timeout=timeout_s)

    def _write_all(self) -> None:
        with self._sink_lock:
            sink, waiting = self._sink or self._choose(), self._waiting
            while waiting:
                # Others only append; nobody else takes.
                sink.write([waiting.popleft() for _ in range(min(len(waiting), _WRITTEN))])
            if self.dropped > self._dropped_said:
                self._say_dropped(sink)

    def _choose(self) -> Sink:
        with self._sink_lock:
            if self._sink is None:
                self._sink, why = choose(self._form, self._stream, self._journal_socket)
                self._make = self._sink.make
                if why:
                    self._say(self._sink, 30, "journal not reached", {"error": why})
            return self._sink

    def _say_dropped(self, sink: Sink) -> None:
        now_s = time.monotonic()
        if now_s < self._say_dropped_at and not self._is_ending:
            return
        self._say_dropped_at = now_s + _SAY_DROPPED_S
        count, self._dropped_said = self.dropped - self._dropped_said, self.dropped
        self._say(sink, 30, "log lines dropped", {"count": count})

    def _summarise(self, now_s: float) -> None:
        """Say what came too often to be said, if it is time for it; always at infinity."""
        ends = self._floods.ends
        if not ends or now_s < ends:
            return
        with self._floods_lock:
            summaries = self._floods.summaries(min(now_s, time.monotonic()))
        with self._sink_lock:
            for fields in summaries:
                level = max(30, self._level)
                self._say(self._sink or self._choose(), level, "repeated", fields)

    def _say(self, sink: Sink, level: int, message: str, fields: dict[str, Any]) -> None:
        """Write a line about the log itself, past what waits."""
        sink.write([sink.make(recorded(level, message, fields))])


#: The log of this process. The service configures it; handlers may write to it.
log: Final = Log()
os.register_at_fork(after_in_child=log._forget)
