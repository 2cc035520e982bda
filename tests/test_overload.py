"""The overload is measured honestly: what was due and not accepted counts."""

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.overload import Row, picture, recovery, row_of, table
from fasthook.cli.bench.load import Answered, Loaded

ROOT = Path(__file__).parents[1]
DURING = (2.0, 4.0)


def loaded(*answered, unsent=()):
    return Loaded(list(answered), list(unsent), 6.0, [0.001], 0.3)


def test_goodput_is_what_was_accepted_in_time_and_all_else_was_shed():
    before = [Answered(n / 100, 0.01, 202) for n in range(190)]
    good = [Answered(2 + n / 100, 0.2, 202) for n in range(100)]
    late = [Answered(3.9, 0.5, 202)]
    shed = [Answered(2.5, 0.01, 503), Answered(2.6, 5.0, -1), Answered(2.7, 0.3, 0)]

    row = row_of(loaded(*before, *good, *late, *shed, unsent=[1.0, 2.1, 2.2]), 2.0, 200, DURING)

    assert row.goodput == 50
    assert row.shed == {"503": 1, "no answer": 1, "lost": 1, "no connection": 2}
    assert (row.p50_s, row.p999_s) == (0.2, 0.5)
    assert row.recovery_s == math.inf  # nothing came after it
    assert row.keeps_up


def test_it_has_recovered_when_all_is_accepted_as_usual():
    normal = [Answered(4 + n / 100, 0.01, 202) for n in range(5, 200, 10)]
    assert recovery(loaded(*normal), 4.0, 0.05) == 0
    assert recovery(loaded(*normal, Answered(4.02, 0.06, 202)), 4.0, 0.05) == pytest.approx(0.1)
    refused = [Answered(4.02, 0.01, 503), Answered(4.12, 0.01, 503)]
    assert recovery(loaded(*normal, *refused), 4.0, 0.05) == pytest.approx(0.2)
    assert recovery(loaded(*normal, unsent=[4.01]), 4.0, 0.05) == pytest.approx(0.1)
    assert recovery(loaded(*normal), 4.0, 0.001) == math.inf


def row(factor, goodput, **more):
    made = Row(factor, 5e3, 5e3 * factor, goodput, 0.1, 0.2, 0.3, {"503": 7}, 0.5, 90, 0.04, True)
    return made._replace(**more)


def test_a_load_that_was_late_and_how_rounds_differ_are_said():
    rows = [row(2.0, rate, keeps_up=False) for rate in (4e3, 5e3, 1e3)] + [row(1.0, 5e3)]
    text = table(rows)
    late = "(the load was late: 40 ms at p99)"
    assert f"| 2 × (10,000/s) {late} | 4,000/s | 0.80 (0.20 to 1.00) |" in text
    assert "| 1 × (5,000/s) | 5,000/s | 1.00 |" in text
    assert "7 × 503" in text


def test_a_picture_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    picture([row(1.0, 4e3), row(10.0, 4e3)], tmp_path / "overload.svg")
    assert (tmp_path / "overload.svg").read_text().startswith("<?xml")


def test_a_real_service_is_overloaded():
    command = [sys.executable, "-m", "bench.overload", "--seconds", "0.8", "--factors", "0.3", "4"]
    more = ["--busy", "32", "--connections", "100", "--durability", "os", "--rounds", "1"]
    result = subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    lines = re.findall(r"^\| \S+ × \(([\d,]+)/s\).*? \| ([\d,]+)/s", result.stdout, re.MULTILINE)
    half, much = [[int(text.replace(",", "")) for text in line] for line in lines]
    assert half[1] == pytest.approx(half[0], rel=0.3)
    assert 0 < much[1] < much[0] * 0.8
    assert "no connection" in result.stdout
