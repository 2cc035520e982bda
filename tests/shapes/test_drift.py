"""Changes of shape: each is told once, at the event that has it first, and noise is not told."""

import random

import pytest

from fasthook.shapes.drift import Drift, Room

LEAST = 5


def changes(*payloads, event_type="push", drift=None):
    """Kind, path, was, now and index of what is told."""
    drift = drift or Drift(LEAST)
    found = [c for n, payload in enumerate(payloads) for c in drift.feed(event_type, payload, n)]
    return [(c.kind, c.path, c.was, c.now, c.at) for c in found]


BASE = {"id": 1, "user": {"login": "7a", "admin": False}, "commits": [{"id": "9c"}]}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (BASE | {"size": 3}, ("appeared", "size", "", "integer", 6)),
        (BASE | {"id": "1x"}, ("changed", "id", "integer", "string", 6)),
        (BASE | {"id": None}, ("changed", "id", "integer", "null", 6)),
        (BASE | {"id": 1.5}, ("changed", "id", "integer", "number", 6)),
        (BASE | {"commits": [{"id": "9c", "n": 1}]}, ("appeared", "commits[].n", "", "integer", 6)),
        (BASE | {"user": BASE["user"] | {"a b": []}}, None),  # keys are data from now on
        (BASE | {"user": BASE["user"] | {"$x": []}}, ("appeared", "user.'$x'", "", "array", 6)),
    ],
)
def test_a_change_is_told_once_at_the_first_event_that_has_it(changed, expected):
    found = changes(*[BASE] * 6, *[changed] * 3)
    assert found == ([expected] if expected else [])


def test_a_field_that_is_gone_is_told_with_the_first_event_without_it():
    without = {"id": 1, "user": {"login": "7a"}, "commits": []}
    found = changes(*[BASE] * 6, *[without] * 20)
    assert found == [("vanished", "user.admin", "boolean", "", 6)]


def test_what_is_missing_now_and_then_is_no_news():
    chance = random.Random(5)
    payloads = [
        {"id": n} | {key: 1 for key in "abcdef" if chance.random() < 0.5} for n in range(500)
    ]
    assert changes(*payloads) == []
    nulls = [{"at": None if n % 3 else 5} for n in range(100)]
    assert changes(*nulls) == []


def test_before_enough_was_seen_nothing_is_told():
    assert changes(*[BASE] * (LEAST - 1), {"other": 1}, *[BASE] * 4) == []


def test_a_new_type_of_event_is_told():
    drift = Drift(LEAST)
    assert changes(*[BASE] * 9, drift=drift) == []
    assert changes({"x": 1}, event_type="ping", drift=drift) == [("new type", "", "", "", 0)]
    assert changes({"x": 1}, event_type="ping", drift=drift) == []


def test_a_new_value_of_an_enumeration_is_told_and_of_free_text_is_not():
    states = [
        {"state": ("open", "closed")[n % 2], "title": f"word{'abcdefgh'[n % 8]}"} for n in range(40)
    ]
    found = changes(*states, {"state": "merged", "title": "wordabc"}, *states)
    assert ("new value", "state", "", "merged", 40) in found
    free = [{"title": f"Some text {n}"} for n in range(100)]
    assert changes(*free) == []
    names = [{"login": "".join(random.Random(n).choices("abcdefgh", k=8))} for n in range(200)]
    assert changes(*names) == []


def test_keys_that_are_data_are_one_place():
    payloads = [{"by_id": {f"cus_{n:012}": {"n": 1}}} for n in range(50)]
    assert changes(*payloads, {"by_id": {"cus_000000000099": {"n": "1"}}}) == [
        ("changed", "by_id.*.n", "integer", "string", 50)
    ]


def places_below(place) -> int:
    below = [*place.fields.values(), *([place.item] if place.item else [])]
    return len(below) + sum(map(places_below, below))


def test_endpoints_that_are_known_grow_no_more_where_there_is_no_room_for_all():
    room = Room(5)
    first, second = Drift(room=room), Drift(room=room)
    for number, drift in enumerate([first, second, first, second]):
        drift.feed("a", {f"{number}-{name}": 1 for name in ("one", "two")}, 0)
    assert first.places + second.places == 5
    assert (first.places, room.places) == (3, 0)


def test_memory_is_bounded_whatever_comes():
    chance = random.Random(1)
    drift = Drift(LEAST)
    for n in range(300):
        names = ("".join(chance.choices("abcdefghijklmno", k=6)) for _ in range(400))
        drift.feed(f"type {n}", {name: {next(names): n} for name in names}, n)
    assert len(drift._types) == 200  # and there were 300, with 400 places each
    assert sum(map(places_below, drift._types.values())) == 20_000

    deep = 1
    for _ in range(200):
        deep = [deep]
    assert len(drift.feed("type 1", {"a": deep}, 0)) <= 1
