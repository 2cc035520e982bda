"""`events`, `show`, `tail` and `dead` say what a spool holds, to people and to programs."""

import json
import re
import signal
import subprocess
from datetime import datetime, timedelta

import pytest

from fasthook.spool.changes import State
from fasthook.spool.journal import name_of
from tests.cli.conftest import COMMAND, ENVIRONMENT, SECRETS, WAIT_S, configuration, endpoint
from tests.spool.filled import delivery, fill, outcome

#: A title bar, colours, a C1 introducer, a mark that turns the line around.
EVIL = "\x1b]0;x\x07\x1b[31m\x9b2J\u202e"


@pytest.fixture
def config(write):
    return write(
        configuration(endpoint("shop", provider="github"), endpoint("site", provider="none"))
    )


@pytest.fixture
def spool(config):
    """Five events; their names by id."""
    outcomes = {
        "a": [outcome("done at once")],
        "c": [outcome("retry", error="first"), outcome("dead", attempt=2, error="last " + EVIL)],
        "d": [outcome("retry", due_ns=2**62, error="soon")],
    }
    stored = [delivery(name, at_s=1_700_000_000 + 60 * i) for i, name in enumerate("abcd")]
    stored.append(delivery("e", at_s=1_700_000_400, endpoint="site", kind="ignored"))
    positions = fill(config.parent / "var", *stored, outcomes=outcomes)
    return {event_id: name_of(position) for event_id, position in positions.items()}


@pytest.fixture
def run_json(run, config):
    """What a command says to programs."""

    def run_json(*arguments):
        result = run(*arguments, "-c", config, "--json")
        assert result.exit_code == 0, result.stderr
        return [json.loads(line) for line in result.stdout.splitlines()]

    return run_json


def ids(values):
    return "".join(value["id"] for value in values)


# --- events ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "edcba"),
        (["--endpoint", "site"], "e"),
        (["--type", "push"], "edcba"),
        (["--type", "tag"], ""),
        (["--id", "b"], "b"),
        (["--state", "pending"], "db"),
        (["--state", "dead", "--state", "done"], "ca"),
        (["--since", "2023-11-14T22:15:20+00:00"], "edc"),
        (["--until", "2023-11-14T22:15:20Z"], "ba"),
        (["--since", "1h"], ""),
        (["--until", "7d"], "edcba"),
        (["--since", "2023-11-13", "--until", "2023-11-17"], "edcba"),
        (["--since", "999999999999999w"], "edcba"),
        (["--until", "9999-01-01"], "edcba"),
        (["--limit", "2"], "ed"),
    ],
)
@pytest.mark.usefixtures("spool")
def test_events_are_listed_newest_first_by_what_is_wanted(options, expected, run_json):
    assert ids(run_json("events", *options)) == expected


@pytest.mark.usefixtures("spool")
def test_a_time_without_a_zone_is_local(run_json):
    at = datetime.fromtimestamp(1_700_000_120)
    assert ids(run_json("events", "--since", at.isoformat())) == "edc"
    assert ids(run_json("events", "--since", (at + timedelta(seconds=1)).isoformat(" "))) == "ed"


def test_an_event_for_programs_has_name_endpoint_type_id_time_and_state(spool, run_json):
    assert run_json("events", "--id", "a") == [
        {
            "name": spool["a"],
            "endpoint": "shop",
            "type": "push",
            "id": "a",
            "received_at": "2023-11-14T22:13:20.000000Z",
            "state": "done",
        }
    ]


def test_a_page_says_how_to_get_the_next_one(spool, run, config):
    seen, more = "", ""
    while True:
        result = run("events", "-c", config, "--limit", 2, *more.split())
        seen += "".join(re.findall(r"push  (\w)", result.stdout))
        if "older ones" not in result.stderr:
            break
        more = result.stderr.partition("the same with ")[2]
    assert seen == "edcba"
    assert more.split() == ["--before", spool["b"]]


def test_for_people_it_is_a_table(spool, run, config):
    head, first, *_ = run("events", "-c", config).stdout.splitlines()
    assert head.split() == ["received", "name", "endpoint", "type", "id", "state"]
    assert first.split()[2:] == [spool["e"], "site", "push", "e", "ignored"]


@pytest.mark.usefixtures("spool")
def test_where_nothing_matches_that_is_said_aside(run, config):
    result = run("events", "-c", config, "--id", "nobody", "--endpoint", "shop")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no event matches\n")


@pytest.mark.parametrize(
    ("options", "got", "expected"),
    [
        (["--since", "3x"], "'3x'", '"2h"'),
        (["--until", "yesterday"], "'yesterday'", '"2026-05-17T14:30"'),
        (["--since", "2026-13-01"], "'2026-13-01'", '"2h"'),
        (["--since", "1h", "--until", "2h"], "--since", "before --until"),
        (["--state", "lost"], "'lost'", "'pending'"),
        (["--state", "waiting"], "'waiting'", "'pending'"),
        (["--before", "12"], "'12'", "0.1.16"),
        (["--limit", "0"], "0", "x>=1"),
        (["--endpoint", "shpo"], "'shpo'", "shop, site"),
    ],
)
@pytest.mark.usefixtures("spool")
def test_a_bad_filter_is_exit_code_2_with_what_was_got_and_expected(
    options, got, expected, run, config
):
    result = run("events", "-c", config, *options)
    assert result.exit_code == 2
    assert got in result.stderr
    assert expected in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "command",
    ["events", "show x", "tail", "dead", "rejects", "spool stat", "spool verify", "spool export"],
)
def test_without_a_spool_that_is_said_and_where_nothing_is_kept_too(command, run, write):
    path = write(configuration(endpoint("github")))
    result = run(*command.split(), "-c", path)
    assert result.exit_code == 2
    assert "no spool there" in result.stderr
    path = write(configuration(endpoint("github")) + '[spool]\ndurability = "none"\n')
    result = run(*command.split(), "-c", path)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "nothing is kept" in result.stderr


def test_an_operators_shell_needs_no_secrets(spool, run, config, monkeypatch):
    for name in SECRETS:
        monkeypatch.delenv(f"SECRET_{name.upper().replace('-', '_')}", raising=False)
    assert run("events", "-c", config).exit_code == 0
    assert run("show", spool["a"], "-c", config).exit_code == 0


def test_nothing_that_a_sender_chose_reaches_the_terminal(config, run):
    head = f"POST /{EVIL} HTTP/1.1\r\nX-{EVIL}: {EVIL}\r\n\r\n".encode()
    bodies = [EVIL.encode(), json.dumps(EVIL, ensure_ascii=False).encode(), b"\xff" + EVIL.encode()]
    bodies.append(b'{"a": "\xc2\x9b2J\xe2\x80\xae"}')
    stored = [
        delivery(f"{i}{EVIL}", event_type=EVIL, body=body, head=head)
        for i, body in enumerate(bodies)
    ]
    outcomes = {d.event_id: [outcome("dead", error=EVIL, handler="h")] for d in stored}
    positions = fill(config.parent / "var", *stored, outcomes=outcomes)
    commands = [["events"], ["dead"], ["tail"], ["spool", "export"], ["spool", "verify"]]
    commands += [["show", name_of(position)] for position in positions.values()]
    commands += [["show", f"x{EVIL}"]]
    for command in commands:
        for more in ([], ["--json"]) if command != ["spool", "export"] else ([],):
            result = run(*command, "-c", config, *more)
            shown = result.stdout + result.stderr
            assert all(char.isprintable() for char in shown.replace("\n", "")), command


# --- show -----------------------------------------------------------------------------------------


def test_all_about_an_event_is_shown_by_its_name_or_id(spool, run, config):
    shown = run("show", spool["c"], "-c", config).stdout
    assert run("show", "c", "-c", config).stdout == shown
    for text in ("endpoint  shop", "client    192.0.2.1", "secret    number 0", "state     dead"):
        assert text in shown
    assert "handler h: dead, 2 attempts" in shown
    assert "attempt 1, 1970-01-01" in shown
    assert "POST /h?x=1 HTTP/1.1\nHost: a\n" in shown
    assert "X-Two: 1\nX-Two: 2\n" in shown


def test_signatures_and_tokens_are_never_shown(config, run):
    names = ["X-Hub-Signature-256", "Authorization", "COOKIE", "X-Gitlab-Token", "X-My-Signature"]
    names += ["Stripe-Signature", "X-Auth-Key", "webhook-signature", "X-Own", "Proxy-Authorization"]
    head = "POST /h HTTP/1.1\r\n" + "".join(f"{name}: c0ffee\r\n" for name in names) + "\r\n"
    own = '[endpoint.scheme]\nheader = "X-Own"\n'
    text = configuration(endpoint("own", provider="custom", more='secrets = ["env:NOT_SET"]'))
    config.write_text(text + own)
    fill(config.parent / "var", delivery("a", endpoint="own", head=head.encode()))
    for command in (["show", "a"], ["show", "a", "--json"], ["spool", "export"]):
        result = run(*command, "-c", config)
        assert result.exit_code == 0, result.stderr
        assert "c0ffee" not in result.stdout
    assert [f"{name}: …" in run("show", "a", "-c", config).stdout for name in names] == [True] * 10


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (
            b'{"a":1.00,"b":123456789012345678901234567890}',
            '{\n  "a": 1.00,\n  "b": 12345678901234567890',
        ),
        (b"a=1&b=2", "a=1&b=2"),
        (b"two\r\nlines\n", "two\nlines\n"),
        (b"", ""),
        (b"[" * 5000 + b"]" * 5000, "[" * 5000 + "]" * 5000),
        (b"[" * 200 + b"]" * 200, "[" * 200 + "]" * 200),
    ],
)
def test_a_body_is_shown_readable_and_its_values_as_they_came(body, shown, config, run):
    fill(config.parent / "var", delivery("a", body=body))
    out = run("show", "a", "-c", config).stdout
    assert shown in out.partition("X-Two: 2\n\n")[2]


@pytest.mark.parametrize("body", [b'{ "a" :1}', b"\x00\xff\x1b[31m", b""])
def test_raw_is_the_body_byte_for_byte(body, config, run):
    fill(config.parent / "var", delivery("a", body=body))
    result = run("show", "a", "--raw", "-c", config)
    assert (result.exit_code, result.stdout_bytes) == (0, body)


def test_for_programs_it_is_one_object(spool, run_json):
    (shown,) = run_json("show", "c")
    assert (shown["name"], shown["state"], shown["body"]) == (spool["c"], "dead", "{}")
    assert shown["headers"] == {"host": "a", "x-two": "1, 2"}
    (handler,) = shown["handlers"]
    assert (handler["handler"], handler["state"], handler["attempts"]) == ("h", "dead", 2)
    assert [failure["attempt"] for failure in handler["failures"]] == [1, 2]
    (due,) = run_json("show", "d")
    assert due["due_at"].startswith("2116-")


def test_a_body_that_is_no_text_is_base64_for_programs(config, run_json):
    fill(config.parent / "var", delivery("a", body=b"\xff\x00"))
    assert run_json("show", "a")[0]["body_base64"] == "/wA="
    assert run_json("spool", "export")[0]["body_base64"] == "/wA="


def test_several_with_one_id_are_listed_and_exit_code_1(config, run):
    path = config.parent / "var"
    fill(path, delivery("same"), delivery("same", endpoint="site"))
    result = run("show", "same", "-c", config)
    assert result.exit_code == 1
    assert result.stdout.count("same") == 2
    assert "2 events have the id 'same'" in result.stderr


@pytest.mark.parametrize("which", ["nobody", "0.7.16", ""])
@pytest.mark.usefixtures("spool")
def test_one_that_is_not_there_is_exit_code_1(which, config, run):
    result = run("show", which, "-c", config)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: no event has the name or id")


def test_an_event_whose_segment_is_dropped_says_so(spool, config, run, run_json):
    next(config.parent.glob("var/journal/0/*.seg")).unlink()
    result = run("show", "c", "-c", config)
    assert result.exit_code == 0
    assert "handler h: dead" in result.stdout
    assert "head and body are gone" in result.stdout
    assert run_json("show", "c")[0]["missing"] == "gone"
    assert run("show", "c", "--raw", "-c", config).exit_code == 1


# --- dead -----------------------------------------------------------------------------------------


def test_dead_letters_say_handler_attempts_and_last_error(spool, run, run_json, config):
    (letter,) = run_json("dead")
    assert (letter["name"], letter["handler"], letter["attempts"]) == (spool["c"], "h", 2)
    assert letter["error"] == "last " + EVIL
    assert letter["died_at"] == "1970-01-01T00:00:05.000000Z"
    _, line = run("dead", "-c", config).stdout.splitlines()
    assert line.split()[2:8] == [spool["c"], "shop", "push", "c", "h", "2"]
    assert run_json("dead", "--endpoint", "site") == []


# --- tail -----------------------------------------------------------------------------------------


def test_tail_shows_the_last_ones_oldest_first(spool, run, config, run_json):
    lines = run("tail", "-n", 2, "-c", config).stdout.splitlines()
    assert [line.split()[2] for line in lines] == [spool["d"], spool["e"]]
    assert ids(run_json("tail")) == "abcde"
    assert ids(run_json("tail", "--endpoint", "shop", "--lines", 1)) == "d"
    assert run_json("tail", "-n", 0) == []


def test_tail_follows_a_spool_over_restarts_until_ctrl_c(spool, config):
    process = subprocess.Popen(
        [*COMMAND, "tail", "-f", "-n", "1", "--json", "--endpoint", "shop", "-c", str(config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["id"] == "d"
        for event_id in ("f", "g"):
            other = delivery(f"other {event_id}", endpoint="site")
            fill(config.parent / "var", other, delivery(event_id, at_s=1_700_001_000))
            assert json.loads(process.stdout.readline())["id"] == event_id
        for file in config.parent.glob("var/index.db*"):
            file.unlink()
        fill(config.parent / "var", delivery("h", at_s=1_700_002_000))  # which makes it again
        assert json.loads(process.stdout.readline())["id"] == "h"
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=WAIT_S)
        assert (process.returncode, out, error) == (0, "", "")
    finally:
        process.kill()
        process.communicate()


def test_every_state_of_a_delivery_can_be_asked_for(run, config, spool):
    for state in State:
        result = run("events", "--state", state.name.lower(), "-c", config)
        of_a_handler_alone = state in (State.WAITING, State.SKIPPED)
        assert result.exit_code == (2 if of_a_handler_alone else 0)
