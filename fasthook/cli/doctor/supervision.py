"""The unit: does systemd start the service again, watch it, and keep it in a sandbox?"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Final

from fasthook.cli.doctor.case import Case
from fasthook.cli.doctor.findings import Finding, bad, good, unseen, warning
from fasthook.cli.doctor.units import Unit, folders

_SUBJECT: Final = "unit"
_PATIENCE_S: Final = 20
#: Of `systemd-analyze security`: 0 is a perfect sandbox, 10 is none.
_MOST_EXPOSED: Final = 1.0
_FAR_TOO_EXPOSED: Final = 5.0
_OVERALL: Final = re.compile(r"Overall exposure level for \S+: ([0-9.]+)")
#: What a service has beside `drain_timeout` while it drains: 6 s for a proxy, and some to end.
_BESIDE_DRAINING_S: Final = 10
_UNITS_S: Final = {"": 1, "s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600, "ms": 0.001}
#: Keys that begin with the name of a credential (systemd.exec(5)).
_LOADS: Final = (
    "LoadCredential",
    "LoadCredentialEncrypted",
    "SetCredential",
    "SetCredentialEncrypted",
)
_DEFAULT_STOP: Final = "90"  # DefaultTimeoutStopSec of systemd-system.conf(5)


def look(case: Case) -> Iterator[Finding]:
    """Look at the installed unit."""
    unit = case.unit
    if unit is None:
        what = "no fasthook.service is installed: nothing starts it again after a crash"
        yield warning(_SUBJECT, what, "install the unit, or have something else that does it")
        return
    found = [*_life(unit), *_stop(unit, case), *_user(unit), *_credentials(unit, case)]
    yield from found or [good(_SUBJECT, f"{unit.path}: restarts, watchdog, user, credentials")]
    yield from _sockets(case)
    yield _exposure(unit)


def _life(unit: Unit) -> Iterator[Finding]:
    restart = unit.last("Service", "Restart", "no")
    if restart == "no":
        yield bad(_SUBJECT, f"{unit.path}: it stays down after a crash", "Restart=always")
    elif restart not in ("always", "on-failure"):
        what = f"{unit.path}: Restart={restart} leaves it down after some failures"
        yield warning(_SUBJECT, what, "Restart=always")
    kind = unit.last("Service", "Type", "simple")
    if kind not in ("notify", "notify-reload"):
        what = f"{unit.path}: Type={kind} does not wait until fasthook is ready"
        yield warning(_SUBJECT, what, "Type=notify")
    watchdog_s = seconds_of(unit.last("Service", "WatchdogSec", "0"))
    if not watchdog_s:
        what = f"{unit.path}: no watchdog: a service that hangs stays so"
        yield warning(_SUBJECT, what, "WatchdogSec=30 (and Type=notify)")


def _stop(unit: Unit, case: Case) -> Iterator[Finding]:
    given = unit.last("Service", "TimeoutStopSec") or unit.last("Service", "TimeoutSec")
    limit_s = seconds_of(given or _DEFAULT_STOP)
    needed_s = float(case.settings.server.drain_timeout) + _BESIDE_DRAINING_S
    if limit_s is not None and limit_s < needed_s:
        what = f"{unit.path}: it is killed {limit_s:g} s after it is told to stop, while it drains"
        yield warning(_SUBJECT, what, f"TimeoutStopSec={needed_s:.0f}, or a lower drain_timeout")


def seconds_of(text: str) -> float | None:
    """A span of systemd.time(7), as seconds; None: for ever."""
    if text.strip() == "infinity":
        return None
    found = re.findall(r"([0-9.]+)\s*([a-z]*)", text)
    return sum(float(number) * _UNITS_S.get(unit, 1) for number, unit in found)


def _user(unit: Unit) -> Iterator[Finding]:
    is_dynamic = unit.last("Service", "DynamicUser", "no").lower() in ("yes", "true", "1", "on")
    if not is_dynamic and unit.last("Service", "User", "root") in ("root", "0"):
        what = f"{unit.path}: it runs as root, and all handlers do"
        yield bad(_SUBJECT, what, "DynamicUser=yes, or User= somebody who has nothing else")


def _credentials(unit: Unit, case: Case) -> Iterator[Finding]:
    """Those that the configuration names are to be handed over."""
    given = {entry.partition(":")[0] for key in _LOADS for entry in unit.all("Service", key)}
    if unit.all("Service", "ImportCredential"):
        return  # patterns of names, of what the machine has
    for name in sorted({each.name for each in case.references if each.kind == "credential"}):
        if name not in given:
            what = f"{unit.path}: it hands no credential {name} over, which {case.path} names"
            yield bad(_SUBJECT, what, f"LoadCredential={name}:FILE")


def _sockets(case: Case) -> Iterator[Finding]:
    if "systemd" not in case.settings.server.listen:
        return
    if case.socket is None:
        what = "server.listen has systemd, and no fasthook.socket is installed"
        yield bad(_SUBJECT, what, "install the socket's unit, or listen on an address")
    elif not case.socket.all("Socket", "ListenStream"):
        yield bad(_SUBJECT, f"{case.socket.path}: it listens nowhere", "ListenStream=")


def _exposure(unit: Unit) -> Finding:
    """How much of the machine the service could reach, in the words of systemd-analyze(1)."""
    cure = "`systemd-analyze security` says which settings are missing"
    program = shutil.which("systemd-analyze")
    if program is None:
        return unseen(_SUBJECT, "the sandbox: systemd-analyze is not installed", "install systemd")
    command = [program, "security", "--offline=true", "--no-pager", unit.name]
    places = ":".join(map(str, folders()))
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command
            command,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"SYSTEMD_UNIT_PATH": places, "LC_ALL": "C.UTF-8"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return unseen(_SUBJECT, f"the sandbox: {type(error).__name__}", cure)
    match = _OVERALL.search(done.stdout)
    if match is None:
        what = "the sandbox: systemd-analyze is too old, or can't read the unit"
        return unseen(_SUBJECT, what, f"try: {' '.join(command)}")
    exposure = float(match[1])
    text = f"{unit.name}: exposure {exposure} of 10 (systemd-analyze security)"
    if exposure <= _MOST_EXPOSED:
        return good(_SUBJECT, text)
    level = bad if exposure > _FAR_TOO_EXPOSED else warning
    return level(_SUBJECT, f"{text}; expected {_MOST_EXPOSED} at most", cure)
