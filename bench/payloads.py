"""Bodies of the events that are sent, and what they are decoded into.

They are made here in the shape and size of the providers' own examples, so that the benchmark
needs nothing but this folder.
"""

import hashlib
import json

import msgspec

PUSH_BYTES = 7324
STRIPE_BYTES = 1024
STRIPE_ID_CHARS = 28

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


class Intent(msgspec.Struct):
    """The part of a payment that a handler would use."""

    id: str
    amount: int
    currency: str


class IntentData(msgspec.Struct):
    """What a Stripe event is about."""

    object: Intent


class StripeEvent(msgspec.Struct):
    """The part of a Stripe event that a handler would use."""

    id: str
    type: str
    created: int
    data: IntentData


def push_body(size: int = PUSH_BYTES) -> bytes:
    """A `push` with a repository of 70 links, as GitHub sends it; with commits, where it is big."""
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
    commit_bytes = len(_compact(_commit(0))) + 2
    push["commits"] = [_commit(n) for n in range((size - PUSH_BYTES) // commit_bytes)]
    # The rest of the 7,324 bytes of GitHub's example is indentation and a few more fields.
    push["padding"] = ""
    push["padding"] = "x" * (size - len(_compact(push)))
    return _compact(push)


def _commit(number: int) -> dict[str, object]:
    digest = hashlib.sha1(b"%d" % number, usedforsecurity=False).hexdigest()
    who = {"name": "Codertocat", "email": "21031067+Codertocat@users.noreply.github.com"}
    return {
        "id": digest,
        "message": f"Change what is said in chapter {number:06}",
        "timestamp": "2019-05-15T15:20:41Z",
        "url": f"https://github.com/Codertocat/Hello-World/commit/{digest}",
        "author": who,
        "committer": who,
        "added": [],
        "removed": [],
        "modified": [f"chapters/{number:06}.md"],
    }


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def stripe_body(event_id: str) -> bytes:
    """A `payment_intent.succeeded` of 1 kB."""
    intent = {
        "id": "pi_3MtwBwLkdIwHu7ix28a3tqPa",
        "object": "payment_intent",
        "amount": 2000,
        "amount_received": 2000,
        "capture_method": "automatic",
        "client_secret": None,
        "currency": "eur",
        "customer": "cus_NffrFeUfNV2Hib",
        "latest_charge": "ch_3MtwBwLkdIwHu7ix0snN0B15",
        "livemode": True,
        "metadata": {"order_id": "6735"},
        "payment_method_types": ["card", "link"],
        "status": "succeeded",
    }
    event = {
        "id": event_id,
        "object": "event",
        "api_version": "2026-01-28",
        "created": 1680064028,
        "type": "payment_intent.succeeded",
        "livemode": True,
        "pending_webhooks": 2,
        "request": {"id": "req_x", "idempotency_key": "6f3cdd5b-a4d0-44ac-98ba-6e0c1d1aa4f3"},
        "data": {"object": intent},
    }
    intent["description"] = ""
    intent["description"] = "x" * (STRIPE_BYTES - len(_compact(event)))
    return _compact(event)
