"""`fasthook pair` with real services: handshake, event, start, event; and nothing shows a secret."""

import hmac
import json
import os
import queue
import signal
import stat
import subprocess
import threading
import urllib.error
import urllib.request

import pytest

from fasthook.spool import secrets
from fasthook.spool.lock import lock
from tests.cli.conftest import COMMAND, WAIT_S, configuration, endpoint

ASANA = "b537207f20cbfa02357cf448134da559e8bd39d61597dcd5631b8012eae53e81"
NOTION = "secret_0FhTt9sWb2hZK1f6yYx7Yq3uQ0cJ5mN8aE4dR2gH1iL"
HANDED = {"asana": ASANA, "notion": NOTION}
NO_SECRETS = "secrets = []\nkeep_rejected = true"
CONFIGURATION = configuration(
    endpoint("asana", more=NO_SECRETS), endpoint("notion", more=NO_SECRETS), endpoint("github")
)


def post(serving, name: str, body: bytes, **headers: str):
    """Status, headers and body of the answer."""
    fields = {"Content-Type": "application/json"}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"{serving.url}/{name}", body, fields, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def hand_over(serving, name: str, secret: str = "") -> int:
    """The sender's handshake; the answer's status."""
    secret = secret or HANDED[name]
    if name == "asana":
        status, headers, _ = post(serving, name, b"", X_Hook_Secret=secret)
        assert headers.get("X-Hook-Secret") == (secret if status == 200 else None)
        return status
    return post(serving, name, json.dumps({"verification_token": secret}).encode())[0]


def send_event(serving, name: str, secret: str = "") -> int:
    """A signed event of the sender's; the answer's status."""
    body = b'{"id":"%b","type":"t","events":[{"action":"added"}]}' % os.urandom(4).hex().encode()
    mac = hmac.digest((secret or HANDED[name]).encode(), body, "sha256").hex()
    if name == "asana":
        return post(serving, name, body, X_Hook_Signature=mac)[0]
    return post(serving, name, body, X_Notion_Signature=f"sha256={mac}")[0]


class Pairing:
    """A `fasthook pair` that runs."""

    def __init__(self, config, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "pair", *arguments, "-c", str(config)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.out = ""

    def _read(self) -> None:
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def wait_for(self, words: str) -> None:
        while words not in self.out:
            line = self._lines.get(timeout=WAIT_S)
            assert line, (self.out, self.process.stderr.read())
            self.out += line

    def end(self) -> int:
        """The exit code; `out` and `err` have all that it said."""
        code = self.process.wait(WAIT_S)
        self._reader.join(WAIT_S)
        while line := self._lines.get(timeout=WAIT_S):
            self.out += line
        self.err = self.process.stderr.read()
        self.process.stdout.close()
        self.process.stderr.close()
        assert_unseen(self.out, self.err)
        assert "Traceback" not in self.err
        return code


def assert_unseen(*texts: str) -> None:
    for secret in HANDED.values():
        for text in texts:
            assert secret not in text


@pytest.fixture
def pair(tmp_path):
    started: list[Pairing] = []

    def start(*arguments: str) -> Pairing:
        started.append(Pairing(tmp_path / "fasthook.toml", *arguments))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
        if not each.process.stdout.closed:
            each.end()


@pytest.fixture
def ask(run, tmp_path):
    """A command in this process."""

    def ask(*arguments, code: int = 0):
        result = run(*arguments, "-c", tmp_path / "fasthook.toml")
        assert result.exit_code == code, (result.stdout, result.stderr)
        assert "Traceback" not in result.stderr
        assert_unseen(result.stdout, result.stderr)
        return result

    return ask


def bytes_of(spool) -> bytes:
    """Everything that the spool's files hold, without what was handed over."""
    files = [path for path in spool.rglob("*") if path.is_file()]
    return b"".join(path.read_bytes() for path in files if secrets.FOLDER not in path.parts)


# --- the whole flow -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["asana", "notion"])
def test_a_secret_is_handed_over_used_and_there_after_a_start(name, serve, pair, ask, tmp_path):
    serving = serve(CONFIGURATION)
    line = serving.line_with("rejected") if hand_over(serving, name) == 401 else ""
    assert f"`fasthook pair {name}` waits" in line
    assert send_event(serving, name) == 401

    pairing = pair(name, "--for", "1m")
    pairing.wait_for("At the sender: ")
    assert send_event(serving, name) == 401
    assert hand_over(serving, name) == 200
    assert pairing.end() == 0
    assert f"paired: {name} has the secret that 127.0.0.1 handed over" in pairing.out
    (file,) = (tmp_path / "var" / secrets.FOLDER / name).iterdir()
    assert file.read_text() == HANDED[name]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (str(file) in pairing.out) == (name == "notion")  # who has to enter it at the sender

    assert send_event(serving, name) // 100 == 2
    assert hand_over(serving, name) == 401
    assert hand_over(serving, name, HANDED[name][::-1]) == 401
    serving.process.kill()
    serving.end()

    again = serve(CONFIGURATION)
    assert send_event(again, name) // 100 == 2
    assert hand_over(again, name) == 401
    assert again.stop() == 0
    assert not [line for line in again.lines if "left behind" in line]
    assert_unseen(*serving.lines, *again.lines)
    everything = bytes_of(tmp_path / "var")
    assert HANDED[name].encode() not in everything
    assert b"POST /" in everything  # as it has what it keeps of refused requests
    for command in (["rejects"], ["rejects", "1"], ["events"], ["check"], ["spool", "export"]):
        ask(*command)


def test_what_was_answered_2xx_is_there_after_a_kill(serve, pair, ask):
    """At once: nothing is left to be written."""
    serving = serve(CONFIGURATION)
    pairing = pair("asana")
    pairing.wait_for("waits")
    assert hand_over(serving, "asana") == 200
    serving.process.kill()
    serving.end()
    assert pairing.end() in (0, 2)
    rows = [json.loads(line) for line in ask("pair", "--list", "--json").stdout.splitlines()]
    assert [row["endpoint"] for row in rows] == ["asana"]
    assert send_event(serve(CONFIGURATION), "asana") == 200


def test_metrics_and_explanations_show_no_secret(serve, pair, ask, tmp_path, run):
    serving = serve(CONFIGURATION)
    pairing = pair("asana")
    pairing.wait_for("waits")
    assert hand_over(serving, "asana") == 200
    assert pairing.end() == 0
    with urllib.request.urlopen(serving.admin + "/metrics", timeout=WAIT_S) as answer:
        assert_unseen(answer.read().decode())
    captured = tmp_path / "captured"
    body = '{"events":[]}'
    for secret, code in ((ASANA, 0), ("another-secret-of-nobody", 1)):
        mac = hmac.digest(secret.encode(), body.encode(), "sha256").hex()
        captured.write_text(f"POST /asana HTTP/1.1\r\nX-Hook-Signature: {mac}\r\n\r\n{body}")
        ask("explain", captured, "--endpoint", "asana", code=code)


# --- how it ends ----------------------------------------------------------------------------------


def test_when_the_time_is_over_it_is_exit_code_1(serve, pair):
    serving = serve(CONFIGURATION)
    pairing = pair("asana", "--for", "300ms")
    assert pairing.end() == 1
    assert pairing.err.endswith("not paired: no secret was handed over\n")
    assert hand_over(serving, "asana") == 401


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_operator_who_gives_up_ends_the_state(number, serve, pair):
    serving = serve(CONFIGURATION)
    pairing = pair("asana")
    pairing.wait_for("At the sender")
    pairing.process.send_signal(number)
    assert pairing.end() == 1
    assert "not paired" in pairing.err
    assert hand_over(serving, "asana") == 401


def test_two_operators_pair_one_endpoint_once(serve, pair):
    serving = serve(CONFIGURATION)
    first = pair("asana")
    first.wait_for("At the sender")
    second = pair("asana")
    second.wait_for("At the sender")
    assert hand_over(serving, "asana") == 200
    assert hand_over(serving, "asana") == 401
    assert (first.end(), second.end()) == (0, 0)


def test_who_was_killed_while_waiting_is_in_nobodys_way(serve, pair):
    serving = serve(CONFIGURATION)
    first = pair("asana")
    first.wait_for("At the sender")
    first.process.kill()
    first.end()
    second = pair("asana", "--for", "300ms")
    assert second.end() == 1
    assert hand_over(serving, "asana") == 401


def test_a_service_that_ends_meanwhile_is_said(serve, pair):
    serving = serve(CONFIGURATION)
    pairing = pair("asana")
    pairing.wait_for("At the sender")
    assert serving.stop() == 0
    assert pairing.end() == 2
    assert "no service takes orders there" in pairing.err


def test_a_disk_that_fails_is_said(serve, pair, tmp_path):
    serving = serve(CONFIGURATION)
    (tmp_path / "var" / secrets.FOLDER).write_text("in the way")
    pairing = pair("asana", "--for", "2s")
    pairing.wait_for("At the sender")
    assert hand_over(serving, "asana") == 503
    assert pairing.end() == 1
    assert "the last one could not be kept: " in pairing.err
    assert hand_over(serving, "asana") == 401


# --- what can't be paired -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "more", "expected"),
    [
        (["nobody"], "", "no endpoint 'nobody'; it has: asana, notion, github"),
        (["github"], "", "github: github hands over no secret; it is entered in the configuration"),
        (["github"], "", "(asana, notion hand one over)"),
        (
            ["asana"],
            '[spool]\ndurability = "none"\n',
            'spool.durability is "none", so that a secret',
        ),
        (["asana"], "", "no service takes orders there: start it with `fasthook serve`, then pair"),
        (["asana", "--for", "0s"], "", "expected more than nothing, and a day at the most"),
        (["asana", "--for", "2d"], "", "expected more than nothing, and a day at the most"),
        (["asana", "--for", "soon"], "", "'soon'; expected a time such as"),
        ([], "", "ENDPOINT or --list must be given"),
        (["--list", "github"], "", "github hands over no secret"),
    ],
)
def test_what_cannot_be_is_said_clearly(arguments, more, expected, write, ask):
    write(CONFIGURATION + more)
    assert expected in ask("pair", *arguments, code=2).stderr


def test_a_service_with_another_configuration_is_said(serve, write, ask):
    serve(configuration(endpoint("github")))
    write(CONFIGURATION)
    stderr = ask("pair", "asana", code=2).stderr
    assert "the service has no endpoint 'asana' that can be paired: it runs with another" in stderr


# --- what is kept ---------------------------------------------------------------------------------


def test_what_is_kept_is_listed_and_removed(serve, pair, ask):
    serving = serve(CONFIGURATION)
    assert "none: not paired" in ask("pair", "--list").stdout
    for secret in (ASANA, ASANA[::-1]):
        pairing = pair("asana")
        pairing.wait_for("waits")
        assert hand_over(serving, "asana", secret) == 200
        assert pairing.end() == 0
    rows = [json.loads(line) for line in ask("pair", "--list", "--json").stdout.splitlines()]
    assert [(row["endpoint"], row["provider"]) for row in rows] == [("asana", "asana")] * 2
    first, second = (row["secret"] for row in rows)
    table = ask("pair", "--list", "asana").stdout
    assert first in table
    assert second in table
    assert "notion" not in table
    assert f"paired:{first}, paired:{second}" in ask("check").stdout

    assert ask("pair", "asana", "--forget", first).stdout == "1 secret of asana removed\n"
    assert send_event(serving, "asana", ASANA) == 401
    assert send_event(serving, "asana", ASANA[::-1]) == 200
    assert "asana has no such secret" in ask("pair", "asana", "--forget", first, code=1).stderr
    assert serving.stop() == 0
    assert not [line for line in serving.lines if "left behind" in line]

    assert ask("pair", "asana", "--forget", "all").stdout == "1 secret of asana removed\n"
    assert send_event(serve(CONFIGURATION), "asana", ASANA[::-1]) == 401


def test_nothing_is_removed_behind_a_command_that_holds_the_spool(serve, ask, tmp_path):
    assert serve(CONFIGURATION).stop() == 0
    secrets.keep(tmp_path / "var", "asana", ASANA.encode())
    fd = lock(tmp_path / "var")
    try:
        stderr = ask("pair", "asana", "--forget", "all", code=2).stderr
    finally:
        os.close(fd)
    assert f"is in use by another fasthook (process {os.getpid()})" in stderr
    assert ask("pair", "asana", "--forget", "all").exit_code == 0


def test_where_nothing_was_ever_kept_nothing_is_removed(write, ask, tmp_path):
    write(CONFIGURATION)
    assert "no such secret" in ask("pair", "asana", "--forget", "all", code=1).stderr
    assert not (tmp_path / "var").exists()


def test_a_file_that_others_can_read_stops_the_start(serve, ask, tmp_path, run_process):
    assert serve(CONFIGURATION).stop() == 0
    name, _ = secrets.keep(tmp_path / "var", "asana", ASANA.encode())
    path = tmp_path / "var" / secrets.FOLDER / "asana" / name
    path.chmod(0o640)
    for command in (["check"], ["pair", "--list"]):
        stderr = ask(*command, code=2).stderr
        assert f"{path}: its permissions are 0640; expected 0600" in stderr
    result = run_process("serve", "-c", tmp_path / "fasthook.toml")
    assert result.returncode == 2
    assert f"{path}: its permissions are 0640; expected 0600" in result.stderr
    path.chmod(0o600)
    assert send_event(serve(CONFIGURATION), "asana") == 200


def test_an_endpoint_without_a_secret_is_warned_of_and_nothing_can_be_sent(write, ask):
    write(CONFIGURATION)
    warnings = ask("check").stderr
    assert 'endpoint "asana": it has no secret yet' in warnings
    assert "start the service, then `fasthook pair notion`" in warnings
    stderr = ask("send", "asana", code=2).stderr
    assert "asana has no secret yet; `fasthook pair asana` takes one, or give --secret" in stderr


@pytest.mark.parametrize("name", ["asana", "notion"])
def test_a_provider_says_how_to_pair(name, run):
    out = run("providers", name).stdout
    assert f"hands over the secret: `fasthook pair {name}` takes it" in out
    assert "# no secrets: `fasthook pair` takes the one" in out
