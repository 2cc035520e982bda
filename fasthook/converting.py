"""A tree, as a file has it, into a struct; or a `ConfigError` that says what was got, what was
expected, and where: msgspec's message, turned round.
"""

import difflib
import re
from collections.abc import Callable
from typing import Any, Final, Literal, TypeVar, get_args, get_origin

import msgspec

from fasthook import values
from fasthook.errors import ConfigError

S = TypeVar("S", bound=msgspec.Struct)
#: Of endpoints and handlers.
NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z"
_TYPES: Final = {"array": 'a list, such as ["…"]', "object": "a table"}
# What msgspec shows as a pattern, in words.
_PATTERNS: Final = {
    NAME: "a name of letters, digits, '.', '_' and '-'",
    r"^/[!-~]*\Z": "a path that begins with / and has no spaces",
    r"^0?[0-7]{3}\Z": 'permissions such as "0660"',
}


def convert(
    tree: Any,
    wanted: type[S],
    where: str = "",
    *,
    hook: Callable[[type, Any], Any] = values.decode,
) -> S:
    """`tree` as a struct. Raises `ConfigError` with the key's full path below `where`."""
    try:
        return msgspec.convert(tree, wanted, dec_hook=hook)
    except msgspec.ValidationError as error:
        raise ConfigError(_explain(str(error), tree, wanted, where)) from None


def _explain(message: str, tree: Any, wanted: Any, where: str) -> str:
    """msgspec's message, turned round: path first, then got and expected."""
    what, _, at = message.partition(" - at `")
    path = at.removesuffix("`").removeprefix("$").removeprefix(".")
    if "[...]" in path or at.startswith("key"):
        path = _found_path(tree, wanted, what, path)
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", what)
    missing = re.fullmatch(r"Object missing required field `(.*)`", what)
    place = _readable(".".join(part for part in (where, path) if part), tree)
    if unknown:
        known = _fields_at(wanted, path)
        close = difflib.get_close_matches(unknown[1], known, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"expected one of: {', '.join(known)}"
        return f"{_join(place, unknown[1])}: unknown key; {hint}"
    if missing:
        return f"{_join(place, missing[1])}: missing"
    for pattern, words in _PATTERNS.items():
        what = what.replace(f"`str` matching regex {pattern!r}", words)
    for name, words in _TYPES.items():
        what = what.replace(f"`{name}`", words)
    if what.startswith("Invalid enum value"):
        what += f"; expected one of: {', '.join(map(str, _choices_at(wanted, path)))}"
    got = _got(tree, path) if what.startswith("Expected") and "got `" not in what else ""
    return f"{place or 'the file'}: {got}{what[:1].lower()}{what[1:]}"


def _choices_at(wanted: Any, path: str) -> list[Any]:
    """The values that a key with a few of them may have."""
    parent, _, key = re.sub(r"\[[^]]*\]$", "", path).rpartition(".")
    for part in filter(None, re.split(r"\.|\[(?:\d+|\.\.\.)\]", parent)):
        wanted = _table_at(wanted, part)
    kinds = [f.type for f in msgspec.structs.fields(wanted) if f.encode_name == key]
    while kinds and get_origin(kinds[0]) is not Literal:
        kinds = [a for a in get_args(kinds[0]) if get_args(a)] + kinds[1:]
    return list(get_args(kinds[0])) if kinds else []


def _found_path(tree: Any, wanted: Any, what: str, path: str) -> str:
    """The path with the key that msgspec leaves out of tables with free names."""
    table = tree.get("handlers") if isinstance(tree, dict) else None
    if not isinstance(table, dict):
        return path
    for name, value in table.items():
        if not re.match(NAME, name) or not isinstance(value, dict):
            return f"handlers.{name}"
    return path


def _got(tree: Any, path: str) -> str:
    """`404; ` for a plain value at `path`; nothing where msgspec says what it got, or a secret."""
    for part in re.findall(r"[^.\[\]]+", path):
        try:
            tree = tree[int(part)] if isinstance(tree, list) else tree[part]
        except (KeyError, IndexError, ValueError, TypeError):
            return ""
    is_shown = isinstance(tree, int | float | str) and "secret" not in path
    return f"{tree!r}; " if is_shown and "sign_with" not in path else ""


def _join(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def _readable(path: str, tree: Any) -> str:
    """`endpoint[1].rate` → `endpoint[1] ("stripe").rate`: numbers alone are hard to find."""
    match = re.match(r"endpoint\[(\d+)\]", path)
    if not match:
        return path
    entries = tree.get("endpoint", []) if isinstance(tree, dict) else []
    entry = entries[int(match[1])] if int(match[1]) < len(entries) else None
    name = entry.get("name") if isinstance(entry, dict) else None
    if not isinstance(name, str) or not name.isprintable():
        return path
    return f'{match[0]} ("{name}"){path[match.end() :]}'


def _fields_at(wanted: Any, path: str) -> list[str]:
    """Keys of the table at `path`."""
    for part in filter(None, re.split(r"\.|\[(?:\d+|\.\.\.)\]", path)):
        wanted = _table_at(wanted, part)
    return [f.encode_name for f in msgspec.structs.fields(wanted) if f.encode_name != "source"]


def _table_at(wanted: Any, key: str) -> Any:
    info = {f.encode_name: f.type for f in msgspec.structs.fields(wanted)}.get(key)
    candidates = [info, *get_args(info)]
    candidates += [inner for each in candidates[1:] for inner in get_args(each)]
    return next(
        (c for c in candidates if isinstance(c, type) and issubclass(c, msgspec.Struct)), wanted
    )
