"""Who can read secrets, and who can write what the service trusts: modes and owners of files."""

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fasthook.cli.doctor.case import Case
from fasthook.cli.doctor.findings import Finding, bad, good, unseen, warning

_SUBJECT: Final = "files"
_ROOT_CURE: Final = "run it as root, or as the service's user"


def look(case: Case) -> Iterator[Finding]:
    """Look at the configuration's file, at those that hold secrets, and at their folders."""
    paths = [Path(each.name) for each in case.references if each.kind == "file"]
    paths += _credential_files(case)
    findings: list[Finding] = []
    for path in dict.fromkeys(paths):
        findings += _secret_file(path, case)
    findings += _configuration(case)
    yield from findings
    if not findings:
        count = len(set(paths))
        what = f"{case.path} and {count} files of secrets" if count else f"{case.path}"
        yield good(_SUBJECT, f"modes and owners of {what}")


def _credential_files(case: Case) -> Iterator[Path]:
    """The files that systemd hands over, by `LoadCredential=NAME:PATH`."""
    entries = case.unit.all("Service", "LoadCredential") if case.unit is not None else []
    for entry in entries:
        path = entry.partition(":")[2]
        if path.startswith("/"):
            yield Path(path)


def _secret_file(path: Path, case: Case) -> Iterator[Finding]:
    try:
        found = path.stat()
    except PermissionError:
        yield unseen(_SUBJECT, f"{path}: permission denied", _ROOT_CURE)
        return
    except OSError as error:
        yield bad(_SUBJECT, f"{path}: {error.strerror}", "make it, or correct its name")
        return
    mode = stat.S_IMODE(found.st_mode)
    cure = f"chmod 600 {path}"
    if mode & 0o007:
        yield bad(_SUBJECT, f"{path}: a secret that everybody has access to ({mode:04o})", cure)
    elif mode & 0o030:
        yield bad(_SUBJECT, f"{path}: a secret that its group can change ({mode:04o})", cure)
    elif mode & 0o040 and not (found.st_uid == 0 and found.st_gid in case.groups()):
        group = _group(found.st_gid)
        yield warning(_SUBJECT, f"{path}: group {group} can read a secret ({mode:04o})", cure)
    yield from _owner(path, found, case.owners())
    yield from _folder(path, case.owners())


def _owner(path: Path, found: os.stat_result, owners: set[int]) -> Iterator[Finding]:
    if found.st_uid not in owners:
        what = f"{path}: belongs to {user(found.st_uid)}, who is neither root nor the service"
        yield bad(_SUBJECT, what, f"chown it to {' or '.join(user(uid) for uid in sorted(owners))}")


def _folder(path: Path, owners: set[int]) -> Iterator[Finding]:
    """Whoever can write there can put another file in its place."""
    folder = path.resolve().parent
    found = folder.stat()
    is_sticky = found.st_mode & stat.S_ISVTX
    if found.st_mode & stat.S_IWOTH and not is_sticky:
        what = f"{folder}: everybody can put another {path.name} there"
        yield bad(_SUBJECT, what, f"chmod o-w {folder}")
    elif found.st_uid not in owners:
        what = f"{folder}: {user(found.st_uid)} can put another {path.name} there"
        yield warning(_SUBJECT, what, "keep it in a folder of root's or of the service's")


def _configuration(case: Case) -> Iterator[Finding]:
    """It says which commands run, and it may hold secrets."""
    path, found = case.path, case.path.stat()
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o002:
        yield bad(_SUBJECT, f"{path}: everybody can change it ({mode:04o})", f"chmod o-w {path}")
    elif mode & 0o020:
        what = f"{path}: group {_group(found.st_gid)} can change it ({mode:04o})"
        yield warning(_SUBJECT, what, f"chmod g-w {path}")
    if mode & 0o004 and any(each.kind == "plain" for each in case.references):
        what = f"{path}: everybody can read it ({mode:04o}), and it holds a plain: secret"
        yield bad(_SUBJECT, what, f"chmod o-r {path}, and better use file: or credential:")
    yield from _owner(path, found, case.owners() | {os.geteuid()})
    yield from _folder(path, case.owners() | {os.geteuid()})


def user(uid: int) -> str:
    """A user's name, or number if nobody knows it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return f"{gid}"
