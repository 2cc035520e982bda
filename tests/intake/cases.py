"""One scheme of each form that the catalogue has, with keys: what rows of pitfalls are tried on.

Schemes are of one form if they are of one kind, write the signature alike, have it in the same
place, and have times of one unit. A form that comes anew has its case by itself.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from fasthook.intake import catalogue
from fasthook.intake.catalogue import Provider
from fasthook.intake.multiparts import looks_into_parts
from fasthook.intake.receiver import Endpoint
from fasthook.intake.schemes import BARE, Scheme
from fasthook.intake.signatures import Verifier, verifier_of
from fasthook.intake.signing import place, sign
from fasthook.intake.templates import Selector, Template
from fasthook.model import Request
from tests.intake import test_provider_code
from tests.intake.support import NOW_S, copy_of, endpoint_of, request_of, with_header
from tests.intake.test_all_providers import PAIRS, keys_of

URL = "https://hooks.example.com/hook"
BODY = b'{"id":"evt_1","type":"t"}'
FORM = b"payload=%7B%22id%22%3A%22evt_1%22%7D"
#: Where the signature stands that code makes, if in no header.
IN_BODY = {
    "adyen": "json:notificationItems.0.NotificationRequestItem.additionalData.hmacSignature",
    "aws-sns": "json:Signature",
    "braintree": "form:bt_signature",
    "msgraph": "json:value.0.clientState",
    "unisender-go": "json:auth",
}
#: Those that are known best stand for their form.
KNOWN = [
    "github",
    "shopify",
    "slack",
    "stripe",
    "standard-webhooks",
    "recharge",
    "gitlab",
    "telegram",
]


class Case(NamedTuple):
    """A provider's scheme, and keys for it."""

    provider: str
    scheme_name: str
    signs: bytes  # the secret or private key
    verifies: bytes  # what is configured
    other: bytes  # what is configured where somebody else sends
    body: bytes

    @property
    def id(self) -> str:
        form = "" if self.scheme.format == "raw" else f"-{self.scheme.format}"
        return f"{self.scheme.kind}{form}-{self.provider}-{self.scheme_name}"

    @property
    def known(self) -> Provider:
        return catalogue.load(self.provider)

    @property
    def scheme(self) -> Scheme:
        return self.known.schemes[self.scheme_name]

    @property
    def place(self) -> Selector:
        """Where the signature stands."""
        if self.scheme.kind == "code" and self.provider in IN_BODY:
            return Selector.parse(IN_BODY[self.provider])
        return Selector.parse(self.scheme.signature or f"header:{self.scheme.headers[0]}")

    @property
    def settings(self) -> dict[str, str]:
        if self.provider == "aws-sns":
            return {"topic_arn": test_provider_code.SNS["TopicArn"]}
        return dict.fromkeys(self.scheme.settings, "a-setting")

    @property
    def is_timed(self) -> bool:
        return bool(self.scheme.timestamp) and self.scheme.signs_timestamp

    def request(
        self, body: bytes | None = None, now_s: float = NOW_S, signs: bytes | None = None
    ) -> Request:
        """As the sender would send it."""
        body = self.body if body is None else body
        is_form = body == FORM or self.provider in ("twilio", "plivo", "braintree")
        kind = "application/x-www-form-urlencoded" if is_form else "application/json"
        request = request_of(body, {"content-type": kind}, b"/hook")
        if self.scheme.kind not in (*BARE, "jwt", "code"):
            for selector in Template(self.scheme.message).selectors:
                if selector.kind != "signature" and selector.read(request) is None:
                    place(request, selector, b"given")
        if self.known.id == "standard-webhooks":
            request.headers[b"webhook-id"] = b"evt_1"
        sign(self.scheme, signs or self.signs, request, now_s, URL, self.settings)
        return request

    def verifier(self, *secrets: bytes) -> Verifier:
        """By default with the secret that is configured."""
        made = verifier_of(self.scheme, list(secrets) or [self.verifies], URL, self.settings)
        return looks_into_parts(made, self.scheme, self.known.form_payload)

    def endpoint(self, *secrets: bytes, **more: Any) -> Endpoint:
        """A whole endpoint at /hook."""
        verifier = self.verifier(*secrets)
        return endpoint_of(self.known, scheme=self.scheme_name, verifier=verifier, **more)

    def text(self, request: Request) -> bytes:
        """The signature alone, without what stands before and beside it."""
        value = self.place.read(request)
        assert value is not None
        scheme = self.scheme
        if scheme.format == "kv":
            fields = dict(
                item.strip().split(b"=", 1) for item in value.split(scheme.separator.encode())
            )
            value = fields[scheme.signature_keys[0].encode()]
        elif scheme.format != "raw":
            value = value.rpartition(b"=" if scheme.format == "method" else b",")[2]
        return value.removeprefix(scheme.prefixes[0].encode())

    def with_text(self, request: Request, text: bytes) -> Request:
        """The request with another signature in the place of its own."""
        mine = self.text(request)
        if self.place.kind == "header":
            value = request.headers[self.place.key]
            return with_header(request, self.place.name, value.replace(mine, text))
        if self.place.kind == "query":
            return copy_of(request, target=request.target.replace(mine, text))
        from urllib.parse import quote_plus

        for old in (mine, quote_plus(mine).encode()):
            if old in request.body:
                return copy_of(request, body=request.body.replace(old, text))
        raise AssertionError("no signature there")

    def with_value(self, request: Request, value: bytes | None) -> Request:
        """The request with another value of its signature's header; None: without it."""
        return with_header(request, self.place.name, value)


def _form_of(scheme: Scheme) -> tuple[object, ...]:
    where = scheme.signature.partition(":")[0] or "header"
    time = (scheme.timestamp.partition(":")[0], scheme.timestamp_unit) if scheme.timestamp else ()
    algorithm = scheme.claims.algorithms[0] if scheme.claims else ""
    written = (
        scheme.format,
        scheme.encoding,
        scheme.is_padded,
        scheme.key_encoding == "certificate",
    )
    return (scheme.kind, *written, where, time, algorithm)


def _body_of(scheme: Scheme) -> bytes:
    texts = [scheme.signature, scheme.timestamp]
    selectors = [Selector.parse(text) for text in texts if text]
    selectors += Template(scheme.message).selectors
    return FORM if any(selector.kind == "form" for selector in selectors) else BODY


def certificate_of(key: rsa.RSAPrivateKey) -> bytes:
    """A certificate that says that the key is its own, in PEM."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tests.example")])
    now = datetime.fromtimestamp(NOW_S, UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).serial_number(1)
    made = (
        made.public_key(key.public_key()).not_valid_before(now).not_valid_after(now + timedelta(1))
    )
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def case_of(name: str, scheme_name: str) -> Case:
    """The case of one scheme."""
    scheme = catalogue.load(name).schemes[scheme_name]
    if scheme.kind == "code":
        body, signs, verifies, _, other = test_provider_code.CASES[name]
        return Case(name, scheme_name, signs, verifies, other, body)
    signs, verifies = keys_of(scheme)
    other = keys_of(scheme, b"other")[1]
    if scheme.key_encoding == "certificate":
        verifies, other = (certificate_of(PAIRS[seed]["rsa"]) for seed in (b"all", b"other"))
    is_form = "json" not in catalogue.load(name).content and "form" in catalogue.load(name).content
    return Case(name, scheme_name, signs, verifies, other, FORM if is_form else _body_of(scheme))


@functools.cache
def everything() -> list[Case]:
    """One case of each form, by kind."""
    found: dict[object, Case] = {}
    for name in sorted(catalogue.names(), key=lambda name: (name not in KNOWN, name)):
        for scheme_name, scheme in catalogue.load(name).schemes.items():
            form = name if scheme.kind == "code" else _form_of(scheme)
            if form not in found:
                found[form] = case_of(name, scheme_name)
    return sorted(found.values(), key=lambda case: case.id)


def row(
    number: int,
    *kinds: str,
    where: Callable[[Case], object] = lambda case: True,
    cases: Iterable[Case] | None = None,
) -> Any:
    """Run a test for each case of these kinds (none: of all); its id names the row of pitfalls."""

    def wanted() -> Iterator[Any]:
        for case in everything() if cases is None else cases:
            if (not kinds or case.scheme.kind in kinds) and where(case):
                yield pytest.param(case, id=f"S{number}-{case.id}")

    return pytest.mark.parametrize("case", list(wanted()))


def in_header(case: Case) -> bool:
    """Whether the signature stands in a header."""
    return case.place.kind == "header"


def covers_body(case: Case) -> bool:
    """Whether every byte of the body is signed, as it came."""
    return case.scheme.covers_body and "form" not in case.scheme.message and in_header(case)
