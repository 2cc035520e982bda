"""The hooks of adnanh/webhook, as its files have them (docs/Hook-Definition.md there)."""

import json
import re
from pathlib import Path
from typing import Any, Final

import msgspec

from fasthook.config import text_of
from fasthook.errors import ConfigError

#: In the place of `{{ getenv "NAME" }}`: a file with these is no JSON before they are filled in.
_MARK: Final = "\ue000{}\ue001"
_TEMPLATE: Final = re.compile(
    r"""\{\{-?\s*(getenv|credential)\s+["`]([^"`]+)["`]\s*(\|\s*js\s*)?-?\}\}"""
)
MARKED: Final = re.compile("\ue000(env|credential):([^\ue001]+)\ue001")
_LEFT: Final = re.compile(r"\{\{.*?\}\}", re.DOTALL)


class Argument(msgspec.Struct, forbid_unknown_fields=True, rename="kebab"):
    """A value of the request."""

    source: str = ""
    name: str = ""
    envname: str = ""
    base64decode: bool = False
    headers_to_add_to_signature_payload: list[str] = []


class Match(msgspec.Struct, forbid_unknown_fields=True, rename="kebab"):
    """One condition."""

    type: str
    regex: str = ""
    secret: str = ""
    value: str = ""
    parameter: Argument | None = None
    ip_range: str = ""


class Rule(msgspec.Struct, forbid_unknown_fields=True):
    """One of these; of several the first counts."""

    and_: "list[Rule] | None" = msgspec.field(default=None, name="and")
    or_: "list[Rule] | None" = msgspec.field(default=None, name="or")
    not_: "Rule | None" = msgspec.field(default=None, name="not")
    match: Match | None = None


class Header(msgspec.Struct, forbid_unknown_fields=True):
    """Of an answer."""

    name: str
    value: str


class Hook(msgspec.Struct, forbid_unknown_fields=True, rename="kebab"):
    """One hook."""

    id: str
    execute_command: str
    command_working_directory: str = ""
    response_message: str = ""
    response_headers: list[Header] = []
    success_http_response_code: int = 0
    include_command_output_in_response: bool = False
    include_command_output_in_response_on_error: bool = False
    pass_environment_to_command: list[Argument] = []
    pass_arguments_to_command: list[Argument] = []
    pass_file_to_command: list[Argument] = []
    parse_parameters_as_json: list[Argument] = []
    trigger_rule: Rule | None = None
    trigger_rule_mismatch_http_response_code: int = 0
    trigger_signature_soft_failures: bool = False
    incoming_payload_content_type: str = ""
    http_methods: list[str] = []


def read(path: Path, *, is_template: bool) -> list[Hook]:
    """The hooks of a file, JSON or YAML. Raises `ConfigError`, which says where and what."""
    text = text_of(path)
    if is_template:
        text = _TEMPLATE.sub(lambda m: _MARK.format(f"{_KINDS[m[1]]}:{m[2]}"), text)
        if left := _LEFT.search(text):
            raise ConfigError(
                f'{path}: {left[0]}: of templates, {{{{ getenv "NAME" }}}} and '
                '{{ credential "NAME" }} can be read'
            )
    tree = _tree(path, text)
    try:
        hooks = msgspec.convert(tree, list[Hook], strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {error}") from None
    names = [hook.id for hook in hooks]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{path}: id {name!r} stands there twice")
    return hooks


_KINDS: Final = {"getenv": "env", "credential": "credential"}


def _tree(path: Path, text: str) -> Any:
    if path.suffix.lower() not in (".yaml", ".yml"):
        try:
            return json.loads(text)
        except ValueError as error:
            raise ConfigError(f"{path}: no JSON: {error}; is it a template (--template)?") from None
    try:
        import yaml
    except ImportError:
        raise ConfigError(f"{path}: YAML needs `pip install 'fasthook[yaml]'`") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: no YAML: {' '.join(str(error).split())}") from None
