"""What the line knows of an endpoint, and has counted there."""

from fasthook.admin import Metrics
from fasthook.intake.receiver import Endpoint
from fasthook.model import Delivery, Reply
from fasthook.plan import Plan
from fasthook.wire.answers import Answer, rendered


class Account:
    """How one endpoint is answered, and what was accepted there since it was last summed up.

    All in one place, and little: with thousands of endpoints it is in no cache of the processor.
    """

    def __init__(self, endpoint: Endpoint | None, success: Answer) -> None:
        """`endpoint`: None for one of fasthook's own, which nobody sends to."""
        self.success = success
        self.provider = endpoint.provider if endpoint is not None else None
        self.is_id_signed = endpoint is not None and endpoint.is_id_signed
        #: Nothing is signed, or nothing in it tells two events apart: each is one.
        self.may_repeat = endpoint is not None and (
            endpoint.may_repeat or endpoint.provider == "none"
        )
        self.keeps_rejected = endpoint is not None and endpoint.keep_rejected
        self._events = 0
        self._client = ""  # the last one, and how often it came in a row
        self._came = 0

    def count(self, delivery: Delivery, kind: str, metrics: Metrics) -> None:
        """One was accepted. `kind`: what became of it, as the metrics have it."""
        endpoint, client = delivery.endpoint, delivery.client
        if kind == "event":
            self._events += 1
        else:
            metrics.requests[endpoint, kind] += 1
        if delivery.secret_index < 0 and delivery.kind == "event":
            metrics.requests[endpoint, "unverified"] += 1
        if client != self._client:
            self._turn_to(client, endpoint, metrics)
        self._came += 1

    def _turn_to(self, client: str, endpoint: str, metrics: Metrics) -> None:
        if self._came:
            metrics.event_clients[endpoint, self._client] += self._came
        self._client, self._came = client, 0

    def sum_up(self, endpoint: str, metrics: Metrics) -> None:
        """What was counted goes to the metrics."""
        if self._events:
            metrics.requests[endpoint, "event"] += self._events
            self._events = 0
        self._turn_to("", endpoint, metrics)


def accounts_of(plan: Plan) -> dict[str, Account]:
    """By endpoint. Those which answer the same have one answer: see `Account`."""
    by_name = {endpoint.name: endpoint for endpoint in plan.endpoints}
    answers: dict[bytes, Answer] = {}
    return {
        name: Account(by_name.get(name), _answer(reply, answers))
        for name, reply in plan.answers.items()
    }


def _answer(reply: Reply, known: dict[bytes, Answer]) -> Answer:
    answer = rendered(reply)
    return known.setdefault(answer.start + answer.rest, answer)
