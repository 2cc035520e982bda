"""Values with units, and secrets: how they are written in a configuration, and what they become.

Each is a plain number (or bytes) to whoever uses it; `decode` is msgspec's hook for reading them.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from fasthook.errors import ConfigError

_DURATION_S: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SIZE_BYTES: Final = {
    "": 1,
    "B": 1,
    "kB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
    "TiB": 1024**4,
}
_NUMBER: Final = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*(.*?)\s*", re.ASCII)
#: Shorter secrets work, but can be guessed from one signed request; `check` warns of them.
SHORT_SECRET_BYTES: Final = 16


class Duration(float):
    """Seconds, written "250ms", "5s", "2m", "1h", "7d", "1w"."""

    @classmethod
    def parse(cls, text: str) -> "Duration":
        """Raises `ValueError`."""
        number, unit = _split(text, _EXPECTED[cls], _DURATION_S)
        return cls(number * _DURATION_S[unit])


class Size(int):
    """Bytes, written "64KiB", "1MiB", "10GiB", "500MB"."""

    @classmethod
    def parse(cls, text: str) -> "Size":
        """Raises `ValueError`."""
        number, unit = _split(text, _EXPECTED[cls], _SIZE_BYTES)
        return cls(number * _SIZE_BYTES[unit])


class Rate(float):
    """Times a second, written "200/s", "1000/m", "5/h"."""

    @classmethod
    def parse(cls, text: str) -> "Rate":
        """Raises `ValueError`."""
        expected = _EXPECTED[cls]
        units = {"/" + unit: seconds for unit, seconds in _DURATION_S.items() if unit in "smhd"}
        number, unit = _split(text, expected, units)
        if not number:
            raise ValueError(f"{text!r}; expected {expected}")
        return cls(number / units[unit])


def _split(text: str, expected: str, units: Mapping[str, float]) -> tuple[float, str]:
    match = _NUMBER.fullmatch(text)
    if match is None or match[2] not in units:
        raise ValueError(f"{text!r}; expected {expected}")
    return float(match[1]), match[2]


class Secret:
    """Bytes that never show: not in a log, an error, a repr or a pickle."""

    __slots__ = ("_value", "source")

    def __init__(self, value: bytes, source: str) -> None:
        self._value = value
        self.source = source  # "env:NAME" and the like; "plain" without its text

    @classmethod
    def parse(cls, reference: str) -> "Secret":
        """The secret behind "env:", "file:", "credential:" or "plain:". Raises `ValueError`."""
        kind, colon, name = reference.partition(":")
        reader = _SECRET_READERS.get(kind)
        if not colon or reader is None or not name:
            # What was written may be the secret itself, so it is not shown.
            raise ValueError("expected env:NAME, file:PATH, credential:NAME or plain:SECRET")
        value = reader(name)
        if not value.strip():
            raise ValueError(f"{_public(kind, name)}: the secret is empty")
        if b"\0" in value:
            raise ValueError(f"{_public(kind, name)}: the secret contains a NUL byte")
        return cls(value, _public(kind, name))

    def reveal(self) -> bytes:
        """The secret itself."""
        return self._value

    @property
    def is_short(self) -> bool:
        """Whether it has fewer than `SHORT_SECRET_BYTES`."""
        return len(self._value) < SHORT_SECRET_BYTES

    @property
    def is_wrapped(self) -> bool:
        """Whether white space or quotes stand around it: they are part of it, and rarely meant to.

        Around a key in PEM or JSON white space means nothing.
        """
        bare = self._value.strip()
        if bare.startswith((b"-----BEGIN", b"{")):
            return False
        return bare != self._value or (
            len(bare) > 1 and bare[:1] == bare[-1:] and bare[:1] in b"\"'"
        )

    def __repr__(self) -> str:
        return f"Secret({self.source})"

    def __reduce__(self) -> Any:
        raise TypeError("a secret is not pickled")


def _public(kind: str, name: str) -> str:
    return kind if kind == "plain" else f"{kind}:{name}"


def _from_environment(name: str) -> bytes:
    value = os.environb.get(name.encode())
    if value is None:
        raise ValueError(f"env:{name}: the environment variable is not set")
    return value


def _from_file(path: str) -> bytes:
    try:
        value = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"file:{path}: {error.strerror}") from None
    # Editors and `echo` end a file with one line break; more than that belongs to the secret.
    return value.removesuffix(b"\n").removesuffix(b"\r")


def _from_credentials(name: str) -> bytes:
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if directory is None:
        raise ValueError(f"credential:{name}: not started by systemd (CREDENTIALS_DIRECTORY)")
    if "/" in name:
        raise ValueError(f"credential:{name}: expected a name, not a path")
    return _from_file(f"{directory}/{name}")


_SECRET_READERS: Final = {
    "env": _from_environment,
    "file": _from_file,
    "credential": _from_credentials,
    "plain": str.encode,
}

#: What a configuration may hold beside TOML's own types, and how each is written.
_EXPECTED: Final[dict[type, str]] = {
    Duration: 'a time such as "5s", "2m", "1h" or "7d"',
    Size: 'a size such as "64KiB" or "10GiB"',
    Rate: 'a rate above zero, such as "200/s", "1000/m" or "5/h"',
    Secret: 'text such as "env:NAME", "file:PATH", "credential:NAME" or "plain:SECRET"',
}


def decode(wanted: type, given: Any) -> Any:
    """msgspec's `dec_hook` for the types of this module."""
    if wanted in _EXPECTED:
        if isinstance(given, str):
            return wanted.parse(given)  # type: ignore[attr-defined]
        if wanted is Size and isinstance(given, int) and not isinstance(given, bool):
            return Size.parse(str(given))
        raise ValueError(f"got {type(given).__name__}; expected {_EXPECTED[wanted]}")
    raise ConfigError(f"no way to read a {wanted.__name__}")


def decode_without_secrets(wanted: type, given: Any) -> Any:
    """The same for whoever needs none of the secrets: they are not read, and empty."""
    if wanted is Secret:
        return Secret(b"", str(given).partition(":")[0])
    return decode(wanted, given)
