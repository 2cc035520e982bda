"""Is the clock right? Signatures carry times, and a wrong clock refuses every one of them."""

import ctypes
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from fasthook.cli.doctor.case import Case
from fasthook.cli.doctor.findings import Finding, bad, good, unseen, warning
from fasthook.spool.survey import segments

_SUBJECT: Final = "clock"
_STA_UNSYNC: Final = 0x0040  # adjtimex(2)
_PADDING_BYTES: Final = 256  # more than the rest of the struct has, on any machine
_CURE: Final = "have systemd-timesyncd, chrony or ntpd run (on the host, if this is a container)"
#: What came later than now by more than this was not stamped by this clock.
_SLACK_S: Final = 60


class _Timex(ctypes.Structure):
    """The beginning of `struct timex`, up to what is asked for."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * _PADDING_BYTES),
    )


class Discipline(NamedTuple):
    """What the kernel knows of its clock."""

    is_synchronised: bool
    max_error_s: float


def discipline() -> Discipline:
    """Ask the kernel, and change nothing. Raises `OSError`."""
    timex = _Timex(modes=0)
    if ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "adjtimex")
    return Discipline(not timex.status & _STA_UNSYNC, timex.maxerror / 1e6)


def look(case: Case) -> Iterator[Finding]:
    """Ask the kernel, and compare with what the spool was written at."""
    try:
        known = discipline()
    except OSError as error:
        yield unseen(_SUBJECT, f"adjtimex: {error.strerror}", _CURE)
    else:
        yield judge(known)
    if case.settings.spool.durability != "none":
        yield from _against(newest_write(case.spool))


def judge(known: Discipline) -> Finding:
    """What to say of it."""
    if known.is_synchronised:
        return good(_SUBJECT, f"synchronised, to {known.max_error_s * 1000:.0f} ms at worst")
    what = "the kernel says that nothing synchronises it: signed times may seem stale"
    return warning(_SUBJECT, what, _CURE)


def newest_write(spool: Path) -> float:
    """When the journal was last written, by its files; 0: never. Raises `OSError`."""
    return max((segment.path.stat().st_mtime for segment in segments(spool)), default=0.0)


def _against(written_s: float) -> Iterator[Finding]:
    ahead_s = written_s - time.time()
    if ahead_s > _SLACK_S:
        what = f"the spool was written {ahead_s:.0f} s from now: this clock is, or was, wrong"
        yield bad(_SUBJECT, what, f"set it right, and {_CURE}")
