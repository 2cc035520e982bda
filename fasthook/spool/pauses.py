"""What is paused: an empty file for each endpoint and handler, in a folder of the spool.

Whoever pauses makes the file, whether a service runs or not; each worker looks by itself. A file is
there or not, so nothing of this can be half written; its time is since when.
"""

import contextlib
import os
from pathlib import Path
from typing import Final, Literal, NamedTuple

from fasthook.spool.files import make_folder, sync_folder

FOLDER: Final = "paused"
What = Literal["endpoint", "handler"]


class Pauses(NamedTuple):
    """By name: since when, in ns of the wall clock."""

    endpoints: dict[str, int]
    handlers: dict[str, int]


NOTHING: Final = Pauses({}, {})


def read(path: Path) -> Pauses:
    """What is paused in the spool at `path`. Raises `OSError`."""
    found = Pauses({}, {})
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(path / FOLDER):
            what, _, name = entry.name.partition(".")
            since = {"endpoint": found.endpoints, "handler": found.handlers}.get(what)
            if since is not None:
                with contextlib.suppress(FileNotFoundError):  # resumed just now
                    since[name] = entry.stat().st_mtime_ns
    return found


def stamp(path: Path) -> int:
    """Another number as soon as something was paused or resumed. Raises `OSError`."""
    try:
        return (path / FOLDER).stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def pause(path: Path, what: What, name: str) -> bool:
    """Pause, durably; false if it was paused already. Raises `OSError`."""
    folder = path / FOLDER
    make_folder(folder)
    owner = path.stat()
    try:
        fd = os.open(folder / f"{what}.{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    try:
        for made in (folder, fd):
            os.chown(made, owner.st_uid, owner.st_gid)  # where root pauses for the service
        os.fsync(fd)
    finally:
        os.close(fd)
    sync_folder(folder)
    return True


def resume(path: Path, what: What, name: str) -> bool:
    """Go on, durably; false if it was not paused. Raises `OSError`."""
    try:
        (path / FOLDER / f"{what}.{name}").unlink()
    except FileNotFoundError:
        return False
    sync_folder(path / FOLDER)
    return True
