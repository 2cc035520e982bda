"""journald's end of its native protocol (https://systemd.io/JOURNAL_NATIVE_PROTOCOL/)."""

import fcntl
import os
import socket
import struct
import threading
from pathlib import Path

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


def decode(data: bytes) -> dict[str, str]:
    """The fields of one entry; fails where journald would drop it or a part of it."""
    fields = {}
    while data:
        line, end, data = data.partition(b"\n")
        assert end, "a field without its end"
        if b"=" in line:
            name, _, value = line.partition(b"=")
        else:
            name = line
            (length,) = struct.unpack("<Q", data[:8])
            value, end, data = (
                data[8 : 8 + length],
                data[8 + length : 9 + length],
                data[9 + length :],
            )
            assert len(value) == length
            assert end == b"\n"
        key = name.decode("ascii")
        assert key.replace("_", "A").isalnum()
        assert key == key.upper()
        assert key[0].isalpha()
        assert len(key) <= 64
        assert key not in fields
        fields[key] = value.decode()
    return fields


class Journal:
    """Listens at `path` and keeps the entries; `memfds` counts those that came by descriptor."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[dict[str, str]] = []
        self.memfds = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while True:
            data, descriptors, _, _ = socket.recv_fds(self._socket, 1 << 20, 1)
            if data == b"end":
                return
            if descriptors:
                assert data == b""
                self.memfds += 1
                # systemd takes none that the sender could still change.
                assert fcntl.fcntl(descriptors[0], fcntl.F_GET_SEALS) == SEALS
                with open(descriptors[0], "rb") as file:
                    data = os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)
            self.entries.append(decode(data))

    def close(self) -> list[dict[str, str]]:
        """The entries, once all that was sent has been read; nothing listens any more."""
        if self._thread.is_alive():
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
                last.sendto(b"end", str(self.path))
            self._thread.join(10)
            self._socket.close()
            self.path.unlink()
        return self.entries
