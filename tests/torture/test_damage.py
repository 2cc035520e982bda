"""Bytes of a spool that are not what they were: never a wrong body, never a hang."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fasthook.spool.journal import place_of
from fasthook.spool.records import RECORD_HEADER_BYTES
from tests.torture.helpers import FULL, ROOT, Load, body_of, digest_of, say

VARIANTS = 1000 if FULL else 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Spools of services that were stopped, and killed; in memory, where there is room."""
    from tests.torture.helpers import Site

    folder = tmp_path_factory.mktemp("damage")
    events: dict[str, Any] = {}
    for name in ("stopped", "killed", "killed-at-once"):
        site = Site(folder / name, hold=True, max_bytes="1MiB")
        site.start()
        try:
            with Load(site.port, connections=8, limit=200) as load:
                load.join()
            if name == "stopped":
                assert site.stop() == 0
            else:
                time.sleep(0.6 if name == "killed" else 0)
                site.kill()
        finally:
            site.end()
        base = folder / f"base-{name}"
        shutil.copytree(site.spool, base, ignore=shutil.ignore_patterns("*.sock"))
        site.start()  # for the positions of all
        site.stop()
        events[base.name] = places(site.positions(), base)
        assert set(events[base.name]) == load.acked
    (folder / "events.json").write_text(json.dumps(events))
    return folder


def places(positions: dict[str, int], base: Path) -> dict[str, Any]:
    """By id: its digest, and where its record lies."""
    found = {}
    for event_id, position in positions.items():
        worker, segment, begin = place_of(position)
        file = f"journal/{worker}/{segment:010}.seg"
        header = (base / file).read_bytes()[begin : begin + RECORD_HEADER_BYTES]
        end = begin + RECORD_HEADER_BYTES + int.from_bytes(header[5:9], "little")
        digest = digest_of(body_of(event_id))
        found[event_id] = {"digest": digest, "file": file, "begin": begin, "end": end}
    return found


def variants(folder: Path, begin: int, end: int, *options: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "tests.torture.damage", str(folder), str(begin), str(end)]
    result = subprocess.run(
        [*command, *options],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=1500 if FULL else 100,
    )
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(lines) == end - begin, (
        f"it died: {result.returncode} {lines[-1:]} {result.stderr[-2000:]}"
    )
    return lines


def is_index(one: dict[str, Any]) -> bool:
    return bool(one["file"].startswith("index.db"))


@pytest.mark.timeout(1600 if FULL else 120)
def test_damage_is_never_served_and_never_a_hang(folder):
    found = variants(folder, 0, VARIANTS)
    # SQLite has no checksums: a flip may make another value that looks as good, in the index alone.
    hidden = [
        o
        for o in found
        if is_index(o) and o["missing"] and o["how"] not in ("cut", "delete", "tail")
    ]
    say(
        "damage",
        variants=len(found),
        ends=Counter((o["end"], "index" if is_index(o) else "segment") for o in found),
        restarted=sum(o["starts"] > 1 for o in found),
        wrong=sum(bool(o["wrong"]) for o in found),
        missing_where_damaged=sum(o["missing"] - o["unexcused"] for o in found),
        missing_elsewhere=[
            (o["seed"], o["file"], o["how"], o["unexcused"]) for o in found if o["unexcused"]
        ],
        hidden_flips=len(hidden),
        slowest_s=max(o["s"] for o in found),
    )
    for one in found:
        if one["end"] == "refused":
            say("refused", **{name: one[name] for name in ("seed", "file", "how", "why")})
    assert not [o for o in found if o["wrong"]]
    assert not [o for o in found if o["end"] in ("hang", "crash")]
    # A damaged index loses nothing; a damaged segment only what is in the damage.
    read = [o for o in found if o["end"] == "read" and o not in hidden]
    assert not [o for o in read if o["unexcused"]]
    assert not [o for o in found if o["end"] == "refused" and is_index(o)]


def test_an_index_whose_pages_are_damaged_is_made_again(folder):
    pages = (folder / "base-stopped/index.db").stat().st_size // 4096
    found = variants(folder, 0, pages, "pages")
    bad = [o for o in found if o["end"] != "read" or o["missing"]]
    say(
        "pages of the index",
        variants=pages,
        restarted=sum(o["starts"] > 1 for o in found),
        bad=[(o["seed"], o["end"], o["missing"], o.get("why")) for o in bad],
    )
    assert not bad


def test_the_check_finds_damage_that_is_served(folder):
    found = variants(folder, 0, 25, "nocrc")
    wrong = sum(bool(o["wrong"]) for o in found)
    say("damage, control", variants=len(found), wrong=wrong)
    assert wrong
