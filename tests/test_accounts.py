"""What is accepted is counted where it is cheap, and is in the metrics before anybody looks."""

import asyncio

import pytest

from fasthook import config, plan
from fasthook.admin import Metrics
from fasthook.line import Line
from fasthook.logs import log
from fasthook.model import Delivery
from fasthook.watching import Ledger

CONFIG = """
[spool]
durability = "none"
[[endpoint]]
name = "shop"
path = "/shop"
provider = "github"
secrets = ["plain:hush"]
handlers = ["log"]
[[endpoint]]
name = "open"
path = "/open"
provider = "none"
handlers = ["log"]
"""


@pytest.fixture
def line(tmp_path):
    path = tmp_path / "fasthook.toml"
    path.write_text(CONFIG)
    settings = config.load(path)

    async def made():
        return Line(settings, plan.make(settings), log, Metrics())

    return asyncio.run(made())


def accept(line, endpoint="shop", client="192.0.2.1", kind="event", secret_index=0):
    line.accepted(Delivery(endpoint, "", "e", "push", b"", b"", 7, client, secret_index), kind)


def test_events_are_counted_by_endpoint_and_kind(line):
    for kind in ("event", "event", "duplicate", "event"):
        accept(line, kind=kind)
    accept(line, "open", secret_index=-1)
    line.metrics.sum_up()
    line.metrics.sum_up()  # nothing comes twice
    assert line.metrics.requests == {
        ("shop", "event"): 3,
        ("shop", "duplicate"): 1,
        ("open", "event"): 1,
        ("open", "unverified"): 1,
    }
    accept(line)
    line.metrics.sum_up()
    assert line.metrics.requests["shop", "event"] == 4


def test_so_are_their_clients_however_they_take_turns(line):
    for client in "aabab":
        accept(line, client=client)
    accept(line, "open", client="a", secret_index=-1)
    line.metrics.sum_up()
    assert line.metrics.event_clients == {("shop", "a"): 3, ("shop", "b"): 2, ("open", "a"): 1}
    accept(line, client="b")
    line.metrics.sum_up()
    assert line.metrics.event_clients["shop", "b"] == 3


def test_who_looks_has_all_of_it(line):
    ledger = Ledger(line.metrics)
    accept(line)
    accept(line, client="192.0.2.2")
    counts = ledger.take()
    assert counts.events == {"shop": 2}
    assert counts.event_clients == {("shop", "192.0.2.1"): 1, ("shop", "192.0.2.2"): 1}
    assert ledger.take().events == {}
    accept(line)
    (requests, *_) = line.metrics.families({})
    assert [(s.labels["endpoint"], s.value) for s in requests.samples] == [("shop", 3.0)]
