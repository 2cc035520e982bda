"""Sites that end with their test."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.torture.helpers import Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Make folders with a configuration; what runs there ends with the test."""
    sites: list[Site] = []

    def make(**options: object) -> Site:
        folder = tmp_path / f"site{len(sites)}"
        sites.append(Site(folder, **options))  # type: ignore[arg-type]
        return sites[-1]

    yield make
    for one in sites:
        one.end()
