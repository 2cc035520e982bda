"""The detector, with months in which nothing is wrong, and moments in which something is."""

import copy

import msgspec
import pytest

from fasthook.alerts.counts import Counts
from fasthook.alerts.detector import Alert, Detector, Settings
from tests.alerts.weeks import DAY, HOUR, MINUTE, MONDAY, WEEK, Life, nothing, office, said, steady


@pytest.fixture(scope="module")
def lives() -> dict[str, Life]:
    """Endpoints with four weeks behind them, at Monday midnight."""
    made = {"steady": Life(steady), "office": Life(office)}
    for life in made.values():
        assert life.pass_by(4 * WEEK, rejects=0) == []
    return made


@pytest.fixture
def machine(lives) -> Life:
    return copy.deepcopy(lives["steady"])


@pytest.fixture
def desk(lives) -> Life:
    return copy.deepcopy(lives["office"])


# --- silence --------------------------------------------------------------------------------------


def test_an_endpoint_that_usually_gets_events_and_gets_none_is_silent_until_the_next(machine):
    (alert,) = machine.pass_by(2 * HOUR, nothing)
    assert (alert.kind, alert.endpoint, alert.state) == ("silence", "e", "started")
    assert 15 * MINUTE <= alert.over_s <= 45 * MINUTE
    assert list(machine.detector.alerts()) == [alert]

    (ended,) = machine.pass_by(HOUR)
    assert (ended.id, ended.state) == (alert.id, "ended")
    assert list(machine.detector.alerts()) == []


def test_nights_and_weekends_are_no_silence(desk):
    assert desk.pass_by(4 * WEEK) == []


def test_holidays_are_no_silence_even_two_in_a_row(desk):
    desk.pass_by(2 * DAY)
    assert desk.pass_by(2 * DAY, nothing) == []  # Wednesday and Thursday
    assert desk.pass_by(WEEK) == []


def test_an_office_that_is_quiet_for_a_week_is_silent_once(desk):
    found = desk.pass_by(2 * WEEK, nothing)
    assert said(found) == [("silence", "started")]


def test_a_new_endpoint_is_not_judged_before_it_is_known():
    life = Life(steady)
    assert life.pass_by(13 * DAY) == []
    assert life.pass_by(HOUR, nothing) == []
    assert life.pass_by(HOUR, lambda now: 1000) == []


def test_an_endpoint_that_never_got_anything_is_never_silent(machine):
    assert all(alert.endpoint == "e" for alert in machine.pass_by(DAY, nothing))


def test_what_is_expected_every_hour_needs_no_learning():
    life = Life(steady, expect_s=HOUR)
    assert life.pass_by(59 * MINUTE, nothing) == []
    (alert,) = life.pass_by(2 * MINUTE, nothing)
    assert (alert.kind, alert.limit, alert.over_s) == ("silence", HOUR, HOUR)
    assert said(life.pass_by(MINUTE)) == [("silence", "ended")]


def test_time_in_which_nobody_looked_is_no_silence(machine):
    machine.now += 5 * DAY
    assert machine.pass_by(10 * MINUTE, nothing) == []
    machine.now -= 3 * DAY  # a clock that is set back
    assert machine.pass_by(10 * MINUTE) == []
    assert said(machine.pass_by(HOUR, nothing)) == [("silence", "started")]


def test_a_rhythm_that_becomes_slower_is_told_once_and_learned(machine):
    found = machine.pass_by(2 * WEEK, lambda now: int(now % (40 * MINUTE) == 0))
    assert len([alert for alert in found if alert.state == "started"]) <= 2


# --- spikes ---------------------------------------------------------------------------------------


def test_ten_times_as_many_events_are_told_at_once_and_ended_when_it_is_over(machine):
    (alert,) = machine.pass_by(30 * MINUTE, lambda now: 20)
    assert (alert.kind, alert.endpoint, alert.state) == ("volume", "e", "started")
    assert alert.since - 4 * WEEK - MONDAY <= 5 * MINUTE
    assert alert.seen >= alert.limit > 3 * alert.usual - 1
    assert said(machine.pass_by(30 * MINUTE)) == [("volume", "ended")]


def test_a_burst_that_was_told_is_known_the_next_day_and_one_twice_as_high_is_not(machine):
    assert len(machine.pass_by(30 * MINUTE, lambda now: 20)) == 1
    machine.pass_by(DAY)
    assert machine.pass_by(30 * MINUTE, lambda now: 22) == []
    machine.pass_by(DAY)
    assert said(machine.pass_by(30 * MINUTE, lambda now: 60)) == [("volume", "started")]


def test_growth_is_no_spike(machine):
    for week in range(20):
        count = round(2 * 1.1**week)
        assert machine.pass_by(WEEK, lambda now, count=count: count) == []


def test_refusals_are_told_from_the_first_hour_on_every_time_and_of_whom():
    life = Life(steady)
    for _ in range(3):
        found = life.pass_by(10 * MINUTE, rejects=60, clients={("e", "192.0.2.9"): 60})
        assert said(found) == [("rejects", "started")]
        assert (found[0].client, found[0].limit) == ("192.0.2.9", 100)
        assert said(life.pass_by(DAY)) == [("rejects", "ended")]


def test_one_flood_of_one_client_is_one_alert():
    life = Life(steady)
    found = life.pass_by(MINUTE, rejects=50_000, clients={("e", "192.0.2.9"): 50_000})
    assert said(found + life.pass_by(DAY)) == [("rejects", "started"), ("rejects", "ended")]


def test_a_few_refusals_are_nothing():
    life = Life(steady)
    assert life.pass_by(WEEK, rejects=6) == []


def test_an_endpoint_that_is_scanned_all_the_time_is_told_of_only_if_there_is_more():
    life = Life(steady)
    found = life.pass_by(4 * WEEK, rejects=200)
    assert said(found) == [("rejects", "started"), ("rejects", "ended")]
    assert said(life.pass_by(HOUR, rejects=5000)) == [("rejects", "started")]


def test_one_client_is_told_of_where_the_endpoint_has_many_refusals_anyway():
    life = Life(steady)
    crowd = {("e", f"192.0.2.{n}"): 5 for n in range(40)}
    life.pass_by(2 * WEEK, rejects=200, clients=crowd)
    found = life.pass_by(10 * MINUTE, rejects=400, clients=crowd | {("e", "203.0.113.1"): 200})
    assert [(alert.kind, alert.client) for alert in found] == [("rejects", "203.0.113.1")]
    assert said(life.pass_by(HOUR, rejects=200, clients=crowd)) == [("rejects", "ended")]


def test_what_no_endpoint_gets_is_watched_for_refusals():
    detector = Detector({"e": 0.0}, Settings())
    (alert,) = detector.observe(Counts(rejects={"": 500}), MONDAY)
    assert (alert.kind, alert.endpoint) == ("rejects", "")


# --- errors ---------------------------------------------------------------------------------------


def test_a_kind_of_error_is_told_the_first_time_it_is_ever_seen(machine):
    (alert,) = machine.pass_by(MINUTE, errors=["KeyError"])
    assert (alert.kind, alert.error, alert.seen) == ("error", "KeyError", 1)
    assert " " not in msgspec.structs.replace(alert, error="a b\n§").id
    assert machine.pass_by(30 * MINUTE, errors=["KeyError"]) == []
    assert said(machine.pass_by(2 * HOUR)) == [("error", "ended")]
    assert machine.pass_by(MINUTE, errors=["KeyError"]) == []


def test_kinds_seen_while_it_learned_are_known():
    life = Life(steady)
    life.pass_by(MINUTE, errors=["KeyError"])
    life.pass_by(15 * DAY)
    assert life.pass_by(MINUTE, errors=["KeyError"]) == []
    assert said(life.pass_by(MINUTE, errors=["ValueError"])) == [("error", "started")]


def test_kinds_without_end_are_not_remembered_without_end(machine):
    found: list[Alert] = []
    for number in range(10_000):
        found += machine.pass_by(MINUTE, errors=[f"E{number}"])
    assert len([alert for alert in found if alert.state == "started"]) == 64
    assert len(machine.detector.watched["e"].kinds.known) == 64
    assert machine.pass_by(2 * HOUR) == []


# --- several workers ------------------------------------------------------------------------------


def test_counts_of_several_workers_are_those_of_one(machine):
    other = copy.deepcopy(machine.detector)
    alone = Counts({"e": 40}, {"e": 200}, {("e", "KeyError"): 2}, {("e", "c"): 40}, {("e", "d"): 9})
    summed = Counts()
    summed.add(Counts({"e": 30}, {}, {("e", "KeyError"): 1}, {("e", "c"): 40}))
    summed.add(Counts({"e": 10}, {"e": 200}, {("e", "KeyError"): 1}, {}, {("e", "d"): 9}))

    assert summed == alone
    now = machine.now + MINUTE
    assert other.observe(summed, now) == machine.detector.observe(alone, now) != []


def test_counts_can_come_from_another_process():
    counts = Counts({"e": 4}, {"": 2}, {("e", "KeyError"): 2}, {("e", "c"): 4}, {("", "d"): 9})
    sent = msgspec.msgpack.encode(counts)
    assert msgspec.msgpack.decode(sent, type=Counts) == counts
