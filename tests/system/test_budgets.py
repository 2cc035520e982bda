"""What is refused costs those who are genuine nothing: neither their endpoint's rate nor their own.

Forgers and senders come through one proxy, which says who they are.
"""

import hmac
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.system.conftest import SECRET, Service, exchange, status_of

CONFIG = """
[server]
listen = ["tcp://127.0.0.1:0"]
unverified_rate = "1/h"
unverified_burst = {burst}
[admin]
listen = "tcp://127.0.0.1:0"
[spool]
durability = "os"
[log]
format = "json"
[[endpoint]]
name = "github"
path = "/github"
provider = "github"
secrets = ["env:HOOK_SECRET"]
handlers = ["log"]
rate = "1/h"
burst = 5
mode = "{mode}"
"""
SENDER, FORGER, OTHERS = "192.0.2.1", "198.51.100.1", "203.0.113."


def post(service: Service, client: str, number: int = 0, *, is_forged: bool = False) -> int:
    body = b'{"id": %d}' % number
    mac = hmac.digest(b"forged" if is_forged else SECRET.encode(), body, "sha256").hex()
    head = (
        "POST /github HTTP/1.1\r\nHost: a\r\nX-GitHub-Event: push\r\nConnection: close\r\n"
        f"X-Forwarded-For: {client}\r\nX-Hub-Signature-256: sha256={mac}\r\n"
        f"X-GitHub-Delivery: {client}-{number}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return status_of(exchange(service.port, head.encode() + body))


@pytest.fixture
def service(serve, request) -> Service:
    mode, burst = getattr(request, "param", ("enforce", 10))
    return serve(CONFIG.format(mode=mode, burst=burst))


def test_an_endpoint_keeps_its_whole_rate_for_what_is_genuine(service: Service):
    with ThreadPoolExecutor(8) as pool:
        refused = list(
            pool.map(lambda n: post(service, f"{OTHERS}{n % 200}", n, is_forged=True), range(300))
        )
    assert set(refused) == {401}
    assert [post(service, SENDER, number) for number in range(5)] == [202] * 5
    assert post(service, SENDER, 5) == 503, "the control: there is a budget, and it is used up"


@pytest.mark.parametrize("service", [("observe", 1000)], indirect=True)
def test_what_passes_unverified_would_have_used_it_up(service: Service):
    """The control: where forgeries are let through, they are counted."""
    forged = [post(service, f"{OTHERS}{n}", n, is_forged=True) for n in range(5)]
    assert forged == [202] * 5
    assert post(service, SENDER) == 503


def test_who_forges_is_shed_and_nobody_else_is(service: Service):
    forged = [post(service, FORGER, number, is_forged=True) for number in range(15)]
    assert forged == [401] * 10 + [503] * 5
    assert post(service, SENDER, 1) == 202
    assert post(service, FORGER, 2) == 503, "the control: it is shed though this one is genuine"


def test_genuine_requests_use_up_no_budget_of_their_client(service: Service):
    for number in range(40):  # more than its burst of refusals, and of the endpoint's rate
        assert post(service, SENDER, number) == (202 if number < 5 else 503)
    assert post(service, SENDER, 99, is_forged=True) == 401, "it is not shed: none was refused"
