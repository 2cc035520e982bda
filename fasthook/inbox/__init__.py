"""The inbox: an event's identity and what its handler writes, in one transaction of one database.

    with event.once(connection):         # `async with` for connections that are asynchronous
        connection.execute(...)

Handlers run at least once: the process may die between "done" and "recorded". Here the row that
says "done" is committed with the work itself, so that either both are there or neither is:

    begin → insert the row (handler, step, endpoint, event) → the block → commit
                │ there already                                  │ an exception
                └ roll back, raise `AlreadyDone`                  └ roll back, raise it

The row comes first: of two runs of one event at the same time the second waits in the database
until the first has committed or rolled back, or fails and is tried again.

`drivers` knows the connections; nothing is imported that a handler has not imported already.
"""

import hashlib
import os
import re
from collections.abc import Awaitable
from types import TracebackType
from typing import Any, Final

from fasthook.errors import AlreadyDone, InboxError
from fasthook.inbox.drivers import Driver, Steps, driver_of
from fasthook.inbox.statements import Row

__all__ = ["KEEP_DAYS", "TABLE", "Once", "Row", "new_key", "row_of"]

TABLE: Final = "fasthook_inbox"
#: Longer than any sender sends an event again; the spool knows it for `retention`.
KEEP_DAYS: Final = 90.0
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]{0,62}\.)?[A-Za-z_][A-Za-z0-9_]{0,50}")
#: A table that is missing is made, and the row inserted again; or somebody else was faster.
_TRIES: Final = 3


def new_key(endpoint: str, event_id: str, body: bytes, *, is_signed: bool) -> bytes:
    """A key for an event that no spool has: its id and body together.

    Where nothing is signed, nothing makes two the same but being one.
    """
    text = f"{endpoint!r} {event_id!r} ".encode("utf-8", "replace")
    signed = hashlib.sha256(body).digest() if is_signed else os.urandom(16)
    return hashlib.blake2b(text + signed, digest_size=16).digest()


def row_of(handler: str, step: str, endpoint: str, key: bytes, event_id: str) -> Row:
    """The row of an event; PostgreSQL's text has no NUL."""
    shown = event_id.encode("utf-8", "replace").decode().replace("\0", "")
    return Row(handler, step, endpoint, key.hex(), shown)


class Once:
    """One block of a handler, for one event and one connection; see `Event.once`."""

    __slots__ = ("_connection", "_driver", "_finished", "_keep_days", "_row", "_table")

    def __init__(
        self,
        connection: Any,
        row: Row,
        finished: set[str],
        table: str = TABLE,
        keep_days: float = KEEP_DAYS,
    ) -> None:
        """`finished`: the steps that this attempt has behind it; one more is added.

        Raises `InboxError` for a name that is none, and a connection that is of no known kind.
        """
        if not _NAME.fullmatch(table):
            raise InboxError(f"table={table!r}; expected a name such as {TABLE!r} or 'shop.inbox'")
        if not keep_days > 0:
            raise InboxError(f"keep_days={keep_days!r}; expected more than 0 days")
        self._connection = connection
        self._row = row
        self._finished = finished
        self._table = table
        self._keep_days = keep_days
        self._driver = driver_of(connection, table)

    # --- with -------------------------------------------------------------------------------------

    def __enter__(self) -> None:
        self._check_kind(is_async=False)
        _run(self._enter(self._driver))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _run(self._leave(self._driver, error))

    async def __aenter__(self) -> None:
        self._check_kind(is_async=True)
        await _run_async(self._enter(self._driver))

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await _run_async(self._leave(self._driver, error))

    def _check_kind(self, *, is_async: bool) -> None:
        if self._driver.is_async != is_async:
            wanted, got = (
                ("async with", "with") if self._driver.is_async else ("with", "async with")
            )
            what = f"{type(self._connection).__module__}.{type(self._connection).__qualname__}"
            raise InboxError(f"a {what} needs `{wanted} event.once(…)`, not `{got}`")

    # --- the steps, for both kinds ----------------------------------------------------------------

    def _enter(self, driver: Driver) -> Steps[None]:
        step = self._row.step
        if step in self._finished:
            raise InboxError(
                "once() is used twice in one attempt, and the second time would never run: give "
                'each block a step of its own, as in once(connection, step="stock")'
            )
        if driver.in_transaction():
            raise InboxError(
                "the connection is in a transaction already, which once() could not commit: begin "
                "with once(), and do all of it inside. (Most drivers begin one with the first "
                "statement, also with a SELECT; and each attempt needs a connection of its own.)"
            )
        for tries_left in reversed(range(_TRIES)):
            yield from _begun(driver)
            try:
                is_first = yield driver.insert(self._row)
                if is_first not in (0, 1):
                    raise InboxError(
                        "the driver does not say whether the row is new; is the connection in "
                        "pipeline mode? Leave that before once()"
                    )
                if is_first and driver.is_to_be_pruned():
                    yield driver.prune(self._keep_days)
            except BaseException as error:
                yield from driver.roll_back(error)
                if not (tries_left and driver.is_table_missing(error)):
                    raise
            else:
                break
            yield from self._make_table(driver)
        if not is_first:
            yield from driver.roll_back(None)
            self._finished.add(step)
            raise AlreadyDone(f"{self._row.handler} has done {self._row.event_id} before")

    def _make_table(self, driver: Driver) -> Steps[None]:
        for statement in driver.statements.create:
            yield from _begun(driver)
            try:
                yield driver.execute(statement)
            except BaseException as error:
                yield from driver.roll_back(error)
                if driver.is_there_already(error):
                    continue
                if isinstance(error, Exception):
                    made = ";\n".join(driver.statements.create)
                    raise InboxError(
                        f"the table {self._table} is missing and can't be made ({error}); "
                        f"make it yourself:\n{made};"
                    ) from error
                raise
            yield from driver.commit()

    def _leave(self, driver: Driver, error: BaseException | None) -> Steps[None]:
        if error is not None:
            yield from driver.roll_back(error)
            return
        try:
            yield from driver.commit()
        except BaseException as failure:
            # Whether it was committed is unknown where the connection broke: the next attempt sees.
            yield from driver.roll_back(failure)
            if (misuse := driver.misuse(failure)) is not None:
                raise misuse from failure
            raise
        self._finished.add(self._row.step)


def _begun(driver: Driver) -> Steps[None]:
    try:
        yield from driver.begin()
    except BaseException as error:
        yield from driver.roll_back(error)
        raise


def _run(steps: Steps[None]) -> None:
    value: Any = None
    try:
        while True:
            value = steps.send(value)
    except StopIteration:
        return


async def _run_async(steps: Steps[None]) -> None:
    try:
        waits: Awaitable[Any] | None = steps.send(None)
        while True:
            try:
                value = await waits if waits is not None else None
            except BaseException as error:
                waits = steps.throw(error)
            else:
                waits = steps.send(value)
    except StopIteration:
        return
