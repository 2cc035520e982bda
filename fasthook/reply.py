"""What a sender is told where it wants more than a status."""

import msgspec


class Reply(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a sender is told where it wants more than a status."""

    status: int = 200
    content_type: str = "text/plain; charset=utf-8"
    body: str = ""
    headers: dict[str, str] = {}
