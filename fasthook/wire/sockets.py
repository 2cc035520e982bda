"""Listening sockets, from what the configuration says: `tcp://`, `unix:`, `systemd`."""

import contextlib
import grp
import os
import socket
import stat
from typing import NamedTuple
from urllib.parse import urlsplit

from fasthook.errors import ConfigError

BACKLOG = 1024
_FIRST_SYSTEMD_FD = 3  # SD_LISTEN_FDS_START of sd_listen_fds(3)
#: `FileDescriptorName=` of the socket for health and metrics; any other name is for requests.
ADMIN_NAME = "admin"


class Sockets(NamedTuple):
    """Listening sockets of a service."""

    public: list[socket.socket]
    admin: list[socket.socket]
    paths: list[str]  # of those files which are ours: others were passed to us

    def close(self) -> None:
        """Close them here: other processes may go on to accept."""
        for each in self.public + self.admin:
            each.close()

    def remove(self) -> None:
        """Remove the files of unix sockets, and close them."""
        for path in self.paths:
            with contextlib.suppress(OSError):
                os.unlink(path)
        self.close()


def address_of(opened: socket.socket) -> str:
    """The address that a socket listens on, as the configuration has it."""
    name = opened.getsockname()
    if opened.family == socket.AF_UNIX:
        return f"unix:{name}"
    host = f"[{name[0]}]" if opened.family == socket.AF_INET6 else name[0]
    return f"tcp://{host}:{name[1]}"


def open_sockets(
    address: str, *, mode: int = 0o660, group: str = "", is_admin: bool = False
) -> list[socket.socket]:
    """Listening, non-blocking sockets for one address. Raises `ConfigError`.

    `is_admin`: for health and metrics; of systemd's, the one that is named `ADMIN_NAME`.
    """
    try:
        if address == "systemd":
            return _inherited(is_admin=is_admin)
        if address.startswith("unix:"):
            return [_unix(address.removeprefix("unix:"), mode, group)]
        return [_tcp(*parse_tcp(address))]
    except OSError as error:
        raise ConfigError(f"can't listen on {address}: {error.strerror or error}") from None


def check_address(address: str) -> None:
    """Raise `ConfigError` unless `open_sockets` knows this kind of address."""
    if address == "systemd":
        return
    path = address.removeprefix("unix:")
    if path in ("", address):
        parse_tcp(address)
    elif not os.path.isdir(os.path.dirname(os.path.abspath(path))):
        raise ConfigError(f"{address!r}: no such directory: {os.path.dirname(path)}")


def parse_tcp(address: str) -> tuple[str, int]:
    """Host and port of `tcp://HOST:PORT`. Raises `ConfigError`."""
    parts = urlsplit(address)
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"{address!r}: {error}") from None
    if parts.scheme != "tcp" or not host or port is None or parts.path:
        raise ConfigError(f"{address!r}: expected tcp://HOST:PORT, unix:/PATH or systemd")
    return host, port


def _tcp(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setblocking(False)
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def _unix(path: str, mode: int, group: str) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        _remove_stale(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.setblocking(False)
        # Nobody connects between bind and chmod: the socket is born with no permissions.
        before = os.umask(0o777)
        try:
            listening.bind(path)
        finally:
            os.umask(before)
        if group:
            try:
                os.chown(path, -1, grp.getgrnam(group).gr_gid)
            except KeyError:
                raise ConfigError(f"socket_group: no group named {group!r}") from None
        os.chmod(path, mode)
        listening.listen(BACKLOG)
    except (OSError, ConfigError):
        listening.close()
        raise
    return listening


def _remove_stale(path: str) -> None:
    """Remove the socket file that a killed process left; leave anything else alone."""
    if not stat.S_ISSOCK(os.stat(path).st_mode):
        raise ConfigError(f"can't listen on unix:{path}: a file that is no socket stands there")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise ConfigError(f"can't listen on unix:{path}: another process listens there")


def _inherited(*, is_admin: bool) -> list[socket.socket]:
    """What systemd passed for requests, or for health and metrics: never one for the other."""
    names = _inherited_names()
    wanted = [fd for fd, name in names.items() if (name == ADMIN_NAME) == is_admin]
    if not wanted:
        got = ", ".join(names.values()) or "none"
        expected = f"named {ADMIN_NAME!r}" if is_admin else f"with a name other than {ADMIN_NAME!r}"
        raise ConfigError(
            f"listen = 'systemd', but systemd passed no socket {expected} (got: {got}); "
            "see FileDescriptorName= of its unit"
        )
    sockets = [socket.socket(fileno=fd) for fd in wanted]
    for inherited in sockets:
        os.set_inheritable(inherited.fileno(), False)
        inherited.setblocking(False)
        if not inherited.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise ConfigError(
                f"listen = 'systemd', but {names[inherited.fileno()]!r} does not listen; "
                "expected a ListenStream= with Accept=no"
            )
    return sockets


def _inherited_names() -> dict[int, str]:
    """Descriptor → its name, of what systemd passed to this process: sd_listen_fds(3)."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        raise ConfigError("listen = 'systemd', but no socket was passed by systemd (LISTEN_PID)")
    text = os.environ.get("LISTEN_FDS", "0")
    if not (text.isascii() and text.isdigit()):
        raise ConfigError(f"listen = 'systemd', but LISTEN_FDS is {text!r}; expected a number")
    count = int(text)
    if not count:
        raise ConfigError("listen = 'systemd', but systemd passed no socket (LISTEN_FDS)")
    # Managers that know no names give none.
    names = os.environ.get("LISTEN_FDNAMES", ":".join(["unknown"] * count)).split(":")
    if len(names) != count:
        raise ConfigError(f"listen = 'systemd': {count} sockets, but {len(names)} LISTEN_FDNAMES")
    return {_FIRST_SYSTEMD_FD + index: name for index, name in enumerate(names)}
