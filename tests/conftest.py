"""For all tests: how hypothesis works here."""

from hypothesis import HealthCheck, settings

# No deadline for one example: machines are shared, and a slow moment is no bug.
settings.register_profile(
    "fasthook", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("fasthook")
