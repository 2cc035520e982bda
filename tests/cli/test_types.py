"""`fasthook types` and `fasthook drift`: from what is stored; and the warning of a service."""

import json
import time

import msgspec
import pytest

from tests.cli.conftest import configuration, endpoint
from tests.cli.hooks import Hooks, post, shop
from tests.spool.filled import delivery, fill

FORM = b"POST /h HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n"


@pytest.fixture
def spool(tmp_path, write):
    """Fill a spool with these payloads, oldest first."""
    write(configuration(endpoint("shop", provider="none")))

    def filled(*payloads, event_type="push", **options):
        now = time.time() - len(payloads)
        bodies = [p if isinstance(p, bytes) else json.dumps(p).encode() for p in payloads]
        made = [
            delivery(f"{event_type}-{n}", event_type=event_type, body=body, at_s=now + n, **options)
            for n, body in enumerate(bodies)
        ]
        return fill(tmp_path / "var", *made)

    return filled


def test_a_module_decodes_what_is_stored_and_is_the_same_each_time(spool, run, tmp_path):
    payloads = [{"ref": "a-secret-value", "n": n, "user": {"id": n}} for n in range(3)]
    spool(*payloads, {"ref": None, "n": 5, "user": {}})
    config = tmp_path / "fasthook.toml"
    result = run("types", "shop", "-c", config)
    assert result.exit_code == 0
    assert "4 events of 1 types" in result.stderr
    assert "a-secret-value" not in result.stdout
    made = {"__name__": "made"}
    exec(result.stdout, made)
    for payload in payloads:
        decoded = msgspec.json.decode(json.dumps(payload).encode(), type=made["Push"])
        assert (decoded.ref, decoded.user.id) == (payload["ref"], payload["user"]["id"])
    out = tmp_path / "made.py"
    again = run("types", "shop", "--type", "push", "--out", out, "-c", config)
    assert again.stdout == ""
    assert out.read_text().splitlines()[1:] == result.stdout.splitlines()[1:]


def test_forms_count_and_what_is_no_payload_does_not(spool, run, tmp_path):
    spool(b"name=x&size=3", head=FORM, event_type="form")
    spool(b"no json", event_type="text")
    result = run("types", "shop", "-c", tmp_path / "fasthook.toml")
    assert (
        "class Form(msgspec.Struct, kw_only=True):\n    name: str\n    size: str\n" in result.stdout
    )
    assert "1 events of 1 types" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("types", "shop"), 1, "no event of shop"),
        (("types", "shop", "--type", "x y"), 1, "no event of shop of type 'x y'"),
        (("types", "ship"), 2, "'ship'; nothing of it is in the spool"),
        (("drift", "ship"), 2, "'ship'; nothing of it is in the spool"),
        (("types", "shop", "--json"), 2, "expected no --json"),
    ],
)
def test_what_is_not_there_is_said(spool, run, tmp_path, arguments, code, said):
    spool()
    result = run(*arguments, "-c", tmp_path / "fasthook.toml")
    assert result.exit_code == code
    assert said in result.stderr


def test_drift_names_the_first_event_that_has_a_change(spool, run, tmp_path):
    positions = spool(*[{"n": 1}] * 6, *[{"n": "1", "more": []}] * 3)
    config = tmp_path / "fasthook.toml"
    result = run("drift", "shop", "--least", "5", "--json", "-c", config)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(x["change"], x["where"], x["was"], x["is"]) for x in lines] == [
        ("changed", "n", "integer", "string"),
        ("appeared", "more", "", "array"),
    ]
    shown = json.loads(run("show", lines[0]["event"], "--json", "-c", config).stdout)
    assert shown["id"] == "push-6"
    assert len(positions) == 9
    assert "more" in run("drift", "shop", "--least", "5", "-c", config).stdout
    assert "0 changes in 9 events" in run("drift", "shop", "-c", config).stderr


ALERTS = '[alerts]\ninterval = "1s"\n'
LOOKS_S = 1.6  # a look, and the lag of the index


@pytest.mark.parametrize("is_on", [True, False])
def test_a_running_service_warns_once_of_each_change_and_quotes_nothing(
    tmp_path, serve, run, is_on
):
    hooks = Hooks(tmp_path, serve, run)
    more = "" if is_on else "drift = false\n"
    serving = hooks.serve(shop(more='mode = "observe"'), more=ALERTS + more)
    for n in range(22):
        assert post(serving, f"old {n}", {"n": 1, "state": "open"}) == 202
    time.sleep(LOOKS_S)
    for n in range(22):
        assert post(serving, f"forged {n}", {"forged": 1}, is_genuine=False) == 202
    for n in range(3):
        assert post(serving, f"new {n}", {"n": "a-secret", "state": "merged"}) == 202
    said = json.loads(serving.line_with("payloads changed")) if is_on else None
    time.sleep(LOOKS_S)
    if said is not None:
        assert (said["endpoint"], said["type"], said["change"]) == ("shop", "push", "changed")
        kinds = (said["where"], said["was"], said["now"], said["after"])
        assert kinds == ("n", "integer", "string", 22)
        assert said["event"] == hooks.rows("events", "--id", "new 0")[0]["name"]
    assert serving.stop() == 0
    assert sum("payloads changed" in line for line in serving.lines) == is_on
    assert not any("a-secret" in line for line in serving.lines)
