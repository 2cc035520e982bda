"""Accepts connections, keeps them, and holds them to their deadlines.

Accepting is done here, not by the loop's server: a full house must be able to stop it, and running
out of descriptors must not become a busy loop.
"""

import asyncio
import errno
import resource
import socket
import time
from collections.abc import Callable
from typing import cast

from fasthook.errors import Rejection
from fasthook.wire.answers import DateLine
from fasthook.wire.connection import Connection, Receive
from fasthook.wire.limits import RESERVED_DESCRIPTORS, SWEEP_S, ByteBudget, Limits
from fasthook.wire.reader import SINGLETONS, RequestReader

#: Accepted in one turn of the loop; the rest wait in the kernel while requests are served.
_ACCEPTS_A_TURN = 64
#: After EMFILE and its kin: connections wait in the kernel for this long.
_ACCEPT_PAUSE_S = 0.1
#: Connections read before what they sent is looked at; more would displace each other's bytes from
#: the processor's cache before they are.
_READS_AT_ONCE = 16
#: Looked at, oldest first, to find an idle connection that a new one may replace.
_EVICTION_SCAN = 128
#: A connection that was quiet for less may just be sent on, which would be in vain.
_IDLE_S = 0.05
#: Of a full house in which nobody is idle this part leaves after the next answer, each sweep, as
#: long as others wait: nobody waits for much longer than a second, and few are troubled.
_LEAVING_PART = 4
#: Whoever was accepted a moment before the last one is about to send.
_LAST_WORD_S = 0.5


class Listener:
    """Listening sockets and all connections that came through them."""

    def __init__(
        self,
        receive: Receive,
        *,
        limits: Limits,
        body_limit: Callable[[bytes], int],
        small_body: int,
        singletons: frozenset[bytes] = SINGLETONS,
        on_refused: Callable[[Rejection, str], None],
        on_failed: Callable[[BaseException, str], None],
    ) -> None:
        """`body_limit` and `small_body`: see `RequestReader`."""
        self.limits = limits
        self.date = DateLine(time.time())
        self.is_draining = False
        self._lingers = False
        self._takes_more = True
        self.refused = on_refused
        self.failed = on_failed
        self.budget = ByteBudget(limits.max_bytes_in_flight)
        self._receive = receive
        self._body_limit = body_limit
        self._small_body = small_body
        self._singletons = singletons
        self._sockets: list[socket.socket] = []
        #: In the order of their coming.
        self._connections: dict[Connection, None] = {}
        self._adopting: set[asyncio.Task[None]] = set()
        self._arriving = 0  # accepted, but not yet with a transport
        self._is_accepting = False
        self._is_full = False  # somebody waits, and there was no room for him
        self._sweeper: asyncio.TimerHandle | None = None
        self._with_news: list[Connection] = []  # each connection once
        self._all_closed: asyncio.Future[None] | None = None
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._capacity = max(1, min(limits.max_connections, files - RESERVED_DESCRIPTORS))

    def start(self, sockets: list[socket.socket]) -> None:
        """Accept on `sockets`, which are listening already. Call within the running loop."""
        self._loop = asyncio.get_running_loop()
        self._sockets = sockets
        self._resume_accepting()
        self._sweep()

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections) + self._arriving

    # --- accepting --------------------------------------------------------------------------------

    def _resume_accepting(self) -> None:
        if self._is_accepting or not self._takes_more:
            return
        self._is_accepting = True
        for listening in self._sockets:
            self._loop.add_reader(listening.fileno(), self._accept, listening)

    def _pause_accepting(self) -> None:
        if self._is_accepting:
            self._is_accepting = False
            for listening in self._sockets:
                self._loop.remove_reader(listening.fileno())

    def _accept(self, listening: socket.socket) -> None:
        for number in range(_ACCEPTS_A_TURN):
            if self.connections >= self._capacity:
                if number:
                    return  # whether anybody else waits is not known; if so we are called again
                if not self._make_room():
                    self._is_full = True
                    self._pause_accepting()  # closed() resumes, or _relieve()
                    return
            try:
                accepted, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._pause_accepting()
                    self._loop.call_later(_ACCEPT_PAUSE_S, self._resume_accepting)
                    return
                raise
            accepted.setblocking(False)
            if accepted.family != socket.AF_UNIX:
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._arriving += 1
            task = self._loop.create_task(self._adopt(accepted))
            self._adopting.add(task)
            task.add_done_callback(self._adopted)

    def _make_room(self) -> bool:
        """Close an idle connection, if there is one."""
        # Those that never sent a request go first: a flood of them must not keep others out.
        idle = None
        idle_until = self._loop.time() + self.limits.idle_timeout_s - _IDLE_S
        for connection, _ in zip(self._connections, range(_EVICTION_SCAN), strict=False):
            if not connection.is_idle or (idle is not None and connection.served):
                continue
            is_quiet = not connection.served or connection.deadline <= idle_until
            if is_quiet and not connection.has_unread:
                idle = connection
                if not connection.served:
                    break
        if idle is None:
            # Heads that trickle in: a flood of them must not keep whole ones out, either.
            idle = next((c for c in self._connections if c.has_sent_nothing_whole), None)
        if idle is None:
            return False
        del self._connections[idle]  # it counts no more, though its end comes a turn later
        idle.close()
        return True

    async def _adopt(self, accepted: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._new_connection, accepted)
        except OSError:
            accepted.close()  # the client left between accept and here
            self._arriving -= 1

    def _adopted(self, task: "asyncio.Task[None]") -> None:
        self._adopting.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failed(error, "")

    def _new_connection(self) -> asyncio.Protocol:
        reader = RequestReader(self._body_limit, self._small_body, self.budget, self._singletons)
        connection = Connection(self, reader, self._receive, self._loop.time)
        return cast(asyncio.Protocol, connection)

    def arrived(self, connection: Connection) -> None:
        """A connection has bytes to look at; see `Connection.take`."""
        news = self._with_news
        news.append(connection)
        if len(news) == 1:
            self._loop.call_soon(self._advance)
        elif len(news) >= _READS_AT_ONCE:
            self._advance()

    def _advance(self) -> None:
        connections, self._with_news = self._with_news, []
        try:
            for connection in connections:
                connection.take()
        finally:
            for connection in connections:
                connection.flush()

    def opened(self, connection: Connection) -> None:
        """A connection has its transport."""
        self._arriving -= 1
        self._connections[connection] = None
        if self.is_draining and not self._lingers:
            connection.drain()

    def closed(self, connection: Connection) -> None:
        """A connection is gone."""
        self._connections.pop(connection, None)
        self._resume_accepting()
        if self._all_closed is not None and not self._connections and not self._all_closed.done():
            self._all_closed.set_result(None)

    # --- time -------------------------------------------------------------------------------------

    def _sweep(self) -> None:
        """Hold connections to their deadlines: one timer for all, since most are never needed."""
        self.date.update(time.time())
        now = self._loop.time()
        for connection in [c for c in self._connections if c.deadline <= now]:
            connection.expire()
        if self._is_full:
            self._relieve()
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)

    def _relieve(self) -> None:
        """Let those have their turn who wait for a full house.

        Senders who keep their connections busy, or open, would keep others out for as long as they
        like.
        """
        self._is_full = False  # `_accept` says if that has not changed
        served = [c for c in self._connections if c.served and not c.is_idle]
        for connection in served[: max(1, self._capacity // _LEAVING_PART)]:
            connection.drain()  # of two requests under way, it ends after the second answer
        self._resume_accepting()  # an idle one can be replaced by now

    # --- the end ----------------------------------------------------------------------------------

    async def drain(self, timeout_s: float, linger_s: float = 0, *, accepts: bool = False) -> int:
        """Take no new connections, let requests under way finish; how many did not in time.

        For `linger_s` connections stay open that nothing is under way on: what comes there is
        answered, and is the last. A proxy may be about to send on them, and could not again.
        `accepts`: so long new ones are taken, too, for one request each: others would wait until
        somebody else listens.
        """
        self.is_draining = True
        self._lingers = linger_s > 0
        ends = self._loop.time() + timeout_s
        if self._lingers and accepts:
            await self._wait_until_closed(min(linger_s, timeout_s))
            linger_s = _LAST_WORD_S
        self._takes_more = False
        self._pause_accepting()
        for listening in self._sockets:
            listening.close()
        if self._adopting:  # accepted a moment ago: opened() tells them
            await asyncio.wait(set(self._adopting), timeout=timeout_s)
        if self._lingers:
            await self._wait_until_closed(min(linger_s, ends - self._loop.time()))
            self._lingers = False
        for connection in list(self._connections):
            connection.drain()
        await self._wait_until_closed(ends - self._loop.time())
        left = len(self._connections)
        for connection in list(self._connections):
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
        return left

    async def _wait_until_closed(self, timeout_s: float) -> None:
        if self.connections:
            self._all_closed = self._loop.create_future()
            await asyncio.wait([self._all_closed], timeout=max(0.0, timeout_s))
