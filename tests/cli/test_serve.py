"""`fasthook serve` starts whole or not at all, says what happens, and drains when told to stop."""

import json
import os
import re
import signal
import socket
import time
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.cli.conftest import WAIT_S, configuration, endpoint

#: Tells by a file that it runs, and then runs until somebody writes into the pipe.
SLOW = """
[handlers.exec]
command = ["/bin/sh", "-c", "touch {0}/started; read line < {0}/pipe"]
"""

IN_MEMORY = """
[spool]
durability = "none"
"""


def wait_for(path):
    """Until the file is there."""
    ends = time.monotonic() + WAIT_S
    while not path.exists():
        assert time.monotonic() < ends, f"{path} never came"
        time.sleep(0.01)


@pytest.fixture
def busy(serve, run, tmp_path):
    """A service that handles an event; `release()` lets the handler end."""
    os.mkfifo(tmp_path / "pipe")
    serving = serve(
        configuration(endpoint("github", more='handlers = ["exec"]')) + SLOW.format(tmp_path)
    )
    config = tmp_path / "fasthook.toml"
    assert run("send", "github", "-c", config, "--url", serving.url + "/github").exit_code == 0
    wait_for(tmp_path / "started")

    def release():
        (tmp_path / "pipe").write_text("go\n")

    return serving, release


# --- start ----------------------------------------------------------------------------------------


def test_a_bad_configuration_is_one_line_and_exit_code_2(run_process, write):
    path = write(configuration(endpoint("github")) + "\nnope = 1\n")
    result = run_process("serve", "-c", path)

    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f'error: {path}: endpoint[0] ("github").nope: unknown key')
    assert result.stderr.count("\n") == 1


def test_a_missing_configuration_is_exit_code_2(run_process, tmp_path):
    result = run_process("serve", cwd=tmp_path)

    assert result.returncode == 2
    assert result.stderr == "error: fasthook.toml: No such file or directory\n"


@pytest.mark.parametrize("key", ["server", "admin"])
def test_an_address_in_use_is_exit_code_2(key, run_process, write):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        old = (
            'listen = ["tcp://127.0.0.1:0"]' if key == "server" else 'listen = "tcp://127.0.0.1:0"'
        )
        text = configuration(endpoint("github"), form="text")
        assert old in text
        result = run_process("serve", "-c", write(text.replace(old, old.replace(":0", f":{port}"))))

    assert result.returncode == 2
    assert (
        f"listen: can't listen on tcp://127.0.0.1:{port}: Address already in use" in result.stderr
    )
    assert "Traceback" not in result.stderr


def test_warnings_and_the_start_are_said(serve):
    serving = serve(configuration(endpoint("open", provider="none")) + IN_MEMORY)
    assert serving.stop() == 0

    records = [json.loads(line) for line in serving.lines]
    said = [r["warning"] for r in records if r["message"] == "check"]
    assert any("anybody who knows the path" in text for text in said)
    assert any("events are lost" in text for text in said)
    start = next(r for r in records if r["message"] == "starting")
    assert start["pid"] == serving.process.pid


# --- what is said ---------------------------------------------------------------------------------


def exchange(serving, run, tmp_path):
    """One genuine event and one forged."""
    send = ["send", "github", "-c", tmp_path / "fasthook.toml", "--url", serving.url + "/github"]
    assert run(*send, "--id", "event-1").exit_code == 0
    done = serving.line_with("done")
    assert run(*send, "--id", "event-2", "--tamper", "signature").exit_code == 1
    rejected = serving.line_with("rejected")
    accepted = next(line for line in serving.lines if "accepted" in line)
    return accepted, done, rejected


def test_what_happens_is_said_as_json(serve, run, tmp_path):
    serving = serve(configuration(endpoint("github")))
    accepted, done, rejected = map(json.loads, exchange(serving, run, tmp_path))

    assert accepted["level"] == done["level"] == "info"
    assert accepted["endpoint"] == done["endpoint"] == rejected["endpoint"] == "github"
    assert (accepted["type"], accepted["id"], accepted["secret"]) == ("push", "event-1", 0)
    assert (done["handler"], done["id"], done["attempt"]) == ("log", "event-1", 1)
    assert (rejected["level"], rejected["status"]) == ("warning", 401)
    assert (rejected["method"], rejected["path"]) == ("POST", "/github")
    assert rejected["client"] == "127.0.0.1"
    assert serving.stop() == 0
    assert all(json.loads(line)["message"] for line in serving.lines)


def test_what_happens_is_said_as_text(serve, run, tmp_path):
    serving = serve(configuration(endpoint("github"), form="text"))
    accepted, done, rejected = exchange(serving, run, tmp_path)

    clock = r"\d\d:\d\d:\d\d\.\d{3}"
    assert re.fullmatch(
        rf"{clock} info    accepted     endpoint=github provider=github type=push id=event-1 .*\n",
        accepted,
    )
    assert re.fullmatch(rf"{clock} info    done +handler=log .*id=event-1 attempt=1 .*\n", done)
    assert re.fullmatch(rf"{clock} warning rejected +status=401 reason=.*path=/github\n", rejected)
    assert serving.stop() == 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("requests = false", {"done"}),
        ("attempts = false", {"accepted"}),
        ("requests = false\nattempts = false", set()),
        ("", {"accepted", "done"}),
    ],
)
def test_lines_of_requests_and_attempts_can_be_left_out(serve, run, tmp_path, settings, said):
    text = configuration(endpoint("github")).replace("[log]", f"[log]\n{settings}")
    serving = serve(text)
    send = ["send", "github", "-c", tmp_path / "fasthook.toml", "--url", serving.url + "/github"]
    assert run(*send).exit_code == 0
    serving.line_with('"event"')  # the handler's own
    assert serving.stop() == 0

    messages = [json.loads(line)["message"] for line in serving.lines]
    assert {"accepted", "done"} & set(messages) == said


def test_what_was_handled_is_measured(serve, run, tmp_path):
    serving = serve(configuration(endpoint("github")))
    exchange(serving, run, tmp_path)
    with urllib.request.urlopen(serving.admin + "/metrics", timeout=WAIT_S) as response:
        text = response.read().decode()
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found["fasthook_requests_total", "github", "401"] == 1
    assert found["fasthook_attempts_total", "log", "done"] == 1
    assert serving.admin_status("/readyz") == serving.admin_status("/healthz") == 200
    assert serving.admin_status("/github") == 404


# --- the end --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_an_idle_service_at_once(number, serve):
    serving = serve(configuration(endpoint("github")))
    serving.process.send_signal(number)

    assert serving.end() == 0
    messages = [json.loads(line)["message"] for line in serving.lines]
    assert messages[-2:] == ["draining", "stopped"]


def test_what_runs_is_finished_before_the_end(busy):
    serving, release = busy
    serving.process.send_signal(signal.SIGTERM)
    draining = json.loads(serving.line_with("draining"))
    assert draining["events"] == 1
    assert serving.admin_status("/readyz") == 503
    assert serving.admin_status("/healthz") == 200
    assert serving.process.poll() is None

    release()
    assert serving.end() == 0
    records = [json.loads(line) for line in serving.lines]
    assert [r["message"] for r in records][-2:] == ["done", "stopped"]
    assert records[-1]["events_lost"] == 0


def test_a_second_signal_ends_it_at_once(busy):
    serving, release = busy
    serving.process.send_signal(signal.SIGTERM)
    serving.line_with("draining")
    serving.process.send_signal(signal.SIGTERM)

    assert serving.process.wait(WAIT_S) == 1
    release()  # what the handler started outlives us
    assert serving.end() == 1
    assert "killed" in serving.lines[-1]


@pytest.fixture
def hasty(serve, run, tmp_path):
    """Start a service that handles an event and has little time to drain; `more` configuration."""
    os.mkfifo(tmp_path / "pipe")

    def hasty(more=""):
        text = configuration(
            endpoint("github", more='handlers = ["exec"]'), server='drain_timeout = "100ms"'
        )
        serving = serve(text + SLOW.format(tmp_path) + more)
        config = tmp_path / "fasthook.toml"
        assert run("send", "github", "-c", config, "--url", serving.url + "/github").exit_code == 0
        wait_for(tmp_path / "started")
        return serving

    return hasty


def test_what_is_not_done_in_time_is_lost_and_said(hasty):
    serving = hasty(IN_MEMORY)

    assert serving.stop() == 0
    last = json.loads(serving.lines[-1])
    assert (last["message"], last["level"], last["events_lost"]) == ("stopped", "warning", 1)


def test_what_is_not_done_in_time_is_begun_again_by_the_next_start(hasty, serve, tmp_path):
    serving = hasty()

    assert serving.stop() == 0
    last = json.loads(serving.lines[-1])
    assert (last["message"], last["level"], last["events_lost"]) == ("stopped", "info", 0)

    (tmp_path / "started").unlink()
    again = serve((tmp_path / "fasthook.toml").read_text())
    wait_for(tmp_path / "started")
    (tmp_path / "pipe").write_text("go\n")
    done = json.loads(again.line_with('"done"'))
    assert (done["handler"], done["attempt"]) == ("exec", 1)
    assert again.stop() == 0
