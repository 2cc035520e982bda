"""Costs that are to stay the same are measured, and a demand that is missed is said."""

import subprocess
import sys
from pathlib import Path

import pytest

from bench import flat

ROOT = Path(__file__).parents[1]


def test_what_is_idle_is_measured():
    options = ["connections", "--rounds", "1", "--seconds", "0.2", "--idle", "200"]
    command = [sys.executable, "-m", "bench.flat", *options]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode in (0, 1), result.stderr
    memory, cost = result.stdout.splitlines()
    assert "200 idle connections: " in memory
    assert "µs of CPU an event" in cost
    has_missed = "MISSED" in result.stdout
    assert result.returncode == has_missed


@pytest.mark.parametrize(("costs", "is_good"), [((50, 53), True), ((50, 58), False)])
def test_a_cost_that_grows_is_found_out(costs, is_good, monkeypatch):
    """One and many: the median of three rounds counts."""
    given = iter([*costs, *costs, 50, 500, *costs, *costs])
    monkeypatch.setattr(flat, "cost_us", lambda *_: next(given))
    options = flat.argparse.Namespace(rounds=4, seconds=1)
    result = flat.in_turns("many", (None, None), (1, 9), options)
    assert result.is_good == is_good
    assert "to 10.00" in result.text
