"""Simulated months: what the README says of false alarms and delays, for two kinds of endpoints."""

import pytest

from bench.alerts import KINDS, measure


@pytest.mark.parametrize(
    ("name", "silence_minutes", "volume_minutes"),
    [
        ("1,000 a day, day and night", 6 * 60, 15 * 60),
        ("100 a day, office hours", 6 * 1440, 30),
    ],
)
def test_months_pass_without_a_false_alarm_and_what_is_wrong_is_told(
    name, silence_minutes, volume_minutes
):
    (kind,) = [kind for kind in KINDS if kind.name == name]
    false, delays = measure((kind, 7, 2.0))

    assert false == {}
    assert len(delays["stop"]) == len(delays["forged"]) == 5
    assert all(delay is not None and delay <= silence_minutes for delay in delays["stop"])
    assert all(delay is not None and delay <= volume_minutes for delay in delays["ten times"])
    assert delays["forged"] == [1.0] * 5
