"""Limits of the machine: open files, connections that wait, memory; against what is configured."""

import os
import re
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fasthook.cli.doctor.case import Case
from fasthook.cli.doctor.findings import Finding, bad, good, guarded, warning
from fasthook.cli.doctor.units import Unit
from fasthook.cli.spool import size
from fasthook.plan import workers_of
from fasthook.wire.limits import RESERVED_DESCRIPTORS
from fasthook.wire.sockets import BACKLOG

_SUBJECT: Final = "limits"
_SOMAXCONN: Final = Path("/proc/sys/net/core/somaxconn")
_MEMORY: Final = Path("/proc/meminfo")
_CGROUPS: Final = Path("/sys/fs/cgroup")
_UNIT_SIZE: Final = re.compile("([0-9]+)([KMGT]?)")
#: What a worker takes with nothing to do.
_WORKER_BYTES: Final = 64 * 1024**2


def look(case: Case) -> Iterator[Finding]:
    """Look at the limits of the running service; where none runs, of the unit, or ours."""
    yield from guarded(_SUBJECT, lambda: [judge_files(*open_files(case), case)])
    yield from guarded(_SUBJECT, lambda: _backlog(case))
    yield from guarded(_SUBJECT, lambda: [_memory(case)])


def open_files(case: Case) -> tuple[int, str]:
    """How many files the service may open in each worker, and who says so. Raises `OSError`."""
    if case.holder is not None:
        for line in Path(f"/proc/{case.holder}/limits").read_text().splitlines():
            if line.startswith("Max open files"):
                return _number(line.split()[3]), f"process {case.holder}"
    given = case.unit.last("Service", "LimitNOFILE") if case.unit is not None else ""
    if case.unit is not None and given:
        return _number(given.partition(":")[0]), str(case.unit.path)
    if case.unit is not None:
        return 1024, f"{case.unit.path}, which has no LimitNOFILE"  # systemd's soft limit
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0], "this shell"


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 2**30  # "infinity", "unlimited"


def judge_files(count: int, source: str, case: Case) -> Finding:
    """What to say of a limit of open files: each worker is a process with one of its own."""
    connections, workers = case.settings.server.max_connections, workers_of(case.settings)
    needed = connections + RESERVED_DESCRIPTORS
    each = f"{connections} connections" + (f" in each of {workers} workers" if workers > 1 else "")
    if count >= needed:
        return good(_SUBJECT, f"{_files(count)} (by {source}) suffice for {each}")
    left = max(1, count - RESERVED_DESCRIPTORS)
    what = f"{_files(count)} (by {source}) are too few for {each}: only {left} get in"
    cure = f"LimitNOFILE={needed} in the unit, or a lower server.max_connections"
    return (bad if left < connections // 2 else warning)(_SUBJECT, what, cure)


def _files(count: int) -> str:
    return "unlimited open files" if count >= 2**30 else f"{count} open files"


def _backlog(case: Case) -> Iterator[Finding]:
    most = int(_SOMAXCONN.read_text())
    if most < BACKLOG:
        what = f"net.core.somaxconn is {most}; fasthook lets {BACKLOG} connections wait"
        yield warning(_SUBJECT, what, f"sysctl -w net.core.somaxconn={BACKLOG}")
    else:
        yield good(_SUBJECT, f"net.core.somaxconn is {most}: {BACKLOG} connections can wait")
    given = case.socket.last("Socket", "Backlog") if case.socket is not None else ""
    if case.socket is not None and given.isdecimal() and int(given) < BACKLOG:
        what = f"{case.socket.path}: Backlog={given} lets fewer wait than fasthook does"
        yield warning(_SUBJECT, what, f"Backlog={BACKLOG}")


def _memory(case: Case) -> Finding:
    """May the service have as much as its bounds allow it?"""
    server, dispatch = case.settings.server, case.settings.dispatch
    each = int(server.max_bytes_in_flight) + int(dispatch.backlog_bytes) + _WORKER_BYTES
    most = workers_of(case.settings) * each
    there, source = min([memory(case.holder), *_allowed(case.unit)])
    text = f"{size(most)} of memory at the most, beside the handlers', of {size(there)} ({source})"
    if most <= there:
        return good(_SUBJECT, text)
    cure = "have lower max_bytes_in_flight, backlog_bytes or workers, or more memory"
    return warning(_SUBJECT, text, cure)


def _allowed(unit: Unit | None) -> list[tuple[int, str]]:
    """What a unit allows, which holds also while it does not run."""
    match = _UNIT_SIZE.fullmatch(unit.last("Service", "MemoryMax")) if unit is not None else None
    if unit is None or match is None:
        return []
    return [(int(match[1]) * 1024 ** " KMGT".index(match[2] or " "), f"MemoryMax of {unit.name}")]


def memory(process: int | None) -> tuple[int, str]:
    """Bytes that are there for a process, and who says so: its cgroups, or the machine."""
    fields = dict(line.split(":") for line in _MEMORY.read_text().splitlines())
    found = [(int(fields["MemTotal"].split()[0]) * 1024, "all of the machine")]
    group = _group_of(process) if process is not None else None
    while group is not None and group != _CGROUPS:
        try:
            text = (group / "memory.max").read_text().strip()
        except OSError:
            text = ""
        if text.isdecimal():
            found.append((int(text), f"{group}/memory.max"))
        group = group.parent
    return min(found)


def _group_of(process: int) -> Path | None:
    """The cgroup of a process, where there are those of the second version."""
    try:
        lines = Path(f"/proc/{process}/cgroup").read_text().splitlines()
    except OSError:
        return None
    name = next((line[3:] for line in lines if line.startswith("0::")), "/")
    path = Path(os.path.normpath(f"{_CGROUPS}/{name}"))
    return path if path.is_relative_to(_CGROUPS) else None
