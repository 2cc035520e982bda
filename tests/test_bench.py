"""The comparison with peers: it runs, its figures are checked, and what counts wrong has none."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import parsed
from bench.catalogue import CATALOGUE
from bench.pairs import Bench, Sample, Shed, WrongCount, check
from bench.report import written
from bench.results import Results
from bench.sections import Full, Idle
from bench.servers import Load, NotThere, load, start
from bench.systems import Counts, Place, Server, running
from bench.workload import PUSH, SIZES, write_script

ROOT = Path(__file__).parents[1]
LOAD = Load(answered=1005, refused=5, forged=5, failed=0, us=1_000_000, latency_us={})

needs_wrk = pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed")


def starts_badly(place: Place) -> Server:
    process = start(["-m", "bench.nowhere"], place.folder, place.folder / "log")
    return Server(f"http://127.0.0.1:{place.port}", [process], lambda url: Counts(0, 0))


def run(code: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, which moves to the core of the load."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)


@needs_wrk
def test_fasthook_the_limit_and_a_peer_are_compared(tmp_path):
    names = "pairs,fasthook none,prototype,uvicorn ASGI"
    command = [sys.executable, "-m", "bench", "--quick", "--rounds", "1", "--only", names]
    command += ["--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr  # so counts agreed, and what was forged was refused
    said = (tmp_path / "RESULTS.md").read_text()
    for other in ("prototype", "uvicorn ASGI"):
        row = re.search(rf"^\| fasthook none \| {other} \| ([\d.]+) ", said, re.MULTILINE)
        assert row, said
        assert float(row[1]) > 0
    assert "left out" not in said
    drawn = sorted(path.name for path in tmp_path.glob("pictures/*.svg"))
    if importlib.util.find_spec("matplotlib"):
        assert drawn == ["cpu.svg", "ratios.svg", "throughput.svg"]
    for name in drawn:
        assert f"(pictures/{name})" in said
    assert ("![" in said) == bool(drawn)


@needs_wrk
def test_who_verifies_nothing_has_no_figure(tmp_path):
    done = run(f"""
import argparse, sys
from bench.__main__ import bench, parsed
from bench.catalogue import CATALOGUE
fixed = CATALOGUE["fixed answer"]
systems = {{"fixed answer": fixed, "prototype": fixed._replace(name="blind", verifies=True)}}
arguments = ["--quick", "--rounds", "1", "--only", "pairs", "--out", {str(tmp_path)!r}]
sys.exit(bench(parsed(arguments), systems))
""")
    assert done.returncode == 1, done.stderr
    said = (tmp_path / "RESULTS.md").read_text()
    assert re.search(r"blind: \d+ were forged, 0 refused", said), said
    assert "## Throughput" not in said


@needs_wrk
def test_what_is_to_stay_the_same_is_measured_and_what_does_not_is_said(tmp_path):
    done = run(f"""
import sys
from bench import sections
from bench.__main__ import bench, parsed
sections.IDLE, sections.PENDING = (0, 200), (0, 2000)
arguments = ["--rounds", "1", "--only", "connections,pending", "--out", {str(tmp_path)!r}]
sys.exit(bench(parsed(arguments)))
""")
    said = (tmp_path / "RESULTS.md").read_text()
    assert "Went wrong" not in said, said
    assert re.search(r"^\| 200 \| \d+ .* \| [\d.]+: (yes|\*\*no\*\*) \| ", said, re.MULTILINE), said
    assert re.search(r"^\| 2,000 \| \d+ .*: (yes|\*\*no\*\*) \|$", said, re.MULTILINE), said
    has_missed = "**no**" in said
    assert has_missed == ("more than it may be" in done.stderr), done.stderr
    assert done.returncode == has_missed


@needs_wrk
def test_the_biggest_bodies_find_room_though_all_connections_send_one_at_once(tmp_path):
    size = write_script(tmp_path / "big.lua", SIZES[-1])
    with running(CATALOGUE["fasthook none"], tmp_path, SIZES[-1], size) as server:
        assert load(server.url, tmp_path / "big.lua", 1).failed == 0
        counts = server.counts()
    assert counts.accepted > 0
    assert counts.shed == 0  # with the default backlog, a quarter of them


def sample(cpu_us: float) -> Sample:
    return Sample(1000.0, cpu_us, {}, 1000)


@pytest.mark.parametrize(("many_us", "is_good"), [(53, True), (58, False)])
def test_a_cost_that_grows_is_found_out(many_us, is_good):
    """The median of the rounds counts, of one of which something else was the matter."""
    found = {
        "1": [sample(50) for _ in range(4)],
        "9": [sample(cpu_us) for cpu_us in (many_us, many_us, 500, many_us)],
    }
    for kind in ("endpoints", "pending", "connections"):
        results = Results(1, 4)
        idle = {name: Idle(samples, 0.0, 0.0) for name, samples in found.items()}
        setattr(results, kind, idle if kind == "connections" else found)
        assert (results.missed() == []) == is_good
        said = written(results, [])
        assert "to 10.00)" + (": yes" if is_good else ": **no**") in said, said


def test_what_takes_more_than_it_may_is_found_out():
    results = Results(1, 3)
    results.connections = {"0": Idle([sample(50)], 0.0, 0.0), "9": Idle([sample(50)], 10240, 0.0)}
    results.backlog = Full(4, 9000, 6000, 100 * 1024**2 - 1)
    results.start = [0.3, 0.49, 0.9]
    assert results.missed() == []
    assert "**no**" not in written(results, [])

    results.connections["9"] = Idle([sample(50)], 10241, 0.0)
    results.backlog = Full(4, 9000, 6000, 100 * 1024**2)
    results.start = [0.3, 0.5, 0.9]
    assert len(results.missed()) == 3
    assert written(results, []).count("**no**") == 3


def counted(name: str, after: Counts, load: Load = LOAD) -> None:
    before = Counts(7, 3, None if after.stored is None else 7, None if after.handled is None else 7)
    check(CATALOGUE[name], before, after, load)


def test_counts_agree_if_only_the_last_requests_were_heard_by_one_side():
    counted("prototype", Counts(1007, 8))
    counted("prototype", Counts(1071, 10))
    counted("prototype + journal", Counts(1010, 8, stored=1010))
    counted("fasthook none", Counts(1010, 8, handled=1010))


@pytest.mark.parametrize(
    ("after", "load", "said"),
    [
        (Counts(1006, 8), LOAD, "server accepted 999, load had 1000"),
        (Counts(1136, 8), LOAD, "server accepted 1129, load had 1000"),
        (Counts(1007, 7), LOAD, "server refused 4, load had 5"),
        (Counts(1007, 8, stored=1006), LOAD, "1007 accepted, 1006 stored"),
        (Counts(1007, 8, handled=1008), LOAD, "1007 accepted, 1008 handled"),
        (Counts(1007, 8, failed=1), LOAD, "1 had other answers"),
        (Counts(1007, 8, dropped=1), LOAD, "1 lines were dropped"),
        (Counts(1007, 8), LOAD._replace(failed=2), "2 requests failed"),
        (Counts(1012, 3), LOAD._replace(refused=0), "5 were forged, 0 refused"),
        (Counts(1008, 3), LOAD._replace(refused=0, forged=1), "1 were forged, 0 refused"),
        (Counts(1011, 4), LOAD._replace(refused=1), "5 were forged, 1 refused"),
        (Counts(1007, 8), LOAD._replace(forged=4), "4 were forged, 5 refused"),
        (Counts(1007, 3), LOAD._replace(answered=1000, refused=0, forged=0), "0 were forged"),
    ],
)
def test_a_wrong_count_has_no_figure(after, load, said):
    with pytest.raises(WrongCount, match=said) as raised:
        counted("prototype", after, load)
    assert raised.type is WrongCount


SHEDDING = LOAD._replace(answered=1287, refused=287)  # 5 that were forged, and 282


def test_what_was_shed_has_no_figure_and_is_told_from_what_is_wrong():
    with pytest.raises(Shed, match="282 were shed"):
        counted("prototype", Counts(1007, 8, shed=282), SHEDDING)
    with pytest.raises(Shed, match="284 were shed"):  # 2 of them forged
        counted("prototype", Counts(1007, 6, shed=284), SHEDDING)


@pytest.mark.parametrize(
    ("after", "load", "said"),
    [
        (Counts(1007, 8, stored=1006, shed=282), SHEDDING, "1007 accepted, 1006 stored"),
        (Counts(1007, 8, failed=1, shed=282), SHEDDING, "1 had other answers"),
        (Counts(1007, 8, shed=281), SHEDDING, "server refused 286, load had 287"),
        (Counts(1012, 3, shed=1), LOAD._replace(refused=0), "5 were forged, 0 refused"),
    ],
)
def test_what_is_wrong_beside_what_was_shed_is_not_measured_again(after, load, said):
    with pytest.raises(WrongCount, match=said) as raised:
        counted("prototype", after, load)
    assert raised.type is WrongCount


class Shedding(Bench):
    """Something is shed so many times."""

    left = 0

    def once(self, seconds: float) -> Sample:
        Shedding.left -= 1
        if Shedding.left >= 0:
            raise Shed("fasthook none: 1 were shed")
        return sample(50)


def test_a_round_in_which_something_was_shed_is_measured_again_and_that_is_said():
    bench = Shedding(CATALOGUE["fasthook none"], None, PUSH, None)
    results = Results(1, 3)
    for Shedding.left in (0, 1, 2):
        results.endpoints.setdefault("1", []).append(bench.sample(1))
    assert results.again() == 3
    assert "3 rounds were measured again" in written(results, [])
    results.endpoints["1"] = [sample(50)]
    assert "again" not in written(results, [])

    Shedding.left = 3
    with pytest.raises(Shed):
        bench.sample(1)


def test_a_system_is_asked_for_by_its_name_with_a_comma():
    assert parsed(["--only", "start,nginx, 202,prototype"]).only == [
        "start",
        "nginx, 202",
        "prototype",
    ]


def test_what_is_not_installed_is_named_with_how_to_get_it():
    environment = os.environ | {"PATH": "/nowhere"}
    code = "from bench.catalogue import CATALOGUE; print(CATALOGUE['adnanh/webhook'].lacks())"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout == "apt-get install webhook\n"


def test_who_does_not_start_is_named_with_what_it_said(tmp_path):
    silent = CATALOGUE["prototype"]._replace(start=starts_badly)
    said = r"prototype: it has ended; .* No module named"
    with pytest.raises(NotThere, match=said), running(silent, tmp_path, PUSH, 0):
        pass
