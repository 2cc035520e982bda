"""Payload → the same payload without personal data and secrets.

What is replaced: values of keys that name such things (`keys`), and whatever looks like them in any
text (`patterns`). A name or secret that was found by its key is replaced in the other texts of the
same payload, too: in addresses of pages, say. Keys, types, lengths of lists and everything that
says nothing about a person stay: ids, types, states, times, amounts.
"""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from fasthook.errors import BadPayload
from fasthook.redacting.keys import is_neutral, kind_of
from fasthook.redacting.patterns import PATTERNS, Pattern
from fasthook.redacting.pseudonyms import Pseudonyms

#: Kinds that all texts and numbers below such a key are of, however deep.
_INHERITED: Final = ("secret", "secrets", "name", "address", "phone")
#: Kinds whose values are looked for in the other texts, and how long they are at least.
_SOUGHT: Final = ("secret", "secrets", "name", "person")
_SOUGHT_CHARS: Final = 5
#: Beyond, the values of one payload are not looked for in its other texts.
_MAX_SOUGHT: Final = 100
#: Kinds by which numbers are replaced; a number of `tokens` counts them.
_OF_NUMBERS: Final = ("secret", "address", "phone", "number", "card", "asked for")
#: What is of these kinds by its key, and does not look like one, is replaced as text.
_TEXT_KINDS: Final = {"email": "text", "ip": "text", "secrets": "secret", "person": "name"}
#: All below a path of --redact-also.
ASKED: Final = "asked for"

Path = tuple[str, ...]
_Leaf = Callable[[Any, str], Any]


class Paths:
    """Places that were named: `payload.customer.name`, `payload.items.*.note`, `header.x-user`."""

    def __init__(self, option: str, texts: Sequence[str]) -> None:
        """Raises `ValueError` that says what was expected."""
        self._paths: list[Path] = []
        self.unused = set(texts)
        self._texts = list(texts)
        for text in texts:
            path = tuple(text.split("."))
            if path[0] not in ("payload", "header") or not all(path):
                expected = '"payload.PATH" such as "payload.customer.name", or "header.NAME"'
                raise ValueError(f"{option} {text!r}; expected {expected}")
            self._paths.append(("header", text[7:].lower()) if path[0] == "header" else path)

    def __contains__(self, path: Path) -> bool:
        for named, text in zip(self._paths, self._texts, strict=True):
            if len(named) == len(path) and all(
                part in ("*", key) for part, key in zip(named, path, strict=True)
            ):
                self.unused.discard(text)
                return True
        return False


class Redactor:
    """Replaces in any number of payloads: the same value by the same pseudonym."""

    def __init__(self, keep: Sequence[str] = (), also: Sequence[str] = ()) -> None:
        """`keep`, `also`: paths that stay as they are, or are replaced with all below them.

        Raises `ValueError` for one that is none.
        """
        self._keep = Paths("--keep", keep)
        self._also = Paths("--redact-also", also)
        self._pseudonyms = Pseudonyms()
        self._sought: re.Pattern[str] | None = None
        self._kinds: dict[str, str] = {}  # of what is sought

    @property
    def counts(self) -> dict[str, int]:
        """How many values were replaced, by kind."""
        return dict(self._pseudonyms.counts.most_common())

    @property
    def unused(self) -> list[str]:
        """Paths that were named and stood nowhere."""
        return sorted(self._keep.unused | self._also.unused)

    def payload(self, value: Any) -> Any:
        """A decoded JSON value, replaced."""
        return self._replaced({"payload": value})["payload"]

    def json(self, body: bytes) -> bytes:
        """A body in JSON. Raises `BadPayload` where it is none, or can't be written again."""
        try:
            return _dumped(self.payload(json.loads(body, parse_constant=_no_number))).encode()
        except (ValueError, RecursionError) as error:
            raise BadPayload(f"the body is no JSON that can be written again: {error}") from None

    def form(self, body: bytes) -> bytes:
        """The body of a form; a field that holds JSON is replaced inside. Raises `BadPayload`."""
        try:
            fields = parse_qsl(body.decode("ascii"), True, errors="strict")
        except ValueError as error:
            raise BadPayload(f"the body is not a form: {error}") from None
        values: dict[str, list[str]] = {}
        for name, value in fields:
            values.setdefault(name, []).append(value)
        made = self._replaced({"payload": values})["payload"]
        names = dict(zip(values, made, strict=True))
        each = {name: iter(made[names[name]]) for name in values}
        return urlencode([(names[name], next(each[name])) for name, _ in fields]).encode()

    def header(self, name: str, value: str) -> str:
        """The value of a header that stands beside the payload that came last."""
        path = ("header", name.lower())
        return str(self._walk(value, path, self._kind("", name, "", path), self._replace))

    def text(self, text: str) -> str:
        """A text of no key: what it holds by its looks, replaced."""
        return str(self._replace(text, ""))

    def _replaced(self, tree: dict[str, Any]) -> Any:
        self._kinds = {}
        self._sought = None
        self._walk(tree, (), "", self._collect)
        if self._kinds:
            texts = sorted(self._kinds, key=len, reverse=True)  # the whole before a part of it
            self._sought = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, texts))})(?!\w)")
        return self._walk(tree, (), "", self._replace)

    # --- one value --------------------------------------------------------------------------------

    def _walk(self, value: Any, path: Path, kind: str, leaf: _Leaf) -> Any:
        """`value` with all of its texts and numbers as `leaf` has them."""
        if path in self._keep:
            return value
        if isinstance(value, dict):
            made: dict[str, Any] = {}
            for key, item in value.items():
                inner = (*path, key)
                new = leaf(key, "") if path else key
                while new in made:
                    new += "_"  # else a key would be lost, and with it a value
                made[new] = self._walk(
                    item, inner, self._kind(kind, key, _parent(path), inner), leaf
                )
            return made
        if isinstance(value, list):
            return [
                self._walk(
                    item, (*path, str(index)), self._kind(kind, "", "", (*path, str(index))), leaf
                )
                for index, item in enumerate(value)
            ]
        if isinstance(value, str) and not kind and value[:1] in ("{", "["):
            return self._walk_text(value, path, leaf)
        if isinstance(value, bool) or value is None:
            return value
        return leaf(value, kind)

    def _walk_text(self, text: str, path: Path, leaf: _Leaf) -> str:
        """A text that is JSON itself, as some senders wrap it."""
        try:
            value = json.loads(text, parse_constant=_no_number)
            made = self._walk(value, path, "", leaf)
            return text if made == value else self._pseudonyms.remember(_dumped(made))
        except ValueError:
            return str(leaf(text, ""))

    def _kind(self, outer: str, key: str, parent: str, path: Path) -> str:
        """Of what kind the value at `path` is, below one of the kind `outer`."""
        if outer == ASKED or path in self._also:
            return ASKED
        if not key:
            return outer  # an item of a list
        own = kind_of(key, parent)
        return own or (outer if outer in _INHERITED and not is_neutral(key) else "")

    def _collect(self, value: Any, kind: str) -> Any:
        """Take note of what is to be sought in the other texts."""
        is_sought = isinstance(value, str) and kind in _SOUGHT and len(value) >= _SOUGHT_CHARS
        if is_sought and len(self._kinds) < _MAX_SOUGHT and not self._pseudonyms.knows(value):
            self._kinds.setdefault(value, _TEXT_KINDS.get(kind, kind))
        return value

    def _replace(self, value: Any, kind: str) -> Any:
        if not isinstance(value, str):
            return self._number(value, kind)
        if not value or self._pseudonyms.knows(value):
            return value
        made = self._scrubbed(value, kind, PATTERNS)
        return made if made == value else self._pseudonyms.remember(made)

    def _number(self, value: int | float, kind: str) -> int | float:
        if not kind and isinstance(value, int):
            text = str(value)
            card = next((p for p in PATTERNS if p.kind == "card" and p.regex.fullmatch(text)), None)
            kind = "card" if card is not None and card.is_one(text) else ""
        return self._pseudonyms.number(kind, value) if kind in _OF_NUMBERS else value

    def _scrubbed(self, text: str, kind: str, patterns: Sequence[Pattern]) -> str:
        """What fits a pattern by that, and what is left by `kind`."""
        if not patterns:
            return self._rest(text, kind)
        pattern, later = patterns[0], patterns[1:]
        made, position = [], 0
        for match in pattern.regex.finditer(text):
            group = "it" if "it" in pattern.regex.groupindex else 0
            begin, end = match.span(group)
            if not pattern.is_one(match[group]):
                continue
            made.append(self._scrubbed(text[position : match.start()], kind, later))
            made.append(text[match.start() : begin])  # what tells that it is one: it stays
            made.append(self._pseudonyms.of(pattern.kind, match[group]))
            made.append(text[end : match.end()])
            position = match.end()
        if not made:
            return self._scrubbed(text, kind, later)
        return "".join([*made, self._scrubbed(text[position:], kind, later)])

    def _rest(self, text: str, kind: str) -> str:
        if not kind:
            return self._sought.sub(self._found, text) if self._sought is not None else text
        if text in self._kinds or not any(map(str.isspace, text[:1] + text[-1:])):
            return self._pseudonyms.of(_TEXT_KINDS.get(kind, kind), text) if text else text
        bare = text.strip()
        return text.replace(bare, self._rest(bare, kind), 1) if bare else text

    def _found(self, match: re.Match[str]) -> str:
        return self._pseudonyms.of(self._kinds[match[0]], match[0])


def _parent(path: Path) -> str:
    """The key of the object itself; of one in a list, the key of the list."""
    return next((part for part in reversed(path[1:]) if not part.isdecimal()), "")


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number in JSON")
