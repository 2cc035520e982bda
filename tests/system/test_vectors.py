"""The providers' vectors, as whole requests over sockets to a service that runs.

Three roads lead to it: TCP, a unix socket, and nginx, which ends TLS and shows the service another
host, scheme and path than the sender signed. On each of them every vector is genuine exactly if
it says so; and no longer once a bit of its key, body, signature or time is another.

The vectors are read from a folder beside the checkout, where there is one. The service has an
endpoint for each key, all on one spool; its clock is set to each vector's.
"""

import contextlib
import json
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import pytest

from fasthook.errors import BadPayload, ConfigError, Rejection, WrongContentType
from fasthook.intake import catalogue
from fasthook.intake.schemes import BARE
from fasthook.model import Request
from tests.intake.support import receive
from tests.intake.test_vectors import CASES, FILE, VALID, endpoint_for, key_for, request_in
from tests.system.bits import (
    now_of,
    other_bodies,
    other_keys,
    other_signatures,
    other_times,
    own_secrets,
)
from tests.system.clocked import Clock
from tests.system.conftest import PATIENCE_S, ROOT, Service, certificate, nginx
from tests.system.road import Answer, Road

pytestmark = pytest.mark.skipif(FILE is None, reason="no vectors beside the checkout")

ROADS = ["tcp", "unix", "nginx"]
HANDSHAKES = FILE["handshake_tests"] if FILE else []
SERVER = """
[server]
listen = ["tcp://127.0.0.1:0", "unix:{folder}/hooks.sock"]
unverified_rate = "1000000/s"
unverified_burst = 1000000
[admin]
listen = "tcp://127.0.0.1:0"
[spool]
durability = "os"
[log]
format = "json"
"""
#: The sender's path, host and scheme end here: the service has to know them by its configuration.
HTTP = """
  client_max_body_size 1m;
  upstream hooks {{ server unix:{folder}/hooks.sock; keepalive 8; }}
  server {{
    listen unix:{folder}/tls.sock ssl;
    ssl_certificate {folder}/cert.pem;
    ssl_certificate_key {folder}/key.pem;
    keepalive_requests 1000000;
    location / {{
      rewrite ^ /$http_x_to_endpoint break;
      proxy_pass http://hooks;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host internal.example;
      proxy_set_header X-To-Endpoint "";
      proxy_set_header X-Forwarded-Host $host;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-For 192.0.2.7;
      proxy_next_upstream off;
    }}
  }}
"""


# --- one endpoint for each key --------------------------------------------------------------------


class Wanted(NamedTuple):
    """An endpoint's settings, apart from its name and path."""

    provider: str
    scheme: str
    secrets: tuple[str, ...]
    public_url: str
    config: tuple[tuple[str, str], ...] = ()
    is_timeless: bool = False  # the vector has no clock, and says nothing of its age
    takes_anything: bool = False  # the vector's body is no payload

    def table(self, name: str) -> str:
        fields = {
            "name": name,
            "path": f"/{name}",
            "provider": self.provider,
            "scheme": self.scheme,
            "public_url": self.public_url,
            "handlers": ["log"],
        }
        if self.secrets:
            fields["secrets"] = [f"plain:{secret}" for secret in self.secrets]
        if self.is_timeless:
            fields["tolerance"] = "99999d"
        if self.takes_anything:
            fields["content"] = ["any"]
        lines = [f"{key} = {toml(value)}" for key, value in fields.items() if value]
        pairs = [f"{toml(key)} = {toml(value)}" for key, value in self.config]
        return "\n".join(["[[endpoint]]", *lines, f"config = {{ {', '.join(pairs)} }}", ""])


#: Where nothing is verified.
OPEN = Wanted("none", "", (), "", takes_anything=True)


def toml(value: Any) -> str:
    """TOML's strings and lists of them are JSON's, but for DEL and surrogates."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def wanted_for(name: str, vector: dict, secrets: tuple[str, ...]) -> Wanted:
    config = {key: str(value) for key, value in vector.get("config", {}).items()}
    url = config.pop("public_url", vector["url"])
    scheme = catalogue.load(name).schemes[vector["scheme"]]
    if "topic_arn" in scheme.settings:  # asked for, so that no other topic can send
        config["topic_arn"] = json.loads(vector["body"])["TopicArn"]
    is_timeless = "now" not in vector and bool(scheme.timestamp)
    where = (name, vector["scheme"], secrets, url, tuple(config.items()), is_timeless)
    return Wanted(*where, takes_anything=not is_payload(name, vector))


def is_payload(name: str, vector: dict) -> bool:
    """Whether the body is what its content type says, where the vector is genuine."""
    try:
        receive(endpoint_for(name, vector), request_in(vector), now_of(vector))
    except (BadPayload, WrongContentType):
        return False
    except Rejection:
        return True
    return True


# --- the roads ------------------------------------------------------------------------------------


def handshake_secret(test: dict) -> str:
    config = test["config"]
    if "private_key" in config:
        return f"{config['public_key']}:{config['private_key']}"
    return config.get("secret") or config.get("public_key") or "ab" * 32


def wanted_for_handshake(test: dict) -> Wanted:
    provider = catalogue.load(test["provider"])
    scheme = provider.schemes[provider.default_scheme]
    names = {"topic": "topics"}
    settings = {
        names.get(key, key): " ".join(value) if isinstance(value, list) else str(value)
        for key, value in test["config"].items()
    }
    known = [*scheme.settings, *provider.handshake_settings]
    config = {key: settings.get(key, "test") for key in known}
    given = handshake_secret(test)
    is_pair = "private_key" in test["config"]
    secret = (given if is_pair else key_for(scheme, given).decode(),)
    if provider.id == "ebay":
        secret = own_secrets(next(v for name, v in (c.values for c in CASES) if name == "ebay"))
    if "state" in test["config"]:
        secret = (test["config"]["secret"],) if "secret" in test["config"] else ()
    url = test["config"].get("public_url", test["request"]["url"])
    return Wanted(provider.id, "", secret, url, tuple(config.items()))


def wanted_endpoints() -> list[Wanted]:
    """Of all vectors, those with other keys, and the handshakes."""
    wanted = [wanted_for(*case.values, own_secrets(case.values[1])) for case in CASES]
    for case in VALID:
        keys = other_keys(*case.values)
        with contextlib.suppress(ConfigError):  # no key at all: the service would not start
            endpoint_for(*case.values, [key.encode() for key in keys])
            wanted.append(wanted_for(*case.values, keys))
    wanted += [wanted_for_handshake(test) for test in HANDSHAKES]
    return list(dict.fromkeys([*wanted, OPEN]))


class Front:
    """The service, and all ways to it."""

    def __init__(self, service: Service, clock: Clock, roads: dict, names: dict) -> None:
        self.service = service
        self.clock = clock
        self.roads = roads
        self.names = names
        self.taken = 0  # answers that were 2xx

    def send(
        self, road: str, wanted: Wanted, vector: dict, request: Request, now_s: float
    ) -> Answer:
        self.clock.set(now_s)
        answer = self.roads[road].exchange(
            request.method.decode(), self.names[wanted], vector["url"], request
        )
        self.taken += 200 <= answer.status < 300
        return answer


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp("vectors")
    clock = Clock(folder / "clock")
    names = {wanted: f"e{index}" for index, wanted in enumerate(wanted_endpoints())}
    tables = [wanted.table(name) for wanted, name in names.items()]
    config = SERVER.format(folder=folder) + "\n".join(tables)
    service = Service(config, folder, {"PYTHONPATH": str(ROOT)}, clock)
    certificate(folder, "example.com")
    context = ssl.create_default_context(cafile=str(folder / "cert.pem"))

    def unix(name: str) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE_S)
        connection.connect(str(folder / name))
        return connection

    roads = {
        "tcp": Road(
            lambda: socket.create_connection(("127.0.0.1", service.port), PATIENCE_S), False
        ),
        "unix": Road(lambda: unix("hooks.sock"), False),
        "nginx": Road(
            lambda: context.wrap_socket(unix("tls.sock"), server_hostname="example.com"), True
        ),
    }
    try:
        with nginx(folder, HTTP.format(folder=folder), folder / "tls.sock"):
            yield Front(service, clock, roads, names)
    finally:
        for road in roads.values():
            road.close()
        service.stop()


# --- the tests ------------------------------------------------------------------------------------

every_road = pytest.mark.parametrize("road", ROADS)


@every_road
@pytest.mark.parametrize(("name", "vector"), CASES)
def test_a_vector_is_genuine_exactly_if_it_says_so(name, vector, road, front):
    wanted = wanted_for(name, vector, own_secrets(vector))
    answer = front.send(road, wanted, vector, request_in(vector), now_of(vector))

    if vector["expected"] == "valid":
        assert 200 <= answer.status < 300
    else:
        assert answer.status in (catalogue.load(name).refusal_status, 405)


@cache
def forgeries(index: int) -> list[tuple[str, Wanted | None, Request]]:
    """What to change, the endpoint to send it to (None: such a one is refused at the start)."""
    name, vector = VALID[index].values
    request = request_in(vector)
    wanted = wanted_for(name, vector, own_secrets(vector))
    keys = other_keys(name, vector)
    made: list[tuple[str, Wanted | None, Request]] = []
    try:
        endpoint_for(name, vector, [key.encode() for key in keys])
        made.append(("key", wanted_for(name, vector, keys), request))
    except ConfigError:
        made.append(("key", None, request))
    for what, changes in (
        ("body", other_bodies),
        ("signature", other_signatures),
        ("time", other_times),
    ):
        made += [(what, wanted, changed) for changed in changes(name, vector, request)]
    return made


@every_road
@pytest.mark.parametrize("index", range(len(VALID)), ids=[case.id for case in VALID])
def test_one_bit_of_key_body_signature_or_time_makes_it_worthless(index, road, front):
    name, vector = VALID[index].values
    made = forgeries(index)
    scheme = catalogue.load(name).schemes[vector["scheme"]]
    kinds = {what for what, *_ in made}
    assert {"key"} | (
        {"body"} if scheme.covers_body and request_in(vector).body else set()
    ) <= kinds
    assert scheme.kind in (*BARE, "code") or len(kinds) > 1
    for what, wanted, request in made:
        if wanted is not None:
            answer = front.send(road, wanted, vector, request, now_of(vector))
            assert answer.status == catalogue.load(name).refusal_status, what


@every_road
@pytest.mark.parametrize(
    "test", HANDSHAKES, ids=[f"{test['provider']}-{test['name']}" for test in HANDSHAKES]
)
def test_a_handshake_is_answered_as_its_vector_says(test, road, front):
    given, expect, state = test["request"], test["expect"], test["config"].get("state")
    if state == "pairing" and road != "tcp":
        pytest.skip("a secret is handed over once")
    vector = {**given, "body": given.get("body") or "", "url": given["url"]}
    wanted = wanted_for_handshake(test)
    request = request_in(vector)
    with paired(front, wanted) if state == "pairing" else contextlib.nullcontext():
        answer = front.send(road, wanted, vector, request, test["config"].get("now", now_of({})))

    assert answer.status == expect["status"]
    for header, value in expect.get("headers", {}).items():
        assert answer.headers[header].partition(";")[0] == value
    if "body" in expect:
        assert answer.body.decode() == expect["body"] or answer.status >= 400
    if "json" in expect:
        assert json.loads(answer.body) == expect["json"]


@contextlib.contextmanager
def paired(front: Front, wanted: Wanted) -> Iterator[None]:
    """While `fasthook pair` waits for the endpoint's secret, which has come in the end."""
    command = [sys.executable, "-m", "fasthook.cli", "pair", front.names[wanted]]
    command += ["-c", str(front.service.config)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as one:
        try:
            assert "waits for the secret" in one.stdout.readline()
            yield
            assert one.wait(PATIENCE_S) == 0
            assert "has the secret" in one.stdout.read()
        finally:
            one.kill()


@every_road
def test_where_nothing_is_verified_the_same_forgeries_pass(road, front):
    """The control: it is the signature that the others are refused for."""
    for index in range(0, len(VALID), 10):
        for _, _, request in forgeries(index):
            if request.method == b"POST":
                vector = VALID[index].values[1]
                answer = front.send(road, OPEN, vector, request, now_of(vector))
                assert 200 <= answer.status < 300


def test_nothing_forged_reached_a_handler_and_no_secret_the_log(front):
    """The last of this file: the service has ended, and has said all that it took.

    But for what the handler `log` writes: that is the event, which at Microsoft has the secret.
    """
    assert front.service.stop() == 0
    lines = [line["message"] for line in front.service.log()]
    passed = [line for line in front.service.log() if "secret" in line]
    assert len(passed) == front.taken
    assert lines.count("done") <= lines.count("accepted") <= front.taken
    told = {secret for wanted in front.names for secret in wanted.secrets if len(secret) > 12}
    said = [line for line in front.service.lines if '"message":"event"' not in line]
    assert [line for line in said if any(one in line for one in told)] == []
