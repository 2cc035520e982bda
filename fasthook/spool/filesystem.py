"""What kind of filesystem a spool is on: some can't keep what it promises."""

from pathlib import Path
from typing import Final

from fasthook.errors import ConfigError
from fasthook.logs import log

#: Their locks and shared memory are not those of one machine (sqlite.org/wal.html).
NETWORK: Final = ("nfs", "cifs", "smb", "afs", "9p", "ceph", "gluster", "fuse.sshfs", "fuse.nfs")
MEMORY: Final = ("tmpfs", "ramfs")
MOUNTS: Final = Path("/proc/self/mountinfo")


def check_filesystem(path: Path, mounts: str | None = None) -> None:
    """Raise `ConfigError` for a directory on a network, and warn of one in memory.

    `mounts`: as proc(5) has it in mountinfo; without it, that of this process.
    """
    kind = kind_of(path.resolve(), MOUNTS.read_text() if mounts is None else mounts)
    if kind.startswith(NETWORK):
        raise ConfigError(f"it is on {kind}; a spool needs a disk of this machine")
    if kind in MEMORY:
        log.warning("spool in memory", path=str(path), filesystem=kind)


def kind_of(path: Path, mounts: str) -> str:
    """The type of the filesystem that holds an absolute path; empty if none is known to."""
    found, kind = "", ""
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        point = fields.split()[4].encode().decode("unicode_escape")
        # Of several at one place the last one counts, for it covers the others.
        if path.is_relative_to(point) and len(point) >= len(found):
            found, kind = point, rest.split()[0]
    return kind
