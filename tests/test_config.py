"""A configuration loads whole, or a `ConfigError` names file, key, what was got and expected."""

import pytest

from fasthook import config
from fasthook.config import Config
from fasthook.errors import ConfigError

HUSH = "hush-91c7-do-not-show"
GOOD = f"""
[[endpoint]]
name = "github"
path = "/github"
provider = "github"
secrets = ["plain:{HUSH}"]
handlers = ["log"]
"""
DESIGN = """
[server]
listen  = ["tcp://127.0.0.1:8080"]
workers = 1
trusted_proxies = ["127.0.0.1", "unix"]
[admin]
listen = "tcp://127.0.0.1:8081"
[spool]
path = "var"
durability = "none"
max_bytes = "10GiB"
retention = "7d"
[dispatch]
hold = false
backlog = 10_000

[[endpoint]]
name     = "github"
path     = "/github"
provider = "github"
secrets  = ["env:GITHUB_SECRET", "file:github", "credential:github", "plain:for-tests-only"]
handlers = ["log"]
events   = ["push", "pull_request"]
rate     = "200/s"
burst    = 400
"""


@pytest.fixture
def load(tmp_path):
    """Load this text as a file."""

    def load(text: str | bytes) -> Config:
        path = tmp_path / "fasthook.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return config.load(path)

    return load


@pytest.fixture
def refused(load, tmp_path):
    """The message with which this text is refused, without the file that it names first."""

    def refused(text: str | bytes) -> str:
        with pytest.raises(ConfigError) as caught:
            load(text)
        message = str(caught.value)
        assert message.startswith(f"{tmp_path}/fasthook.toml: ")
        assert message.count("\n") == 0
        assert HUSH not in message
        return message.removeprefix(f"{tmp_path}/fasthook.toml: ")

    return refused


def test_the_example_of_the_design_loads(load, tmp_path, monkeypatch):
    monkeypatch.setenv("GITHUB_SECRET", "from-env")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "github").write_text("from-credential\n")
    (tmp_path / "github").write_text("from-file\n")

    loaded = load(DESIGN)

    assert loaded.source == f"{tmp_path}/fasthook.toml"
    assert loaded.spool.max_bytes == 10 * 1024**3
    assert loaded.spool.retention == 7 * 86400
    (endpoint,) = loaded.endpoint
    assert [secret.reveal() for secret in endpoint.secrets] == [
        b"from-env",
        b"from-file",
        b"from-credential",
        b"for-tests-only",
    ]
    assert (endpoint.rate, endpoint.burst) == (200, 400)
    assert endpoint.events == ("push", "pull_request")


def test_a_loaded_configuration_shows_no_secret(load):
    assert HUSH not in repr(load(GOOD))


def test_files_are_relative_to_the_configuration(load, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "s").write_text("beside")
    (tmp_path / "abs").write_text("absolute")
    monkeypatch.chdir(tmp_path / "elsewhere")
    loaded = load(GOOD.replace(f'"plain:{HUSH}"', f'"file:s", "file:./s", "file:{tmp_path}/abs"'))

    revealed = [secret.reveal() for secret in loaded.endpoint[0].secrets]
    assert revealed == [b"beside", b"beside", b"absolute"]


def test_files_of_a_configuration_named_relatively_are_beside_it(load, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s").write_text("beside")
    load(GOOD.replace(f"plain:{HUSH}", "file:s"))

    loaded = config.load(config.Path("fasthook.toml"))
    assert loaded.endpoint[0].secrets[0].reveal() == b"beside"


# --- the file itself ------------------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path):
    for path in (tmp_path / "nope.toml", tmp_path):
        with pytest.raises(ConfigError, match=r"(No such file|Is a directory)") as caught:
            config.load(path)
        assert str(caught.value).startswith(f"{path}: ")


def test_bad_toml_names_the_line(refused):
    assert "line 3" in refused(f'a = 1\nb = 2\nc = "plain:{HUSH}\n')
    assert "line 2" in refused("[server]\n[server]\n")


def test_text_that_is_not_utf8_is_refused(refused):
    assert "not UTF-8" in refused(GOOD.encode() + b"# \xff\n")


@pytest.mark.parametrize("text", ["", "[server]\n"])
def test_a_file_without_endpoints_is_refused(text, refused):
    assert refused(text).startswith("endpoint: expected at least one [[endpoint]]")


# --- keys -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("servr = 1", "servr: unknown key; did you mean 'server'?"),
        ("[server]\nlisten_on = 1", "server.listen_on: unknown key; did you mean 'listen'?"),
        ("[admin]\nlisen = 1", "admin.lisen: unknown key; did you mean 'listen'?"),
        ("[spool]\npaht = 1", "spool.paht: unknown key; did you mean 'path'?"),
        ("[dispatch]\nbacklogs = 1", "dispatch.backlogs: unknown key; did you mean 'backlog'?"),
        ("[log]\nlevle = 1", "log.levle: unknown key; did you mean 'level'?"),
        ("[[endpoint]]\nnmae = 1", "endpoint[0].nmae: unknown key; did you mean 'name'?"),
        ("[admin]\nzzz = 1", "admin.zzz: unknown key; expected one of: listen"),
        ("source = 'x'", "source: unknown key"),
    ],
)
def test_an_unknown_key_is_refused_with_the_one_that_was_meant(text, expected, refused):
    assert expected in refused(text)


def test_an_unknown_key_of_an_endpoint_comes_with_the_endpoints_name(refused):
    text = GOOD + GOOD.replace("github", "stripe") + f'secret = "plain:{HUSH}"\n'
    assert refused(text) == (
        "endpoint[1] (\"stripe\").secret: unknown key; did you mean 'secrets'?"
    )


@pytest.mark.parametrize("key", ["name", "path", "provider"])
def test_a_missing_key_is_named(key, refused):
    text = "\n".join(line for line in GOOD.splitlines() if not line.startswith(key))
    message = refused(text)

    assert message.startswith("endpoint[0]")
    assert message.endswith(f".{key}: missing")


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("server = 5", "server", ("a table", "int")),
        ("endpoint = 5", "endpoint", ("a list", "int")),
        ("[server]\nlisten = 'tcp://a:1'", "server.listen", ("a list", "str")),
        ("[server]\nlisten = [5]", "server.listen[", ("str", "int")),
        ("[server]\nworkers = '1'", "server.workers", ("int", "str")),
        ("[server]\nhead_timeout = 5", "server.head_timeout", ("int", "a time")),
        ("[dispatch]\nhold = 'no'", "dispatch.hold", ("bool", "str")),
        ("[spool]\ndurability = 'maybe'", "spool.durability", ("maybe",)),
        ("[log]\nlevel = 'loud'", "log.level", ("loud",)),
        ("[log]\nrequests = 1", "log.requests", ("bool", "int")),
    ],
)
def test_a_wrong_type_is_told_with_its_place(text, place, words, refused):
    message = refused(text + "\n" + GOOD if "[" in text else text)

    assert message.startswith(place)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        ("server", "head_timeout", "5 parsecs"),
        ("server", "max_body", "1 pound"),
        ("server", "unverified_rate", "5"),
        ("spool", "max_bytes", "lots"),
        ("spool", "retention", "forever"),
        ("dispatch", "backlog_bytes", "-1"),
    ],
)
def test_a_bad_unit_is_told_with_its_place_and_what_is_expected(table, key, value, refused):
    message = refused(f'[{table}]\n{key} = "{value}"\n{GOOD}')

    assert message.startswith(f"{table}.{key}: ")
    assert f"'{value}'; expected a" in message


@pytest.mark.parametrize(
    ("line", "place", "got"),
    [
        ('rate = "fast"', ".rate: ", "'fast'"),
        ('tolerance = "5"', ".tolerance: ", "'5'"),
        ('max_body = "5 bits"', ".max_body: ", "'5 bits'"),
    ],
)
def test_a_bad_unit_in_an_endpoint_comes_with_the_endpoints_name(line, place, got, refused):
    message = refused(GOOD + line)

    assert message.startswith(f'endpoint[0] ("github"){place}{got}; expected a')


# --- values that msgspec checks: its message says what is expected, but not what was got ----------


@pytest.mark.parametrize(
    ("old", "new", "key", "got"),
    [
        ('handlers = ["log"]', 'handlers = ["log"]\nstatus = 404', "status", "404"),
        ('handlers = ["log"]', 'handlers = ["log"]\nstatus = 199', "status", "199"),
        ('handlers = ["log"]', 'handlers = ["log"]\nrate = "1/s"\nburst = 0', "burst", "0"),
        ('path = "/github"', 'path = "hooks"', "path", "hooks"),
        ('path = "/github"', 'path = "/a b"', "path", "/a b"),
        ('name = "github"', 'name = "a/b"', "name", "a/b"),
    ],
)
def test_a_value_out_of_range_is_shown_with_what_is_expected(old, new, key, got, refused):
    message = refused(GOOD.replace(old, new))

    assert message.startswith("endpoint[0]")
    assert f".{key}: " in message
    assert "expected" in message
    assert got in message.partition(f".{key}: ")[2]


@pytest.mark.parametrize(
    ("old", "new"),
    [('"/github"', '"/github\\n"'), ('name = "github"', 'name = "github\\n"')],
)
def test_a_line_break_at_the_end_of_a_name_or_path_is_refused(old, new, refused):
    assert refused(GOOD.replace(old, new)).startswith("endpoint[0]")


def test_a_size_below_zero_is_refused(refused):
    assert refused("[server]\nmax_body = -1\n" + GOOD).startswith("server.max_body: ")


@pytest.mark.parametrize("table", ["[handlers]\nlog = 5\n", "[handlers]\n'a b' = {}\n"])
def test_a_bad_handler_table_is_named(table, refused):
    message = refused(GOOD + table)

    assert message.startswith(("handlers.log: ", "handlers.a b: ", 'handlers."a b": ')), message


# --- what no single key can show ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            'handlers = ["log"]',
            "handlers = []",
            'endpoint[0] ("github").handlers: expected at least one, such as ["log"]',
        ),
        ('handlers = ["log"]', "", 'endpoint[0] ("github").handlers: expected at least one'),
        ('["log"]', '["log", "log"]', 'endpoint[0] ("github").handlers: a handler is named twice'),
        ('= "github"\nsec', '= "none"\nsec', 'endpoint[0] ("github").secrets: not used with'),
        ('["log"]', '["log"]\nburst = 5', 'endpoint[0] ("github").burst: has no meaning without'),
        ('"/github"', '"/github?x=1"', "endpoint[0] (\"github\").path: '/github?x=1'; expected"),
        ('"/github"', '"/github#x"', "endpoint[0] (\"github\").path: '/github#x'; expected"),
        (
            'handlers = ["log"]',
            'handlers = ["log"]\nscheme = { header = "X" }',
            'endpoint[0] ("github").scheme: ',
        ),
        ('provider = "github"', 'provider = "custom"', 'endpoint[0] ("github").scheme: '),
    ],
)
def test_endpoints_that_make_no_sense_are_refused(old, new, expected, refused):
    assert old in GOOD
    assert refused(GOOD.replace(old, new)).startswith(expected)


def test_two_endpoints_on_one_path_are_refused(refused):
    message = refused(GOOD + GOOD.replace('name = "github"', 'name = "other"'))
    assert message == "endpoint[1].path: '/github'; endpoint[0] has the same"


def test_two_endpoints_of_one_name_are_refused(refused):
    message = refused(GOOD + GOOD.replace('path = "/github"', 'path = "/other"'))
    assert message == "endpoint[1].name: 'github'; endpoint[0] has the same"


def test_a_server_without_addresses_is_refused(refused):
    assert refused("[server]\nlisten = []\n" + GOOD).startswith("server.listen: expected")


# --- secrets --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("env:FASTHOOK_NOT_THERE", "env:FASTHOOK_NOT_THERE: the environment variable is not set"),
        ("file:nope", "nope: No such file or directory"),
        ("credential:nope", "credential:nope: "),
        (HUSH, "expected env:NAME, file:PATH, credential:NAME or plain:SECRET"),
        (f"vault:{HUSH}", "expected env:NAME, file:PATH, credential:NAME or plain:SECRET"),
        (f"plain:{HUSH}\\u0000", "plain: the secret contains a NUL byte"),
        ("plain: ", "plain: the secret is empty"),
    ],
)
def test_a_secret_that_is_not_there_is_named_with_its_place(
    reference, expected, refused, monkeypatch
):
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    message = refused(GOOD.replace(f"plain:{HUSH}", reference))

    assert message.startswith('endpoint[0] ("github").secrets[')
    assert expected in message


def test_the_secret_that_is_missing_is_named_by_its_number(refused):
    text = GOOD.replace(f'["plain:{HUSH}"]', f'["plain:{HUSH}", "plain: "]')
    assert refused(text).startswith('endpoint[0] ("github").secrets[1]: ')


@pytest.mark.parametrize("value", [f'"plain:{HUSH}"', f'[["plain:{HUSH}"]]', f'{{a="{HUSH}"}}'])
def test_a_secret_in_the_wrong_form_is_not_shown(value, refused):
    assert ".secrets" in refused(GOOD.replace(f'["plain:{HUSH}"]', value))


def test_the_file_of_whom_to_trust_stands_beside_the_configuration(tmp_path):
    text = '[keys]\nca_file = "{}"\n[[endpoint]]\nname = "a"\npath = "/a"\n'
    text += 'provider = "none"\nhandlers = ["log"]\n'
    path = tmp_path / "fasthook.toml"
    for given, expected in (("ca.pem", str(tmp_path / "ca.pem")), ("/ca.pem", "/ca.pem"), ("", "")):
        path.write_text(text.format(given))
        assert config.load(path).keys.ca_file == expected


# --- alerts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "line", "expected"),
    [
        ("watched = true", "", "alerts.watched: unknown key; did you mean 'watch'?"),
        ("handler = []", "", "alerts.handler: unknown key; did you mean 'handlers'?"),
        ('interval = "10ms"', "", 'alerts.interval: 0.01s; expected a time from "1s" to "1h"'),
        ('interval = "2h"', "", 'alerts.interval: 7200s; expected a time from "1s" to "1h"'),
        ('learning = "long"', "", "alerts.learning: 'long'; expected a time such as"),
        ("rejects = 0", "", "alerts.rejects: 0; expected `int` >= 1"),
        ('handlers = ["log", "log"]', "", "alerts.handlers: a handler is named twice"),
        (
            'watch = false\nhandlers = ["log"]',
            "",
            "alerts.handlers: get nothing with watch = false",
        ),
        (
            "watch = false",
            'expect_every = "1h"',
            'endpoint[0] ("github").expect_every: has no meaning with alerts.watch = false',
        ),
        (
            "",
            'expect_every = "5s"',
            'endpoint[0] ("github").expect_every: 5s; expected alerts.interval (60s) or more',
        ),
        ("", 'expect_evry = "1h"', 'endpoint[0] ("github").expect_evry: unknown key; did you mean'),
        ("", "expect_every = 5", 'endpoint[0] ("github").expect_every: got int; expected a time'),
    ],
)
def test_what_is_wrong_about_alerts_is_told_with_its_place(table, line, expected, refused):
    assert refused(f"[alerts]\n{table}\n{GOOD}{line}").startswith(expected)


def test_the_name_of_the_endpoint_of_alerts_is_taken_only_where_there_are_handlers(load, refused):
    named = GOOD.replace('"github"', '"alerts"', 1)
    assert load(named).endpoint[0].name == "alerts"
    assert refused('[alerts]\nhandlers = ["log"]\n' + named).startswith(
        "endpoint[0].name: 'alerts'; expected another, since"
    )
