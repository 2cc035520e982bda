"""Why a request is not genuine, and which change would make it so.

Every way in which signatures are known to break is tried in turn: what passes then is the cause. No
secret and no right signature appears in what is said.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import msgspec
import orjson

from fasthook.errors import ConfigError, NotGenuine
from fasthook.intake import catalogue
from fasthook.intake.catalogue import Provider
from fasthook.intake.multiparts import flattened, looks_into_parts
from fasthook.intake.schemes import Scheme
from fasthook.intake.signatures import verifier_of
from fasthook.intake.templates import Selector
from fasthook.model import Request
from fasthook.values import Duration

_FOR_EVER: Final = Duration(1e10)
#: Bodies beyond are not written anew in other ways.
_MAX_BODY_BYTES: Final = 4 * 1024 * 1024


class Case(NamedTuple):
    """A request, and what it should have been signed with."""

    request: Request
    provider: Provider
    scheme: Scheme
    secrets: Sequence[bytes]
    url: str
    settings: Mapping[str, str]
    now_s: float


class Finding(NamedTuple):
    """One thing that is wrong."""

    cause: str  # a word for programs
    text: str  # what was found, and what to do
    is_enough: bool = True  # whether the request passes once it is mended


def explain(case: Case) -> list[Finding]:
    """What keeps the request from being genuine; empty: it is genuine."""
    try:
        _verify(case, case.scheme.tolerance)
        return []
    except NotGenuine as error:
        reason = str(error)
    age = _age(case)
    if age is not None:
        return [age]
    found = list(_doubled(case))
    for trials in (_other_secrets, _other_keys, _other_bodies, _other_urls, _other_schemes):
        mended = next((finding for finding, changed in trials(case) if _passes(changed)), None)
        if mended is not None:
            return [*found, mended]
    found += _missing(case)
    if not found:
        text = f"{reason}; no known change makes it pass: most likely the secret is another one"
        found.append(Finding("wrong secret", text, False))
    return found


def _verify(case: Case, tolerance: Duration) -> None:
    scheme = msgspec.structs.replace(case.scheme, tolerance=tolerance)
    verifier = verifier_of(scheme, case.secrets, case.url, case.settings)
    verifier = looks_into_parts(verifier, scheme, case.provider.form_payload)
    verifier.verify(case.request, case.now_s)


def _passes(case: Case) -> bool:
    try:
        _verify(case, _FOR_EVER)
    except (NotGenuine, ConfigError):
        return False
    return True


# --- what is tried --------------------------------------------------------------------------------

_Trial = tuple[Finding, Case]


def _age(case: Case) -> Finding | None:
    if not case.scheme.timestamp or not _passes(case):
        return None
    try:
        _verify(case, case.scheme.tolerance)
    except NotGenuine as error:
        what = "the signature is right, but the time is not"
        text = f"{what}: {error}. Compare the clocks of both sides, or look for a queue in between"
        return Finding("clock", text)
    return None


def _other_secrets(case: Case) -> Iterator[_Trial]:
    """The secret as people and files spoil it."""
    ways: list[tuple[str, Callable[[bytes], bytes]]] = [
        ("has white space around it", bytes.strip),
        ("has quotes around it", lambda secret: secret.strip().strip(b"\"'")),
        ("lacks a line end", lambda secret: secret + b"\n"),
        ("has its prefix, which does not belong to the key", _without_prefix),
        ("lacks its whsec_ prefix", lambda secret: b"whsec_" + secret),
    ]
    for what, change in ways:
        changed = [change(secret) for secret in case.secrets]
        yield Finding("secret form", f"the secret {what}"), case._replace(secrets=changed)


def _without_prefix(secret: bytes) -> bytes:
    return re.sub(rb"^[a-z]{2,6}_", b"", secret)


def _other_keys(case: Case) -> Iterator[_Trial]:
    """The same secret, made a key in another way."""
    if case.scheme.kind not in ("hmac", "digest"):
        return
    ways = {
        "as text, not decoded": "utf8",
        "decoded from base64": "base64",
        "decoded from hexadecimal": "hex",
    }
    for what, encoding in ways.items():
        for prefix in dict.fromkeys((case.scheme.key_prefix, "", "whsec_")):
            scheme = msgspec.structs.replace(case.scheme, key_encoding=encoding, key_prefix=prefix)
            if scheme != case.scheme:
                used = f", without {prefix}" if prefix else ""
                text = f"the sender uses the secret {what}{used}; is it another provider's?"
                yield Finding("secret encoding", text), case._replace(scheme=scheme)


def _other_bodies(case: Case) -> Iterator[_Trial]:
    """The body as frameworks and proxies write it anew."""
    body = case.request.body
    if len(body) > _MAX_BODY_BYTES:
        return
    for what, changed in _bodies(body):
        if changed != body:
            text = (
                f"the body was changed on the way: signed was {what}. Verify the bytes as they came"
            )
            was = case.request
            fields = was.headers, was.keep_alive, was.repeated
            request = Request(was.method, was.target, was.path, was.head, *fields, changed)
            yield Finding("body changed", text), case._replace(request=request)


def _bodies(body: bytes) -> Iterator[tuple[str, bytes]]:
    yield "the same with a line end behind it", body + b"\n"
    yield "the same with CRLF behind it", body + b"\r\n"
    yield "the same without white space around it", body.strip()
    yield "the same with LF for CRLF", body.replace(b"\r\n", b"\n")
    yield "the same with CRLF for LF", body.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    yield "the same without a byte order mark", body.removeprefix(b"\xef\xbb\xbf")
    yield "nothing", b""
    try:
        document = orjson.loads(body)
    except ValueError:
        return
    for what, text in _rewritten(document):
        yield f"the JSON {what}", text
        yield f"the JSON {what}, with / as \\/", text.replace(b"/", b"\\/")


def _rewritten(document: Any) -> Iterator[tuple[str, bytes]]:
    import json

    for is_ascii, how in ((True, ", non-ASCII escaped"), (False, "")):
        options: list[tuple[str, dict[str, Any]]] = [
            ("without spaces", {"separators": (",", ":")}),
            ("with a space behind : and ,", {}),
            ("with an indent of 2", {"indent": 2}),
            ("with an indent of 4", {"indent": 4}),
            ("with sorted keys", {"separators": (",", ":"), "sort_keys": True}),
        ]
        for what, option in options:
            text = json.dumps(document, ensure_ascii=is_ascii, **option)
            yield what + how, text.encode("utf-8", "surrogatepass")


def _other_urls(case: Case) -> Iterator[_Trial]:
    """The URL as the sender may know it."""
    if not case.scheme.needs_url:
        return
    host = case.request.headers.get(b"host", b"").decode("latin-1")
    target = case.request.target.decode("latin-1")
    parts = urlsplit(case.url)
    path = parts.path or "/"
    hosts = dict.fromkeys(h for h in (parts.netloc, parts.hostname or "", host) if h)
    targets = dict.fromkeys((path, path.rstrip("/"), path.rstrip("/") + "/", target))
    for scheme in ("https", "http"):
        for name in hosts:
            for ending in ("", ":443", ":80", ":8080"):
                netloc = name if ":" in name else name + ending
                for one in targets:
                    one_path, _, query = one.partition("?")
                    for used in dict.fromkeys((query, parts.query, "")):
                        url = urlunsplit((scheme, netloc, one_path, used, ""))
                        if url != case.url:
                            text = f"the sender signed another URL: set public_url to {_shown(url)}"
                            yield Finding("url", text), case._replace(url=url)


def _shown(url: str) -> str:
    """The URL without a password."""
    return re.sub(r"//[^/@]*@", "//…@", url)


def _other_schemes(case: Case) -> Iterator[_Trial]:
    """Other schemes of the provider, and other providers whose headers are there."""
    for provider in (case.provider, *catalogue.everything()):
        for name, scheme in provider.schemes.items():
            if scheme == case.scheme or not _is_there(scheme, provider, case.request):
                continue
            if scheme.kind in ("token", "basic", "code"):
                continue
            text = (
                f"it is signed as {provider.id} does it (scheme {name!r}): set provider and scheme"
            )
            yield Finding("other scheme", text), case._replace(scheme=scheme, provider=provider)


def _is_there(scheme: Scheme, provider: Provider, request: Request) -> bool:
    if scheme.signature:
        try:
            request = flattened(request, provider.form_payload)
        except NotGenuine:  # nobody can read it
            return False
        return Selector.parse(scheme.signature).read(request) is not None
    return any(name.encode() in request.headers for name in scheme.headers)


# --- what is seen without trying ------------------------------------------------------------------


def _doubled(case: Case) -> Iterator[Finding]:
    for name in sorted((case.request.repeated or {}).keys() & case.scheme.security_headers()):
        yield Finding(
            "header doubled",
            f"{name.decode()} came more than once: refused before anything is verified. "
            "Look for a proxy that adds it",
            False,
        )


def _missing(case: Case) -> list[Finding]:
    present = case.request.headers
    scheme = case.scheme
    found = []
    if not _is_there(scheme, case.provider, case.request):
        where = ", ".join(scheme.headers) or scheme.signature
        others = [name.decode() for name in present if b"sign" in name or b"hmac" in name]
        hint = f"; there is {', '.join(others)}" if others else "; is a secret set at the sender?"
        found.append(Finding("header missing", f"no signature in {where}{hint}", False))
    for header in sorted(scheme.security_headers() - {n.encode() for n in scheme.headers}):
        if header not in present:
            text = f"{header.decode()} is missing, and it is part of what is signed"
            found.append(Finding("header missing", text, False))
    return found + list(_malformed(case))


def _malformed(case: Case) -> Iterator[Finding]:
    """A signature that is none of the length that its hash has."""
    if case.scheme.kind != "hmac" or case.scheme.format != "raw" or not case.scheme.headers:
        return
    value = case.request.headers.get(case.scheme.headers[0].encode())
    if value is None:
        return
    bare = value
    for prefix in case.scheme.prefixes:
        bare = bare.removeprefix(prefix.encode())
    ways: dict[str, Callable[[], bytes]] = {
        "hex": lambda: binascii.unhexlify(bare),
        "base64": lambda: base64.b64decode(bare, validate=True),
    }
    for encoding, decode in ways.items():
        try:
            size = len(decode())
        except ValueError:
            continue
        hash_of = {16: "MD5", 20: "SHA-1", 32: "SHA-256", 48: "SHA-384", 64: "SHA-512"}.get(size)
        expected = case.scheme.encoding.removesuffix("url")
        if hash_of and (encoding, hash_of.replace("-", "").lower()) != (expected, case.scheme.hash):
            text = f"it is {hash_of} in {encoding}, expected {case.scheme.hash} in {expected}"
            yield Finding("signature form", text, False)
        return  # what is hexadecimal could be read as base64, too
