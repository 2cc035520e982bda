"""Servers and projects, which end with their test."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.recipes.projects import Project
from tests.recipes.servers import Api, Mailbox


@pytest.fixture
def mailbox():
    """A real SMTP server."""
    with contextlib.closing(Mailbox()) as box:
        yield box


@pytest.fixture
def new_api():
    """HTTP servers on loopback."""
    with contextlib.ExitStack() as stack:
        yield lambda value=None: stack.enter_context(contextlib.closing(Api(value)))


def _memory() -> str | None:
    """A file system in memory, if there is one with room: containers may have 64 MB."""
    is_there = os.access("/dev/shm", os.W_OK)
    return "/dev/shm" if is_there and shutil.disk_usage("/dev/shm").free > 2**30 else None


@pytest.fixture
def new_project():
    """Projects made of recipes, in folders of their own.

    In memory: processes are killed here, not machines, so that no sync has to be waited for.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=_memory())))

        def new(recipe, name="shop", **environment):
            project = Project(recipe, folder / name, **environment)
            return stack.enter_context(contextlib.closing(project))

        yield new
