"""A module with msgspec structs for shapes: the same text for the same payloads, in any order.

No value is in it: keys that are data make a `dict[str, …]`, and texts are `str`.
"""

import itertools
import keyword
import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from fasthook.shapes.shape import KINDS, Shape

_PLAIN: Final = {
    "string": "str",
    "bytes": "bytes",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "null": "None",
}
#: Names that the module itself needs; within a class a field of that name would hide it.
_TAKEN: Final = frozenset(("typing", "msgspec", "dict", "list", *_PLAIN.values()))
_ANY: Final = "typing.Any"


class _Field(NamedTuple):
    key: str
    type: str
    is_optional: bool


def module_of(shapes: Mapping[str, Shape], text: str) -> str:
    """The source. `shapes`: event type → what was seen; `text`: its docstring."""
    for shape in shapes.values():
        shape.settle()
    return _Module(shapes).source(text)


class _Module:
    """Structs in the order in which they are needed."""

    def __init__(self, shapes: Mapping[str, Shape]) -> None:
        self._structs: dict[str, tuple[_Field, ...]] = {}  # name → fields
        self._names: dict[tuple[_Field, ...], str] = {}
        self._aliases: dict[str, str] = {}
        roots: dict[str, str] = {}
        for event_type in sorted(shapes):
            name = _free(_class_name(event_type) or "Payload", roots.values())
            roots[event_type] = name
        self._roots = set(roots.values())
        for event_type, name in roots.items():
            self._root(name, shapes[event_type])

    def _root(self, name: str, shape: Shape) -> None:
        if shape.kinds == {"object"} and not shape.is_map:
            self._structs[name] = self._fields(shape, name)
        else:
            self._aliases[name] = self._type(shape, f"{name}Item", name)

    def _type(self, shape: Shape, name: str, parent: str) -> str:
        """The annotation of a place. `name`: for a struct; with `parent` before it, if taken."""
        kinds = shape.kinds
        if not kinds or "any" in kinds or kinds == {"null"} or {"string", "bytes"} <= kinds:
            return _ANY
        parts = []
        for kind in KINDS:
            if kind not in kinds:
                continue
            if kind == "array":
                inner = shape.inner.get("array")
                parts.append(f"list[{self._type(inner, name, parent) if inner else _ANY}]")
            elif kind == "object":
                parts.append(self._object(shape, name, parent))
            else:
                parts.append(_PLAIN[kind])
        return " | ".join(parts)

    def _object(self, shape: Shape, name: str, parent: str) -> str:
        if shape.is_map or not shape.fields:
            inner = shape.inner.get("object")
            return f"dict[str, {self._type(inner, name, parent) if inner else _ANY}]"
        fields = self._fields(shape, name)
        known = self._names.get(fields)
        if known is None:
            taken = self._roots | self._structs.keys()
            known = name if name not in taken else _free(parent + name, taken)
            self._names[fields] = known
            self._structs[known] = fields
        return known

    def _fields(self, shape: Shape, name: str) -> tuple[_Field, ...]:
        fields = []
        for key in sorted(shape.fields):
            inner = shape.fields[key]
            type_ = self._type(inner, _class_name(key) or f"{name}Value", name)
            fields.append(_Field(key, type_, shape.counts[key] < shape.objects))
        return tuple(fields)

    def source(self, text: str) -> str:
        types = [field.type for fields in self._structs.values() for field in fields]
        types += self._aliases.values()
        lines = [f'"""{text}"""', ""]
        lines += ["import typing", ""] if any(_ANY in type_ for type_ in types) else []
        lines += ["import msgspec", ""] if self._structs else []
        globals_ = self._structs.keys() | self._aliases.keys() | _TAKEN
        for name, fields in self._structs.items():
            lines += ["", f"class {name}(msgspec.Struct, kw_only=True):"]
            lines += [*_body(fields, globals_), ""]
        for name, type_ in self._aliases.items():
            lines += ["", f"{name} = {type_}"]
        return "\n".join(lines).rstrip("\n") + "\n"


def _body(fields: tuple[_Field, ...], taken: Iterable[str]) -> list[str]:
    names: dict[str, str] = {}
    used = set(taken)
    for is_own in (True, False):  # a key that is a name keeps it
        for field in fields:
            if _is_name(field.key) is is_own:
                names[field.key] = _free(_identifier(field.key), used)
                used.add(names[field.key])
    lines = []
    for key, type_, is_optional in fields:
        has_none = type_ == _ANY or type_.endswith("None")
        if is_optional and not has_none:
            type_ += " | None"
        default = " = None" if is_optional else ""
        if names[key] != key:
            options = "default=None, " if is_optional else ""
            default = f" = msgspec.field({options}name={_quoted(key)})"
        lines.append(f"    {names[key]}: {type_}{default}")
    return lines or ["    pass"]


def _quoted(key: str) -> str:
    text = repr(key)
    return text if re.search(r"[\\\"]", text) else f'"{text[1:-1]}"'


def _is_name(key: str) -> bool:
    return key.isascii() and key.isidentifier() and not keyword.iskeyword(key) and key[0] != "_"


def _identifier(key: str) -> str:
    """The nearest name of a field."""
    name = re.sub(r"[^A-Za-z0-9]+", "_", key).lstrip("_") or "field"
    if name[0].isdigit():
        name = f"field_{name}"
    return f"{name}_" if keyword.iskeyword(name) else name


def _class_name(key: str) -> str:
    """ "pull_request" → "PullRequest"; empty where nothing is left of it."""
    words = re.findall(r"[A-Za-z0-9]+", key)
    name = "".join(word[0].upper() + word[1:] for word in words)
    if not name or name[0].isdigit():
        name = f"Type{name}" if name else ""
    return f"{name}_" if keyword.iskeyword(name) else name


def _free(name: str, taken: Iterable[str]) -> str:
    """The name, or with a number behind it."""
    used, found = set(taken), name
    for number in itertools.count(2):
        if found not in used:
            break
        found = f"{name}_{number}"
    return found
