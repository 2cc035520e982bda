"""What was found: good, worth a warning, or bad, with what to do about it."""

from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from typing import NamedTuple

from fasthook.errors import FasthookError


class Level(StrEnum):
    """How a finding is to be taken; only `BAD` makes an exit code of 1."""

    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"


class Finding(NamedTuple):
    """One line of the report."""

    level: Level
    subject: str  # which part of the installation: "spool", "nginx" ...
    text: str
    cure: str = ""  # what to do; empty where all is good


def good(subject: str, text: str) -> Finding:
    """All is as it should be."""
    return Finding(Level.GOOD, subject, text)


def warning(subject: str, text: str, cure: str) -> Finding:
    """It works, but not as well or as safely as it could."""
    return Finding(Level.WARNING, subject, text, cure)


def unseen(subject: str, text: str, cure: str) -> Finding:
    """This could not be looked at, so nothing is known about it: a warning."""
    return Finding(Level.WARNING, subject, f"not looked at: {text}", cure)


def bad(subject: str, text: str, cure: str) -> Finding:
    """It does not work, is not safe, or soon won't be."""
    return Finding(Level.BAD, subject, text, cure)


def guarded(subject: str, look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """What `look` finds; an error in it is a finding, too, since the other parts are still asked.

    Of an error that nobody expected only the kind is said: its text may hold anything.
    """
    try:
        yield from look()
    except PermissionError as error:
        what = f"{error.filename or subject}: {error.strerror}"
        yield unseen(subject, what, "run it as root, or as the service's user")
    except (OSError, FasthookError) as error:
        yield unseen(subject, str(error), "put that right, then ask again")
    except Exception as error:
        yield unseen(subject, f"{type(error).__name__} while looking", "report this as a bug")
