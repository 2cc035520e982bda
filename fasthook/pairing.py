"""Pairing: for a while, an operator lets an endpoint take the secret that its sender hands over.

One is taken, the first of the expected form; then, or when the time is over, the endpoint refuses
the next one like anything that nobody signed. The sender is answered once the secret is on disk,
and from then on it is in force, beside those that were.
All of it happens on the loop, but for the files: a thread writes them.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, Literal

import msgspec

from fasthook.errors import FasthookError, NoSignature, Rejection, SpoolUnavailable
from fasthook.intake.receiver import Endpoint
from fasthook.logs import log
from fasthook.model import Delivery, Request
from fasthook.plan import Pairable
from fasthook.spool import secrets
from fasthook.spool.secrets import MAX_KEPT, Kept
from fasthook.wire.answers import Answer
from fasthook.wire.connection import Connection

#: An endpoint that is forgotten in this state takes the secret of whoever comes first.
MAX_PAIRING_S: Final = 86400.0
_RETRY_AFTER_S: Final = 5.0


class PairingError(FasthookError):
    """What was asked for can't be done; the message says why."""


class State(msgspec.Struct):
    """How far the pairing of an endpoint is."""

    #: "storing": one came, and the disk has it next; "over": by time, or by an operator.
    state: Literal["none", "waiting", "storing", "taken", "over"] = "none"
    left_s: float = 0.0  # while it waits
    client: str = ""  # who handed the secret over
    kept: str = ""  # the name under which it is kept
    failure: str = ""  # why the last one that came could not be kept


class Pairing:
    """The endpoints of a service that can be paired."""

    def __init__(
        self,
        pairable: Mapping[str, Pairable],
        spool: Path,
        use: Callable[[Endpoint], None],
        accepted: Callable[[Delivery, str], Answer],
        reject: Callable[[Rejection, Request, str], Answer],
        clock: Callable[[], float] = time.monotonic,
        on_taken: Callable[[], None] = lambda: None,
    ) -> None:
        """`use` puts an endpoint into the place of its former self; `accepted` and `reject` say,
        count, and make what a sender is told. `on_taken`: other workers are to `read_again`.
        """
        self._on_taken = on_taken
        self._endpoints = {name: _Pairable(name, found) for name, found in pairable.items()}
        self._spool = spool
        self._use = use
        self._accepted = accepted
        self._reject = reject
        self._clock = clock
        #: One thread, so that what a call has found on disk still holds when the loop hears of it.
        self._files = ThreadPoolExecutor(1, "pairing")

    def close(self) -> None:
        """Let the thread end; it does so once it has finished what it has in hand."""
        self._files.shutdown(wait=False)

    # --- orders -----------------------------------------------------------------------------------

    def begin(self, name: str, for_s: float) -> None:
        """From now on, and for so long, take the secret that comes. Raises `PairingError`.

        Where one is waited for already, the time begins anew: who asked for it may be gone.
        """
        found = self._find(name)
        if found.state.state == "storing":
            raise PairingError(f"{name} is being paired: a secret has come, and is being stored")
        if found.kept_count >= MAX_KEPT:
            how = f"`fasthook pair {name} --forget SECRET` removes one"
            raise PairingError(f"{name} has {MAX_KEPT} secrets that were handed over; {how}")
        found.close("over")
        found.state = State("waiting")
        found.until_s = self._clock() + for_s
        loop = asyncio.get_running_loop()
        found.timer = loop.call_later(for_s, self._end, found, "its time is over")
        self._use(found.current())
        log.info("pairing", endpoint=name, seconds=round(for_s))

    def end(self, name: str) -> None:
        """Wait no longer. Raises `PairingError`."""
        self._end(self._find(name), "ended by an operator")

    def state(self, name: str) -> State:
        """How far it is. Raises `PairingError`."""
        found = self._find(name)
        if found.state.state == "waiting":
            found.state.left_s = max(0.0, found.until_s - self._clock())
        return found.state

    def forget(self, name: str, kept: str, done: Callable[[int | PairingError], None]) -> None:
        """Remove what was handed over, one or, with no name, all; `done` is told how many.

        Raises `PairingError`.
        """
        found = self._find(name)

        def removed(future: asyncio.Future[tuple[int, list[Kept]]]) -> None:
            try:
                count, left = future.result()
            except (OSError, FasthookError) as error:
                done(PairingError(f"can't be removed: {error}"))
                return
            self._use(found.with_kept(left))
            log.info("unpaired", endpoint=name, secrets=count)
            done(count)

        loop = asyncio.get_running_loop()
        loop.run_in_executor(self._files, self._remove, name, kept).add_done_callback(removed)

    def _remove(self, name: str, kept: str) -> tuple[int, list[Kept]]:
        count = secrets.forget(self._spool, name, kept)
        return count, secrets.read(self._spool, name)

    def read_again(self) -> None:
        """Another worker has taken a secret: use it, too, and wait for none."""
        loop = asyncio.get_running_loop()
        for found in self._endpoints.values():
            read = loop.run_in_executor(self._files, secrets.read, self._spool, found.name)
            read.add_done_callback(partial(self._have_read, found))

    def _have_read(self, found: "_Pairable", future: asyncio.Future[list[Kept]]) -> None:
        try:
            kept = future.result()
        except (OSError, FasthookError) as error:
            log.error("secrets not read", endpoint=found.name, error=str(error))
            return
        if len(kept) > found.kept_count:
            self._end(found, "another worker has taken the secret")
        self._use(found.with_kept(kept))

    def _find(self, name: str) -> "_Pairable":
        found = self._endpoints.get(name)
        if found is None:
            why = "it runs with another configuration, or the endpoint's provider hands none over"
            raise PairingError(f"the service has no endpoint {name!r} that can be paired: {why}")
        return found

    def _end(self, found: "_Pairable", why: str) -> None:
        if found.state.state == "waiting":
            found.close("over")
            self._use(found.current())
            log.info("pairing ended", endpoint=found.name, reason=why)

    # --- what comes -------------------------------------------------------------------------------

    def take(
        self, delivery: Delivery, request: Request, connection: Connection, number: int
    ) -> bool:
        """Whether this hands over a secret that is waited for; then it is answered later.

        Raises `Rejection` for one that comes too late.
        """
        found = self._endpoints.get(delivery.endpoint)
        if found is None or found.state.state != "waiting" or delivery.secret_index >= 0:
            return False
        endpoint = found.endpoint
        handed = [h.secret_in(request) for h in endpoint.handovers if h.name == delivery.kind]
        if not handed or handed[0] is None:
            return False
        if self._clock() >= found.until_s:
            self._end(found, "its time is over")
            late = NoSignature("the time to pair the endpoint is over")
            late.client = delivery.client
            endpoint.sign_off(late, request)
            raise late
        # From here on no second one is taken, also while the disk is at work.
        found.close("storing")
        self._use(found.current())

        def kept(future: asyncio.Future[tuple[str, list[Kept]]]) -> None:
            connection.answer(number, self._kept(found, future, delivery, request, connection.peer))

        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(
            self._files, secrets.keep, self._spool, found.name, handed[0], found.kept_count
        )
        future.add_done_callback(kept)
        return True

    def _kept(
        self,
        found: "_Pairable",
        future: asyncio.Future[tuple[str, list[Kept]]],
        delivery: Delivery,
        request: Request,
        peer: str,
    ) -> Answer:
        """What the sender is told, now that the disk has its secret, or has it not."""
        try:
            name, kept = future.result()
        except secrets.AnotherKept as error:
            found.state = State("over")
            self.read_again()
            refused = NoSignature(str(error))
            refused.client = delivery.client
            found.endpoint.sign_off(refused, request)
            return self._reject(refused, request, peer)
        except (OSError, FasthookError) as error:
            return self._reject(self._failed(found, error, delivery), request, peer)
        found.state = State("taken", client=delivery.client, kept=name)
        self._use(found.with_kept(kept))
        log.info("paired", endpoint=found.name, client=delivery.client, kept=name)
        self._on_taken()
        return self._accepted(delivery, delivery.kind)

    def _failed(self, found: "_Pairable", error: Exception, delivery: Delivery) -> Rejection:
        """The disk did not take it: wait for the sender's next try."""
        what = f"the secret that was handed over can't be kept: {error}"
        left_s = found.until_s - self._clock()
        found.state = State("waiting", failure=str(error))
        if left_s > 0:
            loop = asyncio.get_running_loop()
            found.timer = loop.call_later(left_s, self._end, found, "its time is over")
            self._use(found.current())
        else:
            self._end(found, "its time is over")
        refused = SpoolUnavailable(what, _RETRY_AFTER_S)
        refused.endpoint, refused.client = found.name, delivery.client
        refused.is_withheld = True
        return refused


class _Pairable:
    """One endpoint: how it is now, and how far its pairing is."""

    def __init__(self, name: str, pairable: Pairable) -> None:
        self.name = name
        self.endpoint = pairable.endpoint
        self.state = State()
        self.until_s = 0.0  # on the clock of `Pairing`
        self.timer: asyncio.TimerHandle | None = None
        self.kept_count = len(pairable.kept)
        self._verifier_with = pairable.verifier_with

    def current(self) -> Endpoint:
        """What takes requests: with the handover among its openings only while it waits."""
        endpoint = self.endpoint
        if self.state.state != "waiting":
            return endpoint
        openings = endpoint.openings + endpoint.handovers
        return msgspec.structs.replace(endpoint, openings=openings)

    def with_kept(self, kept: list[Kept]) -> Endpoint:
        """The same, from now on with these secrets behind the configured ones."""
        verifier = self._verifier_with(kept)
        self.endpoint = msgspec.structs.replace(self.endpoint, verifier=verifier)
        self.kept_count = len(kept)
        return self.current()

    def close(self, state: Literal["storing", "over"]) -> None:
        """Wait no longer."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self.state = State(state, failure=self.state.failure)
