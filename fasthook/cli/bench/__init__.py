"""`fasthook bench`: what this machine does with this configuration."""

import contextlib
import math
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click
import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from fasthook import config
from fasthook.cli.bench.load import Load, Loaded, Senders, steadily
from fasthook.cli.bench.own import Own, Running, derived, new_folder, wire
from fasthook.cli.bench.report import Measured, report_of, show_report
from fasthook.cli.options import RateType, config_option, json_option
from fasthook.cli.reading import echo_json, say
from fasthook.config import Config
from fasthook.errors import ConfigError

_WARM_UP: Final = 400
#: Signed before they are sent, since signing takes as long as receiving does.
_SIGNED_BYTES: Final = 256 * 1024**2
_SYNC_S: Final = 0.5
_SYNCS: Final = 500
_BLOCK: Final = bytes(8192)
_SETTLE_S: Final = 10.0
_CONNECTIONS: Final = 64


@click.command("bench")
@config_option
@json_option
@click.option("--seconds", type=click.FloatRange(0.1, 3600), default=5.0, show_default=True)
@click.option("--rate", type=RateType(), help='Send "500/s"; else as fast as it is answered.')
@click.option("--endpoint", "names", multiple=True, help="Of this one alone; several times: these.")
@click.option("--body", "body_file", type=click.File("rb"), help="A file, or -: sent as each body.")
@click.option(
    "--connections",
    type=click.IntRange(1, 10_000),
    default=_CONNECTIONS,
    show_default=True,
    help="With one request under way each.",
)
@click.option("--handlers", "keeps_handlers", is_flag=True, help="YOUR handlers run.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    help="Where the temporary spool is made; by default beside the configured one.",
)
def command(config_path: Path, as_json: bool, **options: Any) -> None:
    """Measure this machine with this configuration: rate, latency, CPU, disk and memory.

    Starts a service of its own, on a temporary spool and a port of the loopback, and sends it
    signed events. Yours is not asked, its spool not touched, its secrets not read, and its
    handlers are replaced by ones that do nothing, unless --handlers is given. Exit code 1: some
    event was not answered 2xx.
    """
    settings = config.load(config_path, has_secrets=False)
    _check_names(settings, options["names"])
    body = options["body_file"].read() if options["body_file"] is not None else None
    folder = new_folder(settings, options["folder"])
    with _ended_by_signals():
        try:
            own = derived(
                settings,
                options["names"],
                body,
                folder,
                keeps_handlers=options["keeps_handlers"],
            )
            measured = _measure(own, folder, options)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    report = report_of(settings, own, measured, options["rate"], options["connections"])
    if as_json:
        echo_json(report)
    else:
        show_report(report)
    for complaint in report.complaints:
        say(f"error: {complaint}")
    sys.exit(1 if report.complaints else 0)


def _check_names(settings: Config, names: Sequence[str]) -> None:
    known = [endpoint.name for endpoint in settings.endpoint]
    for name in names:
        if name not in known:
            raise ConfigError(
                f"{settings.source}: no endpoint {name!r}; it has: {', '.join(known)}"
            )


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM ends it like Ctrl-C: what was started and made is cleared away."""
    former = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def _measure(own: Own, folder: Path, options: dict[str, Any]) -> Measured:
    syncs_s = _sync_often(folder)
    with Running(own, folder) as running:
        session = _Session(own, running, options)
        session.warm_up()
        before, cpu_s = running.counted(), running.cpu_s()
        session.run()
        running.settle(_SETTLE_S)
        cpu_s, after = running.cpu_s() - cpu_s, running.counted()
        counts = {key: count - before.get(key, 0) for key, count in after.items()}
        size = session.request_bytes
        return Measured(session.loads, size, syncs_s, cpu_s, counts, running.peak_bytes())


def _sync_often(folder: Path) -> list[float]:
    """How long the disk takes for as much as a small batch, again and again."""
    took_s: list[float] = []
    ends = time.monotonic() + _SYNC_S
    with tempfile.TemporaryFile(dir=folder) as file:
        while time.monotonic() < ends and len(took_s) < _SYNCS:
            os.write(file.fileno(), _BLOCK)
            began_s = time.perf_counter()
            os.fdatasync(file.fileno())
            took_s.append(time.perf_counter() - began_s)
    return took_s


class _Session:
    """Signs, sends, and says how far it is."""

    def __init__(self, own: Own, running: Running, options: dict[str, Any]) -> None:
        self._signers = own.signers
        self._running = running
        self._rate = options["rate"]
        self._seconds: float = options["seconds"]
        self._connections: int = options["connections"]
        self.loads: list[Loaded] = []
        self._guess = 0.0  # of events a second
        sizes = [len(wire(signer)) for signer in self._signers]
        self.request_bytes = sum(sizes) / len(sizes)

    def warm_up(self) -> None:
        """The first events, which do not count. Raises `ConfigError` where they are refused."""
        for signer in self._signers:
            loaded = self._sent([wire(signer)])
            status = loaded.answered[0].status if loaded.answered else 0
            if not 200 <= status < 300:
                what = f"endpoint {signer.endpoint}: its own service answered {status or 'nothing'}"
                raise ConfigError(f"{what}: {self._running.last_words()}")
        loaded = self._sent(self._signed(_WARM_UP))
        self._guess = len(loaded.answered) / loaded.took_s

    def run(self) -> None:
        """For so many seconds of sending."""
        console = Console(stderr=True)
        columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[now]}")
        with Progress(
            *columns, console=console, transient=True, disable=not console.is_terminal
        ) as progress:
            done_s = 0.0
            while (left_s := self._seconds - done_s) > 0.02 * self._seconds:
                # More than are likely to be needed: how many are depends on the next seconds.
                rate = self._rate or max(1.0, 1.5 * self._guess)
                room_s = _SIGNED_BYTES / self.request_bytes / rate
                part_s = min(left_s, max(room_s, 1 / rate))
                requests = self._signed(max(1, round(rate * part_s)), progress)
                dues = steadily(self._rate, part_s) if self._rate else None
                task = progress.add_task("sending", total=part_s, now="")

                def show(now_s: float, answered: int, task: TaskID = task) -> None:
                    rate = f"{answered / now_s:,.0f}/s"
                    progress.update(task, completed=now_s, now=rate)

                loaded = self._sent(requests, dues, part_s, show)
                self._running.check()
                progress.remove_task(task)
                self.loads.append(loaded)
                self._guess = len(loaded.answered) / loaded.took_s
                done_s += loaded.took_s

    def _signed(self, count: int, progress: Progress | None = None) -> list[bytes]:
        signers = self._signers
        numbers: Iterable[int] = range(count)
        if progress is not None:
            task = progress.add_task("signing", total=count, now="")
            numbers = progress.track(numbers, task_id=task)
        signed = [wire(signers[number % len(signers)]) for number in numbers]
        if progress is not None:
            progress.remove_task(task)
        return signed

    def _sent(
        self,
        requests: list[bytes],
        dues: Iterator[float] | None = None,
        for_s: float = math.inf,
        on_tick: Callable[[float, int], None] = lambda now_s, answered: None,
    ) -> Loaded:
        load = Load(
            self._running.port,
            iter(requests),
            Senders(self._connections),
            dues=dues,
            for_s=for_s,
            on_tick=on_tick,
        )
        return uvloop.run(load.run())
