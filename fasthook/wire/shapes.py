"""What the names of a head's fields say by themselves, found once for each set of names.

A sender always sends the same names, in the same order and spelling: lower-casing them for each
request would cost as much as looking up all that is needed.
"""

from typing import Final

import msgspec

#: Beyond: names are looked at each time. Anybody may invent some.
_MAX_SHAPES: Final = 512
_MAX_SHAPE_BYTES: Final = 2048
#: Fields that change how a message is framed or answered.
_SPECIAL: Final = frozenset({b"connection", b"transfer-encoding", b"expect", b"upgrade"})
_shapes: dict[tuple[bytes, ...], "Shape"] = {}


class Shape(msgspec.Struct, frozen=True):
    """A set of field names."""

    names: tuple[bytes, ...]  # in lower case, in the order they were sent
    count: int  # two spellings of one name count once, which does not fit the head then
    is_special: bool


def shape_of(names: tuple[bytes, ...]) -> Shape:
    """The shape of these names, as sent."""
    shape = _shapes.get(names)
    return shape if shape is not None else _new_shape(names)


def _new_shape(names: tuple[bytes, ...]) -> Shape:
    lower = tuple(name.lower() for name in names)
    shape = Shape(lower, len(set(lower)), not _SPECIAL.isdisjoint(lower))
    if len(_shapes) < _MAX_SHAPES and sum(map(len, names)) <= _MAX_SHAPE_BYTES:
        _shapes[names] = shape
    return shape
