"""Waiting for an event, in a handler or in any program that may read the spool.

What is waited for is looked for in the spool's index and journal: so it does not matter who takes
the event, whether the service runs at the moment, or whether the event came before somebody began
to wait. Nothing is written, and no lock is held; any number of programs may wait at once.

Each look goes on where the last one ended, so nothing comes between two of them. Between looks the
index is asked whether anybody has written to it, which costs some microseconds.
"""

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from fasthook import config as configuration
from fasthook.conditions import BadExpression, NoBoolean
from fasthook.config import spool_of
from fasthook.errors import ConfigError
from fasthook.model import Delivery, Event
from fasthook.spool.changes import State
from fasthook.spool.found import Filter, Found, Kept
from fasthook.spool.queries import Reader, Unreadable
from fasthook.spool.records import ERASED
from fasthook.stored import Where, is_genuine, payload_of
from fasthook.values import Duration

#: Whether there is something new is asked this often; the index itself lags by up to 0.25 s.
_LOOK_S: Final = 0.1
#: A look that finds much to read lets others have its thread after so many events.
_STRETCH: Final = 200
_NO_BODY: Final = (State.DAMAGED, State.FORGOTTEN)


class _Wanted(NamedTuple):
    """What is waited for."""

    filter: Filter
    where: Where
    words: str

    def is_it(self, found: Found, kept: Kept) -> bool:
        """Whether it is this one. Raises `ConfigError`."""
        try:
            return is_genuine(kept.accepted) and self.where(found, kept)
        except OverflowError:
            return False
        except NoBoolean as error:
            raise ConfigError(f"expect: where: {error}") from None


async def expect(
    endpoint: str,
    where: str = "",
    *,
    type: str = "",
    timeout: float | str = "5m",  # noqa: ASYNC109 - it says what was waited for
    since: "datetime | Event[Any] | str | None" = None,
    config: str | Path | None = None,
) -> Event[Any]:
    """The first event of `endpoint` for which `where` is true; waits for it.

    `where`: an expression in the language of `fasthook forget --where` (CEL), such as
    'payload.data.object.id == "pi_123"'; `type`: the event type. `timeout`: seconds, or a text such
    as "10m"; 0: look once, and do not wait. `since`: events that were received then or later count,
    too: a time, an event (when it was received), or how long ago, such as "1h"; by default now.
    `config`: the configuration; by default that of the service in a handler, else FASTHOOK_CONFIG
    or fasthook.toml. Events that nobody verified do not count, unless the endpoint verifies none.

    Raises `TimeoutError`, which says what was waited for; `ConfigError` where the endpoint is not
    known, the expression is wrong, or the spool can't be read.
    """
    began_ns = time.time_ns()
    timeout_s = _seconds("timeout", timeout)
    since_ns = _moment(since, began_ns)
    path = Path(config or os.environ.get("FASTHOOK_CONFIG") or "fasthook.toml")
    search = await asyncio.to_thread(_search, path, endpoint, where, type, since_ns)
    ends = time.monotonic() + timeout_s
    try:
        while True:
            found = await search.look()
            if found is not None:
                return found
            left_s = ends - time.monotonic()
            if left_s <= 0:
                raise TimeoutError(_late(search, timeout_s, (began_ns - since_ns) / 1e9))
            await search.news(left_s)
    finally:
        search.close()


def _late(search: "_Search", timeout_s: float, before_s: float) -> str:
    began = f", and {before_s:.0f} s before that" if before_s >= 1 else ""
    return (
        f"no {search.wanted.words} came within {timeout_s:g} s{began}; "
        f"{search.count} other events were looked at{search.trouble}"
    )


def _seconds(name: str, value: float | str) -> float:
    """Raises `ConfigError`."""
    try:
        seconds = float(Duration.parse(value) if isinstance(value, str) else value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name}={value!r}: {error}") from None
    if not 0 <= seconds < float("inf"):
        raise ConfigError(f"{name}={value!r}; expected 0 or more seconds")
    return seconds


def _moment(since: Any, now_ns: int) -> int:
    """When it was, in ns. Raises `ConfigError`."""
    if since is None:
        return now_ns
    if isinstance(since, Event):
        return since._delivery.received_at_ns
    if isinstance(since, datetime):
        return int(since.timestamp() * 1e9)
    if isinstance(since, str):
        return now_ns - int(_seconds("since", since) * 1e9)
    raise ConfigError(f'since={since!r}; expected a datetime, an event, or a text such as "1h"')


def _search(path: Path, endpoint: str, where: str, type_: str, since_ns: int) -> "_Search":
    """Raises `ConfigError`."""
    # Whoever waits need not have the service's secrets.
    settings = configuration.load(path, has_secrets=False)
    known = [one.name for one in settings.endpoint]
    if endpoint not in known:
        raise ConfigError(f"expect: no endpoint {endpoint!r}; {path} has: {', '.join(known)}")
    if settings.spool.durability == "none":
        raise ConfigError(f'expect: {path}: spool.durability is "none": nothing is kept')
    words = f"event of {endpoint}" + (f" of type {type_!r}" if type_ else "")
    words += f" with {where}" if where else ""
    try:
        is_true = Where(where or "true", settings)
    except BadExpression as error:
        raise ConfigError(f"expect: where: {error}") from None
    wanted = Filter(endpoint=endpoint, event_type=type_, since_ns=since_ns)
    return _Search(spool_of(settings), _Wanted(wanted, is_true, words))


class _Search:
    """Goes through the events that come; looks are made in a thread, one at a time."""

    def __init__(self, path: Path, wanted: _Wanted) -> None:
        """Raises `ConfigError` where there is no spool."""
        self.wanted = wanted
        self.count = 0
        self.trouble = ""  # why the last look has found nothing
        self._path = path
        self._reader = Reader(path)
        self._file = _identity(path)
        self._version = -1  # of the index; read before each look, so that nothing comes between
        self._ends: dict[int, int] | None = None  # the last positions looked at, by worker
        self._source: Iterator[Found] = iter(())
        self._next_ends: dict[int, int] = {}
        self._is_looking = False
        self._lock = threading.Lock()  # a look goes on for a moment where the wait was cancelled
        self._is_closed = False

    def close(self) -> None:
        """Let go of the index, at once or when the look under way is over."""
        self._is_closed = True
        if self._lock.acquire(blocking=False):
            self._reader.close()
            self._lock.release()

    async def look(self) -> Event[Any] | None:
        """Look at all that is there and was not looked at."""
        while True:
            found, is_all = await asyncio.to_thread(self._look)
            if found is not None or is_all:
                return found

    def _look(self) -> tuple[Event[Any] | None, bool]:
        """At some of it: the event, if it is among them, and whether that was all."""
        with self._lock:
            try:
                return (None, True) if self._is_closed else self._look_on()
            except Unreadable as error:
                if not self._path.exists():
                    raise
                self.trouble = f"; {error}"
                self._is_looking, self._version = False, -1  # a service is making the index again
                return None, True
            finally:
                if self._is_closed:
                    self._reader.close()

    def _look_on(self) -> tuple[Event[Any] | None, bool]:
        reader, self.trouble = self._reader, ""
        if not self._is_looking:
            self._version = reader.version()
            if self._ends is None:
                self._ends = reader.ends_at(self.wanted.filter.since_ns)
            self._next_ends = reader.ends()
            self._source = reader.oldest_first(self.wanted.filter, self._ends)
            self._is_looking = True
        for _ in range(_STRETCH):
            found = next(self._source, None)
            if found is None:
                self._ends = (self._ends or {}) | self._next_ends
                self._is_looking = False
                return None, True
            self.count += 1
            event = self._event(found)
            if event is not None:
                return event, True
        return None, False

    def _event(self, found: Found) -> Event[Any] | None:
        """The event, if it is the one."""
        kept = None if found.state in _NO_BODY else self._reader.kept(found.position)
        if kept is None or kept.kind == ERASED or not self.wanted.is_it(found, kept):
            return None
        accepted = kept.accepted
        delivery = Delivery(
            accepted.endpoint,
            accepted.provider,
            accepted.event_id,
            accepted.event_type,
            kept.head,
            kept.body,
            accepted.received_at_ns,
            accepted.client,
            accepted.secret_index,
            position=found.position,
            key=accepted.key,
        )
        return Event(delivery, payload_of(kept), 0)

    async def news(self, within_s: float) -> None:
        """Return when something new is there, or the time is over."""
        ends = time.monotonic() + within_s
        while (left_s := ends - time.monotonic()) > 0:
            await asyncio.sleep(min(_LOOK_S, left_s))
            if self._has_news():
                return

    def _has_news(self) -> bool:
        try:
            file = _identity(self._path)
            if file != self._file:
                # Another index in its place, made again from the journal: positions stay.
                reader = Reader(self._path)
                self._reader.close()
                self._reader, self._file = reader, file
                return True
            return self._reader.version() != self._version
        except ConfigError:
            if not self._path.exists():
                raise
            return False  # a service that starts is making the index


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file the index is."""
    try:
        status = (path / "index.db").stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
