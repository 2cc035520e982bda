"""Structs for payloads: they compile, decode all that they were made of, and hold no value."""

import json
import random
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fasthook.shapes.shape import Shape
from fasthook.shapes.structs import module_of

KEYS = st.one_of(
    st.sampled_from(
        ["id", "type", "class", "str", "None", "a-b", "a_b", "__init__", "", "é", "Id"]
    ),
    st.sampled_from(
        ["list", "self", "msgspec", "typing", "1st", "Payload", "user", "User", "$ref"]
    ),
    st.text(max_size=6),
    st.integers(0, 10**12).map(str),
)
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=6),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=5)),
    max_leaves=12,
)


def source_of(*payloads: Any) -> str:
    shape = Shape()
    for payload in payloads:
        shape.add(payload)
    return module_of({"": shape}, "Payloads.")


def namespace_of(source: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "made"}
    exec(compile(source, "made.py", "exec"), namespace)
    return namespace


@given(
    st.lists(st.one_of(st.dictionaries(KEYS, VALUES, max_size=6), VALUES), min_size=1, max_size=6)
)
@settings(max_examples=80)
def test_they_decode_all_that_they_were_made_of(payloads):
    bodies = [orjson.dumps(payload) for payload in payloads]
    wanted = namespace_of(source_of(*map(orjson.loads, bodies)))["Payload"]
    for body, payload in zip(bodies, payloads, strict=True):
        decoded = msgspec.json.decode(body, type=wanted)
        kept = orjson.loads(msgspec.json.encode(decoded))
        assert without_nulls(kept) == without_nulls(orjson.loads(body)), payload


def without_nulls(value: Any) -> Any:
    """A field that is missing is None."""
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


@given(st.lists(st.dictionaries(KEYS, VALUES, max_size=5), min_size=1, max_size=6), st.randoms())
@settings(max_examples=40)
def test_the_order_of_events_does_not_matter(payloads: list[Any], chance: random.Random):
    first = source_of(*payloads)
    chance.shuffle(payloads)
    assert source_of(*payloads) == first


TOKENS = st.text("qxzj", min_size=12, max_size=12)
PLACES = st.recursive(
    TOKENS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["id", "name", "tags"]), inner, max_size=3),
        st.dictionaries(TOKENS.map(lambda t: f"{t}@example.org"), inner, max_size=3),
        st.dictionaries(TOKENS.map(lambda t: f"cus_12{t}"), inner, max_size=3),
    ),
    max_leaves=10,
)


@given(st.lists(PLACES, min_size=1, max_size=5))
@settings(max_examples=40)
def test_no_value_and_no_key_that_is_data_is_in_it(payloads):
    source = source_of(*payloads)
    assert not any(letters * 2 in source for letters in ("qx", "xz", "zj", "qz", "qq", "jj"))
    for token in json.dumps(payloads).replace('"', " ").split():
        assert len(token) < 12 or token.strip("{}[],:") not in source


def test_a_module_reads_well():
    payloads = [
        {
            "id": 1,
            "user": {"login": "ada", "id": 7},
            "tags": ["a"],
            "price": 1,
            "by_day": {"2026-05-17": 3},
            "class": "x",
            "commits": [{"id": "c1", "author": {"login": "bob", "id": 8}}],
        },
        {"id": 2, "user": None, "tags": [], "price": 1.5, "class": "y", "note": None},
    ]
    assert (
        source_of(*payloads)
        == '''"""Payloads."""

import typing

import msgspec


class Author(msgspec.Struct, kw_only=True):
    id: int
    login: str


class Commits(msgspec.Struct, kw_only=True):
    author: Author
    id: str


class Payload(msgspec.Struct, kw_only=True):
    by_day: dict[str, int] | None = None
    class_: str = msgspec.field(name="class")
    commits: list[Commits] | None = None
    id: int
    note: typing.Any = None
    price: int | float
    tags: list[str]
    user: Author | None
'''
    )


def test_each_type_of_event_has_a_struct_of_its_own():
    shapes = {}
    for name in ("push", "pull_request.opened", "", "3ds", "None", "push!"):
        shapes[name] = Shape()
        shapes[name].add({"push": {"ref": "x"}, "at": 1})
    made = namespace_of(module_of(shapes, "Payloads."))
    names = {"Push", "PullRequestOpened", "Payload", "Type3ds", "None_", "Push_2"}
    assert names <= made.keys()
    for name in names:
        body = b'{"push": {"ref": "x"}, "at": 1}'
        assert msgspec.json.decode(body, type=made[name]).push.ref == "x"


def test_two_of_the_same_name_are_told_apart():
    source = source_of({"a": {"owner": {"x": 1}}, "b": {"owner": {"y": "text"}}})
    made = namespace_of(source)
    assert made["Owner"].__struct_fields__ == ("x",)
    assert made["BOwner"].__struct_fields__ == ("y",)


@pytest.mark.parametrize(
    ("payloads", "expected"),
    [
        ([{"u": {"alice": 1, "bob": 2, "eve": 3}}], "class U"),  # they may be names
        ([{"u": {f"k{n}": n, f"j{n}": n}} for n in range(9)], "u: dict[str, int]"),
        ([{"u": {f"x{n}": 1 for n in range(300)}}], "u: dict[str, int]"),
        ([{"u": {"a@example.org": None, "count": 2}}], "u: dict[str, int | None]"),
        ([{"u": {}}], "u: dict[str, typing.Any]"),
        ([{"u": []}, {"u": None}], "u: list[typing.Any] | None"),
        ([{"u": b"file"}, {"u": "text"}], "u: typing.Any"),
        ([[1], [None]], "Payload = list[int | None]"),
    ],
)
def test_maps_unions_and_what_is_empty(payloads, expected):
    assert expected in source_of(*payloads)


def test_what_is_very_deep_or_large_is_any():
    deep: Any = 1
    for _ in range(100):
        deep = {"a": deep}
    wanted = namespace_of(source_of(deep))["Payload"]
    msgspec.json.decode(orjson.dumps(deep), type=wanted)


def shapes_in(shape: Shape) -> list[Shape]:
    below = (*shape.fields.values(), *shape.inner.values())
    return [shape, *(one for each in below for one in shapes_in(each))]


@pytest.mark.parametrize(("names", "is_large"), [("abcdefghijklmno", True), ("abcdefghi", False)])
def test_what_is_new_in_what_is_very_large_is_any_and_nothing_is_kept_of_it(names, is_large):
    shape = Shape()
    inner = {f"{c}{d}": {"n": 1} for c in "abcdefghij" for d in "abcdefghij"}
    shape.add({f"{a}{b}": inner for a in names for b in names})
    others = [one for one in shapes_in(shape) if "any" in one.kinds]
    assert bool(others) is is_large
    assert not any(one.fields or one.inner for one in others)
    assert len(shapes_in(shape)) < 21_000
