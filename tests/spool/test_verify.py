"""`Verification` finds what is damaged or lacking, and nothing else; `survey` says how it stands."""

import os
import shutil

import apsw
import pytest

from fasthook.spool.changes import State
from fasthook.spool.index import INDEX_NAME, Index
from fasthook.spool.journal import Journal, name_of
from fasthook.spool.lock import lock
from fasthook.spool.queries import Reader
from fasthook.spool.records import ACCEPTED, Forgotten, accepted_content, accepted_of, later_record
from fasthook.spool.survey import holder, survey
from fasthook.spool.verify import Verification
from tests.spool.filled import delivery, fill, outcome

BODY = b"B" * 40


@pytest.fixture
def spool(tmp_path):
    """Three segments of three deliveries; the last one is pending."""
    positions = {}
    for name in "abc":
        stored = [delivery(f"{name}{i}", at_s=1000, body=BODY) for i in range(3)]
        outcomes = {d.event_id: [outcome("done at once")] for d in stored}
        positions |= fill(tmp_path, *stored, outcomes={} if name == "c" else outcomes)
    return positions


def verified(path):
    """What is found, and who found it."""
    with Reader(path) as reader:
        verification = Verification(reader)
        findings = list(verification.gaps())
        for segment in verification.segments:
            findings += verification.segment(segment)
    return findings, verification


def found(path):
    return [(finding.what, finding.name) for finding in verified(path)[0]]


def change_index(path, statement):
    connection = apsw.Connection(str(path / INDEX_NAME))
    connection.execute(statement)
    connection.close()


@pytest.mark.usefixtures("spool")
def test_of_a_whole_spool_every_record_is_counted_and_nothing_found(tmp_path):
    findings, verification = verified(tmp_path)
    assert findings == []
    assert verification.records["accepted"] == 9
    assert (verification.dropped, verification.behind) == (0, 0)


def test_each_byte_that_is_changed_is_found(tmp_path, spool):
    file = tmp_path / "journal/0/0000000001.seg"
    whole = file.read_bytes()
    for offset in range(16, len(whole)):
        file.write_bytes(whole[:offset] + bytes([whole[offset] ^ 4]) + whole[offset + 1 :])
        damaged = [name for what, name in found(tmp_path) if what == "damaged"]
        assert len(damaged) == 1, offset
        assert damaged[0].startswith("0.1."), offset
    file.write_bytes(whole)
    assert found(tmp_path) == []


def test_a_damaged_delivery_is_lost_to_the_index_too_and_its_neighbours_are_not(tmp_path, spool):
    file = tmp_path / "journal/0/0000000002.seg"
    raw = bytearray(file.read_bytes())
    raw[raw.index(BODY, raw.index(BODY) + 1)] ^= 1  # of the second delivery
    file.write_bytes(raw)
    name = name_of(spool["b1"])
    assert sorted(found(tmp_path)) == [("damaged", name), ("lost", name)]
    (damage,) = [f for f in verified(tmp_path)[0] if f.what == "damaged"]
    assert damage.length_bytes == spool["b2"] - spool["b1"]


def test_a_file_that_is_no_segment_is_damaged(tmp_path, spool):
    file = tmp_path / "journal/0/0000000002.seg"
    file.write_bytes(b"x" * file.stat().st_size)
    assert found(tmp_path) == [("damaged", "0.2.0")]


def test_a_tail_is_damage_unless_a_service_is_writing_it(tmp_path, spool):
    for number in (1, 3):
        with (tmp_path / f"journal/0/000000000{number}.seg").open("ab") as file:
            file.write(b"torn")
    assert [name.rpartition(".")[0] for _, name in found(tmp_path)] == ["0.1", "0.3"]
    held = lock(tmp_path)
    try:
        assert [name.rpartition(".")[0] for _, name in found(tmp_path)] == ["0.1"]
    finally:
        os.close(held)


def test_a_delivery_that_the_index_lacks_is_found(tmp_path, spool):
    change_index(tmp_path, f"DELETE FROM deliveries WHERE position = {spool['a1']}")
    assert found(tmp_path) == [("unindexed", name_of(spool["a1"]))]


@pytest.mark.parametrize("is_gathered", [False, True])
def test_a_delivery_whose_key_is_not_known_is_found(tmp_path, spool, is_gathered):
    if is_gathered:
        index = Index(tmp_path / INDEX_NAME, is_writer=True)
        index.keys.gather()
        index.close()
    assert found(tmp_path) == []
    key = f"SELECT key FROM deliveries WHERE position = {spool['a1']}"
    table = "keys" if is_gathered else "fresh_keys"
    change_index(tmp_path, f"DELETE FROM {table} WHERE key = ({key})")
    assert found(tmp_path) == [("unindexed", name_of(spool["a1"]))]


def test_a_row_that_says_something_else_is_found(tmp_path, spool):
    change_index(tmp_path, f"UPDATE deliveries SET event_type = 'x' WHERE position = {spool['a1']}")
    assert found(tmp_path) == [("differs", name_of(spool["a1"]))]


def test_a_row_without_a_record_is_found(tmp_path, spool):
    change_index(
        tmp_path, f"UPDATE deliveries SET position = {spool['a1'] + 1} WHERE event_id = 'a1'"
    )
    assert found(tmp_path) == [("lost", name_of(spool["a1"] + 1))]


def test_what_is_stored_twice_needs_one_row(tmp_path, spool):
    """Two workers may do so; the index keeps the first."""
    journal = Journal(tmp_path / "journal/0")
    with Reader(tmp_path) as reader:
        accepted = reader.kept(spool["a1"]).accepted
    again = delivery("a1", at_s=1000, body=BODY)
    journal.write([(ACCEPTED, accepted_content(accepted_of(again, accepted.key), again))])
    journal.close()
    assert verified(tmp_path)[1].behind == 1
    fill(tmp_path)
    findings, verification = verified(tmp_path)
    assert (findings, verification.behind, verification.records["accepted"]) == ([], 0, 10)


def test_a_dropped_segment_is_good_unless_something_in_it_was_open(tmp_path, spool):
    (tmp_path / "journal/0/0000000001.seg").unlink()
    findings, verification = verified(tmp_path)
    assert (findings, verification.dropped) == ([], 3)
    change_index(tmp_path, f"UPDATE deliveries SET state = 0 WHERE position = {spool['a2']}")
    assert found(tmp_path) == [("lost", name_of(spool["a2"]))]


def test_a_segment_that_is_dropped_meanwhile_is_no_finding(tmp_path, spool):
    with Reader(tmp_path) as reader:
        verification = Verification(reader)
        (tmp_path / "journal/0/0000000001.seg").unlink()
        change_index(tmp_path, f"DELETE FROM deliveries WHERE position <= {spool['a2']}")
        assert [verification.segment(s) for s in verification.segments] == [[], [], []]


def test_a_segment_that_is_dropped_after_it_was_read_is_no_finding(tmp_path, spool, monkeypatch):
    with Reader(tmp_path) as reader:
        verification = Verification(reader)
        real = reader.cursor

        def cursor(worker):
            (tmp_path / "journal/0/0000000001.seg").unlink(missing_ok=True)
            change_index(tmp_path, f"DELETE FROM deliveries WHERE position <= {spool['a2']}")
            return real(worker)

        monkeypatch.setattr(reader, "cursor", cursor)
        assert [verification.segment(s) for s in verification.segments] == [[], [], []]
        assert verification.records["accepted"] == 6


def test_what_was_forgotten_must_be_erased(tmp_path, spool):
    journal = Journal(tmp_path / "journal/0")
    journal.write([later_record(Forgotten(1, [spool["a1"]]))])
    journal.close()
    before = shutil.copytree(tmp_path / "journal", tmp_path / "before")
    fill(tmp_path)
    findings, verification = verified(tmp_path)
    assert findings == []
    assert (verification.records["erased"], verification.records["forgotten"]) == (1, 1)
    name = "0000000001.seg"
    shutil.copyfile(before / "0" / name, tmp_path / "journal/0" / name)
    assert found(tmp_path) == [("differs", name_of(spool["a1"]))]


# --- how it stands --------------------------------------------------------------------------------


def test_a_survey_says_sizes_states_and_how_far_the_index_is(tmp_path, spool):
    with Reader(tmp_path) as reader:
        stands = survey(reader)
        assert stands.segments == 3
        assert stands.journal_bytes == sum(f.stat().st_size for f in tmp_path.rglob("*.seg"))
        assert (stands.counts[State.DONE], stands.counts[State.PENDING]) == (6, 3)
        assert stands.oldest_pending_s > 0
        assert (stands.behind_bytes, stands.is_index_damaged) == (0, False)
        with (tmp_path / "journal/0/0000000003.seg").open("ab") as file:
            file.write(b"x" * 100)
        assert survey(reader).behind_bytes == 100


def test_who_holds_the_lock_is_known_without_taking_it(tmp_path, spool):
    assert holder(tmp_path) is None
    held = lock(tmp_path)
    try:
        assert holder(tmp_path) == os.getpid()
    finally:
        os.close(held)
    assert holder(tmp_path) is None  # its number still stands in the file


def test_a_holder_of_another_number_space_is_found_by_the_kernels_list(tmp_path, spool):
    held = lock(tmp_path)
    try:
        (tmp_path / "lock").write_text("1\n")
        assert holder(tmp_path) == os.getpid()
    finally:
        os.close(held)


def changed_page(path, table):
    """One bit of the entry that was written first: pages fill from their end."""
    connection = apsw.Connection(str(path))
    wanted = f"SELECT rootpage FROM sqlite_schema WHERE name = '{table}'"
    ((root,),) = connection.execute(wanted).fetchall()
    ((size,),) = connection.execute("PRAGMA page_size").fetchall()
    connection.close()
    data = bytearray(path.read_bytes())
    data[root * size - 12] ^= 1
    path.write_bytes(data)


def index_findings(path):
    with Reader(path) as reader:
        return list(Verification(reader).index())


@pytest.mark.usefixtures("spool")
def test_an_index_whose_pages_contradict_each_other_is_found(tmp_path):
    """SQLite serves such a page without a word: some events would never be run."""
    assert index_findings(tmp_path) == []
    changed_page(tmp_path / INDEX_NAME, "deliveries_due")
    (finding, *_) = index_findings(tmp_path)
    assert "spool rebuild" in finding.text


def test_a_key_that_has_changed_is_found(tmp_path, spool):
    """It contradicts no other page: SQLite finds nothing wrong."""
    index = Index(tmp_path / INDEX_NAME, is_writer=True)
    index.keys.gather()
    index.close()
    assert found(tmp_path) == []
    changed_page(tmp_path / INDEX_NAME, "keys")
    ((what, name),) = found(tmp_path)
    assert what == "unindexed"
    assert name in map(name_of, spool.values())
