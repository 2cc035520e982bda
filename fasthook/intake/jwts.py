"""Signatures that are a JSON Web Token (RFC 7519) about the request.

The token is verified by `PyJWT`; which algorithms may have made it stands in the scheme, and never
in the token. What it claims is checked here, against our clock and the request.
"""

import base64
import hashlib
import hmac
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fasthook.errors import BadSignature, ConfigError, NoSignature, StaleTimestamp, UnknownKey
from fasthook.intake.schemes import Claims, Scheme
from fasthook.intake.templates import Template
from fasthook.model import Request

_MAX_TOKEN_BYTES: Final = 8192
_MAX_KEYS: Final = 32  # of a key set
#: What signs with a key that does not say it (RFC 7518 §3.4, RFC 8037 §3.1).
_BY_CURVE: Final = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "Ed25519": "EdDSA"}
_SYMMETRIC: Final = ("HS256", "HS384", "HS512")


class JwtVerifier:
    """A scheme whose signature is a token, with its secrets."""

    def __init__(
        self,
        scheme: Scheme,
        claims: Claims,
        secrets: Sequence[bytes],
        url: str,
        settings: Mapping[str, str],
    ) -> None:
        """Raises `ConfigError` where a secret can't be a key of this scheme."""
        try:
            import jwt
        except ImportError:
            raise ConfigError(
                "JWT signatures need: pip install '.[asymmetric]' in fasthook's folder"
            ) from None
        self._jws = jwt.PyJWS()
        # `check` says once that a secret is short; not at each request.
        warnings.filterwarnings("ignore", category=jwt.InsecureKeyLengthWarning)
        self._invalid: type[Exception] = jwt.PyJWTError
        self._headers = [name.encode() for name in scheme.headers]
        self._prefixes = scheme.prefixes
        self._claims = claims
        self._audience = Template(claims.audience, settings).text_of()
        self._equal = {
            name: Template(value, settings).text_of() if isinstance(value, str) else value
            for name, value in claims.equal.items()
        }
        self._url_hash = hashlib.sha256(url.encode()).hexdigest() if claims.url_hash else ""
        self._keys = [_keys_of(secret, claims.algorithms) for secret in secrets]

    def verify(self, request: Request, now_s: float) -> int:
        """See `signatures.Verifier`."""
        token = self._token(request)
        for index, keys in enumerate(self._keys):
            found = self._claims_of(token, keys)
            if found is not None:
                self._check_times(found, now_s)
                self._check_claims(found)
                self._check_request(found, request)
                return index
        if not any(keys.has(self._kid_of(token)) for keys in self._keys):
            raise UnknownKey("no key has the id that the token names")
        raise BadSignature("no configured secret signs this request")

    def _kid_of(self, token: str) -> object:
        try:
            return self._jws.get_unverified_header(token).get("kid")
        except (self._invalid, ValueError, TypeError, RecursionError):
            return None

    def _token(self, request: Request) -> str:
        value = next((request.headers[n] for n in self._headers if n in request.headers), None)
        if value is None:
            raise NoSignature(f"no {self._headers[0].decode()} header")
        if len(value) > _MAX_TOKEN_BYTES or not value.isascii():
            raise NoSignature("the token is too long, or not ASCII")
        text = value.decode()
        for prefix in self._prefixes:
            if text[: len(prefix)].lower() == prefix.lower():
                return text[len(prefix) :]
        raise NoSignature(f"no token of the expected form in {self._headers[0].decode()}")

    def _claims_of(self, token: str, keys: "_Keys") -> dict[str, Any] | None:
        """What the token claims; None unless one of the keys signed it."""
        claims: Any = None
        try:
            header = self._jws.get_unverified_header(token)
            for key, algorithms in keys.for_kid(header.get("kid")):
                try:
                    payload = self._jws.decode(token, key, algorithms=algorithms)
                except self._invalid:
                    continue
                claims = json.loads(payload)
                break
        except (self._invalid, ValueError, TypeError, RecursionError):
            return None
        return claims if isinstance(claims, dict) else None

    def _check_times(self, found: dict[str, Any], now_s: float) -> None:
        claims = self._claims
        leeway_s = claims.leeway
        if now_s > _time(found, "exp", math.inf) + leeway_s:
            raise StaleTimestamp(f"the token expired {now_s - found['exp']:.0f} s ago")
        if now_s < _time(found, "nbf", -math.inf) - leeway_s:
            raise StaleTimestamp(f"the token holds only in {found['nbf'] - now_s:.0f} s")
        if claims.max_age:
            age_s = now_s - _time(found, "iat", -math.inf)
            if abs(age_s) > claims.max_age:
                limit = f"limit is {claims.max_age:g} s"
                raise StaleTimestamp(f"the token was made {age_s:.0f} s ago, {limit}")

    def _check_claims(self, found: dict[str, Any]) -> None:
        claims = self._claims
        missing = [name for name in claims.required if found.get(name) is None]
        if missing:
            raise NoSignature(f"the token has no claim {missing[0]!r}")
        if claims.issuers and found.get("iss") not in claims.issuers:
            raise BadSignature("the token is of another issuer")
        if self._audience:
            audience = found.get("aud")
            if self._audience not in (audience if isinstance(audience, list) else [audience]):
                raise BadSignature("the token is meant for another audience")
        for name, value in self._equal.items():
            if found.get(name) != value or not value:
                raise BadSignature(f"the token's claim {name!r} is not what was expected")

    def _check_request(self, found: dict[str, Any], request: Request) -> None:
        """Whether the token is about this request."""
        claims = self._claims
        if claims.url_hash and not _is_same(found.get(claims.url_hash), self._url_hash):
            raise BadSignature("the token is about another URL")
        if not claims.body_hash:
            return
        claimed = found.get(claims.body_hash)
        if claims.is_body_hash_left_out and not request.body:
            if claimed is not None:
                raise BadSignature("the token is about another body")
            return
        digest = hashlib.sha256(request.body)
        is_hex = claims.body_hash_encoding == "hex"
        expected = digest.hexdigest() if is_hex else base64.b64encode(digest.digest()).decode()
        if not _is_same(claimed, expected):
            raise BadSignature("the token is about another body")


def _is_same(claimed: object, expected: str) -> bool:
    return isinstance(claimed, str) and hmac.compare_digest(claimed.encode(), expected.encode())


def _time(found: dict[str, Any], name: str, default: float) -> float:
    value = found.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise NoSignature(f"the token's claim {name!r} is no time")
    try:
        return float(value)
    except OverflowError:
        raise NoSignature(f"the token's claim {name!r} is no time") from None


class _Keys:
    """The keys that one configured secret stands for, and what each may have signed with."""

    def __init__(self, by_kid: dict[str, tuple[Any, list[str]]]) -> None:
        self._by_kid = by_kid

    def for_kid(self, kid: object) -> list[tuple[Any, list[str]]]:
        """The key of that name; all that have none, where it has none."""
        if isinstance(kid, str) and kid in self._by_kid:
            return [self._by_kid[kid]]
        return [key for name, key in self._by_kid.items() if not name]

    def has(self, kid: object) -> bool:
        """Whether a key goes by that name; of what has none, or has another form, it is true."""
        return not isinstance(kid, str) or kid in self._by_kid or "" in self._by_kid


def _keys_of(secret: bytes, algorithms: Sequence[str]) -> _Keys:
    """A shared secret, a public key in PEM, or a JWK or a set of them in JSON.

    A public key is never one for HMAC, whatever the token says.
    """
    if not secret:
        raise ConfigError("the secret is empty")
    symmetric = [name for name in algorithms if name in _SYMMETRIC]
    asymmetric = [name for name in algorithms if name not in _SYMMETRIC]
    text = secret.strip()
    if text.startswith(b"-----BEGIN"):
        return _Keys({"": (_pem_key(text), _only(asymmetric, "a public key"))})
    if text.startswith(b"{"):
        return _Keys(_jwks(text, _only(asymmetric, "a public key")))
    return _Keys({"": (secret, _only(symmetric, "a shared secret"))})


def _only(algorithms: list[str], what: str) -> list[str]:
    if not algorithms:
        raise ConfigError(f"{what} is not what this scheme is verified with")
    return algorithms


def _pem_key(text: bytes) -> Any:
    from cryptography.hazmat.primitives import serialization

    try:
        return serialization.load_pem_public_key(text)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"the public key can't be read: {error}") from None


def _jwks(text: bytes, algorithms: list[str]) -> dict[str, tuple[Any, list[str]]]:
    import jwt

    try:
        table = json.loads(text)
        listed = table.get("keys", [table])
        if len(listed) > _MAX_KEYS:
            raise ConfigError(f"{len(listed)} keys in the set, limit {_MAX_KEYS}")
        found = {}
        for entry in listed:
            name = entry.get("alg") or _BY_CURVE.get(entry.get("crv"), algorithms[0])
            try:
                key = jwt.PyJWK(entry, name)
            except jwt.PyJWTError:
                if "keys" not in table:
                    raise
                continue  # a set may have keys of kinds that nobody here knows (RFC 7517 §5)
            if key.algorithm_name in algorithms and entry.get("use", "sig") == "sig":
                found[str(entry.get("kid", ""))] = (key.key, [key.algorithm_name])
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"the key set can't be read: {error}") from None
    if not found:
        raise ConfigError(f"the key set has no key for {', '.join(algorithms)}")
    return found
