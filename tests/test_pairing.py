"""Pairing through the real plan, receiver and files: one secret is taken, and only while it may be.

The clock is set by hand. Connections note what they are told.
"""

import asyncio
import errno
import hmac
import json
import os
import threading
from urllib.parse import urlsplit

import pytest

from fasthook import config, plan
from fasthook.errors import Rejection
from fasthook.intake.limiter import ClientBuckets
from fasthook.intake.network import Clients
from fasthook.intake.receiver import Receiver
from fasthook.logs import log
from fasthook.pairing import Pairing, PairingError
from fasthook.spool import secrets
from fasthook.spool.secrets import MAX_KEPT
from fasthook.wire.answers import refusal, rendered
from tests.intake.support import copy_of, request_of
from tests.intake.test_vectors import FILE

ASANA = b"b537207f20cbfa02357cf448134da559e8bd39d61597dcd5631b8012eae53e81"
NOTION = b"secret_0FhTt9sWb2hZK1f6yYx7Yq3uQ0cJ5mN8aE4dR2gH1iL"
CONFIGURED = b"configured-4d20-do-not-show"
PEER = "192.0.2.7"
ENDPOINTS = """
[[endpoint]]
name = "asana"
path = "/asana"
provider = "asana"
handlers = ["log"]
{more}
[[endpoint]]
name = "notion"
path = "/notion"
provider = "notion"
handlers = ["log"]
{more}
"""


def asana(secret: bytes = ASANA, **more):
    """Asana's handshake."""
    return request_of(b"", {"X-Hook-Secret": secret}, b"/asana", **more)


def notion(secret: bytes = NOTION):
    """Notion's handshake."""
    body = json.dumps({"verification_token": secret.decode("latin-1")}).encode()
    return request_of(body, {"Content-Type": "application/json"}, b"/notion")


HANDSHAKES = [("asana", asana, ASANA), ("notion", notion, NOTION)]


def event(name: str, secret: bytes, body: bytes = b'{"id":"1","type":"t","events":[]}'):
    """A signed event."""
    mac = hmac.digest(secret, body, "sha256").hex()
    header = {"asana": ("X-Hook-Signature", mac), "notion": ("X-Notion-Signature", f"sha256={mac}")}
    field, value = header[name]
    headers = {field: value, "Content-Type": "application/json"}
    return request_of(body, headers, f"/{name}".encode())


class Connection:
    """Notes what it is told; `answered` is done then."""

    peer = PEER

    def __init__(self) -> None:
        self.answered = asyncio.get_running_loop().create_future()

    def answer(self, number, answer) -> None:
        assert number == 7
        self.answered.set_result(answer)


class Paired:
    """A service's receiver and pairing, without its sockets."""

    def __init__(self, path) -> None:
        made = plan.make(config.load(path))
        self.warnings = made.warnings
        self.spool = path.parent / "var"
        self.now_s = 1000.0
        self.rejections: list[Rejection] = []
        self.receiver = Receiver(made.endpoints, Clients([]), ClientBuckets(1000, 10_000))
        self.pairing = Pairing(
            made.pairable,
            self.spool,
            self.receiver.use,
            lambda delivery, kind: rendered(delivery.reply),
            self._reject,
            lambda: self.now_s,
        )

    def _reject(self, rejection, request, peer):
        self.rejections.append(rejection)
        return refusal(rejection)

    def post(self, request):
        """The answer, or what will have it."""
        connection = Connection()
        try:
            delivery = self.receiver.receive(request, PEER, self.now_s, 10**18)
            if self.pairing.take(delivery, request, connection, 7):
                return connection.answered
        except Rejection as rejection:
            connection.answer(7, self._reject(rejection, request, PEER))
        else:
            self.delivery = delivery
            reply = delivery.reply
            connection.answer(7, rendered(reply) if reply else refusal(Rejection("accepted")))
        return connection.answered

    async def status(self, request) -> int:
        """Of the answer; events have none here: 400."""
        return (await self.post(request)).status

    async def index(self, request) -> int:
        """Which secret signs an event."""
        assert await self.status(request) == 400
        return self.delivery.secret_index

    def kept(self, name) -> list[bytes]:
        return [one.secret.reveal() for one in secrets.read(self.spool, name)]


@pytest.fixture
def start(tmp_path):
    """A service on the same spool as the one before."""
    (tmp_path / "var").mkdir(mode=0o700, exist_ok=True)

    started: list[Paired] = []

    def start(more: str = "") -> Paired:
        path = tmp_path / "fasthook.toml"
        path.write_text(ENDPOINTS.format(more=more))
        started.append(Paired(path))
        return started[-1]

    yield start
    for service in started:
        service.pairing.close()


@pytest.fixture(autouse=True)
def lines(monkeypatch):
    """What the log is told; no secret is among it."""
    told: list[str] = []
    monkeypatch.setattr(
        log, "write", lambda level, message, fields: told.append(f"{message} {fields}")
    )
    yield told
    for line in told:
        for secret in (ASANA, NOTION, CONFIGURED):
            assert secret.decode() not in line


def run(coroutine):
    return asyncio.run(coroutine)


# --- vectors --------------------------------------------------------------------------------------

VECTORS = [
    pytest.param(test, id=f"{test['provider']}-{test['name']}")
    for test in (FILE["handshake_tests"] if FILE else [])
    if "state" in test["config"]
]


@pytest.mark.parametrize("test", VECTORS or [pytest.param(None, marks=pytest.mark.skip("none"))])
def test_a_secret_is_taken_or_refused_as_its_vector_says(test, start):
    name, expect, state = test["provider"], test["expect"], test["config"]["state"]
    secret = test["config"].get("secret")
    given = test["request"]
    target = f"/{name}".encode()
    request = request_of(given["body"].encode(), given["headers"], target)
    assert urlsplit(given["url"]).query == ""

    async def meet():
        service = start(f'secrets = ["plain:{secret}"]' if secret else "")
        if state == "pairing":
            service.pairing.begin(name, 600)
        answer = await service.post(request)
        assert answer.status == expect["status"]
        for field, value in expect.get("headers", {}).items():
            assert f"{field}: {value}\r\n".lower().encode() in answer.rest.lower()
        stored = expect.get("store_secret")
        assert service.kept(name) == ([stored.encode()] if stored else [])
        if stored:
            assert await service.index(event(name, stored.encode())) == 0

    run(meet())


# --- what is taken --------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "handshake", "secret"), HANDSHAKES)
def test_a_secret_is_taken_once_and_in_force_at_once_and_after_a_start(
    name, handshake, secret, start, lines
):
    async def meet():
        service = start()
        assert await service.status(event(name, secret)) == 401
        service.pairing.begin(name, 600)
        assert service.pairing.state(name).state == "waiting"
        assert await service.status(event(name, secret)) == 401
        assert await service.status(handshake()) == 200
        state = service.pairing.state(name)
        assert (state.state, state.client) == ("taken", PEER)
        assert service.kept(name) == [secret]
        assert await service.index(event(name, secret)) == 0
        assert await service.status(handshake(secret[:-1] + b"x")) == 401
        assert await service.status(handshake()) == 401
        assert service.kept(name) == [secret]

    async def meet_again():
        service = start()
        assert service.warnings == [] or name not in service.warnings[0]
        assert await service.index(event(name, secret)) == 0
        assert await service.status(handshake()) == 401
        assert service.pairing.state(name).state == "none"

    run(meet())
    run(meet_again())
    assert any(line.startswith("paired ") for line in lines)


@pytest.mark.parametrize(("name", "handshake", "secret"), HANDSHAKES)
def test_outside_of_pairing_it_is_refused_and_said_what_to_do(name, handshake, secret, start):
    async def meet():
        for more in ("", f'secrets = ["plain:{CONFIGURED.decode()}"]'):
            service = start(more)
            service.pairing.begin({"asana": "notion", "notion": "asana"}[name], 600)
            assert await service.status(handshake()) == 401
            assert f"`fasthook pair {name}` waits" in str(service.rejections[-1])
            assert service.kept(name) == []
            assert await service.status(event(name, secret)) == 401

    run(meet())


def test_of_two_at_once_one_is_taken(start):
    async def meet():
        service = start()
        service.pairing.begin("asana", 600)
        answers = [service.post(asana(b"%064d" % number)) for number in range(5)]
        assert [(await each).status for each in answers] == [200, 401, 401, 401, 401]
        assert service.kept("asana") == [b"%064d" % 0]

    run(meet())


def test_the_answer_waits_for_the_disk_and_nothing_waits_for_the_answer(start, monkeypatch):
    """Not before the last sync has ended; and the loop goes on meanwhile."""
    release, real = threading.Event(), os.fsync
    synced: list[int] = []

    def slow(fd):
        assert release.wait(20)
        synced.append(fd)
        real(fd)

    async def meet():
        service = start()
        service.pairing.begin("asana", 600)
        monkeypatch.setattr(os, "fsync", slow)
        answered = service.post(asana())
        assert service.pairing.state("asana").state == "storing"
        assert await service.status(asana(b"%064d" % 1)) == 401
        assert await service.status(event("asana", ASANA)) == 401
        assert not answered.done()
        release.set()
        assert (await answered).status == 200
        assert len(synced) == 4
        assert await service.index(event("asana", ASANA)) == 0

    run(meet())


@pytest.mark.parametrize(
    ("name", "request_"),
    [
        ("asana", asana(b"")),
        ("asana", asana(ASANA[:31])),
        ("asana", asana(b"a" * 129)),
        ("asana", asana(b"a" * 63 + b" ")),
        ("asana", asana(b"a" * 63 + b"\xe9")),
        ("asana", asana(b"a" * 32 + b"\t" + b"a" * 31)),
        ("asana", asana(b"a" * 64 + b"\n")),
        ("asana", request_of(b"", {"X-Hook": ASANA}, b"/asana")),
        ("asana", asana(method=b"GET")),
        ("notion", notion(b"")),
        ("notion", notion(b"secret_attacker")),
        ("notion", notion(NOTION.removeprefix(b"secret_"))),
        ("notion", notion(NOTION + b"\xe9")),
        ("notion", notion(NOTION + b"\n")),
        ("notion", notion(NOTION + b"\0")),
        ("notion", request_of(b'{"verification_token":17}', {}, b"/notion")),
        ("notion", request_of(b'{"verification_token":["x"]}', {}, b"/notion")),
        ("notion", request_of(b"[" * 10_000, {}, b"/notion")),
        ("notion", copy_of(notion(), body=notion().body + b" " * 20_000)),
    ],
)
def test_what_is_of_another_form_is_refused_and_it_waits_on(name, request_, start):
    async def meet():
        service = start()
        service.pairing.begin(name, 600)
        assert await service.status(request_) in (401, 405)
        assert service.pairing.state(name).state == "waiting"
        assert service.kept(name) == []
        assert await service.status({"asana": asana, "notion": notion}[name]()) == 200

    run(meet())


def test_events_pass_while_it_waits(start):
    """Asana has a secret for each webhook of the same endpoint."""

    async def meet():
        service = start(f'secrets = ["plain:{CONFIGURED.decode()}"]')
        for number, secret in enumerate([ASANA, b"%064d" % 2, b"%064d" % 3], start=1):
            service.pairing.begin("asana", 600)
            assert await service.index(event("asana", CONFIGURED)) == 0
            assert await service.status(asana(secret)) == 200
            assert await service.index(event("asana", secret)) == number
        assert await service.index(event("asana", ASANA)) == 1
        again = start(f'secrets = ["plain:{CONFIGURED.decode()}"]')
        assert await again.index(event("asana", b"%064d" % 3)) == 3

    run(meet())


def test_the_same_secret_again_is_answered_and_kept_once(start):
    async def meet():
        service = start()
        for _ in range(2):
            service.pairing.begin("asana", 600)
            assert await service.status(asana()) == 200
        assert service.kept("asana") == [ASANA]

    run(meet())


def test_a_list_of_clients_holds_for_handshakes_too(start):
    async def meet():
        service = start('allow = ["203.0.113.0/24"]')
        service.pairing.begin("asana", 600)
        assert await service.status(asana()) == 403
        assert service.pairing.state("asana").state == "waiting"

    run(meet())


# --- the end of the state -------------------------------------------------------------------------


def test_when_the_time_is_over_it_is_refused(start):
    async def meet():
        service = start()
        service.pairing.begin("asana", 600)
        service.now_s += 599.9
        assert service.pairing.state("asana").left_s == pytest.approx(0.1)
        service.now_s += 0.1
        assert await service.status(asana()) == 401
        assert "the time to pair the endpoint is over" in str(service.rejections[-1])
        assert service.pairing.state("asana").state == "over"
        assert service.kept("asana") == []
        service.pairing.begin("asana", 600)
        assert await service.status(asana()) == 200

    run(meet())


def test_the_state_ends_by_itself(start):
    async def meet():
        service = start()
        service.pairing.begin("asana", 0.01)
        while service.pairing.state("asana").state == "waiting":
            await asyncio.sleep(0)
        assert service.pairing.state("asana").state == "over"
        assert await service.status(asana()) == 401

    run(meet())


def test_who_asks_again_begins_anew(start):
    """The one who asked before may be gone, without a word."""

    async def meet():
        service = start()
        service.pairing.begin("asana", 0.01)
        service.pairing.begin("asana", 600)
        await asyncio.sleep(0.02)  # the first one's timer is not heard any more
        service.now_s += 599
        assert service.pairing.state("asana").state == "waiting"
        answered = service.post(asana())
        with pytest.raises(PairingError, match="a secret has come, and is being stored"):
            service.pairing.begin("asana", 600)
        assert (await answered).status == 200

    run(meet())


def test_an_operator_can_end_it(start):
    async def meet():
        service = start()
        service.pairing.begin("asana", 600)
        service.pairing.end("asana")
        assert service.pairing.state("asana").state == "over"
        assert await service.status(asana()) == 401
        service.pairing.end("asana")

    run(meet())


def test_only_so_many_secrets_are_kept(start):
    async def meet():
        service = start()
        for number in range(MAX_KEPT):
            service.pairing.begin("asana", 600)
            assert await service.status(asana(b"%064d" % number)) == 200
        with pytest.raises(PairingError, match=r"16 secrets .* `fasthook pair asana --forget"):
            service.pairing.begin("asana", 600)
        assert await service.index(event("asana", b"%064d" % 15)) == 15

    run(meet())


def test_an_endpoint_that_cannot_be_paired_is_said(start):
    async def meet():
        service = start()
        for name in ("nobody", "", "../asana"):
            for call in (
                lambda name=name: service.pairing.begin(name, 1),
                lambda name=name: service.pairing.state(name),
                lambda name=name: service.pairing.end(name),
                lambda name=name: service.pairing.forget(name, "", print),
            ):
                with pytest.raises(PairingError, match="has no endpoint .* that can be paired"):
                    call()

    run(meet())


# --- a disk that does not take it -----------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("call", ["fsync", "rename", "mkdir"])
def test_a_disk_that_fails_is_503_and_nothing_is_taken_and_it_waits_on(
    call, code, start, monkeypatch
):
    def fails(*arguments, **options):
        raise OSError(code, os.strerror(code))

    async def meet():
        service = start()
        service.pairing.begin("asana", 600)
        monkeypatch.setattr(os, call, fails)
        answer = await service.post(asana())
        monkeypatch.undo()
        assert answer.status == 503
        assert b"Retry-After: " in answer.rest
        (rejection,) = service.rejections
        assert os.strerror(code) in str(rejection)
        assert (rejection.endpoint, rejection.client) == ("asana", PEER)
        assert rejection.is_withheld
        assert service.kept("asana") == []
        assert await service.status(event("asana", ASANA)) == 401
        state = service.pairing.state("asana")
        assert state.state == "waiting"
        assert os.strerror(code) in state.failure
        assert state.left_s == pytest.approx(600)
        assert await service.status(asana()) == 200
        assert service.kept("asana") == [ASANA]

    run(meet())


def test_a_disk_that_fails_until_the_time_is_over(start, monkeypatch):
    async def meet():
        service = start()
        service.pairing.begin("asana", 600)
        monkeypatch.setattr(os, "rename", lambda *names: os.stat("/nonesuch"))
        answered = service.post(asana())
        service.now_s += 600
        assert (await answered).status == 503
        assert service.pairing.state("asana").state == "over"
        assert await service.status(asana()) == 401

    run(meet())


# --- removing -------------------------------------------------------------------------------------


async def forget(service, name, kept=""):
    done = asyncio.get_running_loop().create_future()
    service.pairing.forget(name, kept, done.set_result)
    return await done


def test_what_is_removed_signs_no_more(start):
    async def meet():
        service = start()
        names = []
        for number in range(2):
            service.pairing.begin("asana", 600)
            assert await service.status(asana(b"%064d" % number)) == 200
            names.append(service.pairing.state("asana").kept)
        assert await forget(service, "asana", "nonesuch") == 0
        assert await forget(service, "asana", names[0]) == 1
        assert await service.status(event("asana", b"%064d" % 0)) == 401
        assert await service.index(event("asana", b"%064d" % 1)) == 0
        service.pairing.begin("asana", 600)
        assert await forget(service, "asana") == 1
        assert await service.status(event("asana", b"%064d" % 1)) == 401
        assert await service.status(asana()) == 200  # it waited on

    run(meet())


def test_what_is_removed_while_another_one_is_stored_stays_removed(start):
    """Each finds on disk what the one before has left, and is heard of before the next."""

    async def meet():
        service = start()
        service.pairing.begin("asana", 600)
        assert await service.status(asana(b"%064d" % 0)) == 200
        service.pairing.begin("asana", 600)
        answered = service.post(asana(b"%064d" % 1))
        gone = [asyncio.ensure_future(forget(service, "asana")) for _ in range(3)]
        assert (await answered).status == 200
        assert [await each for each in gone] == [2, 0, 0]
        for number in range(2):
            assert await service.status(event("asana", b"%064d" % number)) == 401
        assert service.kept("asana") == []

    run(meet())


def test_what_can_not_be_removed_is_said(start, monkeypatch):
    async def meet():
        service = start()
        service.pairing.begin("asana", 600)
        assert await service.status(asana()) == 200
        monkeypatch.setattr(os, "unlink", lambda path: os.stat("/nonesuch"))
        monkeypatch.setattr("pathlib.Path.unlink", lambda path: os.stat("/nonesuch"))
        assert "can't be removed: " in str(await forget(service, "asana"))
        assert await service.index(event("asana", ASANA)) == 0

    run(meet())
