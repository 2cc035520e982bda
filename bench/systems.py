"""What a system is that can be measured, and one that runs."""

import contextlib
import random
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from bench.servers import NotThere, cpu_s, peak_bytes, rss_bytes
from bench.workload import Work


class Counts(NamedTuple):
    """What a server says of itself since its start. None: it has no such number.

    `refused`: as not genuine; `shed`: since there was no room; `failed`: answered with another
    status of 400 or more; `dropped`: lines that its log had no room for.
    """

    accepted: int
    refused: int
    stored: int | None = None
    handled: int | None = None
    failed: int = 0
    shed: int = 0
    dropped: int = 0


class Place(NamedTuple):
    """Where a system is to run, and what it will get: requests of so many bytes."""

    folder: Path
    port: int
    work: Work
    request_bytes: int
    connections: int = 1000  # at most


@dataclass
class Server:
    """A system that runs, with all processes that belong to it."""

    url: str
    processes: list[subprocess.Popen[bytes]]
    ask: Callable[[str], Counts]  # at its address
    #: Ended with it.
    others: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])

    def counts(self) -> Counts:
        """What it says of itself."""
        return self.ask(self.url)

    def cpu_s(self) -> float:
        """CPU of all of them so far."""
        return sum(cpu_s(each.pid) for each in self.processes)

    def rss_bytes(self) -> int:
        """Memory of all of them now."""
        return sum(rss_bytes(each.pid) for each in self.processes)

    def peak_bytes(self) -> int:
        """The most that one of them has taken."""
        return max(peak_bytes(each.pid) for each in self.processes)

    def stop(self) -> None:
        """End them, the front first."""
        for each in reversed(self.processes):
            each.terminate()
            try:
                each.wait(20)
            except subprocess.TimeoutExpired:
                each.kill()
                each.wait()
        self.others.close()


class System(NamedTuple):
    """One that can be measured.

    `lacks` says how to install what is missing, or "". `verifies`: refuses what is forged;
    `handles`: its rate is that of events whose handler is done.
    """

    name: str
    says: str
    start: Callable[[Place], Server]
    lacks: Callable[[], str] = lambda: ""
    verifies: bool = True
    handles: bool = False


def free_port() -> int:
    """A port that is free, as the next one is."""
    while True:
        # Below those that Linux gives to clients: one of them may take it before the server does.
        port = random.randrange(20_000, 32_000)
        with (
            contextlib.suppress(OSError),
            socket.create_server(("127.0.0.1", port)),
            socket.create_server(("127.0.0.1", port + 1)),
        ):
            return port


def is_open(port: int, *processes: subprocess.Popen[bytes]) -> bool:
    """Whether something takes connections there. Raises `NotThere` if one of these has ended."""
    if any(each.poll() is not None for each in processes):
        raise NotThere("it has ended")
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    return False


def _last_words(home: Path) -> str:
    lines = [line for path in home.glob("*log") for line in path.read_text().splitlines()[-3:]]
    return " / ".join(lines) or "nothing"


def wait_for(is_there: Callable[[], bool], what: str, seconds: float = 20) -> None:
    """Return when it is. Raises `NotThere` if it is not in time."""
    ends = time.monotonic() + seconds
    while not is_there():
        if time.monotonic() > ends:
            raise NotThere(f"not there after {seconds:g} s: {what}")
        time.sleep(0.02)


@contextlib.contextmanager
def running(
    system: System, folder: Path, work: Work, request_bytes: int = 0, connections: int = 1000
) -> Iterator[Server]:
    """The system, open for connections, in a folder of its own that goes with it."""
    home = folder / re.sub(r"\W+", "-", system.name)
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    server = system.start(Place(home, free_port(), work, request_bytes, connections))
    try:
        try:
            wait_for(lambda: is_open(server.port, *server.processes), "its port")
        except NotThere as error:
            raise NotThere(f"{system.name}: {error}; it said: {_last_words(home)}") from None
        yield server
    finally:
        server.stop()
        shutil.rmtree(home, ignore_errors=True)
