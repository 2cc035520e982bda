"""For tests of handlers: events as a sender would sign them, and handlers run by themselves.

A plugin of pytest, found by its entry point: a test that has an argument `signed_event`,
`make_event`, `run_handler` or `recorded_events` gets the function of that name. A test that is
marked `@pytest.mark.recorded("tests/events/*.json")` runs once for each event that these files of
`fasthook export` hold, as its argument `recorded_event`. Nothing of a service is needed, and
nothing is imported before a test asks for it.
"""

import asyncio
import contextlib
import glob
import inspect
import json
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest

from fasthook.errors import AlreadyDone, ConfigError
from fasthook.handling import Handler
from fasthook.model import Delivery, Event, Undecodable, texts

if TYPE_CHECKING:
    from fasthook.recordings import Recording

#: Where signed events go to, for the providers that sign that.
URL: Final = "https://hooks.example.com/hook"
#: What signs where a test gives no secret; the same in each run.
_SEED: Final = b"fasthook.testing"


class SignedEvent(NamedTuple):
    """A request as the provider would send it."""

    method: str
    target: str  # path and query
    headers: dict[str, str]  # names in lower case
    body: bytes
    secret: str  # what verifies it


def signed_event(
    provider: str,
    type: str = "",
    payload: Any = None,
    *,
    secret: str = "",
    id: str = "evt_test_1",
    scheme: str = "",
    now_s: float | None = None,
) -> SignedEvent:
    """A request of `provider` with this payload, signed with a test secret.

    `payload`: what the JSON holds, or the body's bytes; None: the provider's sample of that type.
    `now_s`: the time that is signed; by default now. Raises `ConfigError` where the provider is
    unknown, or signs with a key that nobody else can make: then give its private key as `secret`.
    """
    from fasthook.cli.send import Target, build
    from fasthook.intake import catalogue
    from fasthook.intake.signing import sample_secret

    known = catalogue.load(provider)
    chosen = known.schemes.get(scheme or known.default_scheme)
    if chosen is None:
        raise ConfigError(
            f"{provider} has no scheme {scheme!r}; it has: {', '.join(known.schemes)}"
        )
    secret = secret or sample_secret(chosen, _SEED)
    body = (
        payload if payload is None or isinstance(payload, bytes) else json.dumps(payload).encode()
    )
    settings = dict.fromkeys(chosen.settings, "test")
    target = Target(URL, URL, known, chosen, secret.encode(), settings)
    at_s = time.time() if now_s is None else now_s
    request = build(target, type or None, body, id, None, at_s)
    headers = texts(request.headers)
    return SignedEvent("POST", request.target.decode(), headers, request.body, secret)


class RecordedEvent(NamedTuple):
    """An event that a sender sent once, and `fasthook export` wrote down."""

    path: str
    provider: str
    type: str
    id: str
    headers: dict[str, str]  # names in lower case, without those that only a signature needs
    body: bytes
    scheme: str
    endpoint: str
    received_at: str

    def signed(self, *, secret: str = "", now_s: float | None = None) -> SignedEvent:
        """The request, signed again with a test secret. Raises `ConfigError` as `signed_event`."""
        sent = signed_event(
            self.provider,
            self.type,
            self.body,
            secret=secret,
            id=self.id,
            scheme=self.scheme,
            now_s=now_s,
        )
        return sent._replace(headers=self.headers | _without_content_type(sent, self.headers))

    def event(self, handler: Handler, *, attempt: int = 1) -> Event[Any]:
        """What `handler` would get. Raises `ValueError` where the payload does not fit its type.

        It is signed again, for headers such as the event's id; where only the sender has the key,
        or nothing is signed, the headers are those that were recorded.
        """
        try:
            headers, body = self.signed()[2:4]
        except ConfigError:
            headers, body = self.headers, self.body
        at_s = datetime.fromisoformat(self.received_at).timestamp() if self.received_at else 0
        delivery = Delivery(
            self.endpoint or self.provider,
            self.provider,
            self.id,
            self.type,
            _head(headers),
            body,
            int(at_s * 1e9),
            "test",
            0,
        )
        return _event(handler, delivery, attempt)


def recorded_events(path: str | Path) -> list[RecordedEvent]:
    """The events of a file that `fasthook export` wrote, of all in a directory, or of a pattern
    such as "tests/events/*.json". Raises `ConfigError` where there are none, or one can't be read.
    """
    from fasthook import recordings

    place = Path(path)
    pattern = f"{glob.escape(str(place))}/*.json*" if place.is_dir() else str(place)
    files = [place] if place.is_file() else [Path(name) for name in sorted(glob.glob(pattern))]
    found = [
        _recorded(file, one) for file in files for one in recordings.read(file) if not one.missing
    ]
    if not found:
        raise ConfigError(f"{path}: no recorded events; `fasthook export --out` writes them")
    return found


def _recorded(path: Path, one: "Recording") -> RecordedEvent:
    return RecordedEvent(
        str(path),
        one.provider,
        one.type,
        one.id,
        one.headers,
        one.content,
        one.scheme,
        one.endpoint,
        one.received_at,
    )


def _without_content_type(sent: SignedEvent, recorded: dict[str, str]) -> dict[str, str]:
    """The headers that signing added; what the sender said of itself and the body holds."""
    said = ("content-type", "user-agent")
    return {k: v for k, v in sent.headers.items() if k not in said or k not in recorded}


def make_event(
    handler: Handler,
    payload: Any,
    *,
    provider: str = "github",
    type: str = "event",
    id: str = "evt_test_1",
    attempt: int = 1,
    headers: dict[str, str] | None = None,
) -> Event[Any]:
    """The event that `handler` would get for this payload, decoded into the type it declares.

    Raises `ValueError` where the payload does not fit that type: a service would bury it.
    """
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    head, at_ns = _head(headers or {}), time.time_ns()
    delivery = Delivery(provider, provider, id, type, head, body, at_ns, "test", 0)
    return _event(handler, delivery, attempt)


def _head(headers: dict[str, str]) -> bytes:
    lines = ["POST / HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _event(handler: Handler, delivery: Delivery, attempt: int) -> Event[Any]:
    payload = _payload(handler.payload_type, delivery)
    if isinstance(payload, Undecodable):
        raise ValueError(f"the payload does not fit {handler.payload_type}: {payload.error}")
    delivery.payloads = (payload,)
    name = getattr(handler.function, "__name__", "handler")
    return Event(delivery, payload, attempt, _handler=name)


def _payload(wanted: Any, delivery: Delivery) -> Any:
    """The payload as a service would decode it."""
    from fasthook.intake import catalogue
    from fasthook.intake.payloads import convert_form, decoder_of, form_fields
    from fasthook.recordings import FORM_TYPE

    if FORM_TYPE.encode() not in delivery.headers.get(b"content-type", b"").lower():
        return decoder_of(wanted)(delivery.body)
    fields = form_fields(delivery.body)
    is_known = delivery.provider in catalogue.names()
    inner = fields.get(catalogue.load(delivery.provider).form_payload) if is_known else None
    if not isinstance(inner, str):
        return convert_form(fields, wanted)
    return json.loads(inner) if wanted in (Any, object) else decoder_of(wanted)(inner.encode())


def run_handler(handler: Handler, event: Event[Any] | RecordedEvent) -> None:
    """Run one attempt, here and now; what the handler raises is raised, but for `AlreadyDone`.

    `async def` runs on a loop of its own, with the handler's timeout; the rest is called.
    """
    if isinstance(event, RecordedEvent):
        event = event.event(handler)
    event._finished = None  # of an attempt before this one
    with contextlib.suppress(AlreadyDone):
        if inspect.iscoroutinefunction(handler.function):
            asyncio.run(asyncio.wait_for(handler.function(event), handler.timeout_s))
        else:
            handler.function(event)


# --- the plugin -----------------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers", "recorded(*paths): once for each event that `fasthook export` wrote there"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each recorded event; paths start at pytest's root directory."""
    if "recorded_event" not in metafunc.fixturenames:
        return
    root, found = metafunc.config.rootpath, list[RecordedEvent]()
    for mark in metafunc.definition.iter_markers("recorded"):
        for path in mark.args:
            try:
                found += recorded_events(root / path)
            except ConfigError as error:
                raise pytest.Collector.CollectError(
                    f"{metafunc.definition.nodeid}: {error}"
                ) from None
    if not found:
        raise pytest.Collector.CollectError(
            f'{metafunc.definition.nodeid}: recorded_event needs @pytest.mark.recorded("PATH")'
        )
    stems = [Path(one.path).stem for one in found]
    metafunc.parametrize("recorded_event", found, ids=stems)


def _fixture(function: Callable[..., Any]) -> Any:
    def given() -> Callable[..., Any]:
        return function

    given.__doc__ = function.__doc__
    return pytest.fixture(name=function.__name__)(given)


_signed_event = _fixture(signed_event)
_make_event = _fixture(make_event)
_run_handler = _fixture(run_handler)
_recorded_events = _fixture(recorded_events)
__all__ = [
    "RecordedEvent",
    "SignedEvent",
    "make_event",
    "recorded_events",
    "run_handler",
    "signed_event",
]
