"""`rejects` and `spool` on real spools, and all reading commands beside a running service."""

import json
import stat
import subprocess
import time
import urllib.error
import urllib.request

import pytest

from fasthook.spool.journal import name_of
from fasthook.spool.rejects import Reject, Rejects
from tests.cli.conftest import COMMAND, WAIT_S, configuration, endpoint
from tests.spool.filled import delivery, fill, outcome


@pytest.fixture
def config(write):
    return write(
        configuration(endpoint("shop", provider="github"), endpoint("site", provider="none"))
    )


@pytest.fixture
def spool(config):
    """Three events; their positions by id."""
    return fill(
        config.parent / "var",
        delivery("a", body=b"AAAA"),
        delivery("b", endpoint="site", body=b"BBBB"),
        delivery("c", body=b"CCCC"),
        outcomes={"a": [outcome("done at once")]},
    )


def lines(result):
    return [json.loads(line) for line in result.stdout.splitlines()]


# --- rejects --------------------------------------------------------------------------------------


@pytest.fixture
def rejects(config, spool):
    ring = Rejects(config.parent / "var/rejects.db")
    head = b"POST /x HTTP/1.1\r\nHost: a\r\nX-Hub-Signature: c0ffee\r\n\r\n"
    for i in range(5):
        kept = (head, b'{"n":1}') if i == 3 else (None, None)
        name = "site" if i == 1 else "shop"
        ring.add(
            Reject(10**18 + i, 401, "192.0.2.9", name, "POST", f"/\x1b{i}", f"no\x9b {i}", *kept)
        )
    ring.close()


@pytest.mark.usefixtures("rejects")
def test_refused_requests_are_listed_newest_first_and_in_pages(run, config):
    everything = lines(run("rejects", "-c", config, "--json"))
    assert [r["id"] for r in everything] == [5, 4, 3, 2, 1]
    assert everything[0]["reason"] == "no\x9b 4"
    assert [
        r["id"] for r in lines(run("rejects", "-c", config, "--json", "--endpoint", "site"))
    ] == [2]
    page = run("rejects", "-c", config, "--limit", 2)
    assert "older ones: the same with --before 4" in page.stderr
    assert [r["id"] for r in lines(run("rejects", "-c", config, "--json", "--before", 4))] == [
        3,
        2,
        1,
    ]


@pytest.mark.usefixtures("rejects")
def test_one_refused_request_is_shown_with_what_was_kept_but_no_signature(run, config):
    shown = run("rejects", 4, "-c", config)
    assert shown.exit_code == 0
    assert "X-Hub-Signature: …\n" in shown.stdout
    assert '"n": 1' in shown.stdout
    assert "c0ffee" not in shown.stdout
    assert not {"\x1b", "\x9b"} & set(shown.stdout)
    (value,) = lines(run("rejects", 4, "-c", config, "--json"))
    assert (value["body"], value["headers"]) == ('{"n":1}', {"host": "a"})
    (value,) = lines(run("rejects", 5, "-c", config, "--json"))
    assert not value["is_kept"]


@pytest.mark.parametrize(("which", "code"), [("77", 1), ("0", 2), ("x", 2), (str(2**70), 2)])
@pytest.mark.usefixtures("rejects")
def test_a_number_that_is_not_there_is_said(which, code, run, config):
    result = run("rejects", which, "-c", config)
    assert (result.exit_code, result.stdout) == (code, "")


# --- spool stat -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("spool")
def test_stat_says_how_a_spool_stands_while_nothing_runs(run, config):
    out = run("spool", "stat", "-c", config).stdout
    assert "none runs" in out
    assert str(config.parent / "var") in out
    (value,) = lines(run("spool", "stat", "-c", config, "--json"))
    assert value["holder"] is None
    assert (value["counts"]["pending"], value["counts"]["done"]) == (2, 1)
    assert (value["segments"], value["behind_bytes"]) == (1, 0)
    assert value["limit_bytes"] == 10 * 1024**3
    assert value["oldest_pending_s"] > 0


# --- spool verify ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("spool")
def test_a_whole_spool_is_exit_code_0(run, config):
    result = run("spool", "verify", "-c", config)
    assert result.exit_code == 0
    assert "3 accepted" in result.stdout
    assert result.stdout.endswith("all is well\n")


def test_damage_is_exit_code_1_with_its_place(run, config, spool):
    (segment,) = config.parent.glob("var/journal/0/*.seg")
    segment.write_bytes(segment.read_bytes().replace(b"BBBB", b"BBXB"))
    result = run("spool", "verify", "-c", config)
    assert result.exit_code == 1
    assert f"damaged {name_of(spool['b'])}: " in result.stdout
    assert f"lost {name_of(spool['b'])}: " in result.stdout
    *findings, last = lines(run("spool", "verify", "-c", config, "--json"))
    assert {(f["finding"], f["name"]) for f in findings} == {
        ("damaged", name_of(spool["b"])),
        ("lost", name_of(spool["b"])),
    }
    assert last["summary"]["findings"] == 2


# --- spool export ---------------------------------------------------------------------------------


def test_export_writes_all_that_matches_oldest_first(run, config, spool):
    values = lines(run("spool", "export", "-c", config))
    assert [(v["id"], v["body"]) for v in values] == [("a", "AAAA"), ("b", "BBBB"), ("c", "CCCC")]
    assert values[0] == {
        "name": name_of(spool["a"]),
        "endpoint": "shop",
        "type": "push",
        "id": "a",
        "received_at": "1970-01-01T00:16:40.000000Z",
        "state": "done",
        "provider": "none",
        "client": "192.0.2.1",
        "secret_index": 0,
        "kind": "event",
        "headers": {"host": "a", "x-two": "1, 2"},
        "body": "AAAA",
    }
    assert [v["id"] for v in lines(run("spool", "export", "-c", config, "--state", "pending"))] == [
        "b",
        "c",
    ]


@pytest.mark.usefixtures("spool")
def test_an_exported_file_is_for_its_owner_alone_and_whole_or_not_there(run, config, tmp_path):
    file = tmp_path / "out.jsonl"
    result = run("spool", "export", "-c", config, "--output", file)
    assert (result.exit_code, result.stdout) == (0, "")
    assert [json.loads(line)["id"] for line in file.read_text().splitlines()] == ["a", "b", "c"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not file.with_name("out.jsonl.part").exists()
    result = run("spool", "export", "-c", config, "--output", tmp_path / "no/where.jsonl")
    assert result.exit_code == 1
    assert "No such file or directory" in result.stderr


# --- beside a service -----------------------------------------------------------------------------


def post(url, body, **headers):
    request = urllib.request.Request(
        url, body, {"Content-Type": "application/json", **headers}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def once(fact):
    """What `fact` returns, once that is true: the index lags."""
    ends = time.monotonic() + WAIT_S
    while not (value := fact()):
        assert time.monotonic() < ends
    return value


def test_all_of_it_works_beside_a_running_service(serve, run, tmp_path):
    serving = serve(
        configuration(
            endpoint("open", provider="none"), endpoint("github", more="keep_rejected = true")
        )
    )
    config = tmp_path / "fasthook.toml"
    tail = subprocess.Popen(
        [*COMMAND, "tail", "-f", "--json", "-c", str(config)], stdout=subprocess.PIPE, text=True
    )
    try:
        for number in range(3):
            assert post(f"{serving.url}/open", b'{"n":%d}' % number) == 202
            assert tail.stdout is not None
            assert json.loads(tail.stdout.readline())["endpoint"] == "open"
    finally:
        tail.kill()
        tail.communicate()
    assert post(f"{serving.url}/github", b"{}", **{"X-Hub-Signature-256": "sha256=00"}) == 401
    once(lambda: len(lines(run("events", "-c", config, "--json", "--state", "done"))) == 3)
    newest = lines(run("events", "-c", config, "--json", "--limit", 1))[0]
    assert '"n": 2' in run("show", newest["name"], "-c", config).stdout
    assert "its only handler did it" in run("show", newest["id"], "-c", config).stdout
    (refused,) = once(lambda: lines(run("rejects", "-c", config, "--json")))
    assert "sha256=00" not in run("rejects", refused["id"], "-c", config).stdout
    (stands,) = lines(run("spool", "stat", "-c", config, "--json"))
    assert stands["holder"] == serving.process.pid
    assert run("spool", "verify", "-c", config).exit_code == 0
    assert len(lines(run("spool", "export", "-c", config))) == 3
    assert serving.stop() == 0
    assert len(lines(run("events", "-c", config, "--json"))) == 3
    assert run("spool", "verify", "-c", config).exit_code == 0


def test_verify_finds_nothing_in_a_journal_that_is_written_and_pruned_meanwhile(
    serve, run, tmp_path
):
    serving = serve(configuration(endpoint("github")) + "[spool]\nmax_bytes = 200_000\n")
    config, url = tmp_path / "fasthook.toml", f"{serving.url}/github"
    sending = [*COMMAND, "send", "github", "-c", str(config), "--url", url, "--count", "600", "-q"]
    sender = subprocess.Popen(sending, stdout=subprocess.PIPE, text=True)
    segments = []
    while sender.poll() is None:
        result = run("spool", "verify", "-c", config, "--json")
        assert result.exit_code == 0, result.stdout
        segments.append(lines(result)[-1]["summary"]["segments"])
    answers, _ = sender.communicate()
    assert " × 202" in answers
    assert max(segments) > 3
    assert serving.stop() == 0
    assert run("spool", "verify", "-c", config).exit_code == 0
