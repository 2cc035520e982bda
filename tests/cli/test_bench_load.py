"""The load of `bench`: what a service answers is timed from when it was to be sent."""

import asyncio
import contextlib

from fasthook.cli.bench.load import Load, Loaded, Senders, quantile, status_of, steadily

ACCEPTED = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
STALL_S = 0.3


class Server(asyncio.Protocol):
    """Answers each request at once, but for a while nobody's."""

    connections = 0

    def __init__(self, stalls_at_s, stall_s, answer):
        self.ends_s = (stalls_at_s, stalls_at_s + stall_s)
        self.answer = answer

    def connection_made(self, transport):
        Server.connections += 1
        self.transport = transport

    def data_received(self, data):
        loop = asyncio.get_running_loop()
        began, ends = self.ends_s
        wait_s = ends - loop.time() if began <= loop.time() < ends else 0
        loop.call_later(wait_s, self.reply)

    def reply(self):
        if not self.answer:
            self.transport.close()
        elif not self.transport.is_closing():
            self.transport.write(self.answer)


@contextlib.asynccontextmanager
async def serving(*, stalls_in_s=1e9, stall_s=STALL_S, answer=ACCEPTED):
    loop = asyncio.get_running_loop()
    stalls_at_s = loop.time() + stalls_in_s
    server = await loop.create_server(lambda: Server(stalls_at_s, stall_s, answer), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def load(count, *, connections=1, dues=None, senders=None, **server):
    async def run():
        Server.connections = 0
        async with serving(**server) as port:
            requests = iter([b"x"] * count)
            each = senders or Senders(connections)
            return await Load(port, requests, each, dues=dues).run()

    return asyncio.run(run())


def slow_part(loaded):
    took_s = [each.took_s for each in loaded.answered]
    return sum(took > STALL_S / 4 for took in took_s) / len(took_s)


def test_a_stall_is_seen_by_all_that_were_due_in_it():
    """The control: without a rate a stall of a third of the time is one slow answer."""
    at_a_rate = load(1000, dues=steadily(200, 0.9), stalls_in_s=0.3)
    assert len(at_a_rate.answered) == 180
    assert slow_part(at_a_rate) > 0.15
    assert max(each.took_s for each in at_a_rate.answered) > 0.8 * STALL_S
    as_it_comes = load(3000, stalls_in_s=0.05)
    assert slow_part(as_it_comes) <= 0.002


def test_who_finds_no_connection_in_time_is_unsent():
    """The only connection has a request under way for longer than all others are due."""
    senders = Senders(1, wait_s=0, timeout_s=0.8)
    loaded = load(100, dues=steadily(100, 0.5), senders=senders, stalls_in_s=0, stall_s=60)
    assert [each.status for each in loaded.answered] == [-1]
    assert len(loaded.unsent) == 49


def test_no_answer_and_a_lost_connection_are_told_apart():
    senders = Senders(2, timeout_s=0.5)
    stalled = load(4, dues=steadily(100, 0.02), senders=senders, stalls_in_s=0, stall_s=60)
    assert [each.status for each in stalled.answered] == [-1, -1]
    closed = load(4, dues=[0, 0, 0, 0], answer=b"")  # three wait when nothing more is due
    assert [each.status for each in closed.answered] == [0] * 4


def test_nothing_is_sent_on_a_connection_that_is_said_to_end():
    """The server would read it, and answer nothing: here it would be answered like the rest."""
    last = ACCEPTED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    loaded = load(10, answer=last)
    assert [each.status for each in loaded.answered] == [202] * 10
    assert 10 <= Server.connections <= 11  # the one that would have been next


def test_a_load_that_was_late_or_too_busy_says_so():
    assert Loaded([], [], 1.0, [], 0.5).keeps_up
    assert Loaded([], [], 1.0, [0.001] * 200 + [0.5], 0.94).keeps_up
    assert not Loaded([], [], 1.0, [0.001] * 98 + [0.03] * 2, 0.5).keeps_up
    assert not Loaded([], [], 1.0, [], 0.95).keeps_up


def test_each_answer_is_one_whatever_its_pieces():
    answer = b"HTTP/1.1 503 Busy\r\nContent-Length: 5\r\n\r\nbusy\n"
    assert [status_of(answer[:n]) for n in range(len(answer))] == [0] * len(answer)
    assert status_of(answer) == 503
    assert {each.status for each in load(20, answer=answer).answered} == {503}


def test_quantiles_are_of_what_is_there():
    assert quantile([], 0.5) == 0
    assert [quantile([1, 2, 3, 4], part) for part in (0, 0.5, 0.99, 1)] == [1, 3, 4, 4]
