"""Finds handlers by name among the installed packages' entry points."""

import difflib
import traceback
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from fasthook.errors import ConfigError
from fasthook.handling import Handler, HandlerFactory

GROUP: Final = "fasthook.handlers"


def installed() -> list[str]:
    """Names of all handlers that are installed, sorted."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def find(name: str) -> Handler | HandlerFactory:
    """The handler of this name. Raises `ConfigError` that says what is wrong with it."""
    points = {(p.value, _package(p)): p for p in entry_points(group=GROUP) if p.name == name}
    if not points:
        known = installed()
        close = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ConfigError(f"no handler {name!r} is installed; {hint}installed: {', '.join(known)}")
    if len(points) > 1:
        packages = ", ".join(sorted(package for _, package in points))
        raise ConfigError(f"several packages have a handler {name!r}: {packages}")
    point = next(iter(points.values()))
    try:
        found = point.load()
    except (Exception, SystemExit) as error:  # whatever the user's module does on import
        raise ConfigError(
            f"handler {name!r} ({point.value}) can't be imported: "
            f"{type(error).__name__}: {error}{_place_of(error)}"
        ) from error
    if not isinstance(found, Handler | HandlerFactory):
        raise ConfigError(
            f"handler {name!r} ({point.value}) is a {type(found).__name__}; "
            "expected a function with @fasthook.handler"
        )
    return found


def _place_of(error: BaseException) -> str:
    """Where an import failed, if it was in Python code at all."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not f.filename.startswith("<frozen") and f.filename != __file__]
    own = [f for f in own if "importlib" not in f.filename]
    return f" ({own[-1].filename}:{own[-1].lineno})" if own else ""


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "unknown"
