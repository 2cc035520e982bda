"""One structured line for each outcome: to the journal, or to standard error for people or as JSON.

`messages` names every kind of line, `shapes` makes text of it, `sinks` is where it goes, `floods`
makes one line of many, and `logger` holds what waits to be written.
"""

from fasthook.logs.escaping import MAX_VALUE_CHARS, escape, one_line
from fasthook.logs.logger import Log, log
from fasthook.logs.shapes import Shape

__all__ = ("MAX_VALUE_CHARS", "Log", "Shape", "escape", "log", "one_line")
