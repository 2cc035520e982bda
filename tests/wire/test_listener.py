"""The listener on real sockets of the loopback: room, descriptors, deadlines, the end."""

import asyncio
import contextlib
import errno
import socket

import pytest

from fasthook.errors import RequestTimeout
from fasthook.wire.limits import Limits
from fasthook.wire.sockets import open_sockets
from tests.wire import drive
from tests.wire.drive import listening, until

GET = b"GET /h HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET /h HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


class House:
    """A listener, and clients who come to it."""

    def __init__(self, listener, bound):
        self.listener = listener
        self.address = bound.getsockname()
        self.family = bound.family
        self.clients = []

    def come(self, sent=b""):
        """A client whose connection the kernel has taken, whether or not the listener has."""
        client = socket.socket(self.family, socket.SOCK_STREAM)
        self.clients.append(client)
        client.connect(self.address)
        client.setblocking(False)
        if sent:
            client.sendall(sent)
        return client

    async def enter(self, sent=b""):
        """A client that the listener has accepted."""
        before = set(self.listener._connections)
        client = self.come(sent)
        await until(lambda: set(self.listener._connections) - before)
        await until(lambda: not self.listener._adopting)
        return client


async def hear(client, end=b"\r\n\r\n"):
    """What the listener says, up to `end` or, where that is nothing, to the end of it."""
    heard = b""
    while not end or not heard.endswith(end):
        data = await asyncio.get_running_loop().sock_recv(client, 65536)
        if not data:
            break
        heard += data
    return heard


def has_ended(client):
    with contextlib.suppress(BlockingIOError):
        try:
            return not client.recv(1, socket.MSG_PEEK)
        except ConnectionResetError:
            return True
    return False


@contextlib.asynccontextmanager
async def house(receive=lambda *_: drive.ACCEPTED, limits=None, address="tcp://127.0.0.1:0"):
    bound = open_sockets(address)
    async with listening(bound, receive, limits) as listener:
        opened = House(listener, bound[0])
        try:
            yield opened
        finally:
            for client in opened.clients:
                client.close()


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("with_uvloop", [True, False])
def test_clients_are_accepted_and_answered(tmp_path, kind, with_uvloop):
    address = "tcp://127.0.0.1:0" if kind == "tcp" else f"unix:{tmp_path / 's'}"
    peers = []

    def receive(request, connection, number):
        peers.append(connection.peer)
        return drive.ACCEPTED

    async def main():
        async with house(receive, address=address) as opened:
            client = opened.come(GET * 2)
            heard = await hear(client)
            while heard.count(b"\r\n\r\n") < 2:
                heard += await hear(client)
            assert [status for status, _, _ in drive.responses(heard)] == [202, 202]
            assert opened.listener.connections == 1

            client.sendall(LAST)
            assert (await hear(client, b"")).count(b"Connection: close") == 1
            client.close()
            await until(lambda: opened.listener.connections == 0)
        assert set(peers) == {"127.0.0.1" if kind == "tcp" else "unix"}

    drive.run(main, with_uvloop=with_uvloop)


def test_a_late_answer_reaches_the_client_and_a_client_that_left_harms_nobody():
    due = []

    def receive(request, connection, number):
        due.append((connection, number))

    async def main():
        async with house(receive) as opened:
            stays, leaves = opened.come(GET), opened.come(GET)
            await until(lambda: len(due) == 2)
            leaves.close()
            for connection, number in due:
                connection.answer(number, drive.ACCEPTED)
            assert (await hear(stays)).startswith(b"HTTP/1.1 202 ")
            await until(lambda: opened.listener.connections == 1)
            for connection, number in due:
                connection.answer(number + 1, drive.ACCEPTED)
            assert opened.listener.failures == []

    drive.run(main)


def test_all_that_came_together_is_looked_at_before_the_first_answer_is_sent(tmp_path):
    heard_before, clients = [], []

    def receive(request, connection, number):
        for client in clients:
            with contextlib.suppress(BlockingIOError):
                heard_before.append(client.recv(1, socket.MSG_PEEK))
        return drive.ACCEPTED

    async def main():
        # Not over TCP, where what is sent may arrive a moment later.
        async with house(receive, address=f"unix:{tmp_path / 's'}") as opened:
            clients.extend([await opened.enter() for _ in range(3)])
            for client in clients:
                client.sendall(GET)
            for client in clients:
                assert (await hear(client)).startswith(b"HTTP/1.1 202 ")
        assert heard_before == []

    drive.run(main)


# --- room -----------------------------------------------------------------------------------------


def test_a_connection_is_counted_once():
    counted = []

    async def main():
        async with house() as opened:
            listener, told = opened.listener, opened.listener.opened

            def tell(connection):
                told(connection)
                counted.append(listener.connections)

            listener.opened = tell
            await opened.enter()
            await opened.enter()

    drive.run(main)
    assert counted == [1, 2]


def test_the_client_who_fills_the_house_drives_nobody_out():
    async def main():
        async with house(limits=Limits(max_connections=2)) as opened:
            first, second = await opened.enter(GET), await opened.enter(GET)
            await hear(first)
            await hear(second)
            assert not has_ended(first)
            assert not has_ended(second)
            assert opened.listener.connections == 2

    drive.run(main)


def test_a_newcomer_takes_the_place_of_an_idle_client_that_never_asked():
    async def main():
        async with house(limits=Limits(max_connections=2)) as opened:
            served = await opened.enter(GET)
            await hear(served)
            silent = await opened.enter()
            assert opened.listener.connections == 2

            newcomer = opened.come(GET)
            assert await hear(silent, b"") == b""
            assert (await hear(newcomer)).startswith(b"HTTP/1.1 202 ")
            assert not has_ended(served)

    drive.run(main)


def test_a_newcomer_takes_the_place_of_an_idle_client_where_all_have_asked():
    async def main():
        async with house(limits=Limits(max_connections=2)) as opened:
            first, second = await opened.enter(GET), await opened.enter(GET)
            await hear(first)
            await hear(second)

            newcomer = opened.come(GET)
            assert (await hear(newcomer)).startswith(b"HTTP/1.1 202 ")
            assert await hear(first, b"") == b""
            assert not has_ended(second)

    drive.run(main)


def test_a_full_and_busy_house_accepts_again_when_somebody_leaves():
    due = []

    def receive(request, connection, number):
        due.append((connection, number))

    async def main():
        async with house(receive, Limits(max_connections=2)) as opened:
            await opened.enter(GET)
            await opened.enter(GET)
            waits = opened.come(GET)
            await until(lambda: not opened.listener._is_accepting)
            assert len(due) == 2

            opened.clients[0].close()
            due[0][0].answer(0, drive.ACCEPTED)
            await until(lambda: len(due) == 3)
            assert opened.listener.connections == 2
            due[2][0].answer(0, drive.ACCEPTED)
            assert (await hear(waits)).startswith(b"HTTP/1.1 202 ")

    drive.run(main)


def test_a_full_and_busy_house_accepts_again_when_it_is_idle_and_nobody_leaves():
    due = []

    def receive(request, connection, number):
        due.append((connection, number))

    async def main():
        async with house(receive, Limits(max_connections=2)) as opened:
            await opened.enter(GET)
            await opened.enter(GET)
            waits = opened.come(GET)
            await until(lambda: not opened.listener._is_accepting)

            for connection, number in due[:2]:
                connection.answer(number, drive.ACCEPTED)
            async with asyncio.timeout(5):
                while len(due) < 3:
                    await asyncio.sleep(0.01)
            due[2][0].answer(0, drive.ACCEPTED)
            for client in (waits, *opened.clients[:2]):
                assert (await hear(client)).startswith(b"HTTP/1.1 202 ")
            assert sum(has_ended(client) for client in opened.clients) == 1

    drive.run(main)


def test_who_waits_for_a_house_that_is_busy_for_ever_gets_in_and_no_request_is_lost():
    def receive(request, connection, number):
        asyncio.get_running_loop().call_later(0.005, connection.answer, number, drive.ACCEPTED)

    async def ask_for_ever(client):
        """Ask as soon as there is an answer; up to the one that is said to be the last."""
        while b"Connection: close" not in (heard := await hear(client)):
            assert heard.startswith(b"HTTP/1.1 202 ")
            client.sendall(GET)
        return heard

    async def main():
        async with house(receive, Limits(max_connections=4)) as opened:
            guests = [asyncio.create_task(ask_for_ever(await opened.enter(GET))) for _ in range(4)]
            async with asyncio.timeout(5):
                for _ in range(3):
                    assert (await hear(opened.come(GET))).startswith(b"HTTP/1.1 202 ")
            gone = [guest.result() for guest in guests if guest.done()]
            assert all(heard.startswith(b"HTTP/1.1 202 ") for heard in gone)
            assert 1 <= len(gone) <= 3
            for guest in guests:
                guest.cancel()

    drive.run(main)


def test_a_crowd_that_comes_at_once_does_not_pass_the_bound():
    most = 0

    def receive(request, connection, number):
        nonlocal most
        most = max(most, connection._owner.connections)

    async def main():
        async with house(receive, Limits(max_connections=4)) as opened:
            for _ in range(4):
                await opened.enter()
            for _ in range(20):
                opened.come(GET)
            await until(lambda: most > 0 and not opened.listener._adopting)
            assert max(most, opened.listener.connections) <= 4

    drive.run(main)


def test_without_descriptors_accepting_pauses_and_comes_back():
    class OutOfFiles:
        """A listening socket whose first `accept` fails."""

        def __init__(self, bound):
            self.bound = bound
            self.failures = 1
            self.calls = 0

        def fileno(self):
            return self.bound.fileno()

        def accept(self):
            self.calls += 1
            if self.failures:
                self.failures -= 1
                raise OSError(errno.EMFILE, "too many open files")
            return self.bound.accept()

        def close(self):
            self.bound.close()

    async def main():
        (bound,) = open_sockets("tcp://127.0.0.1:0")
        stub = OutOfFiles(bound)
        async with listening([stub]) as listener:
            opened = House(listener, bound)
            client = opened.come(GET)
            await until(lambda: stub.calls == 1)
            assert not listener._is_accepting
            assert listener.connections == 0
            assert (await hear(client)).startswith(b"HTTP/1.1 202 ")  # once the pause is over
            assert listener._is_accepting
            client.close()

    drive.run(main)


# --- time -----------------------------------------------------------------------------------------


def test_the_sweep_holds_connections_to_their_deadlines():
    async def main():
        async with house(limits=Limits(head_timeout_s=5, idle_timeout_s=75)) as opened:
            slow, idle = await opened.enter(GET[:9]), await opened.enter()
            connections = list(opened.listener._connections)
            await until(lambda: not all(each.is_idle for each in connections))
            for connection in connections:
                assert connection.deadline > opened.listener._loop.time()
                connection.deadline = 0  # the clock need not be waited for
            opened.listener._sweeper.cancel()
            opened.listener._sweep()

            assert (await hear(slow, b"")).startswith(b"HTTP/1.1 408 ")
            assert await hear(idle, b"") == b""
            assert [type(refusal) for refusal in opened.listener.refusals] == [RequestTimeout]

    drive.run(main)


# --- the end --------------------------------------------------------------------------------------


def test_draining_ends_idle_clients_and_waits_for_those_under_way():
    due = []

    def receive(request, connection, number):
        due.append((connection, number))

    async def main():
        async with house(receive) as opened:
            idle, busy = await opened.enter(), await opened.enter(GET)
            await until(lambda: len(due) == 1)
            draining = asyncio.ensure_future(opened.listener.drain(60))
            assert await hear(idle, b"") == b""
            assert not draining.done()

            due[0][0].answer(0, drive.ACCEPTED)
            heard = await hear(busy, b"")
            assert heard.startswith(b"HTTP/1.1 202 ")
            assert b"Connection: close\r\n" in heard
            busy.close()
            assert await draining == 0
            assert opened.listener.connections == 0
            with pytest.raises(ConnectionRefusedError):
                opened.come()

    drive.run(main)


def test_draining_cuts_off_those_who_are_not_done_in_time_and_counts_them():
    async def main():
        async with house(lambda *_: None) as opened:
            for _ in range(3):
                await opened.enter(GET)
            await until(lambda: not any(c.is_idle for c in opened.listener._connections))
            assert await opened.listener.drain(0) == 3
            await until(lambda: opened.listener.connections == 0)

    drive.run(main)


def test_draining_an_empty_house_takes_no_time():
    async def main():
        async with house() as opened:
            assert await opened.listener.drain(60) == 0

    drive.run(main)


def test_draining_waits_for_those_who_are_at_the_door():
    async def main():
        async with house() as opened:
            opened.come(GET)
            await until(lambda: opened.listener._adopting)
            await opened.listener.drain(60)
            assert not opened.listener._adopting
            assert opened.listener.connections == 0

    drive.run(main)


def test_draining_may_take_new_connections_until_the_old_ones_are_gone():
    async def main():
        async with house() as opened:
            kept = await opened.enter()
            draining = asyncio.ensure_future(opened.listener.drain(60, 60, accepts=True))
            for client in (await opened.enter(), await opened.enter(), kept):
                assert not draining.done()
                client.sendall(GET)
                heard = await hear(client, b"")
                assert heard.startswith(b"HTTP/1.1 202 ")
                assert b"Connection: close\r\n" in heard
                client.close()
            assert await draining == 0
            with pytest.raises(ConnectionRefusedError):
                opened.come()

    drive.run(main)


def test_whoever_was_accepted_last_is_heard():
    async def main():
        async with house() as opened:
            kept = await opened.enter()
            draining = asyncio.ensure_future(opened.listener.drain(60, 0.2, accepts=True))
            late = await opened.enter()
            while opened.listener._is_accepting:
                await asyncio.sleep(0.01)
            late.sendall(GET)
            assert (await hear(late, b"")).startswith(b"HTTP/1.1 202 ")
            late.close()
            assert await hear(kept, b"") == b""  # after its last half second
            assert await draining == 0

    drive.run(main)


def test_memory_of_unfinished_bodies_is_shared_and_comes_back():
    head = b"POST /h HTTP/1.1\r\nHost: a\r\nContent-Length: 600\r\n\r\n"

    async def main():
        async with house(limits=Limits(max_bytes_in_flight=1000)) as opened:
            first = await opened.enter(head + b"x" * 590)
            await until(lambda: opened.listener.budget.used == 590)
            second = opened.come(head + b"x" * 590)
            assert (await hear(second, b"")).startswith(b"HTTP/1.1 503 ")
            second.close()
            first.close()
            await until(lambda: opened.listener.budget.used == 0)

    drive.run(main)
