"""`nothing`: nothing at all, to measure what everything else costs."""

from typing import Any

from fasthook.handling import handler
from fasthook.model import Event


@handler
async def nothing(event: Event[Any]) -> None:
    """Be done with the event."""
