"""Where the signatures of a request stand, and what stands beside them."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from fasthook.errors import NoSignature

_MAX_DIGITS: Final = 12  # of seconds
_MAX_DIGITS_MS: Final = 15
_ISO8601: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:?[0-9]{2})"
)
_MAX_DATE_BYTES: Final = 40

#: Signatures, and the other fields of the header that they stand in.
Extracted = tuple[list[bytes], dict[bytes, bytes] | None]


def _raw(value: bytes, keys: list[bytes], separator: bytes) -> Extracted:
    return [value], None


def _kv(value: bytes, keys: list[bytes], separator: bytes) -> Extracted:
    """`t=1,v1=…,v1=…`: a signature key may come several times; another that does has no value."""
    signatures: list[bytes] = []
    fields: dict[bytes, bytes] = {}
    for item in value.split(separator):
        key, _, text = item.strip(b" ").partition(b"=")
        if key in keys:
            signatures.append(text)
        else:
            fields[key] = b"" if key in fields else text
    return signatures, fields


def _versioned(value: bytes, keys: list[bytes], separator: bytes) -> Extracted:
    """`v1,… v1,… v1a,…`: unknown versions are skipped."""
    items = [item.partition(b",") for item in value.split(separator)]
    return [signature for version, _, signature in items if version in keys], None


def _list(value: bytes, keys: list[bytes], separator: bytes) -> Extracted:
    """`1767225600000,…,…`: the time first, under the key "t"; all others are signatures."""
    time, *signatures = [item.strip(b" ") for item in value.split(separator)]
    return signatures, {b"t": time}


#: Format → what reads a value with its signature keys and separator.
EXTRACTORS: Final[dict[str, Callable[[bytes, list[bytes], bytes], Extracted]]] = {
    "raw": _raw,
    "method": _raw,
    "kv": _kv,
    "versioned": _versioned,
    "list": _list,
}


def seconds_of(sent: bytes, unit: str) -> float:
    """Seconds since 1970 of a time as it was sent. Raises `NoSignature` unless it is one."""
    # Digits alone: int() would take signs, spaces and underscores. Of bytes, ASCII's are meant; a
    # pattern would ask the same at twice the price (bench/micro.py).
    if len(sent) <= (_MAX_DIGITS_MS if unit == "ms" else _MAX_DIGITS) and sent.isdigit():
        return float(sent) / 1000 if unit == "ms" else float(sent)  # seconds: also for dates
    if unit in ("s", "ms"):
        raise NoSignature("the timestamp is not a whole number")
    if len(sent) > _MAX_DATE_BYTES or not sent.isascii():
        raise NoSignature("the timestamp is no date")
    try:
        if unit == "http-date":
            return _utc(parsedate_to_datetime(sent.decode())).timestamp()
        found = _ISO8601.fullmatch(sent.decode())
        if found is None:
            raise ValueError
        # Python knows microseconds; some send nanoseconds.
        return datetime.fromisoformat(found[1] + (found[2] or "")[:7] + found[3]).timestamp()
    except (ValueError, TypeError, OverflowError):
        raise NoSignature("the timestamp is no date") from None


def _utc(date: datetime) -> datetime:
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)
