"""Secrets that were handed over are on disk before `keep` returns, and nobody else's."""

import errno
import os
import stat

import pytest

from fasthook.errors import ConfigError
from fasthook.spool import secrets
from fasthook.spool.secrets import MAX_KEPT, folder_of, forget, keep, read

VALUE = b"handed-over-17fe-do-not-show"


@pytest.fixture
def spool(tmp_path):
    path = tmp_path / "var"
    path.mkdir(mode=0o700)
    return path


def values(spool, endpoint="shop"):
    return [one.secret.reveal() for one in read(spool, endpoint)]


def everything_in(spool):
    return [path for path in spool.rglob("*") if path.is_file()]


def test_what_is_kept_is_read_again_oldest_first(spool):
    assert read(spool, "shop") == []
    name, kept = keep(spool, "shop", VALUE)
    assert [one.name for one in kept] == [name]
    second, kept = keep(spool, "shop", b"another-secret-of-theirs")
    assert [one.name for one in kept] == [name, second]
    assert [one.name for one in read(spool, "shop")] == [name, second]
    assert values(spool) == [VALUE, b"another-secret-of-theirs"]
    assert read(spool, "other") == []


def test_files_and_directories_are_the_services_alone(spool):
    before = os.umask(0)  # nothing else is to keep others out
    try:
        name, _ = keep(spool, "shop", VALUE)
    finally:
        os.umask(before)
    folder = folder_of(spool, "shop")
    assert stat.S_IMODE(os.stat(folder / name).st_mode) == 0o600
    for each in (folder, folder.parent):
        assert stat.S_IMODE(os.stat(each).st_mode) == 0o700


def test_the_same_secret_is_kept_once(spool):
    name, _ = keep(spool, "shop", VALUE)
    again, kept = keep(spool, "shop", VALUE)
    assert (again, len(kept)) == (name, 1)
    assert len(everything_in(spool)) == 1


def test_no_more_than_so_many_are_kept(spool):
    for number in range(MAX_KEPT):
        keep(spool, "shop", b"%d-%b" % (number, VALUE))
    with pytest.raises(ConfigError, match=f"has {MAX_KEPT} secrets; remove one first"):
        keep(spool, "shop", VALUE)
    assert len(values(spool)) == MAX_KEPT
    (folder_of(spool, "shop") / "more").touch(0o600)
    with pytest.raises(ConfigError, match="17 secrets; expected 16"):
        read(spool, "shop")


def test_a_secret_never_shows(spool):
    _, kept = keep(spool, "shop", VALUE)
    assert VALUE.decode() not in repr(kept)
    assert VALUE.decode() not in repr(read(spool, "shop"))


# --- files that are not as they should be ---------------------------------------------------------


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666, 0o700])
def test_a_file_that_others_could_open_is_refused(mode, spool):
    name, _ = keep(spool, "shop", VALUE)
    path = folder_of(spool, "shop") / name
    path.chmod(mode)
    with pytest.raises(ConfigError) as caught:
        read(spool, "shop")
    assert str(caught.value) == (
        f"{path}: its permissions are {mode:04o}; expected 0600, for it holds secrets "
        f"(chmod 600 {path})"
    )
    path.chmod(0o400)
    assert values(spool) == [VALUE]


@pytest.mark.parametrize("depth", [0, 1])
def test_a_directory_that_others_could_open_is_refused(depth, spool):
    keep(spool, "shop", VALUE)
    folder = [folder_of(spool, "shop"), spool / secrets.FOLDER][depth]
    folder.chmod(0o755)
    with pytest.raises(ConfigError, match=f"{folder}: its permissions are 0755; expected 0700"):
        read(spool, "shop")


def test_somebody_elses_file_is_refused(spool, monkeypatch):
    keep(spool, "shop", VALUE)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(ConfigError, match=rf"belongs to user {os.getuid()}; expected 4711"):
        read(spool, "shop")


def test_a_link_a_pipe_and_a_directory_are_refused(spool, tmp_path):
    keep(spool, "shop", VALUE)
    other = tmp_path / "other"
    other.write_bytes(VALUE)
    other.chmod(0o600)
    odd = folder_of(spool, "shop") / "odd"
    odd.symlink_to(other)
    with pytest.raises(ConfigError, match=f"{odd}: expected a file, and no link"):
        read(spool, "shop")
    odd.unlink()
    os.mkfifo(odd, 0o600)
    with pytest.raises(ConfigError, match=f"{odd}: expected a file, and no link"):
        read(spool, "shop")
    odd.unlink()
    odd.mkdir(0o600)
    with pytest.raises(ConfigError, match=f"{odd}: expected a file, and no link"):
        read(spool, "shop")


@pytest.mark.parametrize("content", [b"", b"\n", b"a\0b", b"x" * 5000])
def test_a_file_that_holds_no_secret_is_refused(content, spool):
    name, _ = keep(spool, "shop", VALUE)
    (folder_of(spool, "shop") / name).write_bytes(content)
    with pytest.raises(ConfigError, match="holds no secret; remove it, and pair"):
        read(spool, "shop")


# --- a disk that does not take it -----------------------------------------------------------------


@pytest.mark.parametrize("call", ["open", "fsync", "rename", "mkdir"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_what_the_disk_does_not_take_is_not_kept(call, code, spool, monkeypatch):
    if call != "mkdir":
        keep(spool, "shop", b"the-one-from-before")
    before = everything_in(spool)

    def fails(*arguments, **options):
        raise OSError(code, os.strerror(code))

    real = getattr(os, call)
    if call == "open":  # directories, and files that are read, can still be opened

        def fails(path, flags, *more, **options):
            if flags & os.O_WRONLY:
                raise OSError(code, os.strerror(code))
            return real(path, flags, *more, **options)

    monkeypatch.setattr(os, call, fails)
    with pytest.raises(OSError, match=os.strerror(code)):
        keep(spool, "shop", VALUE)
    monkeypatch.undo()
    assert everything_in(spool) == before
    assert VALUE not in values(spool)
    keep(spool, "shop", VALUE)  # and as soon as it works again
    assert values(spool)[-1] == VALUE


def test_each_sync_is_needed(spool, monkeypatch):
    """Whichever of them fails, nothing is kept: of the file, of its name, of its folder's."""
    real, failing = os.fsync, 0
    while failing < 9:
        failing += 1
        left = failing

        def fails(fd):
            nonlocal left
            left -= 1
            if not left:
                raise OSError(errno.EIO, "failed on purpose")
            real(fd)

        monkeypatch.setattr(os, "fsync", fails)
        other = spool / str(failing)
        other.mkdir(0o700)
        try:
            keep(other, "shop", VALUE)
            break
        except OSError:
            assert read(other, "shop") == []
            assert everything_in(other) == []
    assert failing == 5  # the fifth never came: folder, folder, file, name


def test_the_file_is_synced_before_it_has_its_name_and_the_name_before_keep_returns(
    spool, monkeypatch
):
    calls = []
    for name in ("fsync", "rename"):
        real = getattr(os, name)

        def noting(*arguments, name=name, real=real):
            what = os.readlink(f"/proc/self/fd/{arguments[0]}") if name == "fsync" else arguments[1]
            calls.append((name, os.path.basename(what)))
            real(*arguments)

        monkeypatch.setattr(os, name, noting)
    kept, _ = keep(spool, "shop", VALUE)
    assert calls[-3:] == [("fsync", ".part"), ("rename", kept), ("fsync", "shop")]
    assert ("fsync", secrets.FOLDER) in calls


def test_what_a_process_that_died_has_left_is_not_read_and_goes(spool):
    keep(spool, "shop", b"the-one-from-before")
    part = folder_of(spool, "shop") / ".part"
    part.write_bytes(b"half a sec")
    assert values(spool) == [b"the-one-from-before"]
    keep(spool, "shop", VALUE)
    assert not part.exists()


# --- the end --------------------------------------------------------------------------------------


def test_one_is_removed_or_all(spool):
    first, _ = keep(spool, "shop", VALUE)
    keep(spool, "shop", b"another-secret-of-theirs")
    keep(spool, "shop", b"and-a-third-one-of-theirs")
    keep(spool, "other", VALUE)
    assert forget(spool, "shop", "nonesuch") == 0
    assert forget(spool, "shop", first) == 1
    assert values(spool) == [b"another-secret-of-theirs", b"and-a-third-one-of-theirs"]
    assert forget(spool, "shop") == 2
    assert read(spool, "shop") == []
    assert values(spool, "other") == [VALUE]
    assert forget(spool, "nobody") == 0


@pytest.mark.parametrize("name", ["..", ".", "../other", "/etc/passwd", ".part"])
def test_a_name_leads_nowhere_else(name, spool):
    keep(spool, "shop", VALUE)
    assert forget(spool, "shop", name) == 0
    assert values(spool) == [VALUE]
