"""What is sent, and what it is decoded into: a signed GitHub `push` of 7.3 kB with 13 headers.

The body is made here in the shape and size of GitHub's own example, so that the benchmark needs
nothing but this folder; `--body FILE` takes another.
"""

import hmac
import json
from pathlib import Path

import msgspec

SECRET = b"bench-secret-bench-secret"
PUSH_BYTES = 7324


class Repository(msgspec.Struct):
    """The part of a repository that a handler would use."""

    id: int
    full_name: str
    private: bool


class Pusher(msgspec.Struct):
    """Who pushed."""

    name: str


class Push(msgspec.Struct):
    """The part of a `push` that a handler would use."""

    ref: str
    before: str
    after: str
    repository: Repository
    pusher: Pusher


def push_body() -> bytes:
    """A `push` with a repository of 70 links, as GitHub sends it."""
    owner = {f"{name}_url": f"https://api.github.com/users/Codertocat/{name}" for name in _OWNER}
    repository = {
        "id": 186853002,
        "node_id": "MDEwOlJlcG9zaXRvcnkxODY4NTMwMDI=",
        "name": "Hello-World",
        "full_name": "Codertocat/Hello-World",
        "private": False,
        "owner": {"login": "Codertocat", "id": 21031067, **owner},
        **{f"{n}_url": f"https://api.github.com/repos/Codertocat/Hello-World/{n}" for n in _REPO},
        "created_at": 1557933565,
        "updated_at": "2019-05-15T15:20:41Z",
        "size": 0,
        "stargazers_count": 1,
        "default_branch": "master",
    }
    push = {
        "ref": "refs/tags/simple-tag",
        "before": "6113728f27ae82c7b1a177c8d03f9e96e0adf246",
        "after": "0000000000000000000000000000000000000000",
        "created": False,
        "deleted": True,
        "forced": False,
        "base_ref": None,
        "compare": "https://github.com/Codertocat/Hello-World/compare/6113728f27ae...000000000000",
        "commits": [],
        "head_commit": None,
        "repository": repository,
        "pusher": {"name": "Codertocat", "email": "21031067+Codertocat@users.noreply.github.com"},
        "sender": {"login": "Codertocat", "id": 21031067, **owner},
    }
    # The rest of the 7,324 bytes of GitHub's example is indentation and a few more fields.
    push["padding"] = ""
    push["padding"] = "x" * (PUSH_BYTES - len(json.dumps(push, separators=(",", ":"))))
    return json.dumps(push, separators=(",", ":")).encode()


_OWNER = (
    *("avatar", "html", "followers", "following", "gists", "starred", "subscriptions"),
    *("organizations", "repos", "events", "received_events"),
)
_REPO = (
    *("html", "forks", "keys", "collaborators", "teams", "hooks", "issue_events", "events"),
    *("assignees", "branches", "tags", "blobs", "git_tags", "git_refs", "trees", "statuses"),
    *("languages", "stargazers", "contributors", "subscribers", "subscription", "commits"),
    *("git_commits", "comments", "issue_comment", "contents", "compare", "merges", "archive"),
    *("downloads", "issues", "pulls", "milestones", "notifications", "labels", "releases"),
    *("deployments", "git", "ssh", "clone", "svn", "mirror"),
)


def request(path: str, body: bytes, secret: bytes = SECRET) -> tuple[dict[str, str], bytes]:
    """Headers as GitHub sends them through nginx, and the body."""
    headers = {
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
        "X-Hub-Signature": "sha1=" + hmac.digest(secret, body, "sha1").hex(),
        "X-Hub-Signature-256": "sha256=" + hmac.digest(secret, body, "sha256").hex(),
        "X-Forwarded-For": "140.82.115.1",
    }
    return headers, body


def wrk_script(
    path: Path, url_path: str, body: bytes, secret: bytes = SECRET, *, unique_ids: bool = False
) -> None:
    """Write a Lua script that makes `wrk` send this request; `unique_ids`: each with its own id."""
    headers, body = request(url_path, body, secret)
    head = f"POST {url_path} HTTP/1.1\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
    before, _, after = (head.encode() + body).partition(headers["X-GitHub-Delivery"].encode())
    for suffix, data in (("before", before), ("after", after)):
        path.with_suffix(f".{suffix}").write_bytes(data)
    event_id = 'run .. string.format("%012d", n)' if unique_ids else "run"
    path.write_text(
        f"""local function read(name)
  local file = io.open("{path.with_suffix("")}." .. name, "rb")
  local data = file:read("*all")
  file:close()
  return data
end
local before, after = read("before"), read("after")
local seed = io.open("/dev/urandom", "rb")
local run = string.gsub(seed:read(12), ".", function(c) return string.format("%02x", c:byte()) end)
seed:close()
local n = 0
request = function()
  n = n + 1
  return before .. {event_id} .. after
end
"""
    )
