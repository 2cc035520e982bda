"""`fasthook resume`: see `pause`."""

from fasthook.cli.pause import resume as command

__all__ = ["command"]
