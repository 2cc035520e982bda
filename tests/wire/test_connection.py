"""One connection: order of answers, back-pressure, deadlines, and every way to end it.

Transport, owner, receiver and clock are `drive.Wire`'s; no loop runs.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fasthook.errors import BadHttp, RequestTimeout
from fasthook.wire.answers import CONTINUE, render
from fasthook.wire.limits import LINGER_BYTES, LINGER_S, MAX_A_TURN, MAX_UNANSWERED, KiB, Limits
from tests.wire import drive
from tests.wire.drive import Wire

GET = b"GET /h HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET /h HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
HEAD_ALONE = b"POST /h HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n"
POST = HEAD_ALONE + b"body"
WAITS = b"POST /h HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
GARBAGE = b"GARBAGE\r\n\r\n"


# --- order ----------------------------------------------------------------------------------------


def test_an_answer_at_once_is_sent_at_once():
    wire = Wire(answers=True)
    wire.feed(POST)

    assert wire.statuses == [202]
    assert wire.connection.served == 1
    assert b"\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n" in wire.transport.sent


def test_requests_that_came_together_are_answered_in_one_write():
    wire = Wire(answers=True)
    wire.feed(GET * 3)
    assert wire.statuses == [202, 202, 202]
    assert wire.transport.writes == 1


def test_what_is_sent_later_never_overtakes_what_waits_to_be_sent():
    wire = Wire()
    wire.on_request = lambda number: None if number == 1 else render(200, b"%d" % number)
    wire.connection.data_received(GET * 2)
    wire.connection.take()
    assert wire.transport.sent == b""
    wire.answer(1)
    assert wire.bodies == [b"0", b"1"]
    wire.connection.flush()
    assert wire.transport.writes == 1


def test_a_client_that_left_before_its_answer_was_sent_harms_nobody():
    wire = Wire(answers=True)
    wire.connection.data_received(GET)
    wire.connection.take()
    wire.connection.connection_lost(None)
    wire.connection.flush()
    assert wire.transport.sent == b""
    assert wire.failures == []


def test_answers_that_come_later_are_sent_in_the_order_of_the_requests():
    wire = Wire()
    wire.feed(GET * 3)
    wire.answer(2)
    wire.answer(1)
    assert wire.transport.sent == b""

    wire.answer(0)
    assert wire.bodies == [b"0", b"1", b"2"]


def test_an_answer_at_once_waits_for_those_before_it():
    wire = Wire()
    wire.on_request = lambda number: None if number == 0 else render(200, b"%d" % number)
    wire.feed(GET * 2)
    assert wire.transport.sent == b""

    wire.answer(0)
    assert wire.bodies == [b"0", b"1"]


@settings(deadline=None)
@given(st.permutations(range(10)))
def test_any_order_of_answers_becomes_the_order_of_the_requests(order):
    wire = Wire()
    wire.feed(GET * 10)
    wire.answer(*order)
    assert wire.bodies == [b"%d" % number for number in range(10)]


def test_head_is_answered_without_a_body():
    wire = Wire()
    wire.on_request = lambda number: render(404, b"not found")
    wire.feed(GET.replace(b"GET", b"HEAD"))

    assert wire.transport.sent.endswith(b"Content-Length: 9\r\n\r\n")


# --- back-pressure --------------------------------------------------------------------------------


def test_reading_pauses_at_the_bound_of_unanswered_requests_and_goes_on_below_it():
    wire = Wire()
    wire.feed(GET * (MAX_UNANSWERED + 3))
    assert len(wire.requests) == MAX_UNANSWERED
    assert not wire.transport.reads

    wire.answer(1)  # not the oldest: nothing can be sent
    assert len(wire.requests) == MAX_UNANSWERED
    wire.answer(0)
    assert len(wire.requests) == MAX_UNANSWERED + 2
    assert not wire.transport.reads

    wire.answer(2, 3)
    assert len(wire.requests) == MAX_UNANSWERED + 3
    assert wire.transport.reads
    wire.answer(*range(4, MAX_UNANSWERED + 3))
    assert wire.bodies == [b"%d" % number for number in range(MAX_UNANSWERED + 3)]


def test_a_client_that_does_not_read_is_not_read_from():
    wire = Wire(answers=True)
    wire.connection.pause_writing()
    assert not wire.transport.reads
    wire.feed(GET)  # was on its way already
    assert wire.requests == []

    wire.connection.resume_writing()
    assert wire.transport.reads
    assert wire.statuses == [202]


def test_both_reasons_to_pause_must_end():
    wire = Wire()
    wire.feed(GET * (MAX_UNANSWERED + 1))
    wire.connection.pause_writing()
    wire.answer(0)
    assert not wire.transport.reads
    assert len(wire.requests) == MAX_UNANSWERED

    wire.connection.resume_writing()
    assert len(wire.requests) == MAX_UNANSWERED + 1


def test_a_client_that_never_reads_is_cut_off():
    wire = Wire(Limits(write_timeout_s=10))
    wire.connection.pause_writing()
    wire.at(wire.now + 9.9)
    assert not wire.transport.is_aborted
    wire.at(wire.now + 0.1)
    assert wire.transport.is_aborted


def test_a_client_that_reads_again_in_time_stays():
    wire = Wire(Limits(write_timeout_s=10, idle_timeout_s=75), answers=True)
    wire.connection.pause_writing()
    wire.connection.resume_writing()
    wire.at(wire.now + 20)
    assert not wire.transport.is_closing()


def test_a_slow_reader_keeps_the_deadline_of_the_body_it_sends():
    wire = Wire(Limits(write_timeout_s=1, body_timeout_s=50))
    wire.feed(HEAD_ALONE)
    due = wire.connection.deadline
    wire.connection.pause_writing()
    wire.connection.resume_writing()
    assert wire.connection.deadline == due


# --- deadlines ------------------------------------------------------------------------------------


def test_a_connection_that_says_nothing_is_closed_without_a_word():
    wire = Wire(Limits(idle_timeout_s=75))
    wire.at(wire.now + 74)
    assert not wire.transport.is_closed
    wire.at(wire.now + 1)
    assert wire.transport.is_closed
    assert wire.transport.sent == b""


def test_a_connection_that_says_nothing_more_is_closed_without_a_word():
    wire = Wire(Limits(idle_timeout_s=75), answers=True)
    wire.now += 50
    wire.feed(GET)
    wire.at(wire.now + 74)
    assert not wire.transport.is_closed
    wire.at(wire.now + 1)
    assert wire.transport.is_closed
    assert wire.statuses == [202]


def test_a_connection_is_idle_from_its_last_answer_on():
    wire = Wire(Limits(idle_timeout_s=75))
    wire.feed(GET)
    wire.now += 100
    wire.answer(0)
    assert wire.connection.deadline == wire.now + 75


def test_nobody_is_timed_out_while_we_work():
    wire = Wire()
    wire.feed(GET)
    wire.at(wire.now + 10_000)
    assert not wire.transport.is_closing()
    wire.answer(0)
    assert wire.statuses == [202]


def test_a_trickled_head_has_the_time_of_one_head():
    wire = Wire(Limits(head_timeout_s=5))
    start = wire.now
    for byte in drive.one_by_one(GET[:-1]):
        wire.feed(byte)
        assert wire.connection.deadline == start + 5
        wire.now += 0.1
    wire.at(start + 5)
    assert wire.statuses == [408]
    assert [type(refusal) for refusal in wire.refusals] == [RequestTimeout]
    assert wire.transport.is_eof


def test_a_trickled_body_has_the_time_of_one_body():
    wire = Wire(Limits(body_timeout_s=10, min_rate_bytes_s=2))
    start = wire.now
    wire.feed(HEAD_ALONE)
    for _ in range(3):
        assert wire.connection.deadline == start + 10 + 4 / 2
        wire.now += 1
        wire.feed(b"x")
    wire.at(start + 11.9)
    assert wire.transport.sent == b""
    wire.at(start + 12)
    assert wire.statuses == [408]


def test_blank_lines_do_not_keep_a_connection_alive():
    wire = Wire(Limits(head_timeout_s=5, idle_timeout_s=75))
    start = wire.now
    wire.feed(b"\r\n")
    wire.now += 4
    wire.feed(b"\r\n")
    wire.at(start + 5)
    assert wire.transport.is_closing() or wire.transport.is_eof


def test_the_second_request_has_its_own_time():
    wire = Wire(Limits(head_timeout_s=5), answers=True)
    wire.feed(GET[:5])
    wire.now += 4
    wire.feed(GET[5:] + GET[:5])
    assert wire.connection.deadline == wire.now + 5
    wire.now += 4
    wire.feed(GET[5:])
    assert wire.statuses == [202, 202]


def test_a_timeout_behind_an_unanswered_request_is_told_once():
    wire = Wire(Limits(head_timeout_s=5))
    wire.feed(GET + GET[:5])
    wire.at(wire.now + 5)
    wire.at(wire.now + 0.25)
    wire.at(wire.now + 0.25)
    wire.answer(0)
    assert wire.statuses == [202, 408]
    assert len(wire.refusals) == 1


@pytest.mark.parametrize(("start", "rest"), [(LAST[:9], LAST[9:]), (POST[:-1], POST[-1:])])
def test_the_last_request_is_not_timed_out_while_we_work(start, rest):
    wire = Wire(Limits(head_timeout_s=5, body_timeout_s=5))
    wire.feed(start)
    wire.is_draining = True
    wire.feed(rest)
    wire.at(wire.now + 100)
    wire.answer(0)
    assert wire.statuses == [202]
    assert wire.refusals == []


# --- expect ---------------------------------------------------------------------------------------


def test_who_waits_for_100_is_told_once():
    wire = Wire(answers=True)
    wire.feed(WAITS)
    assert wire.transport.sent == CONTINUE
    wire.feed(b"bo")
    assert wire.transport.sent == CONTINUE
    wire.feed(b"dy")
    assert wire.transport.sent.removeprefix(CONTINUE).startswith(b"HTTP/1.1 202 ")
    assert wire.transport.sent.count(CONTINUE) == 1


def test_who_waits_for_100_in_pieces_is_told_once():
    wire = Wire(answers=True)
    wire.feed(*drive.one_by_one(WAITS + b"body"))
    assert wire.transport.sent.count(CONTINUE) == 1
    assert wire.requests[0].body == b"body"


@pytest.mark.parametrize("body", [b"body", b"b"])
def test_who_does_not_wait_for_100_is_not_told(body):
    wire = Wire(answers=True)
    wire.feed(WAITS + body)
    assert CONTINUE not in wire.transport.sent


def test_each_request_that_waits_is_told():
    wire = Wire(answers=True)
    wire.feed(WAITS, b"body", WAITS, b"body")
    assert wire.transport.sent.count(CONTINUE) == 2


def test_who_never_asked_for_100_is_not_told():
    wire = Wire(answers=True)
    wire.feed(WAITS + b"body", HEAD_ALONE)
    assert CONTINUE not in wire.transport.sent


def test_100_does_not_overtake_an_answer():
    wire = Wire()
    wire.feed(GET, WAITS)
    assert wire.transport.sent == b""
    wire.feed(b"body")
    wire.answer(0, 1)
    assert CONTINUE not in wire.transport.sent
    assert wire.bodies == [b"0", b"1"]


def test_100_follows_the_answer_that_it_had_to_wait_for():
    wire = Wire()
    wire.feed(GET, WAITS)
    wire.answer(0)
    assert wire.transport.sent.endswith(CONTINUE)


# --- the last request -----------------------------------------------------------------------------


def test_connection_close_is_answered_in_kind_and_ends_it():
    wire = Wire(answers=True)
    wire.feed(LAST)
    assert wire.statuses == [202]
    assert wire.transport.sent.count(b"Connection: close\r\n") == 1
    assert wire.transport.is_eof


def test_a_connection_that_goes_on_does_not_say_close():
    wire = Wire(answers=True)
    wire.feed(GET)
    assert b"Connection: close" not in wire.transport.sent
    assert not wire.transport.is_eof


@pytest.mark.parametrize("is_late", [False, True])
def test_bytes_behind_the_last_request_are_no_request(is_late):
    wire = Wire(answers=not is_late)
    wire.feed(LAST + GET)
    if is_late:
        wire.answer(0)
    assert wire.statuses == [202, 400]
    assert len(wire.requests) == 1
    assert [type(refusal) for refusal in wire.refusals] == [BadHttp]
    assert wire.transport.is_eof


@pytest.mark.parametrize("is_late", [False, True])
def test_bytes_that_come_after_the_last_request_are_thrown_away(is_late):
    wire = Wire(answers=not is_late)
    wire.feed(LAST, GET, GARBAGE)
    if is_late:
        wire.answer(0)
    assert wire.statuses == [202]
    assert len(wire.requests) == 1


def test_a_refusal_comes_behind_the_answers_that_are_due():
    wire = Wire()
    wire.feed(GET * 2 + GARBAGE, GET)
    assert wire.transport.sent == b""
    wire.answer(1, 0)
    assert wire.statuses == [202, 202, 400]
    assert wire.transport.sent.count(b"Connection: close\r\n") == 1
    assert len(wire.requests) == 2
    assert wire.transport.is_eof


def test_a_refusal_tells_nothing_of_its_reason():
    wire = Wire()
    wire.feed(b"GET /h HTTP/1.1\r\nHost: a@b\r\n\r\n")
    assert wire.bodies == [b"bad request\n"]
    assert "Host" in str(wire.refusals[0])


def test_what_comes_after_a_refusal_is_read_up_to_a_bound_then_reset():
    wire = Wire()
    wire.feed(GARBAGE)
    for _ in range(LINGER_BYTES // KiB):
        wire.feed(bytes(KiB))
    assert not wire.transport.is_aborted
    wire.feed(b"x")
    assert wire.transport.is_aborted


def test_what_comes_after_a_refusal_is_read_for_a_while_then_reset():
    wire = Wire()
    wire.feed(GARBAGE)
    start = wire.now
    wire.now += LINGER_S / 2
    wire.feed(b"more")
    assert wire.connection.deadline == start + LINGER_S
    wire.at(start + LINGER_S)
    assert wire.transport.is_aborted
    assert wire.statuses == [400]


def test_a_paused_connection_reads_on_to_linger():
    wire = Wire()
    wire.feed(GET * (MAX_UNANSWERED - 1) + LAST + GET)
    wire.answer(*range(MAX_UNANSWERED))
    assert wire.transport.is_eof
    assert wire.transport.reads


# --- our own failures -----------------------------------------------------------------------------


def fails_at(failing):
    def on_request(number):
        if number == failing:
            raise RuntimeError("ours")

    return on_request


def test_an_exception_is_told_to_the_owner_and_answered_500():
    wire = Wire()
    wire.on_request = fails_at(0)
    wire.feed(POST + GET)
    assert wire.statuses == [500]
    assert b"ours" not in wire.transport.sent
    assert [str(error) for error in wire.failures] == ["ours"]
    assert len(wire.requests) == 1
    assert wire.transport.is_eof


def test_an_exception_of_the_reader_is_answered_500():
    wire = Wire()
    wire.connection._reader._body_limit = None  # any bug of ours
    wire.feed(b"POST /h HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n\r\n")
    assert wire.statuses == [500]
    assert len(wire.failures) == 1


def test_an_exception_behind_an_unanswered_request_ends_the_connection_there():
    wire = Wire()
    wire.on_request = fails_at(1)
    wire.feed(GET * 3)
    for number in range(len(wire.requests)):
        if number != 1:
            wire.answer(number)
    assert wire.statuses == [202, 500]
    assert len(wire.failures) == 1


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_an_answer_that_closes_is_the_last_one_sent(order):
    wire = Wire()
    wire.feed(GET * 2)
    for number in order:
        wire.connection.answer(number, render(500 + number, closes=True))
    assert wire.statuses == [500]


# --- the client is gone ---------------------------------------------------------------------------


def test_answering_a_client_that_is_gone_is_harmless():
    wire = Wire()
    wire.feed(GET * 3)
    wire.connection.connection_lost(ConnectionResetError())
    wire.answer(1, 0, 2)
    assert wire.transport.sent == b""
    assert not wire.is_open


@pytest.mark.parametrize("count", [2, MAX_UNANSWERED + 2])
def test_answering_on_a_closing_transport_is_harmless(count):
    wire = Wire()
    wire.feed(GET * count)
    wire.transport.abort()
    wire.answer(*range(min(count, MAX_UNANSWERED)))
    wire.connection.connection_lost(None)
    assert wire.transport.sent == b""


def test_a_lost_connection_is_left_alone():
    wire = Wire()
    wire.feed(HEAD_ALONE)
    wire.connection.connection_lost(None)
    wire.at(wire.connection.deadline)
    wire.connection.drain()
    wire.connection.abort()
    assert wire.transport.sent == b""
    assert not wire.transport.is_closing()


def test_a_lost_connection_gives_its_memory_back():
    wire = Wire()
    wire.feed(HEAD_ALONE, b"bo")
    assert wire.budget.used == 2
    wire.connection.connection_lost(None)
    assert wire.budget.used == 0


def test_the_end_of_an_idle_or_unfinished_client_is_the_end():
    for raw in (b"", GET[:9], HEAD_ALONE):
        wire = Wire()
        wire.feed(raw)
        assert not wire.connection.eof_received()
        assert wire.transport.sent == b""


def test_a_half_closed_client_gets_the_answers_that_are_due():
    wire = Wire()
    wire.feed(GET * 2 + GET[:9])
    assert wire.connection.eof_received()
    wire.answer(1, 0)
    assert wire.bodies == [b"0", b"1"]
    assert wire.transport.sent.count(b"Connection: close\r\n") == 1
    assert wire.transport.is_eof


# --- draining -------------------------------------------------------------------------------------


def test_draining_closes_an_idle_connection():
    wire = Wire(answers=True)
    wire.feed(GET)
    wire.connection.drain()
    assert wire.transport.is_closed


def test_draining_finishes_what_was_asked_and_says_close():
    wire = Wire()
    wire.feed(GET * 2)
    wire.is_draining = True
    wire.connection.drain()
    assert not wire.transport.is_closed
    wire.feed(GET)
    wire.answer(0, 1)
    assert len(wire.requests) == 2
    assert wire.bodies == [b"0", b"1"]
    assert wire.transport.sent.count(b"Connection: close\r\n") == 1
    assert wire.transport.is_eof


@pytest.mark.parametrize("cut", [9, len(HEAD_ALONE), len(POST) - 1])
def test_draining_lets_a_request_that_has_begun_come_in(cut):
    wire = Wire(answers=True)
    wire.feed(POST[:cut])
    wire.is_draining = True
    wire.connection.drain()
    assert not wire.transport.is_closing()
    wire.feed(POST[cut:])
    assert wire.statuses == [202]
    assert b"Connection: close\r\n" in wire.transport.sent


def test_draining_does_not_blame_a_client_that_pipelined():
    wire = Wire(answers=True)
    wire.feed(GET[:9])
    wire.is_draining = True
    wire.connection.drain()
    wire.feed(GET[9:] + GET)
    assert 400 not in wire.statuses
    assert wire.refusals == []


def test_idle_is_nothing_asked_nothing_due_nothing_ending():
    wire = Wire()
    assert wire.connection.is_idle
    wire.feed(GET)
    assert not wire.connection.is_idle
    wire.answer(0)
    assert wire.connection.is_idle
    wire.feed(GET[:4])
    assert not wire.connection.is_idle


def test_the_peer_is_an_address_or_unix():
    assert Wire().connection.peer == "192.0.2.1"
    wire = Wire()
    wire.transport.get_extra_info = lambda name: ""
    wire.connection.connection_made(wire.transport)
    assert wire.connection.peer == "unix"


# --- one among many -------------------------------------------------------------------------------


def test_a_flood_on_one_connection_leaves_the_others_their_turn():
    wire = Wire(answers=True)
    wire.connection.data_received(GET * 1000)
    for turn in range(1, 5):
        wire.turn()
        assert len(wire.requests) == MAX_A_TURN * turn
        assert not wire.transport.reads
    while wire.turns:
        wire.turn()
    assert len(wire.requests) == 1000
    assert wire.transport.reads


def test_an_idle_client_that_never_read_its_answers_is_cut_off():
    wire = Wire(Limits(idle_timeout_s=75), answers=True)
    wire.feed(GET)
    wire.transport.unread = 100
    wire.at(wire.now + 75)
    assert wire.transport.is_aborted


def test_what_is_announced_takes_nothing_of_the_budget():
    wire = Wire()
    wire.feed(b"POST /h HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n", b"x" * 10, b"y" * 5)
    assert wire.budget.used == 15
    wire.feed(b"z" * (100_000 - 15))
    assert wire.budget.used == 0
    assert len(wire.requests[0].body) == 100_000


def test_a_flood_whose_connection_ends_between_two_turns_ends_there():
    wire = Wire(answers=True)
    wire.connection.data_received(GET * 100)
    wire.turn()
    wire.transport.abort()
    wire.turn()
    assert len(wire.requests) == MAX_A_TURN
    assert wire.failures == []


# --- between the bytes and the look at them -------------------------------------------------------


def test_what_came_before_the_end_of_the_input_is_still_answered():
    wire = Wire(answers=True)
    wire.connection.data_received(GET)
    wire.connection.eof_received()
    assert wire.statuses == [202]


def test_what_came_before_the_connection_was_lost_is_not_accepted():
    wire = Wire(answers=True)
    wire.connection.data_received(GET)
    wire.connection.connection_lost(None)
    wire.turn()
    assert wire.requests == []


def test_bytes_in_time_are_not_late_because_nobody_looked_at_them_yet():
    wire = Wire(Limits(idle_timeout_s=75), answers=True)
    wire.connection.data_received(GET)
    assert not wire.connection.is_idle
    wire.at(wire.now + 76)
    wire.connection.drain()
    assert not wire.transport.is_closing()
    wire.turn()
    assert wire.statuses == [202]


def test_several_reads_of_a_turn_are_looked_at_once():
    wire = Wire(answers=True)
    wire.connection.data_received(GET[:5])
    wire.connection.data_received(GET[5:] + GET)
    assert len(wire.turns) == 1
    wire.turn()
    assert wire.statuses == [202, 202]
