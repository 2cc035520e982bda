"""One GET over HTTPS, with bounds on all of it. It blocks, so it belongs into a thread.

No redirects, no proxies from the environment, no credentials. The name is looked up once; its
addresses are checked, and the one that is connected to is one of those: a name that answers
otherwise the next time (DNS rebinding) leads nowhere else.
"""

import http.client
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import urllib3
from urllib3.connection import HTTPSConnection

from fasthook import __version__
from fasthook.errors import ConfigError
from fasthook.remote.addresses import Network, is_allowed
from fasthook.remote.urls import FetchError, parts_of

_MAX_ADDRESSES: Final = 4  # that are tried
_MAX_AGE: Final = re.compile(r"(?:^|[,\s])max-age=\"?([0-9]{1,9})\b")
Lookup = Callable[[str, int], Sequence[str]]


class Response(NamedTuple):
    """What was fetched."""

    body: bytes
    max_age_s: float | None  # how long it may be kept, as its server says; None: it says nothing


def look_up(host: str, port: int) -> Sequence[str]:
    """The addresses of a name. Raises `OSError`."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Client:
    """Fetches from servers that are known by name and certificate."""

    def __init__(
        self,
        ca_file: str = "",
        allow: Sequence[Network] = (),
        connect_to: Mapping[str, tuple[str, int]] | None = None,
        timeout_s: float = 5.0,
        lookup: Lookup = look_up,
    ) -> None:
        """`ca_file`: whom to trust, in the place of the system's list. `allow`: networks that may
        be connected to although they are not public. `connect_to`: host → address and port that it
        is reached by, such as a relay; its certificate is still the host's. Raises `ConfigError`.
        """
        try:
            self._context = ssl.create_default_context(cafile=ca_file or None)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"ca_file: {ca_file}: {error.strerror or error}") from None
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._allow = allow
        self._connect_to = connect_to or {}
        self._timeout_s = timeout_s
        self._lookup = lookup

    def get(self, url: str, max_bytes: int) -> Response:
        """The body of a 200. Raises `FetchError`."""
        ends_s = time.monotonic() + self._timeout_s
        host, port, target = parts_of(url)
        connection = self._connected(host, port, ends_s)
        # A socket's own timeout begins anew with each byte, so this ends it all.
        left_s = max(0.001, ends_s - time.monotonic())
        if connection.sock is not None:
            connection.sock.settimeout(left_s)
        guard = threading.Timer(left_s, _cut_off, [connection.sock])
        guard.daemon = True
        guard.start()
        late = f"no whole answer within {self._timeout_s:g} s"
        try:
            return self._asked(connection, host, target, max_bytes)
        except TimeoutError:
            raise FetchError(late) from None
        except FetchError as error:
            raise FetchError(late if time.monotonic() >= ends_s else str(error)) from None
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError) as e:
            words = f"the answer can't be read: {_words(e)}"
            raise FetchError(late if time.monotonic() >= ends_s else words) from None
        finally:
            guard.cancel()
            connection.close()

    def _asked(
        self, connection: HTTPSConnection, host: str, target: str, max_bytes: int
    ) -> Response:
        headers = {
            "Host": host,
            "User-Agent": f"fasthook/{__version__}",
            "Accept-Encoding": "identity",
            "Connection": "close",
        }
        connection.request(
            "GET", target, headers=headers, preload_content=False, decode_content=False
        )
        answer = connection.getresponse()
        try:
            return _read(answer, max_bytes)
        finally:
            answer.close()

    def _connected(self, host: str, port: int, ends_s: float) -> HTTPSConnection:
        failure = "no time was left"
        for address, at_port in self._addresses(host, port)[:_MAX_ADDRESSES]:
            # Of a handshake all of it counts, so twice this bounds the connection.
            left_s = (ends_s - time.monotonic()) / 2
            if left_s <= 0:
                break
            connection = HTTPSConnection(
                address,
                at_port,
                timeout=left_s,
                server_hostname=host,
                ssl_context=self._context,
            )
            try:
                connection.connect()
                return connection
            except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
                connection.close()
                failure = f"{address}: {_words(error)}"
        raise FetchError(f"no connection to {host}: {failure}")

    def _addresses(self, host: str, port: int) -> Sequence[tuple[str, int]]:
        if host in self._connect_to:
            return [self._connect_to[host]]
        try:
            found = self._lookup(host, port)
        except (OSError, UnicodeError) as error:
            raise FetchError(f"the name {host} can't be looked up: {_words(error)}") from None
        fitting = [one for one in found if is_allowed(ipaddress.ip_address(one), self._allow)]
        if not fitting:
            listed = ", ".join(found[:_MAX_ADDRESSES]) or "none"
            raise FetchError(
                f"{host} has no public address, but {listed}; keys.allow may name its network"
            )
        return [(one, port) for one in fitting]


def _read(answer: urllib3.BaseHTTPResponse, max_bytes: int) -> Response:
    """What stands in a 200. Raises `FetchError`."""
    if 300 <= answer.status < 400:
        raise FetchError(f"it answered {answer.status}: redirects are not followed")
    if answer.status != 200:
        raise FetchError(f"it answered {answer.status}")
    body = answer.read(max_bytes + 1)
    if len(body) > max_bytes:
        raise FetchError(f"it is larger than {max_bytes} bytes")
    length = answer.headers.get("content-length")
    if length is None and answer.headers.get("transfer-encoding", "").lower() != "chunked":
        # What ends with the connection may have been cut anywhere, and a key is its length.
        raise FetchError("the answer does not say how long it is")
    if length is not None and len(body) < int(length):
        raise FetchError("the answer broke off")
    return Response(body, _max_age(answer.headers))


def trusted_roots(ca_file: str) -> bytes:
    """The file's certificates, in PEM; without one those of the system. Raises `ConfigError`."""
    paths = ssl.get_default_verify_paths()
    path = ca_file or paths.cafile
    try:
        if path:
            return Path(path).read_bytes()
        folder = Path(paths.capath or paths.openssl_capath)
        return b"\n".join(one.read_bytes() for one in sorted(folder.glob("*.0")))
    except OSError as error:
        raise ConfigError(f"ca_file: {error.filename}: {error.strerror}") from None


def _max_age(headers: Any) -> float | None:
    said = headers.get("cache-control", "").lower()
    if "no-store" in said or "no-cache" in said:
        return 0.0
    match = _MAX_AGE.search(said)
    if match is None:
        return None
    age = headers.get("age", "")
    return max(0.0, float(match[1]) - (float(age) if age.isascii() and age.isdigit() else 0.0))


def _cut_off(opened: socket.socket | None) -> None:
    """End a connection that another thread waits for: it reads the end."""
    try:
        if opened is not None:
            socket.socket.shutdown(opened, socket.SHUT_RDWR)  # of TLS the layer below
    except OSError:
        pass


def _words(error: BaseException) -> str:
    """What went wrong, in one line, without the addresses of objects."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not to be trusted: {error.verify_message}"
    text = str(getattr(error, "strerror", "") or error) or type(error).__name__
    return re.sub(r"<[^>]*>:? ?", "", " ".join(text.split()))[:200]
