"""Is the configuration good, are its secrets to be had, can its handlers be imported?"""

import contextlib
import os
import sys
from collections.abc import Iterator

from fasthook import config, plan
from fasthook.cli.doctor.case import CREDENTIALS, Case, Reference, environment_of
from fasthook.cli.doctor.findings import Finding, bad, good, unseen, warning
from fasthook.dispatch import registry
from fasthook.errors import ConfigError
from fasthook.values import Secret

_SUBJECT = "configuration"
_CHECK = "put it right; `fasthook check` says when it is good"


def look(case: Case) -> Iterator[Finding]:
    """Look at the configuration as `check` does; as far as that can be done without secrets."""
    lacking = list(_lacking_secrets(case))
    yield from lacking
    if not lacking:
        yield from _whole(case)
        return
    what = "the rest of the endpoints and handlers' settings, which needs the secrets"
    yield unseen(_SUBJECT, what, "see the lines about secrets")
    yield from _handlers(case)


def _lacking_secrets(case: Case) -> Iterator[Finding]:
    environment = environment_of(case.holder) if case.holder is not None else None
    for each in case.references:
        if each.kind == "plain":
            continue
        try:
            Secret.parse(each.text)
        except ValueError as error:
            yield _lacking(each, str(error), case, environment)


def _lacking(
    each: Reference, reason: str, case: Case, environment: dict[str, str] | None
) -> Finding:
    """A secret that can't be read here: the service itself may be able to."""
    text = f"{each.where}: {reason}"
    if each.kind == "file":
        if os.path.exists(each.name) and not os.access(each.name, os.R_OK):
            return unseen("secrets", text, "run it as root, or as the service's user")
        return bad("secrets", text, "make the file; the secret is what the sender shows or is told")
    source = each.name if each.kind == "env" else CREDENTIALS
    if environment is not None and (source in os.environ or source not in environment):
        cure = "give it to the service, then start that anew"
        if each.kind == "credential":
            cure = f"add LoadCredential={each.name}:FILE to the unit, then start the service anew"
        return bad("secrets", text, cure)
    cure = "run it as root while the service runs: its environment is looked into"
    if each.kind == "env":
        cure = f"set {each.name} here, or {cure}"
    return unseen("secrets", text, cure)


def _whole(case: Case) -> Iterator[Finding]:
    try:
        settings = config.load(case.path.absolute())
        with _quiet(), contextlib.chdir(case.home()):
            made = plan.make(settings)
    except ConfigError as error:
        yield bad(_SUBJECT, str(error), _CHECK)
        return
    for text in made.warnings:
        yield warning(_SUBJECT, text, "see the README, or take no notice if it is meant so")
    endpoints, handlers = len(made.endpoints), ", ".join(one.name for one in made.handlers)
    yield good(_SUBJECT, f"{case.path}: {_count(endpoints, 'endpoint')}; handlers: {handlers}")
    if case.references:
        yield good("secrets", f"{_count(len(case.references), 'secret')} found")


def _handlers(case: Case) -> Iterator[Finding]:
    names = {name for endpoint in case.settings.endpoint for name in endpoint.handler_names}
    for name in sorted(names):
        entry_point = str(case.settings.handlers.get(name, {}).get("use") or name)
        try:
            with _quiet():
                registry.find(entry_point)
        except ConfigError as error:
            cure = "install its package where fasthook is, or correct the name"
            yield bad("handlers", str(error), cure)
        else:
            yield good("handlers", f"{name} can be imported")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Handlers are imported: they may print, and as root they would leave root's files behind."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.dont_write_bytecode = before


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
