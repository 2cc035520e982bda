"""`file`: each event as one line of JSON, in files that are rotated and private."""

import base64
import contextlib
import json
import stat

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fasthook.handlers.file import Settings, _Writer, build, file, line_of
from fasthook.values import Size, decode
from tests.dispatch.helpers import delivery, event, kinds, outcomes_of, quiet_retries


@pytest.fixture(autouse=True)
def _close_writers(monkeypatch):
    """Handlers keep their file open for as long as the service runs; tests end earlier."""
    writers = []

    class Kept(_Writer):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            writers.append(self)

    monkeypatch.setattr("fasthook.handlers.file._Writer", Kept)
    yield
    for writer in writers:
        with contextlib.suppress(OSError):  # /dev/full, once more
            writer.close()


def write(made, *events):
    for each in events:
        made.function(each)


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_an_event_is_one_line_of_json(tmp_path):
    path = tmp_path / "events"
    made = build(Settings(str(path)))
    write(made, event(b'{"a": 1}', attempt=2), event(b"[]", event_id="id-2"))

    first, second = lines_of(path)

    assert first == {
        "id": "id-1",
        "type": "push",
        "endpoint": "e",
        "provider": "github",
        "received_at": "2023-11-14T22:13:20+00:00",
        "attempt": 2,
        "payload": {"a": 1},
        "body": None,
    }
    assert (second["id"], second["payload"]) == ("id-2", [])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_the_payload_is_the_json_that_was_sent(value):
    line = msgspec.json.encode(line_of(event(json.dumps(value, indent=2).encode())))

    assert b"\n" not in line
    assert json.loads(line)["payload"] == value


def test_numbers_keep_their_digits(tmp_path):
    path = tmp_path / "events"
    write(build(Settings(str(path))), event(b'{"big": 123456789012345678901234567890.10}'))

    assert "123456789012345678901234567890.10" in path.read_text()


@pytest.mark.parametrize("body", [b"", b"a=1&b=2", b"\x00\xff", b"{", b"[" * 100_000])
def test_a_body_that_is_no_json_is_kept_as_base64(tmp_path, body):
    path = tmp_path / "events"
    write(build(Settings(str(path))), event(body))

    (line,) = lines_of(path)

    assert line["payload"] is None
    assert base64.b64decode(line["body"]) == body


def test_json_that_is_no_utf8_is_kept_as_base64(tmp_path):
    path = tmp_path / "events"
    write(build(Settings(str(path))), event(b'"\xff"'))

    (line,) = lines_of(path)

    assert base64.b64decode(line["body"]) == b'"\xff"'


def test_rotation_by_size_keeps_so_many_files(tmp_path):
    path = tmp_path / "events"
    made = build(Settings(str(path), max_bytes=Size(1000), keep=2))
    write(made, *(event(event_id=str(number)) for number in range(50)))

    files = [path, tmp_path / "events.1", tmp_path / "events.2"]
    assert sorted(tmp_path.iterdir()) == files
    assert all(file.stat().st_size <= 1000 for file in files)
    kept = [int(line["id"]) for file in reversed(files) for line in lines_of(file)]
    assert kept == list(range(kept[0], 50))


def test_files_are_for_their_user_alone(tmp_path):
    path = tmp_path / "events"
    made = build(Settings(str(path), max_bytes=Size(300)))
    write(made, *(event() for _ in range(5)))

    modes = {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}

    assert len(list(tmp_path.iterdir())) > 1
    assert modes == {0o600}


def test_a_second_run_appends(tmp_path):
    path = tmp_path / "events"
    for _ in range(2):
        write(build(Settings(str(path))), event())

    assert len(lines_of(path)) == 2


@pytest.mark.parametrize("name", ["", "no/such/folder/events"])
def test_a_path_that_can_not_be_written_stops_the_start(tmp_path, name):
    with pytest.raises(OSError, match="directory"):
        build(Settings(str(tmp_path / name)))


def test_an_error_while_writing_fails_the_attempt():
    made = build(Settings("/dev/full"))

    with pytest.raises(OSError, match="No space left"):
        made.function(event())


def test_a_failed_write_is_tried_again(monkeypatch):
    quiet_retries(monkeypatch)
    made = msgspec.structs.replace(build(Settings("/dev/full")), retries=1)

    outcomes = outcomes_of(made, delivery())

    assert kinds(outcomes) == ["retry", "dead"]
    assert "No space left" in outcomes[0].error


def test_lines_are_whole_and_in_order_from_the_pool(tmp_path):
    path = tmp_path / "events"
    outcomes_of(build(Settings(str(path))), *(delivery(event_id=str(n)) for n in range(100)))

    assert [line["id"] for line in lines_of(path)] == [str(n) for n in range(100)]


def test_settings_are_read_with_units_and_refuse_the_unknown():
    given_ = {"path": "p", "max_bytes": "64KiB", "keep": 1}
    assert msgspec.convert(given_, file.settings, dec_hook=decode).max_bytes == 65536
    for wrong in ({"keep": 0}, {"colour": "red"}, {"max_bytes": "much"}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({"path": "p", **wrong}, file.settings, dec_hook=decode)
    assert Settings("p").keep == 5
