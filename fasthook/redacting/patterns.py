"""What a text looks like: e-mail addresses, cards, tokens … wherever they stand in it.

Senders choose the texts, so each expression has to end in time: runs have one place to begin, and
repeats are bounded or never given back.
"""

import ipaddress
import re
from collections.abc import Callable
from typing import Final, NamedTuple


class Pattern(NamedTuple):
    """One kind of thing in a text. The group `it`, where there is one, is what is replaced."""

    kind: str
    regex: re.Pattern[str]
    is_one: Callable[[str], bool] = bool


def luhn(digits: list[int]) -> int:
    """0 where the last digit checks the others (ISO/IEC 7812-1)."""
    total = 0
    for index, digit in enumerate(reversed(digits)):
        total += sum(divmod(digit * 2, 10)) if index % 2 else digit
    return total % 10


def iban_check(text: str) -> int:
    """The rest of an IBAN by 97: 1 where its check digits are right (ISO 13616)."""
    turned = text[4:] + text[:4]
    return int("".join(str(int(char, 36)) for char in turned)) % 97


#: How many digits cards have, by their first one.
_CARD_DIGITS: Final = {
    "2": (16,),
    "3": (14, 15, 16),
    "4": (13, 16, 19),
    "5": (16,),
    "6": (16, 17, 18, 19),
}


def _is_card(text: str) -> bool:
    digits = [int(char) for char in text if char.isdigit()]
    return len(digits) in _CARD_DIGITS.get(text[0], ()) and luhn(digits) == 0


def _is_iban(text: str) -> bool:
    bare = text.replace(" ", "").replace("-", "")
    return len(bare) <= 34 and iban_check(bare) == 1  # ISO 13616


def _is_ip(text: str) -> bool:
    try:
        return not ipaddress.ip_address(text).is_unspecified
    except ValueError:
        return False


def _is_phone(text: str) -> bool:
    return 8 <= sum(char.isdigit() for char in text) <= 15  # E.164


#: Beginnings that vendors give their keys, so that they are found where they should not be.
_KEY_STARTS: Final = (
    r"(?:(?:sk|rk|pk)_(?:live|test)_|whsec_|sk-(?:ant-|proj-)?|gh[oprsu]_|github_pat_|glpat-|npm_"
    r"|pypi-|xox[abeprs]-|xapp-|sh(?:pat|pss|pca|ppa)_|dop_v1_|hf_|AKIA|ASIA|AIza|SG\.|ya29\.|key-"
    r"|sq0[a-z]{3}-)"
)
_PARAMETERS: Final = (
    r"(?:token|secret|password|passwd|pwd|signature|sig|hmac|api_?key|access_?key|credential|auth)"
)


def _secret(regex: str, flags: int = re.ASCII) -> Pattern:
    return Pattern("secret", re.compile(regex, flags))


#: In this order; what one of them has found, no later one looks at.
PATTERNS: Final = (
    _secret(r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----(?P<it>.*?)(?:-----END|\Z)", re.DOTALL),
    _secret(r"(?<=://)(?P<it>[^\s/@?#:\"'<>]*+:[^\s/@?#\"'<>]*+)(?=@)"),
    _secret(r"(?<![\w-])eyJ(?P<it>[\w-]{5,}+\.[\w-]{5,}+(?:\.[\w-]*+){0,3})"),
    _secret(r"(?i)\bbearer\s++(?P<it>[\w.~+/-]{8,}+=*+)"),
    _secret(r"(?i)\b(?:basic|token)\s++(?=[\w.~+/-]{0,60}\d)(?P<it>[\w.~+/-]{8,}+=*+)"),
    _secret(rf"(?<![A-Za-z0-9]){_KEY_STARTS}(?=[\w.-]{{0,40}}\d)(?P<it>[\w-]{{10,}}+[\w.-]*+)"),
    _secret(r"(?i)hooks\.slack\.com/(?:services|workflows)/(?P<it>[\w/]{10,}+)"),
    _secret(rf"(?i)[?&;](?:[\w.-]{{0,40}}[_.-])?{_PARAMETERS}=(?P<it>[^&#;\s\"'<>]++)"),
    Pattern(
        "email",
        re.compile(
            # What divides in URLs is a name's part only where it is all of it.
            r"(?:(?<![\w.+'%~!$^*-])[\w.+'%~!$^*-]+|[#&/=?{|}`])(?:@|%40)"
            r"[\w-]++(?:\.[\w-]++)*\.[^\W\d_][\w-]++"
        ),
    ),
    Pattern(
        "iban",
        re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?:[ -]?[A-Z0-9]){11,30}(?![A-Za-z0-9])"),
        _is_iban,
    ),
    Pattern(
        "ip",
        re.compile(
            r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}(?:(?:\d{1,3}\.){3}\d{1,3}|[0-9A-Fa-f]{1,4})?(?![\w:])",
            re.ASCII,
        ),
        _is_ip,
    ),
    Pattern("ip", re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?!\.?\w)", re.ASCII), _is_ip),
    Pattern(
        "card",
        re.compile(r"(?<![\w.])[2-6](?:[ -]?\d){12,18}(?!\w|\.\d)", re.ASCII),
        _is_card,
    ),
    Pattern(
        "phone",
        re.compile(r"(?<![\w+/=.])\+\d(?:[ ().-]{0,2}\d){6,14}(?!\w)", re.ASCII),
        _is_phone,
    ),
    Pattern(
        "phone",
        re.compile(r"(?<![\w.+-])\(?[2-9]\d\d(?:\) ?|[ .-])\d{3}[ .-]\d{4}(?![\w-])", re.ASCII),
        _is_phone,
    ),
)
