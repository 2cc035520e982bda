"""ecommerce: orders move stock exactly once, in SQLite and in a real PostgreSQL."""

import contextlib
import json
import sqlite3

import psycopg
import pytest

from tests.postgresql import cluster
from tests.recipes.killing import Attempts

COUNTED = ("TEA-1=10", "TEA-2=10", "MUG-1=5")
FILES = ("shop/handlers.py", "shop/stock.py", "shop/low_stock.py")


@pytest.fixture
def project(new_project):
    made = new_project("ecommerce")
    made.environment["OWN_URL"] = made.url
    return made


@contextlib.contextmanager
def database(project):
    url = project.environment.get("DATABASE_URL")
    if url:
        with psycopg.connect(url, autocommit=True) as connection:
            yield connection
    else:
        path = project.folder / "var" / "stock.db"
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            yield connection


def levels(connection):
    return dict(connection.execute("SELECT sku, quantity FROM stock").fetchall())


def sample(project, name):
    return json.loads((project.folder / "tests" / "events" / f"{name}.json").read_text())


def send(project, serving, endpoint, event, name, *, id=""):
    given = ("--id", id) if id else ()
    project.send(endpoint, "--event", event, "--body", f"tests/events/{name}.json", *given)
    serving.line_with("done", endpoint)


def test_orders_of_two_shops_move_the_stock(project):
    orders_move_the_stock(project)


def test_stock_is_right_whatever_step_a_kill_comes_before(project, new_api):
    kills_leave_it_right(project, new_api())


def test_the_same_with_postgresql(project, new_api):
    with cluster() as host:
        project.environment["DATABASE_URL"] = f"postgresql://postgres@/postgres?host={host}"
        orders_move_the_stock(project)
        kills_leave_it_right(project, new_api())


def orders_move_the_stock(project):
    project.python("-m", "shop.stock", *COUNTED)
    serving = project.serve()
    with database(project) as connection:
        send(project, serving, "shopify", "orders/create", "shopify-order", id="w-1")
        assert levels(connection) == {"TEA-1": 7, "TEA-2": 10, "MUG-1": 4}
        if not any("done" in line and "=low-stock" in line for line in serving.lines):
            serving.line_with("done", "=low-stock")
        # The provider sends it again: known by its id.
        order = ("--event", "orders/create", "--body", "tests/events/shopify-order.json")
        project.send("shopify", *order, "--id", "w-1")
        send(project, serving, "woocommerce", "order.created", "woocommerce-order")
        send(project, serving, "shopify", "refunds/create", "shopify-refund")
        assert levels(connection) == {"TEA-1": 6, "TEA-2": 9, "MUG-1": 4}
        send(project, serving, "shopify", "orders/cancelled", "shopify-cancelled")
        send(project, serving, "woocommerce", "order.updated", "woocommerce-refunded")
        assert levels(connection) == {"TEA-1": 10, "TEA-2": 10, "MUG-1": 4}
    serving.kill()


ORDER = ("shop-shopify-orders", "shopify-order", ())
REFUND = (
    "shop-shopify-refunds",
    "shopify-refund",
    (  # of an order that has come before
        "INSERT INTO shop_order (id, changed) VALUES ('shopify/820982911946154508', 1767286800)",
        "INSERT INTO order_line (order_id, sku, wanted, taken)"
        " VALUES ('shopify/820982911946154508', 'TEA-1', 3, 3)",
        "INSERT INTO order_line (order_id, sku, wanted, taken)"
        " VALUES ('shopify/820982911946154508', 'MUG-1', 1, 1)",
    ),
)


TABLES = ("stock", "shop_order", "order_line", "low_stock", "fasthook_inbox")


def kill_between_steps(project, own, handler, name, before, *, tables=TABLES):
    """An attempt that is killed before its step 1, 2, …, each with a whole one behind it.

    For each the levels, and how many events of low stock there were.
    """
    project.environment["OWN_URL"] = own.url
    event = {"payload": sample(project, name), "provider": "shopify"}
    with contextlib.closing(
        Attempts(project.folder, project.environment, handler, *FILES)
    ) as attempts:
        steps = attempts.done(event)
        with database(project) as connection:
            for step in range(1, steps + 1):
                own.calls.clear()
                for table in tables:
                    connection.execute(f"DELETE FROM {table}")
                for sku in ("TEA-1", "MUG-1"):
                    connection.execute(f"INSERT INTO stock (sku, quantity) VALUES ('{sku}', 5)")
                for statement in before:
                    connection.execute(statement)
                assert attempts.run(event, kill_at=step)["killed"]
                attempts.done(event | {"attempt": 2})
                yield levels(connection), len({call.headers["webhook-id"] for call in own.calls})


def kills_leave_it_right(project, own):
    for event, expected, low in (
        (ORDER, {"TEA-1": 2, "MUG-1": 4}, 2),
        (REFUND, {"TEA-1": 6, "MUG-1": 5}, 0),
    ):
        found = list(kill_between_steps(project, own, *event))
        assert len(found) > 20
        # Low stock may be told twice, but then it is the same event.
        assert [each for each in found if each != (expected, low)] == []


def test_without_once_the_same_kills_find_stock_that_is_wrong(project, new_api):
    """The control: each statement commits by itself, and the event's id is nowhere."""
    project.replace("shop/handlers.py", " as db, event.once(db.connection):", " as db:")
    found = kill_between_steps(project, new_api(), *REFUND, tables=TABLES[:-1])

    assert any(level["TEA-1"] != 6 for level, _ in found)
