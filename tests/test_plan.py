"""A plan is made whole, or a `ConfigError` names file, key, what was got and expected."""

import hmac
import json
import sys
import textwrap
from typing import Any

import pytest

from fasthook import config, plan
from fasthook.config import Config
from fasthook.dispatch.pool import Wanted
from fasthook.errors import BadSignature, ConfigError, StaleTimestamp
from fasthook.intake import catalogue
from fasthook.intake.schemes import Scheme
from fasthook.intake.signing import sample_secret, sign
from fasthook.model import Request
from fasthook.plan import Plan
from fasthook.spool.secrets import keep

HUSH = "hush-5e02-do-not-show"
NOW_S = 1_700_000_000.0


def endpoint(name: str = "a", *, provider: str = "github", more: str = "", scheme: str = "") -> str:
    """An `[[endpoint]]`; its secrets and handlers are taken from `more` if they are there."""
    lines = [f'name = "{name}"', f'path = "/{name}"', f'provider = "{provider}"', more]
    if "secrets" not in more and provider != "none":
        lines.append(f'secrets = ["plain:{HUSH}"]')
    if "handlers" not in more:
        lines.append('handlers = ["log"]')
    return "[[endpoint]]\n" + "\n".join(lines) + "\n" + scheme


@pytest.fixture
def read(tmp_path):
    def read(text: str) -> Config:
        path = tmp_path / "fasthook.toml"
        path.write_text(text)
        return config.load(path)

    return read


@pytest.fixture
def make(read):
    def make(text: str) -> Plan:
        return plan.make(read(text))

    return make


@pytest.fixture
def refused(read, tmp_path):
    """The message with which the plan is refused, without the file that it names first."""

    def refused(text: str) -> str:
        with pytest.raises(ConfigError) as caught:
            plan.make(read(text))
        message = str(caught.value)
        assert message.startswith(f"{tmp_path}/fasthook.toml: ")
        assert HUSH not in message
        return message.removeprefix(f"{tmp_path}/fasthook.toml: ")

    return refused


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a package `plugin` with this source; the entry points are `NAME = plugin:NAME`."""

    def install(source: str, *names: str) -> None:
        site = tmp_path / "site"
        info = site / "plugin-1.dist-info"
        info.mkdir(parents=True)
        (site / "plugin.py").write_text(textwrap.dedent(source))
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1\n")
        points = "".join(f"{name} = plugin:{name}\n" for name in names)
        (info / "entry_points.txt").write_text(f"[fasthook.handlers]\n{points}")
        monkeypatch.syspath_prepend(site)
        monkeypatch.delitem(sys.modules, "plugin", raising=False)

    return install


# --- the whole ------------------------------------------------------------------------------------


def test_a_plan_has_what_a_service_needs(make):
    made = make(
        "[server]\nmax_body = '2MiB'\n"
        + endpoint("a", more='status = 204\nrate = "5/s"\nallow = ["192.0.2.0/24"]')
        + endpoint("b", provider="stripe", more="max_body = '1KiB'")
        + endpoint("c", provider="slack", more='events = ["app_mention"]')
    )

    assert [e.name for e in made.endpoints] == ["a", "b", "c"]
    assert [e.path for e in made.endpoints] == [b"/a", b"/b", b"/c"]
    assert [registered.name for registered in made.handlers] == ["log"]
    assert made.routes == {name: [Wanted("log", 0)] for name in "abc"}
    assert {name: reply.status for name, reply in made.answers.items()} == {
        "a": 204,
        "b": 202,
        "c": 200,
    }
    assert made.body_limits == {b"/a": 2 * 1024**2, b"/b": 1024, b"/c": 2 * 1024**2}
    assert made.endpoints[0].bucket is not None
    assert made.endpoints[1].bucket is None
    assert made.endpoints[0].allow is not None
    assert made.endpoints[2].events == {"app_mention"}


def test_every_provider_of_the_catalogue_can_be_planned(make):
    for name in catalogue.names():
        provider = catalogue.load(name)
        scheme = provider.schemes[provider.default_scheme]
        if scheme.kind in ("rsa", "ecdsa", "jwt", "code"):
            continue  # their keys are not made of anything: see test_vectors.py
        more = f'secrets = ["plain:{sample_secret(scheme, b"seed")}"]'
        if scheme.needs_url:
            more += '\npublic_url = "https://hooks.example.com/hook"'
        for setting in scheme.settings:
            more += f'\nconfig.{setting} = "x"'
        made = make(endpoint(provider=name, more=more))
        assert made.endpoints[0].provider == name


def test_a_burst_is_by_default_what_a_second_may_bring(make):
    bucket = make(endpoint(more='rate = "3/s"')).endpoints[0].bucket
    assert bucket is not None
    assert [bucket.take(0.0) > 0 for _ in range(4)] == [False, False, False, True]


def test_a_slow_rate_lets_one_through_at_once(make):
    bucket = make(endpoint(more='rate = "1/h"')).endpoints[0].bucket
    assert bucket is not None
    assert [bucket.take(0.0) for _ in range(2)] == [0.0, pytest.approx(3600)]


# --- what this version does not do ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("[server]\nworkers = 65", "server.workers: 65; expected 1 to 64, or 0 for one a core"),
        ("[server]\nworkers = -1", "server.workers: -1; expected 1 to 64, or 0 for one a core"),
        ('[spool]\ndurability = "none"\n[dispatch]\nhold = true', "dispatch.hold: needs a spool"),
        ('[server]\ntrusted_proxies = ["proxy"]', "server.trusted_proxies: 'proxy'"),
        ('[server]\ntrusted_proxies = ["10.0.0.1/8"]', "server.trusted_proxies: 10.0.0.1/8"),
    ],
)
def test_a_server_that_can_not_be_is_refused(table, expected, refused):
    message = refused(f"{table}\n{endpoint()}")
    assert message.startswith(expected)


@pytest.mark.parametrize("key", ["server", "admin"])
@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:80", "127.0.0.1:80", "tcp://127.0.0.1", "tcp://127.0.0.1:99999"]
)
def test_an_address_that_can_not_be_is_refused(key, address, refused):
    value = f'["{address}"]' if key == "server" else f'"{address}"'
    message = refused(f"[{key}]\nlisten = {value}\n{endpoint()}")

    assert message.startswith(f"{key}.listen")
    assert address in message


# --- providers and schemes ------------------------------------------------------------------------


def test_an_unknown_provider_is_named(refused):
    message = refused(endpoint(provider="gihub"))
    assert message.startswith("endpoint[0] (\"a\").provider: no provider 'gihub'")


def test_an_unknown_provider_comes_with_the_one_that_was_meant(refused):
    assert "did you mean 'github'?" in refused(endpoint(provider="gihub"))


def test_an_unknown_scheme_comes_with_those_there_are(refused):
    message = refused(endpoint(more='scheme = "md5"'))
    assert message.startswith("endpoint[0] (\"a\").scheme: 'md5'; github has: default, sha1")


def test_another_scheme_of_the_provider_can_be_chosen(make):
    verifier = make(endpoint(more='scheme = "sha1"')).endpoints[0].verifier
    request = Request(b"POST", b"/a", b"/a", b"", {}, True, None, b"{}")
    sign(Scheme(header="X-Hub-Signature", prefix="sha1=", hash="sha1"), HUSH.encode(), request, 0)
    assert verifier.verify(request, NOW_S) == 0


@pytest.mark.parametrize("line", ['scheme = "sha1"', 'tolerance = "5s"'])
def test_keys_of_a_signature_are_refused_where_nothing_is_signed(line, refused):
    key = line.partition(" ")[0]
    assert refused(endpoint(provider="none", more=line)).startswith(f'endpoint[0] ("a").{key}: ')


def test_a_secret_that_can_not_be_a_key_is_refused_and_not_shown(refused):
    message = refused(endpoint(provider="standard-webhooks"))
    assert message.startswith('endpoint[0] ("a").secrets: the secret is not base64')


@pytest.mark.parametrize("network", ["nowhere", "192.0.2.1/24", "300.0.0.1", "unix", ""])
def test_a_network_that_can_not_be_is_refused(network, refused):
    message = refused(endpoint(more=f'allow = ["{network}"]'))
    assert message.startswith('endpoint[0] ("a").allow: ')
    assert network in message
    assert "expected such as 192.0.2.0/24" in message


CUSTOM = """
[endpoint.scheme]
header = "X-Signature"
prefix = "v1="
hash = "sha512"
encoding = "base64"
message = "{timestamp}.{body}"
timestamp = "header:X-Time"
"""


def signed(age_s: float, scheme: Scheme | None = None) -> Request:
    scheme = scheme or Scheme(
        header="X-Signature",
        prefix="v1=",
        hash="sha512",
        encoding="base64",
        message="{timestamp}.{body}",
        timestamp="header:X-Time",
    )
    request = Request(b"POST", b"/a", b"/a", b"", {}, True, None, b"{}")
    sign(scheme, HUSH.encode(), request, NOW_S - age_s)
    return request


def test_a_custom_scheme_verifies(make):
    verifier = make(endpoint(provider="custom", scheme=CUSTOM)).endpoints[0].verifier

    assert verifier.verify(signed(0), NOW_S) == 0
    forged = signed(0)
    forged.body = b"[]"
    with pytest.raises(BadSignature):
        verifier.verify(forged, NOW_S)


@pytest.mark.parametrize(
    ("provider", "more", "scheme", "tolerance_s"),
    [
        ("custom", "", CUSTOM, 300),
        ("custom", "", CUSTOM + 'tolerance = "1m"\n', 60),
        ("custom", 'tolerance = "10s"', CUSTOM + 'tolerance = "1m"\n', 10),
        ("custom", 'tolerance = "1h"', CUSTOM, 3600),
    ],
)
def test_a_tolerance_holds(provider, more, scheme, tolerance_s, make):
    made = make(endpoint(provider=provider, more=more, scheme=scheme))
    verifier = made.endpoints[0].verifier

    assert verifier.verify(signed(tolerance_s), NOW_S) == 0
    with pytest.raises(StaleTimestamp):
        verifier.verify(signed(tolerance_s + 2), NOW_S)


def test_a_tolerance_overrides_the_one_of_a_provider(make):
    made = make(endpoint(provider="stripe", more='tolerance = "10m"'))
    scheme = catalogue.load("stripe").schemes["default"]
    request = signed(599, scheme)

    assert made.endpoints[0].verifier.verify(request, NOW_S) == 0


def test_a_tolerance_needs_a_signed_time(refused):
    message = refused(endpoint(more='tolerance = "10m"'))
    assert message == 'endpoint[0] ("a").tolerance: github signs no time'


def test_a_tolerance_below_a_second_is_not_nothing(make):
    made = make(endpoint(provider="stripe", more='tolerance = "500ms"'))
    request = signed(0, catalogue.load("stripe").schemes["default"])
    assert made.endpoints[0].verifier.verify(request, NOW_S + 0.4) == 0
    with pytest.raises(StaleTimestamp):
        made.endpoints[0].verifier.verify(request, NOW_S + 0.6)


@pytest.mark.parametrize(
    ("table", "key", "words"),
    [
        ('headr = "X"', "headr: unknown key", ("did you mean 'header'?",)),
        ("kind = 'hmac'", "header: expected", ()),
        ('header = ""', "header: ", ("expected the name",)),
        ("header = []", "header: ", ("expected the name",)),
        ('header = "X"\nhash = "sha3"', "hash: ", ("sha3",)),
        ('header = "X"\nkind = "rot13"', "kind: ", ("rot13",)),
        ('header = "X"\nformat = "kv"', "signature_keys: ", ("expected", "'kv'")),
        ('header = "X"\nmessage = "fixed"', "message: ", ("fixed", "signs nothing")),
        ('header = "X"\nmessage = "{timestamp}{body}"', "timestamp: ", ("expected",)),
        ('header = "X"\ntolerance = "soon"', "tolerance: ", ("'soon'", "expected a time")),
        ("header = 5", "header: ", ("int",)),
        ('header = "X"\nmessage = "{nope}{body}"', "message: ", ("nope", "expected", "{body}")),
        ('header = "X"\nmessage = "{body"', "message: ", ("{body", "brace")),
        ('header = "X"\ntimestamp = "X-Time"', "timestamp: ", ("X-Time", "expected", "header:")),
        ('header = "X"\nevent_id = "id"', "event_id: ", ("'id'", "expected", "header:")),
    ],
)
def test_a_custom_scheme_that_can_not_be_is_refused(table, key, words, refused):
    message = refused(endpoint(provider="custom", scheme=f"[endpoint.scheme]\n{table}\n"))

    assert message.startswith(f'endpoint[0] ("a").scheme.{key}'), message
    assert all(word in message for word in words), message


def test_a_signed_url_must_be_known(refused, make):
    scheme = '[endpoint.scheme]\nheader = "X"\nmessage = "{url}{body}"\n'
    message = refused(endpoint(provider="custom", scheme=scheme))
    assert message.startswith('endpoint[0] ("a").public_url: missing')
    make(endpoint(provider="custom", more='public_url = "https://h.example/a"', scheme=scheme))


# --- handlers -------------------------------------------------------------------------------------


def test_an_unknown_handler_is_named_with_those_there_are(refused):
    message = refused(endpoint(more='handlers = ["logg"]'))
    assert message.startswith("endpoint[0] (\"a\").handlers: no handler 'logg' is installed")
    assert "did you mean 'log'?" in message
    assert "exec, file, forward, log" in message


def test_a_handler_under_another_name_is_found_by_use(make, tmp_path):
    made = make(
        endpoint(more='handlers = ["one", "two"]')
        + f'[handlers.one]\nuse = "file"\npath = "{tmp_path}/1"\nretries = 1\n'
        + f'[handlers.two]\nuse = "file"\npath = "{tmp_path}/2"\n'
    )

    assert [(r.name, r.entry_point) for r in made.handlers] == [("one", "file"), ("two", "file")]
    assert [r.handler.retries for r in made.handlers] == [1, 5]


def test_an_unknown_use_is_named_with_its_place(refused):
    message = refused(endpoint(more='handlers = ["one"]') + '[handlers.one]\nuse = "fil"\n')
    assert message.startswith(
        "handlers.one.use: no handler 'fil' is installed; did you mean 'file'"
    )


def test_settings_override_how_a_handler_is_run(make):
    made = make(
        endpoint() + '[handlers.log]\nretries = 2\ntimeout = "2m"\nconcurrency = 3\nrate = "60/m"\n'
    )

    handler = made.handlers[0].handler
    assert (handler.retries, handler.timeout_s, handler.concurrency, handler.rate) == (2, 120, 3, 1)


def test_a_retry_can_be_switched_off(make, install):
    install(
        """
        from fasthook import Event, handler
        @handler(retries=9, timeout=1, concurrency=2, rate=3)
        async def own(event: Event) -> None: ...
        """,
        "own",
    )
    made = make(endpoint(more='handlers = ["own"]') + "[handlers.own]\nretries = 0\n")

    handler = made.handlers[0].handler
    assert (handler.retries, handler.timeout_s, handler.concurrency, handler.rate) == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("name", "table", "key", "words"),
    [
        ("log", "colour = 1", "colour: ", ("no settings",)),
        ("log", "retries = 'five'", "retries: ", ("int", "str")),
        ("log", "timeout = 5", "timeout: ", ("int", "a time")),
        ("log", "timeout = 'soon'", "timeout: ", ("'soon'", "expected a time")),
        ("log", "rate = '5'", "rate: ", ("'5'", "expected a rate")),
        ("log", "use = 5", "use: ", ("str", "int")),
        ("file", "", "path: missing", ()),
        ("file", "path = 5", "path: ", ("str", "int")),
        ("file", "path = 'x'\npaht = 'y'", "paht: unknown key", ("did you mean 'path'?",)),
        ("file", "path = 'x'\nkeep = 0", "keep: ", ("expected", ">= 1")),
        ("file", "path = 'x'\nmax_bytes = 'lots'", "max_bytes: ", ("'lots'", "expected a size")),
        ("exec", "command = []", "command: ", ("expected",)),
        ("exec", "command = ['/no/such']", "command: ", ("/no/such",)),
        ("exec", "command = ['true']\nenvironment = {A = 1}", "environment", ("str", "int")),
        ("forward", "url = 'ftp://x'", "url: ", ("expected http",)),
        ("forward", f"url = 'http://x'\nsign_with = '{HUSH}'", "sign_with: ", ("env:NAME",)),
        ("log", "retries = -1", "retries: ", ("-1", "expected")),
        ("log", "concurrency = 0", "concurrency: ", ("0", "expected")),
        ("log", "timeout = '0s'", "timeout: ", ("0", "expected")),
    ],
)
def test_settings_of_a_handler_that_can_not_be_are_refused(name, table, key, words, refused):
    message = refused(endpoint(more=f'handlers = ["{name}"]') + f"[handlers.{name}]\n{table}\n")

    assert message.startswith(f"handlers.{name}.{key}"), message
    assert all(word in message for word in words), message


def test_a_file_that_can_not_be_written_is_refused(refused):
    message = refused(endpoint(more='handlers = ["file"]') + "[handlers.file]\npath = '/no/x'\n")
    assert message.startswith("handlers.file: ")
    assert "/no" in message


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import no_such_module_anywhere", ("can't be imported", "ModuleNotFoundError")),
        ("other = 1", ("can't be imported", "AttributeError")),
        ("def own(event): ...", ("function", "@fasthook.handler")),
        (
            "from fasthook import handler\n@handler\ndef own(): ...",
            ("can't be imported", "one argument"),
        ),
        ("raise RuntimeError('at import')", ("can't be imported", "at import")),
    ],
)
def test_a_handler_that_can_not_be_loaded_is_named(source, words, refused, install):
    install(source, "own")
    message = refused(endpoint(more='handlers = ["own"]'))

    assert message.startswith("endpoint[0] (\"a\").handlers: handler 'own' (plugin:own)")
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_a_handler_whose_type_can_not_be_decoded_is_refused(refused, install):
    install(
        """
        from fasthook import Event, handler
        class Plain: ...
        @handler
        def own(event: Event[int | Plain | list[Plain]]) -> None: ...
        """,
        "own",
    )
    message = refused(endpoint(more='handlers = ["own"]'))
    assert message.startswith('endpoint[0] ("a").handlers: ')


def test_handlers_of_one_type_share_one_decoding(make, install):
    install(
        """
        import msgspec
        from fasthook import Event, handler
        class Order(msgspec.Struct): id: int
        @handler
        def first(event: Event[Order]) -> None: ...
        @handler
        def second(event: Event[dict]) -> None: ...
        @handler
        def third(event: Event[Order]) -> None: ...
        """,
        "first",
        "second",
        "third",
    )
    made = make(
        endpoint("a", more='handlers = ["first", "log", "second", "third"]')
        + endpoint("b", more='handlers = ["second", "third"]')
    )

    assert made.routes == {
        "a": [Wanted("first", 0), Wanted("log", 1), Wanted("second", 2), Wanted("third", 0)],
        "b": [Wanted("second", 0), Wanted("third", 1)],
    }
    assert [r.name for r in made.handlers] == ["first", "log", "second", "third"]


def test_handlers_of_one_order_share_one_key(make, install):
    install(
        """
        from fasthook import handler
        @handler(ordered_by="id")
        def by_id(event): ...
        @handler(ordered_by="payload.repository.id")
        def by_repository(event): ...
        @handler
        def plain(event): ...
        """,
        "by_id",
        "by_repository",
        "plain",
    )
    made = make(
        endpoint("a", more='handlers = ["plain", "by_repository", "log", "by_id"]')
        + endpoint("b", more='handlers = ["by_id", "plain"]')
        + endpoint("c")
        + '[handlers.log]\nordered_by = "payload.repository.id"\n'
    )

    assert made.routes == {
        "a": [
            Wanted("plain", 0, -1),
            Wanted("by_repository", 0, 0),
            Wanted("log", 0, 0),
            Wanted("by_id", 0, 1),
        ],
        "b": [Wanted("by_id", 0, 0), Wanted("plain", 0, -1)],
        "c": [Wanted("log", 0, 0)],
    }
    assert [len(e.order_keys) for e in made.endpoints] == [2, 1, 1]


def test_an_order_by_a_field_needs_bodies_with_fields(make):
    order = '[handlers.log]\nordered_by = "payload.id"\n'
    with pytest.raises(ConfigError, match=r'content: \["any"\] has no fields.*payload.id'):
        make(endpoint(more='content = ["any"]') + order)
    make(endpoint(more='content = ["any", "json"]') + order)


def test_the_configuration_may_order_a_handler_or_let_it_be(make, install):
    install(
        """
        from fasthook import handler
        @handler(ordered_by="id")
        def by_id(event): ...
        """,
        "by_id",
    )
    text = endpoint(more='handlers = ["by_id"]') + "[handlers.by_id]\nordered_by = "
    assert make(text + '"header.X-Shop"').handlers[0].handler.ordered_by == "header.X-Shop"
    assert make(text + '""').routes == {"a": [Wanted("by_id", 0)]}


@pytest.mark.parametrize("value", ["body.id", "payload", "payload.", "payload.a b", "header.a b"])
def test_an_order_that_can_not_be_is_refused(value, refused):
    message = refused(endpoint() + f'[handlers.log]\nordered_by = "{value}"\n')
    assert message.startswith(f"handlers.log.ordered_by: '{value}'; expected 'id', 'payload.PATH'")


# --- which events a handler gets ------------------------------------------------------------------

FILE = '[handlers.file]\npath = "events.jsonl"\n'
TYPED = """
import msgspec
from fasthook import Event, handler
class Order(msgspec.Struct): id: int
@handler
def first(event: Event[Order]) -> None: ...
"""
MAIN = 'payload.ref == "refs/heads/main"'


def whens(made: Plan) -> dict[str, str]:
    return {each.handler: each.when.source for each in made.endpoints[0].filters}


def test_the_endpoint_says_which_events_a_handler_gets(make):
    made = make(endpoint(more=f"handlers = ['log', {{ name = 'file', when = '{MAIN}' }}]") + FILE)
    assert whens(made) == {"file": MAIN}
    assert made.routes["a"] == [Wanted("log", 0), Wanted("file", 0, is_special=True)]


def test_its_own_condition_counts_unless_the_endpoint_has_one(make, install):
    install(
        """
        from fasthook import handler
        @handler(when="type == 'tag'")
        def picky(event): ...
        """,
        "picky",
    )
    text = endpoint(more="handlers = ['picky']")
    assert whens(make(text)) == {"picky": "type == 'tag'"}
    assert whens(make(text + "[handlers.picky]\nwhen = 'id == \"1\"'\n")) == {"picky": 'id == "1"'}
    picky = "handlers = [{ name = 'picky', when = 'true' }]"
    assert whens(make(endpoint(more=picky))) == {"picky": "true"}
    made = make(endpoint(more="handlers = [{ name = 'picky', when = '' }]"))
    assert whens(made) == {}
    assert made.routes["a"] == [Wanted("picky", 0)]


def test_payloads_are_decoded_once_more_only_where_a_condition_asks(make, install):
    install(TYPED, "first")
    for when, types in (("type == 'x'", 1), ("payload.id == 1", 2)):
        made = make(endpoint(more=f'handlers = [{{ name = "first", when = "{when}" }}]'))
        assert made.endpoints[0].identifier.payload_count == types


@pytest.mark.parametrize(
    ("handlers", "error"),
    [
        (
            "['log', { name = 'file', when = 'payload.ref =' }]",
            "endpoint[0] (\"a\").handlers[1].when: 'payload.ref =': column 13: token recognition error",
        ),
        ("[{ name = 'log', when = 'paylod.a == 1' }]", "column 1: no name 'paylod'; did you mean"),
        (
            "[{ name = 'log', wen = 'true' }]",
            'endpoint[0] ("a").handlers[0].wen: unknown key; did you',
        ),
        ("[{ when = 'true' }]", 'endpoint[0] ("a").handlers[0].name: missing'),
        ("['log', { name = 'log' }]", 'endpoint[0] ("a").handlers: a handler is named twice'),
        ("[{ name = 'log', when = 5 }]", 'endpoint[0] ("a").handlers[0].when: expected `str'),
    ],
)
def test_a_condition_that_can_not_be_is_refused(handlers, error, refused):
    assert error in refused(endpoint(more=f"handlers = {handlers}") + FILE)


def test_a_condition_of_the_handler_is_named_where_it_stands(refused):
    message = refused(endpoint() + "[handlers.log]\nwhen = 'payload.a ='\n")
    assert message.startswith("handlers.log.when: 'payload.a =': column 11: ")


def test_what_is_rejected_is_kept_where_the_endpoint_says_so(make):
    made = make(endpoint("a", more="keep_rejected = true") + endpoint("b"))
    assert [e.keep_rejected for e in made.endpoints] == [True, False]


# --- warnings -------------------------------------------------------------------------------------


def warnings(made: Plan) -> str:
    return "\n".join(made.warnings)


def test_what_is_open_weak_or_useless_is_warned_of(make, monkeypatch):
    monkeypatch.setenv("FASTHOOK_TEST_SHORT", "short")
    cases: dict[str, Any] = {
        endpoint(provider="none"): "anybody who knows the path can send",
        endpoint(): "a plain: secret stands in the file",
        endpoint(
            more='secrets = ["env:FASTHOOK_TEST_SHORT"]'
        ): "the secret env:FASTHOOK_TEST_SHORT is short enough to be guessed",
        endpoint(more="events = []"): "every event is ignored",
        endpoint(
            provider="custom", scheme='[endpoint.scheme]\nkind = "token"\nheader = "X"\n'
        ): "the signature does not cover the whole body",
    }
    for text, expected in cases.items():
        found = warnings(make(text))
        assert f'endpoint[0] ("a"): {expected}' in found or expected in found
        assert HUSH not in found
        assert "short\n" not in found


def test_a_good_endpoint_is_not_warned_of(make, monkeypatch):
    monkeypatch.setenv("FASTHOOK_TEST_LONG", "x" * 40)
    assert make(endpoint(more='secrets = ["env:FASTHOOK_TEST_LONG"]')).warnings == []


@pytest.mark.parametrize("durability", ["fsync", "os", "none"])
def test_events_that_are_not_stored_are_warned_of(durability, make):
    found = make(f'[spool]\ndurability = "{durability}"\n{endpoint()}').warnings
    assert (plan.LOSES_EVENTS in found) == (durability == "none")


def test_handlers_that_are_held_are_warned_of(make):
    assert plan.HOLDS_EVENTS in make(f"[dispatch]\nhold = true\n{endpoint()}").warnings
    assert plan.HOLDS_EVENTS not in make(endpoint()).warnings


def test_a_handler_that_nobody_uses_is_warned_of(make):
    assert "handlers.file: no endpoint uses it" in warnings(make(endpoint() + "[handlers.file]\n"))


def test_all_handlers_that_nobody_uses_are_warned_of(make):
    found = warnings(make(endpoint() + "[handlers.file]\n[handlers.exec]\n"))
    assert "handlers.file" in found
    assert "handlers.exec" in found


# --- secrets that are handed over -----------------------------------------------------------------


@pytest.mark.parametrize("secrets", ["", "secrets = []"])
@pytest.mark.parametrize("provider", ["github", "nylas"])
def test_a_missing_secret_is_refused(provider, secrets, refused):
    text = endpoint(provider=provider, more="secrets = []").replace("secrets = []", secrets)
    message = refused(text)
    assert message.startswith('endpoint[0] ("a").secrets: missing; expected at least one such as')


def test_an_endpoint_that_can_be_paired_needs_no_secret(make):
    made = make(endpoint(provider="asana", more="secrets = []"))
    assert list(made.pairable) == ["a"]
    (warning,) = made.warnings
    assert warning.startswith(
        'endpoint "a": it has no secret yet, so that every request is refused'
    )
    assert "`fasthook pair a`" in warning
    assert made.endpoints[0].handovers
    assert not made.endpoints[0].openings
    assert b"x-hook-secret" in made.endpoints[0].security_headers


def test_without_a_spool_nothing_can_be_paired(make):
    made = make('[spool]\ndurability = "none"\n' + endpoint(provider="asana", more="secrets = []"))
    assert made.pairable == {}
    assert "needs a spool" in warnings(made)


def test_what_was_handed_over_signs_beside_what_is_configured(make, tmp_path):
    (tmp_path / "var").mkdir(mode=0o700)
    text = endpoint(provider="asana")
    assert make(text).pairable["a"].kept == []
    keep(tmp_path / "var", "a", b"handed-over-91d3-do-not-show")
    made = make(text)
    assert "no secret" not in warnings(made)
    scheme = catalogue.load("asana").schemes["default"]
    for index, secret in enumerate([HUSH.encode(), b"handed-over-91d3-do-not-show"]):
        request = Request(b"POST", b"/a", b"/a", b"", {}, True, None, b"{}")
        sign(scheme, secret, request, NOW_S)
        assert made.endpoints[0].verifier.verify(request, NOW_S) == index
    assert warnings(make(endpoint(provider="asana", more="secrets = []"))) == ""


def test_a_secret_that_others_could_read_is_refused(refused, tmp_path):
    (tmp_path / "var").mkdir(mode=0o700)
    name, _ = keep(tmp_path / "var", "a", b"handed-over-91d3-do-not-show")
    path = tmp_path / "var" / "secrets" / "a" / name
    path.chmod(0o644)
    assert refused(endpoint(provider="asana")).startswith(f"{path}: its permissions are 0644")


# --- alerts ---------------------------------------------------------------------------------------


def test_alerts_come_from_an_endpoint_of_their_own_that_is_in_no_list_of_endpoints(make):
    made = make('[alerts]\nhandlers = ["log"]\n' + endpoint())
    (own,) = made.own_endpoints

    assert [each.name for each in made.endpoints] == ["a"]
    assert (own.name, own.path, own.provider) == ("alerts", b"", "fasthook")
    assert made.routes["alerts"] == [Wanted("log", 0, -1)]
    assert list(made.body_limits) == [b"/a"]
    with pytest.raises(BadSignature):
        own.verifier.verify(Request(b"POST", b"", b"", b"", {}, True), NOW_S)


def test_without_handlers_alerts_have_no_endpoint(make):
    made = make(endpoint())
    assert (made.own_endpoints, list(made.routes)) == ([], ["a"])


def test_of_several_workers_without_a_spool_none_can_watch(make, refused):
    text = '[server]\nworkers = {}\n[spool]\ndurability = "{}"\n'
    for workers, durability, warned in ((2, "none", True), (1, "none", False), (2, "os", False)):
        warnings = make(text.format(workers, durability) + endpoint()).warnings
        assert any("nothing is watched" in each for each in warnings) == warned
    alone = text.format(2, "none")
    quiet = make(alone + "[alerts]\nwatch = false\n" + endpoint()).warnings
    assert not any("watched" in each for each in quiet)
    for more in (
        '[alerts]\nhandlers = ["log"]\n' + endpoint(),
        endpoint() + 'expect_every = "1h"\n',
    ):
        assert "none of 2 workers sees all; expected server.workers = 1" in refused(alone + more)


def test_a_handler_of_alerts_alone_is_in_use_and_one_that_is_missing_is_told(make, refused):
    text = endpoint() + '[handlers.told]\nuse = "file"\npath = "alerts.jsonl"\n'
    assert make('[alerts]\nhandlers = ["told"]\n' + text).warnings == [
        warning for warning in make(text).warnings if "handlers.told" not in warning
    ]
    message = refused('[alerts]\nhandlers = ["logg"]\n' + endpoint())
    assert message.startswith("alerts.handlers: no handler 'logg'"), message


# --- what endpoints share -------------------------------------------------------------------------


def test_endpoints_of_one_kind_share_what_is_the_same_for_all(make):
    more = 'secrets = ["plain:another-secret-of-some-length"]'
    one, two, other = make(
        endpoint("a") + endpoint("b", more=more) + endpoint("c", more="max_body = 1000")
    ).endpoints
    assert one.identifier is two.identifier
    assert one.greetings == two.greetings != ()
    assert one.verifier is not two.verifier
    assert other.identifier is not one.identifier


def test_an_answer_that_proves_a_secret_is_made_with_that_of_its_endpoint(make):
    secrets = ["first-secret-of-some-length", "other-secret-of-some-length"]
    parts = [
        endpoint(name, provider="zoom", more=f'secrets = ["plain:{secret}"]')
        for name, secret in zip("ab", secrets, strict=True)
    ]
    body = b'{"event":"endpoint.url_validation","payload":{"plainToken":"qgg8vlvZRS6UYooatFL8Aw"}}'
    request = Request(b"POST", b"/", b"/", b"", {}, True)
    request.body = body
    for each, secret in zip(make("".join(parts)).endpoints, secrets, strict=True):
        (greeting,) = each.greetings or each.openings
        reply = greeting.reply_to(request)
        token = hmac.digest(secret.encode(), b"qgg8vlvZRS6UYooatFL8Aw", "sha256").hex()
        assert reply is not None
        assert json.loads(reply.body)["encryptedToken"] == token
