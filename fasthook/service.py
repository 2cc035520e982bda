"""One worker: the only place where the stages meet.

Between accepted and answered stands, for now, the backlog alone: an event that finds room there
is answered 2xx. It is here that the spool will commit.
"""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Iterable

from prometheus_client import Metric

from fasthook.admin import Admin, Metrics, gauge
from fasthook.config import Config
from fasthook.dispatch.backlog import Backlog
from fasthook.dispatch.pool import Pool
from fasthook.errors import ConfigError, Rejection
from fasthook.intake import catalogue
from fasthook.intake.limiter import ClientBuckets
from fasthook.intake.network import Clients
from fasthook.intake.receiver import Receiver
from fasthook.logs import Log
from fasthook.model import Delivery, Outcome, Request
from fasthook.plan import Plan
from fasthook.wire.answers import Answer, refusal, render
from fasthook.wire.connection import Connection
from fasthook.wire.limits import Limits
from fasthook.wire.listener import Listener
from fasthook.wire.reader import SINGLETONS
from fasthook.wire.sockets import open_sockets

#: The loop is looked at this often; held for longer than the other, it is worth a line.
_WATCH_S = 0.5
_HELD_S = 1.0
#: Of the admin listener: its requests have no bodies worth the name.
_ADMIN_BODY_BYTES = 0
_ADMIN_CONNECTIONS = 64


class Service:
    """Listeners, receiver and pool of one process."""

    def __init__(self, config: Config, plan: Plan, log: Log) -> None:
        self._config = config
        self._log = log
        self._logs_requests = config.log.requests
        self.metrics = Metrics()
        server = config.server
        self._receiver = Receiver(
            plan.endpoints,
            Clients(server.trusted_proxies),
            ClientBuckets(server.unverified_rate, server.unverified_burst),
        )
        self._backlog = Backlog(config.dispatch.backlog, config.dispatch.backlog_bytes)
        self._pool = Pool(plan.handlers, self._backlog, self._settled)
        self._pool.connect(plan.routes)
        self._success = {name: render(status) for name, status in plan.statuses.items()}
        self._body_limits = plan.body_limits
        self._listener = self._new_listener(plan)
        self._admin = Admin(self._not_ready, self._families)
        self._admin_listener = Listener(
            self._admin.receive,
            limits=Limits(max_connections=_ADMIN_CONNECTIONS),
            body_limit=lambda path: _ADMIN_BODY_BYTES,
            small_body=_ADMIN_BODY_BYTES,
            on_refused=self._refused,
            on_failed=self._failed,
        )
        self.addresses: list[str] = []

    def _new_listener(self, plan: Plan) -> Listener:
        server = self._config.server
        default = server.max_body
        return Listener(
            self.receive,
            limits=Limits(
                head_timeout_s=server.head_timeout,
                body_timeout_s=server.body_timeout,
                idle_timeout_s=server.idle_timeout,
                write_timeout_s=server.write_timeout,
                max_connections=server.max_connections,
                max_bytes_in_flight=server.max_bytes_in_flight,
            ),
            body_limit=lambda path: self._body_limits.get(path, default),
            small_body=min(default, *self._body_limits.values()),
            singletons=SINGLETONS | _security_headers(plan),
            on_refused=self._refused,
            on_failed=self._failed,
        )

    # --- the line ---------------------------------------------------------------------------------

    def receive(self, request: Request, connection: Connection, number: int) -> Answer:
        """See `wire.connection.Receive`."""
        try:
            if self._backlog.is_full:
                self._backlog.refuse()
            delivery = self._receiver.receive(
                request, connection.peer, time.monotonic(), time.time_ns()
            )
            if delivery.kind == "event":
                self._pool.offer(delivery)
        except Rejection as rejection:
            return self._reject(rejection, request, connection.peer)
        self.metrics.request(delivery.endpoint, delivery.kind)
        if self._logs_requests:
            self._log_accepted(delivery)
        reply = delivery.reply
        if reply is None:
            return self._success[delivery.endpoint]
        return render(reply.status, reply.body.encode(), content_type=reply.content_type)

    def _log_accepted(self, delivery: Delivery) -> None:
        fields = {
            "endpoint": delivery.endpoint,
            "type": delivery.event_type,
            "id": delivery.event_id,
            "client": delivery.client,
            "bytes": len(delivery.body),
            "secret": delivery.secret_index,
        }
        self._log.write(20, "accepted" if delivery.kind == "event" else delivery.kind, fields)

    def _reject(self, rejection: Rejection, request: Request, peer: str) -> Answer:
        self.metrics.request(rejection.endpoint, str(rejection.status))
        self._log.warning(
            "rejected",
            status=rejection.status,
            reason=str(rejection),
            endpoint=rejection.endpoint,
            client=rejection.client or peer,
            method=request.method.decode("latin-1"),
            path=request.path.decode("latin-1"),
        )
        return refusal(rejection)

    def _refused(self, rejection: Rejection, peer: str) -> None:
        self.metrics.request("", str(rejection.status))
        self._log.warning("rejected", status=rejection.status, reason=str(rejection), client=peer)

    def _failed(self, error: BaseException, peer: str) -> None:
        self.metrics.request("", "500")
        self._log.exception("internal error", error, client=peer)

    def _settled(self, outcome: Outcome) -> None:
        self.metrics.outcome(outcome)
        if outcome.kind == "done" and not self._logs_requests:
            return
        fields = {
            "handler": outcome.handler,
            "endpoint": outcome.delivery.endpoint,
            "type": outcome.delivery.event_type,
            "id": outcome.delivery.event_id,
            "attempt": outcome.attempt,
            "ms": round(outcome.duration_s * 1000, 3),
            "error": outcome.error,
            "traceback": outcome.traceback,
        }
        if outcome.kind == "done":
            self._log.write(20, "done", fields)
        elif outcome.kind == "retry":
            self._log.write(30, "retry", {**fields, "retry_in_s": outcome.retry_in_s})
        else:
            self._log.write(40, "dead", fields)

    # --- life -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Listen. Raises `ConfigError` where an address can't be had."""
        server = self._config.server
        mode = int(server.socket_mode, 8)
        sockets: list[socket.socket] = []
        admin: list[socket.socket] = []
        key = "server.listen"
        try:
            for address in server.listen:
                sockets += open_sockets(address, mode=mode, group=server.socket_group)
            key = "admin.listen"
            if self._config.admin.listen:
                admin = open_sockets(self._config.admin.listen)
        except ConfigError as error:
            for opened in sockets:
                opened.close()
            raise ConfigError(f"{self._config.source}: {key}: {error}") from None
        self.addresses = [_address_of(opened) for opened in sockets + admin]
        self._unix_paths = [
            str(s.getsockname()) for s in sockets + admin if s.family == socket.AF_UNIX
        ]
        self._loop = asyncio.get_running_loop()
        self._watch_loop(time.monotonic())
        self._listener.start(sockets)
        self._admin_listener.start(admin)
        self._log.info(
            "listening",
            addresses=" ".join(map(_address_of, sockets)),
            admin=" ".join(map(_address_of, admin)),
        )

    def _watch_loop(self, due: float) -> None:
        """Say so when something held the loop, which nothing else can: it holds us, too."""
        held_s = time.monotonic() - due
        if held_s > _HELD_S:
            running = [name for name, lane in self._pool.lanes.items() if lane.running]
            self._log.warning("loop held", seconds=round(held_s, 1), running=" ".join(running))
        due = time.monotonic() + _WATCH_S
        self._watcher = self._loop.call_later(_WATCH_S, self._watch_loop, due)

    async def stop(self) -> int:
        """Drain: no new connections, finish what runs; how many events were left unhandled."""
        timeout_s = self._config.server.drain_timeout
        began = time.monotonic()
        self._log.info(
            "draining", connections=self._listener.connections, events=self._backlog.count
        )
        cut_off = await self._listener.drain(timeout_s)
        left = await self._pool.drain(max(0.0, timeout_s - (time.monotonic() - began)))
        await self._pool.close()
        await self._admin_listener.drain(0)
        self._watcher.cancel()
        for path in self._unix_paths:
            with contextlib.suppress(OSError):
                os.unlink(path)
        if left or cut_off:
            self._log.warning("stopped", events_lost=left, connections_cut_off=cut_off)
        else:
            self._log.info("stopped", events_lost=0)
        self._log.flush()
        return left

    def _not_ready(self) -> str:
        return "draining" if self._listener.is_draining else ""

    def _families(self) -> Iterable[Metric]:
        yield from self.metrics.families()
        yield gauge("fasthook_connections", "Open.", {"": self._listener.connections})
        yield gauge("fasthook_backlog_events", "Accepted, not settled.", {"": self._backlog.count})
        yield gauge("fasthook_backlog_bytes", "Of those events.", {"": self._backlog.bytes})
        yield gauge("fasthook_bytes_in_flight", "Being read.", {"": self._listener.budget.used})
        waiting = {name: float(lane.waiting) for name, lane in self._pool.lanes.items()}
        yield gauge("fasthook_handler_waiting", "Events in line.", waiting, "handler")
        running = {name: float(lane.running) for name, lane in self._pool.lanes.items()}
        yield gauge("fasthook_handler_running", "Attempts under way.", running, "handler")


def _security_headers(plan: Plan) -> frozenset[bytes]:
    configured: set[bytes] = set()
    for endpoint in plan.endpoints:
        configured |= endpoint.security_headers
    return catalogue.security_headers() | configured


def _address_of(opened: socket.socket) -> str:
    name = opened.getsockname()
    if opened.family == socket.AF_UNIX:
        return f"unix:{name}"
    host = f"[{name[0]}]" if opened.family == socket.AF_INET6 else name[0]
    return f"tcp://{host}:{name[1]}"
