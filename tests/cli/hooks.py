"""A service with handlers that tests hold, break and mend by files; and requests it takes."""

import hmac
import json
import os
import time
import urllib.error
import urllib.request
from pathlib import Path

from tests.cli.conftest import WAIT_S, configuration, endpoint

SECRET = "a-secret-of-these-tests-0123456789"
PACKAGE = """
import asyncio, json, os, time
from pathlib import Path
from typing import Any
from fasthook import Event, Retry, handler

FOLDER = Path(os.environ["HOOKS_FOLDER"])

def make(name, **options):
    async def run(event: Event[Any]) -> None:
        line = {"id": event.id, "attempt": event.attempt, "at": time.time(), "pid": os.getpid()}
        with open(FOLDER / f"ran-{name}", "a") as file:
            file.write(json.dumps(line) + "\\n")
        while (FOLDER / f"wait-{name}").exists():
            await asyncio.sleep(0.01)
        broken = FOLDER / f"broken-{name}"
        if broken.exists() and event.id in (broken.read_text().split() or [event.id]):
            if options.get("retries"):
                raise Retry("again: " + event.body.decode(), after=2.5)
            raise ValueError("can't take " + event.body.decode())
    run.__name__ = name
    return handler(**options)(run)

one, two, three = (make(name, retries=0) for name in ("one", "two", "three"))
keyed = make("keyed", retries=2, ordered_by="payload.key")
single = make("single", retries=0, concurrency=1)
"""
NAMES = ("one", "two", "three", "keyed", "single")

SCHEME = """
[endpoint.scheme]
header = "X-Signature"
hash = "sha256"
encoding = "hex"
message = "{body}"
event_id = "header:X-Event-Id"
event_type = "header:X-Event-Type"
"""


def shop(*handlers: str | dict[str, str], name: str = "shop", more: str = "") -> str:
    """An `[[endpoint]]` whose senders say id and type in headers; a dict is a table of TOML."""
    elements = [
        json.dumps(each)
        if isinstance(each, str)
        else "{" + ", ".join(f"{key} = {json.dumps(value)}" for key, value in each.items()) + "}"
        for each in handlers or ("one",)
    ]
    lines = [
        f'secrets = ["plain:{SECRET}"]',
        f"handlers = [{', '.join(elements)}]",
        'content = ["json", "form", "any"]',
        more,
        SCHEME,
    ]
    return endpoint(name, provider="custom", more="\n".join(lines))


class Hooks:
    """The handlers, a folder for them, and the service and commands that share a spool with them."""

    def __init__(self, folder: Path, serve, run) -> None:
        self._serve, self._run = serve, run
        self.folder = folder / "hooks"
        self.site = folder / "site"
        self.config = folder / "fasthook.toml"
        self.spool = folder / "var"
        about = self.site / "held_hooks-1.0.dist-info"
        for made in (self.folder, about):
            made.mkdir(parents=True)
        (self.site / "held_hooks.py").write_text(PACKAGE)
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: held-hooks\nVersion: 1.0\n")
        lines = [f"{name} = held_hooks:{name}\n" for name in NAMES]
        (about / "entry_points.txt").write_text("[fasthook.handlers]\n" + "".join(lines))
        self.environment = {"PYTHONPATH": str(self.site), "HOOKS_FOLDER": str(self.folder)}

    def serve(self, *endpoints: str, more: str = ""):
        """Start the service; `more` stands at the end of its configuration."""
        text = configuration(*(endpoints or (shop(),))) + more
        return self._serve(text, env=self.whole_environment())

    def whole_environment(self) -> dict[str, str]:
        """With which processes find the handlers."""
        return os.environ | self.environment

    def run(self, *arguments, code: int | None = 0, **options):
        """A command in this process, which ends with this exit code; None: with any."""
        result = self._run(*arguments, "-c", self.config, **options)
        assert code in (None, result.exit_code), (arguments, result.stdout, result.stderr)
        assert "Traceback" not in result.stderr
        return result

    def rows(self, command: str = "events", *arguments) -> list[dict]:
        """What a command that reads says, newest first."""
        result = self.run(command, *arguments, "--json")
        return [json.loads(line) for line in result.stdout.splitlines()]

    def states(self) -> dict[str, str]:
        """The state of each event, by id."""
        return {row["id"]: row["state"] for row in self.rows()}

    def wait_for(self, **states: str) -> None:
        """Until these events have these states."""
        wait_until(lambda: states.items() <= self.states().items(), states)

    def break_(self, name: str, *ids: str) -> None:
        """From now on it fails: for these, or for all."""
        (self.folder / f"broken-{name}").write_text(" ".join(ids))

    def mend(self, name: str) -> None:
        (self.folder / f"broken-{name}").unlink()

    def hold(self, name: str) -> None:
        """From now on its attempts do not end."""
        (self.folder / f"wait-{name}").touch()

    def release(self, name: str) -> None:
        (self.folder / f"wait-{name}").unlink()

    def runs(self, name: str) -> list[dict]:
        """Its attempts so far."""
        path = self.folder / f"ran-{name}"
        return [json.loads(x) for x in path.read_text().splitlines()] if path.exists() else []

    def ids(self, name: str) -> list[str]:
        return [run["id"] for run in self.runs(name)]

    def bytes(self) -> bytes:
        """Everything that all files of the spool hold."""
        files = sorted(path for path in self.spool.rglob("*") if path.is_file())
        assert {"index.db", "rejects.db", "lock"} <= {path.name for path in files}
        assert any(path.suffix == ".seg" for path in files)
        return b"".join(path.read_bytes() for path in files)


def post(
    serving,
    event_id: str,
    body: bytes | dict | None = None,
    *,
    event_type: str = "push",
    content_type: str = "application/json",
    path: str = "/shop",
    is_genuine: bool = True,
    **headers: str,
) -> int:
    """Send an event; the status of the answer."""
    if not isinstance(body, bytes):
        body = json.dumps({"n": event_id} if body is None else body).encode()
    signature = hmac.digest(SECRET.encode(), body, "sha256").hex()
    fields = {
        "Content-Type": content_type,
        "X-Event-Id": event_id,
        "X-Event-Type": event_type,
        "X-Signature": signature if is_genuine else "0" * 64,
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(serving.url + path, body, fields, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=WAIT_S) as response:
            return response.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def wait_until(fact, what: str = ""):
    """What `fact` returns, once it is true."""
    ends = time.monotonic() + WAIT_S
    while not (value := fact()):
        assert time.monotonic() < ends, f"waited {WAIT_S} s for {what or fact}"
        time.sleep(0.02)
    return value
