"""A trigger rule → what verifies, who may send, and a condition on the event.

`Evaluate` in hook.go of adnanh/webhook 2.8 is what this has to agree with: a value that is not
there ends an `and`, is passed over by an `or`, and makes a `not` true that stands alone.
"""

import ipaddress
import json
import re
from collections.abc import Callable
from typing import Any, Final

from fasthook.cli.importing.hooks import Argument, Match, Rule
from fasthook.conditions import BadExpression, Condition

_HMAC: Final = re.compile(r"payload-(?:hmac|hash)-(sha1|sha256|sha512)")
_QUERY: Final = ("url", "query")
#: What is compared with a value that is a secret, by its name.
_SECRET_NAME: Final = re.compile(r"token|secret|key|auth|signature|password|hmac", re.IGNORECASE)
_WORDS: Final = frozenset(
    (
        *("as", "break", "const", "continue", "else", "false", "for", "function", "if", "import"),
        *("in", "let", "loop", "namespace", "null", "package", "return", "true", "var", "void"),
        "while",
    )
)


class CantImport(Exception):
    """Nothing in a configuration says the same."""


class Trigger:
    """What a rule comes to."""

    def __init__(self, rule: Rule | None, *, is_soft: bool) -> None:
        """`is_soft`: trigger-signature-soft-failures. Raises `CantImport`."""
        self._is_soft = is_soft
        self.scheme: dict[str, Any] = {}  # `[endpoint.scheme]`; empty: nothing is verified
        self.secrets: list[str] = []
        self.allow: list[str] = []
        self.notes: list[str] = []
        condition = _true if rule is None or rule.and_ is None else _ok
        conditions = [condition(part) for part in _flat(rule) if not self._is_verified(part)]
        self.when = " && ".join(conditions)
        try:
            if self.when:
                Condition(self.when)
        except BadExpression as error:
            raise CantImport(f"the condition {self.when}: {error}") from None
        if "require" in self.scheme:
            self.notes.append("a token beside another one or a signature stands in fasthook.toml")
        if _SECRET_NAME.search(self.when):
            self.notes.append(
                "`when` may hold a secret: it stands in fasthook.toml, and where `show` says why a "
                "handler did not run"
            )

    def _is_verified(self, part: Rule) -> bool:
        """Whether it is no condition."""
        return self._signature(part) or self._network(part) or self._token(part)

    def _signature(self, part: Rule) -> bool:
        found = _all_that(_is_signature, part)
        if not found:
            return False
        schemes = [_scheme(m) for m in found]
        if any(scheme != schemes[0] for scheme in schemes) or self.scheme:
            raise CantImport("two signatures of different kinds: an endpoint has one")
        if len(found) > 1 and not self._is_soft:
            self.notes.append(
                "of several signatures, webhook tries the first alone without "
                "trigger-signature-soft-failures; so does this"
            )
            found = found[:1]
        self.scheme, self.secrets = schemes[0], [m.secret for m in found]
        if not all(self.secrets):
            raise CantImport("a signature without a secret is never right")
        return True

    def _network(self, part: Rule) -> bool:
        found = _all_that(lambda match: match.type == "ip-whitelist", part)
        if not found:
            return False
        networks = [network for match in found for network in match.ip_range.split()]
        if not networks:
            raise CantImport("an ip-whitelist without an ip-range is never right")
        if self.allow:
            raise CantImport("two ip-whitelist rules, both of which have to be true")
        for network in networks:
            try:
                ipaddress.ip_network(network, strict=False)
            except ValueError as error:
                raise CantImport(f"ip-range: {error}") from None
        self.allow = networks
        self.notes.append(
            "ip-whitelist: behind a proxy in `trusted_proxies` it is the client's address that "
            "counts; webhook looks at the proxy's"
        )
        return True

    def _token(self, part: Rule) -> bool:
        """A value that is compared, and that no condition can see, or should hold."""
        match = _match(part)
        if match is None or match.type != "value" or match.parameter is None:
            return False
        source, name = match.parameter.source, match.parameter.name
        is_secret = source == "header" and _SECRET_NAME.search(name) is not None
        if not (source in _QUERY or is_secret):
            return False
        if not match.value:
            raise CantImport(f"{source} {name}: compared with nothing")
        if self.scheme:
            selector = f"header:{name}" if source == "header" else f"query:{name}"
            self.scheme.setdefault("require", {})[selector] = match.value
            return True
        self.scheme = {"kind": "token"}
        self.scheme |= {"header": name} if source == "header" else {"signature": f"query:{name}"}
        self.secrets = [match.value]
        return True


def _flat(rule: Rule | None) -> list[Rule]:
    """What all has to be true; signatures first, for what else is asked needs to know of them."""
    if rule is None:
        return []
    if rule.and_ is None:
        return [rule]
    parts = [part for one in rule.and_ for part in _flat(one)]
    return sorted(parts, key=lambda part: not _has_signature(part))


def _has_signature(rule: Rule) -> bool:
    if (match := _match(rule)) is not None:
        return _is_signature(match)
    return any(map(_has_signature, rule.or_ or ()))


def _match(rule: Rule) -> Match | None:
    """What counts of a rule, if that is a match."""
    is_other = rule.and_ is not None or rule.or_ is not None or rule.not_ is not None
    return None if is_other else rule.match


def _all_that(is_one: Callable[[Match], bool], rule: Rule) -> list[Match]:
    """The matches of a rule, or of its or, if each of them is one; else none."""
    each = rule.or_ if rule.or_ and not rule.and_ else [rule]
    found = [match for match in map(_match, each) if match is not None and is_one(match)]
    return found if len(found) == len(each) else []


def _is_signature(match: Match) -> bool:
    return _HMAC.fullmatch(match.type) is not None or _is_scalr(match)


def _is_scalr(match: Match) -> bool:
    return match.type == "scalr-signature"


def _scheme(match: Match) -> dict[str, Any]:
    if _is_scalr(match):
        return {
            "header": "X-Signature",
            "hash": "sha1",
            "message": "{body}{header:Date}",
            "timestamp": "header:Date",
            "timestamp_unit": "http-date",
            "tolerance": "5m",
        }
    found, parameter = _HMAC.fullmatch(match.type), match.parameter
    if found is None or parameter is None:
        raise CantImport(f"{match.type}: there is no parameter")
    if parameter.headers_to_add_to_signature_payload:
        raise CantImport("headers-to-add-to-signature-payload")
    scheme: dict[str, Any] = {"hash": found[1], "prefix": [f"{found[1]}=", ""]}
    if parameter.source == "header":
        return {"header": parameter.name} | scheme
    if parameter.source in _QUERY:
        return {"signature": f"query:{parameter.name}"} | scheme
    if parameter.source == "payload":
        return {"signature": f"json:{parameter.name}"} | scheme
    raise CantImport(f"a signature in {parameter.source!r}")


# --- conditions -----------------------------------------------------------------------------------


def _true(rule: Rule) -> str:
    """When it is true, standing alone."""
    if rule.and_ is not None:
        return _joined(" && ", [_ok(one) for one in rule.and_])
    if rule.or_ is not None:
        return _joined(" || ", [_true(one) for one in rule.or_])
    if rule.not_ is not None:
        return f"!({_true(rule.not_)})"
    if rule.match is None:
        return "false"
    there, holds = _condition(rule.match)
    return _joined(" && ", [*there, holds])


def _ok(rule: Rule) -> str:
    """When it is true, and nothing that it asks for is missing."""
    if rule.and_ is None and rule.or_ is None and rule.not_ is not None:
        inner = rule.not_
        while inner.and_ is None and inner.or_ is None and inner.not_ is not None:
            inner = inner.not_
        if inner.and_ is not None:
            raise CantImport("a not around an and, within an and")
        if (match := _match(inner)) is not None:
            there, _ = _condition(match)
            return _joined(" && ", [*there, _true(rule)])
    return _true(rule)


def _joined(sign: str, parts: list[str]) -> str:
    if not parts:
        return "true" if "&" in sign else "false"
    return parts[0] if len(parts) == 1 else f"({sign.join(parts)})"


def _condition(match: Match) -> tuple[list[str], str]:
    """What has to be there, and what holds of it then."""
    parameter = match.parameter or Argument()
    if match.type not in ("value", "regex"):
        raise CantImport(f"{match.type} within or, not, or beside something else that has to hold")
    if parameter.source == "header":
        name = _text(parameter.name.lower())
        there, value = [f"{name} in headers"], f"headers[{name}]"
    elif parameter.source == "payload":
        there, place = _place(parameter.name)
        value = f"string({place})"
        if match.type == "regex" or match.value in ("true", "false"):
            # The library's `string` knows no booleans.
            value = f'(type({place}) == type(true) ? ({place} ? "true" : "false") : {value})'
    else:
        raise CantImport(f"a condition on {parameter.source!r} within or, not, or as a regex")
    if match.type == "regex":
        return there, f"{value}.matches({_text(match.regex)})"
    return there, f"{value} == {_text(match.value)}"


def _place(path: str) -> tuple[list[str], str]:
    """What has to be there for a path of the payload, and how CEL calls its value."""
    there, place = list[str](), "payload"
    for name in path.split("."):
        if name.isdecimal():
            there.append(f"size({place}) > {int(name)}")
            place = f"{place}[{int(name)}]"
        elif re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) and name not in _WORDS:
            there.append(f"has({place}.{name})")
            place = f"{place}.{name}"
        else:
            there.append(f"{_text(name)} in {place}")
            place = f"{place}[{_text(name)}]"
    return there, place


def _text(text: str) -> str:
    """As CEL has it."""
    return json.dumps(text, ensure_ascii=False)
