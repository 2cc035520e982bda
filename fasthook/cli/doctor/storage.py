"""The spool: whose it is, whether there is room, how fast it syncs, who has it, what it says.

It is not disturbed: nothing is written but an unnamed file of some KiB, and the lock is not asked
for.
"""

import errno
import os
import stat
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fasthook.cli.doctor.case import Case
from fasthook.cli.doctor.files import user
from fasthook.cli.doctor.findings import Finding, bad, good, guarded, unseen, warning
from fasthook.cli.spool import size
from fasthook.errors import ConfigError
from fasthook.spool.changes import State
from fasthook.spool.filesystem import MEMORY, MOUNTS, NETWORK, kind_of
from fasthook.spool.journal import SEGMENT_BYTES
from fasthook.spool.queries import Reader
from fasthook.spool.records import SEGMENT_HEADER_BYTES, WrongVersion, read_segment_header
from fasthook.spool.survey import Survey, segments, survey

_SUBJECT: Final = "spool"
_MAX_ENTRIES: Final = 20_000
_MIN_FILES: Final = 1000  # inodes
#: A probe ends after so many syncs, or so much time.
_SYNCS: Final = 20
_PROBE_S: Final = 1.0
_PATIENCE_S: Final = 5.0
_BLOCK: Final = bytes(4096)
#: Up to here nobody notices; beyond the other one, the spool gives up on the disk.
_FAST_S: Final = 0.02
_HANGS_S: Final = 1.0
_OLD_S: Final = 3600


def look(case: Case) -> Iterator[Finding]:
    """Look at the spool of a configuration."""
    if case.settings.spool.durability == "none":
        cure = 'durability = "fsync" keeps what was accepted'
        yield warning(_SUBJECT, "nothing is kept, since durability is none", cure)
        return
    path = case.spool.absolute()
    folder = _nearest(path)
    yield from guarded(_SUBJECT, lambda: _filesystem(folder))
    yield from guarded(_SUBJECT, lambda: _space(case, folder))
    if folder != path:
        yield warning(_SUBJECT, f"{path}: it is not there yet", "start the service: it makes it")
        return
    yield from guarded(_SUBJECT, lambda: _modes(path))
    if case.settings.spool.durability == "fsync":
        yield from guarded(_SUBJECT, lambda: _speed(path))
    yield from guarded(_SUBJECT, lambda: _holder(case))
    yield from guarded(_SUBJECT, lambda: _versions(path))
    yield from guarded(_SUBJECT, lambda: _contents(path))


def _nearest(path: Path) -> Path:
    """It, or the first of its parents that is there."""
    return next(each for each in (path, *path.parents) if each.is_dir())


def _filesystem(folder: Path) -> Iterator[Finding]:
    kind = kind_of(folder.resolve(), MOUNTS.read_text())
    if kind.startswith(NETWORK):
        what = f"{folder} is on {kind}, whose locks are not those of one machine"
        yield bad(_SUBJECT, what, "put spool.path on a disk of this machine")
    elif kind in MEMORY:
        what = f"{folder} is on {kind}, in memory: it does not survive a restart of the machine"
        yield warning(_SUBJECT, what, "put spool.path on a disk")


def _space(case: Case, folder: Path) -> Iterator[Finding]:
    """Is there room for what the configuration allows?"""
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    used = sum(each.size_bytes for each in segments(case.spool)) if case.spool.exists() else 0
    wanted = int(case.settings.spool.max_bytes)
    cure = "make room, or have a lower spool.max_bytes"
    if free < min(SEGMENT_BYTES, wanted):
        yield bad(_SUBJECT, f"{folder}: {size(free)} are free: events will soon get 503", cure)
    elif free < wanted - used:
        what = f"{folder}: {size(free)} are free, and {size(wanted - used)} may still be used"
        yield warning(_SUBJECT, f"{what} (max_bytes {size(wanted)})", cure)
    else:
        yield good(_SUBJECT, f"{size(free)} are free; {size(used)} of {size(wanted)} are used")
    if found.f_files and found.f_favail < _MIN_FILES:
        what = f"{folder}: {found.f_favail} more files can be made there (inodes)"
        yield bad(_SUBJECT, what, "remove small files from that filesystem")


# --- modes and owners -----------------------------------------------------------------------------


def _modes(path: Path) -> Iterator[Finding]:
    """All of it is the service's alone."""
    owner, count, is_good = path.stat().st_uid, 0, True
    for entry in _entries(path):
        count += 1
        try:
            found = entry.lstat()
        except FileNotFoundError:
            continue  # the service has dropped it
        for finding in _mode(entry, found, owner):
            yield finding
            is_good = False
        if count == _MAX_ENTRIES:
            break
    if is_good:
        yield good(_SUBJECT, f"{count} files and folders are {user(owner)}'s alone")


def _entries(path: Path) -> Iterator[Path]:
    yield path
    for folder, folders, files in os.walk(path, onerror=_raise):
        yield from (Path(folder, name) for name in (*sorted(folders), *sorted(files)))


def _raise(error: OSError) -> None:
    raise error


def _mode(path: Path, found: os.stat_result, owner: int) -> Iterator[Finding]:
    mode, wanted = stat.S_IMODE(found.st_mode), 0o700 if stat.S_ISDIR(found.st_mode) else 0o600
    if stat.S_ISLNK(found.st_mode):
        return  # it has no mode of its own
    if mode & 0o077:
        what = f"{path}: others have access ({mode:04o}); expected {wanted:04o}"
        yield bad(_SUBJECT, what, f"chmod {wanted:o} {path}")
    if found.st_uid != owner:
        what = f"{path}: belongs to {user(found.st_uid)}, and the spool to {user(owner)}"
        yield bad(_SUBJECT, what, f"chown {owner} {path}")


# --- the disk -------------------------------------------------------------------------------------


def _speed(path: Path) -> Iterator[Finding]:
    """Each batch of events waits for one of these."""
    took_s: list[float] = []
    failed: list[OSError] = []
    # A disk may hang for minutes; the thread does not keep the process.
    thread = threading.Thread(target=_sync_often, args=(path, took_s, failed), daemon=True)
    thread.start()
    thread.join(_PROBE_S + _PATIENCE_S)
    if failed:
        raise failed[0]
    if thread.is_alive() or not took_s:
        what = f"{path}: a sync takes more than {_PATIENCE_S:g} s"
        yield bad(_SUBJECT, what, "look at the disk and at what else writes there")
        return
    yield judge_syncs(took_s)


def judge_syncs(took_s: list[float]) -> Finding:
    """What to say of a disk that took so many seconds for each sync."""
    usual_s, longest_s = statistics.median(took_s), max(took_s)
    figures = f"{usual_s * 1000:.1f} ms, {longest_s * 1000:.1f} ms at worst"
    text = f"a sync takes {figures} (of {len(took_s)})"
    if longest_s > _HANGS_S:
        cure = "have the spool on a disk of its own; one that hangs for a second is refused"
        return bad(_SUBJECT, text, cure)
    if usual_s > _FAST_S:
        return warning(_SUBJECT, text, "each answer waits for it: a faster disk answers sooner")
    return good(_SUBJECT, text)


def _sync_often(path: Path, took_s: list[float], failed: list[OSError]) -> None:
    try:
        fd = _unnamed(path)
        try:
            ends = time.monotonic() + _PROBE_S
            while len(took_s) < _SYNCS and time.monotonic() < ends:
                os.write(fd, _BLOCK)
                began = time.perf_counter()
                os.fdatasync(fd)
                took_s.append(time.perf_counter() - began)
        finally:
            os.close(fd)
    except OSError as error:
        error.filename = error.filename or str(path)
        failed.append(error)


def _unnamed(path: Path) -> int:
    """A file that nobody else sees, and that is gone when it is closed."""
    try:
        return os.open(path, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
            raise
    fd, name = tempfile.mkstemp(prefix=".doctor-", dir=path)
    os.unlink(name)
    return fd


# --- who has it, and what it says -----------------------------------------------------------------


def _holder(case: Case) -> Iterator[Finding]:
    if case.holder is None:
        yield warning(_SUBJECT, "no service has it: nothing is received", "start the service")
        return
    try:
        uid = Path(f"/proc/{case.holder}").stat().st_uid
    except OSError:
        yield good(_SUBJECT, f"process {case.holder} has it")
        return
    owner = case.spool.stat().st_uid
    if uid not in (0, owner):
        what = f"process {case.holder} has it as {user(uid)}, but it is {user(owner)}'s"
        yield bad(_SUBJECT, what, f"chown -R {uid} {case.spool}")
    elif uid != owner:
        what = f"process {case.holder} has it as root"
        yield bad(_SUBJECT, what, f"run the service as {user(owner)}")
    else:
        yield good(_SUBJECT, f"process {case.holder} has it, as {user(uid)}")


def _versions(path: Path) -> Iterator[Finding]:
    """Each journal's newest segment, whose format may be another version's."""
    newest = {each.worker: each.path for each in segments(path)}
    is_good = True
    for file in newest.values():
        with file.open("rb") as opened:
            head = opened.read(SEGMENT_HEADER_BYTES)
        if not any(head):
            continue  # it is just being begun
        try:
            read_segment_header(head)
        except WrongVersion as error:
            is_good = False
            cure = "run the version that wrote it, or move it away and begin anew"
            yield bad(_SUBJECT, f"{file}: {error}", cure)
    if is_good and newest:
        yield good(_SUBJECT, "its journals have this version's format")


def _contents(path: Path) -> Iterator[Finding]:
    try:
        reader = Reader(path)
    except ConfigError as error:
        if not os.access(path, os.R_OK | os.X_OK):
            yield unseen(_SUBJECT, str(error), "run it as root, or as the service's user")
        else:
            cure = "a start, or `fasthook spool rebuild`, makes the index from the journal"
            yield bad(_SUBJECT, str(error), cure)
        return
    with reader:
        found = survey(reader)
    if found.is_index_damaged:
        cure = "restart the service: it makes it again from the journal"
        yield bad(_SUBJECT, "its index is damaged", cure)
    yield from _waiting(found)


def _waiting(found: Survey) -> Iterator[Finding]:
    dead, damaged = found.counts[State.DEAD], found.counts[State.DAMAGED]
    if dead:
        cure = "`fasthook dead` says why; `fasthook replay` runs them once more"
        yield warning(_SUBJECT, f"{dead} dead letters", cure)
    if damaged:
        cure = "`fasthook spool verify` says where; look at the disk"
        yield warning(_SUBJECT, f"{damaged} damaged records", cure)
    if found.oldest_pending_s is not None and found.oldest_pending_s > _OLD_S:
        what = f"the oldest event waits for {found.oldest_pending_s / 3600:.0f} h"
        yield warning(_SUBJECT, what, "`fasthook events --state pending` says which")
    if not (dead or damaged or found.is_index_damaged):
        yield good(_SUBJECT, "its index is whole, and there are no dead letters")
