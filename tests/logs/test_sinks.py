"""Lines reach the journal by its own protocol, and standard error where it is not there."""

import contextlib
import io
import os
import socket
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fasthook.logs import Log, logger, shapes
from fasthook.logs.messages import MESSAGES
from fasthook.logs.shapes import as_text, entry_of, field_name, packed, recorded, unpacked
from tests.logs.journald import Journal, decode
from tests.logs.test_logger import NASTY

FIELDS = {
    "endpoint": "github",
    "provider": "github",
    "type": "push",
    "id": "event-1",
    "client": "192.0.2.7",
    "bytes": 7324,
    "secret": 0,
}


@pytest.fixture
def journal(tmp_path):
    opened = Journal(tmp_path / "socket")
    yield opened
    opened.close()


@pytest.fixture
def new_log(tmp_path):
    """Logs to a journal at a path of our own; they are closed when the test ends."""
    made: list[Log] = []

    def new(form: str = "journal", stream: io.StringIO | None = None) -> Log:
        made.append(Log(stream))
        made[-1].configure(form, journal_socket=str(tmp_path / "socket"))
        return made[-1]

    yield new
    for log in made:
        log.close()


def test_a_line_is_an_entry_with_fields(journal, new_log):
    new_log().info("accepted", **FIELDS)

    (entry,) = journal.close()
    assert entry == {
        "MESSAGE": "accepted endpoint=github provider=github type=push id=event-1 "
        "client=192.0.2.7 bytes=7324 secret=0",
        "MESSAGE_ID": MESSAGES["accepted"].id,
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "fasthook",
        "FASTHOOK_ENDPOINT": "github",
        "FASTHOOK_PROVIDER": "github",
        "FASTHOOK_EVENT_TYPE": "push",
        "FASTHOOK_EVENT_ID": "event-1",
        "FASTHOOK_CLIENT": "192.0.2.7",
        "FASTHOOK_BYTES": "7324",
        "FASTHOOK_SECRET": "0",
    }


def test_reason_and_attempt_have_their_fields(journal, new_log):
    log = new_log()
    log.error("dead", id="event-1", attempt=5, error="ValueError: no such item")
    log.warning("rejected", status=401, reason="no secret signs this")

    dead, rejected = journal.close()
    assert (dead["FASTHOOK_ATTEMPT"], dead["PRIORITY"]) == ("5", "3")
    assert dead["FASTHOOK_REASON"] == "ValueError: no such item"
    assert dead["MESSAGE"] == "dead id=event-1 attempt=5 error='ValueError: no such item'"
    assert (rejected["FASTHOOK_REASON"], rejected["PRIORITY"]) == ("no secret signs this", "4")
    assert rejected["MESSAGE_ID"] == MESSAGES["rejected"].id != dead["MESSAGE_ID"]


def test_a_line_of_a_handler_has_no_id_of_ours(journal, new_log):
    new_log().info("sold 100% of", what="tea")

    (entry,) = journal.close()
    assert "MESSAGE_ID" not in entry
    assert entry["MESSAGE"] == "sold 100% of what=tea"


@pytest.mark.parametrize("value", NASTY.values(), ids=NASTY)
def test_no_value_makes_a_field_or_a_line(value, journal, new_log):
    new_log().info("accepted", endpoint="github", id=value)

    (entry,) = journal.close()
    assert all(text.isprintable() for text in entry.values())
    assert len(entry) == 6


@given(st.dictionaries(st.text(), st.text(st.characters()), max_size=4))
def test_no_text_breaks_the_protocol_by_either_way(fields):
    fields.pop("traceback", None)
    names = [field_name(key) for key in fields]
    if len(set(names)) < len(names):
        return  # a field may come twice; this reader does not know that
    record = recorded(20, "accepted", fields)
    raw = packed(record)
    assert raw is record or all(text.isprintable() for text in decode(raw).values())
    for _, text in entry_of(record):
        assert text.isprintable()
        text.encode()


def test_both_ways_say_the_same():
    record = recorded(20, "accepted", FIELDS)
    assert decode(packed(record)) == dict(entry_of(record))


def test_lines_that_the_journal_did_not_take_are_no_kinds_of_lines_to_remember():
    record = recorded(20, "accepted", {"id": "an-id-of-its-own"})
    before = len(shapes._shapes)
    given_back = unpacked(packed(record))
    assert as_text(given_back).endswith("accepted id=an-id-of-its-own\n")
    assert len(shapes._shapes) == before


def test_a_traceback_is_a_field_and_follows_the_line(journal, new_log):
    try:
        raise RuntimeError("first\nPRIORITY=0\x1b[31m")
    except RuntimeError as error:
        new_log().exception("internal error", error, client="192.0.2.1")

    (entry,) = journal.close()
    first, *rest = entry["MESSAGE"].splitlines()
    assert first == "internal error client=192.0.2.1"
    assert all(line.startswith("    ") and line.isprintable() for line in rest)
    assert entry["FASTHOOK_TRACEBACK"].splitlines() == rest
    assert entry["PRIORITY"] == "3"


def test_what_is_too_long_for_a_datagram_comes_by_memfd(journal, new_log):
    try:
        raise RuntimeError("x\n" * 1_000_000)
    except RuntimeError as error:
        new_log().exception("internal error", error)

    (entry,) = journal.close()
    assert journal.memfds == 1
    assert len(entry["FASTHOOK_TRACEBACK"]) > 2_000_000


def test_many_lines_are_as_many_entries_whatever_stands_between_them(new_log, journal, monkeypatch):
    monkeypatch.setattr(logger, "_STOP_S", 60)  # this journal is slow
    log = new_log()
    log.start_writer()
    for number in range(3000):
        log.info("line", number=number, nasty="a\nb" if number % 100 == 50 else None)
        if number % 1000 == 500:
            log.exception("internal error", RuntimeError("x\n" * 200_000))
    log.stop_writer()

    entries = journal.close()
    numbers = [int(e["FASTHOOK_NUMBER"]) for e in entries if "FASTHOOK_NUMBER" in e]
    assert numbers == list(range(3000))
    assert len(entries) == 3003
    assert journal.memfds == 3
    assert log.dropped == 0


def test_a_journal_that_begins_anew_loses_no_line(journal, tmp_path, new_log):
    stream = io.StringIO()
    log = new_log(stream=stream)
    log.info("one")
    assert len(journal.close()) == 1
    again = Journal(tmp_path / "socket")
    log.info("two")

    assert [entry["MESSAGE"] for entry in again.close()] == ["two"]
    assert stream.getvalue() == ""


def test_a_journal_that_is_gone_is_said_once_and_lines_go_to_standard_error(journal, new_log):
    stream = io.StringIO()
    log = new_log(stream=stream)
    log.info("one")
    journal.close()
    log.info("two", id=1)
    log.info("three")

    lines = [line.split(maxsplit=2)[2] for line in stream.getvalue().splitlines()]
    assert lines[0].startswith("journal not reached error=")
    assert lines[1:] == ["two id=1", "three"]


def test_without_a_journal_lines_go_to_standard_error(tmp_path, capsys, new_log):
    new_log().info("one")

    first, second = capsys.readouterr().err.splitlines()
    assert f"'{tmp_path}/socket: No such file or directory; lines go to standard error'" in first
    assert " one" in second


@contextlib.contextmanager
def read_by_journal(monkeypatch):
    """Standard error as systemd makes it: a socket, which JOURNAL_STREAM names."""
    ours, theirs = socket.socketpair()
    with ours, theirs, ours.makefile("w") as stream:
        status = os.fstat(ours.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        monkeypatch.setattr(sys, "stderr", stream)
        yield theirs


def test_auto_is_the_journal_where_standard_error_leads_to_it(journal, monkeypatch, new_log):
    with read_by_journal(monkeypatch) as stderr:
        new_log("auto").info("one")
        stderr.setblocking(False)
        with pytest.raises(BlockingIOError):
            stderr.recv(100)
    assert [entry["MESSAGE"] for entry in journal.close()] == ["one"]


@pytest.mark.parametrize("form", ["auto", "text"])
def test_on_standard_error_the_journal_learns_priorities_from_prefixes(
    form, monkeypatch, tmp_path, new_log
):
    with read_by_journal(monkeypatch) as stderr:
        log = new_log(form)
        log.info("accepted", id="event-1")
        try:
            raise RuntimeError("a\nb")
        except RuntimeError as error:
            log.exception("internal error", error)
        text = stderr.recv(100_000).decode()

    lines = text.splitlines()
    if form == "auto":
        assert lines.pop(0).startswith("<4>journal not reached error=")
    assert lines[:2] == ["<6>accepted id=event-1", "<3>internal error"]
    assert all(line.startswith("<3>    ") for line in lines[2:])


@pytest.mark.parametrize("value", ["", "1", "a:b", "1:2:3", "0:0"])
def test_a_journal_stream_that_is_none_is_no_journal(value, monkeypatch, capsys, journal, new_log):
    monkeypatch.setenv("JOURNAL_STREAM", value)
    new_log("auto").info("one")

    assert capsys.readouterr().err
    assert journal.close() == []


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("id", "FASTHOOK_EVENT_ID"),
        ("retry_in_s", "FASTHOOK_RETRY_IN_S"),
        ("größe-2", "FASTHOOK_GR_SSE_2"),
        ("x" * 100, "FASTHOOK_" + "X" * 55),
    ],
)
def test_a_key_becomes_a_name_that_the_journal_takes(key, name):
    assert field_name(key) == name


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.text())
def test_any_key_becomes_a_name_that_the_journal_takes(key):
    name = field_name(key)
    assert name.isascii()
    assert name.replace("_", "A").isalnum()
    assert name == name.upper()
    assert 0 < len(name) <= 64
