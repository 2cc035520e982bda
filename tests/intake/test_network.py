"""Who the client is behind proxies, and who may come at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasthook.errors import ClientNotAllowed
from fasthook.intake.network import UNKNOWN, AllowList, Clients, limiter_key, parse_network

PROXIES = ["127.0.0.1", "10.0.0.0/8", "fd00::/8", "unix"]
MAX_KNOWN = 4096


def client_of(peer, xff=None, forwarded=None, proxies=PROXIES):
    headers = {}
    if xff is not None:
        headers[b"x-forwarded-for"] = xff
    if forwarded is not None:
        headers[b"forwarded"] = forwarded
    clients = Clients(proxies)
    found = clients.client_of(peer, headers)
    assert clients.client_of(peer, headers) == found, "the second time, from the cache"
    return found


@pytest.mark.parametrize(
    ("xff", "client"),
    [
        (None, "127.0.0.1"),
        (b"192.0.2.1", "192.0.2.1"),
        (b"192.0.2.1, 10.1.2.3", "192.0.2.1"),
        (b"6.6.6.6, 192.0.2.1", "192.0.2.1"),
        (b"6.6.6.6, 192.0.2.1, 10.1.2.3, 10.0.0.1", "192.0.2.1"),
        (b"10.0.0.9, 10.0.0.1", "10.0.0.9"),
        (b"  192.0.2.1  ", "192.0.2.1"),
        (b"192.0.2.1:4711", "192.0.2.1"),
        (b"2001:db8::1", "2001:db8::1"),
        (b"[2001:db8::1]", "2001:db8::1"),
        (b"[2001:db8::1]:4711", "2001:db8::1"),
        (b"2001:DB8:0:0::1", "2001:db8::1"),
        (b"::ffff:192.0.2.1", "192.0.2.1"),
        (b"192.0.2.1, ::ffff:10.0.0.1", "192.0.2.1"),
        (b"192.0.2.1, fd00::1", "192.0.2.1"),
        (b"fe80::1%eth0", "fe80::1"),
        (b"", UNKNOWN),
        (b"garbage", UNKNOWN),
        (b"192.0.2.1,", UNKNOWN),
        (b"192.0.2.1, unknown", UNKNOWN),
        (b"192.0.2.1, \xff\xfe", UNKNOWN),
        (b"192.0.2.256", UNKNOWN),
        (b"0300.0.2.1", UNKNOWN),
        (b"[2001:db8::1", "2001:db8::1"),
        (b"\xd9\xa1.1.1.1", UNKNOWN),
        (b"garbage, 192.0.2.1", "192.0.2.1"),
    ],
)
def test_the_client_is_the_last_address_that_no_trusted_proxy_has(xff, client):
    assert client_of("127.0.0.1", xff) == client


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        (b"for=192.0.2.1", "192.0.2.1"),
        (b"For=192.0.2.1;proto=https;by=10.0.0.1", "192.0.2.1"),
        (b'for="192.0.2.1:4711"', "192.0.2.1"),
        (b'for="[2001:db8::1]:4711"', "2001:db8::1"),
        (b'for="[2001:db8::1]"', "2001:db8::1"),
        (b"for=6.6.6.6, for=192.0.2.1, for=10.0.0.1", "192.0.2.1"),
        (b"for=192.0.2.1;for=6.6.6.6", UNKNOWN),
        (b"for=unknown", UNKNOWN),
        (b"for=_hidden", UNKNOWN),
        (b"proto=https", UNKNOWN),
        (b"for=6.6.6.6, proto=https", UNKNOWN),
        (b"", UNKNOWN),
        (b'for="6.6.6.6, for=192.0.2.1', "192.0.2.1"),
    ],
)
def test_forwarded_is_read_from_its_end_too(forwarded, client):
    assert client_of("127.0.0.1", None, forwarded) == client


def test_two_headers_that_agree_name_the_client():
    assert client_of("127.0.0.1", b"192.0.2.1", b"for=192.0.2.1") == "192.0.2.1"
    assert client_of("127.0.0.1", b"6.6.6.6, 192.0.2.1", b"for=192.0.2.1") == "192.0.2.1"


def test_two_headers_that_disagree_name_nobody():
    assert client_of("127.0.0.1", b"192.0.2.1", b"for=192.0.2.2") == UNKNOWN
    assert client_of("127.0.0.1", b"192.0.2.1", b"for=garbage") == UNKNOWN


@pytest.mark.parametrize("peer", ["192.0.2.7", "::ffff:192.0.2.7"])
def test_a_peer_that_is_not_trusted_names_nobody_but_itself(peer):
    assert client_of(peer, b"10.0.0.1", b"for=127.0.0.1") == "192.0.2.7"


def test_a_trusted_peer_is_known_by_its_mapped_address_too():
    assert client_of("::ffff:127.0.0.1", b"192.0.2.1") == "192.0.2.1"


def test_a_unix_peer_is_believed_only_when_unix_is_trusted():
    assert client_of("unix", b"192.0.2.1") == "192.0.2.1"
    assert client_of("unix", b"192.0.2.1", proxies=["127.0.0.1"]) == "unix"
    assert client_of("unix") == "unix"
    assert client_of("unix", b"garbage") == UNKNOWN


@given(st.binary(max_size=40), st.none() | st.binary(max_size=40))
def test_any_header_at_all_gives_an_address_or_unknown(xff, forwarded):
    client = client_of("127.0.0.1", xff, forwarded)

    assert client == UNKNOWN or parse_network(client)
    limiter_key(client)


def test_what_is_remembered_of_clients_is_bounded():
    clients = Clients(PROXIES)
    for number in range(3 * MAX_KNOWN):
        clients.client_of("127.0.0.1", {b"x-forwarded-for": str(number).encode()})
        clients.client_of(f"10.0.{number % 256}.{number // 256}", {})

    assert sum(map(len, clients._known.values())) <= MAX_KNOWN
    assert len(clients._known) <= MAX_KNOWN


# --- allow lists ----------------------------------------------------------------------------------


@pytest.mark.parametrize("client", ["192.0.2.1", "192.0.2.255", "2001:db8::7"])
def test_who_is_in_one_of_the_networks_may_come(client):
    AllowList(["192.0.2.0/24", "2001:db8::/32"]).check(client)


@pytest.mark.parametrize("client", ["192.0.3.1", "2001:db9::7", "unix", UNKNOWN, "", "0.0.0.0"])
def test_anybody_else_may_not_and_is_told_so_again(client):
    allow = AllowList(["192.0.2.0/24", "2001:db8::/32"])

    for _ in range(2):
        with pytest.raises(ClientNotAllowed):
            allow.check(client)


def test_what_an_allow_list_remembers_is_bounded():
    allow = AllowList(["10.0.0.0/8"])
    for number in range(3 * MAX_KNOWN):
        allow.check(f"10.0.{number // 256}.{number % 256}")

    assert len(allow._known) <= MAX_KNOWN


def test_a_network_with_bits_of_a_host_is_refused():
    with pytest.raises(ValueError, match="host bits"):
        parse_network("10.0.0.1/8")


# --- counting -------------------------------------------------------------------------------------


def test_an_ipv6_host_is_counted_by_its_64_bits():
    assert limiter_key("2001:db8:1:2:3::1") == limiter_key("2001:db8:1:2:ffff::9")
    assert limiter_key("2001:db8:1:2::1") != limiter_key("2001:db8:1:3::1")


@pytest.mark.parametrize("client", ["192.0.2.1", "unix", UNKNOWN])
def test_others_are_counted_as_they_are(client):
    assert limiter_key(client) == client
