"""Many datagrams with one system call, sendmmsg(2), which Python's socket module has not.

A thread that gives up the interpreter for each line, and waits for it again, costs a busy loop five
times what the lines themselves cost (bench/pairs.py).
"""

import array
import ctypes
import socket
from collections.abc import Sequence
from typing import Final

#: Of one call; Linux takes no more than 1024 (UIO_MAXIOV).
MAX_DATAGRAMS: Final = 512
_WORD: Final = "Q" if ctypes.sizeof(ctypes.c_void_p) == 8 else "I"


class _Message(ctypes.Structure):
    """`struct msghdr` of recvmsg(2)."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("parts", ctypes.c_void_p),
        ("part_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Header(ctypes.Structure):
    """`struct mmsghdr` of recvmmsg(2)."""

    _fields_ = (("message", _Message), ("sent_bytes", ctypes.c_uint))


class Sender:
    """Sends on a connected socket, which it does not close."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._send = libc.sendmmsg
        self._send.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)
        # Of each datagram its one part, `struct iovec`: address and length.
        self._parts = array.array(_WORD, bytes(2 * MAX_DATAGRAMS * ctypes.sizeof(ctypes.c_void_p)))
        first, _ = self._parts.buffer_info()
        self._headers = (_Header * MAX_DATAGRAMS)()
        for index, header in enumerate(self._headers):
            header.message.parts = first + 2 * index * self._parts.itemsize
            header.message.part_count = 1

    def send(self, opened: socket.socket, datagrams: Sequence[bytes]) -> int:
        """How many were sent, from the first on, of at most `MAX_DATAGRAMS`; waits for room.

        Raises `OSError` where the first can't be sent.
        """
        whole = b"".join(datagrams)  # lives until the call is over
        address = ctypes.cast(ctypes.c_char_p(whole), ctypes.c_void_p).value or 0
        parts = self._parts
        for index, datagram in enumerate(datagrams):
            parts[2 * index] = address
            parts[2 * index + 1] = length = len(datagram)
            address += length
        sent: int = self._send(opened.fileno(), self._headers, len(datagrams), 0)
        if sent < 0:
            raise OSError(ctypes.get_errno(), "sendmmsg")
        return sent
