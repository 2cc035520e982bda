"""`exec`: a real command for each event; nothing of ours leaks into it, nothing of it stays."""

import asyncio
import os
import sys
import time

import msgspec
import pytest

from fasthook.errors import ConfigError, Discard
from fasthook.handlers.exec import MAX_OUTPUT_BYTES, CommandFailed, Settings, build
from tests.dispatch.helpers import (
    Harness,
    delivery,
    event,
    is_running,
    kinds,
    log_lines,
    run,
    until,
)


def execute(command, made=None, **settings):
    """Run the command once for an event."""
    handler = build(Settings(tuple(map(str, command)), **settings))
    run(handler.function(event() if made is None else made))


def shell(script, *arguments):
    return ("/bin/sh", "-c", script, "sh", *arguments)


def test_the_body_is_the_standard_input_byte_for_byte(tmp_path):
    body = bytes(range(256)) * 4096
    path = tmp_path / "got"
    execute(shell('cat > "$1"', path), event(body))

    assert path.read_bytes() == body


def environment_seen(tmp_path, made, **settings):
    path = tmp_path / "env"
    execute(shell('env -0 > "$1"', path), made, **settings)
    pairs = path.read_text().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if pair)


def test_the_environment_names_the_event(tmp_path):
    made = event(attempt=2, event_type="a\0b", headers={b"content-type": b"text/plain"})

    seen = environment_seen(tmp_path, made)

    assert {name: value for name, value in seen.items() if name.startswith("FASTHOOK_")} == {
        "FASTHOOK_ID": "id-1",
        "FASTHOOK_TYPE": "ab",
        "FASTHOOK_ENDPOINT": "e",
        "FASTHOOK_PROVIDER": "github",
        "FASTHOOK_RECEIVED_AT": "2023-11-14T22:13:20+00:00",
        "FASTHOOK_ATTEMPT": "2",
        "FASTHOOK_CONTENT_TYPE": "text/plain",
    }


def test_nothing_else_of_the_services_environment_is_seen(tmp_path, monkeypatch):
    monkeypatch.setenv("GITHUB_SECRET", "hush")
    monkeypatch.setenv("HOME", "/home/of/ours")

    seen = environment_seen(tmp_path, event(headers={}), environment={"MORE": "1"})

    assert "hush" not in str(seen)
    assert (seen["HOME"], seen["MORE"], seen["FASTHOOK_CONTENT_TYPE"]) == ("/home/of/ours", "1", "")
    ours = {"PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "MORE"}
    of_the_shell = {"PWD", "OLDPWD", "SHLVL", "_"}
    assert {n for n in seen if not n.startswith("FASTHOOK_")} <= ours | of_the_shell


def test_arguments_are_given_as_they_are(tmp_path):
    path = tmp_path / "got"
    script = "import sys; open(sys.argv[1], 'w').write(repr(sys.argv[2:]))"
    arguments = ["$HOME", "*", "a b", "; touch x", "`id`", ""]
    execute((sys.executable, "-c", script, path, *arguments))

    assert path.read_text() == repr(arguments)


def test_it_runs_in_the_directory(tmp_path):
    execute(shell("echo here > there"), directory=str(tmp_path))

    assert (tmp_path / "there").read_text() == "here\n"


@pytest.mark.parametrize(
    ("script", "said"),
    [("cat > /dev/null; exit 3", "exit code 3"), ("cat > /dev/null; kill -TERM $$", "signal 15")],
)
def test_a_command_that_fails_fails_the_attempt(script, said):
    with pytest.raises(CommandFailed, match=f"/bin/sh ended with {said}"):
        execute(shell(script))


def test_a_command_need_not_read_its_input():
    execute(("/bin/true",), event(b"x" * 2**20))
    execute(shell("exec <&-; exit 0"), event(b"x" * 2**20))


def test_a_command_may_end_before_its_input_is_sent():
    async def hold_the_loop():
        while True:  # so that the command has ended, and its pipes are closed, whenever it goes on
            time.sleep(0.02)
            await asyncio.sleep(0)

    async def main():
        holding = asyncio.ensure_future(hold_the_loop())
        await build(Settings(("/bin/true",))).function(event(b"x" * 2**20))
        holding.cancel()

    run(main())


def test_output_is_logged_line_by_line(monkeypatch):
    with log_lines(monkeypatch) as lines:
        execute(shell(r"echo out; echo err >&2; printf '\377'"))

    assert [(level, message, fields["line"]) for level, message, fields in lines] == [
        (20, "output", "out"),
        (20, "output", "err"),
        (20, "output", "\ufffd"),
    ]
    assert lines[0][2] == {"endpoint": "e", "id": "id-1", "program": "/bin/sh", "line": "out"}


def test_output_of_a_failed_command_is_logged_too(monkeypatch):
    with log_lines(monkeypatch) as lines, pytest.raises(CommandFailed):
        execute(shell("echo why; exit 1"))

    assert [fields["line"] for _, _, fields in lines] == ["why"]


def test_much_output_is_cut_and_the_command_still_ends(monkeypatch):
    with log_lines(monkeypatch) as lines:
        execute((sys.executable, "-c", "print(('x' * 1023 + '\\n') * 1024)"))

    *output, cut = lines
    assert sum(len(fields["line"]) + 1 for _, _, fields in output) == MAX_OUTPUT_BYTES
    assert (cut[0], cut[1], cut[2]["bytes"]) == (30, "output cut", MAX_OUTPUT_BYTES)


@pytest.mark.parametrize("way", ["timeout", "close"])
def test_when_its_time_is_over_the_whole_process_group_ends(tmp_path, way):
    path = tmp_path / "pids"
    script = 'sleep 30 & echo $! >> "$1"; echo $$ >> "$1"; wait'

    async def main():
        made = build(Settings(tuple(map(str, shell(script, path)))))
        timeout_s = 0.5 if way == "timeout" else 60.0
        made = msgspec.structs.replace(made, timeout_s=timeout_s, retries=0)
        async with Harness(made) as harness:
            harness.offer(delivery())
            await until(lambda: path.exists() and path.read_text().count("\n") == 2)
            pids = [int(line) for line in path.read_text().split()]
            assert all(map(is_running, pids))
            if way == "timeout":
                (outcome,) = await harness.handled()
                assert (outcome.kind, outcome.error) == ("dead", "took more than 0.5 s")
                await until(lambda: not any(map(is_running, pids)))
        await until(lambda: not any(map(is_running, pids)))

    run(main())


def test_a_command_cancelled_while_it_starts_leaves_nothing(tmp_path):
    async def main():
        for n in range(60):
            path = tmp_path / str(n)
            script = 'echo $$ > "$1"; sleep 30 & echo $! >> "$1"; wait'
            handling = asyncio.ensure_future(
                build(Settings(tuple(map(str, shell(script, path))))).function(event())
            )
            await asyncio.sleep(n * 0.0003)
            handling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await handling
        await asyncio.sleep(0.05)
        pids = [int(pid) for path in tmp_path.iterdir() for pid in path.read_text().split()]
        assert pids
        await until(lambda: not any(map(is_running, pids)))

    run(main())


def test_what_a_command_leaves_running_ends_with_it(tmp_path):
    path = tmp_path / "pid"

    async def main():
        script = 'sleep 30 > /dev/null 2>&1 & echo $! > "$1"'
        made = build(Settings(tuple(map(str, shell(script, path)))))
        await asyncio.wait_for(made.function(event()), 3)
        pid = int(path.read_text())
        await until(lambda: not is_running(pid))

    run(main())


def test_an_event_that_leaves_no_room_for_its_environment_fails_and_others_go_on():
    async def main():
        made = build(Settings(shell("cat > /dev/null")))
        made = msgspec.structs.replace(made, retries=0, concurrency=1)
        async with Harness(made) as harness:
            harness.offer(delivery(event_id="x" * 2**20), delivery())
            outcomes = await harness.emptied()
            assert kinds(outcomes) == ["dead", "done"]
            assert "Argument list too long" in outcomes[0].error

    run(main())


def test_commands_run_at_once_without_mixing(tmp_path):
    async def main():
        made = build(Settings(tuple(map(str, shell('cat > "$1/$FASTHOOK_ID"', tmp_path)))))
        async with Harness(made) as harness:
            harness.offer(*(delivery(str(n).encode(), event_id=str(n)) for n in range(12)))
            assert kinds(await harness.emptied()) == ["done"] * 12

    run(main())
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        str(n): str(n) for n in range(12)
    }


@pytest.mark.parametrize("command", [(), ("no-such-program-anywhere",), ("/etc/passwd",), ("",)])
def test_a_command_that_can_not_be_run_stops_the_start(command):
    with pytest.raises(ConfigError, match="command: "):
        build(Settings(command))


def test_a_directory_that_is_not_there_stops_the_start(tmp_path):
    with pytest.raises((ConfigError, OSError)):
        build(Settings(("/bin/true",), directory=str(tmp_path / "none")))


def test_a_program_beside_the_service_is_found_from_any_directory(tmp_path, monkeypatch):
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\nexit 0\n")
    tool.chmod(0o700)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()

    execute(("./tool",), directory=str(tmp_path / "elsewhere"))


def test_no_task_is_left_behind():
    async def main():
        await build(Settings(("/bin/cat",))).function(event(b"x" * 2**20))
        await until(lambda: len(asyncio.all_tasks()) == 1)

    run(main())


def test_values_of_the_event_are_arguments_variables_and_files(tmp_path):
    script = 'printf "%s|" "$@" "$BRANCH" "$(cat "$PART")" "$(cat "$BINARY")" "$PART" > "$0"'
    path = tmp_path / "got"
    body = b'{"ref": "a b; rm *", "file": "aW5zaWRl", "nul": "x\\u0000y"}'
    execute(
        ("/bin/sh", "-c", script, str(path)),
        event(body),
        arguments=("--ref={payload.ref}", "{payload.gone}", "{payload.nul}"),
        variables={"BRANCH": "{payload.ref}"},
        files={"PART": "{payload.ref}", "BINARY": "base64:{payload.file}"},
    )

    *got, part, _ = path.read_text().split("|")
    assert got == ["--ref=a b; rm *", "", "xy", "a b; rm *", "a b; rm *", "inside"]
    assert not os.path.exists(part)


def test_what_is_to_be_a_file_and_is_no_base64_is_dead_at_once(tmp_path):
    with pytest.raises(Discard, match="no base64"):
        execute(("/bin/true",), event(b'{"x": "?"}'), files={"F": "base64:{payload.x}"})


@pytest.mark.parametrize("settings", [{"arguments": ("{x}",)}, {"variables": {"A=B": "c"}}])
def test_values_and_names_are_checked_at_the_start(settings):
    with pytest.raises(ConfigError):
        build(Settings(("/bin/true",), **settings))
