"""Robyn, one process with one worker.

python -m bench.peers.robyn_app PORT
"""

import sys

from robyn import Request, Response, Robyn

from bench.peers.checking import HEADER, PATH, Counts, decode, is_genuine

port = int(sys.argv.pop(1))  # Robyn reads the rest
app = Robyn(__file__)
counts = Counts()


@app.get("/counts")
async def counts_so_far() -> str:
    return counts.shown()


@app.post(PATH)
async def hook(request: Request) -> Response:
    body = request.body if isinstance(request.body, bytes) else request.body.encode()
    if not is_genuine(body, request.headers.get(HEADER) or ""):
        counts.refused += 1
        return Response(status_code=401, headers={}, description="")
    decode(body)
    counts.accepted += 1
    return Response(status_code=202, headers={}, description="")


if __name__ == "__main__":
    app.start(host="127.0.0.1", port=port)
