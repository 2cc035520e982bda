"""`log`: one line for each event."""

from fasthook.handlers.log import log
from tests.dispatch.helpers import event, log_lines, run


def test_an_event_is_one_line(monkeypatch):
    with log_lines(monkeypatch) as lines:
        run(log.function(event(b'{"a":\n1}')))

    assert lines == [
        (
            20,
            "event",
            {"endpoint": "e", "type": "push", "id": "id-1", "bytes": 9 - 1, "body": '{"a":\n1}'},
        )
    ]


def test_a_long_body_is_cut_and_what_is_no_text_is_replaced(monkeypatch):
    with log_lines(monkeypatch) as lines:
        run(log.function(event(b"\xff" + b"x" * 200)))

    fields = lines[0][2]
    assert fields["bytes"] == 201
    assert fields["body"] == "\ufffd" + "x" * 199 + "…"


def test_it_is_tried_once():
    assert log.retries == 0
