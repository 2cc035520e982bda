"""Disks that are full or only read, and a spool that may not grow."""

import contextlib
import errno
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.torture.helpers import Load, Site, check, say_sets, wait_for


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "torture", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount")
    if mounted.returncode:
        pytest.skip(f"no file system may be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(path: Path, leave_bytes: int) -> None:
    """A ballast that leaves so much."""
    status = os.statvfs(path.parent)
    with path.open("wb", buffering=0) as ballast:
        left = status.f_bavail * status.f_frsize - leave_bytes
        with contextlib.suppress(OSError):
            while left > 0:
                left -= ballast.write(b"x" * min(left, 65536))


def filled_up(site: Site, disk: Path, weak: str = "") -> tuple[Load, float]:
    """Load until the disk is full, for a while after, and after it has room again."""
    ballast = disk / "ballast"
    fill(ballast, 1024 * 1024)
    site.start(weak)
    with Load(site.port, connections=8, rate=1500) as load:
        wait_for(
            lambda: load.refusals if not weak else site.messages("index not written"), "a full disk"
        )
        time.sleep(1.5)
        freed_at = time.monotonic()
        ballast.unlink()
        wait_for(lambda: any(a.sent_at > freed_at for a in load.acks), "acks after it")
        time.sleep(1.0)
    site.wait_until_idle(load.acked)
    back_s = min(a.at for a in load.acks if a.sent_at > freed_at) - freed_at
    return load, back_s


def test_a_full_disk_refuses_and_comes_back(site, small_disk):
    service = site(spool=small_disk / "var")
    load, back_s = filled_up(service, small_disk)
    service.kill()
    service.start()
    service.wait_until_idle(load.acked)
    assert service.stop() == 0
    sets = check(service, load.tried, load.acked, in_flight_s=8)
    say_sets("full disk", sets, refused=len(load.refusals), back_s=round(back_s, 2))
    assert sets.is_clean(), sets
    assert {a.status for a in load.refusals} == {503}
    assert all(a.retries_after for a in load.refusals)
    assert not load.silent
    assert back_s < 2
    assert "Traceback" not in service.log_text()


def test_the_check_finds_who_does_not_hear_of_a_full_disk(site, small_disk):
    service = site(spool=small_disk / "var")
    service.configure(hold=True)  # what waits in memory would hide what is not on disk
    ballast = small_disk / "ballast"
    fill(ballast, 1024 * 1024)
    service.start("blind")
    with Load(service.port, connections=8, limit=4000) as load:
        load.join()
    service.kill()
    ballast.unlink()
    service.configure(hold=False)
    service.start()
    service.wait_until_idle(load.acked)
    assert service.stop() == 0
    sets = check(service, load.tried, load.acked)
    say_sets("full disk, control", sets)
    assert sets.lost


def test_a_spool_that_may_not_grow_refuses_and_comes_back(site):
    service = site(hold=True, max_bytes="1MiB")
    service.start()
    with Load(service.port, connections=8, limit=4000) as load:
        load.join()
    assert load.acks
    assert {a.status for a in load.refusals} == {503}
    assert all(a.retries_after for a in load.refusals)
    before = set(load.acked)
    assert len(before) < 4000
    size = service.metric("fasthook_spool_bytes")
    assert size < 1.1 * 1024**2
    assert service.stop() == 0
    service.configure(hold=False)
    service.start()
    service.wait_until_idle(before)
    began = time.monotonic()
    with Load(service.port, connections=8, rate=200, prefix="again-") as again:
        wait_for(lambda: again.acks, "room")
        back_s = again.acks[0].at - began
    service.wait_until_idle(before)
    assert service.stop() == 0
    sets = check(service, load.tried | again.tried, load.acked | again.acked)
    say_sets("max_bytes", sets, acked_before=len(before), bytes=int(size), back_s=round(back_s, 2))
    assert not sets.lost
    assert not sets.wrong
    assert not sets.twice
    assert back_s < 5


# --- read only ------------------------------------------------------------------------------------

#: A file system that has files open for writing can't be remounted `ro`: the kernel says EBUSY. What
#: the kernel does after an error of the disk is the same from here on: EROFS to every write.
EROFS = "inject=writev,pwrite64,ftruncate,fdatasync,fsync,unlink,unlinkat:error=EROFS"


def test_a_disk_that_is_only_read_refuses_and_comes_back(site):
    service = site()
    service.start()
    with Load(service.port, connections=8, rate=400) as load:
        time.sleep(0.3)
        with service.disturbed("-e", EROFS.replace("inject=", "trace=").split(":")[0], "-e", EROFS):
            began = time.monotonic()
            time.sleep(2.0)
            assert service.ask("/readyz")[0] == 503
            ended = time.monotonic()
        wait_for(lambda: any(a.sent_at > ended for a in load.acks), "acks after it")
    back_s = min(a.at for a in load.acks if a.at > ended) - ended
    service.wait_until_idle(load.acked)
    service.kill()
    service.start()
    service.wait_until_idle(load.acked)
    assert service.stop() == 0
    sets = check(service, load.tried, load.acked, in_flight_s=6)
    say_sets("read only", sets, refused=len(load.refusals), back_s=round(back_s, 2))
    assert not [a for a in load.acks if a.sent_at > began and a.at < ended]
    assert {a.status for a in load.refusals} == {503}
    assert sets.is_clean(), sets
    assert not load.silent
    assert back_s < 2
    assert "Traceback" not in service.log_text()


def test_a_disk_that_is_only_read_is_said_at_the_start(site, small_disk):
    """A real remount: nothing has it open."""
    service = site(spool=small_disk / "var")
    service.start()
    with Load(service.port, limit=100) as load:
        load.join()
    service.wait_until_idle(load.acked)
    assert service.stop() == 0
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    service.start(waits=False)
    assert service.process.wait(10) == 2
    assert os.strerror(errno.EROFS) in service.log_text().splitlines()[-1]
    assert "Traceback" not in service.log_text()
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    service.start()
    with Load(service.port, connections=1, limit=1, prefix="again-") as again:
        again.join()
    assert service.stop() == 0
    assert check(service, load.tried | again.tried, load.acked | again.acked).is_clean()
