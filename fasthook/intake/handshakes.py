"""Handshakes: requests that ask who we are instead of telling what happened.

As data for the catalogue, and compiled for an endpoint. Most are signed like an event, and looked
at behind the signature. Those that are not signed (a GET with a challenge, say) are answered by
endpoints of that provider alone, and never reach a handler. One that hands over a secret is taken
only while its endpoint is being paired, for anybody could hand one over. One that wants an address
visited says here which one that may be; who visits it is `fetching`.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Final, Literal

import msgspec
import orjson

from fasthook.errors import BadPayload, BadSignature, HandshakeRefused, NoSignature, NotGenuine
from fasthook.intake.signatures import Verifier
from fasthook.intake.templates import Found, Selector, Template
from fasthook.model import Reply, Request
from fasthook.values import SHORT_SECRET_BYTES

#: A sender's challenge is echoed: short, and printable ASCII, so that it can be nothing else.
MAX_CHALLENGE_BYTES: Final = 1024
#: Bodies of unsigned handshakes that are looked at; beyond, it is no handshake.
MAX_UNSIGNED_BYTES: Final = 16 * 1024
#: In `when`: any value, as long as there is one.
ANY: Final = "*"
_ANY_BYTES: Final = b"*"
#: Of a secret that is handed over, whatever its pattern says. The first: shorter can be guessed.
_MIN_SECRET_BYTES: Final = SHORT_SECRET_BYTES
_MAX_SECRET_BYTES: Final = 512


class Computed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What proves that we know the secret: `{computed}` in a reply."""

    message: str  # a template
    kind: Literal["hmac", "digest"] = "hmac"  # with the endpoint's first secret, or none
    hash: Literal["sha1", "sha256"] = "sha256"
    encoding: Literal["hex", "base64"] = "hex"


class HandshakeReply(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the sender wants to hear. All texts are templates."""

    status: int = 200
    content_type: str = "text/plain"
    body: str = ""
    json: dict[str, str | int] = {}  # in the place of a body
    headers: dict[str, str] = {}
    computed: Computed | None = None


class Handover(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The secret that a handshake hands over."""

    at: str  # selector
    pattern: str  # that it has to match as a whole, beside being printable ASCII of some length
    ask: str  # what an operator does at the sender, so that it comes
    then: str = ""  # and what is left to do with it


class Visit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The address that the sender wants to be visited, to know that it reached us."""

    at: str  # selector
    pattern: str  # that it has to match as a whole

    def url_in(self, request: Request) -> str:
        """The address. Raises `BadPayload` where it is none of the sender's."""
        sent = Selector.parse(self.at).read(request) or b""
        url = sent.decode("ascii", "replace")
        if len(url) > MAX_CHALLENGE_BYTES or not re.fullmatch(self.pattern, url):
            raise BadPayload(f"{self.at} is no address of its sender's")
        return url


class Handshake(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a handshake is known, and how it is answered."""

    name: str
    method: Literal["POST", "GET", "HEAD", "OPTIONS"] = "POST"
    when: dict[str, str] = {}  # selector → value, "*" for any; all must hold
    is_signed: bool = True
    #: With what it is signed in the place of the endpoint's secret, which the sender has not shown
    #: yet: for one that is not signed otherwise, by a scheme without a time.
    key: str = ""
    #: Selector → `{config:NAME}`: one of the words of that setting has to stand there.
    require: dict[str, str] = {}
    refusal_status: int = 403  # where it does not
    pattern: str = ""  # that the challenge has to match as a whole
    reply: HandshakeReply | None = None  # None: the provider's success answer
    code: str = ""  # the module of `providers` that makes the reply
    handover: Handover | None = None
    visit: Visit | None = None
    is_farewell: bool = False  # whether the sender sends no more after it: worth a warning

    @property
    def settings(self) -> list[str]:
        """Names of the endpoint's settings that it needs."""
        texts = list(self.require.values())
        if self.reply is not None:
            texts += [self.reply.body, *self.reply.headers.values()]
            texts += [value for value in self.reply.json.values() if isinstance(value, str)]
            texts += [self.reply.computed.message] if self.reply.computed is not None else []
        return list(dict.fromkeys(name for text in texts for name in Template(text).settings))

    @property
    def _computed(self) -> Computed | None:
        return self.reply.computed if self.reply is not None else None

    @property
    def takes_secret(self) -> bool:
        """Whether its answer is made with the endpoint's secret."""
        computed = self._computed
        return bool(self.code) or (computed is not None and computed.kind == "hmac")

    def missing(self, settings: Mapping[str, str], url: str) -> list[str]:
        """What the endpoint's table lacks to answer it: keys."""
        missing = [f"config.{name}" for name in self.settings if not settings.get(name)]
        computed = self._computed
        if computed is not None and "{url}" in computed.message and not url:
            missing.append("public_url")
        return missing

    def check(self) -> None:
        """Raise `ValueError` where the description can't be meant."""
        for text in (*self.when, *self.require):
            Selector.parse(text)
        re.compile(self.pattern)
        self.settings  # noqa: B018 - parses every template
        computed = self._computed
        if (
            computed is not None
            and computed.kind == "hmac"
            and not (self.is_signed or self.pattern)
        ):
            what = "pattern: expected, or else anybody gets any message signed"
            raise ValueError(f"handshakes.{self.name}: {what}")
        if self.key and self.is_signed:
            raise ValueError(f"handshakes.{self.name}: is_signed = false expected beside a key")
        if not self.is_signed and not self.when and self.method == "POST":
            raise ValueError(f"handshakes.{self.name}: every POST would be one")
        if self.visit is not None:
            re.compile(self.visit.pattern)
            Selector.parse(self.visit.at)
            if not (self.is_signed and self.visit.pattern.startswith("https://")):
                what = "is_signed and a pattern that starts with https://"
                raise ValueError(f"handshakes.{self.name}: expected {what}, since it is visited")
        if self.handover is not None:
            re.compile(self.handover.pattern)
            Selector.parse(self.handover.at)
            if self.is_signed or self.when.get(self.handover.at) != ANY:
                what = f'is_signed = false and when = {{ "{self.handover.at}" = "*" }}'
                raise ValueError(f"handshakes.{self.name}: expected {what}, since it hands it over")


class Greeting:
    """A handshake, compiled for an endpoint."""

    def __init__(
        self,
        handshake: Handshake,
        secret: bytes = b"",
        url: str = "",
        settings: Mapping[str, str] | None = None,
        verifier: Verifier | None = None,
    ) -> None:
        """`secret`: the first one of the endpoint, as it is configured.

        `verifier`: of what is signed with the handshake's own key.
        """
        self._verifier = verifier
        self.name = handshake.name
        self.method = handshake.method.encode()
        self.is_signed = handshake.is_signed
        conditions = [(Selector.parse(text), value) for text, value in handshake.when.items()]
        #: A header is cheap to look at, so that comes first: most requests are no handshake.
        self._when_headers = [(s.key, v.encode()) for s, v in conditions if s.kind == "header"]
        self._when = [(s, value) for s, value in conditions if s.kind != "header"]
        self._require = [
            (Selector.parse(text), Template(value, settings).text_of().split())
            for text, value in handshake.require.items()
        ]
        self._refusal_status = handshake.refusal_status
        self._pattern = re.compile(handshake.pattern) if handshake.pattern else None
        self._reply = handshake.reply
        self._code = handshake.code
        self._secret, self._url, self._settings = secret, url, settings or {}
        self._missing = handshake.missing(self._settings, url)
        handover = handshake.handover
        self.is_handover = handover is not None
        self._handed = Selector.parse(handover.at) if handover is not None else None
        self._secret_form = re.compile(handover.pattern if handover is not None else "")

    def applies(self, request: Request, found: Mapping[str, str] | None = None) -> bool:
        """Whether this request is that handshake.

        `found`: what was read of a body that is verified; without it the body is read here.
        """
        if request.method != self.method:
            return False
        for key, wanted in self._when_headers:
            sent = request.headers.get(key)
            if not sent or (sent != wanted and wanted != _ANY_BYTES):
                return False
        for selector, value in self._when:
            text = self._text(selector, request, found)
            if not text or value not in (ANY, text):
                return False
        if self._verifier is not None and not self._is_genuine(self._verifier, request):
            return False
        return self._handed is None or self.secret_in(request) is not None

    def _is_genuine(self, verifier: Verifier, request: Request) -> bool:
        try:
            verifier.verify(request, 0.0)
        except NotGenuine:
            return False
        return True

    def hands_over(self, request: Request, found: Mapping[str, str] | None = None) -> bool:
        """Whether a secret may stand in this request, of whatever form."""
        return self._handed is not None and bool(self._text(self._handed, request, found))

    def secret_in(self, request: Request) -> bytes | None:
        """The secret that the request hands over; None: there is none of the expected form."""
        text = self._read(self._handed, request) if self._handed is not None else None
        if text is None or not (text.isascii() and text.isprintable()):
            return None
        is_bounded = _MIN_SECRET_BYTES <= len(text) <= _MAX_SECRET_BYTES
        return text.encode() if is_bounded and self._secret_form.fullmatch(text) else None

    def _text(
        self, selector: Selector, request: Request, found: Mapping[str, str] | None
    ) -> str | None:
        if selector.kind in ("json", "form") and found is not None:
            return found.get(f"{selector.kind}:{selector.name}")
        return self._read(selector, request)

    def _read(self, selector: Selector, request: Request) -> str | None:
        if selector.kind in ("json", "form") and len(request.body) > MAX_UNSIGNED_BYTES:
            return None
        value = selector.read(request)
        return None if value is None else value.decode("utf-8", "replace")

    def reply_to(self, request: Request) -> Reply | None:
        """What the sender wants to hear. Raises `BadPayload` and `HandshakeRefused`."""
        if self._missing:
            what = f"handshake {self.name}: {self._missing[0]} is missing"
            raise HandshakeRefused(what, self._refusal_status)
        for selector, accepted in self._require:
            value = self._read(selector, request) or ""
            if not any(hmac.compare_digest(value.encode(), word.encode()) for word in accepted):
                where = f"{selector.kind}:{selector.name}"
                raise HandshakeRefused(
                    f"handshake {self.name}: {where} is not what config has", self._refusal_status
                )
        if self._code:
            module = import_module(f"fasthook.intake.providers.{self._code}")
            made: Reply = module.reply_to(request, self._secret)
            return made
        reply = self._reply
        if reply is None:
            return None
        found = Found([], url=self._url.encode())
        if reply.computed is not None:
            found.computed = self._compute(reply.computed, request, found)
        headers = {name: self._filled(text, request, found) for name, text in reply.headers.items()}
        if not reply.json:
            body = self._filled(reply.body, request, found)
            return Reply(reply.status, reply.content_type, body, headers)
        values = {
            name: self._filled(text, request, found) if isinstance(text, str) else text
            for name, text in reply.json.items()
        }
        return Reply(reply.status, "application/json", orjson.dumps(values).decode(), headers)

    def _filled(self, text: str, request: Request, found: Found) -> str:
        try:
            pieces = Template(text, self._settings).pieces(request, found)
        except NoSignature:
            raise BadPayload("the handshake has no challenge") from None
        value = b"".join(pieces)
        if len(value) > MAX_CHALLENGE_BYTES or not value.isascii():
            raise BadPayload("the challenge is too long, or not printable ASCII")
        filled = value.decode()
        if not filled.isprintable():
            raise BadPayload("the challenge is too long, or not printable ASCII")
        return filled

    def _compute(self, computed: Computed, request: Request, found: Found) -> bytes:
        message = self._filled(computed.message, request, found)
        if self._pattern is not None and not self._pattern.fullmatch(message):
            raise BadPayload("the challenge is not of the form that this provider's has")
        if computed.kind == "hmac":
            digest = hmac.digest(self._secret, message.encode(), computed.hash)
        else:
            digest = hashlib.new(computed.hash, message.encode()).digest()
        if computed.encoding == "hex":
            return digest.hex().encode()
        return base64.b64encode(digest)


def first_that_applies(
    greetings: Sequence[Greeting], request: Request, found: Mapping[str, str] | None
) -> Greeting | None:
    """The handshake that the request is; None: it is none."""
    return next((g for g in greetings if g.applies(request, found)), None)


class Unpaired:
    """The verifier of an endpoint whose only secret is still to be handed over: nothing passes."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint

    def verify(self, request: Request, now_s: float) -> int:
        """Raises `BadSignature`."""
        what = f"`fasthook pair {self._endpoint}` takes one"
        raise BadSignature(f"the endpoint has no secret yet; {what}")
