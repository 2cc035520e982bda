"""What runs in the container, as a unit of its systemd: real steps, and a report of what was seen.

It is started with Debian's Python, so it needs nothing but that. Each step is a function; its
facts, or its traceback, stand under its name in /out/report.json. The tests look at the facts.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.systemd.load import BODY, HOST, Load, request

OUT = Path("/out")
CONFIG = Path("/etc/fasthook/fasthook.toml")
SECRET = Path("/etc/fasthook/secrets/github")
DROP_INS = Path("/etc/systemd/system/fasthook.service.d")
STATE = Path("/var/lib/fasthook")
LIVE = Path("/etc/letsencrypt/live") / HOST
CERT, KEY = LIVE / "fullchain.pem", LIVE / "privkey.pem"
BLOCK = Path(f"/etc/nginx/conf.d/{HOST}.conf")
INSTALL = ("make", "-C", "/src", "install", "WHEELS=/wheels", "COMPILE=0", f"HOST={HOST}")
SITE = Path("/opt/fasthook/lib/python3.11/site-packages")
PATIENCE_S = 30.0

HANDLERS = '''
import json
import mmap
import os
import socket
import subprocess
from pathlib import Path

from fasthook import handler

STATE = Path("/var/lib/fasthook")
noted = os.open(STATE / "noted", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


@handler(retries=0)
async def note(event):
    os.write(noted, f"{event.id}\\n".encode())


@handler(runs_in="process", retries=0)
def apart(event):
    (STATE / f"apart-{event.id}").write_text(str(os.getpid()))


@handler(retries=0)
def probe(event):
    """What a handler can do here."""
    can = {}
    for name, attempt in {
        "connect": lambda: socket.create_connection(("127.0.0.1", 80), 2).close(),
        "make memory that is written and run": lambda: mmap.mmap(
            -1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
        ),
        "read /etc/shadow": lambda: Path("/etc/shadow").read_bytes(),
        "read the file of the secret": lambda: Path("/etc/fasthook/secrets/github").read_bytes(),
        "write to /etc": lambda: Path("/etc/written").write_text(""),
        "write to its own code": lambda: Path(__file__).write_text(""),
        "write to its state": lambda: (STATE / "written").write_text(""),
        "see other processes": lambda: Path("/proc/1/comm").read_text(),
        "mount": lambda: subprocess.run(["/bin/mount", "-t", "tmpfs", "x", "/mnt"], check=True),
        "start a program": lambda: subprocess.run(["/bin/true"], check=True),
    }.items():
        try:
            attempt()
            can[name] = ""
        except Exception as error:
            can[name] = f"{type(error).__name__}: {error}"
    part = STATE / f"part-{event.id}"
    part.write_text(json.dumps(can))
    part.rename(STATE / f"probe-{event.id}")  # whole, as soon as it is there
'''

ENDPOINTS = """
[[endpoint]]
name = "probe"
path = "/probe"
provider = "github"
secrets = ["credential:github"]
handlers = ["probe", "apart", "copy"]
[handlers.copy]
use = "exec"
command = ["/usr/bin/tee", "/var/lib/fasthook/copied"]
"""
MORE = '[[endpoint]]\nname = "new"\npath = "/new"\nprovider = "github"\nsecrets = ["credential:github"]\nhandlers = ["note"]\n'


# --- tools ----------------------------------------------------------------------------------------


def run(*command: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    """Its output is kept."""
    answer = subprocess.run(command, capture_output=True, text=True, **options)
    if check and answer.returncode:
        raise RuntimeError(f"{command}: {answer.returncode}: {answer.stdout}{answer.stderr}")
    return answer


def systemctl(*arguments: str, check: bool = True) -> str:
    """What it says."""
    return run("systemctl", *arguments, check=check).stdout.strip()


def shown(name: str, unit: str = "fasthook.service") -> str:
    """A property of a unit."""
    return systemctl("show", "--value", "-p", name, unit)


def wait_for(fact: Callable[[], Any], what: str, timeout_s: float = PATIENCE_S) -> Any:
    """What `fact` returns, once it is true."""
    ends = time.monotonic() + timeout_s
    while not (value := fact()):
        if time.monotonic() > ends:
            raise TimeoutError(f"waited {timeout_s:g} s for {what}")
        time.sleep(0.02)
    return value


def journal() -> list[dict[str, Any]]:
    """All lines of the service so far."""
    text = run("journalctl", "-u", "fasthook.service", "-o", "json", "--no-pager").stdout
    return [json.loads(line) for line in text.splitlines()]


def said(part: str) -> list[str]:
    """Messages of the service, and about it, with this in them."""
    text = run("journalctl", "-u", "fasthook.service", "-o", "cat", "--no-pager").stdout
    return [line for line in text.splitlines() if part in line]


def is_active() -> bool:
    """Whether systemd takes it for started."""
    return systemctl("is-active", "fasthook.service", check=False) == "active"


def quiet() -> None:
    """Have nginx close the connections that it keeps: nothing lingers on them, then."""
    systemctl("reload", "nginx.service")


def workers() -> list[int]:
    """The processes that do the work."""
    pid = shown("MainPID")
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def post(event_id: str, path: str = "/github", *, secret: bytes | None = None) -> dict[str, str]:
    """By curl, through nginx; the status and the version of HTTP."""
    raw = request(SECRET.read_bytes().strip() if secret is None else secret, event_id, path)
    head = raw.split(b"\r\n\r\n", 1)[0].decode().split("\r\n")[2:]
    fields = [field for field in head if not field.startswith("Content-Length")]
    answer = run(
        *("curl", "--silent", "--show-error", "--max-time", "20", "--http2", "--cacert", str(CERT)),
        *("--resolve", f"{HOST}:443:127.0.0.1", "--output", "/dev/null"),
        *("--write-out", "%{http_code} %{http_version}"),
        *(part for field in fields for part in ("--header", field)),
        *("--data-binary", BODY.decode(), f"https://{HOST}{path}"),
    )
    status, version = answer.stdout.split()
    return {"status": status, "http": version}


def noted() -> list[str]:
    """Ids of events that were handled."""
    path = STATE / "noted"
    return path.read_text().split() if path.exists() else []


def admin(path: str) -> str:
    """Status line and body of the admin listener."""
    with socket.create_connection(("127.0.0.1", 8081), timeout=20) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        text = b""
        while piece := client.recv(65536):
            text += piece
    return text.decode()


@contextlib.contextmanager
def load(tag: str, *, clients: int = 8, pause_s: float = 0.004) -> Iterator[Load]:
    """Senders; at their end the wait for the handlers."""
    secret = SECRET.read_bytes().strip()
    with Load(secret, str(CERT), clients=clients, pause_s=pause_s, tag=tag) as sending:
        wait_for(lambda: sending.sent > clients, "the first answers")
        yield sending
        time.sleep(0.3)


def facts_of(sending: Load) -> dict[str, Any]:
    """What became of a load, once its handlers have run."""
    acked = set(sending.acked)
    with contextlib.suppress(TimeoutError):
        wait_for(lambda: acked <= set(noted()), "the handlers")
    handled = noted()
    return {
        "sent": sending.sent,
        "acked": len(sending.acked),
        "failed": len(sending.failures),
        "failures": sending.failures[:5],
        "lost": len(acked - set(handled)),
        "twice": len(handled) - len(set(handled)),
        "longest_s": round(sending.longest_s, 2),
    }


def tree() -> set[str]:
    """All paths where an installation may write."""
    roots = ("/etc", "/opt", "/usr/local", "/run/fasthook", "/var/lib/fasthook", "/var/lib/private")
    found = run("find", *roots, "-xdev", check=False).stdout.splitlines()
    return {path for path in found if "__pycache__" not in path and not path.startswith("/etc/.")}


# --- steps ----------------------------------------------------------------------------------------


def install() -> dict[str, Any]:
    """`make install`, on a machine that has it not, with a certificate from elsewhere."""
    LIVE.mkdir(parents=True)
    run(
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
        *("-nodes", "-days", "2", "-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}"),
        *("-keyout", str(KEY), "-out", str(CERT)),
    )
    before = tree()
    began = time.monotonic()
    answer = run(*INSTALL)
    facts = {
        "seconds": round(time.monotonic() - began, 1),
        "output": answer.stdout + answer.stderr,
        "written": sorted(p for p in tree() - before if not p.startswith("/opt/fasthook/")),
        "secret_mode": f"{SECRET.stat().st_mode & 0o777:o}",
        "socket": run("stat", "-c", "%U %G %a", "/run/fasthook/fasthook.sock").stdout.strip(),
        "states": systemctl("is-active", "fasthook.service", "fasthook.socket").split(),
        "enabled": systemctl("is-enabled", "fasthook.service", "fasthook.socket").split(),
        "ready": admin("/readyz"),
    }
    (OUT / "before.json").write_text(json.dumps(sorted(before)))
    return facts


def prepare() -> dict[str, Any]:
    """What an operator adds: handlers and endpoints."""
    (SITE / "inside_handlers.py").write_text(HANDLERS)
    info = SITE / "inside_handlers-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: inside-handlers\nVersion: 0\n")
    names = ("note", "apart", "probe")
    points = "".join(f"{name} = inside_handlers:{name}\n" for name in names)
    (info / "entry_points.txt").write_text(f"[fasthook.handlers]\n{points}")
    text = CONFIG.read_text().replace('handlers = ["log"]', 'handlers = ["note"]')
    CONFIG.write_text(text.replace("# workers = 0", "workers = 2") + ENDPOINTS)
    # All clients of these tests have one address, which the block holds to a rate.
    BLOCK.write_text(BLOCK.read_text().replace("rate=1000r/s", "rate=100000r/s"))
    quiet()
    systemctl("reload", "fasthook.service")
    wait_for(lambda: said("reloaded"), "the reload")
    wait_for(lambda: len(workers()) == 2, "two workers")
    return {"post": post("first"), "forged": post("forged", secret=b"not the secret")}


def start_by_socket() -> dict[str, Any]:
    """Stopped, then somebody connects."""
    quiet()
    systemctl("stop", "fasthook.service")
    stopped = systemctl("is-active", "fasthook.service", check=False)
    answer = post("by-socket")
    wait_for(lambda: "by-socket" in noted(), "the handler")
    wait_for(is_active, "the start")
    return {"stopped": stopped, "post": answer}


def confine() -> dict[str, Any]:
    """What handlers of each kind can do, and what the processes are."""
    post("confined", "/probe")
    wait_for((STATE / "probe-confined").exists, "the handler in a thread")
    wait_for((STATE / "apart-confined").exists, "the handler in a process")
    copied = STATE / "copied"
    wait_for(lambda: copied.exists() and copied.stat().st_size == len(BODY), "the command")
    status = Path(f"/proc/{workers()[0]}/status").read_text()
    fields = dict(re.findall(r"^(Uid|CapEff|NoNewPrivs|Seccomp):\s+(\w+)", status, re.MULTILINE))
    uid = Path(f"/proc/{workers()[0]}").stat().st_uid
    environment = Path(f"/proc/{shown('MainPID')}/environ").read_bytes()
    return {
        "can": json.loads((STATE / "probe-confined").read_text()),
        "fields": fields | {"Uid": str(uid)},
        "copied": copied.read_text() == BODY.decode(),
        "secret_in_environment": SECRET.read_bytes().strip() in environment,
        "state_mode": f"{Path('/var/lib/private/fasthook').stat().st_mode & 0o777:o}",
        "spool_mode": f"{(STATE / 'spool').stat().st_mode & 0o777:o}",
        "warnings": said("internal error") + said("Traceback"),
    }


def credential() -> dict[str, Any]:
    """Another secret counts after a restart, and the old one no more."""
    old = SECRET.read_bytes().strip()
    SECRET.write_text("another-secret-of-this-test\n")
    before = post("new-secret-too-early")
    quiet()
    systemctl("restart", "fasthook.service")
    new, with_old = post("new-secret"), post("old-secret", secret=old)
    return {"before": before, "new": new, "old": with_old}


def reload() -> dict[str, Any]:
    """A new endpoint by `systemctl reload`; then a file that is wrong."""
    good, main = CONFIG.read_text(), shown("MainPID")
    facts: dict[str, Any] = {"unknown": post("early", "/new")}
    quiet()
    before = workers()
    CONFIG.write_text(good + MORE)
    count = len(said("reloaded"))
    systemctl("reload", "fasthook.service")
    wait_for(lambda: len(said("reloaded")) > count, "the reload")
    # On a connection that nginx keeps, a former worker answers once more, as it was configured.
    wait_for(lambda: not set(before) & set(workers()), "the end of the former workers")
    facts["new"] = post("late", "/new")
    before = workers()
    CONFIG.write_text(good.replace("[spool]", '[spool]\nbath = "x"'))
    systemctl("reload", "fasthook.service", check=False)
    wait_for(lambda: said("not reloaded"), "a refusal")
    facts["refusal"] = said("not reloaded")[-1]
    facts["status"] = shown("StatusText")
    facts["after"] = post("still", "/new")
    facts["same_workers"] = set(before) == set(workers())
    facts["same_parent"] = main == shown("MainPID")
    facts["state"] = systemctl("is-active", "fasthook.service")
    CONFIG.write_text(good)
    return facts


def control() -> dict[str, Any]:
    """Restarted together with its socket, it can't but fail requests: the load would see it."""
    with load("control") as sending:
        for _ in range(2):
            systemctl("stop", "fasthook.socket", "fasthook.service")
            time.sleep(0.2)
            systemctl("start", "fasthook.socket", "fasthook.service")
            time.sleep(0.2)
    return facts_of(sending)


def broken() -> dict[str, Any]:
    """Restarted with a configuration that is wrong, while somebody waits; then it is mended."""
    good = CONFIG.read_text()
    quiet()
    CONFIG.write_text(good.replace("[spool]", '[spool]\nbath = "x"'))
    systemctl("restart", "fasthook.service", check=False)
    answers: list[dict[str, str]] = []
    waits = threading.Thread(target=lambda: answers.append(post("waited")))
    waits.start()
    time.sleep(3)
    during, count = is_active(), len(said("spool.bath: unknown key"))
    CONFIG.write_text(good)
    wait_for(is_active, "the start")
    waits.join(PATIENCE_S)
    wait_for(lambda: "waited" in noted(), "the handler")
    socket_state = systemctl("is-active", "fasthook.socket")
    return {"during": during, "tries": count, "answers": answers, "socket": socket_state}


def watchdog() -> dict[str, Any]:
    """The only worker is stopped; systemd is to find out. (Of several, the parent ends one.)"""
    good = CONFIG.read_text()
    CONFIG.write_text(good.replace("workers = 2", "workers = 1"))
    (DROP_INS / "watchdog.conf").write_text("[Service]\nWatchdogSec=2s\n")
    quiet()
    systemctl("daemon-reload")
    systemctl("restart", "fasthook.service")
    main, restarts = shown("MainPID"), int(shown("NRestarts"))
    time.sleep(3)  # it is fed: longer than the watchdog waits
    fed = shown("MainPID") == main
    began = time.monotonic()
    os.kill(workers()[0], signal.SIGSTOP)
    wait_for(lambda: shown("MainPID") not in (main, "0"), "another service")
    wait_for(is_active, "the start")
    facts = {
        "fed": fed,
        "seconds": round(time.monotonic() - began, 1),
        "restarts": int(shown("NRestarts")) - restarts,
        "said": said("atchdog"),
        "stalled": said("worker stalled"),
        "post": post("after-watchdog"),
        "left": not Path(f"/proc/{main}").exists(),
    }
    CONFIG.write_text(good)
    (DROP_INS / "watchdog.conf").unlink()
    systemctl("daemon-reload")
    return facts


def call_out() -> dict[str, Any]:
    """With the example drop-in handlers reach others, and the service is still hardened."""
    examples = Path("/usr/local/lib/systemd/system/fasthook.service.d")
    shutil.copy(examples / "handlers-call-out.conf.example", DROP_INS / "handlers-call-out.conf")
    quiet()
    systemctl("daemon-reload")
    systemctl("restart", "fasthook.service")
    post("called", "/probe")
    wait_for((STATE / "probe-called").exists, "the handler")
    can = json.loads((STATE / "probe-called").read_text())
    (DROP_INS / "handlers-call-out.conf").unlink()
    quiet()
    systemctl("daemon-reload")
    systemctl("restart", "fasthook.service")
    return {"can": can}


def journald() -> dict[str, Any]:
    """What the journal has of one request."""
    post("in-the-journal")
    wait_for(lambda: "in-the-journal" in noted(), "the handler")
    wait_for(lambda: said("in-the-journal"), "the line")
    lines = [line for line in journal() if "in-the-journal" in json.dumps(line)]
    post("refused", secret=b"not the secret")
    chosen = (
        "journalctl",
        "-u",
        "fasthook.service",
        "FASTHOOK_STATUS=401",
        "--no-pager",
        "-n",
        "1",
    )
    wait_for(lambda: run(*chosen, "-o", "json", check=False).stdout.strip(), "the refusal")
    rejected = [json.loads(line) for line in run(*chosen, "-o", "json").stdout.splitlines()]
    return {"lines": lines, "rejected": rejected, "explained": run(*chosen, "-x").stdout}


def commands() -> dict[str, Any]:
    """What an operator runs as root beside the service, and whether it leaves files that are root's."""
    owner = (STATE / "spool").stat().st_uid
    environment = os.environ | {"CREDENTIALS_DIRECTORY": str(SECRET.parent)}
    post("by-command")
    wait_for(lambda: "by-command" in noted(), "the handler")
    answers = {
        name: run("fasthook", *name.split(), "-c", str(CONFIG), check=False, env=environment)
        for name in (
            "check",
            "events --json",
            "dead",
            "spool stat",
            "spool verify",
            "show by-command",
        )
    }
    doctor = run("fasthook", "doctor", "--json", "-c", str(CONFIG), check=False)
    quiet()
    systemctl("stop", "fasthook.service", "fasthook.socket", "fasthook-admin.socket")
    for name in ("events", "spool stat", "spool verify"):
        answers[f"{name} (stopped)"] = run(
            "fasthook", *name.split(), "-c", str(CONFIG), check=False
        )
    paths = [STATE / "spool", *(STATE / "spool").rglob("*")]
    roots = sorted(str(path) for path in paths if path.lstat().st_uid != owner)
    systemctl("start", "fasthook.socket", "fasthook-admin.socket", "fasthook.service")
    return {
        "answers": {
            n: [a.returncode, a.stdout[:2000], a.stderr[-500:]] for n, a in answers.items()
        },
        "doctor": [doctor.returncode, doctor.stdout, doctor.stderr[-500:]],
        "roots": roots,
        "post": post("after-commands"),
    }


def security() -> dict[str, Any]:
    """As systemd sees the unit that runs."""
    answer = run(
        *("systemd-analyze", "security", "--no-pager", "--threshold=10", "fasthook.service"),
        check=False,
    )
    return {"code": answer.returncode, "level": answer.stdout.strip().splitlines()[-1]}


def upgrade() -> dict[str, Any]:
    """`make install` again, under load."""
    config, secret = CONFIG.read_text(), SECRET.read_text()
    with load("upgrade", clients=2, pause_s=0.02) as sending:
        run(*INSTALL)
    kept = (config, secret) == (CONFIG.read_text(), SECRET.read_text())
    return facts_of(sending) | {"kept": kept}


def uninstall() -> dict[str, Any]:
    """`make uninstall`, and with PURGE=1 what that left."""
    before = set(json.loads((OUT / "before.json").read_text()))
    answer = run("make", "-C", "/src", "uninstall")
    left = tree() - before
    BLOCK.unlink()  # it was changed above, so it stays
    run("make", "-C", "/src", "uninstall", "PURGE=1")
    return {
        "output": answer.stdout,
        "left": sorted(p for p in left if not p.startswith("/var/lib/private/fasthook/")),
        "has_events": any("/spool/journal/" in path for path in left),
        "left_by_purge": sorted(tree() - before),
        "missing": sorted(before - tree()),
        "units": systemctl("list-unit-files", "fasthook*", "--no-legend", check=False),
    }


def endure(restarts: int, reloads: int, requests: int) -> dict[str, Any]:
    """Restarts and reloads under load, one reload in ten with a file that is wrong."""
    good = CONFIG.read_text()
    bad = good.replace("[spool]", '[spool]\nbath = "x"')
    began, refused, done = time.monotonic(), 0, 0
    with load("endure", clients=12, pause_s=0.002) as sending:
        for number in range(reloads):
            is_bad = number % 10 == 5
            CONFIG.write_text(bad if is_bad else good)
            systemctl("reload", "fasthook.service", check=False)
            outcome = "serving; the last reload failed" if is_bad else "serving, reloaded"
            wait_for(lambda o=outcome: shown("StatusText") == o, outcome)
            refused += is_bad
            if number * restarts // reloads < (number + 1) * restarts // reloads:
                CONFIG.write_text(good)
                systemctl("restart", "fasthook.service")
                done += 1
        CONFIG.write_text(good)
        while sending.sent < requests:
            time.sleep(0.1)
    return facts_of(sending) | {
        "restarts": done,
        "reloads": reloads,
        "refused": refused,
        "seconds": round(time.monotonic() - began),
        "internal_errors": said("internal error")[:3],
        "workers_lost": said("worker lost")[:3],
    }


def endure_briefly() -> dict[str, Any]:
    """The short form."""
    return endure(3, 10, 1000)


WHOLE = (
    install,
    prepare,
    start_by_socket,
    confine,
    credential,
    reload,
    endure_briefly,
    control,
    broken,
    call_out,
    journald,
    commands,
    security,
    watchdog,
    upgrade,
    uninstall,
)


def main() -> None:
    """`whole`, or `endure RESTARTS RELOADS REQUESTS`."""
    (OUT / "began").touch()
    steps: list[Callable[[], dict[str, Any]]] = list(WHOLE)
    if sys.argv[1] == "endure":
        steps = [install, prepare, lambda: endure(*map(int, sys.argv[2:]))]
    report: dict[str, Any] = {}
    for step in steps:
        name = step.__name__.replace("<lambda>", "endure")
        began = time.monotonic()
        try:
            report[name] = step()
        except Exception:
            report[name] = {"error": traceback.format_exc()}
            print(f"{name}: {traceback.format_exc()}", flush=True)  # noqa: T201 - into /out/said
        report[name]["took_s"] = round(time.monotonic() - began, 1)
        print(f"{name}: {report[name]['took_s']} s", flush=True)  # noqa: T201
    with contextlib.suppress(Exception):
        (OUT / "journal.txt").write_text(run("journalctl", "--no-pager", "-n", "5000").stdout)
    written = OUT / "report.tmp"
    written.write_text(json.dumps(report, indent=1))
    written.rename(OUT / "report.json")


if __name__ == "__main__":
    main()
