"""One record is one line, in both forms, whatever the values hold; and the log is bounded."""

import io
import json
import re
import subprocess
import sys
import threading
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasthook.logs import MAX_VALUE_CHARS, Log, logger

NASTY = {
    "CRLF": "a\r\n12:00:00.000 error   forged",
    "ESC": "\x1b[31mred\x1b]0;title\x07",
    "CSI": "\x9b31mred",
    "NUL": "a\0b",
    "DEL": "a\x7fb",
    "NEL": "a\x85b",
    "line separator": "a\u2028b\u2029c",
    "bidi": "abc\u202egnp.exe\u2066x\u2069",
    "surrogate": "a\ud800b",
    "quotes": 'say "hi" and \\ go',
    "both quotes": 'it\'s "quoted"',
}


class Terminal(io.StringIO):
    """Says that it is one."""

    def isatty(self):
        return True


def written(form: str, *, value: object = None, stream: io.StringIO | None = None) -> str:
    """What one record with this value becomes."""
    stream = stream or io.StringIO()
    log = Log(stream)
    log.configure(form)
    log.info("accepted", endpoint="github", value=value)
    return stream.getvalue()


def fields_of(line: str) -> dict[str, str]:
    """`key=value` and `key="quoted value"` pairs of a line of text."""
    pairs = re.findall(r"""(\w+)=('[^']*'|"(?:[^"\\]|\\.)*"|\S*)""", line)
    return {key: value for key, value in pairs}


# --- the two forms --------------------------------------------------------------------------------


def test_a_line_of_text_has_time_level_message_and_fields():
    line = written("text", value="two words")

    assert re.fullmatch(
        r"\d\d:\d\d:\d\d\.\d{3} info    accepted     endpoint=github value='two words'\n", line
    )


def test_a_line_of_json_has_time_level_message_and_fields():
    record = json.loads(written("json", value="two words"))

    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", record.pop("time"))
    assert record == {
        "level": "info",
        "message": "accepted",
        "endpoint": "github",
        "value": "two words",
    }


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("value", [None, ""])
def test_fields_that_say_nothing_are_left_out(form, value):
    assert "value" not in written(form, value=value)


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (False, "False"), (0.25, "0.25")])
def test_numbers_are_said_even_if_zero(value, text):
    assert f"value={text}\n" in written("text", value=value)
    assert json.loads(written("json", value=value))["value"] == pytest.approx(value)


def test_auto_has_colours_on_a_terminal_alone():
    assert "\033[" in written("auto", stream=Terminal())
    assert "\033[" not in written("text", stream=Terminal())
    assert "\033[" not in written("auto")


def test_colours_do_not_change_what_is_said():
    colored = written("auto", value='a="b" c', stream=Terminal())
    plain = re.sub("\033\\[[0-9]*m", "", colored)

    assert "accepted     endpoint=github value=" in plain
    assert "value='a=\"b\" c'" in plain


# --- nothing breaks a line ------------------------------------------------------------------------


def assert_one_safe_line(line: str) -> None:
    assert line.endswith("\n")
    assert len(line.splitlines()) == 1
    for char in line[:-1]:
        assert unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp"), f"{char!r}"


@pytest.mark.parametrize("value", NASTY.values(), ids=NASTY)
def test_a_value_does_not_break_a_line_of_text(value):
    line = written("text", value=value)

    assert_one_safe_line(line)
    assert list(fields_of(line)) == ["endpoint", "value"]


@pytest.mark.parametrize("value", NASTY.values(), ids=NASTY)
def test_a_value_does_not_break_a_line_of_json(value):
    line = written("json", value=value)

    assert_one_safe_line(line)
    assert json.loads(line)["value"].replace("\\ud800", "\ud800") == value


@given(st.text(st.characters()))
def test_any_text_is_one_line_of_text(value):
    assert_one_safe_line(written("text", value=value))


@given(st.text(st.characters()))
def test_any_text_is_one_line_of_json_that_parses(value):
    line = written("json", value=value)

    assert line.count("\n") == 1
    assert "\r" not in line
    assert json.loads(line)["message"] == "accepted"


def test_a_value_can_not_forge_another_field():
    line = written("text", value='it\'s\\" status=200 x="')

    assert list(fields_of(line)) == ["endpoint", "value"]


def test_an_object_with_a_lone_surrogate_does_not_lose_the_line():
    line = written("json", value=ValueError("a\ud800b"))

    assert json.loads(line)["message"] == "accepted"


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 2**64, -(2**70)])
@pytest.mark.parametrize("form", ["text", "json"])
def test_numbers_that_json_has_not_do_not_lose_the_line(form, value):
    assert "accepted" in written(form, value=value)


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_long_value_is_cut(form):
    line = written(form, value="x" * 10 * MAX_VALUE_CHARS)

    assert "x" * MAX_VALUE_CHARS + "…" in line
    assert "x" * (MAX_VALUE_CHARS + 1) not in line


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_value_of_full_length_is_not_cut(form):
    line = written(form, value="x" * MAX_VALUE_CHARS)

    assert "x" * MAX_VALUE_CHARS in line
    assert "…" not in line


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_value_that_begins_like_a_traceback_is_cut_too(form):
    line = written(form, value="Traceback (most recent call last)" + "x" * 10 * MAX_VALUE_CHARS)

    assert len(line) < 2 * MAX_VALUE_CHARS


# --- tracebacks -----------------------------------------------------------------------------------


def failed(form: str) -> str:
    stream = io.StringIO()
    log = Log(stream)
    log.configure(form)
    try:
        raise RuntimeError("first\nsecond\x1b[31m" + "x" * 2 * MAX_VALUE_CHARS)
    except RuntimeError as error:
        log.exception("internal error", error, client="192.0.2.1")
    return stream.getvalue()


def test_the_lines_of_a_traceback_are_indented_and_escaped():
    first, *rest = failed("text").splitlines()

    assert re.fullmatch(r"\S+ error   internal error client=192\.0\.2\.1", first)
    assert rest[0] == "    Traceback (most recent call last):"
    assert all(line.startswith("    ") for line in rest)
    assert "\x1b" not in "".join(rest)
    assert any("raise RuntimeError" in line for line in rest)


def test_a_traceback_is_one_whole_field_of_json():
    line = failed("json")

    assert line.count("\n") == 1
    trace = json.loads(line)["traceback"]
    assert trace.startswith("Traceback")
    assert trace.endswith("x" * MAX_VALUE_CHARS + "\n")


# --- levels, bounds, broken streams ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "said"),
    [("debug", "diwe"), ("info", "iwe"), ("warning", "we"), ("error", "e")],
)
def test_lines_below_the_level_are_left_out(level, said):
    stream = io.StringIO()
    log = Log(stream)
    log.configure("json", level)
    for write, message in zip((log.debug, log.info, log.warning, log.error), "diwe", strict=True):
        write(message)

    messages = [json.loads(line)["message"] for line in stream.getvalue().splitlines()]
    assert "".join(messages) == said


@pytest.fixture
def slow(monkeypatch):
    """A log with its thread, and a stream that takes nothing before `open` is set."""
    stream = Slow()
    log = Log(stream)
    log.configure("json")
    log.start_writer()
    yield log, stream
    stream.open.set()
    log.stop_writer()


class Slow(io.StringIO):
    """Writes once it is allowed to, and says when somebody wants to."""

    def __init__(self):
        super().__init__()
        self.open, self.wanted = threading.Event(), threading.Event()

    def write(self, text):
        self.wanted.set()
        assert self.open.wait(10)
        return super().write(text)


def test_a_stream_that_takes_nothing_holds_nobody_who_writes_lines(slow):
    log, stream = slow
    log.info("one")
    assert stream.wanted.wait(10)
    log.info("two")  # returns, though nothing can be written

    assert stream.getvalue() == ""
    stream.open.set()
    log.stop_writer()
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == [
        "one",
        "two",
    ]


def test_lines_beyond_the_bound_are_dropped_and_counted(slow, monkeypatch):
    monkeypatch.setattr(logger, "MAX_WAITING", 3)
    log, stream = slow
    log.info("first")
    assert stream.wanted.wait(10)
    for number in range(10):
        log.info("line", number=number)
    assert log.dropped == 7
    stream.open.set()
    log.stop_writer()
    log.info("after")

    records = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [record.get("number") for record in records[:4]] == [None, 0, 1, 2]
    assert (records[4]["message"], records[4]["count"]) == ("log lines dropped", 7)
    assert [record["message"] for record in records[5:]] == ["after"]


def test_a_log_that_can_not_be_written_does_not_hold_the_end(slow, monkeypatch):
    monkeypatch.setattr(logger, "_STOP_S", 0.01)
    log, stream = slow
    log.info("one")
    assert stream.wanted.wait(10)
    log.stop_writer()
    log.info("two")

    assert stream.getvalue() == ""


def test_lines_of_many_threads_are_all_written():
    stream = io.StringIO()
    log = Log(stream)
    log.configure("json")
    log.start_writer()

    def write(name):
        for number in range(500):
            log.info("line", name=name, number=number)

    threads = [threading.Thread(target=write, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.stop_writer()

    found = [(r["name"], r["number"]) for r in map(json.loads, stream.getvalue().splitlines())]
    assert sorted(found) == [(name, number) for name in range(8) for number in range(500)]
    for name in range(8):  # and in their order
        assert [n for who, n in found if who == name] == list(range(500))


def test_a_value_that_can_not_be_shown_does_not_cost_the_lines_beside_it():
    class Broken:
        def __str__(self):
            raise RuntimeError

    stream = io.StringIO()
    log = Log(stream)
    log.start_writer()
    for value in (1, Broken(), 2):
        log.info("event", value=value)
    log.stop_writer()

    assert re.findall(r"event +value=(\d)", stream.getvalue()) == ["1", "2"]
    assert "line not written what=event error=RuntimeError" in stream.getvalue()


def test_a_worker_that_was_forked_writes_its_own_lines_alone(tmp_path):
    """What waits in the parent is the parent's to write, and so is its thread."""
    script = """
import os, sys
from fasthook.logs import log
log.configure("json")
log.start_writer()
log.info("of the parent")
pid = os.fork()
if not pid:
    log.start_writer()
    log.info("of the child")
    log.stop_writer()
    os._exit(0)
os.waitpid(pid, 0)
log.stop_writer()
"""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=20
    )
    messages = sorted(json.loads(line)["message"] for line in result.stderr.splitlines())
    assert messages == ["of the child", "of the parent"]


# --- what comes too often -------------------------------------------------------------------------


def test_a_flood_is_ten_lines_and_one():
    stream = io.StringIO()
    log = Log(stream)
    log.configure("json")
    log.start_writer()
    for number in range(50_000):
        fields = {"endpoint": "github", "client": f"192.0.2.{number % 3}", "status": 401}
        log.repeatable(30, "rejected", "BadSignature", fields)
    log.warning("another")
    log.stop_writer()

    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["message"] for line in lines] == ["rejected"] * 10 + ["another", "repeated"]
    assert lines[-1]["what"] == "rejected"
    assert (lines[-1]["count"], lines[-1]["clients"]) == (49_990, 3)
    assert log.summarised == 49_990
    assert log.dropped == 0


def test_a_line_below_the_level_is_not_summarised_either():
    stream = io.StringIO()
    log = Log(stream)
    log.configure("json", "error")
    for _ in range(100):
        log.repeatable(30, "rejected", "BadSignature", {})
    log.stop_writer()

    assert stream.getvalue() == ""


def test_a_closed_stream_does_not_raise():
    stream = io.StringIO()
    log = Log(stream)
    stream.close()

    log.info("nobody reads")


def test_a_broken_stream_does_not_raise_and_the_log_goes_on():
    class Broken(io.StringIO):
        is_broken = True

        def write(self, text):
            if self.is_broken:
                raise BrokenPipeError
            return super().write(text)

    stream = Broken()
    log = Log(stream)
    log.info("lost")
    stream.is_broken = False
    log.info("kept")

    assert "kept" in stream.getvalue()
    assert "lost" not in stream.getvalue()


def test_the_log_goes_to_whatever_standard_error_is_at_the_time(capsys):
    Log().info("here")

    assert "here" in capsys.readouterr().err
