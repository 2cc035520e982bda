"""The child process of a handler that has `runs_in="process"`.

It reads calls from standard input and writes a result for each to what was standard output;
whatever the handler prints goes to standard error. It ends when its input does.
"""

import asyncio
import ctypes
import inspect
import os
import signal
import struct
import sys
import traceback
from typing import Any, BinaryIO, Final, Literal

import msgspec

from fasthook.dispatch import registry
from fasthook.errors import AlreadyDone, Discard, Retry
from fasthook.handling import Handler, HandlerFactory
from fasthook.model import Delivery, Event, Undecoded
from fasthook.values import decode as decode_value

_PR_SET_PDEATHSIG: Final = 1  # prctl(2)
HEADER: Final = struct.Struct(">I")
_MAX_ERROR_CHARS: Final = 500
_MAX_FRAMES: Final = 20
_MAX_TRACE_CHARS: Final = 10_000


class Call(msgspec.Struct, array_like=True):
    """One attempt, on its way to the child."""

    endpoint: str
    provider: str
    event_id: str
    event_type: str
    head: bytes
    body: bytes
    received_at_ns: int
    client: str
    secret_index: int
    attempt: int
    handler: str  # its name in the configuration
    key: bytes  # see `Delivery`
    payload: bytes | None  # as MessagePack; None: untyped, the child decodes the body if asked to


class Result(msgspec.Struct, array_like=True):
    """What the attempt came to, on its way back."""

    kind: Literal["done", "already", "discard", "retry", "error"]
    error: str = ""
    after_s: float | None = None
    trace: str = ""


def load(name: str, settings: dict[str, Any]) -> Handler:
    """The handler, as the parent has it."""
    found = registry.find(name)
    if isinstance(found, HandlerFactory):
        return found.build(msgspec.convert(settings, found.settings, dec_hook=decode_value))
    return found


def run(handler: Handler, call: Call) -> Result:
    """One attempt."""
    *delivered, _attempt, _handler, _key, _payload = msgspec.structs.astuple(call)
    delivery = Delivery(*delivered)
    delivery.key = call.key
    try:
        payload: Any = Undecoded()
        if call.payload is not None:
            payload = msgspec.msgpack.decode(call.payload, type=handler.payload_type)
        event: Event[Any] = Event(delivery, payload, call.attempt, _handler=call.handler)
        returned = handler.function(event)
        if inspect.iscoroutine(returned):
            asyncio.run(returned)
    except AlreadyDone as error:
        return Result("already", str(error)[:_MAX_ERROR_CHARS])
    except Discard as error:
        return Result("discard", str(error)[:_MAX_ERROR_CHARS])
    except Retry as error:
        return Result("retry", str(error)[:_MAX_ERROR_CHARS], error.after_s)
    except Exception as error:
        frames = error.__traceback__.tb_next if error.__traceback__ is not None else None
        trace = "".join(traceback.format_tb(frames, _MAX_FRAMES))[:_MAX_TRACE_CHARS]
        return Result("error", f"{type(error).__name__}: {error}"[:_MAX_ERROR_CHARS], None, trace)
    return Result("done")


def serve(handler: Handler, calls: BinaryIO, results: BinaryIO) -> None:
    """Run calls until there are no more."""
    decoder = msgspec.msgpack.Decoder(Call)
    while header := calls.read(HEADER.size):
        (length,) = HEADER.unpack(header)
        result = run(handler, decoder.decode(calls.read(length)))
        data = msgspec.msgpack.encode(result)
        results.write(HEADER.pack(len(data)) + data)
        results.flush()


def main() -> None:
    """Entry of `python -m fasthook.dispatch.child NAME`; the first frame holds the settings.

    They may name secrets, and arguments are for everybody to see.
    """
    # A parent that is killed can't end us, and a handler may go on for long.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    calls, results = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    # What the handler starts inherits 0 and 1: it must neither take calls nor answer them.
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    (length,) = HEADER.unpack(calls.read(HEADER.size))
    serve(load(sys.argv[1], msgspec.json.decode(calls.read(length))), calls, results)


if __name__ == "__main__":
    main()
