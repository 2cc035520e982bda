"""How people call a delivery: by three numbers that say where it stands."""

import re
from typing import Final

from fasthook.spool.journal import place_of, position_of

_NAME: Final = re.compile(r"([0-9]{1,4})\.([0-9]{1,7})\.([0-9]{1,9})", re.ASCII)
_MAX_POSITION: Final = 2**63 - 1


def position_named(text: str) -> int:
    """The position with this name. Raises `ValueError`."""
    match = _NAME.fullmatch(text)
    worker, segment, offset = map(int, match.groups()) if match else (0, 0, 0)
    position = position_of(worker, segment, offset)
    if match is None or position > _MAX_POSITION or place_of(position) != (worker, segment, offset):
        raise ValueError(f"{text!r}; expected the name of a delivery, such as 0.1.16")
    return position
