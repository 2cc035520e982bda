"""`fasthook export`: events as lines of JSON, or as files for tests."""

import contextlib
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Final

import click
import msgspec
from rich.console import Console
from rich.progress import track

from fasthook.cli.reading import (
    Spool,
    body_facts,
    echo_json,
    facts,
    fail,
    filter_of,
    filter_options,
    opens_spool,
    say,
)
from fasthook.cli.show import kept_facts
from fasthook.errors import BadPayload, BodyTooLarge
from fasthook.intake.inflating import gunzipped
from fasthook.logs import one_line
from fasthook.model import iso
from fasthook.recordings import FORM_TYPE, VERSION, Recording, body_values, written
from fasthook.redacting.keys import kind_of
from fasthook.redacting.redactor import Redactor
from fasthook.spool.found import Found, Kept
from fasthook.spool.records import ERASED
from fasthook.stored import Headers

#: Of the way that a request took, and no part of the event; they would be wrong in another body.
_TRANSPORT: Final = frozenset(
    (
        *("accept", "accept-encoding", "connection", "content-length", "expect", "from", "host"),
        *("keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "via"),
    )
)
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")
_MAX_NAME_CHARS: Final = 80
_NO_FORM: Final = "neither JSON nor a form; --all-bodies takes them, too"


@click.command("export")
@filter_options(has_states=True)
@click.option("--limit", type=click.IntRange(1), help="The newest of them, so many; else all.")
@click.option(
    "--out",
    "--output",
    "output",
    type=click.Path(path_type=Path),
    help="A file for lines; or a directory (no suffix): a file for each event, for tests.",
)
@click.option("--redact", is_flag=True, help="Replace personal data and secrets by pseudonyms.")
@click.option("--keep", multiple=True, metavar="PATH", help="Not there: payload.repository.name")
@click.option(
    "--redact-also", multiple=True, metavar="PATH", help="And there: payload.items.*.note"
)
@click.option("--all-bodies", is_flag=True, help="With --redact: also neither JSON nor a form.")
@opens_spool
def command(spool: Spool, as_json: bool, output: Path | None, **options: Any) -> None:
    """Write events, oldest first, with headers and body.

    Headers that hold signatures or tokens are left out. --redact replaces what looks like personal
    data or a secret by something of the same form, the same for the same value throughout one
    export; free text may hold more.
    """
    exporter = _Exporter(spool, options)
    wanted, limit = filter_of(options), options["limit"]
    found: Iterable[Found] = (
        reversed(spool.reader.newest(wanted, limit)) if limit else spool.reader.oldest_first(wanted)
    )
    if output is None:
        _write_lines(exporter, found, sys.stdout.buffer)
    else:
        console = Console(stderr=True)
        if console.is_terminal:
            found = track(found, "exporting", transient=True, console=console)
        try:
            if output.is_dir() or not output.suffix:
                _write_files(exporter, found, output)
            else:
                with _whole(output, is_private=exporter.redactor is None) as file:
                    _write_lines(exporter, found, file)
        except OSError as error:
            fail(f"{error.filename or output}: {error.strerror}")
    if not exporter.count:
        spool.check_endpoint(wanted.endpoint)
    _sum_up(exporter, output, as_json)


class _Exporter:
    """Events as they are written."""

    def __init__(self, spool: Spool, options: dict[str, Any]) -> None:
        """Raises `UsageError`."""
        self.spool = spool
        self.redactor: Redactor | None = None
        self.count = 0
        self.left_out: Counter[str] = Counter()
        self._headers = Headers(spool.settings)
        self._has_all_bodies = options["all_bodies"]
        self._schemes = {
            endpoint.name: endpoint.scheme
            for endpoint in spool.settings.endpoint
            if isinstance(endpoint.scheme, str)
        }
        if options["redact"]:
            try:
                self.redactor = Redactor(options["keep"], options["redact_also"])
            except ValueError as error:
                raise click.UsageError(str(error)) from None
        elif options["keep"] or options["redact_also"] or options["all_bodies"]:
            raise click.UsageError("--keep, --redact-also and --all-bodies: expected with --redact")

    def line(self, delivery: Found) -> dict[str, Any] | None:
        """All that is known of it; None: left out."""
        kept = self.spool.reader.kept(delivery.position)
        values = facts(delivery) | kept_facts(kept, self._headers)
        if self.redactor is None:
            self.count += 1
            return values
        for name in ("client", "body", "body_base64"):
            values.pop(name, None)
        values |= {"id": self.redactor.text(delivery.event_id), "redacted": True}
        if kept is None or kept.kind == ERASED:
            self.count += 1
            return values
        event = self._redacted(kept)
        return values | {"headers": event[0]} | body_facts(event[1]) if event is not None else None

    def recording(self, delivery: Found) -> Recording | None:
        """The event alone; None: left out."""
        kept = self.spool.reader.kept(delivery.position)
        if kept is None or kept.kind == ERASED:
            self.left_out["erased, or gone with their segment"] += 1
            return None
        event = self._redacted(kept)
        if event is None:
            return None
        headers, body = event
        event_id = delivery.event_id
        return Recording(
            version=VERSION,
            provider=kept.accepted.provider,
            endpoint=delivery.endpoint,
            scheme=self._schemes.get(delivery.endpoint, ""),
            type=delivery.event_type,
            id=self.redactor.text(event_id) if self.redactor is not None else event_id,
            received_at=iso(delivery.received_at_ns) or "",
            redacted=self.redactor is not None,
            headers=headers,
            **body_values(headers, body),
        )

    def _redacted(self, kept: Kept) -> tuple[dict[str, str], bytes] | None:
        """Headers and body, replaced where that is wanted; None: left out."""
        headers = {
            name: value
            for name, value in self._headers.public(kept.head).items()
            if not _is_of_the_way(name)
        }
        body = kept.body
        if headers.get("content-encoding") == "gzip":  # what a handler gets is unpacked
            with contextlib.suppress(BadPayload, BodyTooLarge):  # it is none: as it came
                body = gunzipped(body, sys.maxsize)  # it was within bounds when it came
                del headers["content-encoding"]
        if self.redactor is not None:
            try:
                body = self._redacted_body(headers, body)
            except BadPayload:
                self.left_out[_NO_FORM] += 1
                return None
            headers = {name: self.redactor.header(name, value) for name, value in headers.items()}
        self.count += 1
        return headers, body

    def _redacted_body(self, headers: dict[str, str], body: bytes) -> bytes:
        assert self.redactor is not None  # noqa: S101 - asked by the caller
        try:
            if FORM_TYPE in headers.get("content-type", "").lower():
                return self.redactor.form(body)
            return self.redactor.json(body)
        except BadPayload:
            if not self._has_all_bodies:
                raise
        try:
            return self.redactor.text(body.decode()).encode()
        except UnicodeDecodeError:
            return body


def _is_of_the_way(name: str) -> bool:
    """Whether a header is about the connection, or about whose it was."""
    return name in _TRANSPORT or "forwarded" in name or kind_of(name) == "ip"


def _write_lines(exporter: _Exporter, found: Iterable[Found], file: IO[bytes]) -> None:
    for delivery in found:
        values = exporter.line(delivery)
        if values is not None:
            file.write(one_line(msgspec.json.encode(values).decode()).encode() + b"\n")
    file.flush()


def _write_files(exporter: _Exporter, found: Iterable[Found], directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for delivery in found:
        recording = exporter.recording(delivery)
        if recording is None:
            continue
        what = _UNSAFE.sub("_", f"{delivery.endpoint}-{delivery.event_type}")[:_MAX_NAME_CHARS]
        path = directory / f"{what}-{delivery.name}.json"
        with _whole(path, is_private=not recording.redacted) as file:
            file.write(written(recording))


@contextlib.contextmanager
def _whole(path: Path, *, is_private: bool) -> Iterator[IO[bytes]]:
    """A file to write that has its name once it is whole: nobody must read a part of it."""
    part = path.with_name(path.name + ".part")
    mode = 0o600 if is_private else 0o666  # what is redacted goes into a repository: by the umask
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            yield file
        part.replace(path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def _sum_up(exporter: _Exporter, output: Path | None, as_json: bool) -> None:
    """Counts, and never a value."""
    redactor = exporter.redactor
    replaced = redactor.counts if redactor is not None else {}
    if as_json and output is not None:
        echo_json({"events": exporter.count, "left_out": exporter.left_out, "replaced": replaced})
    elif output is not None:
        say(f"{exporter.count} events in {output}")
    for reason, count in exporter.left_out.items():
        say(f"left out: {count} ({reason})")
    if redactor is None:
        return
    counts = ", ".join(f"{count} {kind}" for kind, count in replaced.items())
    say(f"replaced: {counts or 'nothing'}")
    for path in redactor.unused:
        say(f"warning: nothing stands at {path}")
    say("warning: free text may hold more: read what was written before you share it")
