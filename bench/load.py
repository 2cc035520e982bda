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
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

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
_NGINX = """
{user}
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{ worker_connections 4096; }}
http {{
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  include {folder}/{host}.conf;
}}
"""


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
        self.http, self.https = _free_port(), _free_port()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """fasthook and nginx; they have ended when this has."""
        serve = [sys.executable, "-m", "fasthook.cli", "serve", "-c", str(self.config)]
        with self._process(serve, "fasthook.log") as service:
            _wait(lambda: (self.folder / "fasthook.sock").exists(), service, "fasthook")
            self._write_nginx()
            with self._process(
                [_program("nginx"), "-p", str(self.folder), "-c", str(self.folder / "nginx.conf")],
                "nginx.said",
            ) as nginx:
                _wait(self._is_open, nginx, "nginx")
                yield

    @contextlib.contextmanager
    def _process(self, command: list[str], log: str) -> Iterator[subprocess.Popen[bytes]]:
        with (self.folder / log).open("wb") as said:
            # A session of its own: Ctrl-C is for locust, and we end the others after it.
            process = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(_PATIENCE_S)

    def _write_nginx(self) -> None:
        init = [sys.executable, "-m", "fasthook.cli", "init", "--nginx", HOST, str(self.folder)]
        subprocess.run([*init, "-c", str(self.config)], check=True, capture_output=True)
        block = self.folder / f"{HOST}.conf"
        block.write_text(self._moved(block.read_text()))
        certify = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"]
        certify += ["ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", f"/CN={HOST}"]
        certify += ["-keyout", f"{self.folder}/key.pem", "-out", f"{self.folder}/cert.pem"]
        subprocess.run(certify, check=True, capture_output=True)
        # Its workers would be somebody else, who may not read this folder.
        user = "user root;" if os.geteuid() == 0 else ""
        conf = _NGINX.format(folder=self.folder, host=HOST, user=user)
        (self.folder / "nginx.conf").write_text(conf)

    def _moved(self, text: str) -> str:
        """The block with ports and paths of its own, and without bounds for the one address."""
        for old, new in (
            ("listen 80;", f"listen 127.0.0.1:{self.http};"),
            ("    listen [::]:80;\n", ""),
            ("listen 443 ssl http2;", f"listen 127.0.0.1:{self.https} ssl http2;"),
            ("\n    listen [::]:443 ssl http2;", ""),
            (f"/etc/letsencrypt/live/{HOST}/fullchain.pem", f"{self.folder}/cert.pem"),
            (f"/etc/letsencrypt/live/{HOST}/privkey.pem", f"{self.folder}/key.pem"),
            ("/var/log/nginx/fasthook.json", f"{self.folder}/access.json"),
            ("root /var/www/acme;", f"root {self.folder}/acme;"),
            ("    limit_req  zone=fasthook_requests burst=2000 nodelay;\n", ""),
            ("    limit_conn fasthook_connections 100;\n", ""),
        ):
            if text.count(old) != 1:
                raise SystemExit(f"the block of nginx has {old!r} {text.count(old)} times")
            text = text.replace(old, new)
        return text

    def _is_open(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.https)):
            return True
        return False

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


def _program(name: str) -> str:
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin")
    if path is None:
        raise SystemExit(f"{name} is not installed; `make system` installs it")
    return path


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        return int(opened.getsockname()[1])


def _wait(fact: Callable[[], bool], process: subprocess.Popen[bytes], name: str) -> None:
    ends = time.monotonic() + _PATIENCE_S
    while not fact():
        if process.poll() is not None or time.monotonic() > ends:
            raise SystemExit(f"{name} did not start")
        time.sleep(0.02)


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
    root = Path(__file__).parents[1]
    environment = os.environ | {"FASTHOOK_LOAD": str(site.notes), "PYTHONPATH": str(root)}
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
