"""The shared corpus of HTTP requests, sent to a real listener over real sockets.

Its format is in RELIABILITY.md 1.6. Without the corpus, which is no part of the package, nothing
here runs. Each case goes over a connection of its own: whole, byte by byte, cut at random.
"""

import asyncio
import base64
import contextlib
import itertools
import json
import pathlib
import socket

import pytest

from fasthook.wire.limits import Limits
from fasthook.wire.sockets import open_sockets
from tests.wire import drive

CORPUS = pathlib.Path(__file__).parents[2].parent / "shared" / "vectors" / "http.jsonl"
#: Longer cases are not sent byte by byte but in some pieces.
LONG = 2000
NEVER = (b"smuggled", b"evil", b"pwned")

pytestmark = pytest.mark.skipif(not CORPUS.exists(), reason="the corpus is not there")


def cases():
    with CORPUS.open() as lines:
        for number, line in enumerate(lines):
            case = json.loads(line)
            yield number, case, base64.b64decode(case["raw_b64"])


def pieces_of(raw, way, number):
    if way == "whole" or not raw:
        return [raw]
    if way == "bytes":
        return drive.one_by_one(raw) if len(raw) <= LONG else drive.random_split(raw, number, 20)
    return drive.random_split(raw, number + int(way.removeprefix("random")) * 10_000)


async def converse(client, pieces):
    """Send, say that no more will come, and hear the listener out; whether it reset us."""
    loop = asyncio.get_running_loop()
    heard = b""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for piece in pieces:
            await loop.sock_sendall(client, piece)
            await asyncio.sleep(0)  # the listener's turn
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_WR)
    with contextlib.suppress(ConnectionResetError):
        while data := await loop.sock_recv(client, 65536):
            heard += data
    return heard


def judge(case, raw, way, statuses, recorded):
    """What is wrong with how a case went, or nothing."""
    if any(word in target for _, target, _ in recorded for word in NEVER):
        return "a smuggled request was received"
    if any(status >= 500 and status not in (501, 505) for status in statuses):
        return "a server error"
    allowed = {case["expect"], *case["also"]}
    refused = [status for status in statuses if status >= 400]
    if len(refused) > 1 or (refused and statuses[-1] < 400):
        return "something was said behind a refusal"
    if len(statuses) - len(refused) != len(recorded):
        return "answers and requests do not agree"

    count, expected = len(recorded), case["n"]
    if refused:
        # Version 1.0 is refused; so may be what the corpus would rather take.
        may_be_fewer = b"HTTP/1.0" in raw or "ok" in (case["expect"], *case["also"])
        if f"{refused[0]}-close" not in allowed and str(refused[0]) not in allowed:
            return "refused as something else"
        return "" if count == expected or (may_be_fewer and count < expected) else "wrong count"
    if "ok" in allowed and (count == expected or case["expect"] != "ok"):
        return ""  # where the corpus would rather refuse, its n is 0
    if allowed & {"408-close", "close"} and count == expected:
        return ""  # half-closed in the middle of a request: nobody is there to be told
    if count == expected > 0 and way != "whole":
        return ""  # what followed `Connection: close` came after the end
    return "not refused"


@pytest.mark.parametrize("way", ["whole", "bytes", "random1", "random2", "random3"])
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_every_case_goes_as_the_corpus_says(tmp_path, kind, way):
    address = "tcp://127.0.0.1:0" if kind == "tcp" else f"unix:{tmp_path / 's'}"
    recorded = []
    wrong = []

    def receive(request, connection, number):
        recorded.append((request.method, request.target, request.body))
        return drive.ACCEPTED

    async def main():
        bound = open_sockets(address)
        limits = Limits(head_timeout_s=2, body_timeout_s=2, idle_timeout_s=2)
        async with drive.listening(bound, receive, limits) as listener:
            for number, case, raw in cases():
                recorded.clear()
                client = socket.socket(bound[0].family, socket.SOCK_STREAM)
                with client:
                    client.connect(bound[0].getsockname())
                    client.setblocking(False)
                    if kind == "tcp":
                        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    heard = await converse(client, pieces_of(raw, way, number))
                statuses = [s for s, _, _ in drive.responses(heard) if s != 100]
                if problem := judge(case, raw, way, statuses, recorded):
                    wrong.append(f"{case['id']} {case['label']}: {problem}; {statuses} {recorded}")
            await drive.until(lambda: listener.connections == 0)
            assert listener.failures == []
            assert listener.budget.used == 0

    drive.run(main)
    assert not wrong, "\n".join(itertools.chain([f"{len(wrong)} cases:"], wrong))
