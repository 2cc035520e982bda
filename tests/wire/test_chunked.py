"""Chunked bodies: what is taken, what is refused, and that httptools agrees."""

import itertools

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fasthook.errors import BadHttp, BodyTooLarge, HeadersTooLarge, Rejection
from fasthook.wire.chunked import ChunkedBody
from fasthook.wire.limits import MAX_CHUNK_OVERHEAD_BYTES, MAX_HEAD_BYTES, MAX_LINE_BYTES, KiB
from tests.wire import drive

LIMIT = 64 * KiB


def take(pieces, limit=LIMIT):
    """The body and what was left behind it, or the class of the refusal, or None: unfinished."""
    chunked = ChunkedBody(limit)
    kept = b""
    try:
        for piece in pieces:
            kept += piece
            if not chunked.is_complete:
                kept = kept[chunked.take(kept, 0) :]
    except Rejection as rejection:
        return type(rejection)
    return (bytes(chunked.body), kept) if chunked.is_complete else None


def take_everywhere(raw, limit=LIMIT):
    whole = take([raw], limit)
    for pieces in drive.ways(raw):
        assert take(pieces, limit) == whole, f"cut as {pieces[:8]!r}"
    return whole


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (b"0\r\n\r\n", b""),
        (b"3\r\nabc\r\n0\r\n\r\n", b"abc"),
        (b"1\r\na\r\n2\r\nbc\r\n000\r\n\r\n", b"abc"),
        (b"a\r\n0\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n", b"0\r\n\r\n0\r\n\r\n"),
        (b"00000000000000A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        (b"2;name\r\nab\r\n0;last\r\n\r\n", b"ab"),
        (b"2;n=v;m=w\r\nab\r\n0\r\n\r\n", b"ab"),
        (b'2;n="a b;\\"\\\\"\r\nab\r\n0\r\n\r\n', b"ab"),
        (b"1\r\na\r\n0\r\nX-Sum: 1\r\nY:\r\n\r\n", b"a"),
    ],
)
def test_a_valid_body_is_read_to_its_end_and_not_beyond(raw, body):
    assert take_everywhere(raw) == (body, b"")
    assert take_everywhere(raw + b"POST /") == (body, b"POST /")


@pytest.mark.parametrize(
    "raw",
    [
        b"\r\n",
        b"x\r\n",
        b"-1\r\na",
        b"+1\r\na",
        b"0x1\r\na",
        b"1_0\r\na",
        b" 1\r\na",
        b"1 \r\na",
        b"1\t\r\na",
        b"\xd9\xa1\r\na",
        b"1\na\n0\n\n",
        b"1\ra\r\n",
        b"1\r\r\na",
        b"1\x00\r\na",
        b"10000000000000000\r\n",
        b"1;\r\na",
        b"1;;a\r\na",
        b"1; a\r\na",
        b"1 ;a\r\na",
        b"1;a=\r\na",
        b"1;a =b\r\na",
        b'1;a="b\r\na',
        b'1;a="b"c\r\na',
        b'1;a="\\\x01"\r\na',
        b"1;a\nb\r\na",
        b"1;a\rb\r\na",
        b"1,a\r\na",
        b"1\r\nab\r\n",
        b"1\r\na\n0\r\n\r\n",
        b"1\r\na\r0\r\n\r\n",
        b"1\r\naXX0\r\n\r\n",
        b"1\r\na0\r\n\r\n",
        b"0\r\nnocolon\r\n\r\n",
        b"0\r\n: x\r\n\r\n",
        b"0\r\na : x\r\n\r\n",
        b"0\r\na: \x00\r\n\r\n",
        b"0\r\na: b\n\r\n",
        b"0\r\na: b\r\n c\r\n\r\n",
        b"0\r\n\nPOST",
        b"0\r\n\rPOST / HTTP/1.1\r\n",
    ],
)
def test_a_malformed_body_is_refused(raw):
    assert take_everywhere(raw) is BadHttp


@pytest.mark.parametrize(
    "name",
    ["Content-Length", "TRANSFER-ENCODING", "host", "Content-Encoding", "trailer"],
)
def test_a_trailer_that_would_frame_or_route_is_refused(name):
    assert take_everywhere(b"0\r\n%b: 1\r\n\r\n" % name.encode()) is BadHttp


@pytest.mark.parametrize("raw", [b"", b"5", b"5\r", b"5\r\nab", b"1\r\na\r", b"0\r\n", b"0\r\n\r"])
def test_a_body_that_has_not_ended_waits(raw):
    assert take_everywhere(raw) is None


def test_a_chunk_that_would_pass_the_limit_is_refused_by_its_size_line_alone():
    assert take([b"5\r\nhello\r\n", b"0\r\n\r\n"], limit=5) == (b"hello", b"")
    assert take([b"6\r\n"], limit=5) is BodyTooLarge
    assert take([b"3\r\nabc\r\n", b"3\r\n"], limit=5) is BodyTooLarge
    assert take([b"FFFFFFFFFFFFFFFF\r\n"]) is BodyTooLarge


def test_a_line_without_an_end_is_refused_before_it_is_long():
    assert take([b"1;" + b"a" * MAX_LINE_BYTES]) is BadHttp
    assert take([b"0\r\na:" + b"b" * MAX_LINE_BYTES]) is BadHttp


@pytest.mark.parametrize("start", [b"1;", b"0\r\na:"])
def test_a_line_of_exactly_the_limit_is_the_same_wherever_it_is_cut(start):
    head, _, line = start.rpartition(b"\r\n")
    head += b"\r\n" if head else b""
    line += b"x" * (MAX_LINE_BYTES - len(line))
    raw = head + line + (b"\r\na\r\n0\r\n\r\n" if not head else b"\r\n\r\n")
    whole = take([raw])

    assert isinstance(whole, tuple)
    for cut in range(len(head) + MAX_LINE_BYTES - 3, len(raw)):
        assert take([raw[:cut], raw[cut:]]) == whole, cut


def test_framing_may_not_cost_more_than_it_carries():
    few = b"1\r\na\r\n" * 1000
    many = b"1\r\na\r\n" * (MAX_CHUNK_OVERHEAD_BYTES // 4)
    assert take([few + b"0\r\n\r\n"]) == (b"a" * 1000, b"")
    assert take([many]) is BadHttp
    assert take(drive.random_split(many, 1, 50)) is BadHttp


def test_extensions_count_as_framing():
    line = b"1;" + b"e" * 4000 + b"\r\na\r\n"
    assert take([line * 4 + b"0\r\n\r\n"]) == (b"aaaa", b"")
    assert take([line * 5]) is BadHttp


def test_a_big_body_may_have_more_framing():
    chunk = b"100\r\n" + b"x" * 256 + b"\r\n"
    assert take([chunk * 4000 + b"0\r\n\r\n"], limit=4000 * 256) == (b"x" * 256 * 4000, b"")


def test_trailers_are_bounded_like_a_head():
    line = b"a: " + b"b" * 1019 + b"\r\n"  # 1 KiB
    assert take([b"0\r\n" + line * (MAX_HEAD_BYTES // KiB) + b"\r\n"]) == (b"", b"")
    assert take([b"0\r\n" + line * (MAX_HEAD_BYTES // KiB + 1)]) is HeadersTooLarge


# --- httptools as second opinion ------------------------------------------------------------------


class Seen:
    def __init__(self):
        self.body = b""
        self.is_complete = False

    def on_body(self, data):
        self.body += data

    def on_message_complete(self):
        self.is_complete = True


def httptools_body(raw):
    """What httptools makes of the body, or None: refused, unfinished."""
    seen = Seen()
    parser = httptools.HttpRequestParser(seen)
    parser.feed_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    try:
        parser.feed_data(raw)
    except httptools.HttpParserError:
        return None
    return seen.body if seen.is_complete else None


TOKEN = st.text("!#$%&'*+-.^_`|~09azAZ", min_size=1, max_size=6).map(str.encode)
TEXT = st.text("\t !#[]~aZ\x80\xff", max_size=6).map(lambda text: text.encode("latin-1"))
QUOTED = TEXT.map(lambda text: b'"' + text + b'\\""')
EXTENSION = st.one_of(
    TOKEN.map(lambda name: b";" + name),
    st.tuples(TOKEN, st.one_of(TOKEN, QUOTED)).map(lambda pair: b";" + b"=".join(pair)),
)
TRAILER = st.tuples(TOKEN, TEXT).map(lambda field: b"x-%b: %b\r\n" % field)


@st.composite
def chunked_bodies(draw):
    """A body, and one way to send it in chunks."""
    data = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=6))
    raw = b""
    for piece in [*data, b""]:
        size = draw(st.sampled_from([b"%x", b"%X", b"%04x"])) % len(piece)
        raw += size + b"".join(draw(st.lists(EXTENSION, max_size=2))) + b"\r\n"
        if piece:
            raw += piece + b"\r\n"
    raw += b"".join(draw(st.lists(TRAILER, max_size=3)))
    return b"".join(data), raw + b"\r\n"


@settings(deadline=None)
@given(chunked_bodies(), st.integers())
def test_any_body_comes_back_however_it_is_chunked_and_split(sent, seed):
    body, raw = sent
    assert take([raw]) == (body, b"")
    assert take(drive.one_by_one(raw)) == (body, b"")
    assert take(drive.random_split(raw, seed)) == (body, b"")
    assert httptools_body(raw) == body


PARTS = [b"0", b"1", b"2", b"a", b"\r\n", b"\r", b"\n", b";", b"=", b'"', b"\\", b" ", b"\t", b":"]
PARTS += [b"x", b"\x00", b"\x80", b"\r\n\r\n", b"0\r\n\r\n", b"1\r\na\r\n", b"Host: a", b"a: b\r\n"]


def check_httptools_agrees(raw):
    result = take([raw])
    assert take(drive.one_by_one(raw)) == result
    if isinstance(result, tuple):
        body, rest = result
        assert httptools_body(raw[: len(raw) - len(rest)]) == body


@settings(deadline=None)
@given(st.lists(st.sampled_from(PARTS), max_size=12).map(b"".join))
def test_httptools_accepts_what_we_accept_with_the_same_body(raw):
    check_httptools_agrees(raw)


@settings(deadline=None)
@given(chunked_bodies(), st.data())
def test_httptools_accepts_what_we_accept_of_a_damaged_body(sent, data):
    _, raw = sent
    at = data.draw(st.integers(0, len(raw)))
    damage = data.draw(st.sampled_from([b"", *PARTS]))
    cut = data.draw(st.integers(0, 2))
    check_httptools_agrees(raw[:at] + damage + raw[at + cut :])


def test_httptools_accepts_every_short_size_line_that_we_accept():
    for letters in itertools.product(b'01;=a" \t\r\n', repeat=4):
        check_httptools_agrees(bytes(letters) + b"\r\na\r\n0\r\n\r\n")
