"""Unit files of systemd, read as they stand: whether or not systemd runs here.

systemd.syntax(7) and systemd.unit(5): a file of a folder hides those of the same name in later
ones, drop-ins add to it, and an empty value takes back the ones before.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

_FOLDERS: Final = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
_COMMENTS: Final = ("#", ";")


class Unit(NamedTuple):
    """A unit with its drop-ins."""

    name: str
    path: Path  # of the main file
    drop_ins: list[Path]
    values: Mapping[tuple[str, str], list[str]]  # (section, key) → all its values

    def all(self, section: str, key: str) -> list[str]:
        """The values of a key that may come several times."""
        return self.values.get((section, key), [])

    def last(self, section: str, key: str, default: str = "") -> str:
        """The value of a key of which the last one counts."""
        return (self.all(section, key) or [default])[-1]


def folders() -> list[Path]:
    """Where units are, the most important first; SYSTEMD_UNIT_PATH as in systemd(1)."""
    given = os.environ.get("SYSTEMD_UNIT_PATH", "")
    names = [name for name in given.split(":") if name]
    if not given or given.endswith(":"):
        names += _FOLDERS
    return [Path(name) for name in names]


def find_unit(name: str) -> Unit | None:
    """The unit of this name as it is installed; None: there is none. Raises `OSError`."""
    places = folders()
    path = next((place / name for place in places if (place / name).is_file()), None)
    if path is None:
        return None
    by_name: dict[str, Path] = {}
    for place in reversed(places):
        by_name |= {file.name: file for file in (place / f"{name}.d").glob("*.conf")}
    drop_ins = [by_name[each] for each in sorted(by_name)]
    values: dict[tuple[str, str], list[str]] = {}
    for file in (path, *drop_ins):
        for section, key, value in _entries(file.read_text("utf-8", "replace")):
            if value:
                values.setdefault((section, key), []).append(value)
            else:
                values[section, key] = []
    return Unit(name, path, drop_ins, values)


def _entries(text: str) -> Iterator[tuple[str, str, str]]:
    section = begun = ""
    for line in text.splitlines():
        line = line.strip()
        if line.startswith(_COMMENTS) or (not line and not begun):
            continue
        if line.endswith("\\"):
            begun += line[:-1] + " "
            continue
        line, begun = begun + line, ""
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
        elif "=" in line:
            key, _, value = line.partition("=")
            yield section, key.strip(), value.strip()
