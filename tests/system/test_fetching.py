"""Keys that are fetched, as a sender and an operator see it: a real service, a real key server."""

import base64
import datetime
import json
import re
import socket
import threading
import time
import urllib.request
import zlib

import jwt
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from fasthook.spool import rejects
from tests.remote.keyserver import Authority, KeyServer, ok
from tests.system.conftest import exchange, status_of, wait_for
from tests.system.test_bad_input import request as github_request

FORM = "application/x-www-form-urlencoded"
TOPIC = "arn:aws:sns:us-east-1:123456789012:orders"
SNS = "sns.us-east-1.amazonaws.com"
CERTIFICATE = "/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem"
GOOGLE = "www.googleapis.com"
PAYPAL = "api.paypal.com"
PAYPAL_NAME = "messageverificationcerts.paypal.com"
PAYPAL_PATH = "/v1/notifications/certs/CERT-360caa42-fca2a594-1d93a270"
CONFIG = """
[server]
listen = ["tcp://127.0.0.1:0"]
drain_timeout = "{drain}"
[admin]
listen = "tcp://127.0.0.1:0"
[spool]
durability = "{durability}"
[log]
format = "json"
[keys]
ca_file = "{ca_file}"
timeout = "{timeout}"
{allow}
[keys.connect_to]
{relays}
[[endpoint]]
name = "github"
path = "/github"
provider = "github"
secrets = ["env:HOOK_SECRET"]
handlers = ["record"]
[[endpoint]]
name = "orders"
path = "/sns"
provider = "aws-sns"
config.topic_arn = "{topic}"
handlers = ["record"]
{sns}
[[endpoint]]
name = "paypal"
path = "/paypal"
provider = "paypal"
config.webhook_id = "8PT597110X687430LKGECATA"
handlers = ["record"]
[[endpoint]]
name = "pubsub"
path = "/pubsub"
provider = "google-pubsub"
config.audience = "https://hooks.test/pubsub"
config.service_account = "push@project.iam.gserviceaccount.com"
handlers = ["record"]
[[endpoint]]
name = "fusionauth"
path = "/fusionauth"
provider = "fusionauth"
jwks_url = "https://localhost:{port}/jwks.json"
handlers = ["record"]
[[endpoint]]
name = "travisci"
path = "/travisci"
provider = "travisci"
handlers = ["record"]
[[endpoint]]
name = "falai"
path = "/falai"
provider = "falai"
handlers = ["record"]
"""


class World:
    """Key servers, keys, and a service that is configured for them."""

    def __init__(self, serve, folder) -> None:
        self._start = serve
        self.authority = Authority()
        self._ca_file = self.authority.write_root(folder)
        hosts = (SNS, GOOGLE, PAYPAL, "rest.fal.ai", "api.travis-ci.com", "localhost")
        self.servers = {h: KeyServer(self.authority, h, folder=folder) for h in hosts}
        self.sns_key, self.sns_certificate = self.authority.issue("sns.amazonaws.com")
        self.paypal_key, self.paypal_certificate = self.authority.issue(PAYPAL_NAME)
        self.google_key = rsa.generate_private_key(65537, 2048)
        self.servers[SNS].answers[CERTIFICATE] = ok(self.sns_certificate)
        self.servers[PAYPAL].answers[PAYPAL_PATH] = ok(self.paypal_certificate)
        self.publish(g1=self.google_key)

    def publish(self, age_s: int = 3600, **keys) -> None:
        """Google's key set is this."""
        listed = [
            json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(k.public_key())) for k in keys.values()
        ]
        for entry, kid in zip(listed, keys, strict=True):
            entry |= {"kid": kid, "alg": "RS256", "use": "sig"}
        body = json.dumps({"keys": listed}).encode()
        self.servers[GOOGLE].answers["/oauth2/v3/certs"] = ok(
            body, f"Cache-Control: max-age={age_s}"
        )

    def serve(
        self,
        timeout="2s",
        allow='allow = ["127.0.0.0/8", "::1"]',
        sns="",
        durability="fsync",
        drain="20s",
    ):
        relays = "".join(
            f'"{h}" = "127.0.0.1:{s.port}"\n' for h, s in self.servers.items() if h != "localhost"
        )
        text = CONFIG.format(
            ca_file=self._ca_file, timeout=timeout, allow=allow, relays=relays, topic=TOPIC, sns=sns,
            durability=durability, drain=drain, port=self.servers["localhost"].port,
        )  # fmt: skip
        self.service = self._start(text)
        return self.service

    def post(self, raw: bytes) -> int:
        return status_of(exchange(self.service.port, raw))

    def asked(self, host: str) -> list[str]:
        return self.servers[host].asked

    def sns(
        self,
        kind="Notification",
        *,
        key=None,
        url=f"https://{SNS}{CERTIFICATE}",
        version="2",
        **changes,
    ) -> bytes:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        message = {
            "Type": kind,
            "MessageId": "m-1",
            "TopicArn": TOPIC,
            "Message": "hello",
            "Timestamp": now,
        }
        if kind == "Notification":
            message["Subject"] = "news"
        else:
            message["Token"] = "t0ken"
            message["SubscribeURL"] = (
                f"https://{SNS}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=t0ken"
            )
        message |= changes
        signed = "".join(f"{name}\n{message[name]}\n" for name in sorted(message))
        digest = hashes.SHA256() if version == "2" else hashes.SHA1()
        signature = (key or self.sns_key).sign(signed.encode(), padding.PKCS1v15(), digest)
        message |= {
            "SignatureVersion": version, "SigningCertURL": url,
            "Signature": base64.b64encode(signature).decode(), "UnsubscribeURL": f"https://{SNS}/?x",
        }  # fmt: skip
        fields = {"content-type": "text/plain; charset=UTF-8", "x-amz-sns-message-type": kind}
        return post_of("/sns", json.dumps(message).encode(), fields)

    def pubsub(self, key=None, kid="g1", message_id="1") -> bytes:
        now = int(time.time())
        claims = {
            "iss": "https://accounts.google.com", "aud": "https://hooks.test/pubsub", "iat": now,
            "exp": now + 300, "email": "push@project.iam.gserviceaccount.com", "email_verified": True,
        }  # fmt: skip
        token = jwt.encode(claims, key or self.google_key, "RS256", {"kid": kid})
        body = json.dumps({"message": {"data": "aGk=", "messageId": message_id}}).encode()
        return post_of("/pubsub", body, {"authorization": f"Bearer {token}"})

    def paypal(
        self,
        *,
        key=None,
        url=f"https://{PAYPAL}{PAYPAL_PATH}",
        body=b'{"id":"WH-1","event_type":"A.B"}',
    ) -> bytes:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        signed = f"071f7d20|{now}|8PT597110X687430LKGECATA|{zlib.crc32(body)}".encode()
        signature = (key or self.paypal_key).sign(signed, padding.PKCS1v15(), hashes.SHA256())
        fields = {
            "paypal-transmission-id": "071f7d20", "paypal-transmission-time": now,
            "paypal-cert-url": url, "paypal-auth-algo": "SHA256withRSA",
            "paypal-transmission-sig": base64.b64encode(signature).decode(),
        }  # fmt: skip
        return post_of("/paypal", body, fields)

    def lines(self, message: str, part: str = "", count: int = 1) -> list[dict]:
        """Log lines of this kind that have the part, once there are so many."""

        def found() -> list[dict]:
            lines = [x for x in self.service.messages(message) if part in json.dumps(x)]
            return lines if len(lines) >= count else []

        return wait_for(found, f"{message} {part}")

    def rejects(self, endpoint: str, count: int = 1) -> list[str]:
        part = f'"endpoint": "{endpoint}"'
        return [line["reason"] for line in self.lines("rejected", part, count)]

    def kept_rejects(self, endpoint: str, count: int) -> list[str]:
        """The same of more than the log says one by one."""

        def found() -> list[str]:
            rows = rejects.read(self.service.folder / "var" / "rejects.db", 1000, endpoint)
            return [row.reason for row in rows] if len(rows) >= count else []

        return wait_for(found, f"{count} refusals of {endpoint}")

    def metric(self, name: str) -> float:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.service.admin_port}/metrics"
        ) as answer:
            match = re.search(rf"^{re.escape(name)} (\S+)$", answer.read().decode(), re.MULTILINE)
        assert match, name
        return float(match[1])

    def close(self) -> None:
        for server in self.servers.values():
            server.close()


def post_of(path: str, body: bytes, fields: dict[str, str]) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: hooks.test", f"content-length: {len(body)}"]
    fields = {"content-type": "application/json"} | fields
    lines += [f"{name}: {value}" for name, value in fields.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@pytest.fixture
def world(serve, tmp_path):
    made = World(serve, tmp_path)
    yield made
    made.close()


def test_keys_are_fetched_when_they_are_needed_and_kept(world):
    service = world.serve()
    wait_for(lambda: world.asked(GOOGLE), "the set that is always wanted, before anything comes")
    for _ in range(3):
        assert world.post(world.sns()) == 200
        assert world.post(world.sns(version="1", MessageId="m-2")) == 200
        assert world.post(world.paypal()) == 202
        assert world.post(world.pubsub()) == 202
    assert world.asked(SNS) == [CERTIFICATE]
    assert world.asked(PAYPAL) == [PAYPAL_PATH]
    assert world.asked(GOOGLE) == ["/oauth2/v3/certs"]
    wait_for(lambda: len(service.records()) >= 4, "the events")
    assert {r["provider"] for r in service.records()} == {"aws-sns", "paypal", "google-pubsub"}
    for part in (SNS + CERTIFICATE, PAYPAL + PAYPAL_PATH, GOOGLE):
        assert len(world.lines("key fetched", part)) == 1
    assert world.metric("fasthook_keys") >= 3
    assert world.metric('fasthook_fetches_total{result="done"}') >= 3
    assert not service.messages("rejected")


def test_without_a_spool_it_is_the_same(world):
    world.serve(durability="none")
    assert world.post(world.sns()) == 200
    assert world.post(world.sns(Message="other", key=world.paypal_key)) == 401
    world.servers[SNS].answers[f"/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=t0ken"] = ok(
        b"<x/>"
    )
    assert world.post(world.sns("SubscriptionConfirmation")) == 200
    assert len(world.asked(SNS)) == 2


def test_what_another_key_signs_is_refused_as_ever(world):
    world.serve()
    other = rsa.generate_private_key(65537, 2048)
    for _ in range(2):  # with the key fetched for it, and with the one that is kept
        assert world.post(world.sns(key=other)) == 401
        assert world.post(world.paypal(key=other)) == 401
        assert world.post(world.pubsub(key=other)) == 401
    assert world.post(world.sns(TopicArn=TOPIC + "x")) == 401
    assert not world.service.records()


@pytest.mark.parametrize(
    "url",
    [
        f"http://{SNS}{CERTIFICATE}", f"https://{SNS}.evil.test{CERTIFICATE}", f"https://{SNS}@evil.test{CERTIFICATE}",
        f"https://{SNS}:8443{CERTIFICATE}", "https://169.254.169.254/x.pem", "https://[::ffff:169.254.169.254]/x.pem",
        "https://sns.eu-west-1.amazonaws.com/x.pem", "https://sns.evil.amazonaws.com/x.pem", "file:///etc/x.pem",
        f"https://{SNS}/x.pem?y=.pem", f"https://{SNS}/../x.pem", f"https://{SNS}/x.pem#", f"https://{SNS}/x.der", "",
        f"https://{SNS}/x.pem\r\n", f"HTTPS://{SNS}/x.pem", "https://sns.us-east-1.amazonaws.com.cn/x.pem",
        f"https://{SNS}/" + "x" * 600 + ".pem",
    ],
)  # fmt: skip
def test_certificates_come_from_their_senders_host_alone(url, world_of_urls):
    world = world_of_urls
    connections = sum(server.connections for server in world.servers.values())
    assert world.post(world.sns(url=url)) == 401
    assert world.post(world.paypal(url=url or "x")) == 401
    time.sleep(0.02)
    assert sum(server.connections for server in world.servers.values()) == connections


@pytest.fixture(scope="module")
def world_of_urls(package, tmp_path_factory):
    """One for all of these, since none of them is to change anything."""
    from tests.system.conftest import SECRET, Service

    folder = tmp_path_factory.mktemp("urls")
    services: list[Service] = []

    def start(config):
        services.append(
            Service(config, folder, {"PYTHONPATH": str(package), "HOOK_SECRET": SECRET})
        )
        return services[0]

    made = World(start, folder)
    made.serve()
    wait_for(
        lambda: (
            len(services[0].messages("key fetched")) + len(services[0].messages("key not fetched"))
            >= 3
        ),
        "start",
    )
    # That it is not the test: from where it has to come, it comes.
    assert made.post(made.sns()) == 200
    assert made.post(made.paypal()) == 202
    yield made
    services[0].stop()
    made.close()


# --- a key server that does not do its work -------------------------------------------------------


def test_while_a_key_server_hangs_all_else_goes_on(world):
    world.servers[SNS].answers["/hangs.pem"] = world.servers[SNS].hang
    service = world.serve(timeout="3s")
    assert world.post(world.sns()) == 200  # its key is kept from here on
    slow: list[tuple[bytes, float]] = []

    def wait():
        began = time.monotonic()
        slow.append(
            (
                exchange(service.port, world.sns(url=f"https://{SNS}/hangs.pem")),
                time.monotonic() - began,
            )
        )

    threads = [threading.Thread(target=wait) for _ in range(20)]
    for thread in threads:
        thread.start()
    wait_for(lambda: world.metric("fasthook_key_waiting") == 20, "all that wait")
    began = time.monotonic()
    for number in range(20):
        assert world.post(world.sns(MessageId=f"x{number}")) == 200
        assert world.post(github_request(x_github_delivery=f"x{number}")) == 202
        assert world.post(world.pubsub(message_id=f"x{number}")) == 202
    assert time.monotonic() - began < 2
    assert not slow
    for thread in threads:
        thread.join()
    assert world.asked(SNS).count("/hangs.pem") == 1, "one fetch for all of them"
    for answer, took_s in slow:
        assert status_of(answer) == 503
        assert b"\r\nRetry-After: " in answer
        assert took_s < 6
    assert len(slow) == 20
    assert all("no key from https://sns" in reason for reason in world.kept_rejects("orders", 20))
    assert world.metric("fasthook_key_waiting") == 0
    # What failed a moment ago is not tried again, nor waited for.
    began = time.monotonic()
    assert world.post(world.sns(url=f"https://{SNS}/hangs.pem")) == 503
    assert time.monotonic() - began < 1
    assert world.asked(SNS).count("/hangs.pem") == 1


def test_answers_stay_in_order_while_a_key_is_fetched(world):
    released = threading.Event()

    def later(secured):
        released.wait(5)
        secured.sendall(ok(world.sns_certificate))

    world.servers[SNS].answers[CERTIFICATE] = later
    service = world.serve()
    requests = [
        github_request(),
        world.sns(),
        github_request(x_github_delivery="2"),
        github_request(path="/none"),
    ]
    with socket.create_connection(("127.0.0.1", service.port), timeout=5) as client:
        client.sendall(b"".join(requests))
        received = b""
        while received.count(b"HTTP/1.1 ") < 1:
            received += client.recv(65536)
        wait_for(lambda: world.asked(SNS), "the fetch")
        time.sleep(0.05)
        assert received.count(b"HTTP/1.1 ") == 1
        released.set()
        while received.count(b"HTTP/1.1 ") < 4:
            received += client.recv(65536)
    assert re.findall(rb"HTTP/1\.1 (\d+)", received) == [b"202", b"200", b"202", b"404"]


def test_a_client_that_leaves_while_a_key_is_fetched_harms_nobody(world):
    server = world.servers[SNS]
    released = threading.Event()

    def later(secured):
        released.wait(5)
        secured.sendall(ok(world.sns_certificate))

    server.answers[CERTIFICATE] = later
    service = world.serve()
    with socket.create_connection(("127.0.0.1", service.port), timeout=5) as client:
        client.sendall(world.sns())
        wait_for(lambda: server.asked, "the fetch")
    released.set()
    assert world.post(world.sns(MessageId="next")) == 200
    assert not service.messages("internal error")


@pytest.mark.parametrize(
    "kind", ["down", "500", "huge", "redirect", "junk", "expired", "wrong name", "no key"]
)
def test_a_key_that_can_not_be_had_is_said_and_asked_for_later(world, kind):
    server = world.servers[SNS]
    _, expired = world.authority.issue("sns.amazonaws.com", key=world.sns_key, began=-9, days=-1)
    _, other = world.authority.issue("evil.test", key=world.sns_key)
    answers = {
        "500": (b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", "it answered 500"),
        "huge": (ok(world.sns_certificate + b"x" * 300_000), "larger than 262144 bytes"),
        "redirect": (b"HTTP/1.1 301 M\r\nLocation: https://evil.test/\r\nContent-Length: 0\r\n\r\n", "not followed"),
        "junk": (ok(b"junk"), "no key from"),
        "expired": (ok(expired), "not now"),
        "wrong name": (ok(other), "is issued to evil.test; expected sns.amazonaws.com"),
        "no key": (ok(b""), "no key from"),
        "down": (b"", "no connection"),
    }  # fmt: skip
    server.answers[CERTIFICATE], reason = answers[kind]
    if kind == "down":
        server.close()
    world.serve()
    answer = exchange(world.service.port, world.sns())
    assert status_of(answer) == 503
    assert b"\r\nRetry-After: 5\r\n" in answer
    assert answer.endswith(b"\r\n\r\nkey not available\n")
    assert reason in world.rejects("orders")[0]
    assert world.post(world.sns()) == 503
    failed = world.lines("key not fetched", SNS)
    assert len(failed) == 1, "the second one did not ask again"
    assert failed[0]["retry_in_s"] == 5
    assert world.metric('fasthook_requests_total{endpoint="orders",result="503"}') == 2
    assert world.post(github_request()) == 202
    assert not world.service.messages("internal error")


def test_paypals_certificate_has_to_lead_to_a_known_root(world):
    server = world.servers[PAYPAL]
    world.serve()
    forged = Authority()
    for path, certificate in {
        "/v1/notifications/certs/CERT-forged": forged.issue(PAYPAL_NAME, key=world.paypal_key)[1],
        "/v1/notifications/certs/CERT-other": world.authority.issue(
            "api.paypal.com", key=world.paypal_key
        )[1],
    }.items():
        server.answers[path] = ok(certificate)
        assert world.post(world.paypal(url=f"https://{PAYPAL}{path}")) == 503
    reasons = world.rejects("paypal", 2)
    assert "leads to no known root" in reasons[0]
    assert "is issued to api.paypal.com; expected messageverificationcerts.paypal.com" in reasons[1]
    assert world.post(world.paypal()) == 202


def test_private_addresses_are_asked_only_where_that_is_allowed(world):
    world.serve(allow="")
    reason = world.lines("key not fetched", "localhost")[0]["reason"]
    assert "localhost has no public address, but " in reason
    assert "keys.allow" in reason
    assert world.servers["localhost"].connections == 0


# --- key sets -------------------------------------------------------------------------------------


def test_a_flood_of_unknown_keys_costs_one_fetch(world):
    world.serve()
    assert world.post(world.pubsub()) == 202
    statuses = {world.post(world.pubsub(kid=f"k{number}")) for number in range(60)}
    assert statuses == {401}
    assert len(world.asked(GOOGLE)) == 1
    assert "no key has the id that the token names" in world.rejects("pubsub")[0]
    assert world.post(world.pubsub(message_id="2")) == 202


def test_a_flood_of_certificates_costs_a_few_fetches_and_shuts_nobody_out(world):
    world.serve()
    assert world.post(world.sns()) == 200
    statuses = [world.post(world.sns(url=f"https://{SNS}/x{number}.pem")) for number in range(60)]
    assert set(statuses) == {503}
    assert len(world.asked(SNS)) <= 20
    assert any("named too many keys" in reason for reason in world.kept_rejects("orders", 60))
    assert world.post(world.sns(MessageId="m-3")) == 200


def test_keys_of_ones_own_server_and_of_other_kinds(world):
    key = ed25519.Ed25519PrivateKey.generate()
    raw = base64.urlsafe_b64encode(key.public_key().public_bytes_raw()).rstrip(b"=").decode()
    old = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    listed = [
        {"kty": "OKP", "crv": "Ed25519", "x": base64.urlsafe_b64encode(old).rstrip(b"=").decode()}
    ]
    listed.append({"kty": "OKP", "crv": "Ed25519", "x": raw})
    world.servers["rest.fal.ai"].answers["/.well-known/jwks.json"] = ok(
        json.dumps({"keys": listed}).encode()
    )
    rsa_key = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(world.google_key.public_key()))
    odd = [
        {"kty": "oct", "k": base64.urlsafe_b64encode(b"s" * 32).rstrip(b"=").decode(), "kid": "s"},
        {"kty": "new", "kid": "n"},
        rsa_key | {"kid": "f"},
    ]
    world.servers["localhost"].answers["/jwks.json"] = ok(json.dumps({"keys": odd}).encode())
    world.serve()
    body = b'{"status":"OK"}'
    now = str(int(time.time()))
    digest = hashes.Hash(hashes.SHA256())
    digest.update(body)
    hexed = digest.finalize().hex()
    signed = f"r1\nu1\n{now}\n{hexed}".encode()
    fields = {
        "x-fal-webhook-request-id": "r1", "x-fal-webhook-user-id": "u1", "x-fal-webhook-timestamp": now,
    }  # fmt: skip
    for signature, status in ((key.sign(signed), 202), (bytes(64), 401)):
        fields["x-fal-webhook-signature"] = signature.hex()
        assert world.post(post_of("/falai", body, fields)) == status
    sha = base64.b64encode(bytes.fromhex(hexed)).decode()
    token = jwt.encode({"request_body_sha256": sha}, world.google_key, "RS256", {"kid": "f"})
    forged = jwt.encode({"request_body_sha256": sha}, b"s" * 32, "HS256", {"kid": "s"})
    assert world.post(post_of("/fusionauth", body, {"x-fusionauth-signature-jwt": token})) == 202
    assert world.post(post_of("/fusionauth", body, {"x-fusionauth-signature-jwt": forged})) == 401


def test_a_key_in_a_form_is_verified_by_one_in_json(world):
    public = world.google_key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    document = {"config": {"notifications": {"webhook": {"public_key": public.decode()}}}}
    world.servers["api.travis-ci.com"].answers["/config"] = ok(json.dumps(document).encode())
    world.serve()
    for key, status in ((world.google_key, 202), (world.paypal_key, 401)):
        signature = base64.b64encode(key.sign(b'{"id":1}', padding.PKCS1v15(), hashes.SHA1()))
        fields = {"signature": signature.decode(), "content-type": FORM}
        body = b"payload=%7B%22id%22%3A1%7D"
        got = world.post(post_of("/travisci", body, fields))
        assert got == status, world.rejects("travisci")
        boundary = "multipart/form-data; boundary=b"
        parts = (
            b'--b\r\nContent-Disposition: form-data; name="payload"\r\n\r\n{"id":1}\r\n--b--\r\n'
        )
        many = post_of("/travisci", parts, fields | {"content-type": boundary})
        assert world.post(many) in (status, 415)
    assert world.asked("api.travis-ci.com") == ["/config"]


# --- subscriptions --------------------------------------------------------------------------------


CONFIRM = f"/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=t0ken"


def test_a_subscription_is_confirmed_once_it_is_verified(world):
    server = world.servers[SNS]
    server.answers[CONFIRM] = ok(b"<ConfirmSubscriptionResponse/>")
    service = world.serve()
    assert world.post(world.sns("SubscriptionConfirmation", key=world.paypal_key)) == 401
    assert world.post(world.sns("SubscriptionConfirmation", TopicArn=TOPIC + "x")) == 401
    assert CONFIRM not in server.asked, "nothing that is forged, and nobody else's topic"
    assert world.post(world.sns("SubscriptionConfirmation")) == 200
    assert server.asked == [CERTIFICATE, CONFIRM]
    assert world.lines("confirmed")[0]["endpoint"] == "orders"
    assert world.lines("handshake", "SubscriptionConfirmation")
    assert world.post(world.sns("UnsubscribeConfirmation")) == 200
    assert world.lines("the sender sends no more")[0]["handshake"] == "UnsubscribeConfirmation"
    assert server.asked == [CERTIFICATE, CONFIRM], "nobody subscribes again"
    assert world.post(world.sns()) == 200
    wait_for(service.records, "the event")
    assert [record["type"] for record in service.records()] == ["Notification"]


@pytest.mark.parametrize(
    "url",
    [
        "https://169.254.169.254/?Action=ConfirmSubscription&Token=x", f"http://{SNS}/?Action=ConfirmSubscription&Token=x",
        f"https://{SNS}.evil.test/?Action=ConfirmSubscription&x", f"https://x@{SNS}/?Action=ConfirmSubscription&x",
        f"https://{SNS}:444/?Action=ConfirmSubscription&x", f"https://{SNS}/?Action=DeleteTopic&x", f"https://{SNS}/",
    ],
)  # fmt: skip
def test_only_the_senders_address_is_visited_even_if_it_is_signed(world_of_urls, url):
    world = world_of_urls
    connections = sum(server.connections for server in world.servers.values())
    assert world.post(world.sns("SubscriptionConfirmation", SubscribeURL=url)) == 400
    time.sleep(0.02)
    assert sum(server.connections for server in world.servers.values()) == connections


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 No\r\nLocation: https://evil.test\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_a_confirmation_that_fails_is_to_come_again(world, answer):
    world.servers[SNS].answers[CONFIRM] = answer
    world.serve()
    assert world.post(world.sns("SubscriptionConfirmation")) == 503
    assert "SubscriptionConfirmation: its address: it answered" in world.rejects("orders")[0]
    assert not world.service.messages("confirmed")
    world.servers[SNS].answers[CONFIRM] = ok(b"")
    assert world.post(world.sns("SubscriptionConfirmation")) == 200


def test_who_asks_for_confirmations_confirms_them(world):
    service = world.serve(sns='events = ["Notification", "SubscriptionConfirmation"]')
    assert world.post(world.sns("SubscriptionConfirmation")) == 200
    wait_for(service.records, "the event")
    assert service.records()[0]["type"] == "SubscriptionConfirmation"
    assert world.asked(SNS) == [CERTIFICATE]


def test_what_is_only_observed_is_never_visited(world):
    world.serve(sns='mode = "observe"')
    other = rsa.generate_private_key(65537, 2048)
    assert world.post(world.sns(key=other)) == 200
    assert world.post(world.sns("SubscriptionConfirmation", key=other)) == 401
    world.servers[SNS].answers["/none.pem"] = b""
    assert world.post(world.sns(url=f"https://{SNS}/none.pem", MessageId="m-9")) == 200
    assert world.lines("would be refused", "no key from")
    assert CONFIRM not in world.asked(SNS)


@pytest.mark.parametrize("drain", ["1s", "20s"])
def test_it_stops_although_a_key_server_hangs(world, drain):
    world.servers[SNS].answers["/hangs.pem"] = world.servers[SNS].hang
    service = world.serve(timeout="3s", drain=drain)
    with socket.create_connection(("127.0.0.1", service.port), timeout=8) as client:
        client.sendall(world.sns(url=f"https://{SNS}/hangs.pem"))
        wait_for(lambda: "/hangs.pem" in world.asked(SNS), "the fetch")
        began = time.monotonic()
        service.terminate()
        answer = client.recv(65536)
        assert status_of(answer) == (503 if drain == "20s" else 0)
    assert service.stop() == 0
    assert time.monotonic() - began < (3 if drain == "1s" else 6)
    assert "Traceback" not in "".join(service.lines)
