"""The inbox in SQLite: exactly once, wherever the process is killed; and what can't be misused."""

import asyncio
import os
import signal
import sqlite3
from pathlib import Path
from typing import Any

import aiosqlite
import apsw
import pytest

from fasthook.errors import AlreadyDone, InboxError
from fasthook.inbox.statements import PRUNE_EVERY
from tests.inbox.attempts import TAKE, event_of, killed_everywhere, run_at_once


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "shop.db"
    reset(path)
    return path


def reset(path: Path) -> None:
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as connection:
        connection.execute(QUICK)
        connection.execute("CREATE TABLE stock (amount integer)")
        connection.execute("INSERT INTO stock VALUES (10)")
    connection.close()


#: A process that is killed takes no page of the system's memory with it.
QUICK = "PRAGMA synchronous = OFF"


def ask(path: Path, question: str = "SELECT amount FROM stock") -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(question).fetchall()
    finally:
        connection.close()


class Knife:
    """Kills the process at one of its statements."""

    def __init__(self) -> None:
        self.step = -1

    def aim(self, step: int) -> None:
        self.step = step

    def __call__(self, *_: Any) -> bool:
        if self.step == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.step -= 1
        return True


def with_sqlite3(path: Path, knife: Knife, *, once: bool = True, **options: Any) -> Any:
    def handle(event):
        connection = sqlite3.connect(path, **options)
        connection.execute(QUICK)
        connection.set_trace_callback(knife)
        if once:
            with event.once(connection):
                connection.execute(TAKE)
                connection.execute("INSERT INTO stock SELECT 0 WHERE 0")
        else:
            connection.execute(TAKE)
            connection.commit()
        knife()  # between "done" and "recorded"

    return handle


def with_apsw(path: Path, knife: Knife) -> Any:
    def handle(event):
        connection = apsw.Connection(str(path))
        connection.execute(QUICK)
        connection.exec_trace = knife
        with event.once(connection):
            connection.execute(TAKE)
        knife()

    return handle


def with_aiosqlite(path: Path, knife: Knife) -> Any:
    async def handle(event):
        async with aiosqlite.connect(path) as connection:
            await connection.execute(QUICK)
            await connection.set_trace_callback(knife)
            async with event.once(connection):
                await connection.execute(TAKE)
            knife()

    return handle


@pytest.mark.parametrize(
    ("driver", "options"),
    [
        (with_sqlite3, {}),
        (with_sqlite3, {"isolation_level": None}),
        (with_apsw, {}),
        (with_aiosqlite, {}),
    ],
)
def test_a_kill_between_any_two_steps_changes_nothing_twice(path, driver, options):
    knife = Knife()
    handle = driver(path, knife, **options)
    found = killed_everywhere(
        handle, knife.aim, lambda pid: None, lambda: reset(path), lambda: ask(path)[0][0]
    )
    assert found == [9] * len(found)
    assert len(found) > 8  # begin, savepoint, insert, the table, insert, two of the block, …


def test_without_once_a_kill_after_the_commit_changes_it_twice(path):
    """The control: this is what the test above would find."""
    knife = Knife()
    handle = with_sqlite3(path, knife, once=False)
    found = killed_everywhere(
        handle, knife.aim, lambda pid: None, lambda: reset(path), lambda: ask(path)[0][0]
    )
    assert 8 in found


def test_the_block_runs_once_for_each_event_handler_endpoint_and_step(path):
    connection = sqlite3.connect(path)
    events = [event_of(), event_of("evt_2"), event_of(handler="mail"), event_of(endpoint="other")]
    for event in events:
        with event.once(connection):
            connection.execute(TAKE)
    with events[0].once(connection, step="second"):
        connection.execute(TAKE)
    for event in (event_of(), event_of("evt_2"), event_of(handler="mail")):
        with pytest.raises(AlreadyDone, match="has done"), event.once(connection):
            connection.execute(TAKE)
    assert ask(path) == [(5,)]


def test_a_block_that_raises_leaves_nothing(path):
    connection = sqlite3.connect(path)
    event = event_of()
    with pytest.raises(ZeroDivisionError), event.once(connection):
        connection.execute(TAKE)
        1 / 0
    assert not connection.in_transaction
    with event.once(connection):  # in the same attempt, since nothing of it was done
        connection.execute(TAKE)
    assert ask(path) == [(9,)]


def test_a_second_block_in_one_attempt_needs_a_step_of_its_own(path):
    connection, event = sqlite3.connect(path), event_of()
    with event.once(connection):
        connection.execute(TAKE)
    with pytest.raises(InboxError, match='step="stock"'), event.once(connection):
        connection.execute(TAKE)
    assert ask(path) == [(9,)]


def test_a_transaction_that_is_open_already_is_an_error_and_stays_as_it_was(path):
    connection = sqlite3.connect(path)
    connection.execute(TAKE)
    with pytest.raises(InboxError, match="in a transaction already"), event_of().once(connection):
        pass
    assert connection.in_transaction
    connection.commit()
    assert ask(path) == [(9,)]


@pytest.mark.parametrize("end", ["with", "commit", "script", "rollback"])
def test_a_transaction_that_the_block_ends_itself_is_an_error(path, end):
    connection = sqlite3.connect(path)
    with pytest.raises(InboxError, match="ended inside of its block"), event_of().once(connection):
        if end == "with":
            with connection:
                connection.execute(TAKE)
        elif end == "commit":
            connection.commit()
        elif end == "rollback":
            connection.rollback()
        else:
            connection.executescript("SELECT 1")
        connection.execute(TAKE)
    assert not connection.in_transaction


def test_a_concurrent_run_of_the_same_event_waits_for_the_first(path):
    first, second = (sqlite3.connect(path, check_same_thread=False) for _ in range(2))
    assert len(run_at_once(first, second)) == 1
    assert ask(path) == [(9,)]


def test_one_that_waits_in_vain_fails_and_does_nothing(path):
    first, second = sqlite3.connect(path), sqlite3.connect(path, timeout=0)
    with event_of().once(first):
        with pytest.raises(sqlite3.OperationalError, match="locked"), event_of().once(second):
            second.execute(TAKE)
        first.execute(TAKE)
    assert ask(path) == [(9,)]


@pytest.mark.parametrize("point", range(8))
def test_a_cancellation_at_any_point_leaves_no_transaction_open(path, point):
    """As by the handler's timeout: at the n-th time that the attempt waits for something."""

    async def run():
        async with aiosqlite.connect(path) as connection:

            async def handle():
                async with event_of().once(connection):
                    await connection.execute(TAKE)

            task = asyncio.ensure_future(handle())
            seen = 0
            while not task.done():
                waits = task._fut_waiter
                if waits is not None and seen == point:
                    task.cancel()
                seen += waits is not None
                await (asyncio.sleep(0) if waits is None else asyncio.wait([waits]))
                await asyncio.sleep(0)
            try:
                await task
            except asyncio.CancelledError:
                pass
            await connection.execute("SELECT 1")  # behind whatever the thread still had to do
            assert not connection.in_transaction
            try:
                await handle()
            except AlreadyDone:
                pass

    asyncio.run(run())
    assert ask(path) == [(9,)]


def test_old_rows_go_some_at_a_time(path):
    connection = sqlite3.connect(path)
    connection.execute(QUICK)
    with event_of("first").once(connection):
        pass
    old = [(str(number),) for number in range(1200)]
    connection.executemany(
        "INSERT INTO fasthook_inbox VALUES ('h', '', 'e', ?, '', unixepoch() - 86400 * 8)", old
    )
    connection.commit()
    counts = []
    for number in range(3 * PRUNE_EVERY):
        with event_of(f"event {number}").once(connection, keep_days=7):
            pass
        [[count]] = ask(path, "SELECT count(*) FROM fasthook_inbox WHERE handler = 'h'")
        counts.append(count)
    assert set(counts) <= {1200, 700, 200, 0}
    assert counts[-1] == 0
    assert ask(path, "SELECT count(*) FROM fasthook_inbox") == [(3 * PRUNE_EVERY + 1,)]


def test_a_row_tells_people_which_event_it_is(path):
    connection = sqlite3.connect(path)
    with event_of("evt_\0\ud8007").once(connection, table="main.seen"):
        pass
    [[handler, step, endpoint, key, event_id, at]] = ask(path, "SELECT * FROM seen")
    assert (handler, step, endpoint, event_id) == ("stock", "", "shop", "evt_?7")
    assert len(key) == 32
    assert at > 1_700_000_000


@pytest.mark.parametrize("table", ["", "a b", "x; DROP TABLE stock", "a.b.c", "1", "x" * 60])
def test_a_table_needs_a_name(path, table):
    with pytest.raises(InboxError, match="expected a name such as 'fasthook_inbox'"):
        event_of().once(sqlite3.connect(path), table=table)


def test_what_is_no_connection_is_an_error_that_says_what_is(path):
    connection = sqlite3.connect(path)
    for wrong in (path, connection.cursor(), None):
        with pytest.raises(InboxError, match=r"expected a connection .* of sqlite3, .*psycopg"):
            event_of().once(wrong)
    with pytest.raises(InboxError, match="0 days"):
        event_of().once(connection, keep_days=0)


def test_the_wrong_with_is_an_error_that_says_the_right_one(path):
    async def run():
        with pytest.raises(InboxError, match="sqlite3.Connection needs `with event"):
            async with event_of().once(sqlite3.connect(path)):
                pass
        async with aiosqlite.connect(path) as connection:
            with pytest.raises(InboxError, match="needs `async with event"):
                with event_of().once(connection):
                    pass

    asyncio.run(run())
