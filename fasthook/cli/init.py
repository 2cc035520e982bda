"""`fasthook init`: a small project with a handler of one's own, ready to run."""

import importlib.util
import keyword
import re
import secrets
import shlex
import sys
from importlib import resources
from pathlib import Path
from string import Template

import click

from fasthook.dispatch import registry
from fasthook.errors import ConfigError
from fasthook.intake import catalogue
from fasthook.intake.catalogue import Provider
from fasthook.intake.schemes import Scheme
from fasthook.intake.signing import sample_secret

_FILES = resources.files("fasthook.cli") / "template"


@click.command("init")
@click.argument("directory", type=click.Path(path_type=Path), default=Path())
@click.option("--provider", default="github", show_default=True, help="Who will send.")
def command(directory: Path, provider: str) -> None:
    """Write a small project into DIRECTORY: configuration, handler, test, secret.

    Nothing that exists is overwritten.
    """
    if provider in ("none", "custom"):
        raise click.UsageError("--provider: expected one of `fasthook providers`")
    known = catalogue.load(provider)
    if directory.exists() and not directory.is_dir():
        raise ConfigError(f"{directory}: a file stands there; expected a directory, or nothing")
    package = _package_name(directory)
    values = {
        "package": package,
        "provider": provider,
        "name": known.name,
        "event": next(iter(known.samples), "event"),
        "trust": _trust_of(known),
    }
    files = {
        Path("pyproject.toml"): "pyproject.toml",
        Path("fasthook.toml"): "fasthook.toml",
        Path(package, "__init__.py"): "__init__.py",
        Path(package, "handlers.py"): "handlers.py",
        Path("tests", "test_handlers.py"): "test_handlers.py",
        Path(".gitignore"): "gitignore",
    }
    existing = [path for path in (*files, Path("secrets", provider)) if (directory / path).exists()]
    if existing:
        raise ConfigError(f"{directory / existing[0]}: exists already; nothing was written")
    for path, template in files.items():
        text = Template((_FILES / f"{template}.txt").read_text(encoding="utf-8"))
        _write(directory / path, text.substitute(values))
    scheme = known.schemes[known.default_scheme]
    if scheme.fetch is None:
        _write_secret(directory / "secrets" / provider, scheme)
    _say_what_next(directory, known)


def _trust_of(known: Provider) -> str:
    """The lines of the endpoint that say how its sender is known."""
    scheme = known.schemes[known.default_scheme]
    if scheme.fetch is None:
        return f'secrets  = ["file:secrets/{known.id}"]'
    return "\n".join(f'config.{name} = "PUT THE SENDER\'S HERE"' for name in scheme.settings)


def _write_secret(path: Path, scheme: Scheme) -> None:
    try:
        secret = sample_secret(scheme, secrets.token_bytes(32))
    except ConfigError:  # a key that only the sender can have made
        secret = _KEY_TO_COME
    _write(path, secret + "\n", 0o600)


#: Stands where the sender's public key belongs.
_KEY_TO_COME = "put the public key here that the sender shows"


def _package_name(directory: Path) -> str:
    name = re.sub(r"\W+", "_", directory.absolute().name.lower(), flags=re.ASCII).strip("_")
    taken = ("fasthook", "tests", *sys.stdlib_module_names, *registry.installed())
    is_free = name and name not in taken and importlib.util.find_spec(name) is None
    if not is_free or name[0].isdigit() or keyword.iskeyword(name):
        name = f"hooks_{name}".rstrip("_")
    return name


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755 if mode == 0o644 else 0o700)
    path.touch(mode=mode, exist_ok=False)
    path.write_text(text, encoding="utf-8")


def _say_what_next(directory: Path, known: Provider) -> None:
    provider = known.id
    secret = f"The secret to enter at the provider is in secrets/{provider}."
    if known.handovers:
        secret = (
            f"secrets/{provider} is for tests of your own; {known.name} hands over its secret:\n"
            f"`fasthook pair {provider}` takes it."
        )
    if known.schemes[known.default_scheme].fetch is not None:
        secret = f"There is no secret: {known.name} publishes its keys, and they are fetched."
    step = f"cd {shlex.quote(str(directory))}\n  " if directory.absolute() != Path.cwd() else ""
    click.echo(
        f"A project for {provider} stands in {directory.absolute()}.\n\n"
        f"  {step}pip install -e .\n"
        f"  fasthook serve\n\n"
        f"and in another terminal:\n\n"
        f"  {step}fasthook send {provider}\n\n"
        f"{secret}"
    )
