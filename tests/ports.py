"""Ports for servers that have to be told theirs."""

import contextlib
import socket


def free_ports(count: int) -> list[int]:
    """Ports on which nobody listens just now."""
    with contextlib.ExitStack() as sockets:
        opened = [sockets.enter_context(socket.create_server(("", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in opened]
