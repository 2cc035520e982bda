"""Who the client is, behind proxies that are trusted; and who may come at all.

A header that names the client is believed only as far as trusted proxies wrote it: the chain is
read from its end, past addresses of trusted proxies, and the first other address is the client.
"""

import ipaddress
from collections.abc import Iterable
from typing import Final

from fasthook.errors import ClientNotAllowed

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Header values and addresses whose outcome is remembered. Beyond: all are forgotten, and found
#: again at the price of parsing them.
_MAX_KNOWN: Final = 4096
_MAX_KNOWN_BYTES: Final = 256
#: The client where a trusted proxy names none, or nonsense: on no allow list.
UNKNOWN: Final = "unknown"


def parse_network(text: str) -> Network:
    """A network from "10.0.0.0/8", "::1" and the like. Raises `ValueError`."""
    return ipaddress.ip_network(text, strict=True)


class Clients:
    """Finds the client's address of a request."""

    def __init__(self, trusted_proxies: Iterable[str]) -> None:
        """`trusted_proxies`: networks, or "unix" for whoever connects to a unix socket."""
        names = list(trusted_proxies)
        self._trusts_unix = "unix" in names
        self._trusted = [parse_network(name) for name in names if name != "unix"]
        #: Peer → what its X-Forwarded-For said → client.
        self._known: dict[str, dict[bytes | None, str]] = {}
        self._known_count = 0

    def client_of(self, peer: str, headers: dict[bytes, bytes]) -> str:
        """The address as text; IPv4 in IPv6 as IPv4. `peer`: an address, or "unix"."""
        forwarded_for = headers.get(b"x-forwarded-for")
        if b"forwarded" in headers:
            return self._find(peer, forwarded_for, headers[b"forwarded"])
        try:
            return self._known[peer][forwarded_for]
        except KeyError:
            return self._remember(peer, forwarded_for)

    def _remember(self, peer: str, forwarded_for: bytes | None) -> str:
        client = self._find(peer, forwarded_for, None)
        if len(forwarded_for or b"") > _MAX_KNOWN_BYTES:
            return client
        if self._known_count >= _MAX_KNOWN:
            self._known.clear()
            self._known_count = 0
        self._known_count += 1
        self._known.setdefault(peer, {})[forwarded_for] = client
        return client

    def _find(self, peer: str, forwarded_for: bytes | None, forwarded: bytes | None) -> str:
        if peer == "unix":
            if not self._trusts_unix:
                return peer
        else:
            peer = canonical(peer)
            if not self._is_trusted(peer):
                return peer
        if forwarded_for is None and forwarded is None:
            return peer
        named = {
            self._last_untrusted(chain, peer)
            for chain in (_hops(forwarded_for), _forwarded_hops(forwarded))
            if chain
        }
        # Two headers that disagree: one of them came from the client itself. Which, nobody knows.
        return named.pop() if len(named) == 1 else UNKNOWN

    def _last_untrusted(self, chain: list[str], peer: str) -> str:
        client = peer
        for hop in reversed(chain):
            client = canonical(hop)
            if client == UNKNOWN or not self._is_trusted(client):
                break
        return client

    def _is_trusted(self, address: str) -> bool:
        if address == UNKNOWN:
            return False
        parsed = ipaddress.ip_address(address)
        return any(parsed in network for network in self._trusted)


class AllowList:
    """The networks from which an endpoint takes requests."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = [parse_network(text) for text in networks]
        self._known: dict[str, bool] = {}

    def check(self, client: str) -> None:
        """Raise `ClientNotAllowed` unless `client` is in one of the networks."""
        allowed = self._known.get(client)
        if allowed is None:
            allowed = self._permits(client)
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[client] = allowed
        if not allowed:
            raise ClientNotAllowed(f"client {client} is on none of the allowed networks")

    def _permits(self, client: str) -> bool:
        try:
            address = ipaddress.ip_address(client)
        except ValueError:
            return False  # "unix" and "unknown"
        return any(address in network for network in self._networks)


def limiter_key(client: str) -> str:
    """What a client is counted by: an IPv6 host has a whole /64 to choose addresses from."""
    if ":" not in client:
        return client
    return str(ipaddress.ip_network((client, 64), strict=False).network_address)


def canonical(text: str) -> str:
    """An address in its one form, IPv4 in IPv6 as IPv4, without a zone; `UNKNOWN` for nonsense."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return UNKNOWN
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(address)


def _hops(value: bytes | None) -> list[str]:
    if value is None:
        return []
    return [_without_port(hop.strip()) for hop in value.decode("latin-1").split(",")]


def _forwarded_hops(value: bytes | None) -> list[str]:
    """The `for` of each element (RFC 7239 §4); "" where an element has none."""
    if value is None:
        return []
    hops = []
    for element in value.decode("latin-1").split(","):
        pairs = (pair.partition("=") for pair in element.split(";"))
        named = [v.strip().strip('"') for k, _, v in pairs if k.strip().lower() == "for"]
        hops.append(_without_port(named[0]) if len(named) == 1 else "")
    return hops


def _without_port(hop: str) -> str:
    """The address of "1.2.3.4:5", "[::1]:5", or of a plain one."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
