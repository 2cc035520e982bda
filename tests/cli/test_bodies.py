"""Bodies that are no plain JSON, from a socket to a handler, and to the commands that read them."""

import gzip
import hmac
import json
import urllib.error
import urllib.request

import pytest

from tests.cli.conftest import WAIT_S
from tests.cli.hooks import Hooks, wait_until

KEY = "a-secret-of-these-tests-0123456789"


def endpoint_of(provider, *more):
    lines = [f'name = "{provider}"', f'path = "/{provider}"', f'provider = "{provider}"']
    lines += [f'secrets = ["plain:{KEY}"]', 'handlers = ["one"]', *more]
    return "\n[[endpoint]]\n" + "\n".join(lines) + "\n"


@pytest.fixture
def hooks(tmp_path, serve, run):
    return Hooks(tmp_path, serve, run)


def hex_of(message):
    return hmac.new(KEY.encode(), message, "sha256").hexdigest()


def status_of(serving, path, body, headers):
    request = urllib.request.Request(serving.url + path, body, headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=WAIT_S) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def sign_event(kind, account):
    event = {"event_time": "1767225600", "event_type": kind}
    event["event_hash"] = hex_of(f"1767225600{kind}".encode())
    text = json.dumps({"event": event, "account_guid": account})
    return f'--B\r\nContent-Disposition: form-data; name="json"\r\n\r\n{text}\r\n--B--\r\n'.encode()


MULTIPART = {"Content-Type": "multipart/form-data; boundary=B"}


def packed(document):
    body = gzip.compress(json.dumps(document).encode())
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    return body, headers | {"x-nylas-signature": hex_of(body)}


def test_a_form_of_several_parts_is_handled_shown_and_forgotten_by_what_its_event_says(hooks):
    serving = hooks.serve(endpoint_of("dropbox-sign"))
    for kind, account in (("template_created", "mine"), ("account_confirmed", "theirs")):
        sent = status_of(serving, "/dropbox-sign", sign_event(kind, account), MULTIPART)
        assert sent == (200, "Hello API Event Received")
    forged = sign_event("template_created", "mine").replace(b"_created", b"_error")
    assert status_of(serving, "/dropbox-sign", forged, MULTIPART)[0] == 401
    wait_until(lambda: [row["state"] for row in hooks.rows()] == ["done", "done"], "both done")

    assert {row["type"] for row in hooks.rows()} == {"template_created", "account_confirmed"}
    hooks.run("forget", "--where", 'payload.account_guid == "mine"')
    rows = hooks.rows()
    shown = [hooks.run("show", row["name"], "--json").stdout for row in rows]
    assert ["theirs" in text for text in shown] == [
        row["type"] == "account_confirmed" for row in rows
    ]
    assert not any("mine" in text for text in shown)


def test_what_comes_as_gzip_is_handled_and_a_bomb_is_not(hooks):
    serving = hooks.serve(endpoint_of("nylas", 'max_body = "64KiB"'))
    document = {"id": "evt_1", "type": "message.created", "who": "ada"}
    assert status_of(serving, "/nylas", *packed(document))[0] == 200
    hooks.wait_for(evt_1="done")

    bomb = packed({"id": "evt_2", "type": "t", "text": " " * 8_000_000})
    assert len(bomb[0]) < 64 * 1024
    assert status_of(serving, "/nylas", *bomb) == (413, "body too large\n")
    br = packed(document)[1] | {"Content-Encoding": "br"}
    assert status_of(serving, "/nylas", packed(document)[0], br)[0] == 415
    assert hooks.states() == {"evt_1": "done"}
    hooks.run("forget", "--where", 'payload.who == "ada"')
    assert json.loads(hooks.run("show", "evt_1", "--json").stdout)["missing"] == "erased"


def test_who_asks_for_its_word_in_the_answer_gets_it(hooks):
    serving = hooks.serve(endpoint_of("adobe-sign", f'config.client_id = "{KEY}"'))
    headers = {"Content-Type": "application/json", "X-AdobeSign-ClientId": KEY}
    status, answer = status_of(serving, "/adobe-sign", b'{"event":"AGREEMENT_CREATED"}', headers)
    assert (status, json.loads(answer)) == (200, {"xAdobeSignClientId": KEY})
