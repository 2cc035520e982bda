"""Conditions on events: expressions in CEL (github.com/google/cel-spec), checked before use.

The language is the library's (`cel`, common-expression-language); here is what may be asked about,
how errors are said, and for what runs at every event a bound: see `Condition`.
"""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    import cel

#: What an expression may ask about.
VARIABLES: Final[tuple[str, ...]] = ("payload", "id", "type", "endpoint", "headers", "received_at")
#: Of the language (cel-spec, "Standard Definitions"); macros are among them.
FUNCTIONS: Final = (
    *("all", "bool", "bytes", "contains", "double", "duration", "endsWith", "exists"),
    *("exists_one", "filter", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear"),
    *("getFullYear", "getHours", "getMilliseconds", "getMinutes", "getMonth", "getSeconds"),
    *("has", "int", "map", "matches", "max", "min", "size", "startsWith", "string"),
    *("timestamp", "type", "uint"),
)
#: Of a `Condition`, in characters.
MAX_CHARS: Final = 1000
#: What a `Condition` asks about may have so many values in it, in all; with more it is false.
MAX_VALUES: Final = 10_000
_EXAMPLE: Final = 'expected an expression (CEL) such as payload.ref == "refs/heads/main"'
_MACROS: Final = ("all", "exists", "exists_one")
_SLOW_MACROS: Final = ("map", "filter")
_WORDS: Final = ("true", "false", "null", "in")
_PLACE: Final = re.compile(r"<input>:(\d+):(\d+): (?:Syntax error: )?(.*)")
_TOKEN: Final = re.compile(
    r"""(?P<space>\s+|//[^\n]*)
    |(?P<text>[bB]?[rR][bB]?(?:'{3}.*?'{3}|"{3}.*?"{3}|'[^'\n]*'|"[^"\n]*")
        |[bB]?(?:'{3}(?:\\.|.)*?'{3}|"{3}(?:\\.|.)*?"{3}|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"))
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<number>[0-9][0-9A-Za-z.]*)
    |(?P<sign>.)""",
    re.VERBOSE | re.DOTALL,
)


#: What the library raises where something asked about is not there, or can't be done with it.
NOT_THERE: Final = (LookupError, TypeError, RuntimeError, ValueError, ZeroDivisionError)


class BadExpression(ValueError):
    """An expression that can't be used: the message says where, and what was expected."""


class NoBoolean(BadExpression):
    """One that comes to neither true nor false; the message never quotes what the event holds."""

    def __init__(self, result: object) -> None:
        kind = type(result).__name__
        super().__init__(f"it comes to a value of type {kind}; expected true or false")


class _Token(NamedTuple):
    kind: str  # text, name, number or sign
    text: str
    column: int  # from 1, of the whole expression


def compiled(expression: str, variables: Sequence[str] = VARIABLES) -> "cel.Program":
    """An expression that may ask about `variables`. Raises `BadExpression`."""
    import cel  # not before: a command line comes with it, of 0.1 s and 12 MiB

    if not expression.strip():
        raise BadExpression(f"it is empty; {_EXAMPLE}")
    try:
        program = cel.compile(expression)
    except ValueError as error:
        raise BadExpression(_said(str(error))) from None
    for what, names, known in (
        ("name", program.variables(), _with_bound(expression, variables)),
        ("function", program.functions(), FUNCTIONS),
    ):
        for name in names:
            if name.isidentifier() and name not in known:
                close = difflib.get_close_matches(name, known, 1)
                hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(known)}"
                raise BadExpression(f"{_place_of(expression, name)}no {what} {name!r}; {hint}")
    return program


def _said(error: str) -> str:
    """The library's message in one line, its place first."""
    found = _PLACE.search(error)
    if found is None:
        return f"{error.splitlines()[0]}; {_EXAMPLE}"
    line, column, text = found.groups()
    hint = "did you mean '=='?" if text.startswith("token recognition error at: '=") else _EXAMPLE
    at = f"column {column}" if line == "1" else f"line {line}, column {column}"
    return f"{at}: {text}; {hint}"


def _place_of(expression: str, name: str) -> str:
    found = re.search(rf"\b{name}\b", expression)
    return f"column {found.start() + 1}: " if found else ""


def _with_bound(expression: str, variables: Sequence[str]) -> tuple[str, ...]:
    """And those which macros bind."""
    return (*variables, *re.findall(r"\(\s*([A-Za-z_][A-Za-z0-9_]*)\s*,", expression))


# --- what is asked at every event -----------------------------------------------------------------


class Verdict(NamedTuple):
    """What came of a condition."""

    is_true: bool
    why: str = ""  # where it is false; never what the event holds


#: What an event has under one of VARIABLES: asked for only where an expression names it.
Facts = Mapping[str, Callable[[], Any]]


class Condition:
    """An expression that is asked of every event, in bounded time.

    It takes no longer than what it asks about is large: a macro (`all`, `exists`, `exists_one`)
    goes over a plain path such as `payload.commits`, and speaks of nothing but its own variable;
    patterns of `matches` are literal, and in no macro; `map` and `filter`, which the library does
    in quadratic time, are refused.
    """

    __slots__ = ("source", "variables", "_program", "_paths")

    def __init__(self, expression: str) -> None:
        """Raises `BadExpression`."""
        if len(expression) > MAX_CHARS:
            got = f"it has {len(expression)} characters"
            raise BadExpression(f"{got}; expected {MAX_CHARS} at the most")
        self._program = compiled(expression)
        self.source = " ".join(expression.split())
        tokens = _tokens(expression)
        _Bounds(tokens).check()
        #: Which of VARIABLES it asks about.
        self.variables = tuple(name for name in VARIABLES if name in self._program.variables())
        self._paths = {name: _paths(tokens, name) for name in self.variables}
        self._try()

    def _try(self) -> None:
        """Raise `BadExpression` for what can't be true or false, whatever comes."""
        nothing: dict[str, Any] = {name: "" for name in VARIABLES}
        nothing |= {"payload": {}, "headers": {}}
        try:
            result = self._program.execute(nothing)
        except (*NOT_THERE, OverflowError):
            return  # something is missing, of course
        if not isinstance(result, bool):
            raise NoBoolean(result)

    def __call__(self, facts: Facts) -> Verdict:
        """Whether it is true of an event; what it can't be asked about is false."""
        try:
            asked = {name: _part(facts[name](), self._paths[name]) for name in self.variables}
            if _is_large(asked):
                return Verdict(False, f"more than {MAX_VALUES} values are asked about")
            result = self._program.execute(asked)
        except (*NOT_THERE, OverflowError):
            return Verdict(False, "something is not there, or of another type")
        if isinstance(result, bool):
            return Verdict(result)
        return Verdict(False, f"it comes to a value of type {type(result).__name__}")


def _tokens(expression: str) -> list[_Token]:
    return [
        _Token(found.lastgroup or "", found[0], found.start() + 1)
        for found in _TOKEN.finditer(expression)
        if found.lastgroup != "space"
    ]


def _paths(tokens: list[_Token], name: str) -> list[list[str]]:
    """The keys that follow each `name`: what has to be there for the expression.

    None of them begins with another one.
    """
    paths = []
    for index, token in enumerate(tokens):
        if token.kind != "name" or token.text != name or _is_member(tokens, index):
            continue
        path, at = list[str](), index + 1
        while _text(tokens, at) == "." and _text(tokens, at + 2) != "(":
            if tokens[at + 1].kind != "name":
                break  # what may be there, or not
            path.append(tokens[at + 1].text)
            at += 2
        paths.append(path)
    paths.sort(key=len)
    kept: list[list[str]] = []
    for path in paths:
        if not any(path[: len(one)] == one for one in kept):
            kept.append(path)
    return kept


def _text(tokens: list[_Token], index: int) -> str:
    return tokens[index].text if 0 <= index < len(tokens) else ""


def _is_member(tokens: list[_Token], index: int) -> bool:
    return _text(tokens, index - 1) == "."


def _part(value: Any, paths: list[list[str]]) -> Any:
    """What is on these paths of a value: all else would be turned into CEL's values for nothing."""
    if not all(paths) or not isinstance(value, dict):
        return value
    part: dict[str, Any] = {}
    for path in paths:
        inner, out = value, part
        for key in path[:-1]:
            if not isinstance(inner.get(key), dict):
                break  # nothing goes on from there
            inner = inner[key]
            out = out.setdefault(key, {})
        else:
            key = path[-1]
        if key in inner:
            out[key] = inner[key]
    return part


def _is_large(value: Any) -> bool:
    """Whether there are more than MAX_VALUES in it."""
    left = [value]
    count = 0
    while left:
        inner = left.pop()
        if isinstance(inner, dict):
            count += len(inner)
            left.extend(inner.values())
        elif isinstance(inner, list):
            count += len(inner)
            left.extend(inner)
        if count > MAX_VALUES:
            return True
    return False


class _Bounds:
    """Whether an expression keeps to what `Condition` promises."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        #: Macros around the token that is looked at: their variable, and where they end.
        self._around: list[tuple[str, int]] = []

    def check(self) -> None:
        """Raise `BadExpression` if not."""
        bound = -1  # where a macro names its variable
        for index, token in enumerate(self._tokens):
            while self._around and index >= self._around[-1][1]:
                self._around.pop()
            if token.kind != "name" or token.text in _WORDS or index == bound:
                continue
            if _text(self._tokens, index + 1) != "(":
                self._check_name(index)
            elif token.text == "matches":
                self._check_pattern(index)
            elif token.text in _SLOW_MACROS and _is_member(self._tokens, index):
                raise self._bad(index, f"{token.text} takes too long", "all, exists or exists_one")
            elif token.text in _MACROS and _is_member(self._tokens, index):
                self._check_range(index)
                bound = index + 2
                self._around.append((_text(self._tokens, bound), self._end(index + 1)))

    def _bad(self, index: int, what: str, expected: str) -> BadExpression:
        return BadExpression(f"column {self._tokens[index].column}: {what}; expected {expected}")

    def _check_name(self, index: int) -> None:
        name = self._tokens[index].text
        if self._around and not _is_member(self._tokens, index) and name != self._around[-1][0]:
            own = self._around[-1][0]
            raise self._bad(index, f"{name!r} within a macro takes too long", f"{own!r} alone")

    def _check_pattern(self, index: int) -> None:
        if self._around:
            expected = "startsWith, endsWith or contains"
            raise self._bad(index, "matches within a macro takes too long", expected)
        last = self._end(index + 1) - 1
        is_alone = _text(self._tokens, last - 1) in ("(", ",")
        if not (is_alone and last < len(self._tokens) and self._tokens[last].kind == "text"):
            raise self._bad(index, "matches takes its pattern from the event", "a literal text")
        import cel

        try:
            cel.compile(f"''.matches({self._tokens[last].text})").execute({})
        except (RuntimeError, ValueError) as error:
            said = str(error).strip().splitlines()[-1].strip().partition(". Check function")[0]
            raise self._bad(last, f"no pattern: {said}", "one as RE2 has them") from None

    def _check_range(self, index: int) -> None:
        at = index - 2
        while True:
            if _text(self._tokens, at) == "]" and _text(self._tokens, at - 2) == "[":
                at -= 3
            elif at >= 0 and self._tokens[at].kind == "name":
                if not _is_member(self._tokens, at):
                    return
                at -= 2
            else:
                what = f"{self._tokens[index].text} goes over something that is computed"
                raise self._bad(index, what, "a path such as payload.commits before it")

    def _end(self, opening: int) -> int:
        """Where the parenthesis is closed."""
        depth = 0
        for index in range(opening, len(self._tokens)):
            depth += {"(": 1, ")": -1}.get(self._tokens[index].text, 0)
            if not depth:
                return index
        return len(self._tokens)
