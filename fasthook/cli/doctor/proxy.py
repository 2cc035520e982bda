"""nginx in front of fasthook: its syntax, and whether what it does fits what fasthook expects."""

import grp
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from fasthook.cli.doctor.case import Case
from fasthook.cli.doctor.findings import Finding, bad, good, unseen, warning
from fasthook.cli.doctor.sites import Site, addresses_of, of, parse, sites_of
from fasthook.cli.spool import size
from fasthook.logs import escape

_SUBJECT: Final = "nginx"
_PATIENCE_S: Final = 30
_ELSEWHERE: Final = "/usr/local/sbin:/usr/sbin:/sbin"  # not on everybody's PATH
_VERSION: Final = re.compile(r"nginx/(\d+)\.(\d+)\.(\d+)")
_PATH: Final = re.compile(r"the configuration file (\S+) syntax is ok")
_OLD_TLS: Final = ("SSLv2", "SSLv3", "TLSv1", "TLSv1.1")
#: From these versions on nginx has better defaults (nginx.org/en/CHANGES).
_NEW_TLS: Final = (1, 27, 3)  # ssl_protocols TLSv1.2 TLSv1.3
_NEW_PROXY: Final = (1, 29, 7)  # proxy_http_version 1.1, keepalive 32
_SIZES: Final = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_TIMES_S: Final = {"ms": 0.001, "": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_BLOCK: Final = 'see "Behind nginx" in the README'


class Tested(NamedTuple):
    """What `nginx -t` says."""

    is_good: bool
    text: str  # all of it
    path: Path | None  # of the configuration


class _View(NamedTuple):
    """A location that leads to fasthook, and what it is measured by."""

    site: Site
    case: Case
    version: tuple[int, ...]


def look(case: Case, configuration: Path | None) -> Iterator[Finding]:
    """Look at nginx, with its own configuration or a given one."""
    program = shutil.which("nginx") or shutil.which("nginx", path=_ELSEWHERE)
    if program is None:
        cure = "ask on the machine of the proxy, or know that TLS and limits are right there"
        yield unseen(_SUBJECT, "nginx is not installed here", cure)
        return
    tested = test(program, configuration)
    if tested.is_good:
        yield good(_SUBJECT, f"{tested.path}: nginx -t finds it good")
    elif "Permission denied" in tested.text:
        yield unseen(_SUBJECT, "its configuration: permission denied", "run it as root")
        return
    else:
        lines = [line for line in tested.text.splitlines() if "[emerg]" in line]
        what = (lines or tested.text.splitlines() or ["no answer"])[-1]
        yield bad(_SUBJECT, escape(what.removeprefix("nginx: ")), "correct that; `nginx -t`")
    path = tested.path or configuration
    if path is not None:
        yield from _sites(case, path, _version(program), is_given=configuration is not None)


def test(program: str, configuration: Path | None) -> Tested:
    """Have nginx test its configuration. Raises `OSError`."""
    text, code = _said(
        program, "-t", *(["-c", str(configuration.absolute())] if configuration else [])
    )
    match = _PATH.search(text)
    return Tested(code == 0, text, Path(match[1]) if match else configuration)


def _said(program: str, *options: str) -> tuple[str, int]:
    try:
        done = subprocess.run(  # noqa: S603 - nginx, with options of ours
            [program, *options],
            capture_output=True,
            timeout=_PATIENCE_S,
            check=False,
            stdin=subprocess.DEVNULL,  # it may ask for the password of a key
        )
    except subprocess.TimeoutExpired:
        return f"nginx {options[0]} gave no answer within {_PATIENCE_S} s", 1
    return done.stderr.decode("utf-8", "replace"), done.returncode


def _version(program: str) -> tuple[int, ...]:
    match = _VERSION.search(_said(program, "-v")[0])
    return tuple(map(int, match.groups())) if match else (0, 0, 0)


def _sites(
    case: Case, path: Path, version: tuple[int, ...], *, is_given: bool
) -> Iterator[Finding]:
    addresses = addresses_of(case.settings, case.socket)
    tree = parse(path)
    sites = sites_of(tree, addresses)
    if not sites:
        what = f"{path}: no location proxies to {' or '.join(addresses) or 'fasthook'}"
        # Without being told, it can't be known that this is the way.
        yield (bad if is_given else warning)(_SUBJECT, what, f"{_BLOCK}")
        return
    for site in sites:
        view = _View(site, case, version)
        found = [finding for rule in _RULES for finding in rule(view)]
        yield from found or [good(_SUBJECT, f"{site.where}: {_ALL_WELL}")]
    for address in addresses:
        if address.startswith("unix:"):
            yield from _socket(Path(address.removeprefix("unix:")), of(tree, "user"))
    for endpoint in case.settings.endpoint:
        if not any(site.covers(endpoint.path) for site in sites):
            what = f"{endpoint.path} of endpoint {endpoint.name} is in no location that leads here"
            yield bad(_SUBJECT, what, f"location {endpoint.path} {{ … }}; {_BLOCK}")


def _socket(path: Path, users: list[list[str]]) -> Iterator[Finding]:
    """May nginx's workers connect? It takes the right to write (unix(7)), and to get there."""
    if not users or not path.exists():
        return  # it is somebody unknown, or there is nothing yet to connect to
    name, group = users[-1][0], users[-1][-1]  # without a group, that of the same name
    try:
        person = pwd.getpwnam(name)
        groups = set(os.getgrouplist(name, grp.getgrnam(group).gr_gid))
    except KeyError:
        return  # `nginx -t` says that
    rights = [*((folder, 1) for folder in reversed(path.resolve().parents)), (path, 2)]
    for each, right in rights:
        if person.pw_uid and not _may(each.stat(), right, person.pw_uid, groups):
            what = f"{path}: nginx's user {name} may not connect to it (by {each})"
            cure = "socket_group or SocketGroup= the group of nginx's user, and mode 0660"
            yield bad(_SUBJECT, what, cure if each == path else f"chmod o+x {each}")
            return


def _may(found: os.stat_result, right: int, user: int, groups: set[int]) -> bool:
    """Whether a user has a right: the owner's digit, the group's, or that of others."""
    shift = 6 if found.st_uid == user else 3 if found.st_gid in groups else 0
    return bool(found.st_mode >> shift & right)


# --- rules: each says what is wrong with a location -----------------------------------------------

_ALL_WELL: Final = "TLS, buffering, retries, HTTP version, sizes, client's address, keep-alive"


def _tls(view: _View) -> Iterator[Finding]:
    site, listens = view.site, of(view.site.server, "listen")
    has_tls = any("ssl" in args or "quic" in args for args in listens)
    if not has_tls and of(site.server, "ssl") != [["on"]]:
        what = f"{site.where}: events and tokens come without TLS"
        if listens and all(args[0].startswith(("unix:", "127.", "[::1]")) for args in listens):
            yield warning(_SUBJECT, what, "know that the proxy before it does TLS")
        else:
            yield bad(_SUBJECT, what, f"listen 443 ssl; {_BLOCK}")
        return
    protocols = site.last("ssl_protocols").split()
    old = [each for each in protocols if each in _OLD_TLS]
    cure = "ssl_protocols TLSv1.2 TLSv1.3;"
    if old:
        yield bad(_SUBJECT, f"{site.where}: ssl_protocols has {' '.join(old)}", cure)
    elif not protocols and view.version < _NEW_TLS:
        what = f"{site.where}: without ssl_protocols, this nginx takes TLSv1 and TLSv1.1, too"
        yield warning(_SUBJECT, what, cure)


def _buffering(view: _View) -> Iterator[Finding]:
    if view.site.last("proxy_request_buffering", "on") != "on":
        what = f"{view.site.where}: slow bodies reach fasthook, and are cut off by its deadlines"
        yield bad(_SUBJECT, what, "proxy_request_buffering on;")


def _retries(view: _View) -> Iterator[Finding]:
    words = view.site.last("proxy_next_upstream").split()
    if "non_idempotent" in words:
        what = f"{view.site.where}: a POST is sent again that may have been accepted already"
        yield bad(_SUBJECT, what, "proxy_next_upstream off;")
    elif words != ["off"]:
        what = f"{view.site.where}: a request may be sent to the next upstream server, too"
        yield warning(_SUBJECT, what, "proxy_next_upstream off;")


def _http_version(view: _View) -> Iterator[Finding]:
    default = "1.1" if view.version >= _NEW_PROXY else "1.0"
    found = view.site.last("proxy_http_version", default)
    if found != "1.1":
        what = f"{view.site.where}: proxies with HTTP/{found}, which fasthook refuses"
        yield bad(_SUBJECT, what, "proxy_http_version 1.1;")


def _body_size(view: _View) -> Iterator[Finding]:
    settings = view.case.settings
    limits = {
        endpoint.name: int(endpoint.max_body or settings.server.max_body)
        for endpoint in settings.endpoint
        if view.site.covers(endpoint.path)
    }
    given = view.site.last("client_max_body_size", "1m")
    found = size_of(given)
    largest = max(limits, key=limits.__getitem__, default="")
    if limits and 0 < found < limits[largest]:
        what = f"{view.site.where}: client_max_body_size {given} refuses what endpoint {largest}"
        needed = f"client_max_body_size {-(-limits[largest] // 1024**2)}m;"
        yield bad(_SUBJECT, f"{what} may get ({size(limits[largest])})", needed)
    elif not found:
        what = f"{view.site.where}: client_max_body_size 0 lets everybody fill the disk"
        largest_m = -(-max(limits.values(), default=1024**2) // 1024**2)
        yield warning(_SUBJECT, what, f"client_max_body_size {largest_m}m;")


def _client(view: _View) -> Iterator[Finding]:
    cure = "proxy_set_header X-Forwarded-For $remote_addr;"
    value = view.site.header("x-forwarded-for")
    if value is None and view.site.header("forwarded") is None:
        what = f"{view.site.where}: all senders look like one client, nginx"
        yield bad(_SUBJECT, what, cure)
    elif value is not None and "$http_x_forwarded_for" in value and "remote_addr" not in value:
        what = f"{view.site.where}: X-Forwarded-For is what the client says: anybody can forge it"
        yield bad(_SUBJECT, what, cure)
    if view.site.last("real_ip_header") and not view.site.all("set_real_ip_from"):
        what = f"{view.site.where}: real_ip_header has no effect without set_real_ip_from"
        yield warning(_SUBJECT, what, "set_real_ip_from ADDRESS;  # of the proxy before nginx")
    for args in view.site.all("set_real_ip_from"):
        if args[0] in ("0.0.0.0/0", "::/0"):
            what = f"{view.site.where}: set_real_ip_from {args[0]} lets anybody forge its address"
            yield bad(_SUBJECT, what, "name the proxy before nginx, exactly")


def _keepalive(view: _View) -> Iterator[Finding]:
    upstream = view.site.upstream
    kept = of(upstream, "keepalive") if upstream is not None else []
    if upstream is None or not (kept or view.version >= _NEW_PROXY):
        return  # each request has a connection of its own, which nobody closes early
    if kept and view.version < _NEW_PROXY and view.site.header("connection") != "":
        what = f"{view.site.where}: keepalive has no effect, for Connection: close is sent"
        yield warning(_SUBJECT, what, 'proxy_set_header Connection "";')
    given = (of(upstream, "keepalive_timeout") or [["60s"]])[-1][0]
    idle_s = float(view.case.settings.server.idle_timeout)
    if seconds_of(given) >= idle_s:
        what = f"{view.site.where}: keepalive_timeout {given} of its upstream is not below"
        what += f" idle_timeout ({idle_s:g} s): a POST may meet a connection that just closes"
        yield bad(_SUBJECT, what, f"keepalive_timeout {max(1, int(idle_s * 0.8))}s;")


_RULES: Final[tuple[Callable[[_View], Iterator[Finding]], ...]] = (
    _tls,
    _buffering,
    _retries,
    _http_version,
    _body_size,
    _client,
    _keepalive,
)


def size_of(text: str) -> int:
    """Bytes, as nginx has them: "25m"; -1 where it is none."""
    match = re.fullmatch(r"([0-9]+)([kmg]?)", text.lower())
    return int(match[1]) * _SIZES[match[2]] if match else -1


def seconds_of(text: str) -> float:
    """Seconds, as nginx has them: "1m30s", "500ms", "75"."""
    found = re.findall(r"([0-9]+)\s*(ms|[smhd]?)", text)
    return sum(int(number) * _TIMES_S[unit] for number, unit in found)
