"""Secrets that senders handed over: `secrets/ENDPOINT/TIME` in the spool's directory, one each.

A file is there whole or not at all, on disk before `keep` returns, and the service's alone. Names
that begin with a dot are not read: there a file is written before it gets its name.
"""

import contextlib
import fcntl
import hmac
import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from fasthook.errors import ConfigError
from fasthook.spool.files import make_folder, put, sync_folder
from fasthook.values import Secret

FOLDER: Final = "secrets"
#: Of one endpoint: each is tried with each request. Beyond: no more is taken.
MAX_KEPT: Final = 16
_MAX_BYTES: Final = 4096


class Kept(NamedTuple):
    """One secret that a sender handed over."""

    name: str  # of its file
    since: datetime
    secret: Secret


def folder_of(spool: Path, endpoint: str) -> Path:
    """Where the secrets of an endpoint are."""
    return spool / FOLDER / endpoint


def read(spool: Path, endpoint: str) -> list[Kept]:
    """The secrets of an endpoint, the oldest first.

    Raises `ConfigError` for files that others could have read or written.
    """
    folder = folder_of(spool, endpoint)
    try:
        if not folder.exists():
            return []
        owners = {os.geteuid()}
        if 0 in owners:
            owners.add(os.stat(spool).st_uid)  # root may look at what is a service's
        for each in (folder.parent, folder):
            _check(each, os.lstat(each), owners, stat.S_IFDIR, 0o700)
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
        if len(names) > MAX_KEPT:
            raise ConfigError(f"{folder}: {len(names)} secrets; expected {MAX_KEPT} at the most")
        return [_read_one(folder / name, owners) for name in names]
    except OSError as error:
        raise ConfigError(f"{error.filename or folder}: {error.strerror}") from None


def _read_one(path: Path, owners: set[int]) -> Kept:
    # Neither a link to a file of somebody else's, nor a pipe that would hold us up.
    found = os.lstat(path)
    _check(path, found, owners, stat.S_IFREG, 0o600)
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        value = file.read(_MAX_BYTES + 1).removesuffix(b"\n")
    if not value or len(value) > _MAX_BYTES or b"\0" in value:
        raise ConfigError(f"{path}: holds no secret; remove it, and pair the endpoint again")
    since = datetime.fromtimestamp(found.st_mtime, UTC)
    return Kept(path.name, since, Secret(value, f"paired:{path.name}"))


def _check(path: Path, found: os.stat_result, owners: set[int], kind: int, mode: int) -> None:
    if stat.S_IFMT(found.st_mode) != kind:
        what = "directory" if kind == stat.S_IFDIR else "file"
        raise ConfigError(f"{path}: expected a {what}, and no link")
    if found.st_uid not in owners:
        raise ConfigError(f"{path}: belongs to user {found.st_uid}; expected {os.geteuid()}")
    if stat.S_IMODE(found.st_mode) & ~mode:
        got = f"{stat.S_IMODE(found.st_mode):04o}"
        what = f"expected {mode:04o}, for it holds secrets"
        raise ConfigError(f"{path}: its permissions are {got}; {what} (chmod {mode:o} {path})")


class AnotherKept(ConfigError):
    """Another worker has taken a secret meanwhile."""


def keep(
    spool: Path, endpoint: str, value: bytes, expected: int | None = None
) -> tuple[str, list[Kept]]:
    """Have a secret on disk: its name, and all that are there now.

    One that is there already keeps its name. `expected`: how many are there, else another worker
    was faster.

    Raises `AnotherKept`, `OSError` and `ConfigError`; then nothing is kept.
    """
    make_folder(folder_of(spool, endpoint))
    with _locked(spool):
        kept = read(spool, endpoint)
        if expected is not None and len(kept) != expected:
            raise AnotherKept("another secret has been handed over meanwhile")
        return _keep(spool, endpoint, value, kept)


@contextlib.contextmanager
def _locked(spool: Path) -> Iterator[None]:
    fd = os.open(spool / FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _keep(spool: Path, endpoint: str, value: bytes, kept: list[Kept]) -> tuple[str, list[Kept]]:
    for one in kept:
        if hmac.compare_digest(one.secret.reveal(), value):
            return one.name, kept
    if len(kept) >= MAX_KEPT:
        raise ConfigError(f"{folder_of(spool, endpoint)}: has {MAX_KEPT} secrets; remove one first")
    folder = folder_of(spool, endpoint)
    since = datetime.now(UTC)
    path = folder / f"{since:%Y%m%dT%H%M%S.%fZ}"
    try:
        put(path, value, syncs=True)
    except OSError:
        with contextlib.suppress(OSError):
            path.unlink()  # it has its name, perhaps, but may lose it
        raise
    new = Kept(path.name, since, Secret(value, f"paired:{path.name}"))
    return path.name, [*kept, new]


def forget(spool: Path, endpoint: str, name: str = "") -> int:
    """Remove a secret of an endpoint, or with no name all of them; how many that were.

    Raises `OSError`. Not erased: a disk may have its bytes for a while.
    """
    folder = folder_of(spool, endpoint)
    if not folder.is_dir():
        return 0
    names = [each for each in os.listdir(folder) if not each.startswith(".")]
    names = [each for each in names if name in ("", each)]
    for each in names:
        (folder / each).unlink()
    sync_folder(folder)
    return len(names)
