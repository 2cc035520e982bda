"""Breakers: alone, and in a pool without a disk, where what they hold waits in memory."""

import asyncio

from fasthook import Breaker as Options
from fasthook import Discard, handler
from fasthook.dispatch.breaker import MAX_PAUSE_S, Breaker, State
from tests.dispatch.helpers import Harness, delivery


def test_it_opens_after_failures_in_a_row():
    breaker = Breaker(3, 10)
    assert [breaker.failed(), breaker.failed()] == [0, 0]
    assert not breaker.succeeded()
    assert [breaker.failed(), breaker.failed(), breaker.failed()] == [0, 0, 10]
    assert breaker.state is State.OPEN
    assert breaker.failed() == 0  # another one that was in hand
    assert breaker.opened == 1


def test_one_event_is_tried_and_the_pause_doubles_up_to_a_bound():
    breaker = Breaker(1, 1000)
    pauses = [breaker.failed()]
    for number in range(4):
        assert not breaker.takes(number)
        breaker.pause_is_over()
        assert breaker.takes(number)
        assert not breaker.takes("another")
        pauses.append(breaker.failed())
    assert pauses == [1000, 2000, MAX_PAUSE_S, MAX_PAUSE_S, MAX_PAUSE_S]
    breaker.pause_is_over()
    assert breaker.succeeded()
    assert breaker.state is State.CLOSED
    assert breaker.failed() == 1000
    assert Breaker(1, 7200).failed() == 7200


def run(function, ids, *, failures=2, pause=0.05, retries=0):
    """What became of each, and in what order they ran."""
    ran: list[str] = []

    @handler(concurrency=1, retries=retries, breaker=Options(failures, pause))
    async def guarded(event):
        ran.append(event.id)
        function(event, len(ran))

    async def main():
        async with Harness(guarded) as harness:
            harness.offer(*(delivery(event_id=each) for each in ids))
            outcomes = await harness.handled(len(ids))
            breaker = harness.pool.holding.breakers["h0"]
            return {o.delivery.event_id: o.kind for o in outcomes}, ran, breaker

    return asyncio.run(main())


def test_what_comes_while_it_is_open_waits_and_uses_no_attempts():
    """The first four runs fail, of which two are probes: those don't count as attempts."""

    def fail(event, count):
        if count <= 4:
            raise ValueError("down")

    kinds, ran, breaker = run(fail, ["a", "b", "c", "d", "e"])
    assert kinds == {"a": "dead", "b": "dead", "c": "done", "d": "done", "e": "done"}
    assert ran[:2] == ["a", "b"]
    assert len(ran) == 7  # two failures, two probes, three that are done
    assert breaker.state is State.CLOSED
    assert breaker.opened == 3


def test_what_a_handler_discards_is_no_failure_of_its_own():
    def discard(event, count):
        raise Discard("not for us")

    kinds, _, breaker = run(discard, ["a", "b", "c", "d"])
    assert set(kinds.values()) == {"dead"}
    assert breaker.opened == 0


def test_a_probe_that_is_discarded_lets_another_one_be_tried():
    def function(event, count):
        if event.id in "ab":
            raise ValueError("down")
        if event.id == "c":
            raise Discard("not for us")

    kinds, _, breaker = run(function, ["a", "b", "c", "d"])
    assert kinds == {"a": "dead", "b": "dead", "c": "dead", "d": "done"}
    assert breaker.state is State.CLOSED
