"""For all tests: which form of the code runs, and how hypothesis works here.

Tests within this process run the source, which can be patched; services that tests start are
compiled, as users have them. `FASTHOOK_TEST=compiled` has compiled code here, too, and leaves out
the tests that patch it (marked `patches`).
"""

import os

import pytest
from hypothesis import HealthCheck, settings

_IS_COMPILED = os.environ.get("FASTHOOK_TEST") == "compiled"
if not _IS_COMPILED:
    import tests.interpreted

    assert tests.interpreted

# No deadline for one example: machines are shared, and a slow moment is no bug.
settings.register_profile(
    "fasthook", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("fasthook")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not _IS_COMPILED:
        return
    left_out = [item for item in items if item.get_closest_marker("patches")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
