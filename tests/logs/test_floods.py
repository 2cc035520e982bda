"""The first in full, one line for the rest of an interval, in bounded memory."""

from fasthook.logs import floods
from fasthook.logs.floods import FULL_OF_ALL, FULL_OF_ONE, INTERVAL_S, Floods

KEY = ("rejected", "BadSignature", "github")


def full(seen: Floods, count: int, now_s: float, key=KEY, client: str = "192.0.2.1") -> int:
    """How many of `count` are to be said in full."""
    return sum(seen.is_full(key, client, now_s) for _ in range(count))


def test_few_are_all_said_and_need_no_summary():
    seen = Floods()
    assert full(seen, FULL_OF_ONE, 1.0) == FULL_OF_ONE
    assert seen.summaries(1.0 + INTERVAL_S) == []
    assert seen.ends == 0.0


def test_of_many_the_rest_is_one_line():
    seen = Floods()
    assert full(seen, 1000, 1.0) == FULL_OF_ONE
    assert seen.ends == 1.0 + INTERVAL_S
    (line,) = seen.summaries(1.0 + INTERVAL_S)
    assert line == {
        "what": "rejected",
        "reason": "BadSignature",
        "endpoint": "github",
        "count": 1000 - FULL_OF_ONE,
        "clients": 1,
        "client": "192.0.2.1",
        "seconds": INTERVAL_S,
    }


def test_a_flood_that_goes_on_is_one_line_an_interval_and_said_in_full_after_a_pause():
    seen = Floods()
    full(seen, 1000, 0.5)
    seen.summaries(0.5 + INTERVAL_S)
    assert full(seen, 1000, 31.0) == 0
    (line,) = seen.summaries(seen.ends)
    assert line["count"] == 1000
    assert seen.summaries(seen.ends) == []  # an interval without
    assert full(seen, 5, 100.0) == 5


def test_many_causes_at_once_are_bounded_together():
    seen = Floods()
    keys = [("rejected", "BadSignature", f"endpoint-{n}") for n in range(500)]
    assert sum(full(seen, 100, 1.0, key) for key in keys) == FULL_OF_ALL
    lines = seen.summaries(seen.ends)
    assert len(lines) <= 21
    assert sum(line["count"] for line in lines) == 500 * 100 - FULL_OF_ALL


def test_causes_and_clients_without_end_take_no_more_memory(monkeypatch):
    monkeypatch.setattr(floods, "_MAX_CAUSES", 20)
    monkeypatch.setattr(floods, "_MAX_CLIENTS", 30)
    seen = Floods()
    for number in range(1000):
        full(seen, 11, 1.0, ("rejected", f"cause-{number}", ""), f"client-{number}")
    for number in range(1000):
        full(seen, 1, 1.0, ("rejected", "cause-0", ""), f"client-{number}")
    assert len(seen._floods) <= 21
    lines = seen.summaries(seen.ends)
    assert "30+" in [line["clients"] for line in lines]


def test_the_most_frequent_comes_first():
    seen = Floods()
    full(seen, 20, 1.0, ("rejected", "BadSignature", "github"))
    full(seen, 900, 1.0, ("rejected", "StaleTimestamp", "stripe"))
    assert [line["endpoint"] for line in seen.summaries(seen.ends)] == ["stripe", "github"]
