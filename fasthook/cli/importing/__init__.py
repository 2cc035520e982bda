"""`fasthook import`: a configuration for the hooks of adnanh/webhook.

hooks     its files
rules     trigger rules → schemes, networks, conditions
written   a hook → text, secrets, and what behaves otherwise
"""

import sys
from pathlib import Path

import click

from fasthook.cli.importing.hooks import read
from fasthook.cli.importing.rules import CantImport
from fasthook.cli.importing.written import Written, written
from fasthook.cli.options import json_option
from fasthook.cli.reading import echo_json, say
from fasthook.errors import ConfigError
from fasthook.logs import escape

_HEAD = (
    "# Made by `fasthook import` of {source}; `fasthook check` says whether it fits this machine.\n"
)
_SERVER = '\n[server]\nlisten = ["tcp://127.0.0.1:9000"]\n\n'


@click.command("import")
@click.argument("hooks", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("."),
    help="The directory for fasthook.toml and secrets/.",
)
@click.option("--prefix", default="hooks", show_default=True, help="webhook's -urlprefix.")
@click.option("--template", "is_template", is_flag=True, help="webhook's -template.")
@json_option
def command(hooks: Path, out: Path, prefix: str, is_template: bool, as_json: bool) -> None:
    """Write a configuration for the hooks of adnanh/webhook, in JSON or YAML.

    What behaves otherwise is said for each hook. One that can't be imported is left out, and said:
    then the exit code is 1.
    """
    found, left_out = dict[str, Written](), dict[str, str]()
    for hook in read(hooks, is_template=is_template):
        try:
            one = written(hook, prefix.strip("/"))
            if one.name in {other.name for other in found.values()}:
                raise CantImport(f"another one would have its name here, {one.name}")
            found[hook.id] = one
        except CantImport as error:
            left_out[hook.id] = str(error)
    _write(hooks, out, found)
    if as_json:
        notes = {name: one.notes for name, one in found.items()}
        echo_json({"imported": notes, "left_out": left_out})
    else:
        for name, one in found.items():
            click.echo(f"{escape(name)}: imported; otherwise than before:")
            for note in one.notes:
                click.echo(f"  - {escape(note)}")
        for name, why in left_out.items():
            say(f"{escape(name)}: left out: {escape(why)}")
    if left_out:
        sys.exit(1)


def _write(source: Path, out: Path, found: dict[str, Written]) -> None:
    path = out / "fasthook.toml"
    text = _HEAD.format(source=source.name) + _SERVER
    text += "\n".join(one.text for one in found.values())
    try:
        out.mkdir(parents=True, exist_ok=True)
        if path.exists():
            raise ConfigError(f"{path}: there already; give another --out")
        for one in found.values():
            for name, secret in one.secrets.items():
                file = out / name.removeprefix("file:")
                file.parent.mkdir(mode=0o700, exist_ok=True)
                file.touch(mode=0o600, exist_ok=False)
                file.write_text(secret, encoding="utf-8")
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{error.filename or path}: {error.strerror}") from None
