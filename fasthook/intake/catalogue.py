"""The catalogue of providers: one TOML file each in `providers/`, checked when it is read.

Only the files of configured providers are read by a service.
"""

import difflib
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Literal

import msgspec

from fasthook import values
from fasthook.errors import ConfigError
from fasthook.intake.handshakes import Handover, Handshake
from fasthook.intake.inflating import Encoding
from fasthook.intake.schemes import BARE, Scheme, selectors_of
from fasthook.intake.templates import Selector, Template, pattern_of

Content = Literal["json", "form", "multipart", "any"]

_FILES = resources.files("fasthook.intake") / "providers"


class Provider(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who sends, how it signs, and what it does with our answer."""

    id: str
    name: str
    category: str
    docs: str  # the sender's page on verification, or who else shows the scheme
    is_docs_certain: bool = True  # False: the page's address is from memory
    #: The first one is used unless the endpoint names another.
    schemes: dict[str, Scheme]
    event_id: str | list[str] = []
    event_type: str | list[str] = []
    #: Kinds of bodies; the first one where the request does not say.
    content: tuple[Content, ...] = ("json",)
    #: Other content types under which this sender's JSON comes.
    json_types: tuple[str, ...] = ()
    #: Whether a request without a body is none the less an event: what happened is in its query.
    may_be_empty: bool = False
    #: Content codings that this sender uses; what it signs are the encoded bytes.
    encodings: tuple[Encoding, ...] = ()
    #: Whether two events may be the same to the byte, and none comes again: equal ones are two.
    may_repeat: bool = False
    #: The field of a form that holds the event as JSON.
    form_payload: str = ""
    handshakes: list[Handshake] = []
    methods: tuple[Literal["POST", "GET", "PUT", "PATCH", "DELETE"], ...] = ("POST",)
    #: What the sender is told when all is well, and when a signature is not.
    status: int = 202
    answer: str = ""
    answer_json: dict[str, str] = {}  # in the place of `answer`; values may have {config:NAME}
    answer_type: str = "text/plain; charset=utf-8"
    refusal_status: int = 401
    is_refusal_bare: bool = False  # whether a refusal must have no body
    retries: str = ""  # what the sender does after a failure, in words
    is_response_certain: bool = True  # whether status, deadline and retries were read somewhere
    retries_429: bool = False  # whether the sender is known to come again after a 429
    deadline_s: float | None = None
    #: What shows that the schemes are right: a request that the vendor published, one of a third
    #: party, the formula alone, or a formula that nobody could confirm.
    evidence: Literal["vendor", "third party", "formula", "unconfirmed", "none"] = "formula"
    secret: str = ""  # in which form the sender shows it
    #: What to enter where, at the sender.
    setup: str = ""
    #: Event type → a body as the provider sends it, for `fasthook send`.
    samples: dict[str, str] = {}

    @property
    def default_scheme(self) -> str:
        """Name of the scheme that an endpoint uses unless it names another."""
        return next(iter(self.schemes))

    @property
    def handovers(self) -> list[Handover]:
        """The secrets that this sender hands over in handshakes."""
        return [h.handover for h in self.handshakes if h.handover is not None]

    @property
    def handover_headers(self) -> frozenset[bytes]:
        """The headers in which it does."""
        selectors = [Selector.parse(handover.at) for handover in self.handovers]
        return frozenset(selector.key for selector in selectors if selector.kind == "header")

    @property
    def handshake_selectors(self) -> list[str]:
        """What tells handshakes among requests that are verified."""
        looked_for = [h for h in self.handshakes if h.is_signed or h.handover is not None]
        return [text for handshake in looked_for for text in handshake.when]

    @property
    def handshake_settings(self) -> list[str]:
        """Names of the endpoint's settings without which a handshake is refused."""
        return [name for handshake in self.handshakes for name in handshake.settings]

    def event_id_of(self, scheme: Scheme) -> list[str]:
        """Selectors of the event's id."""
        return selectors_of(scheme.event_id) or selectors_of(self.event_id)

    def event_type_of(self, scheme: Scheme) -> list[str]:
        """Patterns of the event's type."""
        return selectors_of(scheme.event_type) or selectors_of(self.event_type)

    def signs_event_id(self, scheme: Scheme) -> bool:
        """Whether the id is among the signed bytes, so that it alone makes a duplicate."""
        if scheme.kind in BARE or not (scheme.covers_body or scheme.message != "{body}"):
            return False  # they sign nothing of the request, or not the id
        message = Template(scheme.message)
        selectors = [Selector.parse(text) for text in self.event_id_of(scheme)]
        return bool(selectors) and all(message.signs(selector) for selector in selectors)

    def check(self) -> None:
        """Raise `ValueError` where the description can't be meant."""
        for name, scheme in self.schemes.items():
            try:
                scheme.check()
            except ValueError as error:
                raise ValueError(f"schemes.{name}.{error}") from None
        for text in selectors_of(self.event_id):
            Selector.parse(text)
        for text in selectors_of(self.event_type):
            pattern_of(text)
        for handshake in self.handshakes:
            handshake.check()


NONE = Provider(
    id="none",
    name="No verification",
    category="generic",
    docs="",
    schemes={},
    content=("json", "form", "any"),
    retries="unknown",
    setup="Nothing is verified: anybody who knows the path can send.",
)


def custom(scheme: Scheme) -> Provider:
    """The provider of an endpoint that brings a scheme of its own."""
    return Provider(
        id="custom",
        name="Custom",
        category="generic",
        docs="",
        schemes={"default": scheme},
        content=("json", "form", "multipart"),
        retries="unknown",
    )


def names() -> list[str]:
    """Identifiers of all providers in the catalogue, sorted."""
    return sorted(
        entry.name.removesuffix(".toml") for entry in _FILES.iterdir() if entry.name[-5:] == ".toml"
    )


@cache
def load(provider_id: str) -> Provider:
    """The provider with this identifier. Raises `ConfigError`."""
    known = names()
    if provider_id not in known:
        close = difflib.get_close_matches(provider_id, known, 1)
        hint = f"did you mean {close[0]!r}?" if close else "`fasthook providers` lists them"
        raise ConfigError(f"no provider {provider_id!r} in the catalogue; {hint}")
    text = (_FILES / f"{provider_id}.toml").read_text(encoding="utf-8")
    try:
        provider = msgspec.convert(tomllib.loads(text), Provider, dec_hook=values.decode)
        provider.check()
    except ValueError as error:  # also what tomllib and msgspec raise
        raise ConfigError(f"providers/{provider_id}.toml: {error}") from None
    return provider


def everything() -> Iterator[Provider]:
    """All providers, by identifier."""
    return map(load, names())


@cache
def security_headers() -> frozenset[bytes]:
    """Every header that some provider's trust rests on: none of them may be sent twice."""
    found: set[bytes] = set()
    for provider in everything():
        found |= provider.handover_headers
        for scheme in provider.schemes.values():
            found |= scheme.security_headers()
    return frozenset(found)
