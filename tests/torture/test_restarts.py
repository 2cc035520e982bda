"""Restarts and reloads of a real systemd under load through nginx: no request fails, none is lost.

The short form is in tests/systemd, with all else that takes a boot.
"""

from pathlib import Path

import pytest

from tests.systemd.container import boot
from tests.torture.helpers import FULL, say

RESTARTS, RELOADS, REQUESTS = 50, 200, 100_000


@pytest.mark.skipif(not FULL, reason="some minutes; FASTHOOK_TORTURE=full")
@pytest.mark.timeout(3600)
def test_no_request_fails_in_fifty_restarts_and_two_hundred_reloads(tmp_path: Path):
    report = boot(tmp_path, "endure", RESTARTS, RELOADS, REQUESTS, timeout_s=3000)
    facts = report["endure"]
    say("restarts and reloads", **facts)
    assert "error" not in facts, facts["error"]
    assert (facts["restarts"], facts["reloads"]) == (RESTARTS, RELOADS)
    assert facts["refused"] == RELOADS // 10
    assert facts["sent"] >= REQUESTS
    assert (facts["failed"], facts["failures"]) == (0, [])
    assert (facts["acked"], facts["lost"]) == (facts["sent"], 0)
    assert facts["internal_errors"] == facts["workers_lost"] == []
