"""Many datagrams at once are what they would be one by one."""

import errno
import socket
import threading

import pytest

from fasthook.logs.datagrams import MAX_DATAGRAMS, Sender


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize("count", [1, 2, 3, 100, MAX_DATAGRAMS])
def test_each_arrives_by_itself_and_in_order(count, pair):
    ours, theirs = pair
    sent = [b"%d " % number * (number % 7 + 1) for number in range(count)]
    received = []
    reader = threading.Thread(
        target=lambda: received.extend(theirs.recv(1000) for _ in range(count))
    )
    reader.start()
    sender = Sender()
    for _ in range(2):  # the parts of the first call are not those of the second
        position = 0
        while position < count:
            position += sender.send(ours, sent[position:])
        reader.join(10)
        assert received == sent
        received.clear()
        reader = threading.Thread(
            target=lambda: received.extend(theirs.recv(1000) for _ in range(count))
        )
        reader.start()
    for datagram in sent:
        ours.send(datagram)
    reader.join(10)


def test_what_is_too_long_stops_it_and_is_the_first_of_the_next_call(pair):
    ours, theirs = pair
    sender = Sender()
    sent = [b"one", b"two", b"x" * 10_000_000, b"three"]
    assert sender.send(ours, sent) == 2
    assert [theirs.recv(10), theirs.recv(10)] == [b"one", b"two"]
    with pytest.raises(OSError, match="sendmmsg") as raised:
        sender.send(ours, sent[2:])
    assert raised.value.errno == errno.EMSGSIZE
    assert sender.send(ours, sent[3:]) == 1
    assert theirs.recv(10) == b"three"


def test_nobody_who_listens_is_an_error(pair):
    ours, theirs = pair
    theirs.close()
    with pytest.raises(OSError, match="sendmmsg") as raised:
        Sender().send(ours, [b"one"])
    assert raised.value.errno == errno.ECONNREFUSED
