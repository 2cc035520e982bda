"""When to try again. Pure: attempt and chance in, seconds out."""

from typing import Final

_DELAYS_S: Final = (5.0, 25.0, 125.0, 625.0, 3125.0)


def delay_s(attempt: int, chance: float) -> float:
    """Seconds to wait after attempt number `attempt` failed.

    5 s, 25 s, 2 min, 10 min, 52 min, and 52 min for ever after; each × (0.5 + `chance`) with
    0 ≤ `chance` < 1, so that events that failed together do not come back together.
    """
    return _DELAYS_S[min(attempt, len(_DELAYS_S)) - 1] * (0.5 + chance)
