"""`--probe`: through a real TLS, nginx and service; and each part that can fail, failing."""

import subprocess

import pytest

from fasthook import config
from fasthook.cli.doctor import probing
from fasthook.cli.doctor.case import case_of
from tests.cli.conftest import configuration, endpoint
from tests.cli.doctor.conftest import free_port, units
from tests.cli.test_send_all import SECRETS, serving
from tests.system.conftest import needs, nginx

assert units
assert serving

HTTP = """
  {http}
  server {{
    listen unix:{folder}/there.sock;
    listen 127.0.0.1:{port} ssl;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_certificate {folder}/cert.pem;
    ssl_certificate_key {folder}/key.pem;
    location / {{
      proxy_pass {target};
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header X-Forwarded-For $remote_addr;
      {location}
    }}
  }}
"""


def with_exec(*command: str) -> str:
    """A configuration whose handler is a command."""
    text = configuration(endpoint("github", more='handlers = ["exec"]'))
    return f"{text}[handlers.exec]\ncommand = {list(command)}\n"


def openssl(*arguments) -> None:
    subprocess.run([needs("openssl"), *map(str, arguments)], check=True, capture_output=True)


def authority(folder, days: int = 90, name: str = "localhost") -> None:
    """An authority, `ca.pem`, and a certificate by it for a host: `cert.pem`, `key.pem`."""
    new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    usage = ["-addext", "keyUsage=critical,keyCertSign"]
    ca = ["-keyout", folder / "ca.key", "-out", folder / "ca.pem"]
    openssl(*new, *usage, "-days", "100", "-subj", "/CN=our own authority", *ca)
    signed = ["-CA", folder / "ca.pem", "-CAkey", folder / "ca.key", "-days", days]
    about = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    about += ["-addext", "basicConstraints=critical,CA:FALSE"]
    openssl(*new, *signed, *about, "-keyout", folder / "key.pem", "-out", folder / "cert.pem")


class Front:
    """nginx in front of a service, and what doctor says of the way through both."""

    def __init__(self, run, folder) -> None:
        self._run, self._folder = run, folder
        self.port = free_port()
        self.url = f"https://localhost:{self.port}"

    def nginx(self, target: str, *, location: str = "", http: str = "", days: int = 90):
        authority(self._folder, days)
        text = HTTP.format(
            folder=self._folder, port=self.port, target=target, location=location, http=http
        )
        return nginx(self._folder, text, self._folder / "there.sock")

    def probe(self, *more, url: str = "", trusts: bool = True, **options):
        trusted = ("--ca-file", self._folder / "ca.pem") if trusts else ()
        arguments = ("-c", self._folder / "fasthook.toml", "--probe", url or self.url, *trusted)
        result = self._run("doctor", *arguments, *more, **options)
        lines = [line for line in result.stdout.splitlines() if " probe" in line[:16]]
        return result, {line[9:24].strip(): (line[:9].strip(), line[24:]) for line in lines}


@pytest.fixture
def front(run, tmp_path):
    return Front(run, tmp_path)


PARTS = ["probe DNS", "probe TCP", "probe TLS", "probe answer", "probe stored", "probe handled"]


def test_through_tls_nginx_and_the_whole_line(front, serve):
    serving = serve(configuration(endpoint("github")))
    with front.nginx(serving.url):
        result, said = front.probe()

    assert [(part, said[part][0]) for part in PARTS] == [(part, "good") for part in PARTS]
    assert result.exit_code == 0
    assert "TLSv1.3; the certificate is good for 90 days" in said["probe TLS"][1]
    assert "the id fasthook-probe-" in said["probe stored"][1]
    assert said["probe handled"][1] == "by log"
    # Its handler has run, and it was said before that it would.
    assert "what handles it really runs: log" in result.stderr
    line = serving.line_with('"done"')
    assert "fasthook-probe-" in line


def test_the_authority_may_be_in_the_environment(front, serve, monkeypatch, tmp_path):
    serving = serve(configuration(endpoint("github")))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with front.nginx(serving.url):
        result, said = front.probe(trusts=False)

    assert result.exit_code == 0
    assert said["probe handled"][0] == "good"


def failed(result, said, part: str) -> str:
    """What is said of the part that failed; nothing is said of those behind it."""
    assert list(said) == PARTS[: PARTS.index(part) + 1]
    assert said[part][0] == "bad"
    assert result.exit_code == 1
    return said[part][1]


def test_a_name_that_there_is_not(front, write):
    write(configuration(endpoint("github")))
    result, said = front.probe(url="https://no-such-host.invalid", trusts=False)

    assert "no-such-host.invalid: " in failed(result, said, "probe DNS")


def test_a_port_on_which_nobody_listens(front, write):
    write(configuration(endpoint("github")))
    result, said = front.probe(trusts=False)

    assert f"port {front.port} of localhost: Connection refused" in failed(
        result, said, "probe TCP"
    )


def test_a_certificate_that_nobody_trusts(front, write):
    write(configuration(endpoint("github")))
    with front.nginx("http://127.0.0.1:1"):
        result, said = front.probe(trusts=False)

    assert "unable to get local issuer certificate" in failed(result, said, "probe TLS")


def test_a_certificate_for_another_name(front, write):
    write(configuration(endpoint("github")))
    with front.nginx("http://127.0.0.1:1"):
        result, said = front.probe(url=f"https://127.0.0.1:{front.port}")

    assert "127.0.0.1" in failed(result, said, "probe TLS")


def test_a_port_that_speaks_no_tls(front, serve):
    serving = serve(configuration(endpoint("github")))
    result, said = front.probe(url=serving.url.replace("http:", "https:"), trusts=False)

    assert failed(result, said, "probe TLS")


@pytest.mark.parametrize(("days", "level"), [(2, "bad"), (14, "warning"), (30, "good")])
def test_a_certificate_that_ends_soon(front, serve, days, level):
    serving = serve(configuration(endpoint("github")))
    with front.nginx(serving.url, days=days):
        result, said = front.probe()

    assert said["probe TLS"][0] == level
    assert f"is good for {days} days" in said["probe TLS"][1]
    assert said["probe handled"][0] == "good"
    assert result.exit_code == (1 if level == "bad" else 0)


def test_authorities_that_are_no_certificates(front, serve, tmp_path):
    serving = serve(configuration(endpoint("github")))
    (tmp_path / "ca.pem").write_text("nothing")
    result, said = front.probe(url=serving.url.replace("http:", "https:"))

    assert "no certificates in PEM" in failed(result, said, "probe TLS")


def test_an_nginx_that_finds_no_fasthook(front, write):
    write(configuration(endpoint("github")))
    with front.nginx(f"http://127.0.0.1:{free_port()}"):
        result, said = front.probe()

    assert failed(result, said, "probe answer") == "nginx answers 502"


def test_an_nginx_that_refuses_the_size(front, serve):
    serving = serve(configuration(endpoint("github")))
    with front.nginx(serving.url, location="client_max_body_size 1;"):
        result, said = front.probe()

    assert failed(result, said, "probe answer") == "nginx answers 413"


def test_a_redirect_is_followed_by_no_sender(front, write):
    write(configuration(endpoint("github")))
    with front.nginx("http://127.0.0.1:1", location="return 301 https://localhost/;"):
        result, said = front.probe()

    assert "answers 301" in failed(result, said, "probe answer")
    assert "senders don't follow redirects" in result.stdout


def test_another_secret_than_the_services(front, serve, monkeypatch):
    serving = serve(configuration(endpoint("github")))
    monkeypatch.setenv("SECRET_GITHUB", "another-secret-0123456789")
    with front.nginx(serving.url):
        result, said = front.probe()

    assert failed(result, said, "probe answer") == "fasthook answers 401"
    assert "another-secret" not in result.output


def test_a_path_that_no_endpoint_has(front, serve):
    serving = serve(configuration(endpoint("github")))
    with front.nginx(serving.url):
        result, said = front.probe(url=f"{front.url}/elsewhere")

    assert failed(result, said, "probe answer") == "fasthook answers 404"


def test_an_answer_that_is_none(front, write):
    write(configuration(endpoint("github")))
    with front.nginx("http://127.0.0.1:1", location="return 444;"):
        result, said = front.probe()

    assert "no answer" in failed(result, said, "probe answer")


def test_somebody_else_who_says_200(front, serve, monkeypatch):
    monkeypatch.setattr(probing, "_STORED_S", 0.3)
    serve(configuration(endpoint("github")))
    with front.nginx("http://127.0.0.1:1", location="return 200 fine;"):
        result, said = front.probe()

    assert "answered 2xx, and is not in" in failed(result, said, "probe stored")


def test_a_handler_that_fails(front, serve):
    serving = serve(with_exec("/bin/sh", "-c", "exit 3"))
    with front.nginx(serving.url):
        result, said = front.probe()

    text = failed(result, said, "probe handled")
    assert text.startswith("handler exec failed: ")
    assert "3" in text


def test_a_handler_that_takes_too_long(front, serve):
    serving = serve(with_exec("/bin/sleep", "2"))
    with front.nginx(serving.url):
        result, said = front.probe("--wait", "200ms")

    assert "exec: not done after 0.2 s" in failed(result, said, "probe handled")


def test_an_event_that_its_endpoint_does_not_want(front, serve):
    serving = serve(configuration(endpoint("github", more='events = ["star"]')))
    _, said = front.probe(url=serving.url, trusts=False)
    assert said["probe handled"] == ("good", "by log")  # the type is chosen from those wanted

    front._folder.joinpath("fasthook.toml").write_text(configuration(endpoint("github")))
    _, said = front.probe(url=serving.url, trusts=False)
    assert said["probe handled"][0] == "warning"
    assert "ignores events of type" in said["probe handled"][1]


def test_events_that_are_held(front, serve):
    serving = serve(configuration(endpoint("github")) + "[dispatch]\nhold = true\n")
    result, said = front.probe(url=serving.url, trusts=False)

    assert said["probe stored"][0] == "good"
    assert said["probe handled"] == ("warning", "dispatch.hold: nothing is handled")
    assert result.exit_code == 0


def test_events_that_are_not_kept(front, serve):
    serving = serve(configuration(endpoint("github")) + '[spool]\ndurability = "none"\n')
    _, said = front.probe(url=serving.url, trusts=False)

    assert said["probe answer"][0] == "good"
    assert "nothing is kept" in said["probe stored"][1]


def test_an_endpoint_may_be_chosen_and_else_is_the_first_that_can_be_signed(front, serve):
    text = configuration(endpoint("open", provider="none"), endpoint("github"), endpoint("stripe"))
    serving = serve(text)

    assert front.probe(url=serving.url, trusts=False)[1]["probe handled"][0] == "good"
    assert "/github" in serving.line_with('"accepted"') or "github" in serving.lines[-1]
    assert front.probe("--endpoint", "stripe", url=serving.url, trusts=False)[0].exit_code == 0
    assert "stripe" in serving.line_with('"accepted"')
    _, said = front.probe("--endpoint", "open", url=serving.url, trusts=False)
    assert "provider none signs nothing" in said["probe"][1]


def test_without_its_secret_nothing_is_sent(front, write, monkeypatch):
    write(configuration(endpoint("github")))
    monkeypatch.delenv("SECRET_GITHUB")
    result, said = front.probe(url="http://127.0.0.1:1", trusts=False)

    assert said["probe"][0] == "warning"
    assert "not looked at" in said["probe"][1]
    assert result.exit_code == 0


@pytest.mark.parametrize("name", SECRETS)
def test_each_provider_whose_secret_can_be_made_up(name, serving, tmp_path):
    """Twice, since the second one is not to be taken for a duplicate."""
    settings = config.load(serving.config, has_secrets=False)
    case = case_of(serving.config, settings, None, None)
    for _ in range(2):
        probe = probing.prepare(case, serving.url, name)
        found = list(probing.run(case, probe, None, 10))
        assert found[-1] == ("good", "probe handled", "by log", ""), found
