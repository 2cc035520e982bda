"""Which URLs are fetched at all: what is needed to check a configuration, and no more."""

import re
from typing import Final
from urllib.parse import urlsplit

from fasthook.errors import FasthookError

_HOST: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


class FetchError(FasthookError):
    """Nothing was fetched; the message says why, without the URL."""


def parts_of(url: str) -> tuple[str, int, str]:
    """Host, port and target of a URL that is meant. Raises `FetchError`."""
    try:
        parts = urlsplit(url)
        port = parts.port or 443
    except ValueError:
        raise FetchError("that is no URL") from None
    if not (url.isascii() and url.isprintable() and " " not in url and "\\" not in url):
        raise FetchError("that is no URL")
    if parts.scheme != "https":
        raise FetchError("only https:// is fetched")
    if parts.username is not None or parts.password is not None or "@" in parts.netloc:
        raise FetchError("a URL with a user is not fetched")
    host = parts.hostname or ""
    if not _HOST.fullmatch(host):
        raise FetchError("the URL has no host name")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return host, port, target
