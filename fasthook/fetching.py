"""Fetching keys for requests that wait for one, and visiting what senders want visited.

A request whose key is not here yet waits, and is received again when the fetch is over, however
that ended. Who waits is bounded in number, bytes and time; what is fetched, by threads, hosts and
clients: nobody knows yet whether such a request is genuine. All else goes on meanwhile.
"""

import asyncio
import functools
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily

from fasthook.admin import gauge
from fasthook.errors import (
    BadSignature,
    FasthookError,
    KeyUnavailable,
    Rejection,
    VisitFailed,
)
from fasthook.fetch_plan import FetchPlan, fetch
from fasthook.intake.fetched import Wanted
from fasthook.intake.handshakes import Visit
from fasthook.intake.limiter import ClientBuckets, TokenBucket
from fasthook.intake.network import limiter_key
from fasthook.intake.published import Published
from fasthook.logs import log
from fasthook.model import Delivery, Request
from fasthook.wire.answers import INTERNAL_ERROR, Answer
from fasthook.wire.connection import Connection, Receive

if TYPE_CHECKING:
    from fasthook.remote.client import Client

T = TypeVar("T")
MAX_WAITING: Final = 256
MAX_WAITING_EACH: Final = 64  # for one key
MAX_WAITING_BYTES: Final = 16 * 1024**2
MAX_JOBS: Final = 32
MAX_JOBS_EACH: Final = 2  # to one host
_THREADS: Final = 8
#: Keys whose address the request itself names: by host, and by client.
_HOST_RATE: Final = 1.0
_HOST_BURST: Final = 16
_CLIENT_RATE: Final = 0.1
_CLIENT_BURST: Final = 8
_MAX_HOSTS: Final = 256
#: A name that is being looked up can't be cut short, so that a thread may take longer.
_GRACE_S: Final = 0.5
_MAX_VISIT_BYTES: Final = 64 * 1024
_VISIT_RETRY_S: Final = 30.0
_BUSY_S: Final = 1.0


class _Waiting(NamedTuple):
    request: Request
    connection: Connection
    number: int

    @property
    def size(self) -> int:
        return len(self.request.head) + len(self.request.body)


class _Job:
    """A fetch under way."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.waiting: list[_Waiting] = []
        self.began_s = time.monotonic()
        self.timer: asyncio.TimerHandle | None = None
        self.is_late = False  # those who waited were told so


class Fetching:
    """The fetches of one service."""

    def __init__(
        self,
        plan: FetchPlan,
        client: "Client",
        ca_file: str,
        timeout_s: float,
        failed: Callable[[BaseException, str], None],
    ) -> None:
        """`failed` says and counts an error of our own."""
        self._plan = plan
        self._store = plan.store
        self._client = client
        self._ca_file = ca_file
        self._timeout_s = timeout_s + _GRACE_S
        self._failed = failed
        self._threads = ThreadPoolExecutor(_THREADS, "fetch")
        self._futures: set[asyncio.Future[Any]] = set()
        self._jobs: dict[Wanted, _Job] = {}
        self._hosts: dict[str, TokenBucket] = {}
        self._clients = ClientBuckets(_CLIENT_RATE, _CLIENT_BURST)
        self._visiting: set[str] = set()
        self._waiting_count = self._waiting_bytes = 0
        self._counts = {"done": 0, "failed": 0}
        self._is_closed = False

    def connect(
        self,
        receive: Receive,
        accepted: Callable[[Delivery, str], Answer],
        reject: Callable[[Rejection, Request, str], Answer],
    ) -> None:
        """Where requests go that have waited; and who says, counts, and makes the answers."""
        self._receive, self._accepted, self._reject = receive, accepted, reject

    def start(self) -> None:
        """Fetch what will be wanted. Call within the running loop."""
        self._loop = asyncio.get_running_loop()
        self._store.on_due = self._renew
        for wanted in self._plan.fixed:
            self._renew(wanted)

    def close(self) -> None:
        """Fetch no more; threads end when their time is over."""
        self._is_closed = True
        for future in list(self._futures):
            future.cancel()  # or a thread would tell it to a loop that is gone
        self._threads.shutdown(wait=False, cancel_futures=True)

    # --- keys -------------------------------------------------------------------------------------

    def wait(
        self, wanted: Wanted, client: str, request: Request, connection: Connection, number: int
    ) -> None:
        """Fetch it; then the request is received again. Raises `KeyUnavailable`: nothing waits."""
        waiting = _Waiting(request, connection, number)
        job = self._jobs.get(wanted)
        if job is not None and job.is_late:
            raise KeyUnavailable(f"the key at {wanted.url} is still being fetched", _BUSY_S)
        if job is not None and len(job.waiting) >= MAX_WAITING_EACH:
            raise KeyUnavailable(f"too many wait for the key at {wanted.url}", _BUSY_S)
        is_full = self._waiting_count >= MAX_WAITING
        if is_full or self._waiting_bytes + waiting.size > MAX_WAITING_BYTES:
            raise KeyUnavailable("too many wait for keys", _BUSY_S)
        if job is None:
            if wanted not in self._plan.fixed:
                self._check_budget(wanted.host, client)
            job = self._begin(wanted)
        job.waiting.append(waiting)
        self._waiting_count += 1
        self._waiting_bytes += waiting.size

    def _check_budget(self, host: str, client: str) -> None:
        """Take what a fetch costs, by an address that anybody could have named."""
        now_s = time.monotonic()
        wait_s = self._clients.wait(limiter_key(client), now_s)
        if wait_s:
            raise KeyUnavailable(f"client {client} named too many keys", wait_s)
        wait_s = self._bucket(host).take(now_s)
        if wait_s:
            raise KeyUnavailable(f"too many keys were fetched from {host}", wait_s)
        self._clients.charge(limiter_key(client), now_s)

    def _bucket(self, host: str) -> TokenBucket:
        if host not in self._hosts:
            if len(self._hosts) >= _MAX_HOSTS:
                self._hosts.clear()
            self._hosts[host] = TokenBucket(_HOST_RATE, _HOST_BURST)
        return self._hosts[host]

    def _renew(self, wanted: Wanted) -> None:
        """Fetch it while nobody waits."""
        if wanted in self._jobs:
            return
        try:
            self._begin(wanted)
        except KeyUnavailable as error:
            log.debug("key not fetched", url=wanted.url, reason=str(error))

    def _begin(self, wanted: Wanted) -> _Job:
        """Raises `KeyUnavailable`."""
        each = sum(job.wanted.host == wanted.host for job in self._jobs.values())
        if self._is_closed or len(self._jobs) >= MAX_JOBS or each >= MAX_JOBS_EACH:
            raise KeyUnavailable(f"other keys are being fetched from {wanted.host}", _BUSY_S)
        job = self._jobs[wanted] = _Job(wanted)
        self._run(self._fetch, wanted, done=functools.partial(self._end, job))
        job.timer = self._loop.call_later(self._timeout_s, self._give_up, job)
        return job

    def _run(
        self, function: Callable[..., T], *given: Any, done: Callable[[asyncio.Future[T]], None]
    ) -> None:
        """In a thread; `done` is called on the loop."""
        future = self._loop.run_in_executor(self._threads, function, *given)
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        future.add_done_callback(done)

    def _fetch(self, wanted: Wanted) -> Published:
        """In a thread. Raises `FetchError` and `ValueError`."""
        return fetch(self._client, wanted, self._ca_file, time.time())

    def _end(self, job: _Job, done: asyncio.Future[Published]) -> None:
        """The thread is through with it."""
        wanted = job.wanted
        del self._jobs[wanted]
        if job.timer is not None:
            job.timer.cancel()
        if done.cancelled():
            self._fail(job, "the service is stopping")
        elif (error := done.exception()) is not None:
            if not isinstance(error, FasthookError | ValueError):
                self._failed(error, "")
            self._fail(job, str(error) or type(error).__name__)
        else:
            secrets, life_s = done.result()
            self._store.put(wanted, secrets, life_s)
            self._counts["done"] += 1
            took_s = round(time.monotonic() - job.began_s, 3)
            log.info("key fetched", url=wanted.url, seconds=took_s, for_s=round(life_s))
        self._go_on(job)

    def _give_up(self, job: _Job) -> None:
        """Who waits is told so; what the thread brings yet is still of use."""
        job.is_late = True
        self._fail(job, f"nothing came within {self._timeout_s:g} s")
        self._go_on(job)

    def _fail(self, job: _Job, reason: str) -> None:
        wait_s = self._store.fail(job.wanted, reason)
        self._counts["failed"] += 1
        log.warning("key not fetched", url=job.wanted.url, reason=reason, retry_in_s=wait_s)

    def _go_on(self, job: _Job) -> None:
        """Receive again what has waited: there is a key, or a reason why there is none."""
        waiting, job.waiting = job.waiting, []
        for one in waiting:
            self._waiting_count -= 1
            self._waiting_bytes -= one.size
            request, connection, number = one
            try:
                answer = self._receive(request, connection, number)
            except Exception as error:
                self._failed(error, connection.peer)
                answer = INTERNAL_ERROR
            if answer is not None:
                connection.answer(number, answer)

    # --- visits -----------------------------------------------------------------------------------

    def take(
        self, delivery: Delivery, request: Request, connection: Connection, number: int
    ) -> bool:
        """Whether the handshake wants an address visited: then it is answered after that.

        Raises `Rejection`.
        """
        handshake = self._plan.handshakes.get((delivery.endpoint, delivery.kind))
        if handshake is None:
            return False
        if handshake.visit is None:
            if delivery.secret_index < 0:
                return False  # anybody may have said it
            log.warning(
                "the sender sends no more", endpoint=delivery.endpoint, handshake=delivery.kind
            )
            return False
        try:
            self._visit(handshake.visit, delivery, request, connection, number)
        except Rejection as rejection:
            rejection.client, rejection.endpoint = delivery.client, delivery.endpoint
            raise
        return True

    def _visit(
        self,
        visit: Visit,
        delivery: Delivery,
        request: Request,
        connection: Connection,
        number: int,
    ) -> None:
        if delivery.secret_index < 0:  # mode = "observe" takes what nobody signed, but not this
            raise BadSignature("nobody signed this handshake, so what it names is not visited")
        url = visit.url_in(request)
        if self._is_closed or url in self._visiting or len(self._visiting) >= MAX_JOBS_EACH:
            raise VisitFailed("a visit is under way", _BUSY_S)
        wait_s = self._bucket("visits").take(time.monotonic())
        if wait_s:
            raise VisitFailed("too many visits", wait_s)
        self._visiting.add(url)

        def visited(future: asyncio.Future[Any]) -> None:
            self._visiting.discard(url)
            connection.answer(number, self._visited(future, delivery, request, connection.peer))

        self._run(self._client.get, url, _MAX_VISIT_BYTES, done=visited)

    def _visited(
        self, future: asyncio.Future[Any], delivery: Delivery, request: Request, peer: str
    ) -> Answer:
        """What the sender is told of it."""
        try:
            future.result()
        except (FasthookError, asyncio.CancelledError) as error:
            self._counts["failed"] += 1
            failed = VisitFailed(f"{delivery.kind}: its address: {error}", _VISIT_RETRY_S)
            failed.client, failed.endpoint = delivery.client, delivery.endpoint
            return self._reject(failed, request, peer)
        self._counts["done"] += 1
        log.info("confirmed", endpoint=delivery.endpoint, handshake=delivery.kind)
        return self._accepted(delivery, delivery.kind)

    # --- about ------------------------------------------------------------------------------------

    def families(self) -> Iterable[Metric]:
        """As Prometheus has them."""
        fetches = CounterMetricFamily(
            "fasthook_fetches", "Keys fetched, addresses visited.", labels=("result",)
        )
        for result, count in self._counts.items():
            fetches.add_metric((result,), count)
        yield fetches
        yield gauge("fasthook_keys", "Fetched, and in use.", {"": len(self._store)})
        waiting = {"": float(self._waiting_count)}
        yield gauge("fasthook_key_waiting", "Requests that wait for a key.", waiting)
