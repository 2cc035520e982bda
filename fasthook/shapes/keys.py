"""Which keys of an object are names that its sender made up once, and which are data."""

import re
from collections.abc import Iterable
from typing import Final

#: More of them are no names.
MAX_NAMES: Final = 256
_LONGEST_NAME: Final = 64
_DATA: Final = re.compile(
    r"""|\d+                                        # a number, or nothing
    |[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}          # a UUID
    |[0-9a-f]{16,}|(?=[^\d]*\d)[A-Za-z0-9+/=]{24,}  # a digest; any text of 24 with a digit
    |.*\d{4}-\d\d.*|.*\d{5,}.*                      # a date, an id with a number
    |[A-Za-z]{1,8}[_-](?=.*\d.*\d)[A-Za-z0-9]{10,}  # such as "pi_3Nk1aB2c4D5e"
    |[\d.:]{7,}                                     # an address
    |.*[@\s\\"'\x00-\x1f].*|.*://.*               # msgspec names no field like most of these""",
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)


def is_data(key: str) -> bool:
    """Whether a key is data by its look: an id, a date, an address."""
    return len(key) > _LONGEST_NAME or _DATA.fullmatch(key) is not None


def are_data(keys: Iterable[str]) -> bool:
    """Whether one of them is: then all are taken for data."""
    return any(map(is_data, keys))
