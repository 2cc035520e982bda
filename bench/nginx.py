"""nginx: as the floor, and with TLS in front of others."""

import os
import subprocess
from collections.abc import Callable

from bench.servers import launch, program
from bench.systems import Place, Server, wait_for

_MAIN = """
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  keepalive_requests 1000000000;
  client_max_body_size 25m;
  client_body_buffer_size 1m;
{inner}
}}
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


def start(place: Place, inner: str) -> subprocess.Popen[bytes]:
    """nginx with one worker, and these servers."""
    config, log = place.folder / "nginx.conf", place.folder / "nginx.log"
    user = "user root;" if os.geteuid() == 0 else ""  # or it could not open what we made
    filled = inner.format(folder=place.folder, port=place.port)
    config.write_text(_MAIN.format(user=user, folder=place.folder, inner=filled))
    return launch([program("nginx"), "-c", str(config), "-e", str(log)], log)


def behind(starts: Callable[[Place, str], Server]) -> Callable[[Place], Server]:
    """The same server behind nginx and TLS, both on the server's core. `starts`: with `listen`."""

    def starts_both(place: Place) -> Server:
        names = ("-keyout", f"{place.folder}/key.pem", "-out", f"{place.folder}/cert.pem")
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        command = ["openssl", "req", "-x509", *key, *names, "-subj", "/CN=localhost", "-days", "2"]
        subprocess.run(command, check=True, capture_output=True)
        path = place.folder / "behind.sock"
        server = starts(place, f"unix:{path}")
        wait_for(path.exists, f"{path} of the server behind nginx")
        server.processes.append(start(place, _FRONT))
        server.url = f"https://127.0.0.1:{place.port}"
        return server

    return starts_both
