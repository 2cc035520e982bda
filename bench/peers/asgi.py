"""Bare ASGI, for uvicorn and Granian: no framework, no routing worth the name."""

from bench.peers.checking import HEADER, Counts, decode, is_genuine

counts = Counts()
_HEADER = HEADER.encode()


async def _answer(send, status, body=b""):
    length = str(len(body)).encode()
    headers = [(b"content-length", length)]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def app(scope, receive, send):
    """ASGI 3."""
    if scope["type"] != "http":
        return
    if scope["path"] == "/counts":
        await _answer(send, 200, counts.shown().encode())
        return
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    signature = b""
    for name, value in scope["headers"]:
        if name == _HEADER:
            signature = value
    if not is_genuine(body, signature):
        counts.refused += 1
        await _answer(send, 401)
        return
    decode(body)
    counts.accepted += 1
    await _answer(send, 202)
