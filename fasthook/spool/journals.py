"""The journals of a spool: one for each worker that ever ran, and who has which.

Each has a lock of its own. A worker adds to its own journal alone; those that others left behind
are taken over by whoever runs: what became of an event is written where the event is. All of it
waits for the disk: call it in a thread of the spool, or before it starts.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from fasthook.errors import FasthookError
from fasthook.spool.files import make_folder, sync_folder
from fasthook.spool.journal import (
    MAX_WORKER,
    SEGMENT_BYTES,
    Journal,
    segment_numbers,
    segment_path,
    worker_of,
)
from fasthook.spool.records import Record

FOLDER: Final = "journal"
_LOCK: Final = "lock"
#: For workers of a service that was killed: they end with it, but not in the same moment.
_PATIENCE_S: Final = 5.0
_AGAIN_S: Final = 0.01


class NoJournal(FasthookError):
    """A journal can't be had."""


class Journals:
    """Those that a worker holds. `held` is read by all threads, and changed by one."""

    def __init__(
        self, path: Path, *, syncs: bool = True, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        """`path`: the spool's directory. For the rest see `Journal`. Raises `OSError`."""
        self._folder = path / FOLDER
        self._syncs = syncs
        self._segment_bytes = segment_bytes
        make_folder(self._folder)
        self.held: dict[int, Journal] = {}
        self._locks: dict[int, int] = {}
        self._rest_bytes = 0
        self.own: Journal  # see `begin`

    def numbers(self) -> list[int]:
        """Of all journals, whoever has them."""
        return sorted(int(f.name) for f in self._folder.iterdir() if f.name.isdecimal())

    def end_of(self, number: int) -> tuple[int, int]:
        """The last segment of a journal, and how many bytes it has; 0 and 0: there is none."""
        folder = self._folder / str(number)
        segments = segment_numbers(folder)
        if not segments:
            return 0, 0
        try:
            return segments[-1], segment_path(folder, segments[-1]).stat().st_size
        except FileNotFoundError:  # dropped just now
            return 0, 0

    def is_free(self, number: int) -> bool:
        """Whether no other worker has a journal."""
        if number in self.held:
            return True
        fd = self._lock(number)
        if fd is not None:
            os.close(fd)
        return fd is not None

    def hold(self, number: int) -> Journal | None:
        """Take a journal over, or make it; None: another worker has it. Raises `OSError`."""
        fd = self._lock(number)
        if fd is None:
            return None
        try:
            journal = self._opened(number)
        except BaseException:
            os.close(fd)
            raise
        self._locks[number], self.held[number] = fd, journal
        return journal

    def _opened(self, number: int) -> Journal:
        return Journal(
            self._folder / str(number),
            number,
            syncs=self._syncs,
            segment_bytes=self._segment_bytes,
        )

    def _lock(self, number: int) -> int | None:
        path = self._folder / str(number) / _LOCK
        while True:
            if not path.parent.exists():
                make_folder(path.parent)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(fd), path.stat()):
                    return fd
            except FileNotFoundError:
                pass
            except BlockingIOError:
                os.close(fd)
                return None
            os.close(fd)  # whoever had it has removed it: `remove`

    def release(self, number: int) -> None:
        """Let others have a journal."""
        self.held.pop(number).close()
        os.close(self._locks.pop(number))

    def remove(self, number: int) -> None:
        """Delete a journal that is held, and has no segments. Raises `OSError`."""
        folder = self._folder / str(number)
        self.held.pop(number).close()
        try:
            (folder / _LOCK).unlink()
            folder.rmdir()
            sync_folder(self._folder)
        finally:
            os.close(self._locks.pop(number))

    def begin(self, *, is_last: bool) -> Journal:
        """Choose the own journal among those that are free, or begin one.

        `is_last`: with the highest number of all, since positions follow the order of receipt.

        Raises `OSError`, and `NoJournal`.
        """
        for number in self._candidates(is_last=is_last):
            own = self.held.get(number) or self.hold(number)
            if own is not None:
                self.own = own
                return own
        raise NoJournal(
            f"there are no journals beyond {MAX_WORKER}; a restart begins with the first"
        )

    def _candidates(self, *, is_last: bool) -> Iterable[int]:
        numbers = self.numbers()
        last = numbers[-1] if numbers else 0
        yield last
        if not is_last:
            yield from reversed(numbers[:-1])
        yield from range(last + 1, MAX_WORKER + 1)

    def begin_with(self, number: int) -> Journal:
        """Have a journal that is held for the own one."""
        self.own = self.held[number]
        return self.own

    def take_all(self) -> None:
        """Hold all of them. Waits for workers that are about to end.

        Raises `OSError`, and `NoJournal` where one does not.
        """
        ends = time.monotonic() + _PATIENCE_S
        for number in self.numbers():
            while self.hold(number) is None:
                if time.monotonic() > ends:
                    raise NoJournal(f"journal {number} is held by a process that does not end")
                time.sleep(_AGAIN_S)

    def of(self, position: int) -> Journal | None:
        """The journal that holds a position; None: it is another worker's."""
        return self.held.get(worker_of(position))

    def read(self, position: int) -> Record | None:
        """See `Journal.read`."""
        journal = self.of(position)
        return None if journal is None else journal.read(position)

    @property
    def size_bytes(self) -> int:
        """How many bytes all journals have; those of others, when they were measured last."""
        return sum([journal.size_bytes for journal in list(self.held.values())]) + self._rest_bytes

    def measure(self) -> None:
        """Look how many bytes the journals have that others hold, or nobody."""
        total = 0
        for number in self.numbers():
            if number not in self.held:
                folder = self._folder / str(number)
                with contextlib.suppress(FileNotFoundError):
                    total += sum(entry.stat().st_size for entry in os.scandir(folder))
        self._rest_bytes = total

    def close(self) -> None:
        """Let others have all of them."""
        for number in list(self.held):
            self.release(number)
