"""A handler that waits for another event of its endpoint, while the service runs and restarts."""

from tests.system.conftest import exchange, status_of, wait_for
from tests.system.test_bad_input import request, signature

CONFIG = """
[server]
listen = ["tcp://127.0.0.1:0"]
workers = {workers}
drain_timeout = "0s"
[admin]
listen = "tcp://127.0.0.1:0"
[log]
format = "json"
[[endpoint]]
name = "shop"
path = "/shop"
provider = "github"
secrets = ["env:HOOK_SECRET"]
handlers = ["await_payment"]
[handlers.await_payment]
{options}
"""


def post(service, what, number):
    body = b'{"number": %d}' % number
    more = {"x_github_event": what, "x_github_delivery": f"{what}-{number}"}
    raw = request(body, path="/shop", x_hub_signature_256=signature(body), **more)
    assert status_of(exchange(service.port, raw)) == 202


def test_what_a_handler_waits_for_may_come_before_during_and_after_a_restart(serve):
    service = serve(CONFIG.format(workers=1, options=""))
    for number in (1, 2, 3):
        post(service, "order", number)
    post(service, "paid", 1)
    wait_for(lambda: ids(service) == ["paid-1"], "the first payment")
    service.process.kill()  # with two that wait, and one that comes while nobody does
    service.stop()
    held = CONFIG.format(workers=1, options="") + "[dispatch]\nhold = true\n"
    service = serve(held, after=service)
    post(service, "paid", 2)
    service.stop()
    service = serve(CONFIG.format(workers=1, options=""), after=service)
    wait_for(lambda: ids(service) == ["paid-1", "paid-2"], "the second payment")
    post(service, "paid", 3)
    wait_for(lambda: ids(service) == ["paid-1", "paid-2", "paid-3"], "the third payment")


def test_with_several_workers_it_does_not_matter_who_takes_the_event(serve):
    service = serve(CONFIG.format(workers=2, options='ordered_by = ""'))
    numbers = range(1, 9)
    for number in numbers:
        post(service, "order", number)
    for number in numbers:
        post(service, "paid", number)
    wait_for(lambda: len(ids(service)) == 8, "all payments")
    assert ids(service) == [f"paid-{number}" for number in numbers]


def ids(service):
    return sorted({record["id"] for record in service.records()})  # at least once
