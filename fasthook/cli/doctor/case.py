"""What is looked at: a configuration, and the machine and the service that it is for."""

import contextlib
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from fasthook.cli.doctor.units import Unit
from fasthook.config import Config, spool_of
from fasthook.spool.survey import holder

_KINDS: Final = ("env", "file", "credential", "plain")
CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"


class Reference(NamedTuple):
    """A secret, as the configuration names it; never the secret itself."""

    where: str  # the key
    kind: str  # "env", "file", "credential", "plain"
    name: str  # of the variable, the path, the credential; of a plain one nothing

    @property
    def text(self) -> str:
        """As it can be shown."""
        return self.kind if self.kind == "plain" else f"{self.kind}:{self.name}"


class Case(NamedTuple):
    """What all parts of the examination look at."""

    path: Path  # of the configuration
    settings: Config  # without its secrets
    references: list[Reference]
    holder: int | None  # the process of the service; None: none runs, or it keeps nothing
    unit: Unit | None
    socket: Unit | None

    @property
    def spool(self) -> Path:
        """The spool's directory."""
        return spool_of(self.settings)

    def owners(self) -> set[int]:
        """The users to whom the service's files may belong: root, and whoever the service is."""
        owners = {0}
        with contextlib.suppress(OSError):
            owners.add(self.spool.stat().st_uid)
        if self.holder is not None:
            with contextlib.suppress(OSError):
                owners.add(Path(f"/proc/{self.holder}").stat().st_uid)
        if len(owners) == 1 and self.holder is None and not self.spool.exists():
            owners.add(os.geteuid())  # nothing says who it is to be
        return owners

    def groups(self) -> set[int]:
        """The groups by which the service may read what is root's."""
        groups = set()
        with contextlib.suppress(OSError):
            groups.add(self.spool.stat().st_gid)
        if self.holder is not None:
            with contextlib.suppress(OSError):
                groups.add(Path(f"/proc/{self.holder}").stat().st_gid)
        return groups

    def home(self) -> Path:
        """Where the service runs, or would: what relative paths of handlers are relative to."""
        given = self.unit.last("Service", "WorkingDirectory") if self.unit is not None else ""
        folder = Path(given.removeprefix("-") or ".")
        if self.holder is not None:
            with contextlib.suppress(OSError):
                folder = Path(f"/proc/{self.holder}/cwd").readlink()
        return folder if folder.is_dir() else Path()


def case_of(path: Path, settings: Config, unit: Unit | None, socket: Unit | None) -> Case:
    """The case for a configuration. Raises `OSError`."""
    process = None if settings.spool.durability == "none" else holder(spool_of(settings))
    return Case(path, settings, references_in(path), process, unit, socket)


def references_in(path: Path) -> list[Reference]:
    """The secrets that a configuration names: of its endpoints, and of its handlers' settings.

    Raises `OSError`; the file is known to be TOML.
    """
    tree = tomllib.loads(path.read_text(encoding="utf-8"))
    found: list[Reference] = []
    for endpoint in tree.get("endpoint", []):
        name = f'endpoint "{endpoint.get("name", "")}".secrets'
        found += _references(name, endpoint.get("secrets", []), path)
    found += _references("handlers", tree.get("handlers", {}), path)
    return list(dict.fromkeys(found))


def _references(where: str, value: Any, path: Path) -> Iterator[Reference]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _references(f"{where}.{key}", inner, path)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(where, inner, path)
    elif isinstance(value, str):
        kind, colon, name = value.partition(":")
        if colon and kind in _KINDS:
            if kind == "file":
                name = str(path.absolute().parent / name)
            yield Reference(where, kind, "" if kind == "plain" else name)


def environment_of(process: int) -> dict[str, str] | None:
    """The environment that a process was started with; None: it may not be read."""
    try:
        data = Path(f"/proc/{process}/environ").read_bytes()
    except OSError:
        return None
    pairs = (entry.partition(b"=") for entry in data.split(b"\0") if b"=" in entry)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


@contextlib.contextmanager
def borrowed_environment(case: Case) -> Iterator[None]:
    """Secrets can be found where the running service finds them, if we may look there.

    Only what the configuration names is borrowed, and what is set here already stays.
    """
    wanted = {each.name for each in case.references if each.kind == "env"}
    if any(each.kind == "credential" for each in case.references):
        wanted.add(CREDENTIALS)
    service = environment_of(case.holder) if case.holder is not None else None
    lent = {k: v for k, v in (service or {}).items() if k in wanted and k not in os.environ}
    os.environ.update(lent)
    try:
        yield
    finally:
        for name in lent:
            os.environ.pop(name, None)
