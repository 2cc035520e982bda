"""A signed event through DNS, TLS, nginx and the whole line, up to its handler.

Each part that it passes is a finding; the first one that fails is the last.
"""

import http.client
import socket
import ssl
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

import orjson

from fasthook import config
from fasthook.cli import send
from fasthook.cli.doctor.case import Case
from fasthook.cli.doctor.findings import Finding, bad, good, unseen, warning
from fasthook.config import Config, Endpoint
from fasthook.errors import ConfigError
from fasthook.logs import escape
from fasthook.model import Request, texts
from fasthook.spool.changes import State
from fasthook.spool.found import Filter, Found
from fasthook.spool.queries import Reader
from fasthook.verifying import known_secrets, provider_of, scheme_of

ID_PREFIX: Final = "fasthook-probe-"
_MARK: Final = "fasthook_probe"  # a field
_CONNECT_S: Final = 10
_ANSWER_S: Final = 30
_POLL_S: Final = 0.05
_STORED_S: Final = 10
_SEVERAL: Final = 100  # newer events of the endpoint, among which it must be
_CLOCKS_NS: Final = 60 * 10**9
_MAX_ANSWER_BYTES: Final = 64 * 1024
_MAX_ERROR_CHARS: Final = 300
_DAY_S: Final = 86400
#: Let's Encrypt's are renewed 30 days before they end; later than this, that has failed.
_RENEWED_DAYS: Final = 21
_ENDING_DAYS: Final = 7
_LOG: Final = "`fasthook rejects` and the service's log have the reason"
_CURES: Final = {
    401: f"the secret here is not the service's, or a clock is wrong: {_LOG}",
    403: f"this machine is not on a list of allowed ones (allow, or nginx's): {_LOG}",
    404: "look at server_name and location of nginx, and at the endpoint's path",
    413: "have a larger client_max_body_size or max_body",
    429: f"the endpoint's rate, or nginx's limit_req, is used up: {_LOG}",
    502: "start fasthook, and let nginx's user use its socket: nginx's error log has the reason",
    503: f"it is too busy, has no room, or is stopping: {_LOG}",
    504: f"it does not answer in time: {_LOG}",
}


class Probe(NamedTuple):
    """What is sent, and where."""

    url: str
    endpoint: Endpoint
    event_id: str
    request: Request
    is_known_by_body: bool  # its provider's events have no id that could be chosen


class _Answer(NamedTuple):
    status: int
    body: bytes
    took_s: float


class _Failed(Exception):
    """A part has failed; it is the last finding."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.text)
        self.finding = finding


def check_url(url: str) -> SplitResult:
    """The parts of a URL. Raises `ValueError`."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r}; expected a URL such as https://hooks.example.com")
    _ = parts.port  # which raises, too
    return parts


# --- what is sent ---------------------------------------------------------------------------------


def prepare(case: Case, url: str, name: str | None) -> Probe:
    """The event for an endpoint, or for the first one that can be signed for.

    Raises `ConfigError` where there is none, as without its secret.
    """
    settings = config.load(case.path)
    wanted = [each for each in settings.endpoint if name in (None, each.name)]
    reasons = []
    for endpoint in wanted:
        try:
            return _prepared(settings, endpoint, url)
        except ConfigError as error:
            reasons.append(f"{endpoint.name}: {error}")
    raise ConfigError(f"no endpoint can be signed for; {'; '.join(reasons)}")


def _prepared(settings: Config, endpoint: Endpoint, url: str) -> Probe:
    provider = provider_of(endpoint, endpoint.name)
    scheme = scheme_of(endpoint, provider, endpoint.name)
    if scheme is None:
        raise ConfigError(f"provider {provider.id} signs nothing")
    secrets = known_secrets(endpoint, provider, settings)
    if not secrets:
        raise ConfigError("it has no secret to sign with")
    if urlsplit(url).path in ("", "/"):
        url = url.rstrip("/") + endpoint.path
    signed_url = endpoint.public_url or url
    target = send.Target(url, signed_url, provider, scheme, secrets[0], endpoint.config)
    event_id = f"{ID_PREFIX}{uuid.uuid4().hex[:16]}"
    known = [each for each in provider.samples if each in (endpoint.events or provider.samples)]
    event_type = next(iter((*known, *(endpoint.events or ()))), None)
    request = send.build(target, event_type, None, event_id, None)
    parts = (request.target, request.body, *request.headers.values())
    is_known_by_body = event_id.encode() not in b"\n".join(parts)
    if is_known_by_body:
        body = _marked(request.body, event_id)
        request = send.build(target, event_type, body, event_id, None)
    return Probe(url, endpoint, event_id, request, is_known_by_body)


def _marked(body: bytes, event_id: str) -> bytes:
    """A body that never came before: with one field more, where it has fields."""
    try:
        value = orjson.loads(body)
    except ValueError:
        return body + b"&" + f"{_MARK}={event_id}".encode() if body else body
    first = value[0] if isinstance(value, list) and value else value
    if isinstance(first, dict):
        first[_MARK] = event_id
    return orjson.dumps(value)


# --- on its way -----------------------------------------------------------------------------------


def run(case: Case, probe: Probe, ca_file: Path | None, wait_s: float) -> Iterator[Finding]:
    """Send it, and say how far it came. `wait_s`: for its handlers."""
    since_ns = time.time_ns() - _CLOCKS_NS
    try:
        yield from _sent(probe, ca_file)
        if case.settings.spool.durability == "none":
            cure = 'the log says it; durability = "fsync" keeps events'
            yield unseen("probe stored", "nothing is kept, since durability is none", cure)
            return
        yield from _followed(case, probe, since_ns, wait_s)
    except _Failed as failed:
        yield failed.finding


def _sent(probe: Probe, ca_file: Path | None) -> Iterator[Finding]:
    parts = check_url(probe.url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    addresses = _resolve(host, port)
    yield good("probe DNS", f"{host} is {', '.join(addresses)}")
    connection = _connect(host, port)
    with connection:
        yield good("probe TCP", f"connected to port {port} of {connection.getpeername()[0]}")
        if parts.scheme == "https":
            with _secured(connection, host, ca_file) as secured:
                yield _certificate(secured)
                answer = _exchange(secured, parts, probe.request)
        else:
            yield warning("probe TLS", "none: the URL begins with http://", "use https://")
            answer = _exchange(connection, parts, probe.request)
    yield _judge(answer)


def _resolve(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        cure = "correct the name, or its record (A, AAAA) at the DNS server"
        reason = getattr(error, "strerror", None) or "it is no name of a host"
        raise _Failed(bad("probe DNS", f"{host}: {reason}", cure)) from None
    return list(dict.fromkeys(str(each[4][0]) for each in found))


def _connect(host: str, port: int) -> socket.socket:
    try:
        return socket.create_connection((host, port), timeout=_CONNECT_S)
    except OSError as error:
        cure = "start nginx, look at its `listen`, and at firewalls in between"
        what = f"port {port} of {host}: {error.strerror or error}"
        raise _Failed(bad("probe TCP", what, cure)) from None


def _secured(connection: socket.socket, host: str, ca_file: Path | None) -> ssl.SSLSocket:
    try:
        context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except OSError as error:
        is_text = isinstance(error, ssl.SSLError)
        what = f"{ca_file}: {'no certificates in PEM' if is_text else error.strerror}"
        cure = "give the certificates of an authority, in PEM"
        raise _Failed(bad("probe TLS", what, cure)) from None
    try:
        return context.wrap_socket(connection, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        cure = (
            "have a certificate for this name, with its chain; --ca-file for an authority of yours"
        )
        raise _Failed(bad("probe TLS", f"{host}: {error.verify_message}", cure)) from None
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror or error
        cure = "look at ssl_protocols and ssl_ciphers, and whether TLS is spoken on that port"
        raise _Failed(bad("probe TLS", f"{host}: {reason}", cure)) from None


def _certificate(secured: ssl.SSLSocket) -> Finding:
    """How long the certificate is good for; that it is good now is known."""
    ends = str((secured.getpeercert() or {}).get("notAfter", ""))
    days = (ssl.cert_time_to_seconds(ends) - time.time()) / _DAY_S
    text = f"{secured.version()}; the certificate is good for {days:.0f} days"
    cure = "renew it: `certbot renew`, and have nginx reload"
    if days < _ENDING_DAYS:
        return bad("probe TLS", text, cure)
    if days < _RENEWED_DAYS:
        return warning("probe TLS", text, cure)
    return good("probe TLS", text)


def _exchange(connection: socket.socket, parts: SplitResult, request: Request) -> _Answer:
    connection.settimeout(_ANSWER_S)
    client = http.client.HTTPConnection(parts.hostname or "", parts.port or 80)
    client.sock = connection
    headers = texts(request.headers)
    headers |= {"host": parts.netloc.rpartition("@")[2], "connection": "close"}
    began = time.perf_counter()
    try:
        client.request("POST", request.target.decode(), request.body, headers)
        response = client.getresponse()
        body = response.read(_MAX_ANSWER_BYTES)
    except (OSError, http.client.HTTPException) as error:
        cure = "look at nginx's error log and fasthook's log"
        what = f"no answer: {getattr(error, 'strerror', None) or type(error).__name__}"
        raise _Failed(bad("probe answer", what, cure)) from None
    return _Answer(response.status, body, time.perf_counter() - began)


def _judge(answer: _Answer) -> Finding:
    status = answer.status
    if 200 <= status < 300:
        return good("probe answer", f"{status} in {answer.took_s * 1000:.1f} ms")
    is_page = b"<html" in answer.body.lower()  # fasthook answers with a line of text
    who = "nginx" if is_page or status in (502, 504) else "fasthook"
    if 300 <= status < 400:
        cure = "senders don't follow redirects: give them the URL that it leads to"
    else:
        cure = _CURES.get(status, _LOG)
    raise _Failed(bad("probe answer", f"{who} answers {status}", cure))


# --- in the spool ---------------------------------------------------------------------------------


def _followed(case: Case, probe: Probe, since_ns: int, wait_s: float) -> Iterator[Finding]:
    try:
        reader = Reader(case.spool)
    except ConfigError as error:
        cure = "run it as root or as the service's user, where the service is"
        yield unseen("probe stored", str(error), cure)
        return
    with reader:
        found = _stored(reader, probe, since_ns)
        yield good("probe stored", f"as {found.name}, with the id {escape(found.event_id)}")
        if case.settings.dispatch.hold:
            what = "dispatch.hold: nothing is handled"
            yield warning("probe handled", what, "take it out, and restart the service")
            return
        yield _handled(reader, probe, found, wait_s)


def _stored(reader: Reader, probe: Probe, since_ns: int) -> Found:
    """The event in the index, which lags a little."""
    name = probe.endpoint.name
    exactly = Filter(endpoint=name, event_id=probe.event_id, since_ns=since_ns)
    wanted = Filter(endpoint=name, since_ns=since_ns)
    ends = time.monotonic() + _STORED_S
    while True:
        if same := reader.newest(exactly, 1):
            return same[0]
        # A provider's id may be made of several values, or there is none.
        for found in reader.newest(wanted, _SEVERAL):
            if probe.event_id in found.event_id or _has_body(reader, found, probe):
                return found
        if time.monotonic() > ends:
            what = f"it was answered 2xx, and is not in {reader.path} after {_STORED_S} s"
            cure = "does the URL lead to this service, and to this endpoint?"
            raise _Failed(bad("probe stored", what, cure))
        time.sleep(_POLL_S)


def _has_body(reader: Reader, found: Found, probe: Probe) -> bool:
    if not probe.is_known_by_body:
        return False
    kept = reader.kept(found.position)
    return kept is not None and kept.body == probe.request.body


def _handled(reader: Reader, probe: Probe, found: Found, wait_s: float) -> Finding:
    names = ", ".join(probe.endpoint.handler_names)
    began = time.monotonic()
    while True:
        for failure in reader.failures_of([found.position]).get(found.position, []):
            error = escape(failure.error[:_MAX_ERROR_CHARS])
            what = f"handler {failure.handler or names} failed: {error}"
            cure = f"`fasthook show {found.name}` has all of it; correct the handler"
            return bad("probe handled", what, cure)
        state = getattr(reader.at(found.position), "state", State.FORGOTTEN)
        if state not in (State.PENDING, State.RUNNING):
            return _ended(state, names, found)
        if time.monotonic() - began > wait_s:
            what = f"{names}: not done after {wait_s:g} s ({state.name.lower()})"
            cure = (
                "look at the backlog (`fasthook spool stat`) and at the handler; or --wait longer"
            )
            return bad("probe handled", what, cure)
        time.sleep(_POLL_S)


def _ended(state: State, names: str, found: Found) -> Finding:
    if state is State.DONE:
        return good("probe handled", f"by {names}")
    if state is State.IGNORED:
        what = f"endpoint {found.endpoint} ignores events of type {escape(found.event_type)}"
        return warning("probe handled", what, "add the type to its events, or take events out")
    what = f"{names}: the event is {state.name.lower()}"
    return bad("probe handled", what, f"`fasthook show {found.name}` says why")
