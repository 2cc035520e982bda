"""Fetching within this process: who waits, for how long, and what that is bounded by.

The store's clock is set by hand; the key server is real, and so are threads and sockets.
"""

import asyncio
import base64
import hashlib
import json
import threading
import time
from ipaddress import ip_network

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from fasthook import fetching
from fasthook.config import Endpoint as EndpointSettings
from fasthook.errors import KeyNeeded, KeyUnavailable, Rejection
from fasthook.fetch_plan import FetchPlan, source_of
from fasthook.fetching import Fetching
from fasthook.intake import catalogue
from fasthook.intake.fetched import KeyStore, Wanted
from fasthook.remote.client import Client
from fasthook.wire.answers import refusal, render
from tests.intake.support import request_of
from tests.remote.keyserver import Authority, KeyServer, ok

PEER = "192.0.2.7"


class Connection:
    """Notes what it is told."""

    peer = PEER

    def __init__(self) -> None:
        self.answers: dict[int, int] = {}

    def answer(self, number, answer) -> None:
        self.answers[number] = answer.status


class Fetched:
    """Fetching for one endpoint with a key set, in the place of a service."""

    def __init__(self, server, ca_file, lookup=None, timeout_s=2.0, waits=0.5) -> None:
        self.server = server
        self.now_s = 1000.0
        self.plan = FetchPlan()
        self.plan.store = KeyStore(lambda: self.now_s)
        self.url = f"https://keys.test:{server.port}/set"
        settings = EndpointSettings(name="e", path="/e", provider="custom", jwks_url=self.url)
        scheme = catalogue.load("fusionauth").schemes["default"]
        source = source_of(settings, scheme, "e")
        assert source is not None
        self.verifier = self.plan.verifier(settings, scheme, source)
        self.wanted = self.plan.fixed.pop()  # so that it is not fetched before it is needed
        loopback = [ip_network("127.0.0.0/8")]
        client = Client(ca_file, loopback, None, timeout_s, lookup or (lambda *_: ["127.0.0.1"]))
        self.errors: list[BaseException] = []
        self.fetching = Fetching(
            self.plan, client, ca_file, waits, lambda error, peer: self.errors.append(error)
        )
        self.fetching.connect(self.receive, None, None)
        self.fetching.start()
        self.connection = Connection()
        self.reasons: list[str] = []

    def publish(self, **keys) -> None:
        listed = []
        for kid, key in keys.items():
            entry = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
            listed.append(entry | {"kid": kid, "alg": "RS256"})
        self.server.answers["/set"] = ok(json.dumps({"keys": listed}).encode())

    def receive(self, request, connection, number):
        try:
            self.verifier.verify(request, 0)
            return render(202)
        except KeyNeeded as needed:
            try:
                self.fetching.wait(needed.wanted, PEER, request, connection, number)
                return None
            except KeyUnavailable as error:
                self.reasons.append(str(error))
                return refusal(error)
        except Rejection as error:
            self.reasons.append(str(error))
            return refusal(error)

    def post(self, request, number: int) -> None:
        answer = self.receive(request, self.connection, number)
        if answer is not None:
            self.connection.answer(number, answer)

    async def status(self, request, number: int = 0) -> int:
        self.connection.answers.pop(number, None)
        self.post(request, number)
        await until(lambda: number in self.connection.answers)
        return self.connection.answers[number]


async def until(fact) -> None:
    """Wait for it."""
    ends = time.monotonic() + 10
    while not fact():
        assert time.monotonic() < ends, "it did not come about"
        await asyncio.sleep(0.005)


def signed(key, kid, body=b"{}"):
    claims = {"request_body_sha256": base64.b64encode(hashlib.sha256(body).digest()).decode()}
    token = jwt.encode(claims, key, "RS256", {"kid": kid})
    return request_of(body, {"X-FusionAuth-Signature-JWT": token})


KEYS = [rsa.generate_private_key(65537, 2048) for _ in range(2)]


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture
def made(authority, tmp_path):
    """Makes one, within the running loop."""
    server = KeyServer(authority, "keys.test", folder=tmp_path)
    ca_file = str(authority.write_root(tmp_path))
    all_made: list[Fetched] = []

    def make(**options) -> Fetched:
        all_made.append(Fetched(server, ca_file, **options))
        return all_made[-1]

    yield make
    server.close()
    for one in all_made:
        one.fetching.close()
        assert not one.errors


def test_keys_that_are_rotated_are_found_once_the_set_may_be_asked_for_again(made):
    async def main():
        fetched = made()
        old, new = KEYS
        fetched.publish(old=old)
        assert await fetched.status(signed(old, "old")) == 202
        fetched.publish(old=old, new=new)
        assert await fetched.status(signed(new, "new")) == 401, "asked for a moment ago"
        fetched.now_s += 61
        assert await fetched.status(signed(new, "new")) == 202
        assert fetched.server.asked == ["/set"] * 2
        fetched.publish(new=new)
        assert await fetched.status(signed(old, "old")) == 202, "until the set is fetched again"
        fetched.now_s += 3000
        assert await fetched.status(signed(old, "old")) == 202
        await until(lambda: len(fetched.server.asked) == 3)  # renewed, with nobody waiting
        await until(lambda: not fetched.fetching._jobs)
        assert await fetched.status(signed(old, "old")) == 401
        assert await fetched.status(signed(new, "new")) == 202

    asyncio.run(main())


def test_a_name_that_is_looked_up_for_ever_holds_nobody_for_longer_than_is_said(made):
    async def main():
        released = threading.Event()

        def hangs(host, port):
            released.wait(10)
            return ["127.0.0.1"]

        fetched = made(lookup=hangs, waits=0.2)
        fetched.publish(old=KEYS[0])
        began = time.monotonic()
        assert await fetched.status(signed(KEYS[0], "old")) == 503
        assert 0.6 < time.monotonic() - began < 2
        assert "nothing came within 0.7 s" in fetched.reasons[-1]
        fetched.now_s += 6
        assert await fetched.status(signed(KEYS[0], "old")) == 503
        assert "is still being fetched" in fetched.reasons[-1]
        released.set()  # what comes late is of use yet
        await until(lambda: len(fetched.plan.store))
        assert await fetched.status(signed(KEYS[0], "old")) == 202

    asyncio.run(main())


def test_who_waits_is_bounded_for_one_key_in_all_and_in_bytes(made, monkeypatch):
    monkeypatch.setattr(fetching, "MAX_WAITING_EACH", 5)
    monkeypatch.setattr(fetching, "MAX_WAITING_BYTES", 10_000)

    async def main():
        fetched = made()
        fetched.server.answers["/set"] = fetched.server.hang
        for number in range(8):
            fetched.post(signed(KEYS[0], "old"), number)
        assert set(fetched.connection.answers) == {5, 6, 7}
        assert set(fetched.connection.answers.values()) == {503}
        assert "too many wait for the key at" in fetched.reasons[-1]
        monkeypatch.setattr(fetching, "MAX_WAITING_EACH", 50)
        fetched.post(signed(KEYS[0], "old", b" " * 10_000), 8)
        assert fetched.connection.answers[8] == 503
        assert fetched.reasons[-1] == "too many wait for keys"
        monkeypatch.setattr(fetching, "MAX_WAITING", 6)
        fetched.post(signed(KEYS[0], "old"), 9)
        fetched.post(signed(KEYS[0], "old"), 10)
        assert set(fetched.connection.answers) == {5, 6, 7, 8, 10}
        fetched.publish(old=KEYS[0])
        fetched.server.released.set()
        await until(lambda: len(fetched.connection.answers) == 11)
        assert fetched.fetching._waiting_count == fetched.fetching._waiting_bytes == 0

    asyncio.run(main())


def test_fetches_are_bounded_by_host_and_in_all(made, monkeypatch):
    async def main():
        fetched = made()
        hang = fetched.server.hang
        fetched.server.answers = {f"/{n}": hang for n in range(5)}
        urls = [f"https://keys.test:{fetched.server.port}/{n}" for n in range(5)]

        def wait(url, client):
            wanted = Wanted(url, "certificate", "rsa", ("x",))
            fetched.fetching.wait(wanted, client, request_of(), fetched.connection, 0)

        wait(urls[0], "192.0.2.1")
        wait(urls[1], "192.0.2.2")
        with pytest.raises(KeyUnavailable, match="other keys are being fetched from keys.test"):
            wait(urls[2], "192.0.2.3")
        monkeypatch.setattr(fetching, "MAX_JOBS_EACH", 3)
        wait(urls[2], "192.0.2.3")
        monkeypatch.setattr(fetching, "MAX_JOBS_EACH", 9)
        monkeypatch.setattr(fetching, "MAX_JOBS", 3)
        with pytest.raises(KeyUnavailable, match="other keys"):
            wait(urls[3], "192.0.2.4")
        fetched.server.released.set()
        await until(lambda: not fetched.fetching._jobs)

    asyncio.run(main())


def test_what_is_not_signed_is_no_reason_to_fetch(made):
    async def main():
        fetched = made()
        assert await fetched.status(request_of()) == 401
        assert not fetched.server.connections

    asyncio.run(main())


def test_what_one_client_names_is_bounded_and_others_go_on(made):
    async def main():
        fetched = made()

        async def wait(number, client):
            url = f"https://keys.test:{fetched.server.port}/{number}"
            wanted = Wanted(url, "certificate", "rsa", ("x",))
            fetched.fetching.wait(wanted, client, request_of(), fetched.connection, number)
            await until(lambda: not fetched.fetching._jobs)

        for number in range(8):
            await wait(number, "2001:db8::1")
        with pytest.raises(KeyUnavailable, match="client 2001:db8::2 named too many keys"):
            await wait(8, "2001:db8::2")  # of the same network
        await wait(9, "2001:db8:1::1")
        assert len(fetched.server.asked) == 9

    asyncio.run(main())


def test_an_error_of_our_own_is_answered_500_and_said(made):
    async def main():
        fetched = made()
        fetched.publish(old=KEYS[0])
        fetched.post(signed(KEYS[0], "old"), 0)

        def broken(request, connection, number):
            raise ZeroDivisionError

        fetched.fetching.connect(broken, None, None)
        await until(lambda: 0 in fetched.connection.answers)
        assert fetched.connection.answers == {0: 500}
        assert isinstance(fetched.errors.pop(), ZeroDivisionError)

    asyncio.run(main())


def test_closing_ends_what_waits(made):
    async def main():
        fetched = made()
        fetched.server.answers["/set"] = fetched.server.hang
        fetched.post(signed(KEYS[0], "old"), 0)
        await until(lambda: fetched.server.asked)
        fetched.fetching.close()
        await until(lambda: 0 in fetched.connection.answers)
        assert fetched.connection.answers == {0: 503}
        assert "the service is stopping" in fetched.reasons[-1]
        with pytest.raises(KeyUnavailable):
            fetched.fetching.wait(fetched.wanted, PEER, request_of(), fetched.connection, 1)
        fetched.server.released.set()

    asyncio.run(main())
