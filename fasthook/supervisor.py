"""The parent: it holds the sockets and the spool's lock, and has workers do the rest.

A worker that dies is replaced. SIGHUP loads the configuration and replaces the workers one by one:
a new one serves before an old one is dismissed, and if the first of them does not come up, all
stays as it was. SIGTERM and Ctrl-C drain; a second signal ends everything at once.
The parent runs no handler, reads no request, and has no threads, so that it can fork.
"""

import os
import selectors
import signal
import socket
import time
from pathlib import Path
from typing import Final

from fasthook import __version__, config, control
from fasthook.config import Config, spool_of
from fasthook.errors import ConfigError, FasthookError
from fasthook.logs import log
from fasthook.notify import Notifier
from fasthook.plan import workers_of
from fasthook.spool.files import make_folder
from fasthook.spool.filesystem import check_filesystem
from fasthook.spool.lock import lock
from fasthook.spool.spool import Place
from fasthook.wire.sockets import Sockets, address_of, open_sockets
from fasthook.worker import LINGER_S, MAX_WORD_BYTES, Child, Task, fork

#: After a worker has died, and then twice as long each time, until one lives for long enough.
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 10.0
_LONG_ENOUGH_S: Final = 10.0
_TICK_S: Final = 1.0
#: What systemd is asked for each time while a start or a drain goes on.
_PATIENCE_S: Final = 30.0
#: Workers that accept until the end wait for so long until others have gone, which do not.
_OTHERS_S: Final = 8.0
#: What can't be changed while the parent runs.
_FIXED: Final = (
    "server.listen",
    "server.socket_mode",
    "server.socket_group",
    "admin.listen",
    "spool.path",
    "spool.durability",
)


class Supervisor:
    """Runs a service until it is told to stop."""

    def __init__(self, path: Path) -> None:
        """`path`: of the configuration. Raises `ConfigError`."""
        self._path = path
        self._config = config.load(path)
        _configure_log(self._config)
        self._former: Config | None = None  # while the first worker of a new one comes up
        self._generation = 0
        self._children: list[Child] = []
        self._is_stopping = self._was_ready = False
        self._last_word = ""  # what workers are told at the end
        self._dismiss_all_at = 0.0
        self._is_reload_wanted = self._is_reloading = False
        self._signals = 0
        self._stop_ends = 0.0  # monotonic; by when a drain is over
        self._failures = 0
        self._start_at = 0.0
        self._notifier = Notifier()
        self._lock = -1
        self._selector = selectors.DefaultSelector()

    def run(self) -> int:
        """Serve; the exit code. Raises `ConfigError` where it can't be started."""
        log.info("starting", version=__version__, config=str(self._path), pid=os.getpid())
        self._take_spool()
        self._sockets = _open_all(self._config)
        self._wakes, wake = socket.socketpair()
        for end in (self._wakes, wake):
            end.setblocking(False)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, self._on_signal)
        self._selector.register(self._wakes, selectors.EVENT_READ)
        try:
            while not (self._is_stopping and not self._children):
                self._go_on()
                self._wait()
        finally:
            self._sockets.remove()
        return 0

    def _take_spool(self) -> None:
        if self._config.spool.durability == "none":
            return
        path = spool_of(self._config)
        try:
            make_folder(path)
            check_filesystem(path)
            self._lock = lock(path)
            control.remove_sockets(path)
        except (OSError, FasthookError) as error:
            raise ConfigError(f"{self._config.source}: spool.path: {path}: {error}") from None

    # --- what happens -----------------------------------------------------------------------------

    def _on_signal(self, number: int, frame: object) -> None:
        if number == signal.SIGHUP:
            self._is_reload_wanted = True
        elif number != signal.SIGCHLD:
            self._signals += 1
            if self._signals > 1:
                log.error("killed", reason="second signal while draining")
                for child in self._children:
                    os.kill(child.pid, signal.SIGKILL)
                os._exit(1)
            # Who connects to a socket of systemd while nobody accepts waits for the next service.
            word = "last" if "systemd" in self._config.server.listen else "drain"
            self._stop("stop" if number == signal.SIGINT else word)

    def _stop(self, word: str) -> None:
        self._is_stopping = True
        self._notifier.stopping()
        self._last_word = word
        self._dismiss_all_at = time.monotonic() + (_OTHERS_S if word == "last" else 0.0)
        self._stop_ends = self._dismiss_all_at + LINGER_S + self._config.server.drain_timeout

    def _dismiss_all(self) -> None:
        """Those who accept until their end have it last, so that somebody does."""
        is_early = time.monotonic() < self._dismiss_all_at
        if is_early and any(child.is_dismissed for child in self._children):
            return
        for child in self._children:
            if not child.is_dismissed:
                child.is_dismissed = True
                child.tell(self._last_word)
        self._dismiss_all_at = 0.0

    def _wait(self) -> None:
        pause_s = _TICK_S
        if self._start_at > 0:
            pause_s = min(pause_s, max(0.0, self._start_at - time.monotonic()))
        if self._notifier.watchdog_s:
            pause_s = min(pause_s, self._notifier.watchdog_s / 4)
        for key, _ in self._selector.select(pause_s):
            if key.data is None:
                self._wakes.recv(4096)
            else:
                self._hear(key.data)
        self._bury()
        self._watch()

    def _hear(self, child: Child) -> None:
        try:
            text = child.words.recv(MAX_WORD_BYTES).decode("utf-8", "replace")
        except OSError:
            text = ""
        word, _, rest = text.partition(" ")
        child.heard_at = time.monotonic()
        if word == "ready":
            child.is_ready = True
        elif word == "failed":
            child.failure = rest
        elif word == "shared":
            child.is_shared = True
        elif word == "unwatched":
            child.is_watching = False
        elif word == "secrets":
            for other in self._children:
                if other is not child:
                    other.tell("secrets")
        elif not word:
            self._selector.unregister(child.words)  # it has closed its end: it is about to end

    def _bury(self) -> None:
        """Take note of workers that have ended."""
        for child in list(self._children):
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if not pid:
                continue
            while child.words in self._selector.get_map():
                self._hear(child)  # its last words
            self._children.remove(child)
            child.words.close()
            if not child.is_dismissed and not self._is_stopping:
                self._lost(child, os.waitstatus_to_exitcode(status))

    def _lost(self, child: Child, code: int) -> None:
        """A worker has died, or has not come up."""
        reason = child.failure or (f"signal {-code}" if code < 0 else f"exit code {code}")
        if not child.is_ready and not self._was_ready:
            if child.failure:
                raise ConfigError(child.failure)
            raise ConfigError(f"{self._path}: the first worker died while it started: {reason}")
        if not child.is_ready and self._former is not None:
            self._keep_former(reason)
            return
        lived_s = time.monotonic() - child.since
        self._failures = 0 if lived_s > _LONG_ENOUGH_S else self._failures + 1
        pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**self._failures)
        self._start_at = time.monotonic() + pause_s
        log.error("worker lost", pid=child.pid, reason=reason, next_in_s=pause_s)

    def _watch(self) -> None:
        now = time.monotonic()
        if not self._was_ready or now < self._stop_ends:
            # A start may have an index to make again, and a drain may have handlers to wait for.
            self._notifier.patience(_PATIENCE_S)
        fresh = [child for child in self._children if child.look(now)]
        # It may have a lock on the index that others wait for. If all stand still, systemd sees.
        if any(child.is_ready and not child.is_stalled for child in self._children):
            for child in filter(Child.is_stopped, fresh):
                os.kill(child.pid, signal.SIGKILL)
        if self._notifier.watchdog_s and not any(child.is_stalled for child in self._children):
            self._notifier.alive()

    # --- what is to be done -----------------------------------------------------------------------

    def _go_on(self) -> None:
        """Come nearer to as many workers as there are to be, all of them of this generation."""
        if self._is_stopping:
            self._dismiss_all()
            return
        count = workers_of(self._config)
        current = [c for c in self._children if c.generation == self._generation]
        ready = [c for c in current if c.is_ready]
        if self._former is not None and ready:
            self._former = None  # it has come up: there is no way back
        old = [c for c in self._children if c not in current and not c.is_dismissed]
        for child in old[: max(0, len(old) + len(ready) - count)]:
            child.is_dismissed = True
            if child.is_watching:
                child.tell("unwatch")
            child.tell("drain")
        self._have_watched()
        # One at a time: the first one finds out whether it can be done.
        if len(current) < count and len(current) == len(ready):
            self._start_next(count)
        if count == 1 and len(self._children) == 1 and ready and ready[0].is_shared:
            ready[0].is_shared = ready[0].was_asked_to_share = False
            ready[0].tell("alone")
        if len(ready) == count:
            self._settle()

    def _have_watched(self) -> None:
        """Have one of the workers watch for unusual activity, unless one does."""
        able = [c for c in self._children if c.is_ready and not c.is_dismissed]
        if able and not any(c.is_watching for c in self._children):
            chosen = max(able, key=lambda c: c.generation)  # of these the oldest
            chosen.is_watching = True
            chosen.tell("watch")

    def _start_next(self, count: int) -> None:
        if time.monotonic() < self._start_at:
            return
        self._start_at = 0.0
        for child in self._children:
            if not child.is_shared and not child.was_asked_to_share:
                child.was_asked_to_share = True
                child.tell("share")
        if all(child.is_shared for child in self._children):
            self._start(count)

    def _start(self, count: int) -> None:
        is_first = not self._children
        is_spokesman = not any(c.generation == self._generation for c in self._children)
        task = Task(self._config, self._sockets, Place(is_first, count), is_spokesman)
        child = fork(task, self._generation, self._leave)
        child.is_shared = not is_first or count > 1
        self._children.append(child)
        self._selector.register(child.words, selectors.EVENT_READ, child)

    def _leave(self) -> None:
        """In a new worker: close what is the parent's alone."""
        self._selector.close()
        for end in (self._wakes, *(child.words for child in self._children)):
            end.close()
        if self._lock >= 0:
            os.close(self._lock)

    def _settle(self) -> None:
        """All are there that are to be."""
        if not self._was_ready:
            self._was_ready = True
            log.info(
                "listening",
                addresses=" ".join(map(address_of, self._sockets.public)),
                admin=" ".join(map(address_of, self._sockets.admin)),
            )
            self._notifier.ready("serving")
        elif self._is_reloading:
            log.info("reloaded", config=str(self._path), generation=self._generation)
            self._notifier.ready("serving, reloaded")
        self._is_reloading = False
        if self._is_reload_wanted:
            self._is_reload_wanted = False
            self._reload()

    def _reload(self) -> None:
        """Load the configuration; it is in force once the first worker has come up with it."""
        self._notifier.reloading()
        try:
            new = config.load(self._path)
            _check_fixed(self._config, new)
        except ConfigError as error:
            self._say_not_reloaded(str(error))
            return
        self._former, self._config = self._config, new
        _configure_log(new)
        self._generation += 1
        self._is_reloading = True
        self._go_on()

    def _keep_former(self, reason: str) -> None:
        assert self._former is not None  # noqa: S101 - or this is not called
        self._config, self._former = self._former, None
        _configure_log(self._config)
        self._generation -= 1
        self._is_reloading = False
        self._say_not_reloaded(reason)

    def _say_not_reloaded(self, reason: str) -> None:
        log.error("not reloaded", reason=reason, cure="all stays as it was")
        self._notifier.ready("serving; the last reload failed")


def _configure_log(settings: Config) -> None:
    log.configure(settings.log.format, settings.log.level, settings.log.journal_socket)


def _open_all(settings: Config) -> Sockets:
    """All listening sockets. Raises `ConfigError` where an address can't be had."""
    server, sockets = settings.server, Sockets([], [], [])
    key = "server.listen"
    try:
        for address in server.listen:
            mode, group = int(server.socket_mode, 8), server.socket_group
            sockets.public.extend(open_sockets(address, mode=mode, group=group))
        key = "admin.listen"
        if settings.admin.listen:
            sockets.admin.extend(open_sockets(settings.admin.listen, is_admin=True))
    except ConfigError as error:
        sockets.close()
        raise ConfigError(f"{settings.source}: {key}: {error}") from None
    addresses = [*server.listen, settings.admin.listen]
    paths = [a.removeprefix("unix:") for a in addresses if a.startswith("unix:")]
    return sockets._replace(paths=paths)


def _check_fixed(old: Config, new: Config) -> None:
    """Raises `ConfigError` for a change that takes a restart."""
    for key in _FIXED:
        table, name = key.split(".")
        if getattr(getattr(old, table), name) != getattr(getattr(new, table), name):
            raise ConfigError(f"{new.source}: {key}: a change of it needs a restart")
