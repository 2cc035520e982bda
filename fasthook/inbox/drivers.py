"""Connections of SQLite and PostgreSQL drivers, each with the five things that the inbox does.

A connection is known by the module that its class, or a parent of it, is from: no driver is
imported here. What takes several calls of a driver is a generator that yields each of them: its
value, or of an asynchronous driver what is to be awaited. So both kinds are written once.
"""

import contextlib
import inspect
import itertools
from collections.abc import Generator
from typing import Any, Final, TypeVar

from fasthook.errors import InboxError
from fasthook.inbox.statements import PRUNE_EVERY, Row, Statements, postgresql, sqlite

T = TypeVar("T")
#: What a step of it gives is a value, or for asynchronous connections the wait for one.
Steps = Generator[Any, Any, T]

_turns: Final = itertools.count()
_SAVEPOINT: Final = "fasthook_once"
#: SQLSTATE (PostgreSQL, appendix A).
_UNDEFINED_TABLE: Final = "42P01"
_NO_SUCH_SAVEPOINT: Final = "3B001"
_NO_TRANSACTION: Final = "25P01"
_FAILED_TRANSACTION: Final = "25P02"
#: Two that make the same table at the same time: one finds it, or its name in the catalogue.
_DUPLICATE: Final = frozenset(("42P07", "42710", "23505"))


class Ended(InboxError):
    """The transaction was ended inside of the block."""

    def __init__(self) -> None:
        super().__init__(
            "the transaction of once() was ended inside of its block: no commit(), rollback(), "
            "executescript() or `with connection:` there; once() commits at the end, and rolls "
            "back if the block raises"
        )


class Failed(InboxError):
    """A statement of the block has failed, and nobody was told."""

    def __init__(self) -> None:
        super().__init__(
            "a statement failed inside of once(), and its error was swallowed: PostgreSQL commits "
            "nothing after that; let it raise, or use a savepoint"
        )


class Driver:
    """One connection."""

    is_async = False
    statements: Statements

    def __init__(self, connection: Any, table: str) -> None:
        self.connection = connection

    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        raise NotImplementedError

    def execute(self, statement: str, parameters: tuple[Any, ...] = ()) -> Any:
        """How many rows it has changed. `statement`: with `{}` for each parameter."""
        raise NotImplementedError

    def begin(self) -> Steps[None]:
        """Open one. Where that fails, or is cancelled, some of it may be done all the same."""
        raise NotImplementedError

    def commit(self) -> Steps[None]:
        """Make it last. Raises where there is none any more, or nothing of it would last."""
        raise NotImplementedError

    def roll_back(self, error: BaseException | None) -> Steps[None]:
        """Undo all of it; quiet where nothing is left to undo, or nobody to ask."""
        raise NotImplementedError

    def is_table_missing(self, error: BaseException) -> bool:
        """Whether a statement failed for want of the table."""
        return sqlstate(error) == _UNDEFINED_TABLE

    def is_there_already(self, error: BaseException) -> bool:
        """Whether somebody else has just made what was to be made."""
        return sqlstate(error) in _DUPLICATE

    def misuse(self, error: BaseException) -> InboxError | None:
        """What the block has done wrong, where that is why `commit` has failed."""
        code = sqlstate(error)
        if code in (_NO_SUCH_SAVEPOINT, _NO_TRANSACTION):
            return Ended()
        return Failed() if code == _FAILED_TRANSACTION else None

    def insert(self, row: Row) -> Any:
        """Whether the row is new: 1, or 0."""
        return self.execute(self.statements.insert, row)

    def prune(self, days: float) -> Any:
        """Remove some rows that are older."""
        return self.execute(self.statements.prune, (self.statements.age(days),))

    def is_to_be_pruned(self) -> bool:
        """At the first event of a process, and now and then."""
        return next(_turns) % PRUNE_EVERY == 0


def sqlstate(error: BaseException) -> str:
    """PostgreSQL's code for an error, however its driver has it; else empty."""
    for name in ("sqlstate", "pgcode"):
        if isinstance(code := getattr(error, name, None), str):
            return code
    if error.args and isinstance(error.args[0], dict):  # pg8000
        return str(error.args[0].get("C", ""))
    return ""


# --- SQLite ---------------------------------------------------------------------------------------


class SQLite(Driver):
    """sqlite3, and what is made like it.

    The savepoint tells at the end whether the block has ended the transaction. IMMEDIATE: a
    concurrent run waits here, for as long as the connection's timeout says.
    """

    def __init__(self, connection: Any, table: str) -> None:
        super().__init__(connection, table)
        self.statements = sqlite(table)
        if getattr(connection, "autocommit", None) is False:  # an attribute since Python 3.12
            raise InboxError(
                "a sqlite3 connection with autocommit=False is always in a transaction; connect "
                "without it, or with autocommit=True"
            )

    def in_transaction(self) -> bool:
        return bool(self.connection.in_transaction)

    def execute(self, statement: str, parameters: tuple[Any, ...] = ()) -> Any:
        return self.connection.execute(statement.replace("{}", "?"), parameters).rowcount

    def begin(self) -> Steps[None]:
        yield self.execute("BEGIN IMMEDIATE")
        yield self.execute(f"SAVEPOINT {_SAVEPOINT}")

    def commit(self) -> Steps[None]:
        yield self.execute(f"RELEASE {_SAVEPOINT}")
        yield self.execute("COMMIT")

    def roll_back(self, error: BaseException | None) -> Steps[None]:
        with contextlib.suppress(Exception):
            yield self.execute("ROLLBACK")

    def is_table_missing(self, error: BaseException) -> bool:
        return "no such table" in str(error)

    def is_there_already(self, error: BaseException) -> bool:
        return False

    def misuse(self, error: BaseException) -> InboxError | None:
        return Ended() if f"no such savepoint: {_SAVEPOINT}" in str(error) else None


class Apsw(SQLite):
    """apsw, which has no cursor with a count."""

    def in_transaction(self) -> bool:
        return not self.connection.getautocommit()

    def execute(self, statement: str, parameters: tuple[Any, ...] = ()) -> Any:
        self.connection.execute(statement.replace("{}", "?"), parameters).fetchall()
        return self.connection.changes()


class AioSqlite(SQLite):
    """aiosqlite: sqlite3 in a thread, which does what it was asked for, also if nobody waits."""

    is_async = True

    async def execute(self, statement: str, parameters: tuple[Any, ...] = ()) -> int:
        cursor = await self.connection.execute(statement.replace("{}", "?"), parameters)
        count = cursor.rowcount
        await cursor.close()
        return int(count)


# --- PostgreSQL -----------------------------------------------------------------------------------


class Psycopg(Driver):
    """psycopg 3. Its transaction block forbids commit() inside."""

    def __init__(self, connection: Any, table: str) -> None:
        super().__init__(connection, table)
        self.statements = postgresql(table)
        self._block: Any = None  # until it is left: that can be done once

    @property
    def _status(self) -> str:
        return str(self.connection.info.transaction_status.name)

    def in_transaction(self) -> bool:
        return self._status != "IDLE"

    def execute(self, statement: str, parameters: tuple[Any, ...] = ()) -> Any:
        text = statement.replace("{}", "%s")
        return self.connection.execute(text, parameters or None).rowcount

    def begin(self) -> Steps[None]:
        block = self.connection.transaction()
        yield self._entered(block)
        self._block = block

    def commit(self) -> Steps[None]:
        if self._status == "IDLE":
            raise Ended
        if self._status == "INERROR":  # COMMIT would roll back, and say nothing
            raise Failed
        yield self._left(None)

    def roll_back(self, error: BaseException | None) -> Steps[None]:
        with contextlib.suppress(Exception):
            if self._block is not None:
                yield self._left(error or InboxError("rolled back"))
            elif self.in_transaction():
                yield self.connection.rollback()

    def _left(self, error: BaseException | None) -> Any:
        block, self._block = self._block, None
        return self._exited(block, (type(error) if error is not None else None, error, None))

    def _entered(self, block: Any) -> Any:
        return block.__enter__()

    def _exited(self, block: Any, raised: tuple[Any, ...]) -> Any:
        return block.__exit__(*raised)


class AsyncPsycopg(Psycopg):
    """The same, asynchronous."""

    is_async = True

    async def execute(self, statement: str, parameters: tuple[Any, ...] = ()) -> int:
        text = statement.replace("{}", "%s")
        return int((await self.connection.execute(text, parameters or None)).rowcount)

    def _entered(self, block: Any) -> Any:
        return block.__aenter__()

    def _exited(self, block: Any, raised: tuple[Any, ...]) -> Any:
        return block.__aexit__(*raised)


class Asyncpg(Driver):
    """asyncpg, also by its pool."""

    is_async = True

    def __init__(self, connection: Any, table: str) -> None:
        super().__init__(connection, table)
        self.statements = postgresql(table)
        self._block: Any = None

    def in_transaction(self) -> bool:
        return bool(self.connection.is_in_transaction())

    async def execute(self, statement: str, parameters: tuple[Any, ...] = ()) -> int:
        for number in range(len(parameters)):
            statement = statement.replace("{}", f"${number + 1}", 1)
        said = await self.connection.execute(statement, *parameters)  # such as "INSERT 0 1"
        last = said.rpartition(" ")[2]
        return int(last) if last.isdigit() else -1

    def begin(self) -> Steps[None]:
        self._block = self.connection.transaction()
        yield self._block.start()

    def commit(self) -> Steps[None]:
        if not self.in_transaction():
            raise Ended
        yield self.connection.execute("SELECT 1")  # COMMIT would roll back, and say nothing
        yield self._block.commit()

    def roll_back(self, error: BaseException | None) -> Steps[None]:
        with contextlib.suppress(Exception):
            yield self._block.rollback()
        with contextlib.suppress(Exception):
            if self.in_transaction():
                yield self.connection.execute("ROLLBACK")


class DBAPI(Driver):
    """A synchronous driver of PostgreSQL as PEP 249 has it: psycopg2, pg8000.

    The transaction begins with the first statement; the savepoint tells at the end whether the
    block has ended it.
    """

    def __init__(self, connection: Any, table: str) -> None:
        super().__init__(connection, table)
        self.statements = postgresql(table)
        self._is_autocommit = bool(getattr(connection, "autocommit", False))

    def in_transaction(self) -> bool:
        if (status := getattr(self.connection, "get_transaction_status", None)) is not None:
            return bool(status())  # psycopg2: 0 is idle
        return bool(getattr(self.connection, "_in_transaction", False))  # pg8000

    def execute(self, statement: str, parameters: tuple[Any, ...] = ()) -> Any:
        cursor = self.connection.cursor()
        try:
            cursor.execute(statement.replace("{}", "%s"), parameters)
            return cursor.rowcount
        finally:
            with contextlib.suppress(Exception):
                cursor.close()

    def begin(self) -> Steps[None]:
        if self._is_autocommit:
            yield self.execute("BEGIN")
        yield self.execute(f"SAVEPOINT {_SAVEPOINT}")

    def commit(self) -> Steps[None]:
        yield self.execute(f"RELEASE SAVEPOINT {_SAVEPOINT}")
        yield self.execute("COMMIT") if self._is_autocommit else self.connection.commit()

    def roll_back(self, error: BaseException | None) -> Steps[None]:
        with contextlib.suppress(Exception):
            yield self.execute("ROLLBACK") if self._is_autocommit else self.connection.rollback()


# --- which one ------------------------------------------------------------------------------------

#: By the first name of the class's module.
_DRIVERS: Final[dict[str, type[Driver]]] = {
    "sqlite3": SQLite,
    "pysqlite3": SQLite,
    "sqlcipher3": SQLite,
    "apsw": Apsw,
    "aiosqlite": AioSqlite,
    "psycopg": Psycopg,
    "asyncpg": Asyncpg,
    "psycopg2": DBAPI,
    "pg8000": DBAPI,
}


def driver_of(connection: Any, table: str) -> Driver:
    """What is known of a connection. Raises `InboxError` where that is nothing."""
    for kind in type(connection).__mro__:
        found = _DRIVERS.get(kind.__module__.partition(".")[0])
        if found is None:
            continue
        if "cursor" not in dir(connection):
            break  # a pool, a cursor
        if found is Psycopg and inspect.iscoroutinefunction(connection.commit):
            found = AsyncPsycopg
        return found(connection, table)
    what = f"{type(connection).__module__}.{type(connection).__qualname__}"
    raise InboxError(
        f"once() got a {what}; expected a connection (not a pool, cursor or session) of "
        f"{', '.join(_DRIVERS)}"
    )
