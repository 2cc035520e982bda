"""What is sent: signed events of GitHub and Stripe, by `wrk`, with forged ones among them.

The usual one is a GitHub `push` of 7.3 kB with 13 headers.
"""

import hmac
import itertools
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from bench.payloads import STRIPE_ID_CHARS, Push, StripeEvent, push_body, stripe_body

__all__ = ["PUSH", "SECRET", "SIZES", "Push", "StripeEvent", "Work", "push_body"]

SECRET = b"bench-secret-bench-secret"
#: One request in so many is forged: it has another signature, and must be refused.
FORGE_EVERY = 200
#: Signed beforehand for each second of load, where the id is a part of what is signed.
ROWS_A_SECOND = 100_000
#: Stand in a template for what differs from one request to the next.
PATH, ID, SIGNATURE = b"\0path\0", b"\0id\0", b"\0signature\0"


class Work(NamedTuple):
    """One kind of request. `endpoints`: among so many they are spread, each with its secret."""

    name: str
    provider: str
    body: bytes
    endpoints: int = 1


_NO_ID = "0" * STRIPE_ID_CHARS
PUSH = Work("7.3 kB GitHub push", "github", push_body())
#: From small to big.
SIZES = (
    Work("1 kB Stripe event", "stripe", stripe_body(_NO_ID)),
    PUSH,
    Work("32 kB GitHub push", "github", push_body(32_000)),
    Work("1 MB GitHub push", "github", push_body(1_000_000)),
)


def headers_of(body: bytes) -> dict[str, str]:
    """Headers as GitHub sends them through nginx."""
    return {
        "Host": "hooks.example.com",
        "User-Agent": "GitHub-Hookshot/044aadd",
        "Content-Length": str(len(body)),
        "Accept": "*/*",
        "Content-Type": "application/json",
        "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
        "X-GitHub-Event": "push",
        "X-GitHub-Hook-ID": "292430182",
        "X-GitHub-Hook-Installation-Target-ID": "79929171",
        "X-GitHub-Hook-Installation-Target-Type": "repository",
        "X-Hub-Signature": "sha1=" + hmac.digest(SECRET, body, "sha1").hex(),
        "X-Hub-Signature-256": "sha256=" + hmac.digest(SECRET, body, "sha256").hex(),
        "X-Forwarded-For": "140.82.115.1",
    }


def pushes() -> Iterator[bytes]:
    """The same signed push again and again, as it goes over the wire, with an id of its own."""
    headers = headers_of(PUSH.body)
    head = _head(b"/github", headers).decode()
    before, _, after = head.partition(headers["X-GitHub-Delivery"])
    start, end = before.encode(), after.encode() + PUSH.body
    run = os.urandom(8).hex().encode()
    for number in itertools.count():
        yield b"%b%b-%012d%b" % (start, run, number, end)


def path_of(work: Work, number: int) -> str:
    """Of one of its endpoints; five digits, so that all are of one length."""
    return f"/{work.provider}" if work.endpoints == 1 else f"/{work.provider}/{number:05}"


def secret_of(work: Work, number: int) -> bytes:
    """Of one of its endpoints."""
    return SECRET if work.endpoints == 1 else b"%b-%05d" % (SECRET, number)


def _head(path: bytes, headers: Mapping[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return b"POST %b HTTP/1.1\r\n%b\r\n" % (path, lines.encode())


def _github(work: Work) -> tuple[bytes, list[bytes]]:
    """The request with marks, and the columns path and signature of each endpoint."""
    headers = headers_of(work.body)
    headers["X-GitHub-Delivery"] = ID.decode()
    headers["X-Hub-Signature-256"] = f"sha256={SIGNATURE.decode()}"
    rows = []
    for number in range(work.endpoints):
        signed = hmac.digest(secret_of(work, number), work.body, "sha256").hex()
        rows.append(path_of(work, number).encode() + signed.encode())
    return _head(PATH, headers) + work.body, rows


def _stripe(work: Work, count: int) -> tuple[bytes, list[bytes]]:
    """The same with columns id and signature, of each request: the id is signed."""
    now = str(int(time.time()))
    headers = {
        "Host": "hooks.example.com",
        "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        "Content-Length": str(len(work.body)),
        "Accept": "*/*; q=0.5, application/xml",
        "Content-Type": "application/json; charset=utf-8",
        "Cache-Control": "no-cache",
        "Stripe-Signature": f"t={now},v1={SIGNATURE.decode()}",
        "X-Forwarded-For": "3.18.12.63",
    }
    before, after = work.body.split(_NO_ID.encode())
    run = f"evt_{os.urandom(6).hex()}"
    rows = []
    for number in range(count):
        event_id = b"%b%012d" % (run.encode(), number)
        signed = b"%b.%b%b%b" % (now.encode(), before, event_id, after)
        rows.append(event_id + hmac.digest(SECRET, signed, "sha256").hex().encode())
    head = _head(path_of(work, 0).encode(), headers)
    return head + before + ID + after, rows


def write_script(
    path: Path,
    work: Work,
    seconds: float = 1,
    *,
    forge_every: int = FORGE_EVERY,
) -> int:
    """Write a Lua script that makes `wrk` send this for so long, and say in JSON what came of it.

    The size of one request in bytes is returned.

    Each request has its own id. `forge_every`: 0 for none.
    """
    if work.provider == "stripe":
        template, rows = _stripe(work, int(seconds * ROWS_A_SECOND))
        columns = {ID: (0, STRIPE_ID_CHARS), SIGNATURE: (STRIPE_ID_CHARS, 64)}
        values: dict[bytes, str] = {}
    else:
        template, rows = _github(work)
        path_chars = len(path_of(work, 0))
        columns = {PATH: (0, path_chars), SIGNATURE: (path_chars, 64)}
        values = {ID: 'run .. string.format("%012d", n)'}
    forged = template.replace(SIGNATURE, b"0" * 64)
    if len(rows) == 1:  # nothing to look up
        for mark, (first, width) in columns.items():
            forged = forged.replace(mark, rows[0][first : first + width])
            template = template.replace(mark, rows[0][first : first + width])
    else:
        for mark, (first, width) in columns.items():
            values[mark] = f"rows:sub(row + {first + 1}, row + {first + width})"
    pieces: list[bytes] = []
    lua = _SCRIPT.format(
        data=path.with_suffix(".data"),
        width=len(rows[0]),
        rows=len(rows),
        forge_every=forge_every or 2**52,
        genuine=_expression(template, values, pieces),
        forged=_expression(forged, values, pieces),
        sizes=", ".join(str(len(piece)) for piece in pieces),
    )
    path.with_suffix(".data").write_bytes(b"".join(pieces + rows))
    path.write_text(lua)
    widths = {ID: 36} | {mark: width for mark, (_, width) in columns.items()}
    return len(template) + sum(widths[mark] - len(mark) for mark in values if mark in template)


def _expression(template: bytes, values: Mapping[bytes, str], pieces: list[bytes]) -> str:
    """Lua that joins the template's pieces and values; the pieces are added to `pieces`."""
    marks = sorted((m for m in values if m in template), key=template.index)
    terms: list[str] = []
    for mark in marks:
        before, _, template = template.partition(mark)
        pieces.append(before)
        terms += [f"pieces[{len(pieces)}]", values[mark]]
    pieces.append(template)
    return " .. ".join([*terms, f"pieces[{len(pieces)}]"])


#: Said by `wrk` at the end, before the result: times in microseconds.
RESULT = "RESULT "
_SCRIPT = """
local file = io.open("{data}", "rb")
local pieces = {{}}
for i, size in ipairs({{{sizes}}}) do
  pieces[i] = size > 0 and file:read(size) or ""
end
local rows = file:read("*all")
file:close()
local seed = io.open("/dev/urandom", "rb")
local run = string.gsub(seed:read(12), ".", function(c) return string.format("%02x", c:byte()) end)
seed:close()
local n = 0
forged = 0

request = function()
  n = n + 1
  local row = (n - 1) % {rows} * {width}
  if n % {forge_every} == {forge_every} / 4 then
    forged = forged + 1
    return {forged}
  end
  return {genuine}
end

local threads = {{}}
setup = function(thread) threads[#threads + 1] = thread end

done = function(summary, latency)
  local shares = {{50, 75, 90, 99, 99.9}}
  local times = {{}}
  for i, share in ipairs(shares) do
    times[i] = string.format('"%g": %d', share, latency:percentile(share))
  end
  local forged = 0
  for _, thread in ipairs(threads) do forged = forged + thread:get("forged") end
  local e = summary.errors
  io.write(string.format(
    '\\nRESULT {{"answered": %d, "refused": %d, "forged": %d, "failed": %d, "us": %d, ' ..
    '"latency_us": {{%s}}}}\\n',
    summary.requests, e.status, forged, e.connect + e.read + e.write + e.timeout,
    summary.duration, table.concat(times, ", ")))
end
"""
