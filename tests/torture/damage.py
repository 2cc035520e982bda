"""`python -m tests.torture.damage FOLDER BEGIN END [nocrc] [pages]`: damaged spools, read back.

FOLDER holds some spools, and `events.json`: by id, the digest of its body and where its record
lies. Each number from BEGIN to END is a seed: a copy of a spool is damaged, opened, and all its
events are read back. Prints one line of JSON for each. `pages`: the numbers are pages of an index,
which lose their heads one by one.
"""

import asyncio
import json
import random
import shutil
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import apsw

from fasthook.errors import FasthookError
from fasthook.spool import journal, records
from fasthook.spool.indexer import Settings
from fasthook.spool.spool import Spool
from tests.torture.helpers import digest_of

#: An index that is found damaged while in use is made again by the next start.
_REPLY_S = 2.0
_SETTINGS = Settings("os", 1024**3, 7 * 86400.0)


def damaged(spool: Path, chance: random.Random) -> dict[str, Any]:
    """Damage one file of a spool; which, how, and the bytes that are not as they were."""
    files = [
        p for p in sorted(spool.rglob("*")) if p.suffix == ".seg" or p.name.startswith("index.db")
    ]
    files = [p for p in files if p.stat().st_size]
    path = chance.choice(files)
    data = bytearray(path.read_bytes())
    before = bytes(data)
    how = chance.choice(("flip", "flip", "flip", "burst", "zeros", "cut", "delete", "swap", "tail"))
    if how == "flip":
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif how == "burst":
        begin = chance.randrange(len(data))
        for offset in range(begin, min(len(data), begin + chance.randrange(2, 64))):
            data[offset] = chance.randrange(256)
    elif how == "zeros":
        begin = chance.randrange(len(data)) & ~511
        end = min(len(data), begin + 512 * chance.randrange(1, 9))
        data[begin:end] = bytes(end - begin)
    elif how == "cut":
        del data[chance.randrange(len(data)) :]
    elif how == "swap" and len(data) > 4096:
        first, second = (chance.randrange(len(data) // 512) * 512 for _ in range(2))
        piece = bytes(data[first : first + 512])
        data[first : first + 512] = data[second : second + 512]
        data[second : second + 512] = piece
    elif how == "tail":
        data += chance.randbytes(chance.randrange(1, 5000))
    if how == "delete":
        path.unlink()
        data.clear()
    else:
        path.write_bytes(data)
    same = len(data) == len(before)
    changed = [n for n in range(min(len(data), len(before))) if data[n] != before[n]]
    begin = changed[0] if changed else len(data)
    end = changed[-1] + 1 if changed and same else len(before)
    if how == "tail" or (same and not changed):
        begin = end = 0
    name = str(path.relative_to(spool))
    return {"file": name, "how": how, "damage": [begin, end]}


def beheaded(spool: Path, number: int) -> dict[str, Any]:
    """Zeros where a page of the index says what it is."""
    path = spool / "index.db"
    begin = number * 4096
    data = bytearray(path.read_bytes())
    data[begin : begin + 8] = bytes(8)
    path.write_bytes(data)
    return {"file": path.name, "how": "page", "damage": [begin, begin + 8]}


async def read_all(path: Path) -> tuple[list[tuple[str, str]], bool]:
    """Id and digest of all that is served; whether the spool came to an end with it."""
    served: list[tuple[str, str]] = []
    replies: asyncio.Queue[Any] = asyncio.Queue()
    spool = Spool(path, _SETTINGS, lambda committed: None, replies.put_nowait)
    spool.start()
    is_all = False
    try:
        while not is_all:
            spool.read_back(64, 1 << 20)
            reply = await asyncio.wait_for(replies.get(), _REPLY_S)
            served += [(d.event_id, digest_of(d.body)) for d, _ in reply.deliveries]
            is_all = reply.is_all
    except TimeoutError:
        pass
    finally:
        await asyncio.wait_for(spool.close(), 10)
    return served, is_all


def variant(folder: Path, seed: int, died: list[str], *, is_page: bool) -> dict[str, Any]:
    """What became of one."""
    chance = random.Random(seed)
    bases = sorted(p for p in folder.glob("base*") if p.is_dir())
    base = folder / "base-stopped" if is_page else chance.choice(bases)
    copy = folder / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(base, copy, ignore=shutil.ignore_patterns("*.sock"))
    events = json.loads((folder / "events.json").read_text())[base.name]
    result: dict[str, Any] = {"seed": seed, "base": base.name}
    result |= beheaded(copy, seed) if is_page else damaged(copy, chance)
    began = time.monotonic()
    died.clear()
    served: list[tuple[str, str]] = []
    result["end"] = "hang"
    for start in range(3):
        result["starts"] = start + 1
        try:
            found, is_all = asyncio.run(read_all(copy))
        except (FasthookError, OSError, apsw.Error) as error:
            result |= {"end": "refused", "why": f"{type(error).__name__}: {error}"}
            break
        except BaseException:
            result |= {"end": "crash", "why": traceback.format_exc()[-1500:]}
            break
        served += found
        if is_all:
            result["end"] = "read"
            break
        if not (copy / "index.damaged").exists():
            break
    if died:
        result |= {"end": "crash", "why": died[0][-1500:]}
    digests = {event_id: event["digest"] for event_id, event in events.items()}
    missing = set(digests) - {event_id for event_id, _ in served}
    hit = {i for i in missing if _is_hit(events[i], result)}
    result["wrong"] = [i for i, digest in served if digests.get(i) != digest]
    result["missing"] = len(missing)
    result["unexcused"] = len(missing - hit)
    result["s"] = round(time.monotonic() - began, 3)
    return result


def _is_hit(event: dict[str, Any], result: dict[str, Any]) -> bool:
    """Whether the damage is in its record, or in the head of its segment."""
    if event["file"] != result["file"]:
        return False
    begin, end = result["damage"]
    return begin < 16 or (begin < event["end"] and end > event["begin"])


def without_crc() -> None:
    """The check of a record's content is left out."""

    def record_at(data: memoryview, offset: int, salt: int) -> records.Record | None:
        begin = offset + records.RECORD_HEADER_BYTES
        length = records.content_length(data[offset:begin], salt)
        if length is None or len(data) < begin + length:
            return None
        return records.Record(offset, data[offset + 4], data[begin : begin + length])

    records.record_at = record_at
    journal.record_at = record_at


def main() -> None:
    """See above."""
    folder, begin, end = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    if "nocrc" in sys.argv:
        without_crc()
    died: list[str] = []
    threading.excepthook = lambda what: died.append(
        "".join(traceback.format_exception(what.exc_type, what.exc_value, what.exc_traceback))
    )
    for seed in range(begin, end):
        result = variant(folder, seed, died, is_page="pages" in sys.argv)
        sys.stdout.write(json.dumps(result) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
