"""`python -m tests.system.clocked CLOCK …`: fasthook's commands with a wall clock that tests set.

CLOCK is a file of 8 bytes, the time in nanoseconds since 1970; 0: the true time. What the service
does is not changed otherwise: it asks the same module for the time, and monotonic time is true.
"""

import mmap
import struct
import sys
import time
from pathlib import Path

_NS = struct.Struct("<Q")


class Clock:
    """The other end: sets the time of a service that runs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(_NS.pack(0))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _NS.size)

    def set(self, now_s: float) -> None:
        """From now on it is `now_s`, and stays so."""
        _NS.pack_into(self._memory, 0, int(now_s * 1e9))


def main() -> None:
    with open(sys.argv.pop(1), "rb") as file:
        memory = mmap.mmap(file.fileno(), _NS.size, access=mmap.ACCESS_READ)
    true_ns = time.time_ns

    def time_ns() -> int:
        return _NS.unpack_from(memory)[0] or true_ns()

    time.time_ns = time_ns
    time.time = lambda: time_ns() / 1e9
    from fasthook.cli import main as fasthook

    fasthook()


if __name__ == "__main__":
    main()
