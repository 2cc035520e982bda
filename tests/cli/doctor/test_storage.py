"""The spool: real ones, made by a service, then spoilt."""

import os
import shutil

import pytest

from fasthook.cli.doctor import storage
from fasthook.spool import filesystem
from fasthook.spool.database import damage_mark
from fasthook.spool.index import INDEX_NAME
from tests.cli.conftest import configuration, endpoint
from tests.cli.doctor.conftest import NOBODY, bads, end, goods, is_all_good, needs_root, warnings

TEXT = configuration(endpoint("github"))


@pytest.fixture
def spool(serve, run, tmp_path):
    """A spool with an event, which no service has any more."""
    serving = serve(TEXT)
    sent = run("send", "github", "-c", tmp_path / "fasthook.toml", "--url", f"{serving.url}/github")
    assert sent.exit_code == 0
    end(serving)
    return tmp_path / "var"


def test_a_spool_while_its_service_runs(case, serve):
    serving = serve(TEXT)
    before = sorted(os.listdir(case(TEXT).spool))
    found = list(storage.look(case(TEXT)))

    assert is_all_good(found), found
    assert any(f"process {serving.process.pid} has it, as" in text for text in goods(found))
    assert sorted(os.listdir(case(TEXT).spool)) == before  # the probe leaves nothing
    assert serving.admin_status("/readyz") == 200


def test_a_spool_that_nobody_has_is_a_warning(case, spool):
    found = list(storage.look(case(TEXT)))

    assert not bads(found)
    assert warnings(found) == ["no service has it: nothing is received"]
    assert any("a sync takes" in text for text in goods(found))


def test_a_spool_that_is_not_there_yet_is_a_warning(case):
    found = list(storage.look(case(TEXT)))

    assert not bads(found)
    assert "it is not there yet" in warnings(found)[0]


def test_nothing_is_kept_without_durability(case):
    text = TEXT + '\n[spool]\ndurability = "none"\n'

    assert "nothing is kept" in warnings(storage.look(case(text)))[0]


@pytest.mark.parametrize("name", [".", "journal/0", INDEX_NAME])
def test_what_others_have_access_to_is_bad(case, spool, name):
    (spool / name).chmod(0o755)

    assert "others have access (0755)" in bads(storage.look(case(TEXT)))[0]


@needs_root
def test_a_file_of_somebody_else_is_bad(case, spool):
    os.chown(spool / INDEX_NAME, NOBODY, -1)

    assert bads(storage.look(case(TEXT))) == [
        f"{spool / INDEX_NAME}: belongs to nobody, and the spool to root"
    ]


def test_an_index_that_is_marked_damaged_is_bad(case, spool):
    damage_mark(spool / INDEX_NAME).touch(0o600)

    assert "its index is damaged" in bads(storage.look(case(TEXT)))


def test_an_index_that_is_no_database_is_bad(case, spool):
    (spool / INDEX_NAME).write_bytes(b"x" * 8192)

    assert INDEX_NAME in bads(storage.look(case(TEXT)))[0]


def test_a_segment_of_another_version_is_bad(case, spool):
    segment = max((spool / "journal/0").glob("*.seg"))
    data = bytearray(segment.read_bytes())
    data[8:9] = b"\x63"  # behind "fasthook"
    segment.write_bytes(data)

    assert "its format is version" in bads(storage.look(case(TEXT)))[0]


def test_dead_letters_are_a_warning(case, serve, run, tmp_path):
    text = configuration(endpoint("github", more='handlers = ["exec"]'))
    text += '[handlers.exec]\ncommand = ["/bin/false"]\nretries = 0\n'
    serving = serve(text)
    run("send", "github", "-c", tmp_path / "fasthook.toml", "--url", f"{serving.url}/github")
    serving.line_with('"dead"')
    end(serving)

    assert "1 dead letters" in warnings(storage.look(case(text)))


def test_no_room_is_bad_and_little_room_a_warning(case, spool, monkeypatch):
    real = os.statvfs(spool)

    def with_free(count):
        fields = list(real)[:10]
        fields[4] = count // real.f_frsize
        monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(fields))
        return list(storage.look(case(TEXT)))

    assert any("events will soon get 503" in text for text in bads(with_free(1024**2)))
    little = with_free(1024**3)
    assert not bads(little)
    assert any("1 GiB are free, and 10 GiB may still be used" in t for t in warnings(little))
    assert not warnings(with_free(2**40))[1:]


@pytest.mark.parametrize(
    ("took_s", "level"), [([0.001], "good"), ([0.05, 0.06], "warning"), ([0.001, 1.5], "bad")]
)
def test_the_speed_of_syncs_is_judged(took_s, level):
    assert storage.judge_syncs(took_s).level == level


def test_a_disk_in_memory_is_a_warning_and_a_network_bad(case, spool, monkeypatch, tmp_path):
    for kind, level in (("tmpfs", warnings), ("nfs4", bads)):
        mounts = tmp_path / kind
        mounts.write_text(f"1 1 0:1 / / rw - {kind} x rw\n")
        monkeypatch.setattr(storage, "MOUNTS", mounts)
        assert f"is on {kind}" in level(storage.look(case(TEXT)))[0]
    assert filesystem.MOUNTS.exists()


@needs_root
def test_a_service_that_runs_as_somebody_else_than_the_spools_owner_is_bad(case, serve):
    serve(TEXT)
    examined = case(TEXT)
    shutil.chown(examined.spool, "nobody")

    found = bads(storage.look(examined))
    assert any("has it as root" in text for text in found)
