"""nginx's configuration, as far as it leads to fasthook: which locations proxy to it, and how.

A directive of an outer block holds within, until one of the same name stands there, too
(nginx.org, "proxy_set_header": inherited if and only if there are none on the current level).
"""

import functools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import crossplane

from fasthook.cli.doctor.units import Unit
from fasthook.config import Config
from fasthook.errors import ConfigError, FasthookError
from fasthook.wire.sockets import parse_tcp

Block = list[dict[str, Any]]
_ANY: Final = ("0.0.0.0", "::", "*")  # noqa: S104 - compared with, not listened on
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


class Unparsed(FasthookError):
    """A configuration that can't be read; the message says where."""


class Site(NamedTuple):
    """A location that proxies to fasthook."""

    name: str  # of the server, for messages
    location: list[str]  # its arguments: a prefix, or a modifier and what it is about
    chain: tuple[Block, ...]  # from the location outwards
    server: Block
    upstream: Block | None  # None: proxy_pass names the address itself

    @property
    def where(self) -> str:
        """For messages."""
        return f"server {self.name}, location {' '.join(self.location)}"

    def all(self, directive: str) -> list[list[str]]:
        """The arguments of a directive that holds here, each time that it stands there."""
        for block in self.chain:
            if found := of(block, directive):
                return found
        return []

    def last(self, directive: str, default: str = "") -> str:
        """The argument of a directive that holds here; several are joined by spaces."""
        found = self.all(directive)
        return " ".join(found[-1]) if found else default

    def header(self, name: str) -> str | None:
        """What is set as a field of the proxied request; None: nothing is set."""
        values = [a[1] for a in self.all("proxy_set_header") if a[0].lower() == name and len(a) > 1]
        return values[-1] if values else None

    def covers(self, path: str) -> bool:
        """Whether a request for a path may come here; of patterns it is taken for granted."""
        if self.location[0] == "=":
            return path == self.location[-1]
        if self.location[0] in ("~", "~*") or self.location[0].startswith("@"):
            return True
        return path.startswith(self.location[-1])


def of(block: Block, directive: str) -> list[list[str]]:
    """The arguments of a directive, each time that it stands in a block itself."""
    return [each["args"] for each in block if each["directive"] == directive]


def parse(path: Path) -> Block:
    """All of a configuration, with what it includes. Raises `Unparsed`, `OSError`."""
    path.read_bytes()  # what can't be read is said as that
    try:
        made = crossplane.parse(
            str(path), combine=True, catch_errors=False, check_ctx=False, check_args=False
        )
    except (crossplane.errors.NgxParserBaseException, UnicodeDecodeError, StopIteration) as error:
        raise Unparsed(f"{path}: {error}") from None
    block: Block = made["config"][0]["parsed"]
    return block


def addresses_of(settings: Config, socket: Unit | None) -> list[str]:
    """Where the service listens: as configured, and by the unit of its socket."""
    found = [each for each in settings.server.listen if each != "systemd"]
    for stream in socket.all("Socket", "ListenStream") if socket is not None else ():
        if stream.startswith("/"):
            found.append(f"unix:{stream}")
        else:
            found.append(f"tcp://{stream if ':' in stream else f'0.0.0.0:{stream}'}")
    return found


def sites_of(tree: Block, addresses: Sequence[str]) -> list[Site]:
    """The locations that proxy to one of these addresses."""
    found: list[Site] = []
    for http in _blocks(tree, "http"):
        upstreams = {each["args"][0]: each["block"] for each in http if _is(each, "upstream")}
        leads = functools.partial(_leads, upstreams=upstreams, addresses=addresses)
        for server in _blocks(http, "server"):
            names = [" ".join(args) for args in of(server, "server_name")]
            name = names[0] if names and names[0] else "without a name"
            for location, chain in _locations((server, http), ["/"]):
                for target, *_ in of(chain[0], "proxy_pass"):
                    if leads(target):
                        upstream = upstreams.get(_host(target))
                        found.append(Site(name, location, chain, server, upstream))
    return found


def _is(directive: dict[str, Any], name: str) -> bool:
    return directive["directive"] == name and "block" in directive


def _blocks(block: Block, name: str) -> Iterator[Block]:
    return (each["block"] for each in block if _is(each, name))


def _locations(
    chain: tuple[Block, ...], location: list[str]
) -> Iterator[tuple[list[str], tuple[Block, ...]]]:
    """All locations within, and what is in an `if`, with the blocks around them."""
    for each in chain[0]:
        if _is(each, "location") or _is(each, "if") or _is(each, "limit_except"):
            inner = each["args"] if _is(each, "location") else location
            deeper = (each["block"], *chain)
            yield inner, deeper
            yield from _locations(deeper, inner)


def _leads(target: str, upstreams: dict[str, Block], addresses: Iterable[str]) -> bool:
    """Whether `proxy_pass target` leads to one of the addresses."""
    if target.startswith("http://unix:"):
        ends = ["unix:" + target.removeprefix("http://unix:").partition(":")[0]]
    elif _host(target) in upstreams:
        ends = [args[0] for args in of(upstreams[_host(target)], "server")]
    else:
        ends = [_authority(target)]
    return any(_same(end, address) for end in ends for address in addresses)


def _authority(target: str) -> str:
    return target.partition("://")[2].partition("/")[0]


def _host(target: str) -> str:
    return _authority(target)


def _same(end: str, address: str) -> bool:
    if end.startswith("unix:") or address.startswith("unix:"):
        return end == address
    try:
        host, port = parse_tcp(address)
        there = urlsplit(f"//{end}")
        their_host, their_port = there.hostname or "", there.port or 80
    except (ConfigError, ValueError):
        return False
    is_near = host in _ANY or (host in _LOOPBACK and their_host in _LOOPBACK)
    return port == their_port and (is_near or host == their_host)
