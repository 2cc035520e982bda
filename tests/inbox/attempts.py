"""Attempts of a handler in a process of their own, which may be killed."""

import asyncio
import inspect
import os
import signal
import threading
import traceback
import warnings
from collections.abc import Callable
from typing import Any

from fasthook.errors import AlreadyDone
from fasthook.model import Delivery, Event

TAKE = "UPDATE stock SET amount = amount - 1"
DONE, ALREADY, FAILED = 0, 3, 4
Handle = Callable[[Event[Any]], Any]


def event_of(name: str = "evt_1", *, handler: str = "stock", endpoint: str = "shop") -> Event[Any]:
    """An event, as it comes to a handler; the same name gives the same event."""
    delivery = Delivery(endpoint, "shopify", name, "order", b"", b"{}", 0, "test", 0)
    return Event(delivery, {}, 1, _handler=handler)


def attempt(handle: Handle, told: Callable[[int], None] = lambda pid: None) -> int:
    """Run the handler once for the same event in a child; its exit code, or minus a signal.

    `told`: called with the child's pid before it begins.
    """
    ready, go = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads: the child uses none
        pid = os.fork()
    if pid == 0:
        os.read(ready, 1)
        os._exit(_run(handle))
    told(pid)
    os.write(go, b"!")
    os.close(ready)
    os.close(go)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _run(handle: Handle) -> int:
    try:
        returned = handle(event_of())
        if inspect.iscoroutine(returned):
            asyncio.run(returned)
    except AlreadyDone:
        return ALREADY
    except BaseException:
        traceback.print_exc()
        return FAILED
    return DONE


def run_at_once(first: Any, second: Any) -> list[AlreadyDone]:
    """Run one event with both connections: the second waits, and what it is told comes back."""
    told = []

    def run() -> None:
        try:
            with event_of().once(second):
                second.execute(TAKE)
        except AlreadyDone as error:
            told.append(error)

    other = threading.Thread(target=run)
    with event_of().once(first):
        other.start()
        first.execute(TAKE)
        other.join(0.1)
        assert other.is_alive()
    other.join()
    return told


def killed_everywhere(
    handle: Handle,
    aim: Callable[[int], None],
    told: Callable[[int], None],
    reset: Callable[[], None],
    amount: Callable[[], int],
) -> list[int]:
    """Kill an attempt at each of its steps, from the first on, and run another one after each.

    What `amount` was then, for each step; the last attempt was not killed any more.
    """
    found = []
    for step in range(100):
        reset()
        aim(step)
        first = attempt(handle, told)
        aim(-1)
        if first != -signal.SIGKILL:
            assert first == DONE, f"step {step}: {first}"
        assert attempt(handle, told) in (DONE, ALREADY), f"after step {step}"
        found.append(amount())
        if first == DONE:
            return found
    raise AssertionError("it never came to its end")
