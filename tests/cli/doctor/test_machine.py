"""The clock and the limits of the machine."""

import os
import resource
import time

import pytest

from fasthook.cli.doctor import clock, limits
from fasthook.wire.limits import RESERVED_DESCRIPTORS
from tests.cli.conftest import configuration, endpoint
from tests.cli.doctor.conftest import bads, end, goods, is_all_good, warnings

TEXT = configuration(endpoint("github"))


def test_the_kernel_is_asked_for_its_clock():
    known = clock.discipline()

    assert isinstance(known.is_synchronised, bool)
    assert 0 <= known.max_error_s < 100


def test_what_is_synchronised_is_good_and_else_a_warning():
    assert clock.judge(clock.Discipline(True, 0.01)).level == "good"
    assert clock.judge(clock.Discipline(False, 16)).level == "warning"


def test_a_spool_of_the_future_is_bad(case, serve, run, tmp_path):
    serving = serve(TEXT)
    run("send", "github", "-c", tmp_path / "fasthook.toml", "--url", f"{serving.url}/github")
    end(serving)
    examined = case(TEXT)
    assert not bads(clock.look(examined))

    ahead = time.time() + 3600
    segment = max((examined.spool / "journal/0").glob("*.seg"))
    os.utime(segment, (ahead, ahead))
    assert "s from now" in bads(clock.look(examined))[0]


def test_the_limit_of_open_files_is_that_of_the_service(case, serve):
    few = RESERVED_DESCRIPTORS + 100
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    serving = serve(
        TEXT, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    )

    found = bads(limits.look(case(TEXT)))
    assert found[0].startswith(f"{few} open files (by process {serving.process.pid}) are too few")
    assert "only 100 get in" in found[0]


@pytest.mark.parametrize(
    ("line", "level"),
    [("LimitNOFILE=65536", goods), ("LimitNOFILE=900", warnings), ("LimitNOFILE=300", bads)],
)
def test_where_none_runs_it_is_that_of_the_unit(case, units, line, level):
    (units / "fasthook.service").write_text(f"[Service]\n{line}\n")

    number = line.partition("=")[2]
    assert level(limits.look(case(TEXT)))[0].startswith(f"{number} open files (by {units}")


def test_a_short_queue_of_connections_is_a_warning(case, monkeypatch, tmp_path, units):
    assert not any("somaxconn" in text for text in warnings(limits.look(case(TEXT))))

    (tmp_path / "somaxconn").write_text("128\n")
    monkeypatch.setattr(limits, "_SOMAXCONN", tmp_path / "somaxconn")
    (units / "fasthook.socket").write_text("[Socket]\nBacklog=100\nListenStream=/run/x.sock\n")
    found = warnings(limits.look(case(TEXT)))
    assert "net.core.somaxconn is 128; fasthook lets 1024 connections wait" in found
    assert any("Backlog=100 lets fewer wait" in text for text in found)


def test_more_memory_than_there_is_is_a_warning(case):
    text = configuration(endpoint("github"), server='max_bytes_in_flight = "900GiB"')

    assert not warnings(limits.look(case(TEXT)))
    assert "900 GiB of memory at the most" in warnings(limits.look(case(text)))[0]


def test_the_memory_that_the_unit_allows_counts(case, units):
    (units / "fasthook.service").write_text("[Service]\nMemoryMax=2G\n")
    assert any("of 2 GiB (MemoryMax of" in text for text in goods(limits.look(case(TEXT))))

    (units / "fasthook.service").write_text("[Service]\nMemoryMax=100M\n")
    assert "of 100 MiB (MemoryMax of fasthook.service)" in warnings(limits.look(case(TEXT)))[-1]


def test_the_memory_of_a_cgroup_counts():
    there, source = limits.memory(os.getpid())

    assert there > 0
    assert source == "all of the machine" or source.endswith("memory.max")


def test_all_is_well_on_this_machine(case, units):
    (units / "fasthook.service").write_text("[Service]\nLimitNOFILE=65536\n")

    assert is_all_good(limits.look(case(TEXT)))
