"""Records → lines: plain text, text for a terminal, JSON, and what the journal takes.

Lines of one kind differ in their values alone. What is common to them is made once, a `Shape`, and
a line whose values are harmless is one `%` of it: at two lines a request, taking each value in hand
costs more than verifying a signature. Values that are not harmless take the long way.
"""

import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from fasthook.logs.escaping import (
    MAX_VALUE_CHARS,
    cut,
    encodable,
    escape,
    indented,
    one_line,
    plain,
    shown,
)
from fasthook.logs.messages import MESSAGES

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
NAMES: Final = {number: name for name, number in LEVELS.items()}
#: Levels as syslog(3) has them.
PRIORITIES: Final = {10: 7, 20: 6, 30: 4, 40: 3}
#: Names of the journal's fields, where they are not FASTHOOK_ and the key.
_FIELDS: Final = {
    "id": "FASTHOOK_EVENT_ID",
    "type": "FASTHOOK_EVENT_TYPE",
    "error": "FASTHOOK_REASON",  # no message has both
}
_IDENTIFIER: Final = "fasthook"
_MAX_FIELD_CHARS: Final = 64
#: Kinds of lines that are remembered. Handlers may have more.
_MAX_SHAPES: Final = 1000
_RESET, _DIM = "\033[0m", "\033[2m"
_COLORS: Final = {10: "\033[2m", 20: "\033[36m", 30: "\033[33m", 40: "\033[31m"}


class Shape:
    """What all lines with this message, level and these keys have in common."""

    def __init__(self, level: int, message: str, keys: tuple[str, ...]) -> None:
        said = escape(message)
        self.level = level
        self.message = message
        self.keys = keys
        #: "endpoint=%s id=%s"
        self.pairs = " ".join(f"{escape(key).replace('%', '%%')}=%s" for key in keys)
        #: In `pairs`: a line with more of them has one in a value.
        self.spaces = self.pairs.count(" ")
        #: "info    accepted     "
        self.text = f"{NAMES[level]:7} {said:12} "
        #: "<6>accepted "
        self.prefixed = f"<{PRIORITIES[level]}>{said} "
        #: The whole datagram, with room for the pairs and then for each value.
        journal = "".join(f"{name}={value}\n" for name, value in _head(level, message))
        journal = f"{journal}MESSAGE={said} ".replace("%", "%%") + "%s\n"
        self.journal = journal + "".join(f"{field_name(key)}=%s\n" for key in keys)


#: When (nanoseconds of the wall clock), and a value for each key of the shape.
Record = tuple[int, Shape, tuple[Any, ...]]
Render = Callable[[Record], str]
_shapes: dict[tuple[str, ...], Shape] = {}


def shape_of(level: int, message: str, fields: dict[str, Any]) -> Shape:
    """The shape of a line with these fields."""
    keys = (message, *fields)
    shape = _shapes.get(keys)
    if shape is None or shape.level != level:
        shape = Shape(level, message, keys[1:])
        if len(_shapes) < _MAX_SHAPES:
            _shapes[keys] = shape
    return shape


def recorded(level: int, message: str, fields: dict[str, Any]) -> Record:
    """What is said now."""
    return time.time_ns(), shape_of(level, message, fields), tuple(fields.values())


def fields_of(record: Record) -> dict[str, Any]:
    """Keys and values, but those that are left out."""
    _, shape, values = record
    pairs = zip(shape.keys, values, strict=True)
    return {key: value for key, value in pairs if value is not None and value != ""}


def _head(level: int, message: str) -> list[tuple[str, str]]:
    head = [("PRIORITY", str(PRIORITIES[level])), ("SYSLOG_IDENTIFIER", _IDENTIFIER)]
    if message in MESSAGES:
        head.append(("MESSAGE_ID", MESSAGES[message].id))
    return head


def field_name(key: str) -> str:
    """The journal's field for a key: capital letters, digits and underscores, at most 64."""
    name = "".join(c if c.isascii() and c.isalnum() else "_" for c in key.upper())
    return _FIELDS.get(key, f"FASTHOOK_{name}"[:_MAX_FIELD_CHARS])


def _filled(record: Record) -> tuple[Shape, str, tuple[Any, ...]]:
    """Shape, pairs and values; the pairs are "" where a value is to be escaped, quoted or cut."""
    _, shape, values = record
    if None in values or "" in values:
        fields = fields_of(record)
        shape = shape_of(shape.level, shape.message, fields)
        values = tuple(fields.values())
    pairs = shape.pairs % values
    if (
        len(pairs) <= MAX_VALUE_CHARS
        and pairs.isprintable()
        and pairs.count(" ") == shape.spaces
        and '"' not in pairs
    ):
        return shape, pairs, values
    return shape, "", values


def _said(fields: dict[str, Any]) -> list[str]:
    """The pairs, the long way, without the traceback."""
    return [f"{escape(key)}={shown(value)}" for key, value in fields.items() if key != "traceback"]


_last_second: tuple[int, str] = (0, "00:00:00")
_last_clock: tuple[int, str] = (0, "00:00:00.000")


def _clock(time_ns: int) -> str:
    """Local time, asked of the system once a second: it reads the time zone each time."""
    global _last_second, _last_clock
    now_ms = time_ns // 1_000_000
    if _last_clock[0] != now_ms:
        seconds, ms = divmod(now_ms, 1000)
        if _last_second[0] != seconds:
            _last_second = (seconds, time.strftime("%H:%M:%S", time.localtime(seconds)))
        _last_clock = (now_ms, f"{_last_second[1]}.{ms:03d}")
    return _last_clock[1]


# --- for a stream ---------------------------------------------------------------------------------


def as_text(record: Record) -> str:
    """Time, level, message and fields; the lines of a traceback below it."""
    shape, pairs, _ = _filled(record)
    if pairs:
        return f"{_clock(record[0])} {shape.text}{pairs}\n"
    fields = fields_of(record)
    line = f"{_clock(record[0])} {shape.text}{' '.join(_said(fields))}".rstrip()
    return f"{line}\n{indented(fields.get('traceback', ''))}"


def as_prefixed(record: Record) -> str:
    """For a journal that reads standard error: the priority, and no time, which it knows."""
    shape, pairs, _ = _filled(record)
    if pairs:
        return f"{shape.prefixed}{pairs}\n"
    fields = fields_of(record)
    line = f"{shape.prefixed}{' '.join(_said(fields))}".rstrip()
    prefix = f"<{PRIORITIES[shape.level]}>"
    trace = [prefix + each for each in indented(fields.get("traceback", "")).splitlines()]
    return "".join(f"{each}\n" for each in [line, *trace])


def as_colored(record: Record) -> str:
    """For a terminal."""
    time_ns, shape, _ = record
    fields = fields_of(record)
    pairs = (pair.partition("=") for pair in _said(fields))
    return (
        f"{_DIM}{_clock(time_ns)}{_RESET} {_COLORS[shape.level]}{escape(shape.message):12}{_RESET} "
        + " ".join(f"{_DIM}{key}={_RESET}{value}" for key, _, value in pairs)
        + f"\n{indented(fields.get('traceback', ''))}"
    )


_JSON_TYPES: Final = frozenset((str, int, float, bool))


def as_json(record: Record) -> str:
    """One object a line; a traceback is a field of it."""
    time_ns, shape, _ = record
    seconds, ns = divmod(time_ns, 1_000_000_000)
    stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{ns // 1000:06d}Z"
    line = {"time": stamp, "level": NAMES[shape.level], "message": shape.message}
    fields = fields_of(record)
    if _JSON_TYPES.issuperset(map(type, fields.values())):
        try:
            text = msgspec.json.encode(line | fields).decode()
        except ValueError:  # a lone surrogate
            text = ""
        if 0 < len(text) <= MAX_VALUE_CHARS and text.isprintable():
            return text + "\n"
    line["message"] = encodable(shape.message)
    for key, value in fields.items():
        line[key] = encodable(str(value)) if key == "traceback" else plain(value)
    return one_line(msgspec.json.encode(line).decode()) + "\n"


# --- for the journal ------------------------------------------------------------------------------


def packed(record: Record) -> bytes | Record:
    """The record in the journal's native protocol; itself where it has to go by `entry_of`.

    https://systemd.io/JOURNAL_NATIVE_PROTOCOL/
    """
    shape, pairs, values = _filled(record)
    if not pairs:
        return record
    return (shape.journal % (pairs, *values)).encode()


def entry_of(record: Record) -> list[tuple[str, str]]:
    """The journal's fields, with their values as text. Only a traceback has line ends."""
    _, shape, _ = record
    fields = fields_of(record)
    trace = fields.get("traceback", "")
    said = f"{escape(shape.message)} {' '.join(_said(fields))}".rstrip()
    entry = _head(shape.level, shape.message)
    entry.append(("MESSAGE", f"{said}\n{indented(trace)}".rstrip()))
    for key, value in fields.items():
        text = indented(value) if key == "traceback" else escape(cut(str(value)))
        entry.append((field_name(key), text))
    return entry


def unpacked(raw: bytes) -> Record:
    """What `packed` has made, for somebody else than the journal: the level, and the whole line."""
    entry = dict(line.partition("=")[::2] for line in raw.decode().splitlines())
    level = {str(priority): level for level, priority in PRIORITIES.items()}[entry["PRIORITY"]]
    said = entry["MESSAGE"]
    return time.time_ns(), Shape(level, said, ()), ()  # a shape of this line alone: not remembered
