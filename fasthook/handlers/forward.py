"""`forward`: each event, as it came, to another HTTP server; signed anew if asked for.

The body is sent byte for byte, so that the provider's own signature still holds there.
"""

import base64
import hmac
import time
from typing import Any, Final

import msgspec
import urllib3

from fasthook.errors import ConfigError, Discard, Retry
from fasthook.handling import Handler, HandlerFactory, handler
from fasthook.logs import escape
from fasthook.model import Event
from fasthook.values import Duration, Secret

#: RFC 9110 §7.6.1, and what belongs to the connection we received on.
_DROPPED: Final = {
    *("connection", "host", "content-length", "transfer-encoding", "keep-alive", "te", "trailer"),
    *("proxy-authenticate", "proxy-authorization", "proxy-connection", "upgrade", "expect"),
}
_MAX_RETRY_AFTER_S: Final = 3600.0
_MAX_ANSWER_BYTES: Final = 64 * 1024


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[handlers.forward]`."""

    url: str
    #: Adds the headers of Standard Webhooks; the secret is whsec_ and base64.
    sign_with: Secret | None = None
    connect_timeout: Duration = Duration(5)
    read_timeout: Duration = Duration(20)
    connections: int = 16  # kept open, and used at once


def build(settings: Settings) -> Handler:
    """The handler for these settings. Raises `ConfigError`."""
    try:
        url = urllib3.util.parse_url(settings.url)
    except urllib3.exceptions.LocationParseError:
        url = urllib3.util.Url()
    if url.scheme not in ("http", "https") or not url.host or url.auth:
        raise ConfigError("url: expected http:// or https:// and a host, without user or password")
    if settings.connections < 1:
        raise ConfigError(f"connections: {settings.connections}; expected 1 or more")
    key = _key(settings.sign_with) if settings.sign_with is not None else None
    client = urllib3.PoolManager(
        maxsize=settings.connections,
        block=True,
        # fasthook counts and spaces attempts; a redirect could lead anywhere.
        retries=False,
        timeout=urllib3.Timeout(connect=settings.connect_timeout, read=settings.read_timeout),
    )

    @handler(timeout=30, concurrency=settings.connections)
    def forward(event: Event[Any]) -> None:
        named = event.headers.get("connection", "").lower().split(",")
        dropped = _DROPPED.union(name.strip() for name in named)
        headers = {k: v for k, v in event.headers.items() if k not in dropped}
        headers["x-fasthook-endpoint"] = event.endpoint
        headers["x-fasthook-attempt"] = str(event.attempt)
        if key is not None:
            headers |= signed_headers(key, event.id, event.body, int(time.time()))
        try:
            response = client.request(
                "POST", settings.url, body=event.body, headers=headers, preload_content=False
            )
        except urllib3.exceptions.HTTPError as error:
            raise Retry(f"no answer from the upstream: {error}") from None
        # A short answer is read to its end, so that the connection can be used again; a long one
        # ends it.
        response.read(_MAX_ANSWER_BYTES)
        if response.read(1):
            response.close()
        response.release_conn()
        _judge(response)

    return forward


def signed_headers(key: bytes, event_id: str, body: bytes, now_s: int) -> dict[str, str]:
    """The three headers of Standard Webhooks (its specification, "Signature scheme")."""
    # A header holds bytes: those of UTF-8, and none that would end it.
    event_id = escape(event_id).encode().decode("latin-1")
    message = f"{event_id}.{now_s}.".encode("latin-1") + body
    signature = base64.b64encode(hmac.digest(key, message, "sha256")).decode()
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(now_s),
        "webhook-signature": f"v1,{signature}",
    }


def _key(secret: Secret) -> bytes:
    text = secret.reveal().removeprefix(b"whsec_")
    try:
        key = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except ValueError:
        key = b""
    if not key:
        raise ConfigError("sign_with: expected whsec_ and base64")
    return key


def _judge(response: urllib3.BaseHTTPResponse) -> None:
    """Return for a 2xx; else raise what fits the answer."""
    status = response.status
    if 200 <= status < 300:
        return
    if status == 410:
        raise Discard("the upstream answered 410: it wants no more of these")
    after = response.headers.get("retry-after", "")
    after_s = min(float(after), _MAX_RETRY_AFTER_S) if after.isascii() and after.isdigit() else None
    raise Retry(f"the upstream answered {status}", after=after_s)


forward = HandlerFactory(Settings, build)
