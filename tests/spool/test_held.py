"""What is held until its handler goes on: found by the handler, whatever else is held."""

import apsw
import pytest

from fasthook.spool.changes import NEVER_NS, State
from fasthook.spool.found import Filter
from fasthook.spool.index import INDEX_NAME, Index
from fasthook.spool.journal import place_of
from fasthook.spool.queries import Reader
from fasthook.spool.schema import HELD_HANDLERS
from tests.spool.filled import delivery, fill, outcome


@pytest.fixture
def positions(tmp_path):
    """Worker 0 holds three for `mail`, one for `stock`; worker 1 holds one for `mail`."""
    held = {
        "a": [outcome("hold", handler="mail", due_ns=NEVER_NS)],
        "b": [outcome("hold", handler="mail", due_ns=NEVER_NS)],
        "c": [outcome("hold", handler="mail", due_ns=NEVER_NS)],
        "d": [outcome("hold", handler="stock", due_ns=NEVER_NS)],
        "e": [outcome("retry", handler="crm", due_ns=7)],
    }
    found = fill(tmp_path, *map(delivery, held), outcomes=held)
    other = {"other": [outcome("hold", handler="mail", due_ns=NEVER_NS)]}
    return found | fill(tmp_path, delivery("other"), outcomes=other, beside=[0])


@pytest.fixture
def index(tmp_path, positions):
    opened = Index(tmp_path / INDEX_NAME)
    yield opened
    opened.close()


def due_in(path):
    """Event ids of what may run now."""
    with Reader(path) as reader:
        due = [f for f in reader.newest(Filter(), 100) if f.due_ns == 0]
        assert all(found.state == State.PENDING for found in due)
        return sorted(found.event_id for found in due)


def test_handlers_for_which_something_is_held_are_known(index):
    assert index.held_handlers() == ["mail", "stock"]
    index.free_held("stock", [0], 10)
    assert index.held_handlers() == ["mail"]


def test_one_handlers_are_freed_oldest_first_in_own_journals_alone(tmp_path, index, positions):
    assert place_of(positions["other"])[0] == 1
    assert index.free_held("mail", [0], 2) == 2
    assert due_in(tmp_path) == ["a", "b"]
    assert index.free_held("mail", [0], 2) == 1
    assert index.free_held("mail", [0], 2) == 0
    assert due_in(tmp_path) == ["a", "b", "c"]
    assert index.free_held("mail", [0, 1], 2) == 1
    assert due_in(tmp_path) == ["a", "b", "c", "other"]


def test_however_much_is_held_it_is_not_looked_through(tmp_path, index):
    index.close()
    connection = apsw.Connection(str(tmp_path / INDEX_NAME))
    plan = [row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + HELD_HANDLERS)]
    connection.close()
    searches = [step for step in plan if "parts" in step]
    assert searches == [
        "SEARCH parts USING COVERING INDEX parts_held",
        "SEARCH parts USING COVERING INDEX parts_held (handler>?)",
    ]
