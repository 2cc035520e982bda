"""The tables of the index, and what is asked of them in more than one line."""

from typing import Final

from fasthook.spool.changes import NEVER_NS, State
from fasthook.spool.journal import WORKER_OF_POSITION

VERSION: Final = 4
#: Of the partial index; as it says it, or SQLite does not see that it may use it.
IS_NOT_OVER: Final = (
    f"state IN ({State.RUNNING:d}, {State.DEAD:d}, {State.DAMAGED:d}, {State.FORGOTTEN:d})"
)
SCHEMA: Final = f"""
CREATE TABLE deliveries (
    position INTEGER PRIMARY KEY, key BLOB NOT NULL, endpoint TEXT NOT NULL,
    event_id TEXT NOT NULL, event_type TEXT NOT NULL, received_at_ns INTEGER NOT NULL,
    state INTEGER NOT NULL, due_ns INTEGER NOT NULL);
CREATE INDEX deliveries_due ON deliveries ({WORKER_OF_POSITION}, due_ns, position)
    WHERE state = {State.PENDING:d};
CREATE INDEX deliveries_state ON deliveries (state, position)
    WHERE {IS_NOT_OVER};
CREATE TABLE keys (key BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE fresh_keys (key BLOB NOT NULL);
CREATE TABLE parts (
    position INTEGER NOT NULL, handler TEXT NOT NULL, attempt INTEGER NOT NULL,
    state INTEGER NOT NULL, due_ns INTEGER NOT NULL, order_key TEXT NOT NULL,
    crashes INTEGER NOT NULL DEFAULT 0, note TEXT NOT NULL DEFAULT '',
    since_ns INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (position, handler)) WITHOUT ROWID;
CREATE INDEX parts_order ON parts (handler, order_key, state)
    WHERE order_key != '' AND state IN ({State.PENDING:d}, {State.WAITING:d});
CREATE INDEX parts_held ON parts (handler, position) WHERE due_ns = {NEVER_NS:d};
CREATE TABLE failures (
    position INTEGER NOT NULL, handler TEXT NOT NULL, attempt INTEGER NOT NULL,
    at_ns INTEGER NOT NULL, error TEXT NOT NULL,
    PRIMARY KEY (position, handler, attempt)) WITHOUT ROWID;
CREATE TABLE cursors (worker INTEGER PRIMARY KEY, segment INTEGER, offset INTEGER);
PRAGMA user_version = {VERSION};
"""
PART_STATES: Final = {
    "done": State.DONE,
    "retry": State.PENDING,
    "dead": State.DEAD,
    "wait": State.WAITING,
    "crash": State.PENDING,
    "skip": State.SKIPPED,
    "hold": State.PENDING,
    "superseded": State.SUPERSEDED,
}
#: What is said with these is no failure.
NOTED: Final = ("skip", "superseded")
#: What became of a delivery as a whole: the first of these that is said of a handler.
OVER: Final = (State.DEAD, State.DONE, State.SUPERSEDED, State.SKIPPED)
SETTLED_STATES: Final = (State.DONE, State.DEAD, State.IGNORED, State.SUPERSEDED)
LEADERLESS: Final = f"""
SELECT DISTINCT handler, order_key FROM parts p WHERE order_key != '' AND state = {State.WAITING:d}
AND NOT EXISTS (SELECT 1 FROM parts q WHERE q.handler = p.handler AND q.order_key = p.order_key
    AND q.order_key != '' AND q.state = {State.PENDING:d})"""
HELD: Final = f"""
SELECT keys.*, newest.due_ns, newest.since_ns, received_at_ns FROM (
    SELECT handler, order_key, max(CASE WHEN state = {State.PENDING:d} AND attempt > 0
        THEN position ELSE -1 END), sum(attempt = 0),
        coalesce(min(CASE WHEN attempt = 0 THEN position END), 0), max(position) AS last
    FROM parts WHERE order_key != '' AND state IN ({State.PENDING:d}, {State.WAITING:d})
    GROUP BY handler, order_key) keys
JOIN parts newest ON newest.position = last AND newest.handler = keys.handler
JOIN deliveries ON deliveries.position = last"""
#: From one handler to the next in the index: however much is held, it is not looked through.
HELD_HANDLERS: Final = f"""
WITH RECURSIVE held (handler) AS (
    SELECT min(handler) FROM parts INDEXED BY parts_held WHERE due_ns = {NEVER_NS:d}
    UNION ALL SELECT (
        SELECT min(handler) FROM parts INDEXED BY parts_held
        WHERE due_ns = {NEVER_NS:d} AND handler > held.handler)
    FROM held WHERE held.handler IS NOT NULL)
SELECT handler FROM held WHERE handler IS NOT NULL"""
