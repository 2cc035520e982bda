"""The commands. Each takes arguments, makes one call, and ends with an exit code.

0: good. 1: the thing asked about is bad. 2: wrong use, or a wrong configuration.
"""

import sys
from importlib import import_module
from typing import Any

import click

from fasthook import __version__
from fasthook.errors import ConfigError

#: Command → its module; only the one that is asked for is imported.
_COMMANDS = (
    "serve",
    "check",
    "init",
    "providers",
    "pair",
    "send",
    "explain",
    "import",
    "events",
    "show",
    "tail",
    "dead",
    "replay",
    "handlers",
    "pause",
    "resume",
    "export",
    "types",
    "drift",
    "forget",
    "rejects",
    "spool",
    "doctor",
    "bench",
)


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = "importing" if cmd_name == "import" else cmd_name
        command: click.Command = import_module(f"fasthook.cli.{module}").command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(2)


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fasthook")
def main() -> None:
    """A webhook receiver: verifies, keeps, then handles."""
