"""Amazon SNS: RSA with PKCS #1 v1.5 of some fields of the body, by AWS's certificate.

Rule: docs.aws.amazon.com, "Verifying the signatures of Amazon SNS messages", and AWS's validators:
name and value of each field that is there, a line each, in alphabetic order. SignatureVersion 1 is
SHA-1, 2 is SHA-256. Message attributes and UnsubscribeURL are not signed.
AWS signs for all of its customers with one key: `topic_arn` says whose topic may send here.
Each region has a key of its own, whose certificate is fetched. Where it is configured instead, in
PEM, its dates and its chain are the operator's to look at.
"""

import base64
import hmac
import re
from collections.abc import Sequence
from typing import Any, Final

import orjson

from fasthook.errors import ConfigError, NoSignature
from fasthook.intake.keys import decode_canonical, digest_of
from fasthook.intake.providers import common
from fasthook.intake.schemes import Terms
from fasthook.intake.signatures import Verifier
from fasthook.model import Request

_REQUIRED: Final = ("Message", "MessageId", "Timestamp", "TopicArn", "Type")
_OF_SUBSCRIPTIONS: Final = ("SubscribeURL", "Token")
_SIGNED: Final = tuple(sorted((*_REQUIRED, *_OF_SUBSCRIPTIONS, "Subject")))
_TYPES: Final = {
    "Notification": _REQUIRED,
    "SubscriptionConfirmation": _REQUIRED + _OF_SUBSCRIPTIONS,
    "UnsubscribeConfirmation": _REQUIRED + _OF_SUBSCRIPTIONS,
}
_HASHES: Final = {"1": "sha1", "2": "sha256"}
_CERTIFICATE_URL: Final = re.compile(
    r"https://sns\.[a-zA-Z0-9-]{3,}\.amazonaws\.com(\.cn)?/[A-Za-z0-9._/-]*\.pem"
)
_TOPIC: Final = "topic_arn"
_ARN_COLONS: Final = 5  # arn:aws:sns:REGION:ACCOUNT:NAME
#: Headers that repeat what is signed. The event's id and type are read there.
_REPEATED: Final = {b"x-amz-sns-message-id": "MessageId", b"x-amz-sns-message-type": "Type"}


class _Sns:
    def __init__(self, keys: Sequence[Any], topic: str) -> None:
        self._keys = keys
        self._topic = topic.encode()

    def verify(self, request: Request, now_s: float) -> int:
        """See `signatures.Verifier`."""
        message = common.object_of(request.body)
        _check(message)
        _check_topic(message, self._topic)
        for header, name in _REPEATED.items():
            if request.headers.get(header, _text(message, name)) != _text(message, name):
                raise NoSignature(f"a header says another {name} than the body")
        raw = decode_canonical(_text(message, "Signature"), "base64")
        hash_name = _HASHES.get(_text(message, "SignatureVersion").decode())
        if raw is None or hash_name is None:
            raise NoSignature("no signature of a known version")
        return common.found(common.index_of(self._keys, raw, _message(message), *_rsa(hash_name)))


def _rsa(hash_name: str) -> tuple[Any, Any]:
    from cryptography.hazmat.primitives.asymmetric import padding

    return padding.PKCS1v15(), digest_of(hash_name)


def _check(message: dict[str, Any]) -> None:
    """Raise `NoSignature` unless all that has to be signed is there."""
    kind = message.get("Type")
    required = _TYPES.get(kind) if isinstance(kind, str) else None
    if required is None:
        raise NoSignature("no Type that SNS has")
    for name in required:
        _text(message, name)
    # Two spellings: the second is of Lambda. It is never called here, but says who claims to sign.
    where = message.get("SigningCertURL", message.get("SigningCertUrl"))
    if not isinstance(where, str) or not _CERTIFICATE_URL.fullmatch(where):
        raise NoSignature("SigningCertURL is none of AWS")


def _check_topic(message: dict[str, Any], topic: bytes) -> None:
    if topic and not hmac.compare_digest(_text(message, "TopicArn"), topic):
        raise NoSignature("the topic is another than topic_arn")


def check_before_fetch(terms: Terms, request: Request) -> None:
    """Raise `NoSignature` for what can't be genuine, so that nothing is fetched for it.

    The certificate has to be that of the topic's region: a key of another one signs nothing here.
    """
    message = common.object_of(request.body)
    _check(message)
    topic = terms.settings.get(_TOPIC, "")
    _check_topic(message, topic.encode())
    _, partition, _, region, *_ = topic.split(":") if topic.count(":") == _ARN_COLONS else [""] * 4
    host = f"sns.{region}.amazonaws.com{'.cn' if partition == 'aws-cn' else ''}"
    where = message.get("SigningCertURL", message.get("SigningCertUrl"))
    if not str(where).startswith(f"https://{host}/"):
        raise NoSignature("SigningCertURL is of another region than topic_arn")


def _text(message: dict[str, Any], name: str) -> bytes:
    value = message.get(name)
    if not isinstance(value, str):
        raise NoSignature(f"{name} is signed, but the message has none")
    return value.encode()


def _message(message: dict[str, Any]) -> bytes:
    present = [name for name in _SIGNED if message.get(name) is not None]
    return b"".join([b"%s\n%s\n" % (name.encode(), _text(message, name)) for name in present])


def verifier_of(terms: Terms, secrets: Sequence[bytes]) -> Verifier:
    """See `signatures.verifier_of`. A public key in PEM will do, too."""
    keys = [
        common.public_key("rsa", "certificate" if b"CERTIFICATE-" in secret else "pem", secret)
        for secret in secrets
    ]
    return _Sns(keys, terms.settings.get(_TOPIC, ""))


def sign(terms: Terms, secret: bytes, request: Request, now_s: float) -> None:
    """See `signing.sign`. With version 2, unless the body asks for 1."""
    try:
        message = common.object_of(request.body)
        message.setdefault("SignatureVersion", "2")
        message.setdefault("SigningCertURL", "https://sns.us-east-1.amazonaws.com/fasthook.pem")
        _check(message)
        signed = _message(message)
        arguments = _rsa(_HASHES[_text(message, "SignatureVersion").decode()])
    except (NoSignature, KeyError) as error:
        raise ConfigError(f"the body can't be signed: {error}") from None
    raw = common.private_key(secret).sign(signed, *arguments)
    request.body = orjson.dumps({**message, "Signature": base64.b64encode(raw).decode()})
