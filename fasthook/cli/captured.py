"""Captured requests, in the forms that people have: as sent, a curl command line, or a HAR."""

import base64
import json
import shlex
from collections.abc import Iterator
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from fasthook.errors import ConfigError
from fasthook.model import Request, joined

#: Options of curl that take a value, and are of no use here.
_CURL_VALUES: Final = ("-o", "--output", "-u", "--user", "-A", "--user-agent", "-m", "--max-time")
_CURL_DATA: Final = ("-d", "--data", "--data-raw", "--data-binary", "--data-ascii", "--json")


class Captured(NamedTuple):
    """A request, and the URL it went to, as far as that is known."""

    request: Request
    url: str


def parse(text: bytes) -> Captured:
    """The captured request. Raises `ConfigError` that says which forms are known."""
    start = text.lstrip()
    if start.startswith(b"curl ") or start.startswith(b"curl\t"):
        return _from_curl(start.decode("utf-8", "surrogateescape"))
    if start.startswith(b"{") and b'"log"' in text[:200]:
        return _from_har(text)
    return from_raw(text)


def from_raw(text: bytes, body: bytes | None = None) -> Captured:
    """A request as it is sent: request line, header fields, blank line, body."""
    separator = b"\r\n\r\n" if b"\r\n\r\n" in text else b"\n\n"
    head, _, rest = text.partition(separator)
    lines = head.replace(b"\r\n", b"\n").split(b"\n")
    words = lines[0].split(b" ")
    if len(words) != 3 or not words[2].startswith(b"HTTP/"):
        raise ConfigError(
            "no captured request: expected a request as it is sent (POST /path HTTP/1.1, header "
            "fields, a blank line, the body), a curl command line, or a HAR"
        )
    pairs = []
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if colon:
            pairs.append((name, value))
    return _made(words[0], words[1], pairs, rest if body is None else body)


def _made(method: bytes, target: bytes, pairs: list[tuple[bytes, bytes]], body: bytes) -> Captured:
    values: dict[bytes, list[bytes]] = {}
    for name, value in pairs:
        values.setdefault(name.strip().lower(), []).append(value.strip(b" \t"))
    url = ""
    if not target.startswith(b"/"):
        url = target.decode("latin-1")
        parts = urlsplit(url)
        values.setdefault(b"host", [parts.netloc.encode()])
        path = parts.path or "/"
        target = (f"{path}?{parts.query}" if parts.query else path).encode()
    elif b"host" in values:
        url = f"https://{values[b'host'][0].decode('latin-1')}{target.decode('latin-1')}"
    repeated = {name: several for name, several in values.items() if len(several) > 1}
    path_bytes = target.partition(b"?")[0]
    headers = joined(values)
    request = Request(method, target, path_bytes, b"", headers, True, repeated or None, body)
    return Captured(request, url)


def _from_curl(text: str) -> Captured:
    try:
        words = shlex.split(text.replace("\\\n", " "))[1:]
    except ValueError as error:
        raise ConfigError(f"the curl command line can't be read: {error}") from None
    method, url = "", ""
    body: list[bytes] = []
    pairs: list[tuple[bytes, bytes]] = []
    for name, value in _options(words):
        if name in ("-H", "--header"):
            field, _, text = value.partition(":")
            pairs.append((field.encode("latin-1", "replace"), text.encode("utf-8", "replace")))
        elif name in ("-X", "--request"):
            method = value
        elif name in _CURL_DATA:
            body.append(_data(name, value))
        elif name in ("", "--url"):
            url = value
    if not url:
        raise ConfigError("the curl command line has no URL")
    url = url if "://" in url else f"http://{url}"
    method = method or ("POST" if body else "GET")
    return _made(method.encode(), url.encode(), pairs, b"&".join(body))


def _data(option: str, value: str) -> bytes:
    if value.startswith("@") and option != "--data-raw":
        raise ConfigError(f"the body stands in another file ({value}); put it in its place")
    return value.encode("utf-8", "surrogateescape")


def _options(words: list[str]) -> Iterator[tuple[str, str]]:
    """Options with their values; what is no option under no name."""
    takes_value = ("-H", "--header", "-X", "--request", "--url", *_CURL_DATA, *_CURL_VALUES)
    rest = iter(words)
    for word in rest:
        name, value = _option(word)
        if not name.startswith("-"):
            yield "", word
        elif name in takes_value:
            yield name, value or next(rest, "")


def _option(word: str) -> tuple[str, str]:
    """An option, and its value where it is joined to it."""
    if word.startswith("--"):
        name, _, value = word.partition("=")
        return name, value
    if word[:2] in ("-H", "-X", "-d") and len(word) > 2:
        return word[:2], word[2:]
    return word, ""


def _from_har(text: bytes) -> Captured:
    try:
        entry: Any = json.loads(text)["log"]["entries"][0]["request"]
        pairs = [(h["name"].encode(), h["value"].encode()) for h in entry["headers"]]
        data = entry.get("postData", {})
        body = data.get("text", "").encode()
        if data.get("encoding") == "base64":
            body = base64.b64decode(body)
        pairs = [(name, value) for name, value in pairs if not name.startswith(b":")]
        return _made(entry["method"].encode(), entry["url"].encode(), pairs, body)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise ConfigError(f"the HAR has no request to look at: {error!r}") from None
