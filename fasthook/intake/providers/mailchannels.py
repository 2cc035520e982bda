"""MailChannels: HTTP message signatures (RFC 9421), Ed25519, of the digest of the body (RFC 9530).

Rule: docs.mailchannels.net, "Verifying message signatures". `Signature-Input` says what is signed:
here always "content-digest", and the parameters, of which `created` has to be fresh. Of other
components only headers are taken. The secret is the public key: DER in base64, or PEM.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from typing import Any, Final

from fasthook.errors import NoSignature
from fasthook.intake.keys import decode_canonical
from fasthook.intake.providers import common
from fasthook.intake.schemes import Terms
from fasthook.intake.signatures import Verifier
from fasthook.model import Request

_MAX_COMPONENTS: Final = 20
_INPUT: Final = re.compile(
    rb"([a-z*][a-z0-9_.*-]*)="  # the signature's name; then the parameters, as they are signed
    rb'(\(((?:"[a-z0-9-]+"(?: (?!\)))?)*)\)((?:;[a-z]+=(?:[0-9]{1,12}|"[^"\\]*"))*))(?:, ?|$)'
)
_SIGNATURE: Final = re.compile(rb"([a-z*][a-z0-9_.*-]*)=:([A-Za-z0-9+/=]*):(?:, ?|$)")
_DIGEST: Final = re.compile(rb"([a-z0-9-]+)=:([A-Za-z0-9+/=]*):(?:, ?|$)")
_PARAMETER: Final = re.compile(rb';([a-z]+)=(?:([0-9]+)|"([^"]*)")')
_HASHES: Final = {b"sha-256": "sha256", b"sha-512": "sha512"}


class _MailChannels:
    def __init__(self, keys: Sequence[Any], tolerance_s: float) -> None:
        self._keys = keys
        self._tolerance_s = tolerance_s

    def verify(self, request: Request, now_s: float) -> int:
        """See `signatures.Verifier`."""
        _check_digest(request)
        inputs = _items(_INPUT, common.header_of(request, "signature-input"))
        signatures = {
            m[1]: m[2] for m in _items(_SIGNATURE, common.header_of(request, "signature"))
        }
        matched, is_any = -1, False
        for made in inputs:
            if made[1] in signatures:
                is_any = True
                self._check_parameters(made[4], now_s)
                index = self._index(signatures[made[1]], _message(request, made[3], made[2]))
                matched = index if matched < 0 else matched
        if not is_any:
            raise NoSignature("no signature that signature-input names")
        return common.found(matched)

    def _check_parameters(self, text: bytes, now_s: float) -> None:
        parameters = {m[1]: m[2] or m[3] for m in _PARAMETER.finditer(text)}
        if parameters.get(b"alg", b"ed25519") != b"ed25519":
            raise NoSignature("alg is not ed25519, as this scheme has it")
        created, expires = (parameters.get(b"created", b""), parameters.get(b"expires", b""))
        if not created.isdigit():
            raise NoSignature("no created in signature-input")
        common.check_age(int(created), now_s, self._tolerance_s)
        if expires.isdigit() and int(expires) < now_s:
            common.check_age(int(expires), now_s, 0)

    def _index(self, signature: bytes, message: bytes) -> int:
        raw = decode_canonical(signature, "base64")
        if raw is None:
            raise NoSignature("a signature that is not base64")
        return common.index_of(self._keys, raw, message)


def _items(form: re.Pattern[bytes], text: bytes) -> list[re.Match[bytes]]:
    """The members of a dictionary (RFC 8941). Raises `NoSignature` unless all are of the form."""
    members: list[re.Match[bytes]] = []
    position = 0
    while position < len(text) and len(members) <= common.MAX_SIGNATURES:
        member = form.match(text, position)
        if member is None:
            raise NoSignature("signature, signature-input or content-digest can't be read")
        members.append(member)
        position = member.end()
    if len(members) > common.MAX_SIGNATURES or len({m[1] for m in members}) < len(members):
        raise NoSignature("too many signatures, or two of one name")
    return members


def _check_digest(request: Request) -> None:
    known = 0
    for name, text in (
        m.groups() for m in _items(_DIGEST, common.header_of(request, "content-digest"))
    ):
        if name in _HASHES:
            known += 1
            digest = hashlib.new(_HASHES[name], request.body).digest()
            if not hmac.compare_digest(base64.b64encode(digest), text):
                raise NoSignature("the body is not what content-digest says")
    if not known:
        raise NoSignature("no content-digest with SHA-256 or SHA-512")


def _message(request: Request, components: bytes, parameters: bytes) -> bytes:
    names = [name.strip(b'"').decode() for name in components.split()]
    if (
        "content-digest" not in names
        or len(set(names)) < len(names)
        or len(names) > _MAX_COMPONENTS
    ):
        raise NoSignature("the body is not among what is signed, or too much is")
    lines = [b'"%s": %s' % (name.encode(), common.header_of(request, name)) for name in names]
    return b"\n".join([*lines, b'"@signature-params": ' + parameters])


def verifier_of(terms: Terms, secrets: Sequence[bytes]) -> Verifier:
    """See `signatures.verifier_of`."""
    keys = [common.public_key("ed25519", "der", secret) for secret in secrets]
    return _MailChannels(keys, terms.scheme.tolerance)


def sign(terms: Terms, secret: bytes, request: Request, now_s: float) -> None:
    """See `signing.sign`."""
    digest = base64.b64encode(hashlib.sha256(request.body).digest())
    request.headers[b"content-digest"] = b"sha-256=:%s:" % digest
    parameters = b'("content-digest");created=%d;alg="ed25519";keyid="fasthook"' % int(now_s)
    signature = common.private_key(secret).sign(_message(request, b'"content-digest"', parameters))
    request.headers[b"signature-input"] = b"sig_1=" + parameters
    request.headers[b"signature"] = b"sig_1=:%s:" % base64.b64encode(signature)
