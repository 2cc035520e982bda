"""The number behind each trick on the hot path, beside the plain way.

    python -m bench.micro

One line a trick: what it costs, what the plain way costs, in µs on this machine; the best of
several runs, since noise only adds.
"""

import hashlib
import hmac
import re
import timeit
from collections.abc import Callable

import httptools
import msgspec
import orjson

from bench.workload import SECRET, push_body, request
from fasthook.intake.comparing import KeyedHash


def best_us(function: Callable[[], object], number: int = 5000) -> float:
    """Microseconds a call."""
    return min(timeit.repeat(function, number=number, repeat=7)) / number * 1e6


class _OneStep:
    """Callbacks as wire/reader.py has them."""

    def __init__(self) -> None:
        self.fields: dict[bytes, bytes] = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields[name.lower()] = value


class _TwoSteps:
    """No Python frame for each field, but another look at each afterwards."""

    def __init__(self) -> None:
        self.fields: dict[bytes, bytes] = {}
        self.on_header = self.fields.__setitem__


def header_callbacks(head: bytes) -> tuple[float, float]:
    """wire/reader.py: names are put in lower case as they come."""
    one, two = _OneStep(), _TwoSteps()
    one_parser, two_parser = (httptools.HttpRequestParser(c) for c in (one, two))

    def in_one() -> dict[bytes, bytes]:
        one_parser.feed_data(head)
        fields, one.fields = one.fields, {}
        return fields

    def in_two() -> dict[bytes, bytes]:
        two_parser.feed_data(head)
        fields = {name.lower(): value for name, value in two.fields.items()}
        two.fields.clear()
        return fields

    return best_us(in_one), best_us(in_two)


def keyed_hash(body: bytes) -> tuple[float, float]:
    """intake/signatures.py: both halves of the key hashed beforehand."""
    keyed = KeyedHash(SECRET, "sha256")
    return best_us(lambda: keyed.digest(body)), best_us(lambda: hmac.digest(SECRET, body, "sha256"))


def hashing_alone(body: bytes) -> tuple[float, float]:
    """What no trick can save: SHA-256 over the body, beside our HMAC."""
    keyed = KeyedHash(SECRET, "sha256")
    return best_us(lambda: hashlib.sha256(body).digest()), best_us(lambda: keyed.digest(body))


def digits_alone() -> tuple[float, float]:
    """intake/extracting.py: whether a signed time is a whole number."""
    sent, pattern = b"1767225600", re.compile(rb"[0-9]{1,12}")
    ours = best_us(lambda: len(sent) <= 12 and sent.isdigit(), 50_000)
    return ours, best_us(lambda: pattern.fullmatch(sent), 50_000)


def pieces_fed(body: bytes) -> tuple[float, float]:
    """intake/comparing.py: what is signed is hashed piece by piece, and not joined before."""
    keyed, pieces = KeyedHash(SECRET, "sha256"), [b"1767225600", b".", body]
    return best_us(lambda: keyed.digest_of(pieces)), best_us(lambda: keyed.digest(b"".join(pieces)))


def hostile_floats() -> tuple[float, float]:
    """intake/payloads.py: 8 kB of 1e308, which msgspec reads slowly."""
    body = b"[" + b",".join([b"1e308"] * 1400) + b"]"
    decode = msgspec.json.Decoder(list[float]).decode
    ours = best_us(lambda: msgspec.convert(orjson.loads(body), list[float]), 50)
    return ours, best_us(lambda: decode(body), 50)


def main() -> None:
    """Print all of them."""
    headers, body = request("/github", push_body())
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST /github HTTP/1.1\r\n{lines}\r\n".encode().replace(b"7324", b"0")
    rows = {
        "header callbacks": header_callbacks(head),
        "keyed hash, 7.3 kB": keyed_hash(body),
        "(SHA-256 alone, beside it)": hashing_alone(body),
        "signed pieces, 7.3 kB": pieces_fed(body),
        "digits of a signed time": digits_alone(),
        "hostile floats, 8 kB": hostile_floats(),
    }
    print(f"{'':28} {'ours':>9} {'plain':>9}")
    for name, (ours, plain) in rows.items():
        print(f"{name:28} {ours:9.2f} {plain:9.2f} µs")


if __name__ == "__main__":
    main()
