"""What systemd is told: the protocol of sd_notify(3). Without systemd nothing happens."""

import os
import socket
import time
from typing import Final

_WATCHDOG_USEC: Final = "WATCHDOG_USEC"
_TIMEOUT_S: Final = 0.2


class Notifier:
    """The manager's socket, if there is one."""

    def __init__(self) -> None:
        """Takes it out of the environment: what we start is not to speak for us."""
        path = os.environ.pop("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        is_ours = os.environ.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        usec = os.environ.pop(_WATCHDOG_USEC, "")
        self.watchdog_s = int(usec) / 1e6 if usec.isdecimal() and is_ours else 0.0

    def ready(self, status: str) -> None:
        """The service is started, or has been reloaded."""
        self._send(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """The service loads its configuration again."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def patience(self, seconds: float) -> None:
        """The start, or the end, takes longer: ask to be left alone for so long from now on."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def stopping(self) -> None:
        """The service drains."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """All is well; expected every `watchdog_s`."""
        self._send("WATCHDOG=1")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(_TIMEOUT_S)  # a manager that does not read must not hold us up
            try:
                sender.connect(self._address)
                sender.send(text.encode())
            except OSError:
                pass  # nobody listens any more; the manager finds out by itself
