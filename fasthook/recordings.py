"""Recorded events: a file for each, which `fasthook export` writes and tests of handlers read.

JSON, indented, so that a diff shows what changed: who sent it, type, id, headers, and one of
`payload` (what the JSON of the body holds), `form` (names and values), `body` (text) or
`body_base64`. There is no signature: it is made anew where one is wanted.
"""

import base64
import json
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

import msgspec

from fasthook.errors import ConfigError

VERSION: Final = 1
FORM_TYPE: Final = "application/x-www-form-urlencoded"


class Recording(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event, as its sender meant it."""

    version: int
    provider: str
    endpoint: str = ""
    scheme: str = ""  # of the provider's, where it is not the first
    type: str = ""
    id: str = ""
    received_at: str = ""
    redacted: bool = False
    headers: dict[str, str] = {}
    payload: Any = msgspec.UNSET
    form: list[tuple[str, str]] | None = None
    body: str | None = None
    body_base64: str | None = None
    missing: str = ""  # in a line of `export`: why there is no body

    @property
    def content(self) -> bytes:
        """The body: of JSON without the spaces that its sender may have sent."""
        if self.payload is not msgspec.UNSET:
            return json.dumps(self.payload, ensure_ascii=False, separators=(",", ":")).encode()
        if self.form is not None:
            return urlencode(self.form).encode()
        if self.body_base64 is not None:
            return base64.b64decode(self.body_base64)
        return (self.body or "").encode()


def body_values(headers: dict[str, str], body: bytes) -> dict[str, Any]:
    """How a recording holds this body: the one of its last four that reads best."""
    try:
        if FORM_TYPE in headers.get("content-type", "").lower():
            pairs = parse_qsl(body.decode("ascii"), True, strict_parsing=True, errors="strict")
            return {"form": pairs}
        value = json.loads(body)
        json.dumps(value, allow_nan=False)
        return {"payload": value}
    except (ValueError, RecursionError):
        pass
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(body).decode()}


def written(recording: Recording) -> bytes:
    """The file's content."""
    values = msgspec.to_builtins(recording)
    return json.dumps(values, ensure_ascii=False, indent=2).encode() + b"\n"


def read(path: Path) -> list[Recording]:
    """The events of a file: one, or of a .jsonl one a line. Raises `ConfigError`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise ConfigError(f"{path}: {reason}") from None
    pieces = text.splitlines() if path.suffix == ".jsonl" else [text]
    return [_read(piece, f"{path}:{number}") for number, piece in enumerate(pieces, 1)]


def _read(text: str, where: str) -> Recording:
    try:
        values = json.loads(text)
        if isinstance(values, dict) and "state" in values:  # a line of `export`, for any program
            values = {k: v for k, v in values.items() if v is not None} | {"version": VERSION}
        recording = msgspec.convert(values, Recording)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: no recorded event: {error}") from None
    if recording.version != VERSION:
        raise ConfigError(
            f"{where}: recorded in version {recording.version}; expected {VERSION}: "
            "export it again with this fasthook"
        )
    return recording
