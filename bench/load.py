"""Locust's senders against fasthook behind nginx and TLS; then the spool is compared.

    python -m bench.load [--seconds S] [--users N] [--web] [--mode observe]

`make load SECONDS=… USERS=… WEB=1` does so. nginx has the block that `fasthook init --nginx`
writes, but for its bounds for each address, since all senders have the same one here. With --web
the load is watched, stopped and started anew at http://127.0.0.1:8089, and Ctrl-C ends it. Exit
code 1: something was not answered as it should be (see `bench.locustfile`), or the spool does not
hold exactly what was accepted. `--mode observe` shows that it can fail: fasthook then accepts what
is forged.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import nginx
from bench.servers import ROOT, NotThere, program
from bench.systems import free_port, is_open, wait_for
from fasthook.intake import catalogue
from fasthook.intake.signing import sample_secret
from fasthook.spool.found import Filter
from fasthook.spool.queries import Reader

HOST = "hooks.test"
PROVIDERS = ("github", "stripe", "shopify", "slack", "svix")
WEB_PORT = 8089
_PATIENCE_S = 20.0
_HEAD = """
[server]
listen = ["unix:{folder}/fasthook.sock"]
[admin]
listen = ""
[log]
format = "json"
requests = false
"""
_ENDPOINT = """
[[endpoint]]
name = "{name}"
path = "/{name}"
provider = "{name}"
secrets = ["plain:{secret}"]
handlers = ["nothing"]
mode = "{mode}"
"""
#: Of one address, as all senders have it here.
_BOUNDS = (
    "    limit_req  zone=fasthook_requests burst=2000 nodelay;\n",
    "    limit_conn fasthook_connections 100;\n",
)


class Site:
    """A folder with all that runs, and what the senders note."""

    def __init__(self, folder: Path, mode: str) -> None:
        self.folder = folder
        self.sent, self.accepted = folder / "sent", folder / "accepted"
        self.notes = folder / "load.json"
        self.config = folder / "fasthook.toml"
        secrets = {name: _secret(name) for name in PROVIDERS}
        blocks = [_ENDPOINT.format(name=n, secret=s, mode=mode) for n, s in secrets.items()]
        self.config.write_text(_HEAD.format(folder=folder) + "".join(blocks))
        entries = [
            {"name": name, "provider": name, "path": f"/{name}", "secret": secret}
            for name, secret in secrets.items()
        ]
        notes = {"endpoints": entries, "sent": str(self.sent), "accepted": str(self.accepted)}
        self.notes.write_text(json.dumps(notes))
        self.sent.touch()
        self.accepted.touch()
        self.http = free_port()
        self.https = self.http + 1

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """fasthook and nginx; they have ended when this has."""
        serve = [sys.executable, "-m", "fasthook.cli", "serve", "-c", str(self.config)]
        is_there = (self.folder / "fasthook.sock").exists
        with (
            self._process("fasthook", serve, is_there),
            self._process("nginx", self._nginx(), lambda: is_open(self.https)),
        ):
            yield

    @contextlib.contextmanager
    def _process(
        self, name: str, command: list[str], is_there: Callable[[], bool]
    ) -> Iterator[None]:
        with (self.folder / f"{name}.said").open("wb") as said:
            # A session of its own: Ctrl-C is for locust, and we end the others after it.
            process = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)
        try:
            wait_for(lambda: process.poll() is not None or is_there(), name, _PATIENCE_S)
            if process.poll() is not None:
                raise NotThere(f"{name} did not start")
            yield
        finally:
            process.terminate()
            process.wait(_PATIENCE_S)

    def _nginx(self) -> list[str]:
        init = [sys.executable, "-m", "fasthook.cli", "init", "--nginx", HOST, str(self.folder)]
        subprocess.run([*init, "-c", str(self.config)], check=True, capture_output=True)
        block = self.folder / f"{HOST}.conf"
        text = nginx.moved(block.read_text(), HOST, self.folder, self.http, self.https)
        block.write_text(nginx.replaced(text, dict.fromkeys(_BOUNDS, "")))
        nginx.certify(self.folder, HOST)
        return nginx.configured(self.folder, f"include {block};", 4096)

    def differences(self) -> list[str]:
        """Between what was accepted and what the spool holds."""
        with Reader(self.folder / "var") as reader:
            stored = Counter(
                f"{found.endpoint} {found.event_id}" for found in reader.oldest_first(Filter())
            )
        return differences(
            set(self.sent.read_text().splitlines()),
            set(self.accepted.read_text().splitlines()),
            stored,
        )


def differences(sent: set[str], accepted: set[str], stored: Counter[str]) -> list[str]:
    """What is wrong with a spool: `sent` may be stored, `accepted` has to be, each once."""
    wrong = {
        "accepted, but not stored": accepted - set(stored),
        "stored, but never sent as genuine": set(stored) - sent,
        "stored, though it was not accepted": (set(stored) & sent) - accepted,
        "stored twice": {name for name, count in stored.items() if count > 1},
    }
    return [
        f"{len(names)} events {what}, such as {min(names)}"
        for what, names in wrong.items()
        if names
    ]


def _secret(name: str) -> str:
    provider = catalogue.load(name)
    return str(sample_secret(provider.schemes[provider.default_scheme], os.urandom(32)))


def locust(site: Site, options: argparse.Namespace) -> int:
    """Have the senders send; locust's exit code."""
    command = [sys.executable, "-m", "locust", "-f", str(Path(__file__).with_name("locustfile.py"))]
    command += ["--host", f"https://127.0.0.1:{site.https}", "--stop-timeout", "20"]
    command += ["-u", str(options.users), "-r", str(options.users), "--exit-code-on-error", "1"]
    if options.web:
        command += ["--web-host", "127.0.0.1", "--web-port", str(options.web_port)]
        command += ["--autostart"]
    else:
        command += ["--headless", "--only-summary", "-t", f"{options.seconds}s"]
    environment = os.environ | {"FASTHOOK_LOAD": str(site.notes), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment)
    # Ctrl-C reaches it, too: it lets its senders come to an end, and we wait for that.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    return process.wait()


def main() -> None:
    """Start all, load it, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--web", action="store_true", help=f"http://127.0.0.1:{WEB_PORT}")
    parser.add_argument("--web-port", type=int, default=WEB_PORT)
    parser.add_argument("--mode", choices=("enforce", "observe"), default="enforce")
    options = parser.parse_args()
    for each in ("nginx", "openssl"):
        if not program(each):
            sys.exit(f"{each} is not installed; `make system` installs it")
    with tempfile.TemporaryDirectory() as name:
        site = Site(Path(name), options.mode)
        with site.running():
            code = locust(site, options)
        found = site.differences()
        accepted = len(site.accepted.read_text().splitlines())
    for difference in found:
        print(f"error: {difference}")
    if not found:
        print(f"the spool holds exactly the {accepted:,} events that were accepted")
    sys.exit(1 if found or code else 0)


if __name__ == "__main__":
    main()
