"""What it costs to verify one request, by kind of scheme, with a 7.3 kB GitHub `push` for a body.

    python -m bench.verify

Beside it the bare work for HMAC-SHA-256: `hmac.digest` and `compare_digest`. Best of several runs.
"""

import base64
import hmac

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from bench.micro import best_us
from bench.workload import push_body
from fasthook.intake import catalogue
from fasthook.intake.schemes import Scheme
from fasthook.intake.signatures import verifier_of
from fasthook.intake.signing import sample_secret, sign
from fasthook.model import Request

NOW_S = 1_767_225_600.0
URL = "https://hooks.example.com/hook"
#: One of each kind: provider, and its private key where the secret is a public one.
KINDS = {
    "github": None,
    "stripe": None,
    "standard-webhooks": None,
    "recharge": None,
    "okta": None,
    "netlify": None,
    "discord": ed25519.Ed25519PrivateKey.generate(),
    "sendgrid": ec.generate_private_key(ec.SECP256R1()),
    "wise": rsa.generate_private_key(65537, 2048),
}


def keys_of(scheme: Scheme, private: object) -> tuple[bytes, bytes]:
    """What signs, and what verifies it."""
    if private is None:
        secret = sample_secret(scheme, b"bench").encode()
        return secret, secret
    pem = serialization.Encoding.PEM
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    pkcs8, open_ = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    signs: bytes = private.private_bytes(pem, pkcs8, open_)  # type: ignore[attr-defined]
    public = private.public_key()  # type: ignore[attr-defined]
    if scheme.key_encoding == "hex":
        return signs, public.public_bytes_raw().hex().encode()
    if scheme.key_encoding == "der":
        return signs, base64.b64encode(public.public_bytes(serialization.Encoding.DER, spki))
    return signs, public.public_bytes(pem, spki)


def main() -> None:
    """Measure and print."""
    body = push_body()
    key = b"k" * 32
    claimed = hmac.digest(key, body, "sha256").hex()

    def bare() -> None:
        hmac.compare_digest(hmac.digest(key, body, "sha256").hex(), claimed)

    base_us = best_us(bare)
    print(f"{'bare HMAC-SHA-256':32} {base_us:7.2f} us")
    for name, private in KINDS.items():
        scheme = catalogue.load(name).schemes["default"]
        signs, verifies = keys_of(scheme, private)
        headers = {b"webhook-id": b"msg_1", b"x-signature-timestamp": b"%d" % int(NOW_S)}
        request = Request(b"POST", b"/hook", b"/hook", b"", headers, True, None, body)
        sign(scheme, signs, request, NOW_S, URL)
        verifier = verifier_of(scheme, [verifies], URL)
        took_us = best_us(lambda v=verifier, r=request: v.verify(r, NOW_S))  # type: ignore[misc]
        what = f"{name} ({scheme.kind}, {scheme.format})"
        print(f"{what:32} {took_us:7.2f} us  x {took_us / base_us:.2f} of bare")


if __name__ == "__main__":
    main()
