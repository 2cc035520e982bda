"""What commands read of a spool: deliveries, what became of them, and the records themselves."""

import os
import stat
from itertools import pairwise

import apsw
import pytest

from fasthook.errors import ConfigError
from fasthook.spool import queries
from fasthook.spool.changes import NEVER_NS, State
from fasthook.spool.found import Filter
from fasthook.spool.index import INDEX_NAME
from fasthook.spool.journal import Journal, name_of, position_of
from fasthook.spool.lock import lock
from fasthook.spool.names import position_named
from fasthook.spool.queries import Reader
from fasthook.spool.records import ACCEPTED, ERASED, Forgotten, later_record
from tests.spool.filled import HEAD, delivery, fill, outcome


@pytest.fixture
def reader(tmp_path):
    """Open the spool; it is closed when the test ends."""
    opened = []

    def open_it(path=tmp_path):
        opened.append(Reader(path))
        return opened[-1]

    yield open_it
    for one in opened:
        one.close()


def ids(found):
    return [one.event_id for one in found]


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [(0, 1, 16), (3, 4194303, 268435455), (8190, 7, 0)])
def test_a_name_says_worker_segment_and_offset_and_is_read_back(place):
    position = position_of(*place)
    assert name_of(position) == ".".join(map(str, place))
    assert position_named(name_of(position)) == position


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1.2",
        "0.1.16.2",
        "a.b.c",
        "0.1.-1",
        "0.1.999999999",
        "0.4194304.1",
        "8192.1.1",
        "0.1.1 ",
        "٠.1.1",
    ],
)
def test_what_is_no_name_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r"expected the name of a delivery, such as 0\.1\.16"):
        position_named(text)


# --- opening --------------------------------------------------------------------------------------


def test_where_there_is_no_spool_that_is_said(tmp_path):
    with pytest.raises(ConfigError, match="no spool there"):
        Reader(tmp_path / "nowhere")


def test_a_missing_index_is_said_with_its_cure(tmp_path):
    fill(tmp_path, delivery("a"))
    for file in tmp_path.glob(INDEX_NAME + "*"):
        file.unlink()
    with pytest.raises(ConfigError, match="its index is missing; the next start"):
        Reader(tmp_path)


def test_an_index_of_another_version_is_not_read(tmp_path):
    fill(tmp_path, delivery("a"))
    connection = apsw.Connection(str(tmp_path / INDEX_NAME))
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(ConfigError, match="its format is 99; expected"):
        Reader(tmp_path)


def test_a_file_that_is_no_database_is_said_with_its_cure(tmp_path):
    fill(tmp_path, delivery("a"))
    (tmp_path / INDEX_NAME).write_bytes(b"nonsense" * 1000)
    with pytest.raises(ConfigError, match="spool rebuild"):
        Reader(tmp_path)


def test_reading_takes_no_lock_writes_nothing_and_leaves_files_private(tmp_path, reader):
    fill(tmp_path, delivery("a"))
    before = (tmp_path / INDEX_NAME).read_bytes()
    opened = reader()
    assert ids(opened.newest(Filter(), 10)) == ["a"]
    os.close(lock(tmp_path))  # a service could start
    with pytest.raises(apsw.ReadOnlyError):
        opened._connection.execute("DELETE FROM deliveries")
    assert (tmp_path / INDEX_NAME).read_bytes() == before
    for file in tmp_path.glob(INDEX_NAME + "*"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_reader_sees_what_is_stored_after_it_was_opened_and_holds_no_log_back(tmp_path, reader):
    fill(tmp_path, delivery("a"))
    opened = reader()
    following = opened.oldest_first(Filter())
    assert next(following).event_id == "a"
    fill(tmp_path, delivery("b", at_s=2000))
    assert ids(opened.newest(Filter(), 10)) == ["b", "a"]
    writer = apsw.Connection(str(tmp_path / INDEX_NAME))
    writer.set_busy_timeout(0)
    writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)  # would be busy
    writer.close()


# --- finding --------------------------------------------------------------------------------------


@pytest.fixture
def some(tmp_path):
    return fill(
        tmp_path,
        delivery("a", at_s=1000),
        delivery("b", at_s=1001, endpoint="site"),
        delivery("c", at_s=1002, event_type="tag"),
        delivery("d", at_s=1003),
        delivery("d", at_s=1004, endpoint="site"),
        delivery("e", at_s=1005, kind="ignored"),
        outcomes={
            "a": [outcome("done at once")],
            "c": [outcome("dead", error="no")],
            "b": [outcome("done at once")],
        },
    )


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, "eddcba"),
        ({"endpoint": "site"}, "db"),
        ({"event_type": "tag"}, "c"),
        ({"event_id": "d"}, "dd"),
        ({"event_id": "d", "endpoint": "site"}, "d"),
        ({"states": (State.DONE,)}, "ba"),
        ({"states": (State.DEAD,)}, "c"),
        ({"states": (State.DEAD, State.DAMAGED)}, "c"),
        ({"states": (State.DEAD, State.DONE)}, "cba"),
        ({"states": (State.IGNORED,)}, "e"),
        ({"states": (State.FORGOTTEN,)}, ""),
        ({"since_ns": 1003 * 10**9}, "edd"),
        ({"until_ns": 1002 * 10**9}, "ba"),
        ({"since_ns": 1001 * 10**9, "until_ns": 1003 * 10**9}, "cb"),
        ({"event_id": "' OR 1 --"}, ""),
    ],
)
@pytest.mark.usefixtures("some")
@pytest.mark.parametrize("stretch", [1, 2, 20_000])
def test_all_that_is_wanted_holds_newest_first_or_oldest_first(
    wanted, expected, stretch, reader, monkeypatch
):
    monkeypatch.setattr(queries, "_STRETCH_ROWS", stretch)
    opened = reader()
    assert "".join(ids(opened.newest(Filter(**wanted), 100))) == expected
    assert "".join(ids(opened.oldest_first(Filter(**wanted)))) == expected[::-1]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_pages_hold_everything_once(tmp_path, limit, reader, monkeypatch):
    monkeypatch.setattr(queries, "_STRETCH_ROWS", 5)
    monkeypatch.setattr(queries, "_PAGE_ROWS", 3)
    fill(tmp_path, *(delivery(f"e{i:02}", at_s=1000 + i) for i in range(30)))
    opened = reader()
    seen, wanted = [], Filter()
    while page := opened.newest(wanted, limit):
        assert len(page) <= limit
        seen += page
        wanted = Filter(before=page[-1].position)
    assert ids(seen) == [f"e{i:02}" for i in reversed(range(30))]


def test_several_workers_are_one_list_in_order_of_time_and_one_of_pages(tmp_path, reader):
    for worker in (0, 1):
        some = [delivery(f"{worker}{i}", at_s=1000 + 2 * i + worker) for i in range(8)]
        fill(tmp_path, *some, beside=range(worker))
    opened = reader()
    everything = opened.newest(Filter(), 100)
    assert len(everything) == 16
    assert all(a.received_at_ns > b.received_at_ns for a, b in pairwise(everything))
    assert list(opened.oldest_first(Filter())) == everything[::-1]
    for index, one in enumerate(everything):
        assert opened.newest(Filter(before=one.position), 3) == everything[index + 1 : index + 4]
    assert set(opened.ends()) == {0, 1}
    after = {0: everything[5].position, 1: everything[4].position}
    assert list(opened.oldest_first(Filter(), after)) == everything[:4][::-1]


def test_samples_are_of_each_type_of_each_endpoint_newest_of_all_workers(
    tmp_path, reader, monkeypatch
):
    many = [delivery(f"many {n}", at_s=1000 + n) for n in range(50)]
    few = [delivery(f"few {n}", at_s=990 + n, event_type="tag") for n in range(3)]
    other = [delivery(f"other {n}", at_s=980 + n, endpoint="site") for n in range(5)]
    fill(tmp_path, *other, *few, *many)
    fill(tmp_path, delivery("of 1", at_s=2000), beside=[0])
    opened = reader()
    # Of the first worker three of each, of the second the only one.
    assert ids(opened.samples(10, {})) == [
        *("other 2", "other 3", "other 4", "few 0", "few 1", "few 2"),
        *("many 47", "many 48", "many 49", "of 1"),
    ]
    assert len(opened.samples(100, {})) == 59
    assert ids(opened.samples(10, opened.ends())) == []
    monkeypatch.setattr(queries, "_STRETCH_ROWS", 7)
    assert ids(opened.samples(100, {})) == [*(f"many {n}" for n in range(43, 50)), "of 1"]


def test_a_page_before_what_is_not_known_is_refused_where_it_would_be_guessed(tmp_path, reader):
    for worker in (0, 1):
        fill(tmp_path, delivery(f"{worker}"), beside=range(worker))
    with pytest.raises(ConfigError, match=r"0\.9\.16: no such delivery is known any more"):
        reader().newest(Filter(before=position_of(0, 9, 16)), 10)


def test_dead_letters_are_found_by_the_index_of_states(tmp_path, reader):
    fill(tmp_path, delivery("a"))
    condition, values = Filter(states=(State.DEAD,)).condition()
    plan = reader()._connection.execute(
        "EXPLAIN QUERY PLAN SELECT * FROM deliveries WHERE position BETWEEN 0 AND 9"
        f"{condition} ORDER BY position DESC LIMIT 5",
        tuple(values),
    )
    (step,) = [row[3] for row in plan]  # no sort, and no look at the rest
    assert step.startswith("SEARCH deliveries USING INDEX deliveries_state (state=?")


# --- about one ------------------------------------------------------------------------------------


def test_parts_and_failures_say_what_the_handlers_did(tmp_path, reader):
    positions = fill(
        tmp_path,
        delivery("a"),
        outcomes={
            "a": [
                outcome("retry", attempt=1, due_ns=7, error="first"),
                outcome("dead", attempt=2, error="second"),
                outcome("done", handler="other"),
            ]
        },
    )
    opened, position = reader(), positions["a"]
    parts = {part.handler: part for part in opened.parts_of([position])[position]}
    assert (parts["h"].state, parts["h"].attempt) == (State.DEAD, 2)
    assert parts["other"].state == State.DONE
    assert [(f.attempt, f.error) for f in opened.failures_of([position])[position]] == [
        (1, "first"),
        (2, "second"),
    ]
    (letter,) = opened.dead_letters(opened.newest(Filter(), 10))
    assert (letter.part.handler, letter.last.error) == ("h", "second")


@pytest.mark.usefixtures("some")
def test_nothing_is_asked_about_no_deliveries(reader):
    opened = reader()
    assert opened.parts_of([]) == opened.failures_of([]) == {}
    assert opened.dead_letters([]) == []


def test_the_record_is_what_came(tmp_path, reader):
    positions = fill(tmp_path, delivery("a", body=b'{"n": 1}'))
    kept = reader().kept(positions["a"])
    assert (kept.kind, kept.head, kept.body) == (ACCEPTED, HEAD, b'{"n": 1}')
    assert (kept.accepted.client, kept.accepted.provider) == ("192.0.2.1", "none")


def test_of_an_erased_one_all_but_head_and_body_is_left(tmp_path, reader):
    positions = fill(tmp_path, delivery("a", body=b'{"n": 1}'), delivery("b"))
    _order(tmp_path, Forgotten(1, [positions["a"]]))
    kept = reader().kept(positions["a"])
    assert (kept.kind, kept.accepted.event_id) == (ERASED, "a")
    assert not kept.head.strip(b"\0")
    assert not kept.body.strip(b"\0")
    assert reader().at(positions["a"]).state == State.FORGOTTEN


def _order(path, order):
    """Put an order into the journal, and have a start follow it."""
    journal = Journal(path / "journal" / "0")
    journal.write([later_record(order)])
    journal.close()
    fill(path)


def test_a_record_that_is_dropped_or_damaged_is_none(tmp_path, reader):
    positions = fill(tmp_path, delivery("a", body=b"AAAA"), delivery("b"))
    (segment,) = tmp_path.glob("journal/0/*.seg")
    segment.write_bytes(segment.read_bytes().replace(b"AAAA", b"AAXA"))
    opened = reader()
    assert opened.kept(positions["a"]) is None
    assert opened.kept(positions["b"]).accepted.event_id == "b"
    assert opened.kept(positions["b"] + 1) is None
    segment.unlink()
    assert opened.kept(positions["b"]) is None
    assert opened.at(positions["b"]).event_id == "b"


# --- about all ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("some")
def test_states_are_counted_and_the_oldest_that_waits_is_known(reader, monkeypatch):
    monkeypatch.setattr(queries, "_STRETCH_ROWS", 2)
    opened = reader()
    counts = {state: count for state, count in opened.counts().items() if count}
    assert counts == {State.DONE: 2, State.DEAD: 1, State.PENDING: 2, State.IGNORED: 1}
    assert opened.oldest_pending().event_id == "d"


@pytest.mark.parametrize("page_rows", [1, 4, 1000])
def test_rows_are_all_between_two_positions_with_their_keys(some, page_rows, reader, monkeypatch):
    monkeypatch.setattr(queries, "_PAGE_ROWS", page_rows)
    opened = reader()
    rows = list(opened.rows(some["b"], some["e"]))
    assert ids(found for _, found in rows) == ["b", "c", "d", "d", "e"]
    assert len({key for key, _ in rows}) == 5
    assert (
        opened.unknown([key for key, _ in rows])
        == opened.without_row(key for key, _ in rows)
        == set()
    )
    assert opened.unknown([b"x" * 16]) == opened.without_row([b"x" * 16]) == {b"x" * 16}


def test_an_empty_spool_has_nothing(tmp_path, reader):
    fill(tmp_path)
    opened = reader()
    assert opened.newest(Filter(), 10) == list(opened.oldest_first(Filter())) == []
    assert opened.ends() == {}
    assert opened.oldest_pending() is None
    assert not any(opened.counts().values())


def test_one_that_waits_behind_others_is_due_never(tmp_path, reader):
    fill(tmp_path, delivery("a"), outcomes={"a": [outcome("wait", attempt=0)]})
    assert reader().newest(Filter(), 1)[0].due_ns == NEVER_NS
