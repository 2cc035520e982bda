"""Requests from bytes: each family of requests that must be read, and of those that must not.

Every case is read whole, byte by byte, and cut at every or at random places; see `drive.ways`.
"""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fasthook.errors import (
    BadHttp,
    BodyTooLarge,
    ExpectationFailed,
    HeadersTooLarge,
    NoTunnel,
    OutOfMemoryBudget,
    TargetTooLong,
)
from fasthook.model import field_values, joined
from fasthook.wire.limits import (
    MAX_BLANK_LINES,
    MAX_FIELDS,
    MAX_HEAD_BYTES,
    MAX_LINE_BYTES,
    ByteBudget,
    KiB,
    MiB,
)
from fasthook.wire.reader import Phase
from tests.wire import drive
from tests.wire.drive import read_everywhere

HOST = b"Host: hooks.example\r\n"
NEXT = b"GET /smuggled HTTP/1.1\r\nHost: hooks.example\r\n\r\n"


def post(fields=b"", body=b"", *, line=b"POST /h HTTP/1.1\r\n", host=HOST):
    return line + host + fields + b"\r\n" + body


def one(raw, **options):
    """The only request of `raw`, which ends with it."""
    requests, refusal, phase = read_everywhere(raw, **options)
    assert refusal is None
    assert phase in (Phase.IDLE, None)
    (request,) = requests
    return request


def check_refused(raw, refusal=BadHttp, before=0):
    requests, got, _ = read_everywhere(raw)
    assert got is refusal
    assert len(requests) == before


# --- valid ----------------------------------------------------------------------------------------


def test_a_request_is_read_as_it_was_sent():
    head = post(b"Content-Length: 5\r\nX-Two: Words here\r\n", line=b"POST /h?a=b?c HTTP/1.1\r\n")
    request = one(head + b"hello")

    assert (request.method, request.target, request.path) == (b"POST", b"/h?a=b?c", b"/h")
    assert request.query == b"a=b?c"
    assert request.head == head
    assert request.headers == {
        b"host": b"hooks.example",
        b"content-length": b"5",
        b"x-two": b"Words here",
    }
    assert request.body == b"hello"
    assert request.keep_alive
    assert request.repeated is None


@pytest.mark.parametrize(
    ("fields", "body", "expected"),
    [
        (b"", b"", b""),
        (b"Content-Length: 0\r\n", b"", b""),
        (b"Content-Length: 0003\r\n", b"abc", b"abc"),
        (b"content-length:3\r\n", b"\r\n\r", b"\r\n\r"),
        (b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n0\r\n\r\n", b"abc"),
        (b"TRANSFER-ENCODING:\tChunked\r\n", b"3\r\nabc\r\n0\r\n\r\n", b"abc"),
        (b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b""),
    ],
)
def test_a_valid_body_is_read(fields, body, expected):
    assert one(post(fields, body)).body == expected


@pytest.mark.parametrize("length", [drive.SMALL_BODY - 1, drive.SMALL_BODY, drive.SMALL_BODY + 1])
def test_small_and_other_bodies_are_read_alike(length):
    body = bytes(range(256)) * (length // 256 + 1)
    assert one(post(b"Content-Length: %d\r\n" % length, body[:length])).body == body[:length]


# --- request-line, version, method ----------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        b"POST /h\r\n",
        b"POST\r\n",
        b"POST /h HTTP/1.1 \r\n",
        b"POST /h HTTP/1.1 x\r\n",
        b"POST /h /i HTTP/1.1\r\n",
        b"POST\t/h\tHTTP/1.1\r\n",
        b"POST  /h HTTP/1.1\r\n",
        b"POST /h  HTTP/1.1\r\n",
        b" POST /h HTTP/1.1\r\n",
        b"/h HTTP/1.1\r\n",
        b"POST /h\x0bHTTP/1.1\r\n",
        b"POST /h\x00 HTTP/1.1\r\n",
    ],
)
def test_a_malformed_request_line_is_refused(line):
    check_refused(post(line=line))


@pytest.mark.parametrize(
    "version",
    ["HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/1.2", "HTTP/1", "HTTP/1.10", "HTTP/01.1", "HTTP/1,1"]
    + ["http/1.1", "HTTPS/1.1", "RTSP/1.0", "ICE/1.0", "HTTP/ 1.1", "HTTP/1.1HTTP/1.1", ""],
)
def test_any_version_but_1_1_is_refused(version):
    check_refused(post(line=b"POST /h %b\r\n" % version.encode()))


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "M-SEARCH"])
def test_a_known_method_is_read_and_left_to_others_to_judge(method):
    assert one(post(line=b"%b /h HTTP/1.1\r\n" % method.encode())).method == method.encode()


@pytest.mark.parametrize("method", ["post", "PO ST", "P\u00d6ST", "POST:", "WHATEVER", "\x16\x03"])
def test_an_unknown_or_malformed_method_is_refused(method):
    check_refused(post(line=method.encode() + b" /h HTTP/1.1\r\n"))


# --- target, host ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/", b"/"),
        (b"//x/../y", b"//x/../y"),
        (b"/%2e%00", b"/%2e%00"),
        (b"/?q", b"/"),
        (b"http://hooks.example", b"/"),
        (b"http://hooks.example/a?b", b"/a"),
        (b"HTTPS://hooks.example:443/a", b"/a"),
        (b"http://[::1]:80/a", b"/a"),
        (b"http://hooks.example?q", b"/"),
    ],
)
def test_a_path_is_found_in_a_target_and_taken_as_it_is(target, path):
    request = one(post(line=b"POST %b HTTP/1.1\r\n" % target))
    assert (request.target, request.path) == (target, path)


@pytest.mark.parametrize(
    "target",
    [
        b"*",
        b"h",
        b"a:80",
        b"ftp://a/",
        b"http:///a",
        b"http://u@a/",
        b"http://[::1/x",
        b"http://a b",
    ]
    + [b"/a\x7f", b"/a b", b"http://a\\b/", b"?q", b"#f"],
)
def test_a_target_that_is_no_path_and_no_url_is_refused(target):
    check_refused(post(line=b"POST %b HTTP/1.1\r\n" % target))


@pytest.mark.parametrize("host", ["a", "a:80", "a:", "127.0.0.1", "[::1]:8080", "x-y_z.example"])
def test_a_host_is_a_name_or_an_address(host):
    raw = post(host=b"Host: %b\r\n" % host.encode())
    assert one(raw).headers[b"host"] == host.encode()


@pytest.mark.parametrize(
    "host",
    [b"", b"Host:\r\n", b"Host: \r\n", b"Host: a b\r\n", b"Host: a,b\r\n", b"Host: u@a\r\n"]
    + [
        b"Host: a/b\r\n",
        b"Host: a:b\r\n",
        b"Host: a:123456\r\n",
        b"Host: [::1\r\n",
        b"Host: a\x80\r\n",
    ]
    + [
        b"Host: http://a\r\n",
        b"Host: a\r\nHost: a\r\n",
        b"Host: a\r\nhOST: b\r\n",
        b"X-Host: a\r\n",
    ],
)
def test_a_missing_malformed_or_repeated_host_is_refused(host):
    check_refused(post(host=host))


def test_a_host_is_looked_at_again_after_a_good_one():
    check_refused(post() + post(host=b"Host: a@b\r\n"), before=1)


# --- header-name, header-value, obs-fold, line-ending ---------------------------------------------


@pytest.mark.parametrize(
    "line",
    [b"X Y: 1", b"X : 1", b"X\t: 1", b" X: 1", b": 1", b"X", b"X(y): 1", b"X\x00: 1", b"X\x80: 1"]
    + [b"\x0bX: 1", b'"X": 1', b"X/Y: 1", b"Content-Length : 5", b"Transfer-Encoding\x0b: chunked"],
)
def test_a_malformed_field_name_is_refused(line):
    check_refused(post(line + b"\r\n"))
    check_refused(post(b"A: b\r\n" + line + b"\r\nC: d\r\n"))


@pytest.mark.parametrize(
    "value", [b"a\x00b", b"a\x01", b"a\x1fb", b"a\x7fb", b"a\rb", b"a\nb", b"\r"]
)
def test_a_control_character_in_a_value_is_refused(value):
    check_refused(post(b"X-A: " + value + b"\r\n"))


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        (b"", b""),
        (b"  a  ", b"a"),
        (b"\ta\t", b"a"),
        (b"a b\tc", b"a b\tc"),
        (b"\xff\x80", b"\xff\x80"),
    ]
    + [(b":a:", b":a:"), (b'"q;,"', b'"q;,"'), (b"   ", b"")],
)
def test_a_value_is_kept_without_the_white_space_round_it(sent, value):
    assert one(post(b"X-A:" + sent + b"\r\n")).headers[b"x-a"] == value


_NAMES = st.text(string.ascii_letters + string.digits + "-_", min_size=1, max_size=6)
_VALUES = st.text('a,;= \t\x80\xff"0', max_size=8)


@given(st.lists(st.tuples(_NAMES, _VALUES), max_size=12))
def test_the_head_that_is_kept_says_the_same_fields_as_the_parser(fields):
    """Handlers get them from the head, and verification from the parser: of the same bytes."""
    lines = "".join(f"X-{name}:{value}\r\n" for name, value in fields).encode("latin-1")
    request = one(post(lines))
    assert joined(field_values(request.head)) == request.headers


@pytest.mark.parametrize("fold", [b"\r\n b", b"\r\n\tb", b"\r\n ", b"\n b", b"\r\n \r\n b"])
def test_a_folded_line_is_refused(fold):
    check_refused(post(b"X-A: a" + fold + b"\r\n"))
    check_refused(post(b"Transfer-Encoding: chunked" + fold + b"\r\n", b"0\r\n\r\n"))


@pytest.mark.parametrize(
    "raw",
    [
        b"POST /h HTTP/1.1\nHost: a\n\n",
        b"POST /h HTTP/1.1\nHost: a\r\n\r\n",
        b"POST /h HTTP/1.1\r\nHost: a\n\r\n",
        b"POST /h HTTP/1.1\r\nHost: a\r\n\n" + NEXT,
        b"POST /h HTTP/1.1\rHost: a\r\r\n\r\n",
        b"POST /h HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
        b"POST /h HTTP/1.1\r\r\nHost: a\r\n\r\n",
        b"POST /h HTTP/1.1\r\nHost: a\r\n\r" + NEXT,
        b"POST /h HTTP/1.1\r\nHost: a\r\r\n\r\n",
        b"\n" + NEXT,
        b"\r" + NEXT,
        b"\r\r\n" + NEXT,
        b"\r\n\n" + NEXT,
    ],
)
def test_only_crlf_ends_a_line(raw):
    check_refused(raw)


def test_a_few_blank_lines_before_a_request_are_skipped():
    assert one(b"\r\n" * MAX_BLANK_LINES + post()).head == post()
    check_refused(b"\r\n" * (MAX_BLANK_LINES + 1) + post())


def test_a_few_blank_lines_are_skipped_before_each_request():
    raw = (post(b"Content-Length: 1\r\n", b"x") + b"\r\n" * MAX_BLANK_LINES) * 3 + post()
    requests, refusal, phase = read_everywhere(raw)
    assert (len(requests), refusal, phase) == (4, None, Phase.IDLE)


# --- content-length, transfer-encoding, cl-te -----------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        "",
        "-1",
        "+1",
        "1 2",
        "1,1",
        "1, 1",
        "0x1",
        "1.0",
        "1e1",
        "1_0",
        "a",
        "\u0661",
        "\u00b2",
        "1;",
        "'1'",
    ]
    + ["9" * 21, "18446744073709551616"],
)
def test_a_content_length_that_is_no_number_is_refused(value):
    check_refused(post(b"Content-Length: " + value.encode() + b"\r\n", b"x"))


@pytest.mark.parametrize("second", [b"1", b"2", b"0"])
def test_a_second_content_length_is_refused_even_if_it_says_the_same(second):
    check_refused(post(b"Content-Length: 1\r\nContent-Length: " + second + b"\r\n", b"x"))


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"identity",
        b"gzip",
        b"gzip, chunked",
        b"chunked, chunked",
        b"chunked, gzip",
        b",chunked",
    ]
    + [
        b"chunked,",
        b"xchunked",
        b"chunked;q=1",
        b'"chunked"',
        b"chunked\x0b",
        b"\x00chunked",
        b"chunke",
    ]
    + [b"trailers, chunked", b"chunked chunked", b"c\xe2\x84\xaahunked"],
)
def test_a_transfer_encoding_that_is_not_chunked_is_refused(value):
    check_refused(post(b"Transfer-Encoding: " + value + b"\r\n", b"0\r\n\r\n" + NEXT))


@pytest.mark.parametrize("second", [b"chunked", b"identity", b""])
def test_a_second_transfer_encoding_is_refused(second):
    first = b"Transfer-Encoding: chunked\r\n"
    check_refused(post(first + b"transfer-encoding: " + second + b"\r\n", b"0\r\n\r\n"))


@pytest.mark.parametrize(
    "coding", [b"chunked", b"identity", b"", b"xchunked", b" \tchunked", b"CHUNKED"]
)
def test_a_request_with_two_framings_is_refused_in_either_order(coding):
    length, encoding = b"Content-Length: 5\r\n", b"Transfer-Encoding: " + coding + b"\r\n"
    check_refused(post(length + encoding, b"0\r\n\r\n" + NEXT))
    check_refused(post(encoding + length, b"0\r\n\r\n" + NEXT))


def test_two_framings_in_version_1_0_are_refused():
    line = b"POST /h HTTP/1.0\r\n"
    check_refused(post(b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", line=line))


# --- chunked, chunk-ext, trailer: more in test_chunked.py -----------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"1;a=b\r\nx\r\n0;c\r\n\r\n", b"x"),
        (b'1;a="\\""\r\nx\r\n0\r\n\r\n', b"x"),
        (b"1\r\nx\r\n0\r\nX-Hub-Signature: forged\r\n\r\n", b"x"),
    ],
)
def test_extensions_and_trailers_leave_no_trace(body, expected):
    request = one(post(b"Transfer-Encoding: chunked\r\n", body))
    assert request.body == expected
    assert set(request.headers) == {b"host", b"transfer-encoding"}


@pytest.mark.parametrize(
    "body",
    [
        b"1\nx\r\n0\r\n\r\n",
        b"1\r\nxy\r\n0\r\n\r\n",
        b"g\r\n",
        b"1 \r\nx\r\n0\r\n\r\n",
        b"1;a\nb\r\nx\r\n",
    ]
    + [
        b"0\r\nHost: evil\r\n\r\n",
        b"0\r\nContent-Length: 5\r\n\r\n",
        b"0\r\n\r" + NEXT,
        b"0\r\nx\r\n\r\n",
    ],
)
def test_a_malformed_chunked_body_is_refused(body):
    check_refused(post(b"Transfer-Encoding: chunked\r\n", body))


def test_what_stands_behind_a_chunked_body_is_the_next_request():
    raw = post(b"Transfer-Encoding: chunked\r\n", b"1\r\nx\r\n0\r\n\r\n")
    requests, refusal, _ = read_everywhere(raw + post(b"Content-Length: 1\r\n", b"y") + raw)
    assert [request.body for request in requests] == [b"x", b"y", b"x"]
    assert refusal is None


# --- critical duplicates --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["Content-Type", "Content-Encoding", "Authorization", "Expect", "Upgrade"]
)
def test_a_field_with_one_value_is_refused_when_it_comes_twice(name):
    line = name.encode() + b": 100-continue\r\n"
    check_refused(post(line + line.lower()))


def test_other_fields_may_repeat_and_are_joined():
    request = one(post(b"X-Sign: a\r\nAccept: c\r\nx-sign: b \r\n"))
    assert request.headers[b"x-sign"] == b"a, b"
    assert request.headers[b"accept"] == b"c"
    assert request.repeated == {b"x-sign": [b"a", b"b"]}


def test_which_fields_may_come_once_is_the_callers_choice():
    reader = drive.RequestReader(lambda path: 1, 1, ByteBudget(1), frozenset({b"x-sign"}))
    reader.feed(post(b"X-Sign: a\r\nx-sign: b\r\n"))
    with pytest.raises(BadHttp, match="x-sign"):
        reader.next_request()


# --- expect, upgrade ------------------------------------------------------------------------------


def test_expect_100_continue_is_read_in_any_case():
    raw = post(b"Expect: 100-Continue\r\nContent-Length: 1\r\n", b"x")
    assert one(raw).body == b"x"


@pytest.mark.parametrize("value", [b"", b"200-ok", b"100-continue, x", b"100-continu"])
def test_any_other_expectation_is_refused(value):
    check_refused(post(b"Expect: " + value + b"\r\n"), ExpectationFailed)


def test_the_reader_says_once_that_the_sender_waits():
    reader = drive.new_reader()
    reader.feed(post(b"Expect: 100-continue\r\nContent-Length: 1\r\n"))

    assert reader.next_request() is None
    assert reader.wants_continue()
    assert not reader.wants_continue()


def test_nobody_waits_whose_body_is_on_its_way():
    reader = drive.new_reader()
    reader.feed(post(b"Expect: 100-continue\r\nContent-Length: 2\r\n", b"x"))

    assert reader.next_request() is None
    assert not reader.wants_continue()


def test_a_wish_to_continue_ends_with_its_request():
    reader = drive.new_reader()
    reader.feed(post(b"Expect: 100-continue\r\nContent-Length: 1\r\n", b"x"))
    assert reader.next_request() is not None
    reader.feed(post(b"Content-Length: 1\r\n"))
    assert reader.next_request() is None

    assert not reader.wants_continue()


@pytest.mark.parametrize("body", [b"", b"Content-Length: 1\r\n", b"Transfer-Encoding: chunked\r\n"])
@pytest.mark.parametrize("protocol", [b"websocket", b"h2c", b"TLS/1.0"])
def test_an_upgrade_is_refused_with_and_without_a_body(protocol, body):
    fields = b"Connection: keep-alive, Upgrade\r\nUpgrade: " + protocol + b"\r\n"
    check_refused(post(fields + body, b"x" + NEXT), NoTunnel)


def test_connect_is_refused():
    raw = post(line=b"CONNECT hooks.example:443 HTTP/1.1\r\n")
    check_refused(raw, NoTunnel)
    check_refused(raw + NEXT, NoTunnel)


def test_an_upgrade_that_the_connection_does_not_speak_of_is_no_upgrade():
    assert one(post(b"Upgrade: h2c\r\n")).headers[b"upgrade"] == b"h2c"


# --- pipelining, connection -----------------------------------------------------------------------


def test_pipelined_requests_are_read_in_order():
    raw = b"".join(post(b"Content-Length: 1\r\n", b"%d" % number) for number in range(4))
    requests, refusal, phase = read_everywhere(raw)
    assert [request.body for request in requests] == [b"0", b"1", b"2", b"3"]
    assert (refusal, phase) == (None, Phase.IDLE)


def test_a_bad_request_behind_good_ones_is_refused_alone():
    check_refused(post() * 2 + b"GARBAGE\r\n\r\n", before=2)


def test_a_body_too_many_bytes_long_begins_the_next_request():
    check_refused(post(b"Content-Length: 1\r\n", b"xGARBAGE\r\n\r\n"), before=1)


@pytest.mark.parametrize(
    ("value", "keeps"),
    [(b"close", False), (b"Close", False), (b"x,\tCLOSE\t", False), (b"close, keep-alive", False)]
    + [(b"keep-alive", True), (b"closed", True), (b"", True)],
)
def test_a_close_token_ends_the_connection(value, keeps):
    assert one(post(b"Connection: " + value + b"\r\n")).keep_alive is keeps


def test_bytes_behind_the_last_request_are_told():
    reader = drive.new_reader()
    reader.feed(post(b"Connection: close\r\n") + b"\r\n")
    assert reader.next_request() is not None
    assert reader.after_last() is None
    reader.feed(NEXT)
    assert isinstance(reader.after_last(), BadHttp)


# --- non-http, incomplete -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 5 80\r\n" + NEXT,
        b"\r\n\r\n\x00\r\nQUIT\n",
        b"\x00" * 40,
        b"EHLO x\r\n\r\n",
        b'{"a": 1}\r\n\r\n',
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused(raw):
    check_refused(raw)


@pytest.mark.parametrize(
    ("raw", "phase"),
    [
        (b"", Phase.IDLE),
        (b"P", Phase.HEAD),
        (b"\r\n", Phase.HEAD),
        (b"POST /h HTTP/1.1\r\n", Phase.HEAD),
        (post()[:-1], Phase.HEAD),
        (post(b"Content-Length: 2\r\n", b"x"), Phase.BODY),
        (post(b"Content-Length: 2\r\n"), Phase.BODY),
        (post(b"Transfer-Encoding: chunked\r\n"), Phase.BODY),
        (post(b"Transfer-Encoding: chunked\r\n", b"5\r\nab"), Phase.BODY),
        (post(b"Transfer-Encoding: chunked\r\n", b"1\r\na\r\n0\r\n"), Phase.BODY),
    ],
)
def test_a_request_that_has_not_ended_is_none(raw, phase):
    assert read_everywhere(raw) == ([], None, phase)


# --- limits ---------------------------------------------------------------------------------------


def long_head(size):
    """A request whose head has `size` bytes, no line of them long."""
    fields = b""
    while (left := size - len(post(fields))) > 0:
        length = min(left, 1000)
        length = left if left < 1010 else 1000
        fields += b"X:" + b"v" * (length - 4) + b"\r\n"
    raw = post(fields)
    assert len(raw) == size
    return raw


def test_a_request_line_that_is_too_long_is_refused_as_such():
    raw = post(line=b"POST /" + b"a" * MAX_LINE_BYTES + b" HTTP/1.1\r\n")
    check_refused(raw, TargetTooLong)
    check_refused(raw[: MAX_LINE_BYTES + 1], TargetTooLong)


def test_a_field_that_is_too_long_is_refused():
    raw = post(b"X: " + b"a" * MAX_LINE_BYTES + b"\r\n")
    check_refused(raw, HeadersTooLarge)
    check_refused(raw[:-4], HeadersTooLarge)


def test_a_head_is_bounded():
    assert one(long_head(MAX_HEAD_BYTES)).method == b"POST"
    check_refused(long_head(MAX_HEAD_BYTES + 1), HeadersTooLarge)


def test_fields_are_counted():
    assert one(post(b"".join(b"X%d: 1\r\n" % n for n in range(MAX_FIELDS - 1))))
    check_refused(post(b"".join(b"X%d: 1\r\n" % n for n in range(MAX_FIELDS))), HeadersTooLarge)
    check_refused(post(b"X: 1\r\n" * MAX_FIELDS), HeadersTooLarge)


@pytest.mark.parametrize("line", ["request", "field"])
def test_a_line_of_exactly_the_limit_is_the_same_wherever_it_is_cut(line):
    if line == "request":
        raw = post(line=b"POST /".ljust(MAX_LINE_BYTES - 9, b"a") + b" HTTP/1.1\r\n")
    else:
        raw = post(b"X:".ljust(MAX_LINE_BYTES, b"a") + b"\r\n")
    whole = drive.read([raw])

    assert len(whole[0]) == 1
    for cut in range(MAX_LINE_BYTES - 3, len(raw)):
        assert drive.read([raw[:cut], raw[cut:]]) == whole, cut


def test_a_body_longer_than_the_limit_is_refused_by_its_length_alone():
    small, big = drive.SMALL_BODY, drive.SMALL_BODY * 2
    raw = post(b"Content-Length: %d\r\n" % big, bytes(big))
    assert len(one(raw, limit=big).body) == big
    for length in (big + 1, 10**15, 2**64 - 1):
        head = post(b"Content-Length: %d\r\n" % length)
        assert read_everywhere(head, limit=big) == ([], BodyTooLarge, None)
    head = post(b"Transfer-Encoding: chunked\r\n", b"%x\r\n" % (big + 1))
    assert read_everywhere(head, limit=big) == ([], BodyTooLarge, None)
    assert len(one(post(b"Content-Length: %d\r\n" % small, bytes(small)), limit=big).body) == small


def test_the_limit_is_that_of_the_path():
    asked = []
    reader = drive.RequestReader(lambda path: asked.append(path) or 10, 4, ByteBudget(MiB))
    reader.feed(post(b"Content-Length: 4\r\n", b"abcd"))
    reader.feed(post(b"Content-Length: 5\r\n", b"abcde", line=b"POST /big?x HTTP/1.1\r\n"))

    assert reader.next_request() is not None
    assert asked == []
    assert reader.next_request() is not None
    assert asked == [b"/big"]


# --- memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_the_budget_has_no_room_for_is_refused(chunked):
    budget = ByteBudget(100)
    first, second = drive.new_reader(budget), drive.new_reader(budget)
    first.feed(post(b"Content-Length: 61\r\n", b"x" * 60))
    assert first.next_request() is None
    if chunked:
        second.feed(post(b"Transfer-Encoding: chunked\r\n", b"32\r\n" + b"y" * 49))
    else:
        second.feed(post(b"Content-Length: 50\r\n", b"y" * 49))
    with pytest.raises(OutOfMemoryBudget):
        second.next_request()
    second.close()
    assert budget.used == 60
    first.close()
    assert budget.used == 0


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_whole_gives_its_bytes_back(chunked):
    budget = ByteBudget(100)
    reader = drive.new_reader(budget)
    body = b"32\r\n" + b"x" * 50 + b"\r\n0\r\n\r\n" if chunked else b"x" * 50
    fields = b"Transfer-Encoding: chunked\r\n" if chunked else b"Content-Length: 50\r\n"
    for _ in range(3):
        reader.feed(post(fields, body[:20]))
        assert reader.next_request() is None
        assert budget.used > 0
        reader.feed(body[20:])
        assert reader.next_request().body == b"x" * 50
        assert budget.used == 0


def test_a_long_body_in_small_pieces_is_joined_once_and_right():
    body = bytes(range(256)) * (2 * KiB)
    raw = post(b"Content-Length: %d\r\n" % len(body), body) + post()
    pieces = [raw[start : start + 997] for start in range(0, len(raw), 997)]
    requests, refusal, phase = drive.read(pieces)
    assert [request.body for request in requests] == [body, b""]
    assert (refusal, phase) == (None, Phase.IDLE)


# --- any requests at any split --------------------------------------------------------------------

NAMES = st.text("abcXYZ019-_", min_size=1, max_size=8).map(lambda name: f"X-{name}".encode())
VALUES = st.text('ab \t:;,"\x80\xff', max_size=10).map(
    lambda value: value.strip().encode("latin-1")
)


@st.composite
def requests(draw):
    """What a request says, and its bytes."""
    method = draw(st.sampled_from([b"POST", b"PUT", b"PATCH"]))
    target = b"/" + draw(st.text("abc/%?=&~", max_size=10)).encode()
    fields = draw(st.lists(st.tuples(NAMES, VALUES), max_size=4, unique_by=lambda f: f[0].lower()))
    body = draw(st.binary(max_size=60))
    raw = method + b" " + target + b" HTTP/1.1\r\nHost: a\r\n"
    raw += b"".join(name + b": " + value + b" \r\n" for name, value in fields)
    if draw(st.booleans()):
        cut = draw(st.integers(0, len(body)))
        raw += b"Transfer-Encoding: chunked\r\n\r\n"
        raw += b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in (body[:cut], body[cut:]) if c)
        raw += b"0\r\n\r\n"
    else:
        raw += b"Content-Length: %d\r\n\r\n" % len(body) + body
    return (method, target, {name.lower(): value for name, value in fields}, body), raw


@settings(deadline=None)
@given(st.lists(requests(), min_size=1, max_size=5), st.integers(), st.integers(1, 30))
def test_any_pipeline_is_read_back_at_any_split(sent, seed, pieces):
    raw = b"".join(raw for _, raw in sent)
    for split in ([raw], drive.one_by_one(raw), drive.random_split(raw, seed, pieces)):
        read, refusal, phase = drive.read(split)
        assert (refusal, phase) == (None, Phase.IDLE)
        framing = {b"host", b"content-length", b"transfer-encoding"}
        assert [
            (r.method, r.target, {n: v for n, v in r.headers.items() if n not in framing}, r.body)
            for r in read
        ] == [said for said, _ in sent]


@settings(deadline=None)
@given(st.lists(requests(), min_size=1, max_size=3), st.data())
def test_a_damaged_pipeline_is_judged_the_same_at_any_split(sent, data):
    raw = b"".join(raw for _, raw in sent)
    at = data.draw(st.integers(0, len(raw)))
    damage = data.draw(st.sampled_from([b"", b"\r", b"\n", b"\r\n", b"\x00", b" ", b":", b"0"]))
    raw = raw[:at] + damage + raw[at + data.draw(st.integers(0, 2)) :]
    whole = drive.read([raw])
    assert drive.read(drive.one_by_one(raw)) == whole
    assert drive.read(drive.random_split(raw, at)) == whole
