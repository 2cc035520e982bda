"""How a provider signs, as data: what the catalogue and `[endpoint.scheme]` tables hold."""

from collections.abc import Callable
from typing import Literal, TypeVar

import msgspec

from fasthook.intake.templates import Selector, Template
from fasthook.values import Duration

T = TypeVar("T")
Kind = Literal["hmac", "token", "ed25519"]


class Scheme(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the signature stands, what it signs, with which key, and how fresh it must be."""

    kind: Kind = "hmac"
    #: One name, or several where a sender may use any of them.
    header: str | list[str]
    #: raw: the value is the signature. kv: `t=…,v1=…`. versioned: `v1,… v1,…`.
    format: Literal["raw", "kv", "versioned"] = "raw"
    #: What stands in front of the signature.
    prefix: str = ""
    #: kv: the keys that hold signatures. versioned: the versions that are looked at.
    signature_keys: list[str] = []
    #: Between the items of kv and versioned.
    separator: str = ","
    hash: Literal["md5", "sha1", "sha256", "sha384", "sha512"] = "sha256"
    encoding: Literal["hex", "base64", "base64url"] = "hex"
    #: What is signed: see `templates`.
    message: str = "{body}"
    #: How the configured secret becomes the key.
    key_encoding: Literal["utf8", "base64", "hex"] = "utf8"
    key_prefix: str = ""  # cut off a secret that has it
    #: Where the signed time stands: a selector. Empty: the signature does not age.
    timestamp: str = ""
    timestamp_unit: Literal["s", "ms"] = "s"
    tolerance: Duration = Duration(300)  # both ways
    #: Where the event's id and type stand: the first selector that finds one. Empty: as the
    #: provider has it.
    event_id: str | list[str] = []
    event_type: str | list[str] = []

    @property
    def headers(self) -> list[str]:
        """Names of the signature headers, in lower case."""
        names = [self.header] if isinstance(self.header, str) else self.header
        return [name.lower() for name in names]

    @property
    def covers_body(self) -> bool:
        """Whether every byte of the body is signed."""
        return self.kind != "token" and "{body}" in self.message

    def security_headers(self) -> set[bytes]:
        """Headers that trust rests on: sent twice, the request is refused."""
        names = set(self.headers)
        selectors = [s for s in Template(self.message).selectors if s.kind == "header"]
        if self.timestamp:
            selectors.append(Selector.parse(self.timestamp))
        names.update(s.name for s in selectors if s.kind == "header")
        return {name.encode() for name in names}

    def check(self) -> None:
        """Raise `ValueError` where the description can't be meant."""
        if not self.headers or not all(self.headers):
            raise ValueError("header: expected the name of the signature's header")
        if self.format != "raw" and not self.signature_keys:
            raise ValueError(f"signature_keys: expected, since format is {self.format!r}")
        message = _named("message", Template, self.message)
        if self.kind != "token" and not message.selectors and "{body}" not in self.message:
            raise ValueError(f"message: {self.message!r} signs nothing of the request")
        if "{timestamp}" in self.message and not self.timestamp:
            raise ValueError("timestamp: expected, since the message has {timestamp}")
        if self.timestamp:
            _named("timestamp", Selector.parse, self.timestamp)
        for key in ("event_id", "event_type"):
            for selector in selectors_of(getattr(self, key)):
                _named(key, Selector.parse, selector)

    @property
    def signs_timestamp(self) -> bool:
        """Whether the time that is checked is among what is signed."""
        selector = Selector.parse(self.timestamp)
        return "{timestamp}" in self.message or Template(self.message).signs(selector)


def _named(key: str, parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def selectors_of(value: str | list[str]) -> list[str]:
    """One selector or several, as a list."""
    return [value] if isinstance(value, str) else list(value)
