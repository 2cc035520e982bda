"""`fasthook bench`: figures that agree, and nothing of the user's touched."""

import json
import os
import signal
import subprocess
import time
from collections import Counter

import msgspec
import pytest

from fasthook.cli.bench.load import Answered, Loaded
from fasthook.cli.bench.own import Own
from fasthook.cli.bench.report import Measured, report_of
from fasthook.config import Config
from tests.cli.conftest import COMMAND, endpoint

TWO = endpoint("github", more='events = ["push"]\nallow = ["192.0.2.1"]\nrate = "1/s"') + endpoint(
    "stripe", more='handlers = ["not-installed", "log"]'
)
FILE = '[handlers.log]\nuse = "file"\npath = "events.jsonl"\nmax_bytes = "1MiB"\nkeep = 1\n'


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_figures_agree_and_nothing_is_left(write, run_process, tmp_path, monkeypatch):
    for name in ("SECRET_GITHUB", "SECRET_STRIPE"):
        monkeypatch.delenv(name)  # not needed: it has secrets of its own
    path = write(TWO)

    result = run_process("bench", "-c", path, "--seconds", 0.4, "--json")

    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["endpoints"] == ["github", "stripe"]
    assert report["answers"] == {"202": report["events"]}
    assert report["events"] > 50
    assert report["rate"] == pytest.approx(report["events"] / report["seconds"], rel=0.01)
    took = report["latency_ms"]
    assert 0 < took["p50"] <= took["p99"] <= took["p999"] <= took["worst"]
    assert report["cpu_us_per_event"] > 10
    assert report["sync_ms"]["p50"] > 0
    assert 20 < report["memory_bytes"] / 2**20 < 200
    assert {"allow", "rate", "secrets", "handlers", "spool.path"} <= set(report["changed"])
    assert left(tmp_path) == ["fasthook.toml"]


def test_a_rate_is_kept_and_a_body_is_another_event_each_time(write, run_process, tmp_path):
    """Stripe's id stands in the body, Shopify's in a header, and of a digest there is none."""
    path = write(TWO + endpoint("shopify"))
    body = tmp_path / "body.json"
    body.write_text('{"id": "evt_1", "type": "charge.succeeded", "data": {}}')

    result = run_process("bench", "-c", path, "--seconds", 0.5, "--rate", "200/s", "--body", body)

    assert result.returncode == 0, result.stderr
    assert "100 events in " in result.stdout
    assert "/s of 200/s" in result.stdout
    assert "taken for earlier ones" not in result.stderr
    for word in ("latency", "CPU", "a sync takes", "memory", "not as configured"):
        assert word in result.stdout


def test_handlers_run_if_that_is_asked_for(write, run_process, tmp_path):
    path = write(endpoint("github") + FILE)
    options = ["--seconds", 0.2, "--rate", "50/s", "--endpoint", "github", "--json"]

    result = run_process("bench", "-c", path, *options, "--handlers", cwd=tmp_path)

    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["own_handlers"]
    assert (tmp_path / "events.jsonl").exists()


def test_it_is_cleared_away_when_it_is_ended(write, tmp_path):
    path = write(endpoint("github"))
    command = [*COMMAND, "bench", "-c", str(path), "--seconds", "60", "--rate", "10/s"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    ends = time.monotonic() + 20
    while not (logs := list(tmp_path.glob(".fasthook-bench-*/log"))) or not logs[0].stat().st_size:
        assert time.monotonic() < ends
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM
    assert left(tmp_path) == ["fasthook.toml"]


def test_who_signs_with_a_key_of_its_own_is_left_out(write, run):
    others = endpoint("discord", more='secrets = ["plain:0"]') + endpoint(
        "aws-sns", more="secrets = []"
    )
    result = run("bench", "-c", write(others))
    assert result.exit_code == 2
    assert "no endpoint can be measured: discord: its key belongs to its sender" in result.stderr
    assert "aws-sns: its keys are fetched" in result.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--endpoint", "none"], "no endpoint 'none'; it has: github, stripe"),
        (["--rate", "many"], "'many'; expected"),
        (["--folder", "/proc"], "name one on the same disk: --folder DIR"),
        (["--seconds", "0"], "0.1<=x<=3600"),
    ],
)
def test_what_is_wrong_is_said(options, said, write, run, tmp_path):
    result = run("bench", "-c", write(TWO), *options)
    assert result.exit_code == 2
    assert said in result.stderr
    assert left(tmp_path) == ["fasthook.toml"]


def test_a_body_that_the_service_refuses_ends_it(write, run, tmp_path):
    body = tmp_path / "body.json"
    body.write_text(json.dumps({"long": "x" * 2000}))
    path = write(endpoint("github", more='max_body = "1KiB"'))
    result = run("bench", "-c", path, "--body", body)
    assert result.exit_code == 2
    assert "endpoint github: its own service answered 413" in result.stderr


def report(answers, counts, *, unsent=()):
    answered = [Answered(0.0, 0.01, status) for status in answers]
    loads = [Loaded(answered, list(unsent), 1.0, [], 0.5)]
    own = Own({}, [], {}, [], False, 2)
    measured = Measured(loads, 100, [0.001], 0.1, counts, 2**25)
    return report_of(Config(), own, measured, None, 64)


def test_refusals_and_counts_that_differ_are_complaints():
    assert report([202, 202], {"event": 2}).complaints == []
    (complaint,) = report([202, 503, 503, -1], {"event": 1}).complaints
    assert complaint == "some events were not accepted: 1 × no answer in time, 2 × 503"
    (complaint,) = report([202, 202], {"event": 1}).complaints
    assert complaint == "2 events were answered 2xx, but the service counts 1"
    assert "no free connection" in report([202], {"event": 1}, unsent=[0.1]).complaints[0]
    assert report([202], {"duplicate": 1}).notes == [
        "1 events were taken for earlier ones, which costs less"
    ]
    assert Counter(msgspec.to_builtins(report([202, 503], {}))["answers"]) == {"202": 1, "503": 1}


def test_handlers_are_left_alone_and_one_processor_is_enough(write, run_process, tmp_path):
    path = write(endpoint("github") + FILE)
    core = min(os.sched_getaffinity(0))
    options = ["--seconds", 0.2, "--rate", "20/s"]
    result = run_process(
        "bench",
        *("-c", path, *options),
        cwd=tmp_path,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    assert result.returncode == 0
    assert "the only processor" in result.stderr
    assert left(tmp_path) == ["fasthook.toml"]
