"""What a real service says to a journal, and how little of a flood."""

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from fasthook.logs.messages import MESSAGES
from tests.logs.journald import Journal
from tests.system.conftest import PATIENCE_S, SECRET, exchange, status_of, wait_for
from tests.system.test_bad_input import request

CONFIG = """
[server]
listen = ["tcp://127.0.0.1:0"]
[admin]
listen = "tcp://127.0.0.1:0"
[log]
format = "{form}"
journal_socket = "{socket}"
[[endpoint]]
name = "github"
path = "/github"
provider = "github"
secrets = ["env:HOOK_SECRET"]
handlers = ["record"]
"""
FLOOD = 50_000
#: So many are sent before their answers are read.
AT_ONCE = 100


def forged(**headers: str) -> bytes:
    return request(x_hub_signature_256="sha256=" + "0" * 64, **headers)


class InJournal:
    """A service that says everything to a journal of ours."""

    def __init__(self, folder: Path, package: Path) -> None:
        self.journal = Journal(folder / "journal.sock")
        config = folder / "fasthook.toml"
        config.write_text(CONFIG.format(form="journal", socket=self.journal.path))
        environment = {"PYTHONPATH": str(package), "HOOK_SECRET": SECRET}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fasthook.cli", "serve", "-c", str(config)],
            stderr=subprocess.PIPE,
            cwd=folder,
            env=os.environ | environment | {"EXAMPLE_RECORD": str(folder / "record")},
        )
        wait_for(lambda: self.entries("listening"), "the service")
        addresses = self.entries("listening")[0]["FASTHOOK_ADDRESSES"]
        self.port = int(addresses.rpartition(":")[2])

    def entries(self, message: str) -> list[dict[str, str]]:
        """Of one kind, by its id."""
        wanted = MESSAGES[message].id
        return [e for e in list(self.journal.entries) if e.get("MESSAGE_ID") == wanted]

    def stop(self) -> str:
        """What it said to standard error."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        _, said = self.process.communicate(timeout=PATIENCE_S)
        self.journal.close()
        return said.decode()


@pytest.fixture
def in_journal(tmp_path: Path, package: Path) -> Iterator[InJournal]:
    service = InJournal(tmp_path, package)
    yield service
    service.stop()


def test_everything_that_becomes_of_an_event_has_its_fields(in_journal: InJournal):
    assert status_of(exchange(in_journal.port, request(x_github_delivery="event-1"))) == 202
    assert status_of(exchange(in_journal.port, request(x_github_delivery="event-1"))) == 202
    assert status_of(exchange(in_journal.port, request(x_github_event="ping"))) == 202
    assert status_of(exchange(in_journal.port, forged())) == 401
    for message in ("accepted", "done", "duplicate", "handshake", "rejected"):
        wait_for(lambda: in_journal.entries(message), message)  # noqa: B023
    said = in_journal.stop()

    assert said == ""
    (accepted,), (done,) = in_journal.entries("accepted"), in_journal.entries("done")
    for entry in (accepted, done):
        assert entry["FASTHOOK_ENDPOINT"] == entry["FASTHOOK_PROVIDER"] == "github"
        assert entry["FASTHOOK_EVENT_ID"] == "event-1"
        assert (entry["PRIORITY"], entry["SYSLOG_IDENTIFIER"]) == ("6", "fasthook")
    assert accepted["FASTHOOK_CLIENT"] == "127.0.0.1"
    assert (done["FASTHOOK_ATTEMPT"], done["FASTHOOK_HANDLER"]) == ("1", "record")
    (rejected,) = in_journal.entries("rejected")
    assert rejected["FASTHOOK_REASON"] == "no configured secret signs this request"
    assert (rejected["FASTHOOK_CLIENT"], rejected["PRIORITY"]) == ("127.0.0.1", "4")
    assert in_journal.entries("handshake")[0]["FASTHOOK_KIND"] == "ping"
    assert in_journal.entries("stopped")
    for entry in in_journal.journal.entries:
        assert entry["MESSAGE_ID"]
        assert all(text.isprintable() for text in entry.values())
        assert SECRET not in "".join(entry.values())


def test_a_client_makes_neither_a_line_nor_a_field(in_journal: InJournal):
    nasty = "a\tb=c%0AMESSAGE=forged\x1b[31m PRIORITY=0"
    exchange(in_journal.port, forged(x_github_delivery=nasty, x_github_event=nasty))
    exchange(in_journal.port, request(x_github_delivery="a\xa0\x85\xadb", x_github_event="push"))
    exchange(in_journal.port, forged().replace(b"/github", b"/%0a\xc2\x85\xe2\x80\xae", 1))
    wait_for(lambda: len(in_journal.journal.entries) > 4, "the log")
    in_journal.stop()

    for entry in in_journal.journal.entries:  # the reader fails on fields that are none
        assert all(text.isprintable() for text in entry.values())
        assert entry["PRIORITY"] in "346"
        assert not entry["MESSAGE"].startswith("forged")


def test_a_forged_flood_is_few_lines_and_changes_nothing_on_disk(serve):
    """Each of the 50,000 is refused; nothing of it is in the journal of the spool."""
    service = serve(CONFIG.format(form="json", socket="/nowhere"))
    journal = service.folder / "var/journal"
    before = {path: path.stat().st_size for path in journal.rglob("*") if path.is_file()}
    statuses: dict[bytes, int] = {}
    with socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE_S) as client:
        for first in range(0, FLOOD, AT_ONCE):
            names = range(first, first + AT_ONCE)
            client.sendall(b"".join(forged(x_github_delivery=f"id-{n}") for n in names))
            received = b""
            while len(found := re.findall(rb"HTTP/1\.1 (\d{3}) ", received)) < AT_ONCE:
                piece = client.recv(1 << 20)
                assert piece
                received += piece
            for status in found:
                statuses[status] = statuses.get(status, 0) + 1
    metrics = urllib.request.urlopen(f"http://127.0.0.1:{service.admin_port}/metrics").read()
    after = {path: path.stat().st_size for path in journal.rglob("*") if path.is_file()}
    assert service.stop() == 0

    assert sum(statuses.values()) == FLOOD
    assert set(statuses) <= {b"401", b"503"}  # refused, then shed unheard
    lines = service.log()
    assert len(service.lines) == len(lines) <= 100
    assert len(service.messages("rejected")) <= 20
    count = sum(line["count"] for line in service.messages("repeated"))
    assert count + len(service.messages("rejected")) >= FLOOD
    summarised = re.search(rb'unwritten_total\{why="summarised"\} ([\d.e+]+)', metrics)
    assert summarised is not None
    assert float(summarised[1]) >= FLOOD - 100
    assert after == before
