"""The systems that are compared: how each is started, what it counts, and what it lacks here."""

import contextlib
import importlib.util
import json
import multiprocessing
import re
import socket
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import urllib3
from urllib3.exceptions import InsecureRequestWarning

from bench import nginx
from bench.servers import ROOT, fasthook, launch, make_handler, program, start
from bench.systems import Counts, Place, Server, System, wait_for
from bench.workload import SECRET, path_of

#: Where `make bench` puts Robyn, which asks for another uvloop than fasthook has.
ROBYN = ROOT / ".run" / "robyn"


# --- what a server says of itself -----------------------------------------------------------------


def _asked_there(url: str) -> Counts:
    # The certificate is of this run, and signed by nobody.
    with urllib3.PoolManager(cert_reqs="CERT_NONE") as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore", InsecureRequestWarning)
        return Counts(**json.loads(pool.request("GET", f"{url}/counts", timeout=20).data))


def _asked_of_fasthook(port: int, handles: bool) -> Callable[[str], Counts]:
    line = re.compile(
        r"^fasthook_(?:requests|attempts|log_lines_unwritten)_total"
        r'{(?:.*,)?(?:result|outcome|why)="(\w+)"} (\S+)$'
    )

    def ask(url: str) -> Counts:
        totals: dict[str, int] = {}
        text = urllib3.request("GET", f"http://127.0.0.1:{port}/metrics", timeout=20).data.decode()
        for each in text.splitlines():
            if found := line.match(each):
                totals[found[1]] = totals.get(found[1], 0) + int(float(found[2]))
        names = ("event", "401", "503", "dropped", "done")
        accepted, refused, shed, dropped, done = (totals.pop(name, 0) for name in names)
        failed = sum(n for result, n in totals.items() if result.isdigit())
        return Counts(accepted, refused, None, done if handles else None, failed, shed, dropped)

    return ask


def _asked_of_log(path: Path) -> Callable[[str], Counts]:
    def ask(url: str) -> Counts:
        text = path.read_text(errors="replace")
        # It answers a wrong signature with 500.
        accepted, refused = text.count("triggered successfully"), text.count("invalid payload sign")
        return Counts(accepted, refused, None, text.count("finished handling"))

    return ask


# --- fasthook, and the limits ---------------------------------------------------------------------


def _fasthook(
    durability: str,
    *,
    hold: bool = False,
    handler: str = "",
    log: str = "",
    attempts: bool = False,
) -> Callable[[Place], Server]:
    def starts(place: Place, listen: str = "") -> Server:
        make_handler(place.folder)
        others = contextlib.ExitStack()
        lines: dict[str, object] = {"requests": bool(log), "attempts": attempts}
        if log:
            lines["format"] = log
        if log == "journal":
            lines["journal_socket"] = others.enter_context(_journald(place.folder))
        process = fasthook(
            *(place.folder, place.port, place.work),
            durability=durability,
            hold=hold,
            handler=handler,
            log=lines,
            listen=listen,
            max_connections=place.connections + 100,
        )
        ask = _asked_of_fasthook(place.port + 1, not hold)
        return Server(f"http://127.0.0.1:{place.port}", [process], ask, others)

    return starts


#: As systemd sets it (net.unix.max_dgram_qlen is 512 there), so that a batch finds room.
_JOURNAL_BUFFER_BYTES = 8 * 1024**2


def _read_journal(path: str) -> None:
    """Take entries, as journald does, and throw them away."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _JOURNAL_BUFFER_BYTES)
        taken.bind(path)
        while True:
            taken.recv(65536)


@contextlib.contextmanager
def _journald(folder: Path) -> Iterator[str]:
    """Stands for journald, on the core of the load: what is measured is what fasthook does."""
    path = folder / "journal.sock"
    process = multiprocessing.Process(target=_read_journal, args=(str(path),), daemon=True)
    process.start()
    try:
        wait_for(path.exists, f"{path}")
        yield str(path)
    finally:
        process.terminate()
        process.join()


def _prototype(*, journal: bool = False) -> Callable[[Place], Server]:
    def starts(place: Place, listen: str = "") -> Server:
        url = f"http://127.0.0.1:{place.port}"
        command = ["-m", "bench.prototype", listen or f"tcp://127.0.0.1:{place.port}"]
        command += ["--provider", place.work.provider]
        command += ["--journal", str(place.folder / "journal")] if journal else []
        process = start(command, place.folder, place.folder / "log")
        return Server(url, [process], _asked_there)

    return starts


def _fixed(place: Place) -> Server:
    command = ["-m", "bench.fixed", str(place.port), str(place.request_bytes)]
    process = start(command, place.folder, place.folder / "log")
    url = f"http://127.0.0.1:{place.port}"
    return Server(url, [process], _asked_there)


def _nginx_floor(place: Place) -> Server:
    asked = 0

    def ask(url: str) -> Counts:
        nonlocal asked
        text = urllib3.request("GET", f"{url}/counts", timeout=20).data.decode()
        asked += 1
        # "accepts handled requests", and the questions are among them
        return Counts(int(text.splitlines()[2].split()[2]) - asked, 0)

    return Server(f"http://127.0.0.1:{place.port}", [nginx.start(place, nginx.FLOOR)], ask)


# --- what people run today ------------------------------------------------------------------------


def _peer(place: Place, command: list[str], **extra: str) -> Server:
    environment = {"BENCH_PROVIDER": place.work.provider, **extra}
    process = start(command, place.folder, place.folder / "log", environment)
    return Server(f"http://127.0.0.1:{place.port}", [process], _asked_there)


def _uvicorn(place: Place, app: str, **extra: str) -> Server:
    command = ["-m", "uvicorn", app, "--port", str(place.port), "--loop", "uvloop"]
    command += ["--http", "httptools", "--no-access-log", "--log-level", "error"]
    return _peer(place, command, **extra)


def _bare(place: Place) -> Server:
    return _uvicorn(place, "bench.peers.asgi:app")


def _fastapi(place: Place) -> Server:
    return _uvicorn(place, "bench.peers.fastapi_app:app")


def _fastapi_sqlite(place: Place) -> Server:
    store = f"sqlite:{place.folder}/events.db"
    return _uvicorn(place, "bench.peers.fastapi_app:app", BENCH_STORE=store)


def _fastapi_redis(policy: str) -> Callable[[Place], Server]:
    def starts(place: Place) -> Server:
        path = place.folder / "redis.sock"
        command = [program("redis-server"), "--port", "0", "--unixsocket", str(path), "--save", ""]
        command += ["--appendonly", "yes", "--appendfsync", policy, "--dir", str(place.folder)]
        redis = launch(command, place.folder / "redis.log")
        wait_for(path.exists, f"{path} of redis-server")
        server = _uvicorn(place, "bench.peers.fastapi_app:app", BENCH_STORE=f"redis:{path}")
        server.processes.insert(0, redis)
        return server

    return starts


def _granian(place: Place) -> Server:
    command = ["-m", "granian", "--interface", "asgi", "--host", "127.0.0.1"]
    command += ["--port", str(place.port), "--workers", "1", "--loop", "uvloop", "--no-ws"]
    command += ["--no-access-log", "--log-level", "error"]
    return _peer(place, [*command, "bench.peers.asgi:app"])


def _flask(place: Place) -> Server:
    command = ["-m", "gunicorn", "--worker-class", "gthread", "--workers", "1", "--threads", "4"]
    command += ["--keep-alive", "75", "--bind", f"127.0.0.1:{place.port}", "--log-level", "error"]
    return _peer(place, [*command, "bench.peers.flask_app:app"])


def _robyn(place: Place) -> Server:
    command = ["-m", "bench.peers.robyn_app", str(place.port), "--processes", "1", "--workers", "1"]
    path = f"{ROBYN}:{place.folder}:{ROOT}"
    return _peer(place, [*command, "--log-level", "ERROR"], PYTHONPATH=path)


def _webhook(place: Place) -> Server:
    rule = {
        "type": "payload-hmac-sha256",
        "secret": SECRET.decode(),
        "parameter": {"source": "header", "name": "X-Hub-Signature-256"},
    }
    hook = {
        "id": path_of(place.work, 0)[1:],
        "execute-command": "/bin/true",
        "success-http-response-code": 202,
        "trigger-rule": {"match": rule},
    }
    hooks, log = place.folder / "hooks.json", place.folder / "log"
    hooks.write_text(json.dumps([hook]))
    command = [program("webhook"), "-hooks", str(hooks), "-ip", "127.0.0.1", "-verbose"]
    process = launch([*command, "-port", str(place.port), "-urlprefix", ""], log)
    return Server(f"http://127.0.0.1:{place.port}", [process], _asked_of_log(log))


def _lacks(*modules: str) -> Callable[[], str]:
    how = "make bench, or pip install -c constraints.txt -e '.[bench]'"
    return lambda: "" if all(map(importlib.util.find_spec, modules)) else how


def _lacks_program(name: str, package: str = "", *modules: str) -> Callable[[], str]:
    how = f"apt-get install {package or name}"
    return lambda: _lacks(*modules)() or ("" if program(name) else how)


def _lacks_robyn() -> str:
    return "" if (ROBYN / "robyn").is_dir() else "make bench (it has a folder of its own)"


def _logging(durability: str) -> Iterator[System]:
    """One that handles, with each kind of log."""
    for kind, says, log, attempts in (
        ("log", "a line for each request, as text", "text", False),
        ("all log", "another for each event handled", "text", True),
        ("journald", "a line for each request", "journal", False),
        ("all journald", "another for each event handled", "journal", True),
    ):
        starts = _fasthook(durability, log=log, attempts=attempts)
        yield System(f"fasthook {durability}, {kind}", says, starts, handles=True)


_NGINX = _lacks_program("nginx", "nginx-light")
_REDIS = _lacks_program("redis-server", "", "fastapi", "uvicorn", "arq")
_FASTAPI = _lacks("fastapi", "uvicorn")
_ALL = (
    System("nginx, 202", "`return 202`: nothing read but the head", _nginx_floor, _NGINX, False),
    System("fixed answer", "uvloop, nothing parsed", _fixed, verifies=False),
    System("prototype", "httptools, HMAC, msgspec, no more", _prototype()),
    System(
        "prototype + journal", "the same, and stored before the answer", _prototype(journal=True)
    ),
    System("fasthook none", "handled, nothing stored", _fasthook("none"), handles=True),
    System("fasthook os", "stored without a sync, handled", _fasthook("os"), handles=True),
    System("fasthook hold", "synced, not handled", _fasthook("fsync", hold=True)),
    System("fasthook fsync", "synced, handled, outcome kept", _fasthook("fsync"), handles=True),
    *_logging("none"),
    *_logging("fsync"),
    System("fasthook os, slow", "a handler takes a minute", _fasthook("os", handler="slow")),
    System("uvicorn ASGI", "no framework, nothing stored", _bare, _lacks("uvicorn")),
    System("Granian ASGI", "the same app", _granian, _lacks("granian")),
    System("Robyn", "nothing stored", _robyn, _lacks_robyn),
    System("FastAPI", "uvicorn, pydantic, nothing stored", _fastapi, _FASTAPI),
    System("Flask", "gunicorn, 4 threads, nothing stored", _flask, _lacks("flask", "gunicorn")),
    System(
        *("adnanh/webhook", "runs `/bin/true` for each", _webhook, _lacks_program("webhook")),
        handles=True,
    ),
    System("FastAPI + SQLite", "a commit each", _fastapi_sqlite, _FASTAPI),
    System("FastAPI + Redis always", "arq, a sync each", _fastapi_redis("always"), _REDIS),
    System("FastAPI + Redis everysec", "arq", _fastapi_redis("everysec"), _REDIS),
    System("TLS: prototype", "behind nginx", nginx.behind(_prototype()), _NGINX),
    System("TLS: prototype + journal", "", nginx.behind(_prototype(journal=True)), _NGINX),
    System("TLS: fasthook none", "", nginx.behind(_fasthook("none")), _NGINX, handles=True),
    System("TLS: fasthook hold", "", nginx.behind(_fasthook("fsync", hold=True)), _NGINX),
)
#: By name.
CATALOGUE = {each.name: each for each in _ALL}
