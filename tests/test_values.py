"""Values with units are read or refused with a reason; a secret never shows."""

import copy
import io
import logging
import pickle
import traceback

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasthook.values import SHORT_SECRET_BYTES, Duration, Rate, Secret, Size, decode

HUSH = "hush-4b1d-do-not-show"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("5s", 5),
        ("0s", 0),
        ("1.5s", 1.5),
        ("2m", 120),
        ("1h", 3600),
        ("7d", 7 * 86400),
        ("1w", 7 * 86400),
        (" 5 s ", 5),
    ],
)
def test_a_duration_is_read_as_seconds(text, seconds):
    assert Duration.parse(text) == seconds


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("17", 17),
        ("17B", 17),
        ("64KiB", 65536),
        ("64 kB", 64000),
        ("1.5KiB", 1536),
        ("500MB", 500_000_000),
        ("1MiB", 1024**2),
        ("2GB", 2_000_000_000),
        ("10GiB", 10 * 1024**3),
        ("1TiB", 1024**4),
    ],
)
def test_a_size_is_read_as_whole_bytes(text, count):
    size = Size.parse(text)

    assert size == count
    assert type(size) is Size


@pytest.mark.parametrize(
    ("text", "per_second"),
    [("200/s", 200), ("1000/m", 1000 / 60), ("5/h", 5 / 3600), ("86400/d", 1), ("0.5/s", 0.5)],
)
def test_a_rate_is_read_as_times_a_second(text, per_second):
    assert Rate.parse(text) == pytest.approx(per_second)


BAD = [
    *(
        (Duration, t)
        for t in ("", "5", "s", "5 parsecs", "-5s", "5S", "1e3s", "5s5s", "٥s", "infs")
    ),
    *((Size, t) for t in ("", "KiB", "5kb", "-1", "1,5MB", "5 s", "0x10", "nan", "1_000")),
    *((Rate, t) for t in ("", "5", "5/", "/s", "0/s", "0.0/m", "-1/s", "5/ms", "5/w", "5 per s")),
]


@pytest.mark.parametrize(("kind", "text"), BAD)
def test_a_bad_value_is_shown_with_what_is_expected(kind, text):
    with pytest.raises(ValueError, match="expected a ") as caught:
        kind.parse(text)

    assert repr(text) in str(caught.value)
    assert "such as" in str(caught.value)


@given(
    st.sampled_from([Duration, Size, Rate]),
    st.text() | st.from_regex(r"[0-9]{1,20}(\.[0-9]{1,9})?\s?[kKMGT]?i?[Bsmhd/]{0,3}"),
)
def test_parsing_raises_nothing_but_value_errors(kind, text):
    try:
        value = kind.parse(text)
    except ValueError:
        return
    assert value >= 0


@pytest.mark.parametrize(("kind", "unit"), [(Size, "GiB"), (Duration, "s"), (Rate, "/s")])
def test_a_number_beyond_floats_is_refused(kind, unit):
    with pytest.raises(ValueError, match="expected"):
        kind.parse("9" * 400 + unit)


def test_a_size_below_zero_is_refused():
    with pytest.raises(ValueError, match="expected"):
        decode(Size, -5)


def test_a_size_may_be_a_plain_number():
    assert decode(Size, 100) == 100


@pytest.mark.parametrize(
    ("wanted", "given"), [(Size, True), (Size, 1.5), (Duration, 5), (Rate, 5), (Rate, ["5/s"])]
)
def test_a_value_of_another_type_is_refused_with_its_type(wanted, given):
    with pytest.raises(ValueError, match=type(given).__name__):
        decode(wanted, given)


def test_a_secret_of_another_type_is_told_what_a_secret_is():
    with pytest.raises(ValueError, match="env:NAME"):
        decode(Secret, 5)


# --- secrets --------------------------------------------------------------------------------------


@pytest.fixture
def places(tmp_path, monkeypatch):
    """`put(kind, bytes)` stores a secret there and returns the reference to it."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))

    def put(kind, value):
        if kind == "env":
            monkeypatch.setenv("FASTHOOK_TEST_SECRET", value.decode())
            return "env:FASTHOOK_TEST_SECRET"
        if kind == "plain":
            return f"plain:{value.decode()}"
        (tmp_path / "hook").write_bytes(value)
        return f"file:{tmp_path}/hook" if kind == "file" else "credential:hook"

    return put


KINDS = ("env", "file", "credential", "plain")


@pytest.mark.parametrize("kind", KINDS)
def test_a_secret_comes_from_each_of_its_places(kind, places):
    assert Secret.parse(places(kind, HUSH.encode())).reveal() == HUSH.encode()


@pytest.mark.parametrize("kind", ["file", "credential"])
@pytest.mark.parametrize(
    ("stored", "secret"),
    [
        (b"a b\n", b"a b"),
        (b"a b\r\n", b"a b"),
        (b"a b\n\n", b"a b\n"),
        (b" a b ", b" a b "),
        (b"\xff\xfe", b"\xff\xfe"),
    ],
)
def test_one_line_break_at_the_end_of_a_file_does_not_belong_to_the_secret(
    kind, stored, secret, places
):
    assert Secret.parse(places(kind, stored)).reveal() == secret


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("blank", [b" ", b"\n", b" \t\r\n "])
def test_a_blank_secret_is_refused(kind, blank, places):
    with pytest.raises(ValueError, match=f"^{kind}.*empty"):
        Secret.parse(places(kind, blank))


@pytest.mark.parametrize("kind", ["env", "file", "credential"])
def test_an_empty_secret_is_refused(kind, places):
    with pytest.raises(ValueError, match=f"^{kind}.*empty"):
        Secret.parse(places(kind, b""))


@pytest.mark.parametrize("kind", ["file", "credential", "plain"])
def test_a_secret_with_a_nul_is_refused_and_not_shown(kind, places):
    with pytest.raises(ValueError, match="NUL") as caught:
        Secret.parse(places(kind, f"{HUSH}\0{HUSH}".encode()))

    assert HUSH not in str(caught.value)


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    for reference, named in (
        ("env:FASTHOOK_NOT_THERE", "env:FASTHOOK_NOT_THERE"),
        (f"file:{tmp_path}/nope", f"{tmp_path}/nope: No such file"),
        (f"file:{tmp_path}", "Is a directory"),
        ("credential:nope", "nope: No such file"),
        ("credential:../nope", "credential:../nope: expected a name"),
    ):
        with pytest.raises(ValueError, match=r"expected|not set|No such|Is a") as caught:
            Secret.parse(reference)
        assert named in str(caught.value)


def test_credentials_need_systemd(monkeypatch):
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(ValueError, match=r"credential:hook.*CREDENTIALS_DIRECTORY"):
        Secret.parse("credential:hook")


@pytest.mark.parametrize(
    "reference", [HUSH, f":{HUSH}", f"vault:{HUSH}", f"ENV:{HUSH}", f" plain:{HUSH}", "", "plain:"]
)
def test_a_reference_of_no_known_kind_is_never_echoed(reference):
    """It may be the secret itself."""
    with pytest.raises(ValueError, match="expected env:NAME, file:PATH") as caught:
        Secret.parse(reference)

    assert HUSH not in "".join(traceback.format_exception(caught.value))


@given(st.text())
def test_reading_a_secret_raises_nothing_but_value_errors(text):
    for reference in (text, f"env:{text}", f"plain:{text}", f"credential:{text}"):
        try:
            secret = Secret.parse(reference)
        except ValueError:
            continue
        assert secret.reveal().strip()


def test_a_path_that_can_not_be_is_a_value_error():
    for path in ("a\0b", "x" * 5000, "\ud800"):
        with pytest.raises(ValueError, match=r".+"):
            Secret.parse(f"file:{path}")


def test_a_secret_never_shows():
    secret = Secret.parse(f"plain:{HUSH}")
    logged = io.StringIO()
    logging.StreamHandler(logged).handle(logging.makeLogRecord({"msg": "%s", "args": (secret,)}))
    shown = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r:>40}",
        "%s %r" % (secret, secret),  # noqa: UP031
        f"{[secret]} { ({'s': secret}) }",
        logged.getvalue(),
    ]

    assert not any(HUSH in text for text in shown)
    assert repr(secret) == "Secret(plain)"


def test_a_traceback_shows_only_where_a_secret_came_from():
    secret = Secret.parse(f"plain:{HUSH}")
    try:
        raise RuntimeError("failed with", secret)
    except RuntimeError as error:
        text = "".join(
            traceback.TracebackException.from_exception(error, capture_locals=True).format()
        )

    assert "Secret(plain)" in text
    assert HUSH not in text


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_secret_is_not_pickled(protocol):
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(Secret.parse(f"plain:{HUSH}"), protocol)


def test_a_secret_is_neither_copied_nor_encoded():
    secret = Secret.parse(f"plain:{HUSH}")
    for copier in (copy.copy, copy.deepcopy, msgspec.json.encode, msgspec.to_builtins):
        with pytest.raises(TypeError):
            copier(secret)


def test_a_short_secret_knows_that_it_is():
    assert Secret(b"x" * (SHORT_SECRET_BYTES - 1), "plain").is_short
    assert not Secret(b"x" * SHORT_SECRET_BYTES, "plain").is_short


@pytest.mark.parametrize(
    ("value", "is_wrapped"),
    [(b" key", True), (b"key\n", True), (b"'key'", True), (b'"key"', True), (b"\tkey", True),
     (b"key", False), (b"it's", False), (b'"', False), (b"k e y", False), (b"'key", False),
     (b"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n", False), (b'{"kty":"RSA"}\n', False)],
)  # fmt: skip
def test_a_secret_knows_what_stands_around_it(value, is_wrapped):
    assert Secret(value, "plain").is_wrapped is is_wrapped
