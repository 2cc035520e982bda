"""What was seen at each place of some payloads."""

from typing import Any, Final, Literal, get_args

from fasthook.shapes.keys import MAX_NAMES, are_data

#: In the order in which they are written. "any": not looked at any further.
Kind = Literal["object", "array", "string", "bytes", "integer", "number", "boolean", "null", "any"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
_MAX_DEPTH: Final = 24
#: Of one root; what is new beyond that is "any".
_MAX_PLACES: Final = 20_000
#: With so many objects and keys, of which each object has few, keys are data.
_MANY_OBJECTS: Final = 5
_MANY_KEYS: Final = 8
_FEW: Final = 0.3


def kind_of(value: Any) -> Kind:
    """Of what JSON, or a form, holds."""
    return _KINDS.get(type(value), "any")


_KINDS: Final[dict[type, Kind]] = {
    dict: "object",
    list: "array",
    str: "string",
    bytes: "bytes",
    bool: "boolean",
    int: "integer",
    float: "number",
    type(None): "null",
}


class Shape:
    """The values that were seen at one place."""

    __slots__ = ("kinds", "objects", "fields", "counts", "inner", "is_map", "_root", "_places")

    def __init__(self, root: "Shape | None" = None) -> None:
        """`root`: the one that counts all places; none: it is the root."""
        self.kinds: set[Kind] = set()
        self.objects = 0
        self.fields: dict[str, Shape] = {}
        self.counts: dict[str, int] = {}  # how many of the objects have the field
        self.inner: dict[str, Shape] = {}  # "array": of all items; "object": of a map's values
        self.is_map = False  # the keys of its objects are data
        self._root = root or self
        self._places = 0

    def add(self, value: Any, depth: int = 0) -> None:
        """Take a value into account."""
        if "any" in self.kinds:
            return  # it is not looked at any further
        kind = kind_of(value)
        if depth > _MAX_DEPTH and kind in ("object", "array"):
            kind = "any"
        self.kinds.add(kind)
        if kind == "array":
            for item in value:
                self._inner("array").add(item, depth + 1)
        elif kind == "object":
            self._add_object(value, depth)

    def _add_object(self, value: dict[str, Any], depth: int) -> None:
        self.objects += 1
        if not self.is_map and (are_data(value) or len(self.fields) > MAX_NAMES):
            self._become_map()
        for key, inner in value.items():
            if self.is_map:
                self._inner("object").add(inner, depth + 1)
                continue
            shape = self.fields.get(key)
            if shape is None:
                shape = self.fields[key] = self._new()
                self.counts[key] = 0
            self.counts[key] += 1
            shape.add(inner, depth + 1)

    def _new(self) -> "Shape":
        self._root._places += 1
        shape = Shape(self._root)
        if self._root._places > _MAX_PLACES:
            shape.kinds.add("any")
        return shape

    def _inner(self, kind: str) -> "Shape":
        found = self.inner.get(kind)
        if found is None:
            found = self.inner[kind] = self._new()
        return found

    def _become_map(self) -> None:
        """Keys are data from now on, and so were those before."""
        self.is_map = True
        for shape in self.fields.values():
            self._inner("object").merge(shape)
        self.fields, self.counts = {}, {}

    def merge(self, other: "Shape") -> None:
        """Take all into account that the other one has."""
        self.kinds |= other.kinds
        self.objects += other.objects
        if other.is_map and not self.is_map:
            self._become_map()
        for kind, shape in other.inner.items():
            self._inner(kind).merge(shape)
        for key, shape in other.fields.items():
            if self.is_map:
                self._inner("object").merge(shape)
            else:
                mine = self.fields.get(key)
                if mine is None:
                    mine = self.fields[key] = self._new()
                mine.merge(shape)
                self.counts[key] = self.counts.get(key, 0) + other.counts[key]

    def settle(self) -> None:
        """Decide which objects are maps, now that all were seen: here and below."""
        if not self.is_map and self.fields and self._looks_like_map():
            self._become_map()
        for shape in (*self.fields.values(), *self.inner.values()):
            shape.settle()

    def _looks_like_map(self) -> bool:
        many = self.objects >= _MANY_OBJECTS and len(self.fields) >= _MANY_KEYS
        if len(self.fields) > MAX_NAMES:
            return True
        return many and sum(self.counts.values()) < _FEW * self.objects * len(self.fields)
