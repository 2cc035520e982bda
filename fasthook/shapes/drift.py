"""What changes in the shape of payloads, as they come: oldest first, each change said once.

A change is told of what was seen often enough to be sure that it was the rule; all is bounded.
"""

import re
from collections.abc import Iterator
from typing import Any, Final, Literal, NamedTuple

from fasthook.shapes.keys import are_data
from fasthook.shapes.shape import KINDS, Kind, kind_of

ChangeKind = Literal["new type", "appeared", "vanished", "changed", "new value"]
#: Seen so often before a place is judged; and absent so often before it has vanished.
LEAST: Final = 20
#: Texts with few different values, that look like a word of a program, are an enumeration.
_WORD: Final = re.compile(r"[A-Za-z][A-Za-z_.-]{0,39}")
_MAX_WORDS: Final = 12
_EACH_WORD: Final = 10
_MAX_DEPTH: Final = 12
_MAX_TYPES: Final = 200
_MAX_PLACES: Final = 20_000  # of all types together
_MAX_FIELDS: Final = 128
_MAX_ITEMS: Final = 100  # of an array that are looked at
_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


class Change(NamedTuple):
    """One change, at the first event that has it."""

    kind: ChangeKind
    event_type: str
    path: str  # such as "repository.owner.login", "commits[].id"
    was: str  # kinds, for "changed"; else empty
    now: str  # kinds; for "new value" the value, which is not for the log
    after: int  # how many were seen before
    at: Any  # what `feed` was given


class _Place:
    """What was seen at one place."""

    __slots__ = ("seen", "kinds", "fields", "item", "is_map", "objects", "words", "had", "gone")

    def __init__(self) -> None:
        self.seen = 0
        self.kinds: set[Kind] = set()
        self.objects = 0
        self.fields: dict[str, _Place] = {}
        self.item: _Place | None = None  # of an array; of a map, whose keys are data
        self.is_map = False
        self.words: set[str] | None = set()  # None: no enumeration
        self.had = 0  # how many objects had it
        self.gone: list[Any] = []  # since which event it is missing, and for how many


class Room:
    """How many places are still to be had, by all that share it."""

    def __init__(self, places: int) -> None:
        self.places = places


class Drift:
    """The payloads of one endpoint."""

    def __init__(self, least: int = LEAST, room: Room | None = None) -> None:
        """`room`: for more places, beside the bound that each has."""
        self._least = least
        self._room = room or Room(_MAX_PLACES)
        self._types: dict[str, _Place] = {}
        self._seen = 0
        self.places = 0  #: how many are known, of all types together
        self._at: Any = None  # of the payload that is looked at

    def feed(self, event_type: str, payload: Any, at: Any) -> list[Change]:
        """What changes with this payload. `at`: comes back in its changes."""
        changes = []
        place = self._types.get(event_type)
        if place is None:
            if len(self._types) >= _MAX_TYPES:
                return []
            if self._seen >= self._least:
                changes.append(Change("new type", event_type, "", "", "", self._seen, at))
            place = self._types[event_type] = _Place()
        self._seen += 1
        self._at = at
        for kind, path, was, now, after, since in self._look(place, payload, ()):
            changes.append(Change(kind, event_type, _text(path), was, now, after, since))
        return changes

    def _look(self, place: _Place, value: Any, path: tuple[str, ...]) -> Iterator[Any]:
        kind = kind_of(value)
        if kind not in place.kinds:
            is_only_null = place.kinds <= {"null"}
            if place.seen >= self._least and not is_only_null:
                yield "changed", path, _kinds(place.kinds), kind, place.seen, self._at
            place.kinds.add(kind)
        place.seen += 1
        if len(path) >= _MAX_DEPTH:
            return
        if kind == "string":
            yield from self._word(place, value, path)
        elif kind == "array":
            for item in value[:_MAX_ITEMS]:
                yield from self._inner(place, item, (*path, "[]"))
        elif kind == "object":
            yield from self._object(place, value, path)

    def _word(self, place: _Place, value: str, path: tuple[str, ...]) -> Iterator[Any]:
        words = place.words
        if words is None or value in words:
            return
        if not _WORD.fullmatch(value) or len(words) >= _MAX_WORDS:
            place.words = None
            return
        if words and place.seen > max(2 * self._least, _EACH_WORD * len(words)):
            yield "new value", path, "", value, place.seen - 1, self._at
        words.add(value)

    def _inner(self, place: _Place, value: Any, path: tuple[str, ...]) -> Iterator[Any]:
        if place.item is None:
            place.item = self._new()
        if place.item is not None:
            yield from self._look(place.item, value, path)

    def _new(self) -> _Place | None:
        if self.places == _MAX_PLACES or not self._room.places:
            return None
        self.places += 1
        self._room.places -= 1
        return _Place()

    def _object(self, place: _Place, value: dict[str, Any], path: tuple[str, ...]) -> Iterator[Any]:
        if not place.is_map and (are_data(value) or len(place.fields) > _MAX_FIELDS):
            place.is_map, place.fields = True, {}
        if place.is_map:
            for inner in list(value.values())[:_MAX_ITEMS]:
                yield from self._inner(place, inner, (*path, "*"))
            return
        for key, inner in value.items():
            field = place.fields.get(key)
            if field is None:
                field = self._new()
                if field is None:
                    continue
                place.fields[key] = field
                if place.objects >= self._least:
                    yield "appeared", (*path, key), "", kind_of(inner), place.objects, self._at
            yield from self._look(field, inner, (*path, key))
            field.had, field.gone = field.had + 1, []
        for key, field in place.fields.items():
            if key not in value:
                yield from self._missing(place, field, (*path, key))
        place.objects += 1

    def _missing(self, place: _Place, field: _Place, path: tuple[str, ...]) -> Iterator[Any]:
        """A field that each object had, and none has any more."""
        if not field.gone:
            if field.had < place.objects or place.objects < self._least:
                return
            field.gone = [self._at, 0]
        field.gone[1] += 1
        if field.gone[1] == self._least:
            yield "vanished", path, _kinds(field.kinds), "", field.had, field.gone[0]


def _kinds(kinds: set[Kind]) -> str:
    return " | ".join(kind for kind in KINDS if kind in kinds)


def _text(path: tuple[str, ...]) -> str:
    text = ""
    for key in path:
        if key == "[]":
            text += key
        else:
            name = key if key == "*" or _PLAIN.fullmatch(key) else repr(key)
            text += f".{name}" if text else name
    return text
