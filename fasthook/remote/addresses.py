"""Which addresses may be connected to: those of the public internet, and what an operator allows.

A name may be anybody's, and lead anywhere; so it is the address that is checked, and then used.
"""

import ipaddress
from collections.abc import Sequence
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Of the public range, but Azure's own services for each of its machines.
_CLOUD_SERVICES: Final = frozenset({ipaddress.ip_address("168.63.129.16")})
#: RFC 6052 §2.1 and RFC 8215: an IPv4 address stands in the last 32 bits.
_NAT64: Final = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))


def is_public(address: Address) -> bool:
    """Whether it is reached over the internet, and nobody's own network or machine.

    Addresses that carry another one (mapped, 6to4, Teredo, NAT64) are as public as that one, or
    not at all.
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64[0]:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if address in _NAT64[1] or address.sixtofour is not None or address.teredo is not None:
            return False
        if address.is_site_local:
            return False
    if address in _CLOUD_SERVICES or address.is_multicast or address.is_reserved:
        return False
    return address.is_global


def is_allowed(address: Address, networks: Sequence[Network]) -> bool:
    """Whether it is public, or in one of the operator's networks."""
    plain = getattr(address, "ipv4_mapped", None) or address
    return is_public(address) or any(plain in network for network in networks)
