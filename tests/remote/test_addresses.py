"""Which addresses are nobody's business of ours."""

from ipaddress import ip_address, ip_network

import pytest

from fasthook.remote.addresses import is_allowed, is_public

PRIVATE = [
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "168.63.129.16",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:10.0.0.1",
    "fe80::1",
    "fc00::1",
    "fd00:ec2::254",
    "fec0::1",
    "ff02::1",
    "2001:db8::1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::7f00:1",
    "64:ff9b:1::a00:1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::",
    "2002:808:808::",
    "2001:0:53aa:64c::1",
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "52.94.0.1",
    "2606:4700::1111",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
]


@pytest.mark.parametrize("text", PRIVATE)
def test_private_addresses_are_not_public_in_any_dress(text):
    assert not is_public(ip_address(text))
    assert not is_allowed(ip_address(text), [])


@pytest.mark.parametrize("text", PUBLIC)
def test_the_internet_is_public(text):
    assert is_public(ip_address(text))


@pytest.mark.parametrize("text", ["10.1.2.3", "::ffff:10.1.2.3"])
def test_an_operator_may_allow_a_network_and_nothing_beside_it(text):
    assert is_allowed(ip_address(text), [ip_network("10.1.0.0/16")])
    assert not is_allowed(ip_address(text), [ip_network("10.2.0.0/16")])
    assert not is_allowed(ip_address("127.0.0.1"), [ip_network("10.0.0.0/8")])
