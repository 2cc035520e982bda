"""Conditions: what is true of an event, what is refused at the start, and that no event is endless."""

import time

import orjson
import pytest

from fasthook.conditions import MAX_CHARS, BadExpression, Condition

PAYLOAD = {
    "ref": "refs/heads/main",
    "n": 3,
    "nothing": None,
    "commits": [{"modified": ["docs/a.md", "src/b.py"]}, {"modified": []}],
    "repository": {"id": 7, "owner": {"name": "ada"}},
    "big": 2**64,
    "a-b": True,
}


def verdict(expression: str, payload=PAYLOAD):
    facts = {
        "payload": lambda: payload,
        "id": lambda: "e-1",
        "type": lambda: "push",
        "endpoint": lambda: "github",
        "headers": lambda: {"x-tenant": "blue"},
        "received_at": lambda: "2026-05-17T12:00:00.000000Z",
    }
    return Condition(expression)(facts)


@pytest.mark.parametrize(
    "expression",
    [
        'payload.ref == "refs/heads/main"',
        'payload["ref"] == "refs/heads/main"',
        "payload.n > 2 && payload.n < 4",
        "payload.nothing == null",
        "payload.repository.id == 7 && payload.repository.owner.name == 'ada'",
        "payload.repository.owner.name.startsWith('a') && size(payload.repository) == 2",
        "has(payload.ref) && !has(payload.tag)",
        "has(payload.repository.id) && has(payload.repository)",
        "'ref' in payload && !('tag' in payload)",
        "payload.commits.exists(c, c.modified.exists(f, f.startsWith('docs/')))",
        "payload.commits[0].modified.exists_one(f, f.endsWith('.py'))",
        "payload.commits.all(c, size(c.modified) >= 0)",
        "payload.ref.matches('^refs/heads/(main|v[0-9]+)$')",
        "type == 'push' && id == 'e-1' && endpoint == 'github'",
        "headers['x-tenant'] == 'blue'",
        "received_at > '2026-05-17'",
        "type in ['push', 'tag'] // or a release",
        "payload['a-b']",
        "payload.missing == 1 || payload.n == 3",
        r"payload.ref != 'it\'s (' && payload.ref != r'\'",
    ],
)
def test_it_is_true(expression):
    assert verdict(expression) == (True, "")


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("payload.n == 4", ""),
        ("payload.missing == 1", "something is not there"),
        ("payload.repository.owner.name.id == 1", "something is not there"),
        ("payload.ref > 1", "something is not there"),
        ("payload.big + 1 == 1", "something is not there"),
        ("payload.ref", "it comes to a value of type str"),
    ],
)
def test_what_can_not_be_asked_is_false_and_says_why(expression, why):
    found = verdict(expression)
    assert not found.is_true
    assert found.why.startswith(why)


def test_a_payload_that_is_no_object_is_false():
    for payload in ([1], "text", b"bytes", None, 5):
        assert not verdict("payload.ref == 'x'", payload).is_true
    assert verdict("payload[0] == 1", [1]).is_true


@pytest.mark.parametrize(
    ("expression", "error"),
    [
        ("", "it is empty; expected an expression"),
        ("payload.ref ==", "column 15: mismatched input '<EOF>' expecting"),
        ("payload.ref = 'x'", "column 13: token recognition error at: '= '; did you mean '=='?"),
        ("true &&\n(", "line 2, column 2: mismatched input"),
        (
            "type == 'a' && paylod.ref == 'x'",
            "column 16: no name 'paylod'; did you mean 'payload'?",
        ),
        (
            "payload.ref.startWith('x')",
            "column 13: no function 'startWith'; did you mean 'startsWith'",
        ),
        ("type", "it comes to a value of type str; expected true or false"),
        ("1 + 1", "it comes to a value of type int; expected true or false"),
        ("payload.ref.matches('(a')", "column 21: no pattern: error: unclosed group; expected one"),
        ("payload.a.map(x, x) == []", "column 11: map takes too long; expected all, exists or"),
        (
            "payload.a.exists(x, x in payload.b)",
            "column 26: 'payload' within a macro takes too long",
        ),
        (
            "payload.a.all(x, x.b.all(y, x == y))",
            "column 29: 'x' within a macro takes too long; expected 'y'",
        ),
        ("payload.a.all(x, x.matches('a'))", "column 20: matches within a macro takes too long"),
        ("payload.a.matches(payload.b)", "column 11: matches takes its pattern from the event"),
        (
            "payload.a.matches('a' + payload.b)",
            "column 11: matches takes its pattern from the event",
        ),
        ("[payload.a].all(x, x == 1)", "column 13: all goes over something that is computed"),
        (
            "x" * (MAX_CHARS + 1),
            f"it has {MAX_CHARS + 1} characters; expected {MAX_CHARS} at the most",
        ),
        ("(" * 400 + "true" + ")" * 400, "column"),
    ],
)
def test_what_can_not_be_used_is_refused_before_an_event_comes(expression, error):
    with pytest.raises(BadExpression) as caught:
        Condition(expression)
    assert str(caught.value).startswith(error)


#: All that a body of a megabyte may hold.
HOSTILE = {
    "long list": ("payload.a.exists(x, x == 2)", {"a": [1] * 500_000}),
    "long lists": ("payload.a.all(x, x.all(y, y != 2))", {"a": [[1] * 1000] * 500}),
    "pattern": ("payload.a.matches('(a+)+b')", {"a": "a" * 1_000_000}),
    "text": ("payload.a + payload.a != payload.a", {"a": "a" * 1_000_000}),
    "just short enough": ("payload.a.all(x, x != 2)", {"a": [1] * 9_990}),
    "deep": ("payload == payload", orjson.loads("[" * 1000 + "]" * 1000)),
    "wide": ("size(payload) > 1", {str(n): n for n in range(100_000)}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_event_takes_long(name):
    expression, payload = HOSTILE[name]
    began = time.perf_counter()
    verdict(expression, payload)
    assert time.perf_counter() - began < 0.5


VALUES = (
    *(2**63 - 1, -(2**63), 2**64, 0, -1, 1.5, float("inf"), float("nan"), None, True, b"\xff"),
    *(
        "",
        "é",
        "9999-99-99T00:00:00Z",
        "2026-01-01T00:00:00Z",
        "99999999999h",
        [],
        [1],
        {},
        {"": 1},
    ),
)


@pytest.mark.parametrize(
    "expression",
    [
        *(f"payload.a {sign} payload.b == 1" for sign in ("+", "-", "*", "/", "%")),
        *("-payload.a == 1", "!payload.a", "payload.a[payload.b] == 1", "payload.a < payload.b"),
        *("payload.a in payload.b", "{payload.a: 1} == {}", "payload.a ? true : false"),
        "timestamp(payload.a) + duration(payload.b) > timestamp('2026-01-01T00:00:00Z')",
        "timestamp(payload.a).getHours(payload.b) == 1",
        *("int(payload.a) == 1", "uint(payload.a) == 1u", "double(payload.a) == 1.0"),
        *("string(payload.a) == 'x'", "bytes(payload.a) == b'x'", "size(payload.a) == 1"),
        *("payload.a.contains(payload.b)", "max(payload.a, payload.b) == 1", "bool(payload.a)"),
        *("payload.a.all(x, x > 1)", "has(payload.a.b)", "payload.a.b.c == 1"),
    ],
)
def test_whatever_an_event_holds_there_is_a_verdict(expression):
    condition = Condition(expression)
    for a in VALUES:
        for b in VALUES:
            condition({"payload": lambda a=a, b=b: {"a": a, "b": b}})


def test_without_its_bounds_the_language_would_take_for_ever():
    """A control: a body of twenty kilobytes is enough, where macros may be used as one likes."""
    import cel

    program = cel.compile("payload.a.all(x, x in payload.a)")
    took = []
    for count in (500, 2000):
        began = time.perf_counter()
        program.execute({"payload": {"a": list(range(count))}})
        took.append(time.perf_counter() - began)
    assert took[1] > 6 * took[0]  # four times as much takes sixteen times as long


def test_only_what_is_asked_about_is_looked_at():
    asked = []

    def payload():
        asked.append("payload")
        return PAYLOAD

    assert Condition("type == 'push'")({"payload": payload, "type": lambda: "push"}).is_true
    assert asked == []
