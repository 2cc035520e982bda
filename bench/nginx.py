"""nginx of a trial: its configuration and certificate; as the floor, and with TLS before others."""

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.servers import launch, program
from bench.systems import Place, Server, wait_for

#: Without a daemon, and without the paths of a distribution.
MAIN = """
{user}
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections {connections}; }}
http {{
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
{http}
}}
"""
_HTTP = """
  access_log off;
  keepalive_requests 1000000000;
  client_max_body_size 25m;
  client_body_buffer_size 1m;
"""
FLOOR = """
  server {{
    listen 127.0.0.1:{port};
    location / {{ return 202; }}
    location = /counts {{ stub_status; }}
  }}
"""
#: As nginx/fasthook.conf has it, without the limits of one address: all load comes from one.
_FRONT = """
  upstream behind {{
    server unix:{folder}/behind.sock;
    keepalive 64;
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {folder}/cert.pem;
    ssl_certificate_key {folder}/key.pem;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_tickets off;
    location / {{
      proxy_pass http://behind;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_request_buffering on;
      proxy_next_upstream off;
    }}
  }}
"""


def configured(folder: Path, http: str, connections: int = 256) -> list[str]:
    """The command of an nginx with one worker that has all its files in `folder`. `http`: what its
    block of that name has.

    Where we are root its worker is root, too: as somebody else it could neither enter a folder that
    is ours alone, nor use the socket of a service.
    """
    user = "user root;" if os.geteuid() == 0 else ""
    text = MAIN.format(user=user, folder=folder, http=http, connections=connections)
    (folder / "nginx.conf").write_text(text)
    return [program("nginx"), "-p", str(folder), "-c", str(folder / "nginx.conf")]


def certify(folder: Path, host: str) -> None:
    """`cert.pem` and `key.pem` in `folder`, for two days."""
    command = ["openssl", "req", "-x509", "-newkey", "ec"]
    command += ["-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    command += ["-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}"]
    command += ["-keyout", f"{folder}/key.pem", "-out", f"{folder}/cert.pem"]
    subprocess.run(command, check=True, capture_output=True)


def moved(block: str, host: str, folder: Path, http: int, https: int) -> str:
    """The block of `fasthook init --nginx` with ports and paths of a trial, and nothing else of it
    changed. Raises `ValueError`, as `replaced` does.
    """
    return replaced(
        block,
        {
            "listen 80;": f"listen 127.0.0.1:{http};",
            "    listen [::]:80;\n": "",
            "listen 443 ssl http2;": f"listen 127.0.0.1:{https} ssl http2;",
            "\n    listen [::]:443 ssl http2;": "",
            f"/etc/letsencrypt/live/{host}/fullchain.pem": f"{folder}/cert.pem",
            f"/etc/letsencrypt/live/{host}/privkey.pem": f"{folder}/key.pem",
            "/var/log/nginx/fasthook.json": f"{folder}/access.json",
            "root /var/www/acme;": f"root {folder}/acme;",
        },
    )


def replaced(block: str, changes: Mapping[str, str]) -> str:
    """The block with each of these changed. Raises `ValueError` for what is not there just once."""
    for old, new in changes.items():
        if (count := block.count(old)) != 1:
            raise ValueError(f"the block of nginx has {old!r} {count} times, expected once")
        block = block.replace(old, new)
    return block


def start(place: Place, inner: str) -> subprocess.Popen[bytes]:
    """nginx with these servers, on the server's core."""
    http = _HTTP + inner.format(folder=place.folder, port=place.port)
    return launch(configured(place.folder, http, 1024), place.folder / "nginx.log")


def behind(starts: Callable[[Place, str], Server]) -> Callable[[Place], Server]:
    """The same server behind nginx and TLS, both on the server's core. `starts`: with `listen`."""

    def starts_both(place: Place) -> Server:
        certify(place.folder, "localhost")
        path = place.folder / "behind.sock"
        server = starts(place, f"unix:{path}")
        wait_for(path.exists, f"{path} of the server behind nginx")
        server.processes.append(start(place, _FRONT))
        server.url = f"https://127.0.0.1:{place.port}"
        return server

    return starts_both
