"""How a provider signs, as data: what the catalogue and `[endpoint.scheme]` tables hold."""

import re
from collections.abc import Callable, Mapping
from typing import Final, Literal, NamedTuple, TypeVar

import msgspec

from fasthook.intake.templates import Selector, Template, pattern_of
from fasthook.values import Duration

T = TypeVar("T")
#: hmac: RFC 2104. digest: a plain hash, with the secret in the message. token: the secret itself.
#: basic: user:password (RFC 7617). ed25519, ecdsa, rsa (PKCS #1 v1.5): a public key. jwt: RFC 7519.
#: code: a module of `providers` knows, since tables can't say it.
Kind = Literal["hmac", "digest", "token", "basic", "ed25519", "ecdsa", "rsa", "jwt", "code"]
Hash = Literal["md5", "sha1", "sha256", "sha384", "sha512"]
#: How the configured secret becomes the key. nfkd: its UTF-8, normalised (Unicode form NFKD).
#: pem, certificate, der: a public key; der stands in base64.
KeyEncoding = Literal["utf8", "base64", "hex", "nfkd", "pem", "der", "certificate"]
#: Kinds that sign nothing of the request.
BARE: Final = ("token", "basic")
PUBLIC_KEY_KINDS: Final = ("ed25519", "ecdsa", "rsa")


class Claims(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a JWT must claim beside being signed by one of `algorithms`."""

    algorithms: list[str]
    issuers: list[str] = []
    required: list[str] = []
    #: Claim → value; `{config:NAME}` is the endpoint's setting of that name.
    equal: dict[str, str | bool] = {}
    audience: str = ""  # likewise
    #: The claim that holds the SHA-256 of the body, and how it is written.
    body_hash: str = ""
    body_hash_encoding: Literal["hex", "base64"] = "hex"
    is_body_hash_left_out: bool = False  # where there is no body
    url_hash: str = ""  # the claim that holds the SHA-256 of the public URL
    max_age: Duration = Duration(0)  # of `iat`; 0: it does not age by that
    leeway: Duration = Duration(0)  # of `exp` and `nbf`


class KeySource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the key is fetched from, by an endpoint that has no secret."""

    #: jwks: RFC 7517. certificate: PEM. json: a key in PEM, at `path`.
    kind: Literal["jwks", "certificate", "json"]
    path: str = ""  # of a key in JSON: names, with dots in between
    url: str = ""  # where it always is
    #: Or selectors, of where the request says it is; and the pattern that this URL has to match as
    #: a whole, whose named groups may stand in `names`.
    at: str | list[str] = []
    pattern: str = ""
    hosts: list[str] = []  # the hosts of these, in words
    #: For whom a certificate has to be issued: any of these names.
    names: list[str] = []
    #: Whether a certificate comes with its chain, which has to lead to a known root. Where not, it
    #: is trusted for the host that it is fetched from.
    is_chained: bool = False

    def check(self) -> None:
        """Raise `ValueError` where the description can't be meant."""
        if bool(self.url) is bool(self.at):
            raise ValueError("fetch: expected either url or at")
        if bool(self.at) != bool(self.pattern) or bool(self.at) != bool(self.hosts):
            raise ValueError("fetch: expected pattern and hosts beside at, and nowhere else")
        if not (self.url or self.pattern).startswith("https://"):
            raise ValueError("fetch: expected https://, in url or at the start of pattern")
        if bool(self.path) != (self.kind == "json"):
            raise ValueError("fetch.path: expected where kind is 'json', nowhere else")
        if bool(self.names) != (self.kind == "certificate"):
            raise ValueError("fetch.names: expected where kind is 'certificate', nowhere else")
        for text in selectors_of(self.at):
            _named("fetch.at", Selector.parse, text)
        groups = dict.fromkeys(re.compile(self.pattern).groupindex, "")
        for name in self.names:
            try:
                name.format_map(groups)
            except KeyError:
                raise ValueError(f"fetch.names: {name}: no group of pattern is called so") from None


class Scheme(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the signature stands, what it signs, with which key, and how fresh it must be."""

    kind: Kind = "hmac"
    #: One name, or several: a signature in any of those that are there is enough.
    header: str | list[str] = []
    #: Where the signature stands in no header: "json:…", "form:…" or "query:…".
    signature: str = ""
    #: Whether the header may come twice, as during a rotation: either signature is enough.
    may_repeat: bool = False
    #: raw: the value is the signature. kv: `t=…,v1=…`. versioned: `v1,… v1,…`.
    #: method: `sha256=…`, with one of `hashes`. list: `time,…,…`, the time being field "t".
    format: Literal["raw", "kv", "versioned", "method", "list"] = "raw"
    #: What stands in front of the signature; of several, any.
    prefix: str | list[str] = ""
    #: kv: the keys that hold signatures. versioned: the versions that are looked at.
    signature_keys: list[str] = []
    #: Between the items of kv, versioned and list.
    separator: str = ","
    #: Whether the sender writes a space behind each separator; read it may be either way.
    is_spaced: bool = False
    #: Between groups of kv that each have a time of their own.
    group_separator: str = ""
    hash: Hash = "sha256"
    hashes: list[Hash] = []
    encoding: Literal["hex", "base64", "base64url"] = "hex"
    is_padded: bool = True  # base64url: whether "=" fills it up
    #: What is signed: see `templates`.
    message: str = "{body}"
    key_encoding: KeyEncoding = "utf8"
    key_prefix: str = ""  # cut off a secret that has it
    key_suffix: str = ""  # put behind the secret to make it the key
    #: Where the signed time stands: a selector. Empty: the signature does not age.
    timestamp: str = ""
    timestamp_unit: Literal["s", "ms", "iso8601", "http-date"] = "s"
    timestamp_again: str = ""  # a selector: the same text has to stand there, too
    tolerance: Duration = Duration(300)  # both ways
    #: Selector → value that must stand there; `{config:NAME}` is the endpoint's setting.
    require: dict[str, str] = {}
    claims: Claims | None = None
    fetch: KeySource | None = None
    #: kind "code": whether every byte of the body is signed; and settings of the endpoint.
    code: str = ""  # name of the module
    is_body_signed: bool = True
    asks_for: list[str] = []
    is_url_signed: bool = False
    #: Where the event's id and type stand: the first selector that finds one; for types, also
    #: patterns. Empty: as the provider has it.
    event_id: str | list[str] = []
    event_type: str | list[str] = []

    @property
    def headers(self) -> list[str]:
        """Names of the signature headers, in lower case."""
        names = [self.header] if isinstance(self.header, str) else self.header
        return [name.lower() for name in names]

    @property
    def prefixes(self) -> list[str]:
        """What may stand in front of the signature."""
        return [self.prefix] if isinstance(self.prefix, str) else self.prefix

    @property
    def covers_body(self) -> bool:
        """Whether every byte of the body is signed."""
        if self.kind == "code":
            return self.is_body_signed
        if self.claims is not None:
            return bool(self.claims.body_hash)
        return self.kind not in BARE and Template(self.message).covers_body

    @property
    def settings(self) -> list[str]:
        """Names of the settings that an endpoint has to make: `config` in its table."""
        texts = [self.message, *self.require.values()]
        if self.claims is not None:
            equal = [value for value in self.claims.equal.values() if isinstance(value, str)]
            texts += [self.claims.audience, *equal]
        found = [name for text in texts for name in Template(text).settings]
        return list(dict.fromkeys(found + self.asks_for))

    @property
    def needs_url(self) -> bool:
        """Whether the public URL is among what is signed."""
        if self.is_url_signed or "{url}" in self.message:
            return True
        return self.claims is not None and bool(self.claims.url_hash)

    def security_headers(self) -> set[bytes]:
        """Headers that trust rests on: sent twice, the request is refused."""
        names = set() if self.may_repeat else set(self.headers)
        selectors = [*Template(self.message).selectors, *map(Selector.parse, self.require)]
        if self.timestamp:
            selectors.append(Selector.parse(self.timestamp))
        names.update(s.name for s in selectors if s.kind == "header")
        return {name.encode() for name in names}

    def check(self) -> None:
        """Raise `ValueError` where the description can't be meant."""
        if self.signature:
            _named("signature", Selector.parse, self.signature)
        names = [self.header] if isinstance(self.header, str) else self.header
        if not all(names) or bool(names) is bool(self.signature):
            raise ValueError("header: expected the name of the signature's header (or `signature`)")
        if self.format in ("kv", "versioned") and not self.signature_keys:
            raise ValueError(f"signature_keys: expected, since format is {self.format!r}")
        if (self.format == "method") != bool(self.hashes):
            raise ValueError("hashes: expected where format is 'method', and nowhere else")
        if (self.kind == "jwt") != (self.claims is not None):
            raise ValueError("claims: expected where kind is 'jwt', and nowhere else")
        if self.fetch is not None:
            self.fetch.check()
        self._check_message()
        self._check_selectors()

    def _check_message(self) -> None:
        message = _named("message", Template, self.message)
        if self.kind in (*BARE, "jwt", "code"):
            return
        if not message.signs_something:
            raise ValueError(f"message: {self.message!r} signs nothing of the request")
        if ("{secret}" in self.message) != (self.kind == "digest"):
            raise ValueError("message: {secret} expected where kind is 'digest', and nowhere else")
        if "{timestamp}" in self.message and not self.timestamp:
            raise ValueError("timestamp: expected, since the message has {timestamp}")

    def _check_selectors(self) -> None:
        for key in ("timestamp", "timestamp_again"):
            if text := getattr(self, key):
                _named(key, Selector.parse, text)
        for selector in self.require:
            _named("require", Selector.parse, selector)
        for selector in selectors_of(self.event_id):
            _named("event_id", Selector.parse, selector)
        for pattern in selectors_of(self.event_type):
            _named("event_type", pattern_of, pattern)

    @property
    def signs_timestamp(self) -> bool:
        """Whether the time that is checked is among what is signed."""
        selector = Selector.parse(self.timestamp)
        return "{timestamp}" in self.message or Template(self.message).signs(selector)


class Terms(NamedTuple):
    """A scheme as an endpoint has it."""

    scheme: Scheme
    url: str  # the public one
    settings: Mapping[str, str]


def _named(key: str, parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def selectors_of(value: str | list[str]) -> list[str]:
    """One selector or several, as a list."""
    return [value] if isinstance(value, str) else list(value)
