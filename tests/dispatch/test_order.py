"""Order alone: events of one key one at a time, as they were received; other keys never wait."""

from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from fasthook.dispatch.order import Order, Turn
from fasthook.model import Event
from tests.dispatch.helpers import delivery


def event(position: int, key: str = "k", attempt: int = 0) -> Event:
    return Event(delivery(event_id=str(position), position=position), None, attempt, key)


def test_the_first_of_a_key_runs_and_the_others_follow_one_by_one():
    order = Order()
    first, second, third = map(event, range(3))
    assert order.enter(first, is_fresh=True) is Turn.RUN
    assert order.enter(second, is_fresh=True) is Turn.QUEUED
    assert order.enter(third, is_fresh=True) is Turn.QUEUED
    assert len(order) == 1

    assert order.over(first) is second
    assert order.over(second) is third
    assert order.over(third) is None
    assert len(order) == 0


def test_keys_know_nothing_of_each_other():
    order = Order()
    assert order.enter(event(0, "a"), is_fresh=True) is Turn.RUN
    other = event(1, "b")
    assert order.enter(other, is_fresh=True) is Turn.RUN
    order.away(other)
    assert order.enter(event(2, "b"), is_fresh=True) is Turn.PARKED
    assert order.enter(event(3, "a"), is_fresh=True) is Turn.QUEUED
    assert order.enter(event(4, "c"), is_fresh=True) is Turn.RUN


def test_what_goes_away_takes_along_those_behind_it():
    order = Order()
    first, second, third = map(event, range(3))
    for each in (first, second, third):
        order.enter(each, is_fresh=True)

    assert order.away(first) == [second, third]
    assert order.has_parked(first)
    assert order.enter(event(3), is_fresh=True) is Turn.PARKED
    assert order.enter(second, is_fresh=False, was_parked=True) is Turn.PARKED  # too early
    assert order.enter(first, is_fresh=False) is Turn.RUN
    assert order.over(first) is None
    for each in (second, third):
        order.enter(each, is_fresh=False, was_parked=True)
    assert order.has_parked(second)  # the fresh one
    assert order.over(second) is third


def test_one_that_comes_from_disk_does_not_overtake_those_that_are_parked():
    """It never was in memory, for there was no room; they were, and left with their head."""
    order = Order()
    first, parked, later = map(event, range(3))
    order.enter(first, is_fresh=True)
    order.enter(parked, is_fresh=True)
    order.away(first)
    order.enter(first, is_fresh=False)
    assert order.enter(later, is_fresh=False) is Turn.PARKED
    assert order.over(first) is None
    assert order.enter(parked, is_fresh=False, was_parked=True) is Turn.RUN
    assert order.enter(later, is_fresh=False, was_parked=True) is Turn.QUEUED


def test_a_fresh_one_does_not_overtake_those_that_are_parked():
    order = Order()
    first, parked, fresh = map(event, range(3))
    order.enter(first, is_fresh=True)
    order.enter(parked, is_fresh=True)
    order.away(first)
    order.enter(first, is_fresh=False)
    assert order.enter(fresh, is_fresh=True) is Turn.PARKED
    order.over(first)
    assert order.enter(event(3), is_fresh=True) is Turn.PARKED


def test_what_has_nobody_behind_it_on_disk_says_so():
    order = Order()
    first = event(0)
    order.enter(first, is_fresh=True)
    order.enter(event(1), is_fresh=True)
    assert not order.has_parked(first)
    assert not order.has_parked(event(2, "unknown"))


def test_what_waited_on_disk_before_a_start_holds_its_key():
    order = Order()
    order.hold("k", 0, 1, 1)
    assert order.enter(event(2), is_fresh=True) is Turn.PARKED
    first = event(0, attempt=1)
    assert order.enter(first, is_fresh=False) is Turn.RUN
    assert order.has_parked(first)
    assert order.over(first) is None
    second, third = event(1), event(2)
    assert order.enter(second, is_fresh=False, was_parked=True) is Turn.RUN
    assert order.enter(third, is_fresh=False, was_parked=True) is Turn.QUEUED
    assert not order.has_parked(second)
    assert order.over(second) is third
    assert order.over(third) is None
    assert len(order) == 0


# --- any history ----------------------------------------------------------------------------------


class OnDisk:
    """What a disk knows of an event."""

    def __init__(self, key: str, due: int) -> None:
        self.key = key
        self.due = due
        self.attempt = 0
        self.is_waiting = False  # behind others of its key
        self.was_parked = False
        self.is_in_memory = False


class World:
    """An order with what stands around it: senders, a disk, handlers, and the time."""

    def __init__(self) -> None:
        self.order = Order()
        self.disk: dict[int, OnDisk] = {}
        self.in_hand: dict[str, Event] = {}
        self.received: dict[str, list[int]] = defaultdict(list)
        self.finished: dict[str, list[int]] = defaultdict(list)
        self.clock = 0
        self.is_behind = False

    def receive(self, key: str, *, is_full: bool) -> None:
        self.clock += 1
        position = self.clock
        self.received[key].append(position)
        self.disk[position] = OnDisk(key, self.clock)
        self.is_behind = self.is_behind or is_full
        if not self.is_behind:
            self._enter(position, is_fresh=True)

    def _enter(self, position: int, *, is_fresh: bool) -> None:
        known = self.disk[position]
        coming = event(position, known.key, known.attempt)
        was_parked = known.was_parked and not known.attempt
        known.is_in_memory = True
        turn = self.order.enter(coming, is_fresh=is_fresh, was_parked=was_parked)
        is_oldest = position == min(p for p, o in self.disk.items() if o.key == known.key)
        assert (turn is Turn.RUN) == is_oldest
        if turn is Turn.RUN:
            assert known.key not in self.in_hand
            self.in_hand[known.key] = coming
        elif turn is Turn.PARKED:
            self._park(position)

    def _park(self, position: int) -> None:
        known = self.disk[position]
        known.is_waiting, known.was_parked, known.is_in_memory = True, True, False

    def _free(self, key: str) -> None:
        for known in self.disk.values():
            if known.key == key and known.is_waiting:
                known.is_waiting, known.due = False, 0

    def settle(self, number: int, kind: str) -> None:
        """What the attempt of one of those in hand came to."""
        if not self.in_hand:
            return
        key = sorted(self.in_hand)[number % len(self.in_hand)]
        running = self.in_hand[key]
        position = running._delivery.position
        running.attempt += 1
        if kind == "retry in memory":
            self.disk[position].attempt = running.attempt
        elif kind == "retry from disk":
            del self.in_hand[key]
            known = self.disk[position]
            known.attempt, known.due = running.attempt, self.clock + 3
            known.is_in_memory = False
            for follower in self.order.away(running):
                self._park(follower._delivery.position)
        else:
            self.finished[key].append(position)
            del self.in_hand[key], self.disk[position]
            if self.order.has_parked(running):
                self._free(key)
            following = self.order.over(running)
            if following is not None:
                self.in_hand[key] = following

    def read_back(self, count: int) -> None:
        due = sorted(
            (known.due, position)
            for position, known in self.disk.items()
            if not known.is_waiting and not known.is_in_memory and known.due <= self.clock
        )
        for _, position in due[:count]:
            self._enter(position, is_fresh=False)
        if len(due) < count:
            self.is_behind = False

    def restart(self) -> None:
        self.order = Order()
        self.in_hand.clear()
        keys = {known.key for known in self.disk.values()}
        for known in self.disk.values():
            if known.is_in_memory:
                known.is_in_memory, known.due = False, 0
        for key in keys:
            of_key = {p: known for p, known in self.disk.items() if known.key == key}
            heads = [p for p, known in of_key.items() if known.attempt]
            parked = [p for p, k in of_key.items() if k.was_parked and not k.attempt]
            if not heads and all(self.disk[p].is_waiting for p in parked):
                self._free(key)
            if heads or parked:
                head = max(heads, default=-1)
                self.order.hold(key, head, len(parked), min(parked, default=0))
        self.is_behind = any(not known.is_waiting for known in self.disk.values())


KEYS = st.sampled_from("ab")
RECEIPTS = st.tuples(st.just("receive"), KEYS, st.sampled_from([False, False, True]))
OUTCOMES = st.tuples(
    st.just("settle"),
    st.integers(0, 2),
    st.sampled_from(["done", "dead", "retry in memory", "retry from disk"]),
)
READS = st.tuples(st.just("read"), st.integers(1, 4))
TIMES = st.tuples(st.just("wait"), st.integers(1, 5))
RESTARTS = st.just(("restart",))
STEPS = st.one_of(RECEIPTS, RECEIPTS, OUTCOMES, OUTCOMES, READS, TIMES, RESTARTS)


@settings(max_examples=600)
@given(st.lists(STEPS, max_size=60))
def test_whatever_happens_events_of_one_key_end_in_order_of_receipt(steps):
    """In `World`: one at a time, and none waits but for an older one of its key."""
    world = World()
    for name, *values in steps:
        if name == "receive":
            world.receive(values[0], is_full=values[1])
        elif name == "settle":
            world.settle(*values)
        elif name == "read":
            world.read_back(*values)
        elif name == "wait":
            world.clock += values[0]
        else:
            world.restart()

    for _ in range(10 * len(steps)):
        world.clock += 3
        world.read_back(3)
        for number in range(len(world.in_hand)):
            world.settle(number, "done")
    assert world.finished == world.received
    assert not world.disk
    assert len(world.order) == 0
