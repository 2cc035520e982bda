"""`fasthook init`: a small project with a handler of one's own, ready to run; or nginx's part."""

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

from fasthook import config
from fasthook.cli import units
from fasthook.dispatch import registry
from fasthook.errors import ConfigError
from fasthook.intake import catalogue
from fasthook.intake.catalogue import Provider
from fasthook.intake.schemes import Scheme
from fasthook.intake.signing import sample_secret

_FILES = resources.files("fasthook.cli") / "template"


#: What stands in the block for nginx, to be replaced.
_HOST = "hooks.example.com"
_SOCKET = "/run/fasthook/fasthook.sock"
_MAX_BODY = "client_max_body_size 25m;"
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"


@click.command("init")
@click.argument("directory", type=click.Path(path_type=Path), default=None, required=False)
@click.option("--provider", default="github", show_default=True, help="Who will send.")
@click.option("--nginx", "host", metavar="HOST", help="Write HOST.conf for nginx, and no project.")
@click.option(
    "-c",
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    help="With --nginx: take socket and largest body from this file.",
)
@click.option(
    "--systemd",
    "is_service",
    is_flag=True,
    help="Write units and a configuration for them below DIRECTORY (/), and no project.",
)
def command(
    directory: Path | None,
    provider: str,
    host: str | None,
    config_path: Path | None,
    is_service: bool,
) -> None:
    """Write a small project into DIRECTORY: configuration, handler, test, secret.

    Nothing that exists is overwritten.
    """
    if host is not None and is_service:
        raise click.UsageError("expected --nginx or --systemd, one at a time")
    if host is not None:
        _write_nginx(directory or Path(), host.lower().rstrip("."), config_path)
        return
    if config_path is not None:
        raise click.UsageError("-c: has a meaning with --nginx alone")
    if provider in ("none", "custom"):
        raise click.UsageError("--provider: expected one of `fasthook providers`")
    if is_service:
        units.write(directory or Path("/"), provider)
        return
    _write_project(directory or Path(), catalogue.load(provider))


def _write_project(directory: Path, known: Provider) -> None:
    provider = known.id
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


def _write_nginx(directory: Path, host: str, config_path: Path | None) -> None:
    """The server block for `host`, which is read within `http { }`."""
    if len(host) > 253 or not re.fullmatch(rf"{_LABEL}(\.{_LABEL})+", host):
        raise click.UsageError(f"--nginx: {host!r}; expected a host name, such as {_HOST}")
    if not directory.is_dir():
        raise ConfigError(f"{directory}: no directory; expected one such as /etc/nginx/conf.d")
    text = (_FILES / "nginx.conf.txt").read_text(encoding="utf-8").replace(_HOST, host)
    if config_path is not None:
        settings = config.load(config_path, has_secrets=False)
        sockets = [a.removeprefix("unix:") for a in settings.server.listen if a[:5] == "unix:"]
        if sockets:
            if not re.fullmatch(r"[\w./@+-]+", sockets[0]):
                raise ConfigError(f"{config_path}: server.listen: nginx can't take {sockets[0]!r}")
            text = text.replace(_SOCKET, str(config_path.absolute().parent / sockets[0]))
        largest = max(e.max_body or settings.server.max_body for e in settings.endpoint)
        text = text.replace(_MAX_BODY, f"client_max_body_size {max(1, largest)};")
    path = directory / f"{host}.conf"
    if path.exists():
        raise ConfigError(f"{path}: exists already; nothing was written")
    _write(path, text)
    click.echo(
        f"nginx's part for {host} stands in {path.absolute()}.\n\n"
        f"  certbot certonly --webroot -w /var/www/acme -d {host}\n"
        f"  nginx -t && systemctl reload nginx"
    )


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
