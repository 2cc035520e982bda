"""fasthook on a real systemd: installed, started, reloaded, restarted, watched, removed.

One boot for all of them: `inside.py` does it in a container, these look at what it saw.
"""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from fasthook.logs.messages import MESSAGES
from tests.systemd.container import boot

pytestmark = pytest.mark.timeout(600)
Facts = dict[str, Any]


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    return boot(tmp_path_factory.mktemp("systemd"), "whole", timeout_s=300)


@pytest.fixture
def step(report: Facts) -> Callable[[str], Facts]:
    """The facts of one step."""

    def step(name: str) -> Facts:
        facts: Facts = report[name]
        assert "error" not in facts, facts["error"]
        return facts

    return step


def assert_nothing_failed(facts: Facts, at_least: int) -> None:
    assert facts["sent"] >= at_least
    assert (facts["failed"], facts["failures"]) == (0, [])
    assert (facts["acked"], facts["lost"]) == (facts["sent"], 0)


def test_make_install_puts_all_of_it_in_place_and_starts_it(step):
    facts = step("install")
    assert facts["states"] == ["active", "active"]
    assert facts["enabled"] == ["enabled", "enabled"]
    assert facts["secret_mode"] == "600"
    assert facts["socket"] == "root www-data 660"
    assert facts["ready"].startswith("HTTP/1.1 200 OK")
    assert facts["ready"].endswith("ready\n")
    assert "/usr/local/bin/fasthook" in facts["written"]
    assert "/etc/fasthook/fasthook.toml" in facts["written"]
    assert "/etc/nginx/conf.d/hooks.test.conf" in facts["written"]


def test_a_signed_event_comes_through_nginx_with_tls_and_a_forged_one_does_not(step):
    facts = step("prepare")
    assert facts["post"] == {"status": "202", "http": "2"}
    assert facts["forged"] == {"status": "401", "http": "2"}


def test_whoever_connects_starts_it(step):
    facts = step("start_by_socket")
    assert facts["stopped"] == "inactive"
    assert facts["post"]["status"] == "202"


def test_handlers_can_do_what_they_need_and_nothing_else(step):
    can = step("confine")["can"]
    allowed = {what for what, error in can.items() if not error}
    assert allowed == {"write to its state", "start a program"}
    assert len(can) == 10


def test_handlers_of_each_kind_run_in_the_sandbox(step):
    facts = step("confine")  # in a thread, in a process, as a command: else it had failed
    assert facts["copied"]
    assert facts["warnings"] == []


def test_the_processes_have_a_user_of_their_own_and_no_rights(step):
    facts = step("confine")
    fields = facts["fields"]
    assert 61184 <= int(fields["Uid"]) <= 65519  # DynamicUser=
    assert int(fields["CapEff"], 16) == 0
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
    assert (facts["state_mode"], facts["spool_mode"]) == ("700", "700")
    assert not facts["secret_in_environment"]


def test_a_secret_comes_as_a_credential_and_changes_with_a_restart(step):
    facts = step("credential")
    assert facts["before"]["status"] == "401"
    assert facts["new"]["status"] == "202"
    assert facts["old"]["status"] == "401"


def test_a_reload_takes_what_is_new(step):
    facts = step("reload")
    assert facts["unknown"]["status"] == "404"
    assert facts["new"]["status"] == "202"


def test_a_reload_of_what_is_wrong_leaves_the_old_one_at_work_and_says_so(step):
    facts = step("reload")
    assert "spool.bath: unknown key" in facts["refusal"]
    assert facts["status"] == "serving; the last reload failed"
    assert facts["after"]["status"] == "202"
    assert facts["same_parent"]
    assert facts["same_workers"]
    assert facts["state"] == "active"


def test_restarts_and_reloads_under_load_fail_no_request_and_lose_none(step):
    facts = step("endure_briefly")
    assert (facts["restarts"], facts["reloads"], facts["refused"]) == (3, 10, 1)
    assert_nothing_failed(facts, 1000)
    assert facts["internal_errors"] == facts["workers_lost"] == []
    # Nor does anybody wait for a drain: senders have deadlines, the shortest known 1.25 s.
    assert facts["longest_s"] < 4


def test_the_load_finds_it_when_requests_fail(step):
    """The control of the one before: there the socket goes away with the service."""
    facts = step("control")
    assert facts["failed"] > 0
    assert facts["lost"] == 0


def test_a_service_that_can_not_start_is_tried_until_it_can_and_who_waits_is_answered(step):
    facts = step("broken")
    assert not facts["during"]
    assert facts["tries"] >= 2
    assert facts["socket"] == "active"
    assert [answer["status"] for answer in facts["answers"]] == ["202"]


def test_an_upgrade_under_load_fails_no_request_and_changes_nothing_of_the_operators(step):
    facts = step("upgrade")
    assert_nothing_failed(facts, 50)
    assert facts["kept"]


def test_with_the_drop_in_handlers_call_out(step):
    can = step("call_out")["can"]
    allowed = {what for what, error in can.items() if not error}
    assert allowed == {"write to its state", "start a program", "connect"}


def test_the_journal_has_what_became_of_an_event(step):
    lines = step("journald")["lines"]
    assert lines
    for line in lines:
        assert line["_SYSTEMD_UNIT"] == "fasthook.service"
        assert line["PRIORITY"] == "6"
        assert line["_TRANSPORT"] == "journal"  # its own protocol, out of the sandbox
        assert line["FASTHOOK_ENDPOINT"] == line["FASTHOOK_PROVIDER"] == "github"
        assert line["FASTHOOK_EVENT_ID"] == "in-the-journal"
    accepted, done = sorted(lines, key=lambda line: line["MESSAGE"])
    assert accepted["MESSAGE_ID"] == MESSAGES["accepted"].id
    assert accepted["FASTHOOK_CLIENT"] == "127.0.0.1"
    assert done["MESSAGE_ID"] == MESSAGES["done"].id
    assert done["FASTHOOK_ATTEMPT"] == "1"


def test_the_journal_says_why_a_request_was_refused_and_explains_the_line(step):
    facts = step("journald")
    (rejected,) = facts["rejected"]
    assert rejected["FASTHOOK_REASON"]
    assert rejected["PRIORITY"] == "4"
    assert "A request was refused" in facts["explained"]


def test_an_operator_looks_at_it_as_root_and_leaves_nothing_that_is_roots(step):
    facts = step("commands")
    assert len(facts["answers"]) == 9
    for name, (code, _, said) in facts["answers"].items():
        assert code == 0, (name, said)
    assert "by-command" in facts["answers"]["events --json"][1]
    assert facts["roots"] == []
    assert facts["post"]["status"] == "202"


def test_doctor_finds_nothing_bad_in_what_was_installed(step):
    code, text, said = step("commands")["doctor"]
    findings = json.loads(text)["findings"]
    assert [f for f in findings if f["level"] == "bad"] == [], said
    assert code == 0
    good = {finding["subject"] for finding in findings if finding["level"] == "good"}
    assert {"configuration", "secrets", "files", "spool", "limits", "unit", "nginx"} <= good


def test_the_unit_that_runs_is_hardened(step):
    facts = step("security")
    assert facts["code"] == 0
    level = re.search(r"exposure level for fasthook.service: ([\d.]+)", facts["level"])
    assert level is not None
    assert float(level[1]) <= 1.0


def test_a_service_whose_only_worker_is_stopped_is_started_anew(step):
    facts = step("watchdog")
    assert facts["fed"], "it was restarted although its workers made progress"
    assert facts["restarts"] == 1
    assert any("Watchdog timeout" in line for line in facts["said"])
    assert facts["stalled"]
    assert facts["left"], "its parent is still there"
    assert facts["post"]["status"] == "202"


def test_make_uninstall_undoes_it_and_keeps_what_is_the_operators(step):
    facts = step("uninstall")
    ours = ("/etc/fasthook", "/etc/systemd/system/fasthook.service.d", "/var/lib/", "/etc/nginx/")
    assert [path for path in facts["left"] if not path.startswith(ours)] == []
    assert "/etc/fasthook/secrets/github" in facts["left"]
    assert facts["has_events"]
    assert "kept: /etc/fasthook (PURGE=1 removes it)" in facts["output"]
    assert "kept: /etc/nginx/conf.d/hooks.test.conf, which was changed" in facts["output"]
    assert "fasthook.service" not in facts["units"]


def test_purged_it_leaves_nothing(step):
    facts = step("uninstall")
    assert (facts["left_by_purge"], facts["missing"]) == ([], [])
