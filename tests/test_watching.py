"""The detector's file, and what is counted between two looks."""

import os
import stat

import pytest

from fasthook import config
from fasthook.admin import Metrics
from fasthook.alerts.counts import Counts, decode, encode
from fasthook.errors import BadSignature
from fasthook.spool.files import put
from fasthook.watching import Ledger, Watching, read


def test_what_was_counted_since_the_last_look_is_taken_once():
    metrics = Metrics()
    ledger = Ledger(metrics)
    metrics.requests["a", "event"] += 3
    metrics.requests["a", "duplicate"] += 1
    metrics.requests["a", "challenge"] += 1
    metrics.requests["a", "unverified"] += 1
    metrics.event_clients["a", "2001:db8::1"] += 1
    metrics.event_clients["a", "2001:db8::2"] += 1
    metrics.refused("a", "192.0.2.1", BadSignature("x"))
    metrics.failed("a", "ValueError: x")
    metrics.failed("a", "")

    counts = ledger.take()
    assert (counts.events, counts.rejects) == ({"a": 4}, {"a": 1})
    assert counts.errors == {("a", "BadSignature"): 1, ("a", "ValueError"): 1}
    assert counts.event_clients == {("a", "2001:db8::"): 2}
    assert counts.reject_clients == {("a", "192.0.2.1"): 1}
    again = ledger.take()
    assert not any(getattr(again, name) for name in again.__struct_fields__)


def test_what_another_worker_counted_is_handed_on_once(tmp_path):
    path = tmp_path / "fasthook.toml"
    path.write_text(
        '[[endpoint]]\nname = "a"\npath = "/a"\nprovider = "none"\nhandlers = ["log"]\n'
    )
    metrics = Metrics(), Metrics()
    one, other = (
        Watching(config.load(path), each, None, hand_over=lambda delivery: False)
        for each in metrics
    )
    for each in metrics:
        each.requests["a", "event"] += 3
        each.refused("a", "192.0.2.1", BadSignature("x"))
    one.add(other.tally())
    summed = decode(one.tally())
    assert (summed.events, summed.rejects) == ({"a": 6}, {"a": 2})
    assert summed.errors == {("a", "BadSignature"): 2}
    assert summed.reject_clients == {("a", "192.0.2.1"): 2}
    for each in (one, other):
        assert decode(each.tally()) == Counts()
    for wrong in (b"", b"\x93broken", encode(Counts())[:-1]):
        with pytest.raises(ValueError):  # noqa: PT011
            one.add(wrong)


def test_clients_are_told_apart_by_their_networks_whatever_the_socket_says():
    metrics = Metrics()
    for client in (
        "fe80::1%eth0",
        "::ffff:192.0.2.1",
        "192.0.2.1",
        "unix",
        "",
        "2001:db8::1",
        "a:b",
    ):
        metrics.refused("", client, BadSignature("x"))
    assert Ledger(metrics).take().reject_clients == {
        ("", "fe80::"): 1,
        ("", "192.0.2.1"): 2,
        ("", "unix"): 1,
        ("", ""): 1,
        ("", "2001:db8::"): 1,
        ("", "unknown"): 1,
    }


def test_a_file_is_there_whole_and_the_services_alone(tmp_path):
    path = tmp_path / "alerts"
    assert read(path) == b""
    old_mask = os.umask(0)
    try:
        put(path, b"one", syncs=False)
        put(path, b"two", syncs=False)
    finally:
        os.umask(old_mask)
    assert read(path) == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["alerts"]


def test_a_file_that_can_not_be_written_leaves_the_one_before(tmp_path):
    path = tmp_path / "alerts"
    put(path, b"one", syncs=False)
    (tmp_path / ".part").mkdir()
    with pytest.raises(OSError):  # noqa: PT011
        put(path, b"two", syncs=False)
    assert read(path) == b"one"


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "elsewhere").write_bytes(b"x")
    (tmp_path / "alerts").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):  # noqa: PT011
        read(tmp_path / "alerts")
