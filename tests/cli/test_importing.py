"""`fasthook import`: what it writes decides as adnanh/webhook does, which runs beside it."""

import base64
import contextlib
import hmac
import http.client
import json
import os
import shutil
import socket
import stat
import subprocess
import time
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from fasthook.cli.importing.hooks import Argument, Match, Rule
from fasthook.cli.importing.rules import Trigger
from fasthook.conditions import Condition
from tests.cli.conftest import WAIT_S

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
SCRIPT = """#!/bin/sh
cd {folder}
line="$(for each in "$@"; do printf '<%s>' "$each"; done)"
line="$line ref=$HOOK_ref env=$EVENT_NAME"
if [ -n "$HOOK_BINARY" ]; then line="$line file=$(cat "$HOOK_BINARY")"; fi
echo "$line" >> ran
"""


def match(kind: str, name: str = "", value: str = "", source: str = "payload", **more: str) -> dict:
    field = "regex" if kind == "regex" else "secret" if kind.startswith("payload-") else "value"
    made = {"type": kind, field: value, "parameter": {"source": source, "name": name}}
    return {"match": made | more}


def at(name: str, source: str = "payload", **more: Any) -> dict:
    return {"source": source, "name": name} | more


def signed(
    kind: str = "sha256", header: str = "X-Hub-Signature-256", secret: str = "s3cret"
) -> dict:
    return match(f"payload-hmac-{kind}", header, secret, "header")


BRANCH = match("value", "ref", "refs/heads/main")
#: Rules as the documentation of webhook has them, in own words, and the corners of `Evaluate`.
RULES: dict[str, Any] = {
    "all": None,
    "github": {"and": [signed("sha1", "X-Hub-Signature"), BRANCH]},
    "github-256": {"and": [BRANCH, signed()]},
    "gogs": signed(header="X-Gogs-Signature"),
    "gitlab": match("value", "X-Gitlab-Token", "glpat", "header"),
    "gitea": {"and": [match("value", "secret", "s3cret"), BRANCH]},
    "slack": match("value", "token", "abc"),
    "query": match("value", "token", "42", "url"),
    "scalr": {"match": {"type": "scalr-signature", "secret": "s3cret"}},
    "near": {"match": {"type": "ip-whitelist", "ip-range": "127.0.0.0/8"}},
    "far": {"match": {"type": "ip-whitelist", "ip-range": "192.0.2.1 198.51.100.0/24"}},
    "or": {"or": [BRANCH, match("value", "forced", "true")]},
    "not": {"not": BRANCH},
    "and-not": {"and": [{"not": BRANCH}, match("regex", "who", "^a")]},
    "or-not": {"or": [{"not": BRANCH}, match("value", "who", "eve")]},
    "not-or": {"and": [{"not": {"or": [BRANCH, match("value", "who", "eve")]}}]},
    "regex": match("regex", "commits.0.message", r"\[deploy\]|rel.ase"),
    "number": {"and": [match("value", "size", "5"), match("value", "ok", "true")]},
    "odd": match("value", "head-commit.1st", "x"),
    "event": match("value", "X-GitHub-Event", "push", "header"),
    "two": {"or": [signed(secret="old"), signed(secret="new")]},
    "none": {"or": []},
    "every": {"and": []},
}


class Sent(NamedTuple):
    """A request, and whether the command runs."""

    hook: str
    runs: bool
    body: Any = MappingProxyType({})
    headers: Any = MappingProxyType({})
    query: str = ""
    kind: str = JSON

    def raw(self, number: int) -> bytes:
        """Each body is another one: the same twice would be a duplicate."""
        if isinstance(self.body, bytes):
            return self.body
        return json.dumps({**self.body, "number": number}).encode()


def by(header: str, kind: str = "sha256", secret: str = "s3cret", form: str = "{}={}") -> dict:
    return {header: (kind, secret, form)}


MAIN, OTHER = {"ref": "refs/heads/main"}, {"ref": "refs/heads/other"}
SHA1 = by("X-Hub-Signature", "sha1")
NOW, OLD = (
    {"Date": time.strftime("%a %d %b %Y %H:%M:%S UTC", time.gmtime(time.time() - ago))}
    for ago in (0, 4000)
)


def scalr(date: dict, secret: str = "s3cret") -> dict:
    """What Scalr signs is the body and the date behind it."""
    return date | by("X-Signature", "sha1", secret, "{1}")


SENT = [
    Sent("all", True, {}),
    Sent("all", True, {"a": [1, {"b": None}]}),
    Sent("github", True, MAIN, SHA1),
    Sent("github", False, OTHER, SHA1),
    Sent("github", False, MAIN, by("X-Hub-Signature", "sha1", "wrong")),
    Sent("github", False, MAIN),
    Sent("github", True, MAIN, by("X-Hub-Signature", "sha1", form="{1}")),
    Sent("github", False, MAIN, by("X-Hub-Signature", "sha256")),
    Sent("github-256", True, MAIN, by("X-Hub-Signature-256")),
    Sent("github-256", False, {}, by("X-Hub-Signature-256")),
    Sent("gogs", True, {}, by("X-Gogs-Signature", form="{1}")),
    Sent("gogs", False, {}, by("X-Gogs-Signature", "sha512")),
    Sent("gitlab", True, {}, {"X-Gitlab-Token": "glpat"}),
    Sent("gitlab", False, {}, {"X-Gitlab-Token": "glpa"}),
    Sent("gitlab", False, {}),
    Sent("gitea", True, MAIN | {"secret": "s3cret"}),
    Sent("gitea", False, OTHER | {"secret": "s3cret"}),
    Sent("gitea", False, MAIN),
    Sent("slack", True, b"token=abc&text=x", kind=FORM),
    Sent("slack", False, b"token=abd&text=x", kind=FORM),
    Sent("slack", True, {"token": "abc"}),
    Sent("query", True, {}, query="?token=42"),
    Sent("query", False, {}, query="?token=43"),
    Sent("query", False, {}),
    Sent("scalr", True, {}, scalr(NOW)),
    Sent("scalr", False, {}, scalr(OLD)),
    Sent("scalr", False, {}, scalr(NOW, "wrong")),
    Sent("scalr", False, {}, by("X-Signature", "sha1", form="{1}")),
    Sent("near", True, {}),
    Sent("far", False, {}),
    Sent("or", True, OTHER | {"forced": True}),
    Sent("or", True, MAIN),
    Sent("or", False, {"forced": False}),
    Sent("or", False, {"forced": "yes"}),
    Sent("not", False, MAIN),
    Sent("not", True, OTHER),
    Sent("not", True, {}),
    Sent("and-not", True, OTHER | {"who": "ada"}),
    Sent("and-not", False, OTHER | {"who": "bob"}),
    Sent("and-not", False, {"who": "ada"}),
    Sent("or-not", True, {"who": "eve"}),
    Sent("or-not", True, {}),
    Sent("or-not", False, MAIN | {"who": "x"}),
    Sent("not-or", True, {}),
    Sent("not-or", False, {"who": "eve"}),
    Sent("regex", True, {"commits": [{"message": "now [deploy] it"}]}),
    Sent("regex", True, {"commits": [{"message": "a release"}, {}]}),
    Sent("regex", False, {"commits": [{"message": "nothing"}]}),
    Sent("regex", False, {"commits": []}),
    Sent("regex", False, {"commits": "[deploy]"}),
    Sent("number", True, {"size": 5, "ok": True}),
    Sent("number", True, {"size": "5", "ok": "true"}),
    Sent("number", False, {"size": 6, "ok": True}),
    Sent("odd", True, {"head-commit": {"1st": "x"}}),
    Sent("odd", False, {"head-commit": {}}),
    Sent("event", True, {}, {"X-GitHub-Event": "push"}),
    Sent("event", False, {}, {"X-GitHub-Event": "ping"}),
    Sent("event", False, {}),
    Sent("two", True, {}, by("X-Hub-Signature-256", secret="old")),
    Sent("two", True, {}, by("X-Hub-Signature-256", secret="new")),
    Sent("two", False, {}, by("X-Hub-Signature-256", secret="other")),
    Sent("none", False, {}),
    Sent("every", True, {}),
]


def hooks(script: Path) -> list[dict]:
    arguments = [at("name", "string"), at("ref"), at("commits.0.message"), at("number")]
    arguments += [
        at("a"),
        at("X-GitHub-Event", "header"),
        at("token", "url"),
        at("", "entire-query"),
    ]
    made = []
    for name, rule in RULES.items():
        hook: dict[str, Any] = {
            "id": name,
            "execute-command": str(script),
            "command-working-directory": str(script.parent),
            "pass-arguments-to-command": [arguments[0] | {"name": name}, *arguments[1:]],
            "pass-environment-to-command": [at("ref"), at("who", envname="EVENT_NAME")],
            "http-methods": ["POST"],
        }
        hook |= {"trigger-rule": rule} if rule is not None else {}
        hook |= {"trigger-signature-soft-failures": True} if name == "two" else {}
        made.append(hook)
    made.append(
        {
            "id": "file",
            "execute-command": str(script),
            "pass-file-to-command": [at("binary", base64decode=True)],
            "response-message": "thanks",
        }
    )
    return made


def script(folder: Path) -> Path:
    folder.mkdir()
    path = folder / "script.sh"
    path.write_text(SCRIPT.format(folder=folder))
    path.chmod(0o755)
    return path


def send(port: int, one: Sent, number: int) -> int:
    body, headers = one.raw(number), {"Content-Type": one.kind}
    for name, value in one.headers.items():
        if isinstance(value, tuple):
            kind, secret, form = value
            message = body + str(one.headers.get("Date", "")).encode()
            value = form.format(kind, hmac.digest(secret.encode(), message, kind).hex())
        headers[name] = value
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    with contextlib.closing(connection):
        connection.request("POST", f"/hooks/{one.hook}{one.query}", body, headers)
        return connection.getresponse().status


def lines_of(folder: Path, count: int) -> list[str]:
    """What the script has written, once there are so many lines, and no more."""
    path, ends = folder / "ran", time.monotonic() + WAIT_S
    while True:
        lines = path.read_text().splitlines() if path.exists() else []
        if len(lines) >= count or time.monotonic() > ends:
            time.sleep(0.3)
            return sorted(path.read_text().splitlines())
        time.sleep(0.02)


def imported(run, tmp_path: Path, made: Any, *arguments: str, name="hooks.json", code=0):
    (tmp_path / name).write_text(made if isinstance(made, str) else json.dumps(made))
    out = tmp_path / "out"
    result = run("import", tmp_path / name, "--out", out, *arguments)
    assert result.exit_code == code, result.stderr
    return out / "fasthook.toml", result


@contextlib.contextmanager
def webhook(made: list[dict], folder: Path):
    program = shutil.which("webhook")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("webhook is not installed; `make system` installs it")
        pytest.skip("webhook is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    path = folder / "hooks.json"
    path.write_text(json.dumps(made))
    command = [program, "-ip", "127.0.0.1", "-port", str(port), "-hooks", str(path), "-verbose"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        ends = time.monotonic() + WAIT_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < ends
                time.sleep(0.02)
        yield port
    finally:
        process.kill()
        process.wait()


def test_it_decides_as_the_real_one_does(run, serve, tmp_path):
    ours, theirs = script(tmp_path / "ours"), script(tmp_path / "theirs")
    config, _ = imported(run, tmp_path, hooks(ours))
    text = config.read_text().replace("127.0.0.1:9000", "127.0.0.1:0")
    config.write_text(text + '\n[admin]\nlisten = "tcp://127.0.0.1:0"\n[log]\nformat = "json"\n')
    serving = serve("", at=config)
    port = int(serving.url.rpartition(":")[2])
    runs = [one for one in SENT if one.runs]
    with webhook(hooks(theirs), theirs.parent) as real:
        for number, one in enumerate(SENT):
            send(port, one, number)
            send(real, one, number)
        binary = {"binary": base64.b64encode(b"in the file").decode()}
        for to in (port, real):
            send(to, Sent("file", True, binary), 1000)
        expected, got = (lines_of(each.parent, len(runs) + 1) for each in (theirs, ours))
    assert [line for line in got if line not in expected] == []
    assert [line for line in expected if line not in got] == []
    names = sorted([one.hook for one in runs] + ["file"])
    ran = [line.partition(">")[0].lstrip("<") for line in lines_of(ours.parent, 0)]
    assert sorted(name if name in RULES else "file" for name in ran) == names


def test_secrets_are_in_files_of_their_own_and_not_in_what_is_said(run, tmp_path):
    config, result = imported(run, tmp_path, hooks(script(tmp_path / "ours")))
    for text in (config.read_text(), result.stdout, result.stderr):
        assert "glpat" not in text
    files = {path.name: path for path in (config.parent / "secrets").iterdir()}
    assert files["gitlab"].read_text() == "glpat"
    assert {stat.S_IMODE(path.stat().st_mode) for path in files.values()} == {0o600}
    assert run("check", "-c", config).exit_code == 0


@pytest.mark.parametrize(
    ("rule", "note"),
    [
        ({"and": [signed(), match("value", "X-Token", "0123", "header")]}, "a token beside"),
        (match("value", "secret", "0123"), "`when` may hold a secret"),
        (match("value", "ref", "0123"), None),
    ],
)
def test_a_value_that_is_left_in_the_configuration_is_said_and_read_by_nobody(
    run, tmp_path, rule, note
):
    hook = {"id": "one", "execute-command": "/bin/true", "trigger-rule": rule}
    config, result = imported(run, tmp_path, [hook])
    assert "0123" in config.read_text()
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert "0123" not in result.stdout
    assert ("fasthook.toml" in result.stdout) is bool(note)
    assert (note or "") in result.stdout


def test_what_behaves_otherwise_is_named(run, tmp_path):
    made = hooks(script(tmp_path / "ours"))
    _, result = imported(run, tmp_path, made, "--json")
    notes = json.loads(result.stdout)["imported"]
    assert any("only POST is taken; GET and all others" in note for note in notes["file"])
    assert any("response-message: the answer has no body" in note for note in notes["file"])
    assert any("401 to what is not genuine" in note for note in notes["github"])
    assert any("duplicate" in note for note in notes["gitlab"])
    assert any("nothing is verified" in note for note in notes["slack"])
    assert any("403 to other addresses" in note for note in notes["far"])


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"http-methods": ["GET"]}, "an endpoint takes POST"),
        ({"parse-parameters-as-json": [at("payload")]}, "JSON within a text"),
        ({"trigger-rule": {"not": signed()}}, "payload-hmac-sha256 within or, not"),
        ({"trigger-rule": {"or": [signed(), BRANCH]}}, "payload-hmac-sha256 within or, not"),
        ({"trigger-rule": {"and": [signed(), signed("sha1")]}}, "two signatures"),
        ({"trigger-rule": signed(secret="")}, "without a secret"),
        ({"trigger-rule": {"match": {"type": "ip-whitelist"}}}, "without an ip-range"),
        ({"trigger-rule": {"or": [match("value", "a", "b", "url"), BRANCH]}}, "on 'url' within"),
        ({"trigger-rule": {"and": [{"not": {"and": [BRANCH]}}]}}, "a not around an and"),
        ({"trigger-rule": match("regex", "a", "(")}, "no pattern"),
        ({"pass-arguments-to-command": [at("x", "cookie")]}, "source 'cookie'"),
        ({"id": "a b"}, "is none that an endpoint can have"),
    ],
)
def test_what_can_not_be_said_is_left_out_and_named(run, tmp_path, changes, why):
    hook = {"id": "one", "execute-command": "/bin/true"} | changes
    good = {"id": "good", "execute-command": "/bin/true"}
    config, result = imported(run, tmp_path, [hook, good], code=1)
    assert why in result.stderr
    assert 'name = "good"' in config.read_text()
    assert f'path = "/hooks/{hook["id"]}"' not in config.read_text()


def test_of_two_that_would_have_the_same_name_one_is_left_out(run, tmp_path):
    made = [{"id": name, "execute-command": "/bin/true"} for name in ("a/b", "a-b")]
    config, result = imported(run, tmp_path, made, code=1)
    assert "a-b: left out: another one would have its name here, a-b" in result.stderr
    assert run("check", "-c", config).exit_code == 0


def test_yaml_and_templates(run, tmp_path):
    text = """
- id: yes-it-is
  execute-command: /bin/true
  trigger-rule:
    match:
      type: payload-hmac-sha256
      secret: '{{ getenv "HOOK_SECRET" | js }}'
      parameter: { source: header, name: X-Signature }
"""
    config, _ = imported(run, tmp_path, text, "--template", name="hooks.yaml")
    assert 'secrets = ["env:HOOK_SECRET"]' in config.read_text()
    assert not (config.parent / "secrets").exists()
    text = '[{"id": "a", "execute-command": "/bin/true", "trigger-rule": {"match": {"type": "value", "value": "{{ credential "tok" | js }}", "parameter": {"source": "header", "name": "X-Token"}}}}]'
    (tmp_path / "out/fasthook.toml").unlink()
    config, _ = imported(run, tmp_path, text, "--template")
    assert 'secrets = ["credential:tok"]' in config.read_text()


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        ("[", "hooks.json", "no JSON"),
        ("a: [", "hooks.yaml", "no YAML"),
        ('[{"id": "a"}]', "hooks.json", "missing required field `execute-command`"),
        ('[{"id": "a", "execute-command": "b", "x": 1}]', "hooks.json", "unknown field `x`"),
        ('[{"id": "a", "execute-command": "{{ range }}"}]', "hooks.json", "of templates"),
    ],
)
def test_a_file_that_is_none_is_said(run, tmp_path, text, name, said):
    _, result = imported(run, tmp_path, text, "--template", name=name, code=2)
    assert said in result.stderr


def test_nothing_that_is_there_is_overwritten(run, tmp_path):
    made = [{"id": "a", "execute-command": "/bin/true"}]
    imported(run, tmp_path, made)
    _, result = imported(run, tmp_path, made, code=2)
    assert "there already; give another --out" in result.stderr


def test_values_of_conditions_are_quoted():
    """A text from a hooks file is data, whatever is in it."""
    for text in ('" || true || "', "\\", "é𐀀", "\n", "'''"):
        rule = Rule(match=Match("value", value=text, parameter=Argument("payload", "a")))
        condition = Condition(Trigger(rule, is_soft=False).when)
        assert condition({"payload": lambda text=text: {"a": text}}).is_true
        assert not condition({"payload": lambda: {"a": "other"}}).is_true
