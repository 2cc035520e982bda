"""All that one run found."""

import contextlib
import datetime
import importlib.metadata
import os
import platform
import re
import statistics
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import apsw

import fasthook.wire.reader
from bench.pairs import Measured, Sample
from bench.sections import Full, Idle, Moment, growth, is_flat, is_soon
from bench.servers import LOAD_CORE, SERVER_CORE, program

#: Of the last minute, on a machine that is quiet enough.
IDLE = 0.3
_LIBRARIES = ("fasthook", "uvloop", "httptools", "msgspec", "uvicorn", "fastapi", "pydantic")
_LIBRARIES += ("granian", "flask", "gunicorn", "arq")
_PROGRAMS = {
    "wrk": (["--version"], r"wrk \S*?([\d.]+)"),
    "nginx": (["-v"], r"nginx/([\d.]+)"),
    "redis-server": (["--version"], r"v=([\d.]+)"),
    "webhook": (["-version"], r"version ([\d.]+)"),
}


@dataclass
class Results:
    """What was measured, what is missing with how to get it, and what went wrong."""

    seconds: float
    rounds: int
    busy: str = ""  # what else the machine had to do
    pairs: list[Measured] = field(default_factory=list)
    latency: dict[str, list[float]] = field(default_factory=dict)
    sizes: dict[str, dict[str, list[Sample]]] = field(default_factory=dict)
    endpoints: dict[str, list[Sample]] = field(default_factory=dict)
    pending: dict[str, list[Sample]] = field(default_factory=dict)
    connections: dict[str, Idle] = field(default_factory=dict)
    memory: list[Moment] = field(default_factory=list)
    backlog: Full | None = None
    start: list[float] = field(default_factory=list)  # seconds
    missing: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    began: datetime.datetime = field(default_factory=lambda: datetime.datetime.now(datetime.UTC))
    took_s: float = 0.0

    def again(self) -> int:
        """How often something was measured again."""
        rounds = [samples for each in self.pairs for samples in (each.ours, each.other)]
        rounds += [samples for found in self.sizes.values() for samples in found.values()]
        rounds += [*self.endpoints.values(), *self.pending.values()]
        rounds += [idle.samples for idle in self.connections.values()]
        return sum(sample.again for samples in rounds for sample in samples)

    def missed(self) -> list[str]:
        """What was to stay the same, and did not."""
        idle = {name: found.samples for name, found in self.connections.items()}
        grown = {"endpoints": self.endpoints, "events that wait": self.pending, "idle": idle}
        missed = [
            f"{count} {what}: × {statistics.median(ratios):.2f} of the CPU an event"
            for what, found in grown.items()
            for count, ratios in growth(found).items()
            if not is_flat(ratios)
        ]
        for name, found in self.connections.items():
            if not found.is_small:
                missed.append(f"{name} idle: {found.bytes_each:,.0f} bytes each")
        if self.backlog and not self.backlog.is_small:
            missed.append(f"a full backlog: {self.backlog.peak_bytes:,} bytes")
        if self.start and not is_soon(self.start):
            missed.append(f"start: {statistics.median(self.start):.2f} s")
        return missed


def machine() -> str:
    """Processor, cores, memory, system and the cores that were used."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    cores = Path("/proc/cpuinfo").read_text().count("processor\t")
    release = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    parts = [
        model[1] if model else platform.machine(),
        f"{cores} cores",
        f"{int(memory[1]) / 1024**2:.0f} GiB" if memory else "",
        f"{release}, Linux {platform.release()}",
    ]
    return ", ".join(filter(None, parts))


def cores() -> str:
    """Which core does what."""
    if SERVER_CORE == LOAD_CORE:
        return f"server and load on core {SERVER_CORE}: there is no other, and rates are far lower"
    return f"server on core {SERVER_CORE}, load on core {LOAD_CORE}"


def versions() -> dict[str, str]:
    """Of what took part."""
    found = {"Python": platform.python_version(), "SQLite (apsw)": apsw.sqlite_lib_version()}
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    for name, (options, pattern) in _PROGRAMS.items():
        if path := program(name):
            run = subprocess.run([path, *options], capture_output=True, text=True, check=False)
            if version := re.search(pattern, run.stdout + run.stderr):
                found[name] = version[1]
    return found


def form() -> str:
    """Which form of fasthook ran."""
    is_compiled = not fasthook.wire.reader.__file__.endswith(".py")
    return "compiled by mypyc" if is_compiled else "interpreted (compiled, it is faster)"


def busy() -> str:
    """What the machine has to do beside this, if that is more than a little."""
    load = os.getloadavg()[0]
    return f"load {load:.1f} when this began" if load > IDLE else ""
