"""Replacements: the same for the same value, of its form, and of no use to find it again.

Keyed with a random key that is thrown away with the object, so that nobody can try out whom a
pseudonym stands for.
"""

import hashlib
import ipaddress
import random
import re
import secrets
import string
from collections import Counter
from collections.abc import Callable
from typing import Final

from fasthook.redacting.patterns import iban_check, luhn

#: What is as short has too few forms to tell people apart: all of them get the same replacement.
_FEW_DIGITS: Final = 6
_FEW_CHARS: Final = 4
#: How often another replacement is tried where one is taken.
_TRIES: Final = 16
_HEX: Final = re.compile(r"(?=.*[0-9])(?:[0-9a-f-]{8,}|[0-9A-F-]{8,})")
_DATE: Final = re.compile(r"[12][0-9]{3}-[0-9]{2}-[0-9]{2}")
_DATE_CHARS: Final = 10
_BENCHMARK_NET: Final = int(ipaddress.ip_address("198.18.0.0"))  # RFC 2544, a /15
_DOCUMENTATION_NET: Final = int(ipaddress.ip_address("2001:db8::"))  # RFC 3849, a /32
_AT: Final = re.compile("@|%40")
#: Where a float would be a latitude, it stays one.
_MAX_FLOAT: Final = 80

_Make = Callable[[str, random.Random], str]


class Pseudonyms:
    """The replacements of one export."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._by_value: dict[tuple[_Make, str], str] = {}
        self._made: set[int] = set()  # hashes: whole texts are among them
        #: How many values were replaced, by kind.
        self.counts: Counter[str] = Counter()

    def knows(self, text: str) -> bool:
        """Whether it is a replacement itself."""
        return hash(text) in self._made

    def remember(self, text: str) -> str:
        """Know `text` as one that was replaced already."""
        if len(text) >= (_FEW_DIGITS if text.isdecimal() else _FEW_CHARS):
            self._made.add(hash(text))
        return text

    def of(self, kind: str, value: str) -> str:
        """What stands for `value`; itself where it is a replacement, or has nothing to replace."""
        if kind == "number" and len(value) > _DATE_CHARS and _DATE.match(value):
            return self.of(kind, value[:_DATE_CHARS]) + value[_DATE_CHARS:]  # a time of that day
        make, bare = _MAKERS.get(kind, _text), value
        if kind in ("card", "iban", "number", "phone"):
            bare = "".join(filter(str.isalnum, value))  # however it is written
            make = _date if _DATE.fullmatch(value) else make
        if self.knows(value) or self.knows(bare):
            return value
        made = self._made_of(make, bare)
        if made == bare:
            return value
        self.counts[kind] += 1
        return made if bare == value else _as_written(value, made)

    def number(self, kind: str, value: int | float) -> int | float:
        """A number of the same sign and with as many digits."""
        text = repr(abs(value))
        if self.knows(text):
            return value
        if isinstance(value, float):
            places = len(text.partition(".")[2]) if "e" not in text else 0
            made = round(self._random(_text, text, 0).random() * _MAX_FLOAT, places)
            self._made.add(hash(repr(made)))
            self.counts[kind] += 1
            return -made if value < 0 else made
        whole = int(self.of("card" if kind == "card" else "number", text)) if value else 0
        return -whole if value < 0 else whole

    def _made_of(self, make: _Make, value: str) -> str:
        known = self._by_value.get((make, value))
        if known is not None:
            return known
        made = value
        for attempt in range(_TRIES):
            made = make(value, self._random(make, value, attempt))
            if made != value and not self.knows(made):
                break
        self._by_value[make, value] = made
        return self.remember(made)

    def _random(self, make: _Make, value: str, attempt: int) -> random.Random:
        said = f"{make.__name__}:{attempt}:{value}".encode("utf-8", "surrogatepass")
        seed = hashlib.blake2b(said, key=self._key, digest_size=32).digest()
        return random.Random(seed)  # noqa: S311 - of a secret seed, and for one value


def _letters(count: int, source: random.Random) -> str:
    return "".join(source.choices(string.ascii_lowercase, k=count))


def _email(value: str, source: random.Random) -> str:
    at = _AT.search(value)
    return f"user-{_letters(10, source)}{at[0] if at else '@'}example.com"


def _ip(value: str, source: random.Random) -> str:
    if ipaddress.ip_address(value).version == 4:
        return str(ipaddress.IPv4Address(_BENCHMARK_NET + source.getrandbits(17)))
    return str(ipaddress.IPv6Address(_DOCUMENTATION_NET + source.getrandbits(96)))


def _digits(value: str, source: random.Random) -> str:
    if value.isdecimal() and len(value) < _FEW_DIGITS:
        return "1" + "0" * (len(value) - 1)
    made = _text(value, source) if not value.isdecimal() else _some_digits(len(value), source)
    return made if value[:1] == "0" or made[:1] != "0" else f"1{made[1:]}"


def _some_digits(count: int, source: random.Random) -> str:
    return "".join(source.choices(string.digits, k=count))


def _card(value: str, source: random.Random) -> str:
    made = value[0] + _some_digits(len(value) - 2, source)
    return made + str(-luhn([int(digit) for digit in made + "0"]) % 10)


def _iban(value: str, source: random.Random) -> str:
    account = "".join(
        source.choice(string.digits if char.isdigit() else string.ascii_uppercase)
        for char in value[4:]
    )
    check = 98 - iban_check(f"{value[:2]}00{account}")
    return f"{value[:2]}{check:02}{account}"


def _date(value: str, source: random.Random) -> str:
    return f"19{source.randint(50, 99)}{source.randint(1, 12):02}{source.randint(1, 28):02}"


def _text(value: str, source: random.Random) -> str:
    """Letters for letters, digits for digits; hex stays hex. Spaces and punctuation stay."""
    if value.isdecimal():
        return _digits(value, source)
    return _by_class(value, source, string.punctuation)


def _secret(value: str, source: random.Random) -> str:
    """The same; of the punctuation only what divides."""
    if value.isdecimal():
        return _digits(value, source)
    return _by_class(value, source, "-_.:/=+")


def _by_class(value: str, source: random.Random, kept: str) -> str:
    if len(value) < _FEW_CHARS:
        return "".join(char if char in kept or char.isspace() else "x" for char in value)
    is_hex = _HEX.fullmatch(value) is not None
    low = "abcdef" if is_hex else string.ascii_lowercase
    made = []
    for char in value:
        if char in kept or char.isspace():
            made.append(char)
        elif char.isdecimal():
            made.append(source.choice(string.digits))
        else:
            letter = source.choice(low)
            made.append(letter.upper() if char.isupper() else letter)
    return "".join(made)


def _as_written(value: str, made: str) -> str:
    """`made`, with the spaces and signs between that `value` has."""
    chars = iter(made)
    return "".join(next(chars) if char.isalnum() else char for char in value)


_MAKERS: Final[dict[str, _Make]] = {
    "email": _email,
    "ip": _ip,
    "card": _card,
    "iban": _iban,
    "phone": _digits,
    "number": _digits,
    "secret": _secret,
}
