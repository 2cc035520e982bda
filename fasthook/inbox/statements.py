"""The SQL of the inbox, for SQLite and PostgreSQL."""

import time
from typing import Any, Final, NamedTuple

#: Old rows go this many at a time, at one in `PRUNE_EVERY` events: faster than new ones come.
PRUNE_ROWS: Final = 500
PRUNE_EVERY: Final = 64
_DAY_S: Final = 86_400


class Row(NamedTuple):
    """What is known of one event that a handler has done."""

    handler: str  # by its name in the configuration
    step: str  # of the handler, where it has several; else empty
    endpoint: str
    event_key: str  # hexadecimal: what the spool knows the event by when it comes again
    event_id: str  # for people: `fasthook show`


class Statements(NamedTuple):
    """With `{}` in the place of each parameter."""

    create: tuple[str, ...]
    insert: str  # changes one row, or none if it is there
    prune: str  # of one parameter: see `age`
    is_server_time: bool

    def age(self, days: float) -> Any:
        """The parameter of `prune` for rows that are older than `days`."""
        return days * _DAY_S if self.is_server_time else int(time.time() - days * _DAY_S)


_COLUMNS: Final = """
  handler   text NOT NULL,
  step      text NOT NULL,
  endpoint  text NOT NULL,
  event_key text NOT NULL,
  event_id  text NOT NULL,"""
_KEY: Final = "PRIMARY KEY (handler, step, endpoint, event_key)"
_INSERT: Final = (
    "INSERT INTO {table} (handler, step, endpoint, event_key, event_id) "
    "VALUES ({{}}, {{}}, {{}}, {{}}, {{}}) ON CONFLICT DO NOTHING"
)
_MATCH: Final = "(handler, step, endpoint, event_key)"


def sqlite(table: str) -> Statements:
    """For SQLite 3.35 and newer; `done_at` in seconds since 1970."""
    schema, dot, name = table.rpartition(".")
    return Statements(
        (
            f"CREATE TABLE IF NOT EXISTS {table} ({_COLUMNS}\n"
            "  done_at   integer NOT NULL DEFAULT (CAST(strftime('%s', 'now') AS integer)),\n"
            f"  {_KEY}\n) WITHOUT ROWID",
            f"CREATE INDEX IF NOT EXISTS {schema}{dot}{name}_done_at ON {name} (done_at)",
        ),
        _INSERT.format(table=table),
        f"DELETE FROM {table} WHERE {_MATCH} IN "
        f"(SELECT handler, step, endpoint, event_key FROM {table} "
        f"WHERE done_at < {{}} ORDER BY done_at LIMIT {PRUNE_ROWS})",
        False,
    )


def postgresql(table: str) -> Statements:
    """For PostgreSQL 9.5 and newer."""
    name = table.rpartition(".")[2]
    return Statements(
        (
            f"CREATE TABLE IF NOT EXISTS {table} ({_COLUMNS}\n"
            f"  done_at   timestamptz NOT NULL DEFAULT now(),\n  {_KEY}\n)",
            f"CREATE INDEX IF NOT EXISTS {name}_done_at ON {table} (done_at)",
        ),
        _INSERT.format(table=table),
        # What another transaction is about to remove is left to it: nobody waits here for anybody.
        f"DELETE FROM {table} WHERE {_MATCH} IN "
        f"(SELECT handler, step, endpoint, event_key FROM {table} "
        f"WHERE done_at < now() - make_interval(secs => {{}}) "
        f"ORDER BY done_at LIMIT {PRUNE_ROWS} FOR UPDATE SKIP LOCKED)",
        True,
    )
