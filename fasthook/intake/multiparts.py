"""Bodies of several parts (multipart/form-data, RFC 7578): their fields, and what is signed there.

A field is text, or where it is none the bytes. A file is `{"filename": …, "content_type": …,
"content": bytes}`. What comes several times is a list.
"""

from typing import Any, Final
from urllib.parse import urlencode

from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from fasthook.errors import BadPayload, NoSignature
from fasthook.intake.payloads import form_fields
from fasthook.intake.schemes import Scheme
from fasthook.intake.signatures import Verifier
from fasthook.intake.templates import Selector, Template
from fasthook.model import Request

#: Parts of a body, headers of a part, bytes of one header and of all headers of all parts. Beyond:
#: 400. A megabyte of headers would hold the loop for 150 ms, and where the signature stands in a
#: field nobody has verified them yet; contents are found at the speed of memory, and are no more
#: than the body has.
MAX_PARTS: Final = 256
MAX_PART_HEADERS: Final = 8
MAX_PART_HEADER_BYTES: Final = 4096
MAX_HEADER_BYTES: Final = 32 * 1024


def multipart_fields(content_type: bytes, body: bytes) -> dict[str, Any]:
    """The fields by name. Raises `BadPayload`."""
    text = content_type.decode("latin-1")
    _, options = parse_options_header(text)  # type: ignore[no-untyped-call]
    boundary = options.get("boundary", "")
    if not boundary:
        raise BadPayload("the body is multipart, but its content type names no boundary")
    found: dict[str, list[Any]] = {}
    try:
        parser = PushMultipartParser(
            boundary,
            max_header_size=MAX_PART_HEADER_BYTES,
            max_header_count=MAX_PART_HEADERS,
            max_segment_count=MAX_PARTS,
            strict=True,
        )
        with parser:
            for segment, data in _parts(parser, body):
                found.setdefault(segment.name or "", []).append(_value(segment, data))
    except (MultipartError, ValueError) as error:
        raise BadPayload(f"the multipart body can't be read: {error}") from None
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def _parts(parser: PushMultipartParser, body: bytes) -> list[tuple[MultipartSegment, bytes]]:
    parts: list[tuple[MultipartSegment, bytes]] = []
    segment: MultipartSegment | None = None
    data: list[bytes] = []
    header_bytes = 0
    for event in parser.parse(body):
        if isinstance(event, MultipartSegment):
            segment, data = event, []
            header_bytes += sum(len(name) + len(value) for name, value in event.headerlist)
            if header_bytes > MAX_HEADER_BYTES:
                raise ValueError(f"the parts have more than {MAX_HEADER_BYTES} bytes of headers")
        elif event:
            data.append(bytes(event))
        elif segment is not None:
            parts.append((segment, b"".join(data)))
    return parts


def _value(segment: MultipartSegment, data: bytes) -> Any:
    if segment.filename is not None:
        kind = segment.content_type or "application/octet-stream"
        return {"filename": segment.filename, "content_type": kind, "content": data}
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data  # in another charset, which may stand in another field


# --- signatures -----------------------------------------------------------------------------------


class PartsVerifier:
    """Verifies what is signed inside the fields of a form, whichever way the form is written."""

    def __init__(self, verifier: Verifier, form_payload: str) -> None:
        """`form_payload`: the field that holds the event as JSON, or ""."""
        self._verifier = verifier
        self._form_payload = form_payload

    def verify(self, request: Request, now_s: float) -> int:
        """See `Verifier`."""
        return self._verifier.verify(flattened(request, self._form_payload), now_s)


def looks_into_parts(verifier: Verifier, scheme: Scheme, form_payload: str) -> Verifier:
    """The verifier, made to find what the scheme signs in the fields of multipart bodies, too.

    A scheme that signs the bytes of the body has no need of it.
    """
    if scheme.covers_body or scheme.kind == "code":
        return verifier
    texts = [scheme.signature, scheme.timestamp, *scheme.require]
    selectors = [Selector.parse(text) for text in texts if text]
    selectors += Template(scheme.message).selectors
    kinds = {selector.kind for selector in selectors}
    if "form" in kinds:  # what is signed is a field itself, and not what its JSON holds
        return PartsVerifier(verifier, "")
    if "json" in kinds:
        return PartsVerifier(verifier, form_payload)
    return verifier


def flattened(request: Request, form_payload: str) -> Request:
    """The request with its fields as a plain form, or with the event's JSON, for a body.

    Any other request as it is. Raises `NoSignature` where the fields can't be read.
    """
    kind = request.headers.get(b"content-type", b"")
    media_type = kind.partition(b";")[0].strip().lower()
    try:
        if media_type == b"multipart/form-data":
            fields = multipart_fields(kind, request.body)
        elif media_type == b"application/x-www-form-urlencoded" and form_payload:
            fields = form_fields(request.body)
        else:
            return request
    except BadPayload as error:
        raise NoSignature(str(error)) from None
    inner = fields.get(form_payload) if form_payload else None
    if isinstance(inner, str):
        return _with_body(request, inner.encode())
    texts = {name: value for name, value in fields.items() if isinstance(value, str)}
    return _with_body(request, urlencode(texts).encode())


def _with_body(request: Request, body: bytes) -> Request:
    return Request(
        request.method,
        request.target,
        request.path,
        request.head,
        request.headers,
        request.keep_alive,
        request.repeated,
        body,
    )
