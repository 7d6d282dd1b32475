"""What one message leaves on a connection that is kept, or on a table that all share, is known."""

from headrace.edges.http.client import UpstreamPool
from headrace.edges.http.heads import length_line
from headrace.edges.http.known_heads import KnownHeads
from headrace.edges.http.pieces import Pieces
from tests.property.test_http_requests import Wire
from tests.property.test_upstream_chunks import Sink, begin

ANSWER = b"HTTP/1.1 200 OK\r\nserver: x\r\ncontent-length: %d\r\n\r\n"


class Valve(Wire):
    def __init__(self):
        super().__init__()
        self.open = True

    def pause_reading(self):
        self.open = False

    def resume_reading(self):
        self.open = True


def test_a_call_that_was_paused_at_its_last_bytes_leaves_no_deaf_connection():
    pool = UpstreamPool(max_idle=1, idle_s=1e12)
    connection, valve = begin(Sink(), pool), Valve()
    connection.transport = valve
    call = connection.call
    assert call is not None
    call.pause()
    assert not valve.open
    connection.data_received(ANSWER % 2 + b"ok")
    assert valve.open
    assert pool.take_idle(connection.address, 0.0) is connection


def test_a_known_head_needs_no_parser():
    pool = UpstreamPool(max_idle=2, idle_s=1e12)
    first, second = begin(Sink(), pool), begin(Sink(), pool)
    first.data_received(ANSWER % 2 + b"ok")
    assert first._parser is not None
    second.data_received(ANSWER % 3 + b"not")
    assert second._parser is None
    assert pool.take_idle(second.address, 0.0) is second


def test_a_known_head_is_found_with_any_length_that_is_true():
    heads: KnownHeads[str] = KnownHeads()
    heads.keep(ANSWER % 2 + b"ok", "known")
    for size in (2, 9, 10, 99, 100, 5, 12_345, 9_999, 1, 12_345, 0):
        head = ANSWER % size
        assert heads.match(head + b"x" * size) == ("known", len(head))
        assert heads.match(head + b"x" * (size + 1)) is None


def test_no_length_but_digits_is_taken_for_one():
    heads: KnownHeads[str] = KnownHeads()
    heads.keep(ANSWER % 12 + b"x" * 12, "known")
    before, after = (ANSWER % 12).split(b"12")
    for told in (
        b"12",
        b"012",
        b"+2",
        b"-2",
        b" 2",
        b"2 ",
        b"1_2",
        b"0x2",
        b"",
        b"\xb2\xb2",
        b"2\r",
    ):
        found = heads.match(before + told + after + b"x" * 12)
        assert (found is not None) == (told in {b"12", b"012"}), told


def test_bodies_that_have_not_begun_share_nothing_with_those_that_have():
    one, other = Pieces(), Pieces()
    one.add(b"a")
    other.add(b"b")
    assert (one.take(), other.take(), one.take(), Pieces().take()) == ([b"a"], [b"b"], [], [])


def test_a_length_is_written_out_alike_each_time():
    for length in (0, 7, 8191, 8192, 10**9):
        assert length_line(length) == length_line(length) == b"content-length: %d\r\n\r\n" % length
