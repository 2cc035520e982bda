"""The line: request → delivery → spool → handlers → outcome. Here, and only here, stages meet.

With a spool an answer is written when the commit that holds the delivery is over. Without one
(`durability = "none"`) an event that finds room in the backlog is answered at once.
"""

import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import apsw
from prometheus_client import Metric

from fasthook.accounts import accounts_of
from fasthook.admin import Metrics, gauge
from fasthook.config import Config, spool_of
from fasthook.dispatch.backlog import Backlog
from fasthook.dispatch.lane import NO_MARKS, Marks
from fasthook.dispatch.pool import Pool
from fasthook.errors import ConfigError, FasthookError, KeyNeeded, KeyUnavailable, Rejection
from fasthook.handling import Handler
from fasthook.intake.limiter import ClientBuckets
from fasthook.intake.network import Clients
from fasthook.intake.receiver import Receiver
from fasthook.logs import Log
from fasthook.model import Delivery, Outcome, Request
from fasthook.pausing import Pausing
from fasthook.plan import Plan
from fasthook.recall import Recall
from fasthook.saying import say_accepted, say_attempt
from fasthook.spool.changes import Held
from fasthook.spool.committer import Committed, Entry
from fasthook.spool.indexer import ReadBack, Settings
from fasthook.spool.journal import name_of
from fasthook.spool.records import Settled
from fasthook.spool.rejects import Reject
from fasthook.spool.spool import ALONE, KEY_BYTES, Place, Spool, key_of
from fasthook.wire.answers import Answer, refusal, rendered
from fasthook.wire.connection import Connection

#: Retries that are due sooner wait in memory; for later ones the delivery goes back to disk.
_PATIENCE_S: Final = 2.0
#: What is no attempt.
_UNSAID: Final = ("wait", "skip", "hold")


class Line:
    """Receiver, spool and pool of one worker."""

    def __init__(
        self, config: Config, plan: Plan, log: Log, metrics: Metrics, place: Place = ALONE
    ) -> None:
        """Opens the spool. `place`: of this worker. Raises `ConfigError` and `OSError`."""
        self._log = log
        self._logs_requests = config.log.requests
        self._logs_attempts = config.log.attempts
        self.metrics = metrics
        metrics.sources.append(self._sum_up)
        server, settings = config.server, config.dispatch
        self.receiver = Receiver(
            plan.endpoints + plan.own_endpoints,
            Clients(server.trusted_proxies),
            ClientBuckets(server.unverified_rate, server.unverified_burst),
        )
        self._accounts = accounts_of(plan)
        self.spool = self._open_spool(config, place) if config.spool.durability != "none" else None
        #: Takes handshakes that are answered later; has keys fetched. See `pairing`, `fetching`.
        self.take: Callable[[Delivery, Request, Connection, int], bool] | None = None
        self.wait: Callable[[Any, str, Request, Connection, int], None] | None = None
        #: See `wire.connection.Receive`.
        self.receive = self._receive_unstored if self.spool is None else self._receive_stored
        self.backlog = Backlog(settings.backlog, settings.backlog_bytes)
        self.pool = Pool(
            plan.handlers,
            self.backlog,
            self._settled,
            patience_s=_PATIENCE_S if self.spool is not None else math.inf,
            new_marks=self._new_marks,
        )
        self.pool.connect(plan.routes)
        self.pool.on_superseded = self._superseded
        self._recall: Recall | None = None
        self._pausing: Pausing | None = None
        self._is_held = False
        if self.spool is not None:
            parts = self.spool, self.receiver, self.backlog, self.pool
            self._recall = Recall(*parts, hold=settings.hold, ordered=_ordered(plan))
            self._pausing = Pausing(self.spool.path, self.pool, self._recall)
            self.pool.holding.on_held = self._held

    def _open_spool(self, config: Config, place: Place) -> Spool:
        settings, path = config.spool, spool_of(config)
        assert settings.durability != "none"  # noqa: S101 - asked for by the caller
        try:
            kept = Settings(settings.durability, settings.max_bytes, settings.retention)
            return Spool(path, kept, self._committed, self._read_back, place)
        except (OSError, apsw.Error, FasthookError) as error:
            raise ConfigError(f"{config.source}: spool.path: {path}: {error}") from None

    def _read_back(self, result: ReadBack) -> None:
        assert self._recall is not None  # noqa: S101 - it has asked for it
        self._recall.brought(result)

    def _new_marks(self, name: str, handler: Handler) -> Marks:
        if self.spool is None:
            return NO_MARKS
        is_ordered = bool(handler.ordered_by or handler.coalesce_by)
        return self.spool.marks(name, handler.concurrency, is_ordered=is_ordered)

    def start(self, *, is_alone: bool = True) -> None:
        """Begin with what waits on disk. Call within the running loop.

        `is_alone`: no other worker has anything that waits.
        """
        if self.spool is not None and self._recall is not None:
            self.spool.start()
            if self._pausing is not None:
                self._pausing.look()
            self._recall.start(is_alone=is_alone)

    def alone(self, held: Sequence[Held]) -> None:
        """The other workers are gone, and what they left is ours now."""
        if self._recall is not None:
            self._recall.alone(held)

    def drain(self) -> None:
        """What comes from now on is among the last."""
        if self._recall is not None:
            self._recall.drain()

    # --- requests in ------------------------------------------------------------------------------

    def _receive_unstored(
        self, request: Request, connection: Connection, number: int
    ) -> Answer | None:
        """`receive` without a spool."""
        backlog = self.backlog
        try:
            if backlog.is_full:
                backlog.refuse()
            delivery = self.receiver.receive(
                request, connection.peer, time.monotonic(), time.time_ns()
            )
            if delivery.kind == "event":
                if self._accounts[delivery.endpoint].may_repeat:
                    delivery.key = os.urandom(KEY_BYTES)
                if not backlog.enter(delivery):
                    backlog.refuse()
                self.pool.dispatch(delivery)
            elif self.take is not None and self.take(delivery, request, connection, number):
                return None
        except Rejection as rejection:
            return self.reject(rejection, request, connection.peer)
        except KeyNeeded as needed:
            return self._wait(needed, request, connection, number)
        return self.accepted(delivery, delivery.kind)

    def _receive_stored(
        self, request: Request, connection: Connection, number: int
    ) -> Answer | None:
        """`receive` with a spool."""
        try:
            delivery = self.receiver.receive(
                request, connection.peer, time.monotonic(), time.time_ns()
            )
            if delivery.kind == "event" or delivery.kind == "ignored":
                self._store(delivery, connection, number)
                return None
            if self.take is not None and self.take(delivery, request, connection, number):
                return None
        except Rejection as rejection:
            return self.reject(rejection, request, connection.peer)
        except KeyNeeded as needed:
            return self._wait(needed, request, connection, number)
        return self.accepted(delivery, delivery.kind)

    def _wait(
        self, needed: KeyNeeded, request: Request, connection: Connection, number: int
    ) -> Answer | None:
        """Have the key fetched: the request comes again after that, and is answered then."""
        peer = connection.peer
        client = self.receiver.client_of(peer, request)
        try:
            if self.wait is None:
                raise KeyUnavailable("nothing is fetched here", 60.0)
            self.wait(needed.wanted, client, request, connection, number)
        except KeyUnavailable as reason:
            self.receiver.shed_key(reason, request, peer, time.monotonic())
            return self.reject(reason, request, peer)
        return None

    def _store(self, delivery: Delivery, connection: Connection, number: int) -> None:
        """Have the delivery committed. Raises `SpoolUnavailable`."""
        spool, recall = self.spool, self._recall
        assert spool is not None and recall is not None  # noqa: S101, PT018 - or this is not called
        is_event = delivery.kind == "event"
        runs = is_event and recall.enter(delivery)
        endpoint = delivery.endpoint
        account = self._accounts[endpoint]
        if account.may_repeat:
            key = os.urandom(KEY_BYTES)
        else:
            is_signed = account.is_id_signed and delivery.secret_index >= 0
            key = key_of(delivery, is_id_signed=is_signed)
        try:
            spool.accept(Entry(key, delivery, runs, (connection, number)))
        except Rejection as rejection:
            if runs:
                self.backlog.leave(delivery)
            rejection.client, rejection.endpoint = delivery.client, endpoint
            raise
        if is_event and not runs:
            recall.stored(endpoint)

    def _committed(self, result: Committed) -> None:
        # All answers in a row, before any handler is set to work: see `Connection.take`.
        for entry in result.fresh:
            self._answer(entry, self.accepted(entry.delivery, entry.delivery.kind))
        for entry in result.duplicates:
            if entry.runs:
                self.backlog.leave(entry.delivery)
            self._answer(entry, self.accepted(entry.delivery, "duplicate"))
        if result.reason is not None:
            for entry in result.refused:
                self._refuse(entry, result.reason)
        for entry in result.fresh:
            self._set_to_work(entry)

    def _set_to_work(self, entry: Entry) -> None:
        """Run the handlers of what is stored now, if any want it and nothing is before it."""
        delivery = entry.delivery
        if entry.runs:
            if self._is_held:  # those before it are let go, and it is not to overtake them
                self.backlog.leave(delivery)
            else:
                self.pool.dispatch(delivery)
        elif delivery.unwanted is not None and delivery.kind == "ignored":
            self.pool.refuse(delivery)

    def _answer(self, entry: Entry, answer: Answer) -> None:
        connection, number = entry.token
        connection.answer(number, answer)

    def _refuse(self, entry: Entry, reason: Rejection) -> None:
        """The spool could not take the delivery."""
        delivery = entry.delivery
        if entry.runs:
            self.backlog.leave(delivery)
        self.metrics.refused(delivery.endpoint, delivery.client, reason)
        self._say_rejected(reason, delivery.endpoint, delivery.client, id=delivery.event_id)
        self._answer(entry, refusal(reason))

    def accepted(self, delivery: Delivery, kind: str) -> Answer:
        """Say and count it; what its sender is told."""
        account = self._accounts[delivery.endpoint]
        account.count(delivery, kind, self.metrics)
        if self._logs_requests:
            say_accepted(self._log, delivery, kind)
        reply = delivery.reply
        return account.success if reply is None else rendered(reply)

    def _sum_up(self) -> None:
        """What was counted goes to the metrics."""
        for endpoint, account in self._accounts.items():
            account.sum_up(endpoint, self.metrics)

    def reject(self, rejection: Rejection, request: Request, peer: str) -> Answer:
        """The same of a refusal."""
        client, endpoint = rejection.client or peer, rejection.endpoint
        method, path = request.method.decode("latin-1"), request.path.decode("latin-1")
        self.metrics.refused(endpoint, client, rejection)
        self._say_rejected(rejection, endpoint, client, method=method, path=path)
        if self.spool is not None:
            now_ns = time.time_ns()
            account = self._accounts.get(endpoint)
            kept = account is not None and account.keeps_rejected and not rejection.is_withheld
            head, body = (request.head, request.body) if kept else (None, None)
            reject = (now_ns, rejection.status, client, endpoint, method, path, str(rejection))
            self.spool.rejects.add(Reject(*reject, head, body))
        return refusal(rejection)

    def refused(self, rejection: Rejection, peer: str) -> None:
        """See `wire.connection.Owner`."""
        self.metrics.refused("", peer, rejection)
        self._say_rejected(rejection, "", peer)
        if self.spool is not None:
            what = (time.time_ns(), rejection.status, peer, "", "", "", str(rejection))
            self.spool.rejects.add(Reject(*what))

    def _say_rejected(self, rejection: Rejection, endpoint: str, client: str, **more: str) -> None:
        account = self._accounts.get(endpoint)
        fields = {
            "status": rejection.status,
            "reason": str(rejection),
            "endpoint": endpoint,
            "provider": account.provider if account is not None else None,
            "client": client,
            **more,
        }
        self._log.repeatable(30, "rejected", type(rejection).__name__, fields)

    # --- outcomes out -----------------------------------------------------------------------------

    def _settled(self, outcome: Outcome) -> None:
        if self.spool is not None:
            self._record(self.spool, outcome)
        if outcome.kind in ("done", "superseded"):
            if self._logs_attempts:
                say_attempt(self._log, outcome)
        elif outcome.kind not in _UNSAID:
            say_attempt(self._log, outcome)
            self.metrics.failed(outcome.delivery.endpoint, outcome.error)

    def _record(self, spool: Spool, outcome: Outcome) -> None:
        delivery, attempt = outcome.delivery, outcome.attempt
        is_done = outcome.kind == "done" and attempt == 1
        if is_done and delivery.has_one_handler and not outcome.order_key:
            spool.done(outcome.handler, delivery.position)
        else:
            now_ns = time.time_ns()
            if delivery.position in self.pool.dropped:
                outcome.error = ""
            due_ns = now_ns + int(outcome.retry_in_s * 1e9) if outcome.kind == "retry" else 0
            if outcome.kind == "superseded":
                outcome.error = name_of(outcome.by) if outcome.by >= 0 else ""
            settled = Settled(
                delivery.position,
                outcome.handler,
                outcome.kind,
                attempt,
                now_ns,
                outcome.leaves,
                outcome.due_ns or due_ns,
                outcome.error,
                outcome.order_key,
                outcome.since_ns,
            )
            spool.settle(settled)
        if self._recall is not None:
            self._recall.settled(outcome)

    def _held(self, handlers: frozenset[str], probing: frozenset[str]) -> None:
        """See `OnHeld`."""
        if self.spool is not None and self._recall is not None:
            self.spool.hold(handlers, probing)
            self._recall.go_on()

    def _superseded(self, handler: str, position: int, by: int, leaves: bool) -> None:
        """A delivery that waits on disk is not to run: see `OnSuperseded`."""
        if self.spool is not None:
            now_ns, name = time.time_ns(), name_of(by)
            self.spool.settle(Settled(position, handler, "superseded", 0, now_ns, leaves, 0, name))
            if self._logs_attempts:
                fields = {"handler": handler, "name": name_of(position), "by": name}
                self._log.write(20, "superseded", fields)

    # --- orders -----------------------------------------------------------------------------------

    def forget(self, positions: Sequence[int]) -> None:
        """Run these no more; what an attempt under way comes to is not to quote them."""
        self.pool.drop(frozenset(positions), "forgotten")

    # --- about ------------------------------------------------------------------------------------

    @property
    def trouble(self) -> str:
        """Why nothing can be accepted at the moment; empty if all is well."""
        return self.spool.trouble if self.spool is not None else ""

    def families(self) -> Iterable[Metric]:
        """The spool's metrics."""
        if self.spool is None:
            return
        counts = {state.name.lower(): float(n) for state, n in self.spool.counts.items()}
        yield gauge("fasthook_spool_events", "By state, some seconds ago.", counts, "state")
        if self._pausing is not None:
            yield from self._pausing.families()
        yield gauge("fasthook_spool_bytes", "Of the journal.", {"": self.spool.size_bytes})
        slowest_s, self.spool.slowest_commit_s = self.spool.slowest_commit_s, 0.0
        help_text = "The longest since it was last asked for."
        yield gauge("fasthook_spool_slowest_commit_seconds", help_text, {"": slowest_s})

    # --- the end ----------------------------------------------------------------------------------

    async def hold(self, timeout_s: float) -> None:
        """Begin no more attempts, and wait for those under way; what comes is stored.

        Without a spool nothing changes: all has to be handled before the end.
        """
        if self.spool is not None and self._recall is not None:
            self._is_held = True
            self._recall.stop()
            await self.pool.drain(max(0.0, timeout_s), is_stored=True)

    async def stop(self, timeout_s: float) -> int:
        """Finish what runs, store what is left; how many events are lost."""
        is_stored = self.spool is not None
        if self._recall is not None:
            self._recall.stop()
        left = await self.pool.drain(timeout_s, is_stored=is_stored)
        await self.pool.close()
        if self.spool is not None:
            await self.spool.close()
        return 0 if is_stored else left


def _ordered(plan: Plan) -> list[str]:
    """Endpoints with handlers that keep an order."""
    found = plan.routes.items()
    return [name for name, wanted in found if any(each.key_index >= 0 for each in wanted)]
