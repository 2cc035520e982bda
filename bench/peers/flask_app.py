"""Flask, for gunicorn's threads."""

import threading

from flask import Flask, Response, request

from bench.peers.checking import HEADER, PATH, Counts, decode, is_genuine

app = Flask(__name__)
counts = Counts()
_lock = threading.Lock()


@app.get("/counts")
def counts_so_far() -> Response:
    return Response(counts.shown(), mimetype="application/json")


@app.post(PATH)
def hook() -> tuple[str, int]:
    body = request.get_data(cache=False)
    if not is_genuine(body, request.headers.get(HEADER, "")):
        with _lock:
            counts.refused += 1
        return "", 401
    decode(body)
    with _lock:
        counts.accepted += 1
    return "", 202
