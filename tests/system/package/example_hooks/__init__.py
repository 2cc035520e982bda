"""Handlers as a user would write them. What they got is appended to the file EXAMPLE_RECORD."""

import asyncio
import os
from typing import Any

import msgspec

from fasthook import Event, handler


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


@handler
async def noop(event: Event[Push]) -> None:
    pass
