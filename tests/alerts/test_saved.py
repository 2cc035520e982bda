"""What was learned survives; what is no such file is refused whole."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fasthook.alerts.detector import Detector, Settings
from fasthook.alerts.saved import decode, encode, restore
from tests.alerts.weeks import HOUR, WEEK, Life, nothing, said, steady


@pytest.fixture(scope="module")
def life() -> Life:
    made = Life(steady)
    made.pass_by(3 * WEEK)
    return made


def restarted(life: Life) -> Life:
    after = copy.deepcopy(life)
    after.detector = Detector({"e": 0.0, "new": 0.0}, Settings())
    restore(after.detector, decode(encode(life.detector)))
    return after


def test_a_restart_forgets_nothing_that_was_learned(life):
    assert encode(restarted(life).detector) != b""
    assert said(restarted(life).pass_by(HOUR, nothing)) == [("silence", "started")]
    # And without it nothing is known.
    anew = copy.deepcopy(life)
    anew.detector = Detector({"e": 0.0}, Settings())
    assert anew.pass_by(HOUR, nothing) == []


def test_alerts_go_on_over_a_restart_and_end_after_it(life):
    before = copy.deepcopy(life)
    begun = before.pass_by(HOUR, nothing, rejects=100, errors=["KeyError"])
    assert len(begun) == 3
    after = restarted(before)
    assert {a.id for a in after.detector.alerts()} == {a.id for a in begun}
    assert {a.id for a in after.pass_by(2 * HOUR)} == {a.id for a in begun}
    assert list(after.detector.alerts()) == []


def flood(before: Life, minutes: int, clients: bool) -> list:
    if clients:  # of one client, at an endpoint that has no spike as a whole
        return before.pass_by(minutes * 60, clients={("e", "192.0.2.1"): 60})
    return before.pass_by(minutes * 60, rejects=30)


@pytest.mark.parametrize("clients", [False, True])
def test_who_goes_on_in_the_middle_of_a_flood_says_nothing_twice(life, clients):
    before = copy.deepcopy(life)
    (begun,) = flood(before, 6, clients)
    after = restarted(before)
    after.detector.begin(after.now + 20)
    assert flood(after, 60, clients) == []
    assert [alert.id for alert in after.detector.alerts()] == [begun.id]
    (ended,) = after.pass_by(20 * 60)
    assert (ended.id, ended.state) == (begun.id, "ended")


def test_who_goes_on_within_a_step_learns_of_the_hour_as_if_there_had_been_one_alone(life):
    alone = copy.deepcopy(life)
    alone.pass_by(2 * HOUR)
    relay = copy.deepcopy(life)
    for _ in range(12):
        relay.pass_by(10 * 60)
        relay = restarted(relay)
        relay.detector.begin(relay.now + 20)
    for name in ("events", "rejects"):
        one, other = (getattr(each.detector.watched["e"], name) for each in (alone, relay))
        assert (one.season.means, one.season.weeks) == (other.season.means, other.season.weeks)
        assert one.going == other.going
    assert relay.detector.watched["e"].watched_s == alone.detector.watched["e"].watched_s


def test_the_time_in_which_nobody_looked_is_no_silence(life):
    after = restarted(life)
    after.detector.begin(after.now + 30 * 60)
    after.now += 30 * 60
    assert after.pass_by(20 * 60, nothing) == []


def test_an_endpoint_that_is_gone_takes_its_alerts_along(life):
    before = copy.deepcopy(life)
    before.pass_by(HOUR, nothing)
    after = Detector({"other": 0.0}, Settings())
    restore(after, decode(encode(before.detector)))
    assert list(after.alerts()) == []


def test_it_is_small(life):
    assert len(encode(life.detector)) < 2 * 4096


@settings(max_examples=50, deadline=None)
@given(data=st.binary(max_size=200))
def test_what_is_no_such_file_is_refused(data):
    with pytest.raises(ValueError):  # noqa: PT011 - msgspec has several of them
        decode(data)


def test_a_file_with_a_flipped_bit_is_refused_or_harmless(life):
    good = encode(life.detector)
    for place in range(0, len(good), 7):
        bad = bytearray(good)
        bad[place] ^= 0x40
        detector = Detector({"e": 0.0}, Settings())
        try:
            restore(detector, decode(bytes(bad)))
        except ValueError:
            continue
        life_after = copy.deepcopy(life)
        life_after.detector = detector
        life_after.pass_by(10 * 60)
