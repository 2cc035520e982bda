"""`nothing`: nothing at all, to measure what everything else costs."""

from typing import Any

from fasthook.model import Event, handler


@handler
async def nothing(event: Event[Any]) -> None:
    """Be done with the event."""
