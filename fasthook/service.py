"""One worker: its listeners, its line, and their life from start to drain."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec
from prometheus_client import Metric

from fasthook import control
from fasthook.admin import Admin, Alerts, Metrics, counter, gauge
from fasthook.alert_events import can_watch
from fasthook.config import Config
from fasthook.control import Control
from fasthook.dispatch.breaker import Breaker
from fasthook.drifting import Drifting
from fasthook.fetch_plan import client_of
from fasthook.fetching import Fetching
from fasthook.line import Line
from fasthook.logs import Log
from fasthook.model import Delivery, Request
from fasthook.pairing import Pairing
from fasthook.plan import Plan
from fasthook.spool.spool import ALONE, Place
from fasthook.watching import Watching
from fasthook.wire.connection import Connection, Receive
from fasthook.wire.limits import Limits
from fasthook.wire.listener import Listener
from fasthook.wire.reader import SINGLETONS
from fasthook.wire.sockets import Sockets

T = TypeVar("T")
Take = Callable[[Delivery, Request, Connection, int], bool]
#: The loop is looked at this often; held for longer than the other, it is worth a line.
_WATCH_S = 0.5
_HELD_S = 1.0
#: Of the admin listener: its requests have no bodies worth the name.
_ADMIN_BODY_BYTES = 0
_ADMIN_CONNECTIONS = 64


class Service:
    """Listeners, receiver and pool of one process."""

    def __init__(self, config: Config, plan: Plan, log: Log, place: Place = ALONE) -> None:
        """Opens the spool. Raises `ConfigError` and `OSError`."""
        self._config = config
        self._log = log
        self._place = place
        self.metrics = Metrics()
        self.line = Line(config, plan, log, self.metrics, place)
        self._body_limits = plan.body_limits
        self._listener = self._new_listener(plan)
        self._watching = self._new_watching()
        spool = self.line.spool
        self._drifting: Drifting | None = None
        if config.alerts.drift and spool is not None:
            self._drifting = Drifting(config, spool.path)
        self._admin = Admin(self._not_ready, self._families, self._gather, self._alerts)
        self._admin_listener = self._new_small_listener(
            self._admin.receive, lambda path: _ADMIN_BODY_BYTES
        )
        #: For orders of commands, where there is something to order about.
        self._control_listener: Listener | None = None
        self._pairing: Pairing | None = None
        #: Called when a secret was handed over, which other workers have to know, too.
        self.on_secrets: Callable[[], None] = lambda: None
        line, spool = self.line, self.line.spool
        if spool is not None:
            use = line.receiver.use
            pairing = Pairing(
                plan.pairable,
                spool.path,
                use,
                line.accepted,
                line.reject,
                on_taken=lambda: self.on_secrets(),
            )
            self._pairing = pairing
            figures, watching = self._admin.figures, self._watching
            receive = Control(spool, line.forget, pairing, figures, watching).receive
            self._control_listener = self._new_small_listener(receive, control.body_limit)
        self._fetching = self._new_fetching(plan)
        line.take = self._taking()

    def _new_listener(self, plan: Plan) -> Listener:
        server = self._config.server
        default = server.max_body
        return Listener(
            self.line.receive,
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
            on_refused=self.line.refused,
            on_failed=self._failed,
        )

    def _new_fetching(self, plan: Plan) -> Fetching | None:
        if not (plan.fetches.sources or plan.fetches.handshakes):
            return None
        keys, line = self._config.keys, self.line
        made = Fetching(plan.fetches, client_of(keys), keys.ca_file, keys.timeout, self._failed)
        made.connect(line.receive, line.accepted, line.reject)
        line.wait = made.wait
        return made

    def _new_watching(self) -> Watching | None:
        config, spool = self._config, self.line.spool
        if not can_watch(config, self._place.workers):
            return None

        def tallies() -> Iterable[bytes]:
            if spool is None or control.is_alone(spool.path, spool.number):
                return ()
            return control.ask_others(spool.path, control.Tally(), spool.number)

        return Watching(config, self.metrics, spool, self._hand_over, tallies)

    def _taking(self) -> Take | None:
        """Who takes the handshakes that are answered later."""
        takers = [one.take for one in (self._fetching, self._pairing) if one is not None]
        if len(takers) < 2:
            return takers[0] if takers else None

        def take(delivery: Delivery, request: Request, connection: Connection, number: int) -> bool:
            return any(one(delivery, request, connection, number) for one in takers)

        return take

    def _new_small_listener(self, receive: Receive, body_limit: Callable[[bytes], int]) -> Listener:
        return Listener(
            receive,
            limits=Limits(max_connections=_ADMIN_CONNECTIONS),
            body_limit=body_limit,
            small_body=body_limit(b""),
            on_refused=self.line.refused,
            on_failed=self._failed,
        )

    def _failed(self, error: BaseException, peer: str) -> None:
        self.metrics.requests["", "500"] += 1
        self._log.exception("internal error", error, client=peer)

    # --- life -------------------------------------------------------------------------------------

    async def start(self, sockets: Sockets) -> None:
        """Accept on `sockets`, which are listening already. Raises `ConfigError`."""
        self._loop = asyncio.get_running_loop()
        self._watch_loop(time.monotonic())
        self.line.start(is_alone=self._place.is_first)
        if self._fetching is not None:
            self._fetching.start()
        spool = self.line.spool
        if spool is not None:
            if self._place.workers > 1 or not self._place.is_first:
                await self.share()
            assert self._control_listener is not None  # noqa: S101 - made with the spool
            self._control_listener.start(control.listen(spool.path, spool.number))
        self._listener.start(sockets.public)
        self._admin_listener.start(sockets.admin)

    async def share(self) -> None:
        """From when this returns other workers may get the same events."""
        if self.line.spool is not None:
            is_shared = self._loop.create_future()
            self.line.spool.share(partial(is_shared.set_result, None))
            await is_shared

    def be_alone(self) -> None:
        """The other workers have ended: take over what they left."""
        if self.line.spool is not None:
            self.line.spool.be_alone(self.line.alone)

    def read_secrets(self) -> None:
        """Another worker has taken a secret."""
        if self._pairing is not None:
            self._pairing.read_again()

    def watch(self) -> None:
        """Find what is unusual, for all workers. Of them all one watches at a time."""
        if self._watching is not None:
            self._watching.watch()
        if self._drifting is not None:
            self._drifting.start()

    async def unwatch(self) -> None:
        """From when this returns another worker may watch."""
        if self._drifting is not None:
            await asyncio.to_thread(self._drifting.stop)
        if self._watching is not None:
            await self._watching.unwatch()

    @property
    def stuck_s(self) -> float:
        """For how long the spool has been at the same commit."""
        return 0.0 if self.line.spool is None else self.line.spool.stuck_s

    def _watch_loop(self, due: float) -> None:
        """Say so when something held the loop, which nothing else can: it holds us, too."""
        held_s = time.monotonic() - due
        if held_s > _HELD_S:
            running = [name for name, lane in self.line.pool.lanes.items() if lane.running]
            self._log.warning("loop held", seconds=round(held_s, 1), running=" ".join(running))
        due = time.monotonic() + _WATCH_S
        self._watcher = self._loop.call_later(_WATCH_S, self._watch_loop, due)

    async def stop(self, linger_s: float = 0, *, accepts: bool = False) -> int:
        """Drain: no new connections, finish what runs; how many events were left unhandled.

        `linger_s`, `accepts`: see `Listener.drain`. With the latter, requests are taken until
        nothing else is to be done, and their events are stored for the next start.
        """
        timeout_s = self._config.server.drain_timeout
        began = time.monotonic()
        self._log.info(
            "draining", connections=self._listener.connections, events=self.line.backlog.count
        )
        self.line.drain()
        if self._control_listener is not None:
            await self._control_listener.drain(0)
            assert self.line.spool is not None  # noqa: S101 - it is there for the spool's sake
            control.remove_socket(self.line.spool.path, self.line.spool.number)
        if accepts:
            await self.line.hold(timeout_s - linger_s)
        left_s = max(0.0, timeout_s - (time.monotonic() - began))
        cut_off = await self._listener.drain(left_s, linger_s, accepts=accepts)
        if self._pairing is not None:
            self._pairing.close()
        if self._fetching is not None:
            self._fetching.close()
        if self._drifting is not None:
            await asyncio.to_thread(self._drifting.stop)
        if self._watching is not None:
            await self._watching.stop()
        left = await self.line.stop(max(0.0, timeout_s - (time.monotonic() - began)))
        await self._hand_tally_on()
        await self._admin_listener.drain(0)
        self._watcher.cancel()
        if left or cut_off:
            self._log.warning("stopped", events_lost=left, connections_cut_off=cut_off)
        else:
            self._log.info("stopped", events_lost=0)
        self._log.flush()
        return left

    async def _hand_tally_on(self) -> None:
        """Give another worker what was counted since the last look."""
        spool, watching = self.line.spool, self._watching
        if spool is None or watching is None:
            return
        order = control.Counted(watching.tally())
        # Whoever takes it first is asked for it by the one that watches; the journal that was
        # one's own may be that worker's by now.
        others = control.ask_others(spool.path, order)
        await asyncio.to_thread(next, others, None)

    def _not_ready(self) -> str:
        if self._listener.is_draining:
            return "draining"
        return self.line.trouble

    def _gather(self, then: Callable[[Sequence[str]], None]) -> bool:
        """See `Admin`. Without a spool each worker has its own figures, and nobody asks for all."""
        spool = self.line.spool
        if spool is None or control.is_alone(spool.path, spool.number):
            return False

        def ask() -> list[str]:
            try:
                return [text.decode() for text in control.ask(spool.path, control.Figures())]
            except (OSError, control.Refused) as error:
                self._log.warning("metrics of one worker alone", error=str(error))
                return []

        self._ask(ask, then)
        return True

    def _alerts(self, then: Callable[[Alerts], None]) -> Alerts | None:
        """See `Admin`."""
        watching, spool = self._watching, self.line.spool
        if watching is None:
            return ()
        if spool is None or watching.is_watching:
            return watching.present()

        def ask() -> Alerts:
            for answer in control.ask_others(spool.path, control.Alerts(), spool.number):
                found = msgspec.json.decode(answer, type=list[dict[str, Any]] | None)
                if found is not None:
                    return found
            return watching.kept()

        self._ask(ask, then)
        return None

    def _ask(self, function: Callable[[], T], then: Callable[[T], None]) -> None:
        """Have other workers asked in a thread; `then` gets what they say, on the loop."""
        future = self._loop.run_in_executor(None, function)
        future.add_done_callback(lambda done: then(done.result()))

    def _families(self) -> Iterable[Metric]:
        lanes, backlog = self.line.pool.lanes, self.line.backlog
        yield from self.metrics.families({name: lane.counts for name, lane in lanes.items()})
        yield gauge("fasthook_connections", "Open.", {"": self._listener.connections})
        yield gauge("fasthook_backlog_events", "In memory, not settled.", {"": backlog.count})
        yield gauge("fasthook_backlog_bytes", "Of those events.", {"": backlog.bytes})
        yield gauge("fasthook_bytes_in_flight", "Being read.", {"": self._listener.budget.used})
        waiting = {name: float(lane.waiting) for name, lane in lanes.items()}
        yield gauge("fasthook_handler_waiting", "Events in line.", waiting, "handler")
        running = {name: float(lane.running) for name, lane in lanes.items()}
        yield gauge("fasthook_handler_running", "Attempts under way.", running, "handler")
        flows = self.line.pool.flows.items()
        found = {name: flow.coalescer for name, flow in flows}
        waits = {name: float(one.waiting) for name, one in found.items() if one is not None}
        text = "Keys of which an event waits to become one run with those that come."
        yield gauge("fasthook_handler_coalescing", text, waits, "handler")
        yield from _breakers(self.line.pool.holding.breakers)
        unwritten = {"dropped": self._log.dropped, "summarised": self._log.summarised}
        yield counter("fasthook_log_lines_unwritten", "Lines that are in no log.", unwritten, "why")
        yield from self.line.families()
        if self._fetching is not None:
            yield from self._fetching.families()
        if self._watching is not None:
            yield from self._watching.families()

    def _hand_over(self, delivery: Delivery) -> bool:
        """Take an event of our own where there is no spool, if there is room for it."""
        self.line.receiver.restore(delivery)
        if not self.line.backlog.enter(delivery):
            return False
        self.line.accepted(delivery, delivery.kind)
        self.line.pool.dispatch(delivery)
        return True


def _breakers(breakers: Mapping[str, Breaker]) -> Iterable[Metric]:
    states = {name: float(breaker.state.value) for name, breaker in breakers.items()}
    text = "0: closed; 1: one event is tried; 2: open, so that nothing of the handler runs."
    yield gauge("fasthook_handler_breaker", text, states, "handler")
    opened = {name: breaker.opened for name, breaker in breakers.items()}
    yield counter("fasthook_breaker_opened", "How often it opened.", opened, "handler")


def _security_headers(plan: Plan) -> frozenset[bytes]:
    configured: set[bytes] = set()
    for endpoint in plan.endpoints:
        configured |= endpoint.security_headers
    return frozenset(configured)
