"""A disk that loses its power: what it was told, and what it may hold afterwards.

A `Recorder` notes every write, truncation, name and sync below one folder, those of SQLite
included. A `Disk` is fed with that log up to a cut, and makes images: what was synced is there; of
the rest any part may be, sector by sector, and so may new names and removed ones.
"""

import itertools
import os
import random
from pathlib import Path

import apsw
import pytest

SECTOR = 512
FOLDER = -1  # in the place of a file's number
_VFS = "fasthook-recording"


class _File(apsw.VFSFile):
    """A file of SQLite that notes what is done to it."""

    def __init__(self, recorder, name, flags):
        self._path = name.filename() if isinstance(name, apsw.URIFilename) else name
        super().__init__("unix", name, flags)
        self._recorder = recorder
        self._file = recorder.file_at(self._path) if self._path else None
        # As SQLite's own layer for unix does it: with the first sync of a journal that it made.
        self._syncs_folder = bool(self._path) and self._path.endswith(("-wal", "-journal"))

    def xWrite(self, data, offset):  # noqa: N802
        super().xWrite(data, offset)
        if self._file is not None:
            self._recorder.wrote(self._file, offset, bytes(data))

    def xTruncate(self, size):  # noqa: N802
        super().xTruncate(size)
        if self._file is not None:
            self._recorder.resized(self._file, size)

    def xSync(self, flags):  # noqa: N802
        since = len(self._recorder.log)
        super().xSync(flags)
        if self._file is not None:
            self._recorder.log.append(("sync", self._file, since))
            if self._syncs_folder:
                self._syncs_folder = False
                self._recorder.log.append(("sync_folder", os.path.dirname(self._path), since))


class _Vfs(apsw.VFS):
    """SQLite's way to the disk, past the recorder. It is the default while it lives."""

    def __init__(self, recorder):
        self._recorder = recorder
        super().__init__(_VFS, "unix", makedefault=True)

    def xOpen(self, name, flags):  # noqa: N802
        return _File(self._recorder, name, flags)

    def xDelete(self, name, sync_folder):  # noqa: N802
        super().xDelete(name, sync_folder)
        self._recorder.unlinked(name)
        if sync_folder:
            log = self._recorder.log
            log.append(("sync_folder", os.path.dirname(name), len(log)))


class Recorder:
    """Notes what the process asks of the disk below `root`; use it with `with`.

    `log` has tuples: ("write", file, offset, data), ("resize", file, size), ("sync", file, since),
    ("link", path, file), ("unlink", path), ("sync_folder", path, since), ("mark", anything).
    A sync covers what stands before `since` in the log: others may have written meanwhile.
    """

    def __init__(self, root):
        self.root = os.fspath(root)
        self.log = []
        self._numbers = itertools.count()
        self._files = {}  # by path
        self._sizes = {}  # by file
        self._fds = {}  # to path and file

    def __enter__(self):
        self._patch = pytest.MonkeyPatch()
        self._real = {
            name: getattr(os, name)
            for name in [
                "open",
                "close",
                "write",
                "writev",
                "pwrite",
                "ftruncate",
                "fsync",
                "fdatasync",
                "unlink",
                "mkdir",
                "rename",
            ]
        }
        for name in self._real:
            self._patch.setattr(os, name, getattr(self, f"_{name}"))
        self._vfs = _Vfs(self)
        return self

    def __exit__(self, *_):
        self._patch.undo()
        apsw.set_default_vfs("unix")
        self._vfs.unregister()

    def mark(self, what):
        """Note that something was said to others."""
        self.log.append(("mark", what))

    # --- what was done ----------------------------------------------------------------------------

    def file_at(self, path):
        """The number of a file, which is made if need be."""
        if path not in self._files:
            self._files[path] = file = next(self._numbers)
            self._sizes[file] = 0
            self.log.append(("link", path, file))
        return self._files[path]

    def wrote(self, file, offset, data):
        self._sizes[file] = max(self._sizes[file], offset + len(data))
        self.log.append(("write", file, offset, data))

    def resized(self, file, size):
        self._sizes[file] = size
        self.log.append(("resize", file, size))

    def unlinked(self, path):
        if self._files.pop(path, None) is not None:
            self.log.append(("unlink", path))

    # --- instead of those of `os` -----------------------------------------------------------------

    def _is_ours(self, path):
        return isinstance(path, str) and (path + "/").startswith(self.root + "/")

    def _open(self, path, flags, mode=0o777, *, dir_fd=None):
        fd = self._real["open"](path, flags, mode, dir_fd=dir_fd)
        path = os.fspath(path) if not isinstance(path, int) else ""
        if self._is_ours(path):
            if flags & os.O_DIRECTORY:
                self._fds[fd] = path, FOLDER
            elif flags & os.O_CREAT or path in self._files:
                self._fds[fd] = path, self.file_at(path)
                if flags & os.O_TRUNC:
                    self.resized(self._fds[fd][1], 0)
        return fd

    def _close(self, fd):
        self._fds.pop(fd, None)
        self._real["close"](fd)

    def _write(self, fd, data):
        return self._append(fd, self._real["write"](fd, data), bytes(data))

    def _writev(self, fd, pieces):
        return self._append(fd, self._real["writev"](fd, pieces), b"".join(pieces))

    def _append(self, fd, count, data):
        if fd in self._fds:
            file = self._fds[fd][1]
            self.wrote(file, self._sizes[file], data[:count])
        return count

    def _pwrite(self, fd, data, offset):
        count = self._real["pwrite"](fd, data, offset)
        if fd in self._fds:
            self.wrote(self._fds[fd][1], offset, bytes(data)[:count])
        return count

    def _ftruncate(self, fd, size):
        self._real["ftruncate"](fd, size)
        if fd in self._fds:
            self.resized(self._fds[fd][1], size)

    def _fsync(self, fd):
        self._sync(self._real["fsync"], fd)

    def _fdatasync(self, fd):
        self._sync(self._real["fdatasync"], fd)

    def _sync(self, real, fd):
        since = len(self.log)
        real(fd)
        if fd in self._fds:
            path, file = self._fds[fd]
            is_folder = file == FOLDER
            self.log.append(("sync_folder", path, since) if is_folder else ("sync", file, since))

    def _unlink(self, path, *, dir_fd=None):
        self._real["unlink"](path, dir_fd=dir_fd)
        if self._is_ours(os.fspath(path)):
            self.unlinked(os.fspath(path))

    def _rename(self, path, to, *, src_dir_fd=None, dst_dir_fd=None):
        """The old name may stay: then nobody knows it, and nothing is wrong but some room lost."""
        self._real["rename"](path, to, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        if self._is_ours(os.fspath(path)):
            self._files[os.fspath(to)] = file = self._files.pop(os.fspath(path))
            self.log.append(("link", os.fspath(to), file))

    def _mkdir(self, path, mode=0o777, *, dir_fd=None):
        self._real["mkdir"](path, mode, dir_fd=dir_fd)
        if self._is_ours(os.fspath(path)):
            self.log.append(("link", os.fspath(path), FOLDER))


class Disk:
    """What is on the disk, and what is only on its way there."""

    def __init__(self, root, *, leaves_zeros=False):
        """`leaves_zeros`: a file may have its new size though what was written is not there."""
        self._root = os.fspath(root)
        self._leaves_zeros = leaves_zeros
        self._files = {}  # to bytes
        self._waiting = {}  # by file: (place in the log, operation)
        self._names = {self._root: FOLDER}
        self._waiting_names = {}  # by folder: (place in the log, path, file or None)

    def feed(self, place, entry):
        """The next entry of the log, which has this place in it."""
        kind, what, *rest = entry
        if kind in ("write", "resize"):
            self._waiting.setdefault(what, []).append((place, rest))
        elif kind == "sync":
            content = self._files.setdefault(what, bytearray())
            waiting = self._waiting.pop(what, [])
            for at, operation in waiting:
                if at < rest[0]:
                    _apply(content, *operation)
            self._waiting[what] = [one for one in waiting if one[0] >= rest[0]]
        elif kind in ("link", "unlink"):
            names = self._waiting_names.setdefault(os.path.dirname(what), [])
            names.append((place, what, rest[0] if rest else None))
        elif kind == "sync_folder":
            waiting = self._waiting_names.pop(what, [])
            for at, path, file in waiting:
                if at < rest[0]:
                    _name(self._names, path, file)
            self._waiting_names[what] = [one for one in waiting if one[0] >= rest[0]]

    def image(self, rng):
        """Paths below the root, to bytes or None for a folder, as a power loss may leave them."""
        luck = rng.choice((_Nothing, _Everything, _Before, _Whole, _Torn, _Torn))(rng, self)
        names = dict(self._names)
        for place, path, file in sorted(itertools.chain(*self._waiting_names.values())):
            if luck.has(place):
                _name(names, path, file)
        image = {}
        for path, file in names.items():
            folders = itertools.takewhile(lambda p: len(p) >= len(self._root), _parents(path))
            if path == self._root or any(folder not in names for folder in folders):
                continue
            image[os.path.relpath(path, self._root)] = (
                None if file == FOLDER else bytes(self._content(file, luck, rng))
            )
        return image

    def _content(self, file, luck, rng):
        content = bytearray(self._files.get(file, b""))
        for place, (first, *rest) in self._waiting.get(file, ()):
            if not rest:  # a new size
                if luck.has(place):
                    _apply(content, first)
                continue
            (data,) = rest
            for offset, piece in _sectors(first, data) if luck.tears else ((first, data),):
                if luck.has(place):
                    _apply(content, offset, piece)
            if self._leaves_zeros and len(content) < first + len(data) and rng.random() < 0.5:
                _apply(content, first + len(data))
        return content

    def places(self):
        """Of all operations that are not synced, their places in the log."""
        waiting = itertools.chain(self._waiting.values(), self._waiting_names.values())
        return [entry[0] for entries in waiting for entry in entries]


class _Nothing:
    """Nothing that was not synced."""

    tears = False

    def __init__(self, rng, disk):
        self._rng = rng

    def has(self, place):
        return False


class _Everything(_Nothing):
    """All of it: the process died, not the machine."""

    def has(self, place):
        return True


class _Before(_Nothing):
    """All up to some moment, and nothing after it."""

    def __init__(self, rng, disk):
        self._until = rng.choice(disk.places() or [0])

    def has(self, place):
        return place < self._until


class _Whole(_Nothing):
    """Any of the operations, each one whole."""

    def has(self, place):
        return self._rng.random() < 0.5


class _Torn(_Whole):
    """Any of the sectors, and most or few of them."""

    tears = True

    def __init__(self, rng, disk):
        self._rng = rng
        self._share = rng.choice((0.1, 0.5, 0.9))

    def has(self, place):
        return self._rng.random() < self._share


def _apply(content, offset, data=None):
    """A write, or a new size if there is no data."""
    if data is None:
        del content[offset:]
    content.extend(bytes(max(0, offset - len(content))))
    if data is not None:
        content[offset : offset + len(data)] = data


def _name(names, path, file):
    if file is None:
        names.pop(path, None)
    else:
        names[path] = file


def _parents(path):
    while path != "/":
        path = os.path.dirname(path)
        yield path


def _sectors(offset, data):
    at = 0
    while at < len(data):
        length = SECTOR - (offset + at) % SECTOR
        yield offset + at, data[at : at + length]
        at += length


def images(log, root, count, seed, see, **options):
    """Crash images at `count` random cuts of a log, in its order, as (cut, image).

    Half of the cuts are right before a sync, where most is at stake.
    `see` is called with every mark that stands before the cut.
    """
    rng = random.Random(seed)
    disk, fed = Disk(root, **options), 0
    syncs = [place for place, entry in enumerate(log) if entry[0].startswith("sync")] or [len(log)]
    cuts = (rng.choice((rng.choice(syncs), rng.randint(1, len(log)))) for _ in range(count))
    for cut in sorted(cuts):
        for place in range(fed, cut):
            if log[place][0] == "mark":
                see(log[place][1])
            else:
                disk.feed(place, log[place])
        fed = cut
        yield cut, disk.image(rng)


def write_image(image, to):
    """Put an image into an empty folder."""
    to = Path(to)
    to.mkdir()
    for path, content in sorted(image.items()):
        if content is None:
            (to / path).mkdir(mode=0o700)
        else:
            (to / path).write_bytes(content)
