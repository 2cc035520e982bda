"""What `fasthook init` writes projects with: names that can be imported, files, secrets."""

import importlib.util
import keyword
import re
import secrets
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from fasthook.dispatch import registry
from fasthook.errors import ConfigError
from fasthook.intake.schemes import Scheme
from fasthook.intake.signing import sample_secret

#: Stands where the sender's public key belongs.
_KEY_TO_COME: Final = "put the public key here that the sender shows"


def check_directory(directory: Path) -> None:
    """Raise `ConfigError` if a project can't stand there."""
    if directory.exists() and not directory.is_dir():
        raise ConfigError(f"{directory}: a file stands there; expected a directory, or nothing")


def check_absent(paths: Iterable[Path]) -> None:
    """Raise `ConfigError` if one of the files exists: nothing is overwritten."""
    for path in paths:
        if path.exists():
            raise ConfigError(f"{path}: exists already; nothing was written")


def step_into(directory: Path) -> str:
    """The line of a shell that leads there, before a next one; nothing if we are there."""
    is_here = directory.absolute() == Path.cwd()
    return "" if is_here else f"cd {shlex.quote(str(directory))}\n  "


def package_name(directory: Path) -> str:
    """A name that Python can import, after the directory's, and that nothing else has."""
    name = re.sub(r"\W+", "_", directory.absolute().name.lower(), flags=re.ASCII).strip("_")
    taken = ("fasthook", "tests", *sys.stdlib_module_names, *registry.installed())
    is_free = name and name not in taken and importlib.util.find_spec(name) is None
    if not is_free or name[0].isdigit() or keyword.iskeyword(name):
        name = f"hooks_{name}".rstrip("_")
    return name


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a new file, and the directories above it. Raises `FileExistsError`."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755 if mode == 0o644 else 0o700)
    path.touch(mode=mode, exist_ok=False)
    path.write_text(text, encoding="utf-8")


def write_secret(path: Path, scheme: Scheme) -> None:
    """Write a new secret of the scheme's form, for its owner alone."""
    try:
        secret = sample_secret(scheme, secrets.token_bytes(32))
    except ConfigError:  # a key that only the sender can have made
        secret = _KEY_TO_COME
    write(path, secret + "\n", 0o600)
