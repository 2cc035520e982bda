"""What comes again, what is served twice over, and what is the death of the service."""

import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from fasthook.spool.index import State
from tests.torture.helpers import (
    FULL,
    PATIENCE_S,
    Load,
    Site,
    body_of,
    check,
    digest_of,
    read_answer,
    request,
    say,
    say_sets,
    send,
    wait_for,
)

AT_ONCE = 100
ROUNDS = 100 if FULL else 5


def all_at_once(port: int, event_id: str) -> list[bytes]:
    """The same event over many connections at the same moment; the answers."""
    raw = request(event_id)
    clients = [socket.create_connection(("127.0.0.1", port), timeout=15) for _ in range(AT_ONCE)]
    try:
        for client in clients:
            client.sendall(raw[:-1])  # the last byte is the moment
        for client in clients:
            client.sendall(raw[-1:])
        return [read_answer(client) for client in clients]
    finally:
        for client in clients:
            client.close()


def sent_again_and_again(site: Site, rounds: int, weak: str = "") -> Counter[str]:
    """At once; again; after a restart; after a kill. How often each event was handled."""
    ids = [f"same-{number}" for number in range(rounds)]

    def send_all() -> None:
        for event_id in ids:
            answers = all_at_once(site.port, event_id)
            assert {answer[9:12] for answer in answers} == {b"202"}

    site.start(weak)
    send_all()
    send_all()
    site.wait_until_idle(ids)
    assert site.stop() == 0
    site.start(weak)
    send_all()
    time.sleep(0.5)  # nothing is in flight
    site.kill()
    site.start(weak)
    send_all()
    site.wait_until_idle(ids)
    assert site.stop() == 0
    return Counter(one.id for one in site.handled())


@pytest.mark.timeout(300)
def test_one_event_a_hundred_times_is_handled_once(site):
    counts = sent_again_and_again(site(), ROUNDS)
    say("same event", events=len(counts), sent_each=4 * AT_ONCE, handled=Counter(counts.values()))
    assert len(counts) == ROUNDS
    assert set(counts.values()) == {1}


def test_the_check_finds_who_does_not_recognise_what_comes_again(site):
    counts = sent_again_and_again(site(), 1, "nodedupe")
    say("same event, control", handled=Counter(counts.values()))
    assert counts["same-0"] > 1


# --- two services on one directory ----------------------------------------------------------------


def second_on(site: Site, tmp_path, weak: str = "") -> tuple[int | None, str]:
    """Exit code and words of a second service on the same directory; None: it goes on serving."""
    other = Site(tmp_path / "other", spool=site.spool)
    try:
        other.start(weak, waits=False)
        try:
            code = other.process.wait(3.0)
        except subprocess.TimeoutExpired:
            code = None
    finally:
        other.end()
    return code, other.log_text()


def test_a_second_service_is_refused_and_the_first_is_unharmed(site, tmp_path):
    service = site()
    service.start()
    with Load(service.port, rate=500) as load:
        time.sleep(0.3)
        results = [second_on(service, tmp_path) for _ in range(3 if FULL else 1)]
        time.sleep(0.3)
    service.wait_until_idle(load.acked)
    assert service.stop() == 0
    sets = check(service, load.tried, load.acked)
    say_sets("two services", sets, codes=[code for code, _ in results])
    for code, text in results:
        assert code == 2
        assert "is in use by another fasthook" in text
        assert "Traceback" not in text
    assert sets.is_clean(), sets
    assert not load.refusals
    assert not load.silent
    assert not sets.twice


def test_the_check_finds_a_second_service(site, tmp_path):
    service = site()
    service.start()
    # It may yet stumble over something else, such as the first one's control socket.
    code, text = second_on(service, tmp_path, "nolock")
    say("two services, control", code=code)
    assert "is in use by another fasthook" not in text


# --- deadly events --------------------------------------------------------------------------------


def with_deadly_events(site: Site, weak: str, deaths: int) -> tuple[set[str], int]:
    """Send some that kill the worker among others, and wait until all is done, or that has died
    so many times.
    """
    ids = [f"long-{number}" if FULL else f"brief-{number}" for number in range(24)]
    ids[5:5] = ["exit-1"]
    if FULL:
        ids[20:20] = ["segv-1"]
    site.configure(hold=True)  # all are on disk before the first death
    site.start(weak)
    for event_id in ids:
        assert send(site.port, event_id).status == 202
    assert site.stop() == 0
    site.configure(hold=False)
    site.start(weak)
    lost = lambda: len(site.messages("worker lost"))  # noqa: E731
    wait_for(lambda: lost() >= deaths or site.is_idle(ids), "the end of it", 180)
    if site.is_idle(ids):
        assert site.stop() == 0
    else:
        site.kill()
    return set(ids), lost()


@pytest.fixture(scope="module")
def after_deaths(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[set[str], int, Site]]:
    """Events, how often the service died of them, and where."""
    site = Site(tmp_path_factory.mktemp("deadly"), handler="fatal")
    try:
        began = time.monotonic()
        ids, died = with_deadly_events(site, "" if FULL else "hasty", 12)
        seconds = round(time.monotonic() - began, 1)
        say(
            "deadly",
            deaths=died,
            dead=sorted(dead_of(site)),
            handled=len(site.handled()),
            s=seconds,
        )
        yield ids, died, site
    finally:
        site.end()


def dead_of(site: Site) -> set[str]:
    return {event_id for event_id, state in site.states().items() if state == State.DEAD}


@pytest.mark.timeout(400)
def test_an_event_that_kills_the_service_is_given_up(after_deaths):
    ids, died, site = after_deaths
    deadly = ids & {"exit-1", "segv-1"}
    assert deadly <= dead_of(site)
    assert 3 <= died <= 3 * len(deadly)
    assert set(site.states().values()) == {State.DONE, State.DEAD}
    assert {one.id for one in site.handled()} | dead_of(site) == ids


@pytest.mark.timeout(400)
def test_events_in_hand_beside_a_deadly_one_are_not_given_up(after_deaths):
    site = after_deaths[2]
    assert dead_of(site) - {"exit-1", "segv-1"} == set()


def test_the_check_finds_who_does_not_know_what_killed_it(site):
    service = site(handler="fatal")
    _, died = with_deadly_events(service, "nomarks", 4)
    say("deadly, control", deaths=died)
    assert died >= 4
    assert not dead_of(service)


# --- clients that go ------------------------------------------------------------------------------

GONE = 10_000 if FULL else 600


def clients_that_go(site: Site, count: int, weak: str = "") -> set[str]:
    """RST after the body, or in its middle; what came from disk with a body that nobody sent."""
    site.configure(hold=True)
    site.start(weak)
    tried = [f"gone-{number}" for number in range(count)]
    linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"

    def go(part: list[str]) -> None:
        for number, event_id in enumerate(part):
            raw = request(event_id)
            with socket.create_connection(("127.0.0.1", site.port), timeout=15) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                client.sendall(raw if number % 4 else raw[: -len(raw) // 4])
                if number % 3 == 0:
                    time.sleep(0.001)

    threads = [threading.Thread(target=go, args=(tried[n::8],)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S * 4)
    assert send(site.port, "last").status == 202
    assert site.stop() == 0
    site.configure(hold=False)
    site.start(weak)
    site.wait_until_idle(["last"])
    assert site.stop() == 0
    handled = site.handled()
    say(f"clients that go {weak}", tried=count, spooled=len(site.states()), handled=len(handled))
    assert set(site.states().values()) == {State.DONE}
    assert len(handled) > count // 20
    assert {one.id for one in handled} <= {*tried, "last"}
    assert max(Counter(one.id for one in handled).values()) == 1
    return {one.id for one in handled if one.digest != digest_of(body_of(one.id))}


@pytest.mark.timeout(300)
def test_clients_that_go_leave_whole_events_or_none(site):
    service = site()
    assert not clients_that_go(service, GONE)
    assert "Traceback" not in service.log_text()
    assert not service.messages("internal error")


def test_the_check_finds_bodies_that_are_changed(site):
    assert clients_that_go(site(), 100, "changed")


def test_the_check_finds_a_traceback(site):
    service = site()
    service.start("noisy")
    wait_for(lambda: "Traceback" in service.log_text(), "a traceback")
