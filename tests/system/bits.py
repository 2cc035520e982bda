"""What differs from a vector by one bit: of its key, its body, its signature or its time."""

import base64
import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any

from fasthook.errors import BadPayload, NotGenuine, WrongContentType
from fasthook.intake import catalogue
from fasthook.intake.receiver import Endpoint
from fasthook.intake.templates import Selector
from fasthook.model import Request
from tests.intake.support import copy_of, receive
from tests.intake.test_vectors import FILE, endpoint_for, flips_that_count, other_key, secrets_of

#: Of each header, and of each body: places at which a bit is flipped.
PLACES = 4
#: Places of a body of which only parts are signed: so many are tried, to find those.
MAX_TRIED = 500


def now_of(vector: dict) -> float:
    return vector.get("now", FILE["fixed_clock_for_generated"])


def own_secrets(vector: dict) -> tuple[str, ...]:
    return tuple(secret.decode() for secret in secrets_of(vector))


def flip(raw: bytes, place: int) -> bytes:
    return raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]


def spread_over(count: int) -> list[int]:
    """Some places, with the first and the last."""
    return sorted({(count - 1) * part // (PLACES - 1) for part in range(PLACES)}) if count else []


def other_keys(name: str, vector: dict) -> tuple[str, ...]:
    """Keys that differ from the vector's, all of them by a bit."""
    scheme = catalogue.load(name).schemes[vector["scheme"]]
    return tuple(other_key_of(scheme, secret.encode()) for secret in own_secrets(vector))


def other_key_of(scheme: Any, secret: bytes) -> str:
    if secret.startswith(b"{"):
        return flipped_json(json.loads(secret))
    if b"-----BEGIN" in secret:
        return flipped_pem(secret.decode())
    if scheme.key_encoding == "der":
        return base64.b64encode(flipped_der(base64.b64decode(secret))).decode()
    return other_key(scheme, secret).decode()


def flipped_json(tree: dict) -> str:
    """A JWK, a set of them, or PEMs by name, each with a bit of its key flipped."""
    for one in tree.get("keys", [tree]):
        for member in {"n", "x", "k"} & one.keys():
            raw = base64.urlsafe_b64decode(one[member] + "==")
            changed = flip(raw, len(raw) // 2)
            one[member] = base64.urlsafe_b64encode(changed).decode().rstrip("=")
        for member, value in one.items():
            if isinstance(value, str) and "-----BEGIN" in value:
                one[member] = flipped_pem(value)
    return json.dumps(tree)


def flipped_pem(text: str) -> str:
    """A public key, or the certificate of one."""
    start, body, end = re.fullmatch(
        r"\s*(-----BEGIN [A-Z ]+-----)(.*)(-----END [A-Z ]+-----)\s*", text, re.DOTALL
    ).groups()
    changed = base64.encodebytes(flipped_der(base64.b64decode(body))).decode()
    return f"{start}\n{changed}{end}\n"


def flipped_der(der: bytes) -> bytes:
    """With a bit of the key itself flipped, wherever it stands in a certificate."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    with contextlib.suppress(ValueError):
        key = x509.load_der_x509_certificate(der).public_key()
        spki = key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return flip(der, der.index(spki) + len(spki) // 2)
    return flip(der, len(der) // 2)


def is_genuine(endpoint: Endpoint, request: Request, now_s: float) -> bool:
    try:
        receive(endpoint, request, now_s)
    except NotGenuine:
        return False
    except (BadPayload, WrongContentType):
        pass
    return True


def other_bodies(name: str, vector: dict, request: Request) -> Iterator[Request]:
    """Where not all of the body is signed, at places of what is; none where nothing is."""
    scheme = catalogue.load(name).schemes[vector["scheme"]]
    body = request.body
    step = 1 + len(body) // MAX_TRIED
    bodies = [copy_of(request, body=flip(body, place)) for place in range(0, len(body), step)]
    # Some bits of a form stand for the same fields, as those of + and of what is never decoded.
    if not scheme.covers_body or "{form_sorted}" in scheme.message or scheme.kind == "code":
        endpoint = endpoint_for(name, vector)
        bodies = [one for one in bodies if not is_genuine(endpoint, one, now_of(vector))]
        assert bodies or not scheme.covers_body or not body
    yield from (bodies[place] for place in spread_over(len(bodies)))


def other_signatures(name: str, vector: dict, request: Request) -> Iterator[Request]:
    scheme = catalogue.load(name).schemes[vector["scheme"]]
    for header in sorted(scheme.security_headers() & request.headers.keys()):
        changed = list(flips_that_count(name, vector, request, header.decode()))
        yield from (changed[place] for place in spread_over(len(changed)))
    place = Selector.parse(scheme.signature) if scheme.signature else None
    if place is not None and place.kind == "query":
        value = place.read(request)
        yield copy_of(request, target=request.target.replace(value, flip(value, 0)))


def other_times(name: str, vector: dict, request: Request) -> Iterator[Request]:
    """With the last digit of the time changed, where the time is signed."""
    scheme = catalogue.load(name).schemes[vector["scheme"]]
    if not scheme.timestamp or not scheme.signs_timestamp:
        return
    place = Selector.parse(scheme.timestamp)
    if place.kind == "header":
        changed = copy_of(request)
        changed.headers[place.key] = flip_digit(request.headers[place.key])
        yield changed
    elif place.kind == "signature" and scheme.format == "kv":
        changed, header = copy_of(request), scheme.headers[0].encode()
        found = rb"((?:^|[,;\s])" + re.escape(place.key) + rb"=)([^,;\s]+)"
        changed.headers[header] = re.sub(
            found, lambda match: match[1] + flip_digit(match[2]), request.headers[header]
        )
        yield changed
    elif place.kind in ("json", "form") and (value := place.read(request)):
        yield copy_of(request, body=request.body.replace(value, flip_digit(value), 1))


def flip_digit(text: bytes) -> bytes:
    place = max(place for place, byte in enumerate(text) if chr(byte).isdigit())
    return flip(text, place)
