"""`fasthook serve`: run until told to stop."""

import asyncio
import os
import signal
import threading
from pathlib import Path

import click
import uvloop

from fasthook import __version__, config, plan
from fasthook.cli.options import config_option
from fasthook.config import Config
from fasthook.logs import log
from fasthook.plan import Plan
from fasthook.service import Service

#: For threads to end once they are told to.
_THREAD_GRACE_S = 0.2


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
    log.start_writer()
    log.info("starting", version=__version__, config=str(config_path), pid=os.getpid())
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings, made))
        _leave_threads_behind()
    finally:
        log.stop_writer()


async def _serve(settings: Config, made: Plan) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    told = 0

    # Not the loop's own signal handling: the second signal must work also when a handler holds the
    # loop.
    def on_signal(number: int, frame: object) -> None:
        nonlocal told
        told += 1
        if told > 1:
            log.error("killed", reason="second signal while draining")
            log.stop_writer()
            os._exit(1)
        loop.call_soon_threadsafe(stop.set)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    service = Service(settings, made, log)
    service.start()
    await stop.wait()
    await service.stop()
    told = 0  # from here on there is nothing to drain, and nothing to lose
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others and (await asyncio.wait(others, timeout=_THREAD_GRACE_S))[1]:
        log.warning("left behind", tasks=" ".join(task.get_name() for task in others))
        log.stop_writer()
        os._exit(0)  # a handler that swallows its cancellation would hold us for ever


def _leave_threads_behind() -> None:
    """End although a handler's thread goes on: a thread can't be ended, and Python would wait."""
    threads = [t for t in threading.enumerate() if t is not threading.current_thread()]
    for thread in threads:
        if not thread.daemon:
            thread.join(_THREAD_GRACE_S)
    left = [t.name for t in threads if t.is_alive() and not t.daemon]
    if left:
        log.warning("left behind", threads=" ".join(left))
        log.stop_writer()
        os._exit(0)
