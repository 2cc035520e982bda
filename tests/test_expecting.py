"""Waiting for an event: nothing between two looks, whoever takes it, and clear errors."""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fasthook import expect
from fasthook.errors import ConfigError
from tests.spool.filled import delivery, fill

CONFIG = """
[[endpoint]]
name = "stripe"
path = "/stripe"
provider = "none"
handlers = ["log"]
[[endpoint]]
name = "github"
path = "/github"
provider = "github"
secrets = ["env:NOBODY_HAS_IT"]
handlers = ["log"]
"""
AGO = "8760h"


@pytest.fixture
def config(tmp_path: Path, monkeypatch) -> Path:
    path = tmp_path / "fasthook.toml"
    path.write_text(CONFIG)
    monkeypatch.setenv("FASTHOOK_CONFIG", str(path))
    return path


def paid(number: int, *, at_s: float | None = None, **options):
    at_s = time.time() if at_s is None else at_s
    body = b'{"data": {"object": {"id": "pi_%d"}}}' % number
    options = {"endpoint": "stripe", "event_type": "paid"} | options
    return delivery(f"evt_{number}", at_s=at_s, body=body, **options)


def store(config: Path, *deliveries, **options) -> None:
    fill(config.parent / "var", *deliveries, **options)


def wait_for(number: int, **options):
    where = f'payload.data.object.id == "pi_{number}"'
    return expect("stripe", where, **({"since": AGO, "timeout": 0} | options))


def test_an_event_that_came_before_is_found_and_is_the_oldest_that_matches(config):
    store(config, paid(1), paid(2), paid(3), paid(1))
    event = asyncio.run(wait_for(1))
    assert (event.id, event.type, event.endpoint) == ("evt_1", "paid", "stripe")
    assert event.payload == {"data": {"object": {"id": "pi_1"}}}
    assert event.headers["host"] == "a"
    first = asyncio.run(expect("stripe", since=AGO, timeout=0))
    assert first.received_at == event.received_at


def test_one_that_came_before_the_moment_does_not_count(config):
    now = time.time()
    store(config, paid(1, at_s=now - 100), paid(2, at_s=now - 10))
    assert asyncio.run(wait_for(1, since="2m")).id == "evt_1"
    second = asyncio.run(expect("stripe", since="1m", timeout=0))
    assert second.id == "evt_2"
    for since in ("1m", datetime.now(UTC) - timedelta(minutes=1), second, None):
        with pytest.raises(TimeoutError, match=r"no event of stripe with payload.*pi_1"):
            asyncio.run(wait_for(1, since=since))


def test_who_waits_is_told_when_it_comes(config):
    store(config, paid(1))

    async def main():
        waits = [asyncio.ensure_future(wait_for(2, timeout="20s")) for _ in range(3)]
        others = asyncio.ensure_future(wait_for(3, timeout="20s"))
        await asyncio.sleep(0.15)
        await asyncio.to_thread(store, config, paid(2))
        assert [event.id for event in await asyncio.gather(*waits)] == ["evt_2"] * 3
        assert not others.done()
        others.cancel()  # as by its handler's timeout
        with pytest.raises(asyncio.CancelledError):
            await others

    asyncio.run(main())


def test_no_event_comes_between_two_looks(config):
    """Events are stored all the time by a process of its own; each one is waited for."""
    store(config, paid(0))
    program = (
        "import sys; from tests.test_expecting import *\n"
        "for n in range(1, 9): store(Path(sys.argv[1]), paid(n))"
    )
    root = Path(__file__).parents[1]
    storing = subprocess.Popen([sys.executable, "-c", program, str(config)], cwd=root)

    async def main():
        started = datetime.now(UTC)
        waits = [wait_for(number, timeout="30s", since=started) for number in range(1, 9)]
        assert [e.id for e in await asyncio.gather(*waits)] == [f"evt_{n}" for n in range(1, 9)]

    asyncio.run(main())
    assert storing.wait(20) == 0


def test_an_index_that_is_made_again_meanwhile_is_no_matter(config):
    store(config, paid(1))
    spool = config.parent / "var"

    async def main():
        waits = asyncio.ensure_future(wait_for(2, timeout="20s"))
        await asyncio.sleep(0.2)
        for name in ("index.db", "index.db-wal", "index.db-shm"):
            (spool / name).unlink(missing_ok=True)
        await asyncio.sleep(0.2)
        await asyncio.to_thread(store, config, paid(2))
        assert (await waits).id == "evt_2"

    asyncio.run(main())


def test_a_spool_that_goes_away_is_an_error(config):
    store(config, paid(1))

    async def main():
        waits = asyncio.ensure_future(wait_for(2, timeout="20s"))
        await asyncio.sleep(0.2)
        shutil.rmtree(config.parent / "var")
        with pytest.raises(ConfigError, match="no spool there"):
            await waits

    asyncio.run(main())


def test_what_nobody_verified_does_not_count(config):
    forged = paid(1, endpoint="github")
    forged.provider, forged.secret_index = "github", -1
    genuine = paid(2, endpoint="github", at_s=time.time() + 1)
    genuine.provider = "github"
    store(config, forged, genuine)
    assert asyncio.run(expect("github", since=AGO, timeout=0)).id == "evt_2"


def test_events_are_found_by_type_and_where_no_handler_wants_them(config):
    store(config, paid(1), paid(2, event_type="refunded", kind="ignored"))
    event = asyncio.run(expect("stripe", type="refunded", since=AGO, timeout=0))
    assert event.id == "evt_2"
    with pytest.raises(TimeoutError, match="of type 'lost' came within 0 s, and 31536000 s before"):
        asyncio.run(expect("stripe", type="lost", since=AGO, timeout=0))


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        (("strive",), {}, r"no endpoint 'strive'; .*fasthook.toml has: stripe, github"),
        (("stripe", "payload.id = 1"), {}, "where: column 12: .*did you mean '=='"),
        (("stripe", "payloat.id == 1"), {}, "no name 'payloat'; did you mean 'payload'"),
        (("stripe", "1 + 1"), {}, "where: it comes to a value of type int; expected true or false"),
        (("stripe", "payload.data"), {}, "of type dict; expected true or false$"),  # never quoted
        (("stripe",), {"timeout": "soon"}, "timeout='soon': "),
        (("stripe",), {"timeout": -1}, "timeout=-1; expected 0 or more"),
        (("stripe",), {"timeout": None}, "timeout=None: "),
        (("stripe",), {"since": 5}, "since=5; expected a datetime, an event"),
        (("stripe",), {"config": "/nowhere.toml"}, "/nowhere.toml: No such file"),
    ],
)
def test_what_is_wrong_is_said(config, arguments, options, said):
    store(config, paid(1))
    with pytest.raises(ConfigError, match=said):
        asyncio.run(expect(*arguments, **({"timeout": 0, "since": AGO} | options)))


def test_without_a_spool_nothing_can_be_waited_for(config):
    with pytest.raises(ConfigError, match="no spool there; expected one that `fasthook serve`"):
        asyncio.run(wait_for(1))
    config.write_text('[spool]\ndurability = "none"\n' + CONFIG)
    with pytest.raises(ConfigError, match="nothing is kept"):
        asyncio.run(wait_for(1))


def test_who_may_not_read_the_spool_is_told_whose_it_is():
    if os.geteuid() != 0:
        pytest.skip("root alone can be somebody else")
    with tempfile.TemporaryDirectory() as folder:  # pytest's folders are their user's alone
        config = Path(folder) / "fasthook.toml"
        config.write_text(CONFIG)
        store(config, paid(1))
        for path, mode in ((config.parent, 0o755), (config, 0o644)):
            path.chmod(mode)
        program = (
            "import asyncio, cel, concurrent.futures.thread, fasthook.expecting, os; "
            "os.setuid(65534); "
            f"asyncio.run(fasthook.expect('stripe', config={str(config)!r}))"
        )
        command = [sys.executable, "-c", program]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "the spool belongs to the user root" in ran.stderr


def test_where_little_happens_a_wait_costs_little(config):
    store(config, paid(1))

    async def main():
        began = time.process_time()
        with pytest.raises(TimeoutError):
            await wait_for(2, timeout=1)
        return time.process_time() - began

    assert asyncio.run(main()) < 0.3  # of which nearly all is the beginning
