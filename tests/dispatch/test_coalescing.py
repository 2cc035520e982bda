"""Coalescing alone: one run a key, with the newest; nothing waits for ever, nothing is lost."""

import heapq
from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from fasthook.dispatch.coalescing import MAX_WINDOWS, Coalescer
from fasthook.model import Event
from tests.dispatch.helpers import delivery

S = 10**9
WITHIN_S = 5
PATIENCE_S = 2


class Hands:
    """A clock, a disk and handlers that a test turns by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.started: list[tuple[int, float]] = []  # position, when
        self.running: dict[int, Event] = {}
        self.stored: dict[int, tuple[int, Event]] = {}  # on disk: until when
        self.superseded: dict[int, int] = {}
        self.since: dict[int, int] = {}
        self._wakes: list[tuple[int, str]] = []
        self.coalescer = Coalescer(WITHIN_S, PATIENCE_S, self)

    def now_ns(self) -> int:
        return int(self.now * S)

    def run(self, event: Event) -> None:
        position = event._delivery.position
        assert event._key not in {other._key for other in self.running.values()}, "two at once"
        self.started.append((position, self.now))
        self.running[position] = event

    def store(self, event: Event, due_ns: int, since_ns: int) -> None:
        self.stored[event._delivery.position] = due_ns, event
        self.since[event._delivery.position] = since_ns

    def wake(self, key: str, after_ns: int) -> None:
        heapq.heappush(self._wakes, (self.now_ns() + after_ns, key))

    def supersede(self, event: Event, by: int) -> None:
        position = event._delivery.position
        assert position not in self.superseded
        self.superseded[position] = by

    def supersede_stored(self, position: int, by: int) -> None:
        assert position in self.stored
        self.superseded[position] = by

    # --- what tests do ----------------------------------------------------------------------------

    def send(self, position: int, key: str = "k", *, is_fresh: bool = True) -> None:
        self.coalescer.enter(self.event(position, key), is_fresh=is_fresh)

    def event(self, position: int, key: str = "k", attempt: int = 0) -> Event:
        made = delivery(event_id=str(position), position=position)
        made.received_at_ns = self.now_ns()
        return Event(made, None, attempt, key)

    def sleep(self, seconds: float) -> None:
        """Time goes on; whatever is due happens at its time."""
        ends = self.now + seconds
        while True:
            due = [(at, "wake", 0) for at, _ in self._wakes[:1]]
            due += [(at, "back", position) for position, (at, _) in self.stored.items()]
            at, what, position = min(due, default=(ends * S + 1, "", 0))
            if at > ends * S:
                break
            self.now = max(self.now, at / S)
            if what == "wake":
                self.coalescer.wake(heapq.heappop(self._wakes)[1])
            else:
                self.back(position)
        self.now = ends

    def back(self, position: int) -> None:
        _, event = self.stored.pop(position)
        if position not in self.superseded:
            again = Event(event._delivery, None, event.attempt, event._key)
            self.coalescer.enter(again, is_fresh=False)

    def over(self, position: int) -> None:
        self.coalescer.over(self.running.pop(position))

    def fail(self, position: int, retry_s: float) -> None:
        event = self.running.pop(position)
        event.attempt += 1
        if self.coalescer.has_newer(event):
            self.coalescer.give_way(event)
            return
        due_ns = self.now_ns() + int(retry_s * S)
        is_stored = retry_s > PATIENCE_S
        if is_stored:
            self.stored[position] = due_ns, event
        self.coalescer.tries_again(event, due_ns, is_stored=is_stored)


def test_one_event_runs_when_its_time_is_over():
    hands = Hands()
    hands.send(1)
    hands.sleep(4.9)
    assert hands.started == []
    hands.sleep(0.2)
    assert hands.started == [(1, 5.0)]
    hands.over(1)
    assert len(hands.coalescer) == 0


def test_each_new_one_takes_the_place_and_begins_the_time_anew():
    hands = Hands()
    for position in (1, 2, 3):
        hands.send(position)
        hands.sleep(4)
    assert hands.started == []
    assert hands.superseded == {1: 2, 2: 3}
    hands.sleep(2)
    assert hands.started == [(3, 13.0)]


def test_but_not_for_ever():
    hands = Hands()
    for position in range(100):
        hands.send(position)
        hands.sleep(1)
        if hands.started:
            break
    ((position, at),) = hands.started
    assert at == MAX_WINDOWS * WITHIN_S
    assert position == 49


def test_other_keys_have_their_own_time():
    hands = Hands()
    hands.send(1, "a")
    hands.sleep(3)
    hands.send(2, "b")
    hands.sleep(6)
    assert hands.started == [(1, 5.0), (2, 8.0)]
    assert hands.superseded == {}


def test_while_one_runs_the_newest_waits():
    hands = Hands()
    hands.send(1)
    hands.sleep(6)
    hands.send(2)
    hands.sleep(1)
    hands.send(3)
    hands.sleep(20)
    assert [p for p, _ in hands.started] == [1]
    hands.over(1)
    assert hands.started[1:] == [(3, 27.0)]
    assert hands.superseded == {2: 3}


def test_one_that_is_over_soon_does_not_cut_the_time_short():
    hands = Hands()
    hands.send(1)
    hands.sleep(6)
    hands.send(2)
    hands.over(1)
    hands.sleep(6)
    assert hands.started == [(1, 5.0), (2, 11.0)]


def test_a_failed_one_is_tried_again_unless_there_is_a_newer_one():
    for retry_s in (1, 60):
        hands = Hands()
        hands.send(1)
        hands.sleep(6)
        hands.fail(1, retry_s)
        hands.sleep(retry_s + 1)
        assert [p for p, _ in hands.started] == [1, 1]
        hands.fail(1, retry_s)
        hands.send(2)  # while it waits
        hands.sleep(100)
        assert [p for p, _ in hands.started] == [1, 1, 2]
        assert hands.superseded == {1: 2}
        hands.send(3)  # while it runs
        hands.sleep(100)
        hands.fail(2, retry_s)
        assert hands.superseded == {1: 2, 2: 3}
        assert [p for p, _ in hands.started][-1] == 3
        hands.over(3)
        assert len(hands.coalescer) == 0


def test_a_failed_one_does_not_hurry_the_next():
    """The longest time counts from the first that never ran."""
    hands = Hands()
    hands.send(1)
    hands.sleep(6)
    hands.fail(1, 1000)
    hands.sleep(100)
    hands.send(2)
    hands.sleep(4)
    assert [p for p, _ in hands.started] == [1]
    hands.sleep(2)
    assert [p for p, _ in hands.started] == [1, 2]


def test_what_waited_on_disk_when_the_service_started_is_known():
    hands = Hands()
    old, newer = hands.event(1), hands.event(2)
    hands.sleep(100)
    hands.coalescer.hold("k", 2, 90 * S, 0, newer._delivery.received_at_ns)
    hands.coalescer.enter(old, is_fresh=False)  # it ran when the process died
    assert hands.superseded == {1: 2}
    hands.coalescer.enter(newer, is_fresh=False)
    assert [p for p, _ in hands.started] == [2]


def test_the_longest_time_goes_on_over_a_start():
    hands = Hands()
    hands.sleep(48)
    hands.stored[1] = 49 * S, hands.event(1)
    hands.coalescer.hold("k", 1, 49 * S, 1, 47 * S)
    hands.send(2)
    hands.sleep(3)
    assert hands.started == [(2, MAX_WINDOWS * WITHIN_S + 1e-9)]


def test_one_on_its_way_back_from_disk_does_not_run_if_it_was_superseded_meanwhile():
    hands = Hands()
    hands.send(1)
    _, event = hands.stored[1]
    hands.send(2)
    assert hands.superseded == {1: 2}
    del hands.superseded[1]  # whatever: it is said once more
    hands.coalescer.enter(event, is_fresh=False)
    assert hands.superseded == {1: 2}
    hands.sleep(10)
    assert [p for p, _ in hands.started] == [2]


def test_one_that_is_gone_holds_no_key():
    hands = Hands()
    hands.send(1)
    hands.coalescer.gone("k", 1)
    hands.coalescer.gone("other", 1)
    assert len(hands.coalescer) == 0


STEP = st.one_of(
    st.tuples(st.just("send"), st.sampled_from("ab")),
    st.tuples(st.just("sleep"), st.sampled_from([0.5, 3.0, 6.0])),
    st.tuples(st.just("over"), st.integers(0, 3)),
    st.tuples(st.just("fail"), st.integers(0, 3)),
    st.tuples(st.just("start"), st.just(0)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(STEP, max_size=40))
def test_whatever_comes_the_newest_of_each_key_has_the_last_run(steps):  # noqa: C901
    hands = Hands()
    sent: dict[str, list[int]] = defaultdict(list)
    count = 0
    for what, value in steps:
        if what == "send":
            sent[value].append(count)
            hands.send(count, value)
            count += 1
        elif what == "sleep":
            hands.sleep(value)
        elif what == "start":
            hands = restarted(hands)
        elif hands.running:
            position = sorted(hands.running)[value % len(hands.running)]
            if what == "over":
                hands.over(position)
            else:
                hands.fail(position, 4.0 if value % 2 else 0.5)
    for _ in range(10):
        hands.sleep(1000)
        for position in list(hands.running):
            hands.over(position)
    runs = [position for position, _ in hands.started]
    for positions in sent.values():
        assert positions[-1] in runs
        assert positions[-1] == [p for p in runs if p in positions][-1]
        for position in positions[:-1]:
            assert position in runs or hands.superseded[position] > position
    assert set(hands.superseded).isdisjoint({p[-1] for p in sent.values()})
    assert len(hands.coalescer) == 0


def restarted(old: Hands) -> Hands:
    """After a kill: the disk knows what was stored; all else is brought back as it came."""
    new = Hands()
    new.now, new.started, new.superseded = old.now, old.started, old.superseded
    new.since = old.since
    open_ = dict(old.running)
    for key in old.coalescer._keys.values():
        if key.waiting is not None and key.waiting.event is not None:
            open_[key.waiting.position] = key.waiting.event
    kept = {p: one for p, one in old.stored.items() if p not in old.superseded}
    for position, (due_ns, event) in sorted(kept.items()):
        received_ns = event._delivery.received_at_ns
        new.coalescer.hold(event._key, position, due_ns, old.since.get(position, 0), received_ns)
        new.stored[position] = due_ns, event
    for _, event in sorted(open_.items()):
        new.coalescer.enter(Event(event._delivery, None, event.attempt, event._key), is_fresh=False)
    return new
