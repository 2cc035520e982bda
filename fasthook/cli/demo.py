"""What `make run` shows: a configuration, three providers' events, and how to go on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import urllib3

from fasthook.intake import catalogue
from fasthook.intake.signing import sample_secret

_PROVIDERS = ("github", "stripe", "shopify")
_FOLDER = Path(".run")
_START_S = 10.0


def write_configuration(folder: Path, listen: str, admin: str) -> Path:
    """A configuration with an endpoint for each provider, and its secrets in files beside it."""
    folder.mkdir(exist_ok=True)
    blocks = [
        f'[server]\nlisten = ["{listen}"]\n',
        f'[admin]\nlisten = "{admin}"\n',
    ]
    for name in _PROVIDERS:
        provider = catalogue.load(name)
        path = folder / f"{name}.secret"
        if not path.exists():
            path.touch(mode=0o600)
            secret = sample_secret(provider.schemes[provider.default_scheme], os.urandom(32))
            path.write_text(secret + "\n")
        blocks.append(
            f'[[endpoint]]\nname = "{name}"\npath = "/{name}"\nprovider = "{name}"\n'
            f'secrets = ["file:{path.name}"]\nhandlers = ["log"]\n'
        )
    path = folder / "fasthook.toml"
    path.write_text("\n".join(blocks))
    return path


def wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    """Return when `/readyz` says so; exit with the service's code if it ends before."""
    client = urllib3.PoolManager(retries=False, timeout=1)
    ends = time.monotonic() + _START_S
    while time.monotonic() < ends:
        if process.poll() is not None:
            sys.exit(process.returncode)
        try:
            if client.request("GET", url).status == 200:
                return
        except urllib3.exceptions.HTTPError:
            time.sleep(0.05)
    process.terminate()
    click.echo(f"error: not ready after {_START_S:g} s", err=True)
    sys.exit(1)


def main() -> None:
    """Serve the demonstration until Ctrl-C."""
    config = write_configuration(_FOLDER, "tcp://127.0.0.1:8080", "tcp://127.0.0.1:8081")
    fasthook = [sys.executable, "-m", "fasthook.cli"]
    # A session of its own: Ctrl-C reaches us alone, and we tell the service to drain.
    process = subprocess.Popen(  # noqa: S603
        [*fasthook, "serve", "-c", str(config)], start_new_session=True
    )
    try:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        wait_until_ready("http://127.0.0.1:8081/readyz", process)
        for name in _PROVIDERS:
            click.secho(f"\n$ fasthook send {name} -c {config}", bold=True)
            subprocess.run([*fasthook, "send", name, "-c", str(config)], check=False)  # noqa: S603
            time.sleep(0.2)  # so that the log of one stands before the next
        click.secho(f"\n$ fasthook send github -c {config} --tamper", bold=True)
        subprocess.run(  # noqa: S603
            [*fasthook, "send", "github", "-c", str(config), "--tamper"], check=False
        )
        time.sleep(0.3)
        here = os.path.relpath(sys.executable.replace("python", "fasthook"))
        command = here if Path(here).exists() else "fasthook"
        click.secho("\nServing until Ctrl-C. In another terminal:", bold=True)
        for line in (
            f"{command} send stripe -c {config}",
            f"{command} send github -c {config} --event pull_request --count 100",
            f"{command} events -c {config}",
            f"{command} rejects -c {config}",
            "curl http://127.0.0.1:8081/metrics",
        ):
            click.echo(f"  {line}")
        process.wait()
    except KeyboardInterrupt:
        pass
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
