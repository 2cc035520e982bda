"""Locust's senders against fasthook behind nginx and TLS, with all that goes wrong among senders."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter

from bench.load import differences
from tests.ports import free_ports
from tests.system.conftest import ROOT, needs, wait_for

SECONDS = int(os.environ.get("FASTHOOK_LOAD_SECONDS", "20"))
KINDS = ("small", "7 kB", "32 kB", "500 kB", "again", "forged", "burst", "slow")
LOAD = [sys.executable, "-m", "bench.load"]


def load(*options, timeout_s=100):
    needs("nginx")
    needs("openssl")
    command = [*LOAD, *map(str, options)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s)


def failures(output):
    """Kind of request → how many there were, and how many failed."""
    found = re.findall(r"^POST +(.+?) {2,}(\d+) +(\d+)\(", output, re.MULTILINE)
    return {kind: (int(count), int(failed)) for kind, count, failed in found}


def test_all_kinds_of_senders_are_answered_as_they_should_be_and_the_spool_agrees():
    result = load("--seconds", SECONDS, "--users", 30)

    assert result.returncode == 0, result.stdout + result.stderr
    counts = failures(result.stderr)
    assert set(KINDS) <= set(counts)
    assert all(count and not failed for count, failed in counts.values()), counts
    stored = re.search(r"the spool holds exactly the ([\d,]+) events", result.stdout)
    assert stored is not None
    accepted = sum(counts[kind][0] for kind in KINDS if kind not in ("again", "forged"))
    assert int(stored[1].replace(",", "")) == accepted


def test_the_control_accepts_what_is_forged_and_is_found_out():
    result = load("--seconds", 3, "--users", 20, "--mode", "observe")

    assert result.returncode == 1
    count, failed = failures(result.stderr)["forged"]
    assert count == failed > 0
    assert "a forged event was answered 20" in result.stdout + result.stderr
    assert "events stored, but never sent as genuine" in result.stdout


def test_the_page_is_there_and_the_end_is_orderly():
    needs("nginx")
    (port,) = free_ports(1)
    command = [*LOAD, "--web", "--web-port", str(port), "--users", "5"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )

    def has_page():
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as page:
                return "Locust" in page.read().decode()
        except (urllib.error.URLError, OSError):
            return False

    try:
        wait_for(has_page, "locust's page")
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=40)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert process.returncode == 0, output
    assert "the spool holds exactly the" in output


def test_what_differs_is_said():
    assert differences({"a 1"}, {"a 1"}, Counter(["a 1"])) == []
    assert differences({"a 1", "a 2"}, {"a 1"}, Counter(["a 2", "a 3", "a 3"])) == [
        "1 events accepted, but not stored, such as a 1",
        "1 events stored, but never sent as genuine, such as a 3",
        "1 events stored, though it was not accepted, such as a 2",
        "1 events stored twice, such as a 3",
    ]
