"""`fasthook serve`: run until told to stop."""

import os
import sys
from pathlib import Path

import click

from fasthook.cli.options import config_option
from fasthook.supervisor import Supervisor


@click.command("serve")
@config_option
def command(config_path: Path) -> None:
    """Receive webhooks until SIGTERM or Ctrl-C, then drain; SIGHUP loads the configuration again.

    A second signal ends it at once.
    """
    # For what handlers call (`expect`), also in processes of their own.
    os.environ["FASTHOOK_CONFIG"] = str(config_path.absolute())
    sys.exit(Supervisor(config_path).run())
