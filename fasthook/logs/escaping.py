"""Nothing a client sends can break a line or reach a terminal: what is not printable is escaped."""

from typing import Any, Final

#: A value longer than this is cut: what a client sends must not fill the log.
MAX_VALUE_CHARS: Final = 512


def escape(text: str) -> str:
    """`text` with everything that is not printable as an escape, which also takes bidi marks."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def one_line(text: str) -> str:
    """JSON with its other control characters escaped, too, which a terminal would obey."""
    if text.isprintable():
        return text
    units = (char if char.isprintable() else char.encode("utf-16-be").hex() for char in text)
    return "".join(
        unit if len(unit) == 1 else "".join(f"\\u{unit[i : i + 4]}" for i in range(0, len(unit), 4))
        for unit in units
    )


def cut(text: str) -> str:
    """`text`, or so much of it as a line may hold."""
    return text if len(text) <= MAX_VALUE_CHARS else text[:MAX_VALUE_CHARS] + "…"


def shown(value: Any) -> str:
    """A value as it may stand in a line of text: escaped, and quoted where it has spaces."""
    text = cut(str(value))
    if text.isprintable() and " " not in text and '"' not in text:
        return text
    text = escape(text)
    # JSON is what most values with quotes are: readable in the other kind of quotes.
    if "'" not in text:
        return f"'{text}'"
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def plain(value: Any) -> Any:
    """A value as JSON may hold it: numbers as they are, everything else as text."""
    if isinstance(value, int | float | bool):
        return value
    return encodable(cut(str(value)))


def encodable(text: str) -> str:
    """`text` without lone surrogates, which are no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def indented(trace: str) -> str:
    """The lines of a traceback, each escaped and with four spaces before it."""
    return "".join(f"    {escape(line)}\n" for line in trace.splitlines())
