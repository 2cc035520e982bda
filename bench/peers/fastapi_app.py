"""FastAPI with pydantic, storing nothing, or in what `BENCH_STORE` names.

`sqlite:PATH` inserts and commits in the handler, on the loop: one writer is all that SQLite has,
and a thread for each insert would only add to it. `redis:SOCKET` enqueues a job of arq, under the
event's id.
"""

import contextlib
import os
import sqlite3

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

from bench.peers.checking import HEADER, PATH, Counts, is_genuine


class Repository(BaseModel):
    id: int
    full_name: str
    private: bool


class Pusher(BaseModel):
    name: str


class Push(BaseModel):
    ref: str
    before: str
    after: str
    repository: Repository
    pusher: Pusher


class Intent(BaseModel):
    id: str
    amount: int
    currency: str


class IntentData(BaseModel):
    object: Intent


class StripeEvent(BaseModel):
    id: str
    type: str
    created: int
    data: IntentData


Payload = StripeEvent if PATH == "/stripe" else Push


class Nowhere:
    """Nothing is stored."""

    async def open(self) -> None: ...
    async def put(self, event_id: str, body: bytes) -> None: ...
    async def stored(self) -> int | None:
        return None


class Sqlite(Nowhere):
    """One row an event, on disk when the insert returns."""

    def __init__(self, path: str) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("PRAGMA synchronous = FULL")
        self.connection.execute(
            "CREATE TABLE events (id TEXT PRIMARY KEY, body BLOB) WITHOUT ROWID"
        )

    async def put(self, event_id: str, body: bytes) -> None:
        self.connection.execute("INSERT OR IGNORE INTO events VALUES (?, ?)", (event_id, body))

    async def stored(self) -> int:
        return self.connection.execute("SELECT count(*) FROM events").fetchone()[0]


class Redis(Nowhere):
    """One job an event; as durable as `appendfsync` says."""

    def __init__(self, socket: str) -> None:
        self.socket = socket

    async def open(self) -> None:
        from arq import create_pool
        from arq.connections import RedisSettings

        self.pool = await create_pool(RedisSettings(unix_socket_path=self.socket))

    async def put(self, event_id: str, body: bytes) -> None:
        await self.pool.enqueue_job("handle", body, _job_id=event_id)

    async def stored(self) -> int:
        return await self.pool.zcard("arq:queue")


def _make_store() -> Nowhere:
    kind, _, where = os.environ.get("BENCH_STORE", "").partition(":")
    return {"sqlite": Sqlite, "redis": Redis}[kind](where) if kind else Nowhere()


counts = Counts()
store = _make_store()


@contextlib.asynccontextmanager
async def _lifespan(app):
    await store.open()
    yield


app = FastAPI(lifespan=_lifespan)


@app.get("/counts")
async def counts_so_far() -> Response:
    return Response(counts.shown(await store.stored()), media_type="application/json")


@app.post(PATH)
async def hook(request: Request) -> Response:
    body = await request.body()
    if not is_genuine(body, request.headers.get(HEADER, "")):
        counts.refused += 1
        return Response(status_code=401)
    event = Payload.model_validate_json(body)
    await store.put(request.headers.get("x-github-delivery") or event.id, body)
    counts.accepted += 1
    return Response(status_code=202)
