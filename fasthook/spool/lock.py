"""One service a directory: whoever holds its lock may write there."""

import fcntl
import os
from pathlib import Path

from fasthook.errors import ConfigError


class InUse(ConfigError):
    """Another process holds the directory; `pid`: which one, 0 if it does not say."""

    def __init__(self, path: Path, pid: int) -> None:
        super().__init__(f"{path} is in use by another fasthook (process {pid or 'unknown'})")
        self.pid = pid


def lock(path: Path) -> int:
    """The descriptor that holds the directory for us, until it is closed or we die.

    Raises `InUse` where somebody else has it, and `OSError`.
    """
    fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(fd, 32, 0).strip()
        os.close(fd)
        raise InUse(path, int(owner) if owner.isdigit() else 0) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, b"%d\n" % os.getpid(), 0)
    return fd
