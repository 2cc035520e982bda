"""`log`: a line for each event, with its payload if it is short; for a first look."""

from typing import Any

from fasthook import logs
from fasthook.handling import handler
from fasthook.model import Event

#: Of the body, what a line shows.
_SHOWN_BYTES = 200


@handler(retries=0)
async def log(event: Event[Any]) -> None:
    """Write id, type, size and the beginning of the body."""
    body = event.body[:_SHOWN_BYTES].decode("utf-8", "replace")
    logs.log.info(
        "event",
        endpoint=event.endpoint,
        type=event.type,
        id=event.id,
        bytes=len(event.body),
        body=body + ("…" if len(event.body) > _SHOWN_BYTES else ""),
    )
