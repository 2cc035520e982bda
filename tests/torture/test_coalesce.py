"""SIGKILL while events become one run: the newest of each key runs, and no other is lost sight of."""

import contextlib
import json
import random
import socket
import threading
import time

import apsw
import pytest

from fasthook.spool.changes import State
from fasthook.spool.journal import name_of
from fasthook.spool.offline import Offline
from tests.torture.helpers import FULL, Site, read_answer, request

KILLS = 40 if FULL else 2
KEYS = 6
#: Both on disk and in memory; what waits is due while the service is down, too.
WITHIN_S = (0.3, 2.1)
#: How an event may end.
ENDS = (State.DONE, State.SUPERSEDED)


class Sender:
    """One client a key: events in order, and what was acknowledged."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.acked: dict[str, list[str]] = {}
        self._stop = threading.Event()
        keys = [f"{n}k{number}" for n in range(len(WITHIN_S)) for number in range(KEYS // 2)]
        self._threads = [threading.Thread(target=self._run, args=(key,)) for key in keys]

    def __enter__(self) -> "Sender":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, key: str) -> None:
        chance = random.Random(key)
        acked = self.acked[key] = []
        number = 0
        while not self._stop.wait(chance.choice((0.02, 0.05, 0.6))):
            event_id = f"{key}-{number}"
            body = json.dumps({"id": event_id, "key": key}).encode()
            path = f"/github{key[0]}"
            raw = request(event_id, body).replace(b"POST /github ", f"POST {path} ".encode())
            with contextlib.suppress(OSError):
                address = ("127.0.0.1", self.port)
                with socket.create_connection(address, timeout=10) as client:
                    client.sendall(raw)
                    if read_answer(client).startswith(b"HTTP/1.1 202 "):
                        acked.append(event_id)
            number += 1


def configure(service: Site) -> None:
    text = service.config.read_text()
    head, _, endpoint = text.partition("[[endpoint]]")
    for number, within_s in enumerate(WITHIN_S):
        head += "[[endpoint]]" + endpoint.replace('"/github"', f'"/github{number}"').replace(
            'name = "github"', f'name = "github{number}"'
        ).replace(f'handlers = ["{service.handler}"]', f'handlers = ["h{number}"]')
        head += f'[handlers.h{number}]\nuse = "{service.handler}"\n'
        head += f'coalesce_by = "payload.key"\nwithin = "{within_s}s"\n'
    service.config.write_text(head)


def states(service: Site) -> dict[str, tuple[int, int | None, str]]:
    """By id: the event's state, its handler's, and the id of the one that superseded it."""
    connection = apsw.Connection(str(service.spool / "index.db"))
    try:
        rows = connection.execute(
            "SELECT event_id, d.state, p.state, note, position FROM deliveries d "
            "LEFT JOIN parts p USING (position)"
        ).fetchall()
    finally:
        connection.close()
    names = {name_of(row[4]): row[0] for row in rows}
    return {row[0]: (row[1], row[2], names.get(row[3] or "", "")) for row in rows}


def number_of(event_id: str) -> int:
    return int(event_id.rpartition("-")[2])


def findings(service: Site, acked: dict[str, list[str]]) -> list[str]:
    """What is wrong; call it after the service has ended and is idle."""
    known, found = states(service), []
    runs: dict[str, list[str]] = {}
    for one in service.handled():
        runs.setdefault(one.id.rpartition("-")[0], []).append(one.id)
    for key, ids in acked.items():
        newest = max((i for i in known if i.startswith(f"{key}-")), key=number_of, default="")
        ran = runs.get(key, [])
        if not newest or newest not in ran:
            found.append(f"{newest or key} never ran")
        elif number_of(ran[-1]) != number_of(newest):
            found.append(f"{ran[-1]} ran after {newest}")
        for event_id in ids:
            state, _, by = known.get(event_id, (-1, None, ""))
            if state == State.SUPERSEDED and not (by and number_of(by) > number_of(event_id)):
                found.append(f"{event_id} was superseded by {by or 'nobody'}")
            elif state not in ENDS:
                found.append(f"{event_id} is in state {state}")
            elif state == State.DONE and event_id not in ran:
                found.append(f"{event_id} is done, but never ran")
    return found


def killed(service: Site, kills: int, weak: str = "") -> dict[str, list[str]]:
    chance = random.Random(5)
    configure(service)
    service.start(weak)
    with Sender(service.port) as sender:
        for _ in range(kills):
            time.sleep(chance.uniform(0.3, 1.5 if FULL else 0.8))
            service.kill()
            service.start(weak)
        time.sleep(0.4)
    service.wait_until_idle([i for ids in sender.acked.values() for i in ids])
    assert service.stop() == 0
    return sender.acked


@pytest.mark.timeout(900 if FULL else 120)
def test_kill_while_events_wait_loses_none_of_the_newest(site):
    service = site()
    acked = killed(service, KILLS)
    assert findings(service, acked) == []
    known = states(service)
    counts = [sum(state == end for state, *_ in known.values()) for end in ENDS]
    assert min(counts) > KEYS, counts  # there were both
    with Offline(service.spool, is_rebuilt=True):
        pass
    assert states(service) == known


def test_the_check_finds_what_waited_in_memory_alone(site):
    """A control: a service that calls an event done when it begins to wait loses some when killed."""
    for _ in range(4):
        service = site()
        if findings(service, killed(service, 1, "carefree")):
            return
    pytest.fail("nothing was found")
