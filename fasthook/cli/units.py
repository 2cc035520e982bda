"""What `fasthook init --systemd` writes: units for systemd, and a configuration for them."""

import secrets
import stat
import sys
from importlib import resources
from pathlib import Path
from string import Template
from typing import Final

import click

from fasthook.errors import ConfigError
from fasthook.intake import catalogue
from fasthook.intake.signing import sample_secret

_UNITS: Final = resources.files("fasthook.cli") / "systemd"
_TEMPLATE: Final = resources.files("fasthook.cli") / "template" / "service.toml.txt"
#: The program as the units have it, to be replaced.
_PROGRAM: Final = "/opt/fasthook/bin/fasthook"
#: Written anew each time: what an operator changes goes into drop-ins in /etc.
_UNIT_FOLDER: Final = Path("usr/local/lib/systemd")
_UNIT_FILES: Final = (
    "fasthook.service",
    "fasthook.socket",
    "fasthook-admin.socket",
    "fasthook.service.d/handlers-call-out.conf.example",
    "fasthook.service.d/notify-reload.conf.example",
)
_CATALOG: Final = "fasthook.catalog"  # what `journalctl -x` says to each kind of line
_CONFIG: Final = Path("etc/fasthook/fasthook.toml")
_SECRETS: Final = Path("etc/fasthook/secrets")
_DROPIN: Final = Path("etc/systemd/system/fasthook.service.d/secrets.conf")
_DROPIN_TEXT: Final = """\
# Secrets of fasthook: `credential:NAME` in /etc/fasthook/fasthook.toml is the one of that name.
# One line for each. After a change: systemctl daemon-reload && systemctl restart fasthook
# (which fails no request). With a TPM, see `systemd-creds encrypt` and LoadCredentialEncrypted=.

[Service]
LoadCredential={name}:/{path}
"""
#: Stands where the sender's public key belongs.
_KEY_TO_COME: Final = "put the public key here that the sender shows"


def write(root: Path, provider: str) -> None:
    """Write units, and what is not there yet of the rest, below `root`; say what comes next.

    `root`: of the machine. Raises `ConfigError`.
    """
    if not root.is_dir():
        raise ConfigError(f"{root}: no directory; expected the root of a machine, such as /")
    known = catalogue.load(provider)
    if known.schemes[known.default_scheme].fetch is not None:
        raise ConfigError(
            f"--provider: the keys of {known.name} are fetched, and the service has no network; "
            "begin with another, and add this one together with handlers-call-out.conf.example"
        )
    try:
        secret = sample_secret(known.schemes[known.default_scheme], secrets.token_bytes(32))
    except ConfigError:  # a key that only the sender can have made
        secret = _KEY_TO_COME
    program = Path(sys.prefix, "bin", "fasthook")
    try:
        _write_units(root, program)
        is_new = not (root / _CONFIG).exists()
        if is_new:
            _write_configuration(root, provider, secret)
    except OSError as error:
        why = f"{error.filename}: {error.strerror}"
        raise ConfigError(f"{why}; expected to be root, as in `sudo fasthook init`") from None
    click.echo(f"Units stand in {root / _UNIT_FOLDER / 'system'}; they start {program}.")
    if hidden := _hidden(program):
        click.echo(f"\nThe service's user can't reach {hidden}: install fasthook below /opt.")
    if is_new:
        secret_path = root / _SECRETS / provider
        click.echo(f"{root / _CONFIG} is for {known.name}; its secret is in {secret_path}.")
    else:
        click.echo(f"{root / _CONFIG} was there, and is as it was.")
    click.echo(
        "\n  systemctl daemon-reload"
        "\n  systemctl enable --now fasthook.socket fasthook-admin.socket fasthook.service"
        "\n  curl http://127.0.0.1:8081/readyz"
    )


def _write_units(root: Path, program: Path) -> None:
    folders = {name: "system" for name in _UNIT_FILES} | {_CATALOG: "catalog"}
    for name, folder in folders.items():
        text = (_UNITS / name).read_text(encoding="utf-8")
        path = root / _UNIT_FOLDER / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace(_PROGRAM, str(program)), encoding="utf-8")
        path.chmod(0o644)


def _write_configuration(root: Path, provider: str, secret: str) -> None:
    values = {"provider": provider, "dropin": f"/{_DROPIN}", "prefix": sys.prefix}
    text = Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(values)
    _write_new(root / _SECRETS / provider, secret + "\n", 0o600)
    _write_new(root / _DROPIN, _DROPIN_TEXT.format(name=provider, path=_SECRETS / provider), 0o644)
    _write_new(root / _CONFIG, text, 0o644)  # last: where it is, the rest is


def _write_new(path: Path, text: str, mode: int) -> None:
    """What exists is left alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if mode == 0o600:
        path.parent.chmod(0o700)
    if not path.exists():
        path.touch(mode=mode, exist_ok=False)
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)


def _hidden(program: Path) -> Path | None:
    """What on the way to the program, or to its interpreter, another user can't enter."""
    for path in (program, Path(sys.executable).resolve()):
        for folder in path.parents:
            if not folder.stat().st_mode & stat.S_IXOTH:
                return folder
    return None
