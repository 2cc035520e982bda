"""The inbox in PostgreSQL: exactly once, wherever the process is killed, with each driver."""

import asyncio
import contextlib
import functools
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pg8000.dbapi
import psycopg
import psycopg2
import pytest

from fasthook.errors import AlreadyDone, InboxError
from tests.inbox.attempts import TAKE, event_of, killed_everywhere, run_at_once
from tests.inbox.relay import Relay
from tests.postgresql import PORT, cluster


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    with cluster() as host:
        yield host


@pytest.fixture(scope="module")
def relay(host: str) -> Iterator[Relay]:
    folder = Path(tempfile.mkdtemp(prefix="fasthook-relay-"))
    relay = Relay(folder, host)
    yield relay
    relay.close()
    shutil.rmtree(folder)


@pytest.fixture
def db(host: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(host=host, user="postgres", autocommit=True) as connection:
        reset(connection)
        yield connection


def reset(db: psycopg.Connection[Any], *, has_inbox: bool = False) -> None:
    db.execute("DROP TABLE IF EXISTS stock")
    db.execute("CREATE TABLE stock AS SELECT 10 AS amount")
    db.execute("TRUNCATE fasthook_inbox" if has_inbox else "DROP TABLE IF EXISTS fasthook_inbox")


def amount(db: psycopg.Connection[Any]) -> int:
    return db.execute("SELECT amount FROM stock").fetchone()[0]


def with_psycopg(host: str) -> Any:
    def handle(event):
        with psycopg.connect(host=host, user="postgres") as connection:
            with event.once(connection):
                connection.execute(TAKE)

    return handle


def with_async_psycopg(host: str) -> Any:
    async def handle(event):
        connection = await psycopg.AsyncConnection.connect(
            host=host, user="postgres", autocommit=True
        )
        async with connection, event.once(connection):
            await connection.execute(TAKE)

    return handle


def with_asyncpg(host: str) -> Any:
    async def handle(event):
        connection = await asyncpg.connect(host=host, port=PORT, user="postgres")
        async with event.once(connection):
            await connection.execute(TAKE)
        await connection.close()

    return handle


def pg8000_connection(host: str) -> Any:
    return pg8000.dbapi.connect("postgres", unix_sock=f"{host}/.s.PGSQL.{PORT}")


def psycopg2_connection(host: str) -> Any:
    return psycopg2.connect(host=host, user="postgres")


def with_dbapi(connect: Any, host: str, *, autocommit: bool = False) -> Any:
    def handle(event):
        connection = connect(host)
        connection.autocommit = autocommit
        with contextlib.closing(connection), event.once(connection):
            connection.cursor().execute(TAKE)

    return handle


with_pg8000 = functools.partial(with_dbapi, pg8000_connection)


def without(host: str) -> Any:
    def handle(event):
        with psycopg.connect(host=host, user="postgres") as connection:
            connection.execute(TAKE)

    return handle


def amounts(handle: Any, relay: Relay, db: Any, *, is_after: bool, has_inbox: bool) -> list[int]:
    def told(pid):
        relay.pid = pid

    return killed_everywhere(
        handle,
        lambda step: relay.aim(step, is_after=is_after),
        told,
        lambda: reset(db, has_inbox=has_inbox),
        lambda: amount(db),
    )


@pytest.mark.parametrize(
    ("driver", "is_after"),
    [
        (with_psycopg, False),
        (with_psycopg, True),
        (with_async_psycopg, False),
        (with_async_psycopg, True),
        (with_asyncpg, False),
        (with_asyncpg, True),
        (with_pg8000, True),
    ],
)
def test_a_kill_between_any_two_steps_changes_nothing_twice(driver, is_after, relay, db):
    # The table is made in the first half of these: that is tried with one driver alone.
    has_inbox = driver is not with_psycopg
    if has_inbox:
        with event_of("other").once(db):
            pass
    found = amounts(driver(str(relay.folder)), relay, db, is_after=is_after, has_inbox=has_inbox)
    assert found == [9] * len(found)
    assert len(found) > 4  # begin, insert, the block, commit


def test_without_once_a_kill_after_the_commit_changes_it_twice(relay, db):
    """The control: this is what the test above would find."""
    found = amounts(without(str(relay.folder)), relay, db, is_after=True, has_inbox=False)
    assert 8 in found


@pytest.mark.parametrize("autocommit", [False, True])
def test_a_concurrent_run_of_the_same_event_waits_for_the_first(host, db, autocommit):
    with event_of("other").once(db):
        pass
    with psycopg.connect(host=host, user="postgres", autocommit=autocommit) as second:
        assert len(run_at_once(db, second)) == 1
    assert amount(db) == 9


def test_one_that_waited_goes_on_where_the_first_rolls_back(host, db):
    second = psycopg.connect(host=host, user="postgres")

    def run():
        with event_of().once(second):
            second.execute(TAKE)

    with event_of("other").once(db):
        pass
    other = threading.Thread(target=run)
    with pytest.raises(ZeroDivisionError), event_of().once(db):
        other.start()
        db.execute(TAKE)
        other.join(0.05)
        1 / 0
    other.join()
    second.close()
    assert amount(db) == 9


def test_many_that_find_no_table_make_it_once(host, db):
    def run(number):
        with psycopg.connect(host=host, user="postgres") as connection:
            with event_of(f"event {number}").once(connection):
                connection.execute(TAKE)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert amount(db) == 2
    assert db.execute("SELECT count(*) FROM fasthook_inbox").fetchone() == (8,)


def test_who_may_make_no_table_is_told_its_definition(host, db):
    db.execute("DROP ROLE IF EXISTS clerk")
    db.execute("CREATE ROLE clerk LOGIN")
    with psycopg.connect(host=host, user="clerk", dbname="postgres") as connection:
        with pytest.raises(InboxError, match=r"(?s)permission denied.*:\nCREATE TABLE"):
            with event_of().once(connection):
                pass
        assert connection.info.transaction_status.name == "IDLE"
    db.execute("DROP ROLE clerk")


@pytest.mark.parametrize("autocommit", [False, True])
@pytest.mark.parametrize("connect", [pg8000_connection, psycopg2_connection])
def test_a_dbapi_driver_commits_its_own_transaction(host, db, connect, autocommit):
    handle = with_dbapi(connect, host, autocommit=autocommit)
    handle(event_of())
    with pytest.raises(AlreadyDone):
        handle(event_of())
    assert amount(db) == 9
    connection = connect(host)
    connection.cursor().execute(TAKE)
    with pytest.raises(InboxError, match="in a transaction already"), event_of().once(connection):
        pass
    connection.rollback()
    with pytest.raises(InboxError, match="ended inside"), event_of("b").once(connection):
        connection.cursor().execute(TAKE)
        connection.commit()
    connection.close()


def test_psycopg_forbids_commit_inside_and_an_open_transaction(host, db):
    with psycopg.connect(host=host, user="postgres") as connection:
        with pytest.raises(psycopg.ProgrammingError), event_of().once(connection):
            connection.execute(TAKE)
            connection.commit()
        connection.execute("SELECT 1")
        with pytest.raises(InboxError, match="in a transaction already"):
            with event_of().once(connection):
                pass
        connection.rollback()
        with pytest.raises(InboxError, match="ended inside"), event_of().once(connection):
            connection.execute("ROLLBACK")
        with pytest.raises(InboxError, match="pipeline mode"), connection.pipeline():
            with event_of().once(connection):
                pass
        with event_of().once(connection):
            with connection.transaction():
                connection.execute(TAKE)
    assert amount(db) == 9


def test_an_error_that_was_swallowed_inside_is_told_since_nothing_would_be_committed(host, db):
    with psycopg.connect(host=host, user="postgres") as connection:
        with pytest.raises(InboxError, match="swallowed"), event_of().once(connection):
            connection.execute(TAKE)
            with pytest.raises(psycopg.Error):
                connection.execute("SELECT 1/0")

    async def run():
        connection = await asyncpg.connect(host=host, port=PORT, user="postgres")
        with pytest.raises(InboxError, match="swallowed"):
            async with event_of().once(connection):
                await connection.execute(TAKE)
                with pytest.raises(asyncpg.PostgresError):
                    await connection.execute("SELECT 1/0")
        async with event_of().once(connection), connection.transaction():
            await connection.execute(TAKE)
        await connection.close()

    asyncio.run(run())
    assert amount(db) == 9


def test_a_pool_of_asyncpg_has_connections_and_is_none(host, db):
    async def run():
        async with asyncpg.create_pool(host=host, port=PORT, user="postgres", min_size=1) as pool:
            with pytest.raises(InboxError, match="not a pool"):
                event_of().once(pool)
            for name in ("a", "b", "b"):
                try:
                    async with pool.acquire() as connection, event_of(name).once(connection):
                        await connection.execute(TAKE)
                except AlreadyDone:
                    pass

    asyncio.run(run())
    assert amount(db) == 8


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_a_cancellation_while_it_waits_leaves_the_connection_free(driver, host, db):
    """As by the handler's timeout: the row belongs to another run, which goes on."""

    async def run():
        if driver == "psycopg":
            connection: Any = await psycopg.AsyncConnection.connect(host=host, user="postgres")
        else:
            connection = await asyncpg.connect(host=host, port=PORT, user="postgres")

        async def handle(name):
            async with event_of(name).once(connection):
                await connection.execute(TAKE)

        with event_of("a").once(db):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(handle("a"), 0.1)
            await asyncio.wait_for(handle("b"), 5)
        with pytest.raises(AlreadyDone):
            await handle("a")
        await connection.close()

    with event_of("other").once(db):
        pass
    asyncio.run(run())
    assert amount(db) == 9
