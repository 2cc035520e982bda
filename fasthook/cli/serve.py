"""`fasthook serve`: run until told to stop."""

import asyncio
import os
import signal
from pathlib import Path

import click
import uvloop

from fasthook import __version__, config, plan
from fasthook.cli.options import config_option
from fasthook.config import Config
from fasthook.logs import log
from fasthook.plan import Plan
from fasthook.service import Service


@click.command("serve")
@config_option
def command(config_path: Path) -> None:
    """Receive webhooks until SIGTERM or Ctrl-C, then drain.

    A second signal ends it at once.
    """
    settings = config.load(config_path)
    log.configure(settings.log.format, settings.log.level)
    made = plan.make(settings)
    for warning in made.warnings:
        log.warning("check", warning=warning)
    log.info("starting", version=__version__, config=str(config_path), pid=os.getpid())
    if settings.spool.durability == "none":
        log.warning("check", warning='durability = "none": events are lost if the process dies')
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings, made))
    finally:
        log.flush()


async def _serve(settings: Config, made: Plan) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            log.error("killed", reason="second signal while draining")
            log.flush()
            os._exit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    service = Service(settings, made, log)
    service.start()
    await stop.wait()
    await service.stop()
