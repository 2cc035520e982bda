"""What strace (`-f -y`, or `-yy` for answers) saw of a journal and of the answers, in order."""

import re
from collections.abc import Iterator
from typing import NamedTuple

CALLS = "trace=fdatasync,fsync,writev,write,sendto,sendmsg,pwrite64"
_LINE = re.compile(r"^(\d+) +(.*)$")
_CALL = re.compile(r"^(\w+)\(\d+<(TCP:\[.*?\]|.*?)>(.*)$")
_RESUMED = re.compile(r"^<\.\.\. \w+ resumed>(.*)$")
_RESULT = re.compile(r"= (-?\d+)(?: \S.*)?$")
_CLIENT = re.compile(r"^TCP:\[127\.0\.0\.1:\d+->127\.0\.0\.1:(\d+)\]$")
_SYNCS = ("fdatasync", "fsync")


class Answered(NamedTuple):
    """A 2xx is about to be written."""

    client_port: int


class Written(NamedTuple):
    """A segment has got longer."""

    path: str
    size: int


class Synced(NamedTuple):
    """A sync has returned well: up to there the segment is on disk."""

    path: str
    size: int


class _Call(NamedTuple):
    name: str
    path: str
    size: int  # when it began


def happenings(trace: str) -> Iterator[Answered | Written | Synced]:
    """A line stands where its call ended, or in two parts where another call came between."""
    sizes: dict[str, int] = {}
    under_way: dict[str, _Call] = {}  # by thread
    for line in trace.splitlines():
        if not (parts := _LINE.match(line)):
            continue
        thread, text = parts.groups()
        if found := _CALL.match(text):
            name, target, rest = found.groups()
            if (client := _CLIENT.match(target)) and '"HTTP/1.1 2' in rest:
                yield Answered(int(client[1]))
            if target.endswith(".seg"):
                under_way[thread] = _Call(name, target, sizes.setdefault(target, 0))
        elif not _RESUMED.match(text):
            continue
        result = _RESULT.search(text)
        if thread not in under_way or result is None or text.endswith("<unfinished ...>"):
            continue
        name, path, size = under_way.pop(thread)
        if int(result[1]) < 0:
            continue
        if name in _SYNCS:
            yield Synced(path, size)
        else:
            sizes[path] += int(result[1])
            yield Written(path, sizes[path])
