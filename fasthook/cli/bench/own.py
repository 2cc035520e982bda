"""A service of a user's configuration that touches nothing of the user's: what `bench` loads.

Its spool is a new folder beside the configured one, for the disk's sake; its address is on the
loopback; its handlers do nothing; its secrets are made up, so that those of the configuration are
not even read.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import tomli_w
import urllib3

from fasthook.cli import send
from fasthook.cli.send import Target
from fasthook.config import Config, Endpoint, spool_of
from fasthook.errors import ConfigError
from fasthook.handler_options import RUN_OPTIONS
from fasthook.intake.schemes import PUBLIC_KEY_KINDS
from fasthook.intake.signing import place, sample_secret
from fasthook.intake.templates import Selector
from fasthook.spool.filesystem import MEMORY, MOUNTS, kind_of
from fasthook.verifying import provider_of, scheme_of

_START_S: Final = 30.0
_STOP_S: Final = 20.0
_REQUESTS: Final = re.compile(r'^fasthook_requests_total\{.*result="(\w+)"\} (\S+)$', re.MULTILINE)
_LOG_LINES: Final = 3
#: Of the disk's free bytes the spool may take this part.
_ROOM: Final = 0.5
#: What would refuse or hold back events that the sender sends faster than their own sender would.
_DROPPED: Final = ("allow", "rate", "burst", "keep_rejected")


class Signer(NamedTuple):
    """How events of an endpoint are made."""

    endpoint: str
    target: Target
    event_type: str | None
    body: bytes | None  # None: a sample of its provider
    mark: Selector | None  # where a body gets what makes it another event; None: in a header


class Own(NamedTuple):
    """The derived configuration, and what was changed on the way."""

    tree: dict[str, Any]
    signers: list[Signer]
    left_out: dict[str, str]  # endpoint → why
    changed: list[str]  # keys whose values are not the user's
    is_in_memory: bool  # its spool, which no sync slows
    cores: int  # that this process, and so the service, may use


def derived(
    config: Config,
    names: Sequence[str],
    body: bytes | None,
    folder: Path,
    *,
    keeps_handlers: bool,
) -> Own:
    """The configuration of the service that is measured. `names`: of endpoints; empty: all.
    `body`: that all of them are sent, in the place of samples.

    Raises `ConfigError` where no endpoint is left.
    """
    tree = tomllib.loads(Path(config.source).read_text("utf-8"))
    port, admin_port = _free_ports(2)
    changed = ["server.listen", "admin.listen", "spool.path", "secrets"]
    tree.setdefault("server", {})["listen"] = [f"tcp://127.0.0.1:{port}"]
    tree["admin"] = {"listen": f"tcp://127.0.0.1:{admin_port}"}
    room = int(shutil.disk_usage(folder).free * _ROOM)
    max_bytes = min(config.spool.max_bytes, room)
    tree.setdefault("spool", {}).update(path=str(folder / "spool"), max_bytes=max_bytes)
    if tree.get("log", {}).get("format", "auto") in ("auto", "journal"):
        tree.setdefault("log", {})["format"] = "text"
        changed.append("log.format")
    if tree.get("alerts", {}).pop("handlers", None):
        changed.append("alerts.handlers")
    signers: list[Signer] = []
    left_out: dict[str, str] = {}
    blocks = []
    for settings, block in zip(config.endpoint, tree["endpoint"], strict=True):
        if names and settings.name not in names:
            continue
        try:
            signers.append(_signer(settings, block, port, body))
        except ConfigError as error:
            left_out[settings.name] = str(error)
            continue
        blocks.append(block)
        changed += [key for key in _DROPPED if block.pop(key, None) is not None]
    if not signers:
        why = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise ConfigError(f"{config.source}: no endpoint can be measured: {why}")
    tree["endpoint"] = blocks
    if not keeps_handlers:
        tree["handlers"] = _idle(tree)
        changed.append("handlers")
    kind = kind_of(folder.resolve(), MOUNTS.read_text())
    cores = len(os.sched_getaffinity(0))
    return Own(tree, signers, left_out, list(dict.fromkeys(changed)), kind in MEMORY, cores)


def _signer(settings: Endpoint, block: dict[str, Any], port: int, body: bytes | None) -> Signer:
    """Gives the block secrets of its own, as many as it had. Raises `ConfigError`."""
    provider = provider_of(settings, settings.name)
    scheme = scheme_of(settings, provider, settings.name)
    if settings.jwks_url or (scheme is not None and scheme.fetch is not None):
        raise ConfigError("its keys are fetched, and belong to its sender")
    secret = b""
    if scheme is not None:
        if scheme.kind in PUBLIC_KEY_KINDS:
            raise ConfigError("its key belongs to its sender, who alone can sign")
        count = max(1, len(settings.secrets))
        secrets = [sample_secret(scheme, os.urandom(32)) for _ in range(count)]
        block["secrets"] = [f"plain:{text}" for text in secrets]
        secret = str(secrets[0]).encode()
    url = f"http://127.0.0.1:{port}{settings.path}"
    signed_url = settings.public_url or url
    target = Target(url, signed_url, provider, scheme, secret, settings.config)
    wanted = settings.events or ()
    known = [name for name in wanted if name in provider.samples]
    event_type = next(iter((*known, *wanted)), None)
    signer = Signer(settings.name, target, event_type, body, None)
    signer = signer._replace(mark=_mark(signer))
    wire(signer)  # what can't be signed is found out now
    return signer


def _mark(signer: Signer) -> Selector | None:
    """Where a body has to be changed, so that it is not taken for the one before."""
    _, _, provider, scheme, _, _ = signer.target
    if scheme is None:
        return None  # nothing is signed, so nothing is the same
    ids = [Selector.parse(text) for text in provider.event_id_of(scheme)[:1]]
    if ids and (ids[0].kind == "header" or signer.body is None):
        return None
    if ids and ids[0].kind in ("json", "form"):
        return ids[0]
    kinds = [kind for kind in provider.content if kind in ("json", "form")]
    return Selector.parse(f"{(kinds or ['json'])[0]}:fasthook_bench")


def wire(signer: Signer) -> bytes:
    """A new signed event of the endpoint, as it goes over the wire. Raises `ConfigError`."""
    target, body = signer.target, signer.body
    if signer.mark is not None:
        unsigned = send.build(target._replace(scheme=None), signer.event_type, body, None, None)
        place(unsigned, signer.mark, uuid.uuid4().hex.encode())
        body = unsigned.body
    request = send.build(target, signer.event_type, body, None, None)
    lines = [request.method + b" " + request.target + b" HTTP/1.1", b"host: 127.0.0.1"]
    lines += [name + b": " + value for name, value in request.headers.items()]
    lines.append(b"content-length: %d" % len(request.body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + request.body


def _idle(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The same handlers by name, order and concurrency; but they do nothing."""
    tables = tree.get("handlers", {})
    names = {name for block in tree["endpoint"] for name in block["handlers"]}
    kept = RUN_OPTIONS - {"use", "rate"}
    return {
        name: {"use": "nothing", **{k: v for k, v in tables.get(name, {}).items() if k in kept}}
        for name in sorted(names)
    }


def new_folder(config: Config, given: Path | None) -> Path:
    """A folder for the spool, on the disk of the configured one. Raises `ConfigError`."""
    place = (given or spool_of(config).parent).absolute()
    while given is None and not place.is_dir():
        place = place.parent
    try:
        return Path(tempfile.mkdtemp(prefix=".fasthook-bench-", dir=place))
    except OSError as error:
        what = f"{place}: no folder can be made there: {error.strerror}"
        raise ConfigError(f"{what}; name one on the same disk: --folder DIR") from None


def _free_ports(count: int) -> list[int]:
    opened = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in opened]
    for each in opened:
        each.close()
    return ports


class Running:
    """The service, from when it is ready until the end of the context."""

    def __init__(self, own: Own, folder: Path) -> None:
        """It begins now; as a context it is waited for. That raises `ConfigError` where it does not
        become ready.
        """
        self._log = folder / "log"
        listen, admin = own.tree["server"]["listen"][0], own.tree["admin"]["listen"]
        self.port = int(listen.rpartition(":")[2])
        self._admin = f"http://{admin.removeprefix('tcp://')}"
        self._client = urllib3.PoolManager(retries=False, timeout=10)
        config = folder / "fasthook.toml"
        config.touch(mode=0o600)
        config.write_text(tomli_w.dumps(own.tree))
        command = [sys.executable, "-m", "fasthook.cli", "serve", "-c", str(config)]
        ignored = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_PID", "JOURNAL_STREAM")
        environment = {k: v for k, v in os.environ.items() if k not in ignored}
        with self._log.open("wb") as said:
            # A session of its own: Ctrl-C reaches us alone, and we end it.
            self._process = subprocess.Popen(  # noqa: S603
                command, stdout=said, stderr=said, env=environment, start_new_session=True
            )

    def __enter__(self) -> Self:
        try:
            self._wait_until_ready()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _wait_until_ready(self) -> None:
        ends = time.monotonic() + _START_S
        while time.monotonic() < ends and self._process.poll() is None:
            try:
                if self._client.request("GET", f"{self._admin}/readyz").status == 200:
                    return
            except urllib3.exceptions.HTTPError:
                time.sleep(0.02)
        raise ConfigError(f"its own service did not start: {self.last_words()}")

    def _end(self) -> None:
        self._process.send_signal(signal.SIGINT)  # nobody's connections are to be waited for
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def check(self) -> None:
        """Raise `ConfigError` where it, or its only worker, has died."""
        try:
            self._client.request("GET", f"{self._admin}/healthz")
        except urllib3.exceptions.HTTPError:
            raise ConfigError(f"its own service has died: {self.last_words()}") from None

    def last_words(self) -> str:
        """The end of its log."""
        lines = self._log.read_text("utf-8", "replace").splitlines()
        return " | ".join(lines[-_LOG_LINES:]) or "it said nothing"

    # --- figures ----------------------------------------------------------------------------------

    def counted(self) -> dict[str, int]:
        """Its own count of requests, by what became of them: "event", "duplicate", "401"."""
        text = self._client.request("GET", f"{self._admin}/metrics").data.decode()
        found: Counter[str] = Counter()
        for result, count in _REQUESTS.findall(text):
            found[result] += int(float(count))
        return dict(found)

    def _pids(self) -> list[int]:
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]

    def cpu_s(self) -> float:
        """CPU that it has used, its workers' included, in user and kernel: proc(5)."""
        ticks = 0
        for pid in self._pids():
            fields = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2]
            ticks += sum(map(int, fields.split()[11:13]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def peak_bytes(self) -> int:
        """Resident memory of its largest worker, when that was the most."""
        return max(_peak_bytes(pid) for pid in self._pids()[1:])

    def settle(self, longest_s: float) -> None:
        """Wait until its handlers and its index have done what they have to."""
        ends = time.monotonic() + longest_s
        before_s = self.cpu_s()
        while time.monotonic() < ends:
            time.sleep(0.25)
            now_s = self.cpu_s()
            if now_s - before_s <= 0.02:
                return
            before_s = now_s


def _peak_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
