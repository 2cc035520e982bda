"""Folders and small files of the service alone, in the spool's directory."""

import contextlib
import os
from pathlib import Path
from typing import Final

_PART: Final = ".part"


def make_folder(folder: Path) -> None:
    """Make a folder of the service alone, durably, and those above it. Raises `OSError`."""
    if not folder.parent.exists():
        make_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def put(path: Path, data: bytes, *, syncs: bool) -> None:
    """Have `data` in a file: all of it, or what was there before. Raises `OSError`.

    `syncs`: whether it is on disk when this returns; else a loss of power may take it. One writer
    a folder at a time: what is being written has the same name for all.
    """
    part = path.with_name(_PART)
    part.unlink(missing_ok=True)  # what a process that died has left
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(part, flags, 0o600), "wb") as file:
            file.write(data)
            if syncs:
                file.flush()
                os.fsync(file.fileno())
        os.rename(part, path)
        if syncs:
            sync_folder(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
