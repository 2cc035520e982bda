"""nginx in front: real configurations, which the real nginx tests."""

import contextlib
import grp
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from bench.nginx import MAIN
from fasthook.cli.doctor import proxy
from fasthook.cli.doctor.sites import Unparsed, parse
from tests.cli.conftest import configuration, endpoint
from tests.cli.doctor.conftest import bads, goods, is_all_good, needs_root, warnings
from tests.system.conftest import certificate, needs

GOOD = """
upstream fasthook {{ server unix:{folder}/fasthook.sock; keepalive 32; keepalive_timeout 60s; }}
server {{
  listen 127.0.0.1:18443 ssl;
  server_name hooks.test;
  ssl_certificate {folder}/cert.pem;
  ssl_certificate_key {folder}/key.pem;
  ssl_protocols TLSv1.2 TLSv1.3;
  client_max_body_size 25m;
  location / {{
    proxy_pass http://fasthook;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $host;
    proxy_set_header X-Forwarded-For $remote_addr;
    proxy_request_buffering on;
    proxy_next_upstream off;
  }}
}}
"""
OLD = (1, 22, 1)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    certificate(folder, "hooks.test")
    return folder


@pytest.fixture
def look(case, tmp_path, keys):
    """What is found of a configuration of nginx, in front of a fasthook at a socket."""
    needs("nginx")
    for name in ("cert.pem", "key.pem"):
        shutil.copy(keys / name, tmp_path)

    def look(http: str = GOOD, *, more: str = "", server: str = "", listen: str = ""):
        conf = tmp_path / "nginx.conf"
        filled = f"access_log off; {http.format(folder=tmp_path)}"
        conf.write_text(
            MAIN.format(user="user root;", folder=tmp_path, http=filled, connections=256)
        )
        text = configuration(endpoint("github", more=more), server=server)
        listen = listen or f"unix:{tmp_path}/fasthook.sock"
        examined = case(text.replace("tcp://127.0.0.1:0", listen, 1))
        return list(proxy.look(examined, conf))

    return look


def test_a_good_configuration(look):
    found = look()

    assert is_all_good(found), found
    assert goods(found)[0].endswith("nginx.conf: nginx -t finds it good")
    assert goods(found)[1].startswith("server hooks.test, location /: TLS")


RED = [
    ("ssl_protocols TLSv1.2 TLSv1.3;", "ssl_protocols TLSv1.1 TLSv1.2;", bads, "has TLSv1.1"),
    ("proxy_request_buffering on;", "proxy_request_buffering off;", bads, "slow bodies"),
    (
        "proxy_next_upstream off;",
        "proxy_next_upstream error non_idempotent;",
        bads,
        "a POST is sent again",
    ),
    ("proxy_next_upstream off;", "", warnings, "may be sent to the next upstream"),
    ("proxy_http_version 1.1;", "proxy_http_version 1.0;", bads, "proxies with HTTP/1.0"),
    (
        "client_max_body_size 25m;",
        "client_max_body_size 512k;",
        bads,
        "refuses what endpoint github",
    ),
    ("client_max_body_size 25m;", "client_max_body_size 0;", warnings, "fill the disk"),
    ("proxy_set_header X-Forwarded-For $remote_addr;", "", bads, "look like one client"),
    ("$remote_addr", "$http_x_forwarded_for", bads, "anybody can forge it"),
    ("server_name", "set_real_ip_from 0.0.0.0/0; server_name", bads, "lets anybody forge"),
    ("server_name", "real_ip_header X-Real-IP; server_name", warnings, "has no effect"),
    (
        "keepalive_timeout 60s;",
        "keepalive_timeout 1m30s;",
        bads,
        "is not below idle_timeout (75 s)",
    ),
    (" ssl;", ";", bads, "without TLS"),
    ("location / {{", "location /gitlab {{", bads, "/github of endpoint github is in no location"),
    ("location / {{", "location = /github/x {{", bads, "is in no location"),
]


@pytest.mark.parametrize(("line", "by", "level", "text"), RED)
def test_what_does_not_fit_is_said(look, line, by, level, text):
    assert line in GOOD
    http = GOOD.replace(line, by)
    if "without TLS" in text:
        http = http.replace("127.0.0.1:18443", "18480")
    found = level(look(http))

    assert any(text in each for each in found), found


def test_without_tls_on_the_loopback_it_is_a_warning(look):
    found = look(GOOD.replace(" ssl;", ";"))

    assert not bads(found)
    assert "without TLS" in warnings(found)[0]


def test_defaults_are_those_of_the_version(look, monkeypatch):
    http = GOOD.replace("proxy_http_version 1.1;", "").replace("ssl_protocols TLSv1.2 TLSv1.3;", "")
    monkeypatch.setattr(proxy, "_version", lambda _: OLD)
    found = look(http)
    assert "proxies with HTTP/1.0" in bads(found)[0]
    assert "takes TLSv1 and TLSv1.1, too" in warnings(found)[0]

    monkeypatch.setattr(proxy, "_version", lambda _: (1, 30, 0))
    assert is_all_good(look(http))


def test_the_connection_header_has_to_be_empty_for_keep_alive(look, monkeypatch):
    monkeypatch.setattr(proxy, "_version", lambda _: OLD)

    found = warnings(look(GOOD.replace('proxy_set_header Connection "";', "")))
    assert "keepalive has no effect" in found[0]


def test_headers_are_inherited_unless_there_are_some_within(look):
    header = "proxy_set_header X-Forwarded-For $remote_addr;"
    outer = GOOD.replace(header, "").replace("proxy_set_header Host $host;", "")
    outer = outer.replace('proxy_set_header Connection "";', "")
    outer = outer.replace("server_name", f'proxy_set_header Connection ""; {header} server_name')
    assert is_all_good(look(outer))

    hidden = outer.replace("proxy_pass", "proxy_set_header Host $host; proxy_pass")
    assert "look like one client" in bads(look(hidden))[0]


def test_included_files_are_read(look, tmp_path):
    inner = "proxy_set_header X-Forwarded-For $remote_addr;"
    (tmp_path / "headers.conf").write_text(f'{inner}\nproxy_set_header Connection "";\n')
    http = GOOD.replace(inner, "").replace(
        'proxy_set_header Connection "";', "include headers.conf;"
    )

    assert is_all_good(look(http))


def test_what_nginx_refuses_is_bad(look):
    found = bads(look(GOOD.replace("proxy_next_upstream off;", "proxy_next_upstream nonsense;")))

    assert 'invalid value "nonsense"' in found[0]


def test_a_configuration_that_leads_elsewhere_is_bad_if_it_was_named(look, case):
    found = look(listen="tcp://127.0.0.1:19999")
    assert "no location proxies to tcp://127.0.0.1:19999" in bads(found)[0]


@pytest.mark.parametrize(
    ("target", "listen"),
    [
        ("http://127.0.0.1:18099", "tcp://127.0.0.1:18099"),
        ("http://127.0.0.1:18099/", "tcp://0.0.0.0:18099"),
        ("http://localhost:18099", "tcp://127.0.0.1:18099"),
        ("http://[::1]:18099", "tcp://[::]:18099"),
        ("http://unix:{folder}/fasthook.sock:/", ""),
        ("http://unix:{folder}/fasthook.sock", ""),
    ],
)
def test_all_ways_to_name_an_address(look, target, listen):
    http = GOOD.replace("http://fasthook", target)

    assert is_all_good(look(http, listen=listen))


def test_the_address_of_a_socket_unit(look, units, tmp_path):
    (units / "fasthook.socket").write_text(f"[Socket]\nListenStream={tmp_path}/fasthook.sock\n")

    assert is_all_good(look(listen="systemd"))


def test_the_largest_body_of_an_endpoint_counts(look):
    assert is_all_good(look(more='max_body = "25MiB"'))

    found = bads(look(more='max_body = "26MiB"'))
    assert "may get (26 MiB)" in found[0]


@needs_root
def test_a_socket_that_the_workers_of_nginx_may_not_use_is_bad(look, case, tmp_path):
    folder = Path(tempfile.mkdtemp())
    group = grp.getgrgid(pwd.getpwnam("nobody").pw_gid).gr_name
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(f"{folder}/fasthook.sock")
            sock = folder / "fasthook.sock"
            as_root = look(GOOD.replace("{folder}/fasthook.sock", str(sock)), listen=f"unix:{sock}")
            assert is_all_good(as_root)  # so it is written in these tests: "user root"

            conf = tmp_path / "nginx.conf"
            conf.write_text(conf.read_text().replace("user root;", f"user nobody {group};"))
            text = configuration(endpoint("github")).replace("tcp://127.0.0.1:0", f"unix:{sock}", 1)
            examined = case(text)

            def found():
                return list(proxy.look(examined, conf))

            sock.chmod(0o660)
            assert f"nginx's user nobody may not connect to it (by {folder})" in bads(found())[0]
            folder.chmod(0o755)
            assert f"may not connect to it (by {sock})" in bads(found())[0]
            shutil.chown(sock, group=group)
            assert is_all_good(found())
    finally:
        shutil.rmtree(folder)


def test_no_nginx_is_a_warning(look, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)

    assert "nginx is not installed here" in warnings(look())[0]


def test_a_configuration_without_an_end_is_no_traceback(tmp_path):
    conf = tmp_path / "nginx.conf"
    for text in ("http { server {", "http {", "}", 'a "b', "a b"):
        conf.write_text(text)
        with contextlib.suppress(Unparsed):  # or what there is of it
            assert isinstance(parse(conf), list)


def test_the_configuration_of_the_machine_can_be_parsed():
    program = needs("nginx")
    done = subprocess.run([program, "-t"], capture_output=True, text=True, check=False)
    tested = proxy.test(program, None)

    assert tested.is_good is (done.returncode == 0)
    if tested.is_good:
        assert parse(tested.path)


@pytest.mark.parametrize(
    ("text", "seconds"), [("60s", 60), ("1m30s", 90), ("500ms", 0.5), ("75", 75), ("1h", 3600)]
)
def test_nginx_times(text, seconds):
    assert proxy.seconds_of(text) == seconds


@pytest.mark.parametrize(
    ("text", "count"), [("0", 0), ("10", 10), ("8k", 8192), ("25M", 25 * 1024**2), ("x", -1)]
)
def test_nginx_sizes(text, count):
    assert proxy.size_of(text) == count
