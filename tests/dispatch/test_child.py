"""Handlers in real child processes, found through an installed package's entry points."""

import asyncio
import os
import signal
from pathlib import Path

import msgspec
import pytest

from fasthook import AlreadyDone, handler
from fasthook.dispatch import registry
from fasthook.dispatch.child import Call, Result, load
from fasthook.dispatch.child import run as run_call
from fasthook.handling import Handler, HandlerFactory
from tests.dispatch.helpers import (
    Harness,
    delivery,
    is_running,
    kinds,
    outcomes_of,
    quiet_retries,
    run,
    until,
    wait_until,
)

SOURCE = '''
"""Handlers for child processes; what they have seen stands in the file that the body names."""

import asyncio, os, signal, subprocess, sys, threading
from pathlib import Path

import msgspec

from fasthook import Discard, Event, HandlerFactory, Retry, handler


class Order(msgspec.Struct):
    number: int
    path: str


class Settings(msgspec.Struct):
    word: str


def note(event, text):
    with open(event.headers["x-note"], "a") as file:
        file.write(f"{text}\\n")


@handler(runs_in="process")
def sync(event):
    note(event, f"{os.getpid()} {event.id} {event.attempt} {event.payload} {len(event.body)}")


@handler(runs_in="process")
async def coroutine(event):
    await asyncio.sleep(0)
    note(event, f"{os.getpid()} {event.id} {event.attempt} {event.payload} {len(event.body)}")


@handler(runs_in="process")
def typed(event: Event[Order]):
    note(event, f"{type(event.payload).__name__} {event.payload.number + 1}")


@handler(runs_in="process", concurrency=1)
def talks(event):
    print("x" * 5000, flush=True)
    os.write(1, b"raw")
    subprocess.run(["echo", "of a child of the child"], check=True)
    note(event, "talked")


@handler(runs_in="process", retries=1, concurrency=1)
def raises(event):
    if event.id == "drop":
        raise Discard("not wanted")
    if event.id == "again":
        raise Retry("busy", after=0.002)
    if event.id == "long":
        raise Discard("x" * 100_000)
    raise ValueError("no luck")


@handler(runs_in="process", retries=1, concurrency=1)
def dies(event):
    note(event, os.getpid())
    if event.attempt == 1:
        if event.id == "exit":
            os._exit(3)
        if event.id == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if event.id == "sys.exit":
            sys.exit(4)


@handler(runs_in="process", retries=1, concurrency=1, timeout=2)
def hangs(event):
    note(event, os.getpid())
    if event.attempt == 1:
        threading.Event().wait()


@handler(runs_in="process", retries=0, concurrency=1)
def reads_input(event):
    note(event, subprocess.check_output(["cat"], timeout=0.5))


def build(settings):
    @handler(runs_in="process")
    def built(event):
        note(event, settings.word)

    return built


factory = HandlerFactory(Settings, build)
'''
NAMES = ("sync", "coroutine", "typed", "talks", "raises", "dies", "hangs", "reads_input", "factory")
MODULE = "fasthook_child_shop"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder with an installed package, as importlib.metadata sees it."""
    path = tmp_path_factory.mktemp("site")
    (path / f"{MODULE}.py").write_text(SOURCE)
    info = path / f"{MODULE}-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {MODULE}\nVersion: 0\n")
    points = "".join(f"shop-{name} = {MODULE}:{name}\n" for name in NAMES)
    (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{points}")
    return path


@pytest.fixture
def notes(site, tmp_path, monkeypatch):
    """What handlers have noted, line by line; makes the package visible here and in children."""
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", str(site))
    quiet_retries(monkeypatch)
    path = tmp_path / "notes"
    path.touch()
    return Notes(path)


class Notes:
    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def lines(self) -> list[str]:
        return self.path.read_text().splitlines()

    def delivery(self, body=b"{}", *payloads, **changes):
        return delivery(body, *payloads, headers={b"x-note": str(self.path).encode()}, **changes)


def shop(name: str) -> tuple[Handler, str]:
    found = registry.find(f"shop-{name}")
    assert isinstance(found, Handler)
    return found, f"shop-{name}"


def outcomes_in_children(name, *deliveries):
    function, entry_point = shop(name)
    return outcomes_of(function, *deliveries, entry_points=(entry_point,))


@pytest.mark.parametrize("name", ["sync", "coroutine"])
def test_either_kind_of_function_runs_in_a_child(notes, name):
    (outcome,) = outcomes_in_children(name, notes.delivery(b'{"a": 1}'))

    assert outcome.kind == "done"
    (line,) = notes.lines
    pid, rest = line.split(" ", 1)
    assert int(pid) != os.getpid()
    assert rest == "id-1 1 {'a': 1} 8"


def test_an_untyped_payload_that_is_already_decoded_arrives_as_it_is(notes):
    """A form's fields: the child could not decode that body as JSON."""
    (outcome,) = outcomes_in_children("sync", notes.delivery(b"a=1", {"a": "1"}))

    assert outcome.kind == "done"
    assert notes.lines[0].endswith("{'a': '1'} 3")


def test_a_typed_payload_arrives_typed(notes):
    function, entry_point = shop("typed")
    order = function.payload_type(6, "p")
    outcomes = outcomes_of(function, notes.delivery(b"", order), entry_points=(entry_point,))

    assert kinds(outcomes) == ["done"]
    assert notes.lines == ["Order 7"]


def test_a_large_body_crosses_over(notes):
    body = b'"' + b"x" * 2**20 + b'"'
    (outcome,) = outcomes_in_children("typed", notes.delivery(body, {"number": 1, "path": "p"}))
    assert outcome.kind == "done"
    body = b"[" + b"1," * 2**19 + b"1]"
    big = notes.delivery(body, 0)
    (outcome,) = outcomes_in_children("sync", big)

    assert outcome.kind == "done"
    assert notes.lines[-1].endswith(f" 0 {len(body)}")


def test_what_a_handler_prints_does_not_disturb_the_protocol(notes):
    outcomes = outcomes_in_children("talks", notes.delivery(), notes.delivery())

    assert kinds(outcomes) == ["done", "done"]
    assert notes.lines == ["talked"] * 2


def test_settings_reach_the_handler_in_the_child(notes):
    found = registry.find("shop-factory")
    assert isinstance(found, HandlerFactory)
    settings = {"word": "hello"}
    made = found.build(msgspec.convert(settings, found.settings))

    outcomes_of(made, notes.delivery(), entry_points=("shop-factory",), settings=settings)

    assert notes.lines == ["hello"]


def test_an_exception_comes_back_with_its_text_and_the_child_lives_on(notes):
    outcomes = outcomes_in_children("raises", notes.delivery())

    assert kinds(outcomes) == ["retry", "dead"]
    assert all("ValueError: no luck" in outcome.error for outcome in outcomes)


def test_discard_and_retry_cross_over(notes):
    outcomes = outcomes_in_children(
        "raises", notes.delivery(event_id="drop"), notes.delivery(event_id="again")
    )

    assert [(o.kind, o.attempt, o.error, o.retry_in_s) for o in outcomes] == [
        ("dead", 1, "not wanted", 0),
        ("retry", 1, "busy", 0.002),
        ("dead", 2, "busy", 0),
    ]


def test_a_discard_with_a_long_text_is_still_a_discard(notes):
    outcomes = outcomes_in_children("raises", notes.delivery(event_id="long"))

    assert [(o.kind, len(o.error)) for o in outcomes] == [("dead", 500)]


@pytest.mark.parametrize(
    ("name", "said"), [("exit", "exit code 3"), ("kill", "signal 9"), ("sys.exit", "exit code 4")]
)
def test_a_child_that_dies_costs_an_attempt_and_the_next_has_a_fresh_one(notes, name, said):
    outcomes = outcomes_in_children(
        "dies", notes.delivery(event_id=name), notes.delivery(event_id="good")
    )

    assert sorted(kinds(outcomes)) == ["done", "done", "retry"]
    (died,) = (o for o in outcomes if o.kind == "retry")
    assert died.attempt == 1
    assert said in died.error
    first, *later = notes.lines
    assert len(set(later)) == 1, "one fresh child serves what follows"
    assert first not in later


def test_a_child_that_dies_between_two_attempts_loses_no_event(notes):
    function, entry_point = shop("dies")

    async def main():
        async with Harness(function, entry_points=(entry_point,)) as harness:
            harness.offer(notes.delivery(event_id="good"))
            await harness.emptied()
            pid = int(notes.lines[0])
            os.kill(pid, signal.SIGKILL)
            await until(lambda: not is_running(pid))
            harness.offer(notes.delivery(event_id="good"))
            await harness.emptied()
            assert harness.outcomes[-1].kind == "done"
            assert len(set(notes.lines)) == 2

    run(main())


def test_a_child_that_hangs_is_killed_at_the_timeout(notes):
    function, entry_point = shop("hangs")

    async def main():
        async with Harness(function, entry_points=(entry_point,)) as harness:
            harness.offer(notes.delivery())
            await harness.handled()
            (outcome,) = harness.outcomes
            assert (outcome.kind, outcome.error) == ("retry", "took more than 2 s")
            pid = int(notes.lines[0])
            await until(lambda: not is_running(pid))
            await harness.emptied()
            assert harness.outcomes[-1].kind == "done"
            assert notes.lines[1] != notes.lines[0]

    run(main())


def test_a_command_of_the_handler_does_not_eat_the_calls(notes):
    outcomes = outcomes_in_children("reads_input", notes.delivery())

    assert kinds(outcomes) == ["done"]
    assert notes.lines == ["b''"]


def children() -> set[int]:
    """Processes that have this one as parent and are not just ended."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == os.getpid() and state != "Z":
            found.add(int(path.parent.name))
    return found


def test_closing_leaves_no_child_behind(notes):
    function, entry_point = shop("sync")

    async def main():
        before = children()
        async with Harness(function, entry_points=(entry_point,)) as harness:
            harness.offer(*(notes.delivery() for _ in range(3)))
            await harness.emptied()
            assert len(children() - before) == 3
        assert not children() - before

    run(main())


@pytest.mark.parametrize("when", ["while it starts", "while it runs"])
def test_closing_in_the_middle_of_an_attempt_leaves_no_child_behind(notes, when):
    function, entry_point = shop("hangs")
    before = children()

    async def main():
        async with Harness(function, entry_points=(entry_point,)) as harness:
            harness.offer(notes.delivery())
            if when == "while it runs":
                await until(lambda: notes.lines)
            else:
                await asyncio.sleep(0)
        await until(lambda: not children() - before)
        assert harness.outcomes == []

    run(main())
    wait_until(lambda: not children() - before)


# --- in this process ------------------------------------------------------------------------------


def call(**changes) -> Call:
    fields = {name: getattr(delivery(), name) for name in Call.__struct_fields__[:9]}
    return Call(
        **fields | {"attempt": 1, "handler": "shop", "key": b"k", "payload": None} | changes
    )


def test_a_call_is_run_and_answered(notes, capsys):
    raises, _ = shop("raises")

    assert run_call(raises, call(event_id="drop")) == Result("discard", "not wanted")
    assert run_call(raises, call(event_id="again")) == Result("retry", "busy", 0.002)
    failed = run_call(raises, call())
    assert (failed.kind, failed.error) == ("error", "ValueError: no luck")
    assert 'raise ValueError("no luck")' in failed.trace


def test_the_child_loads_what_the_parent_has(notes):
    assert load("shop-sync", {}) == shop("sync")[0]
    assert load("shop-factory", {"word": "hi"}).runs_in == "process"


def test_an_event_that_was_done_before_is_told_and_known_by_its_key():
    @handler
    def stock(event):
        raise AlreadyDone(f"{event._handler} {event._delivery.key!r}")

    assert run_call(stock, call()) == Result("already", "shop b'k'")
