"""A hook → its endpoint and handler, as text; its secrets; and what behaves otherwise."""

import json
import re
from typing import Any, Final, NamedTuple

from fasthook.cli.importing.hooks import MARKED, Argument, Hook
from fasthook.cli.importing.rules import CantImport, Trigger

#: Where senders that are known say which event it is: webhook does not ask.
_IDS: Final = ("X-GitHub-Delivery", "X-Gitea-Delivery", "X-Gogs-Delivery", "X-Gitlab-Event-UUID")
_TYPES: Final = ("X-GitHub-Event", "X-Gitea-Event", "X-Gogs-Event", "X-Gitlab-Event", "X-Event-Key")
_SOURCES: Final = {
    "entire-payload": "payload",
    "entire-headers": "headers",
    "entire-query": "query",
    "raw-request-body": "body",
}
_REQUEST: Final = {"method": "method", "remote-addr": "client"}


class Written(NamedTuple):
    """One hook."""

    name: str  # of its endpoint and handler
    text: str
    secrets: dict[str, str]  # file → what is in it
    notes: list[str]  # what behaves otherwise


def written(hook: Hook, prefix: str) -> Written:
    """Raises `CantImport`."""
    notes: list[str] = []
    name = re.sub(r"[^A-Za-z0-9._-]", "-", hook.id).lstrip("._-")[:50]
    if not name:
        raise CantImport("its id has no letter or digit")
    path = f"/{prefix}/{hook.id}" if prefix else f"/{hook.id}"
    if not re.fullmatch(r"[!-~]+", path) or "?" in path:
        raise CantImport(f"its path {path!r} is none that an endpoint can have")
    methods = [method.strip().upper() for method in hook.http_methods]
    if methods and "POST" not in methods:
        raise CantImport(f"http-methods {', '.join(methods)}: an endpoint takes POST")
    _refuse_json_strings(hook)
    trigger = Trigger(hook.trigger_rule, is_soft=hook.trigger_signature_soft_failures)
    _check_marks(hook, trigger)
    endpoint: dict[str, Any] = {"name": name, "path": path}
    endpoint["provider"] = "custom" if trigger.scheme else "none"
    secrets = _secrets(name, trigger)
    if secrets:
        endpoint["secrets"] = list(secrets)
    if trigger.allow:
        endpoint["allow"] = trigger.allow
    code = hook.success_http_response_code or 200
    if 200 <= code <= 299:
        endpoint["status"] = code
    endpoint["content"] = ["json", "form", "multipart", "any"]
    endpoint["handlers"] = [{"name": name, "when": trigger.when}] if trigger.when else [name]
    lines = ["[[endpoint]]", *_lines(endpoint)]
    if trigger.scheme:
        scheme = dict(trigger.scheme)
        scheme["event_id"] = [f"header:{header}" for header in _IDS]
        scheme["event_type"] = [f"header:{header}" for header in _TYPES]
        lines += ["", "[endpoint.scheme]", *_lines(scheme)]
    lines += ["", f"[handlers.{_key(name)}]", *_lines(_handler(hook, notes))]
    notes += trigger.notes + _differences(hook, trigger, methods)
    files = {file: text for file, text in secrets.items() if file.startswith("file:")}
    return Written(name, "\n".join(lines) + "\n", files, notes)


def _secrets(name: str, trigger: Trigger) -> dict[str, str]:
    """How the configuration refers to each, and what is in its file."""
    found: dict[str, str] = {}
    for number, secret in enumerate(trigger.secrets):
        marked = MARKED.fullmatch(secret)
        suffix = f"-{number + 1}" if number else ""
        found[f"{marked[1]}:{marked[2]}" if marked else f"file:secrets/{name}{suffix}"] = secret
    return found


def _check_marks(hook: Hook, trigger: Trigger) -> None:
    """A template stands for a secret, and for nothing else."""
    others = [hook.id, hook.execute_command, hook.command_working_directory, trigger.when]
    arguments = (
        *hook.pass_arguments_to_command,
        *hook.pass_environment_to_command,
        *hook.pass_file_to_command,
    )
    others += [text for one in arguments for text in (one.name, one.envname)]
    others += [*trigger.allow, json.dumps(trigger.scheme, ensure_ascii=False)]
    if any("\ue000" in text for text in others):
        raise CantImport("a template elsewhere than in a signature's secret or a token")


def _refuse_json_strings(hook: Hook) -> None:
    if hook.parse_parameters_as_json:
        names = ", ".join(one.name for one in hook.parse_parameters_as_json)
        raise CantImport(
            f"parse-parameters-as-json ({names}): JSON within a text; `fasthook providers` knows "
            "senders that have it, such as github and slack"
        )


def _handler(hook: Hook, notes: list[str]) -> dict[str, Any]:
    made: dict[str, Any] = {"use": "exec", "command": [hook.execute_command]}
    if hook.command_working_directory:
        made["directory"] = hook.command_working_directory
    if hook.pass_arguments_to_command:
        made["arguments"] = [_value(one, notes) for one in hook.pass_arguments_to_command]
    variables = {
        one.envname or f"HOOK_{one.name}": _value(one, notes)
        for one in hook.pass_environment_to_command
    }
    files = {
        one.envname or f"HOOK_{one.name.upper()}": ("base64:" if one.base64decode else "")
        + _value(one, notes)
        for one in hook.pass_file_to_command
    }
    if variables:
        made["variables"] = variables
    if files:
        made["files"] = files
        notes.append("files for the command are in a folder of their own, not in its directory")
    return made | {"retries": 0, "timeout": "1h", "concurrency": 16}


def _value(one: Argument, notes: list[str]) -> str:
    if one.source == "string":
        return one.name.replace("{", "{{").replace("}", "}}")
    if one.source in _SOURCES:
        if one.source == "entire-headers":
            notes.append("entire-headers: names are in lower case")
        return f"{{{_SOURCES[one.source]}}}"
    if one.source == "request" and one.name.lower() in _REQUEST:
        if one.name.lower() == "remote-addr":
            notes.append("remote-addr: the client's address, without a port")
        return f"{{{_REQUEST[one.name.lower()]}}}"
    kinds = {"payload": "payload", "header": "header", "url": "query", "query": "query"}
    if one.source not in kinds or not one.name or re.search(r"[{}]", one.name):
        raise CantImport(f"source {one.source!r} with the name {one.name!r}")
    return f"{{{kinds[one.source]}.{one.name}}}"


def _differences(hook: Hook, trigger: Trigger, methods: list[str]) -> list[str]:
    """What a request is told, and what is done, otherwise."""
    notes = []
    if methods != ["POST"]:
        others = ", ".join(m for m in methods if m != "POST") or "GET and all others"
        notes.append(f"only POST is taken; {others} gets 405")
    said = [
        (hook.response_message, "response-message"),
        (hook.response_headers, "response-headers"),
        (hook.include_command_output_in_response, "include-command-output-in-response"),
        (hook.include_command_output_in_response_on_error, "…-on-error"),
    ]
    if left := [text for value, text in said if value]:
        notes.append(f"{', '.join(left)}: the answer has no body; it is sent before the command")
    code = hook.success_http_response_code or 200
    if not 200 <= code <= 299:
        notes.append(f"success-http-response-code {code}: the answer is 202")
    if trigger.when or trigger.scheme or trigger.allow:
        mismatch = hook.trigger_rule_mismatch_http_response_code or 200
        answers = ["403 to other addresses"] if trigger.allow else []
        answers += ["401 to what is not genuine"] if trigger.scheme else []
        answers += ["as success where a condition is not true"] if trigger.when else []
        notes.append(f"rules not satisfied: {', '.join(answers)}; webhook: {mismatch}")
    if trigger.scheme:
        notes.append(
            "a request with the same id and body as an earlier one is a duplicate within "
            "`retention`, and not run again; without an id of GitHub, Gitea, Gogs or GitLab the "
            "body alone counts: name the header that has one in event_id"
        )
    else:
        notes.append("nothing is verified: whoever can reach it can have events stored")
    if hook.incoming_payload_content_type:
        notes.append("incoming-payload-content-type: what the sender says counts")
    notes.append(
        "the command has the body on its input, and of the service's environment only PATH, HOME "
        "and the like; it is ended after an hour; 16 run at once; it is not retried"
    )
    return notes


# --- TOML -----------------------------------------------------------------------------------------


def _lines(table: dict[str, Any]) -> list[str]:
    return [f"{_key(key)} = {_toml(value)}" for key, value in table.items()]


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(k)} = {_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    # JSON's texts are TOML's, but for DEL, which TOML wants to be written otherwise.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
