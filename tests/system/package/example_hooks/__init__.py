"""Handlers as a user would write them. What they got is appended to the file EXAMPLE_RECORD."""

import asyncio
import contextlib
import os
import signal
import sqlite3
from typing import Any

import msgspec

from fasthook import Event, Retry, expect, handler


class Repository(msgspec.Struct):
    id: int
    full_name: str


class Push(msgspec.Struct):
    ref: str
    after: str
    repository: Repository


class Order(msgspec.Struct):
    id: int
    total_price: str


def write(event: Event[Any]) -> None:
    line = {
        "id": event.id,
        "type": event.type,
        "provider": event.provider,
        "attempt": event.attempt,
        "kind": type(event.payload).__name__,
        "payload": event.payload,
    }
    with open(os.environ["EXAMPLE_RECORD"], "ab") as file:
        file.write(msgspec.json.encode(line) + b"\n")


@handler
async def record(event: Event[Any]) -> None:
    write(event)


@handler
def record_push(event: Event[Push]) -> None:
    write(event)


@handler(retries=0)
async def strict_order(event: Event[Order]) -> None:
    write(event)


@handler(concurrency=1)
async def slow(event: Event[Any]) -> None:
    await asyncio.sleep(0.2)
    write(event)


@handler(ordered_by="payload.id")
async def patient(event: Event[Any]) -> None:
    """Has to try the event "0" twice."""
    write(event)
    if event.id == "0" and event.attempt == 1:
        raise Retry("not yet", after=1.9)


@handler(ordered_by="id")
async def deadly(event: Event[Any]) -> None:
    """Time enough for the service to be seen listening, and then its end."""
    write(event)
    await asyncio.sleep(0.3)
    os.kill(os.getpid(), signal.SIGKILL)


@handler
async def noop(event: Event[Push]) -> None:
    pass


def _take(event: Event[Any]) -> None:
    """Change the stock, with `once` and without."""
    path = os.environ["EXAMPLE_RECORD"] + ".db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS stock (event text)")
        connection.execute("INSERT INTO stock VALUES (?)", (f"{event.id} without",))
        with event.once(connection):
            connection.execute("INSERT INTO stock VALUES (?)", (event.id,))


@handler(concurrency=1)
async def take_and_live(event: Event[Any]) -> None:
    _take(event)


# Two that die between "done" and "recorded". In order, for those run at once where the process
# died: others wait some seconds.
@handler(ordered_by="id")
async def take(event: Event[Any]) -> None:
    _take(event)
    os.kill(os.getpid(), signal.SIGKILL)


@handler(runs_in="process", ordered_by="id")
def take_in_process(event: Event[Any]) -> None:
    _take(event)
    os.kill(os.getppid(), signal.SIGKILL)


@handler(timeout=60, ordered_by="id")
async def await_payment(event: Event[Any]) -> None:
    """Of an order: waits for the event that says that it is paid."""
    if event.type == "order":
        where = f'type == "paid" && payload.number == {event.payload["number"]}'
        write(await expect(event.endpoint, where, since=event, timeout="40s"))
