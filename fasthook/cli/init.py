"""`fasthook init`: a small project with a handler of one's own, ready to run; or nginx's part."""

import re
from importlib import resources
from pathlib import Path
from string import Template

import click
from click.core import ParameterSource

from fasthook import config
from fasthook.cli import project, recipes, units
from fasthook.errors import ConfigError
from fasthook.intake import catalogue
from fasthook.intake.catalogue import Provider

_FILES = resources.files("fasthook.cli") / "template"


#: What stands in the block for nginx, to be replaced.
_HOST = "hooks.example.com"
_SOCKET = "/run/fasthook/fasthook.sock"
_MAX_BODY = "client_max_body_size 25m;"
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"


@click.command("init")
@click.argument("directory", type=click.Path(path_type=Path), default=None, required=False)
@click.option("--provider", default="github", show_default=True, help="Who will send.")
@click.option(
    "--recipe",
    type=click.Choice(recipes.NAMES),
    help='Write a whole project for one of these jobs: README, "Recipes".',
)
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
@click.pass_context
def command(
    context: click.Context,
    directory: Path | None,
    provider: str,
    recipe: str | None,
    host: str | None,
    config_path: Path | None,
    is_service: bool,
) -> None:
    """Write a small project into DIRECTORY: configuration, handler, test, secret.

    Nothing that exists is overwritten.
    """
    has_provider = context.get_parameter_source("provider") is not ParameterSource.DEFAULT
    if (host is not None) + is_service + (recipe is not None) > 1:
        raise click.UsageError("expected --recipe, --nginx or --systemd, one at a time")
    if recipe is not None and has_provider:
        raise click.UsageError("--provider: a recipe has its own; change its fasthook.toml")
    if host is not None:
        _write_nginx(directory or Path(), host.lower().rstrip("."), config_path)
        return
    if config_path is not None:
        raise click.UsageError("-c: has a meaning with --nginx alone")
    if recipe is not None:
        recipes.write(directory or Path(), recipe)
        return
    if provider in ("none", "custom"):
        raise click.UsageError("--provider: expected one of `fasthook providers`")
    if is_service:
        units.write(directory or Path("/"), provider)
        return
    _write_project(directory or Path(), catalogue.load(provider))


def _write_project(directory: Path, known: Provider) -> None:
    provider = known.id
    project.check_directory(directory)
    package = project.package_name(directory)
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
    project.check_absent(directory / path for path in (*files, Path("secrets", provider)))
    for path, template in files.items():
        text = Template((_FILES / f"{template}.txt").read_text(encoding="utf-8"))
        project.write(directory / path, text.substitute(values))
    scheme = known.schemes[known.default_scheme]
    if scheme.fetch is None:
        project.write_secret(directory / "secrets" / provider, scheme)
    _say_what_next(directory, known)


def _trust_of(known: Provider) -> str:
    """The lines of the endpoint that say how its sender is known."""
    scheme = known.schemes[known.default_scheme]
    if scheme.fetch is None:
        return f'secrets  = ["file:secrets/{known.id}"]'
    return "\n".join(f'config.{name} = "PUT THE SENDER\'S HERE"' for name in scheme.settings)


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
    project.check_absent([path])
    project.write(path, text)
    click.echo(
        f"nginx's part for {host} stands in {path.absolute()}.\n\n"
        f"  certbot certonly --webroot -w /var/www/acme -d {host}\n"
        f"  nginx -t && systemctl reload nginx"
    )


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
    step = project.step_into(directory)
    click.echo(
        f"A project for {provider} stands in {directory.absolute()}.\n\n"
        f"  {step}pip install -e .\n"
        f"  fasthook serve\n\n"
        f"and in another terminal:\n\n"
        f"  {step}fasthook send {provider}\n\n"
        f"{secret}"
    )
