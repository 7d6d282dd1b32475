"""Requests are read out of whatever comes, and none that takes long keeps others waiting."""

import asyncio
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from headrace.edges.http.connection import PIPELINE_DEPTH, ClientConnection
from headrace.edges.http.request_reader import BYTES_PER_TURN, RequestReader
from headrace.edges.http.server import HttpServer
from tests.property.test_http_requests import LIMITS, Recorder, Wire

HEAD = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
PLAIN = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n%b"
ROOMY = replace(LIMITS, max_body_bytes=10**7, max_buffered_bytes=10**7)


class Taker:
    """Notes what it is told; others have their turn where `turns` grows."""

    def __init__(self):
        self.close_after = False
        self.bodies: list[bytes] = []
        self.refused: list[str] = []
        self.turns = 0
        self.held = 0

    def judge(self, head):
        return None

    def hold(self, size):
        self.held += size

    def read_on_later(self):
        self.turns += 1

    def begun(self):
        pass

    def take(self, request):
        self.bodies.append(request.body)

    def refuse(self, refusal):
        self.refused.append(refusal.code)
        self.close_after = True


def reader_of(taker: Taker) -> RequestReader:
    return RequestReader(taker, HttpServer(Recorder(), ROOMY))


def tiny_chunks(number: int) -> bytes:
    return b"2\r\nab\r\n" * number + b"0\r\n\r\n"


def test_a_read_of_tiny_chunks_is_taken_in_turns():
    taker = Taker()
    reader = reader_of(taker)
    reader.feed(HEAD + tiny_chunks(37_000))
    most, before, turns = 0, 0, 0
    while not taker.bodies:
        assert taker.turns == turns + 1, "nobody will read on"
        most, before, turns = max(most, taker.held - before), taker.held, taker.turns
        reader.go_on()
    assert taker.bodies == [b"ab" * 37_000]
    assert 0 < most <= BYTES_PER_TURN
    assert not reader.has_unread


def test_a_long_body_of_known_length_takes_one_turn():
    taker = Taker()
    reader_of(taker).feed(PLAIN % (300_000, b"x" * 300_000))
    assert (taker.bodies, taker.turns) == ([b"x" * 300_000], 0)


def test_what_follows_a_long_body_is_taken_in_turns_too():
    taker = Taker()
    reader = reader_of(taker)
    long, short = PLAIN % (40_000, b"x" * 40_000), PLAIN % (0, b"")
    reader.feed(long + HEAD + tiny_chunks(20_000) + short * 2_000)
    assert (taker.bodies, taker.turns) == ([b"x" * 40_000], 1)
    turns = 0
    while reader.has_unread:
        assert not reader.is_between, "a next read would overtake what is left"
        before, turns = len(taker.bodies), turns + 1
        reader.go_on()
        assert len(taker.bodies) - before <= BYTES_PER_TURN // len(short) + 1
    assert taker.turns == turns > 5
    assert taker.bodies[1:] == [b"ab" * 20_000, *[b""] * 2_000]
    assert reader.is_between


def test_what_comes_while_others_have_their_turn_comes_behind():
    taker = Taker()
    reader = reader_of(taker)
    reader.feed(HEAD + b"2\r\nab\r\n" * 10_000)
    reader.feed(tiny_chunks(10_000) + PLAIN % (4, b"next"))
    while reader.has_unread:
        reader.go_on()
    assert taker.bodies == [b"ab" * 20_000, b"next"]


def test_what_is_left_of_a_refused_body_is_let_go():
    taker = Taker()
    reader = reader_of(taker)
    reader.feed(HEAD + b"2\r\nab\r\n" * 10_000 + b"nonsense")
    assert reader.has_unread
    while reader.has_unread and not taker.close_after:
        reader.go_on()
    assert taker.refused == ["bad_http"]
    assert taker.bodies == []


@given(st.data())
def test_the_same_requests_are_read_whatever_the_reads(data):
    sizes = data.draw(st.lists(st.integers(0, 12_000), min_size=1, max_size=4))
    whole = b"".join(
        HEAD + tiny_chunks(size) if size % 2 else PLAIN % (size, b"y" * size) for size in sizes
    )
    cuts = data.draw(st.lists(st.integers(0, len(whole)), max_size=6).map(sorted))
    taker = Taker()
    reader = reader_of(taker)
    for begin, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        reader.feed(whole[begin:end])
        if data.draw(st.booleans()):
            reader.go_on()
    while reader.has_unread:
        reader.go_on()
    assert taker.bodies == [b"ab" * size if size % 2 else b"y" * size for size in sizes]


class Valve(Wire):
    """Notes when reading is stopped and goes on."""

    def __init__(self):
        super().__init__()
        self.said: list[str] = []

    def pause_reading(self):
        self.said.append("pause")

    def resume_reading(self):
        self.said.append("resume")


def connected(handler: Recorder) -> tuple[ClientConnection, Valve]:
    connection, valve = ClientConnection(HttpServer(handler, ROOMY)), Valve()
    connection.connection_made(valve)
    return connection, valve


async def test_nothing_more_is_received_before_what_was_is_read():
    recorder = Recorder()
    connection, valve = connected(recorder)
    connection.data_received(HEAD + tiny_chunks(10_000))
    assert valve.said == ["pause"]
    for _ in range(9):
        await asyncio.sleep(0)
    assert [body for _, body in recorder.seen] == [b"ab" * 10_000]
    assert valve.said == ["pause", "pause", "resume"]


async def test_room_among_the_pipelined_does_not_go_before_what_is_left_to_read():
    class Late(Recorder):
        def handle(self, request, connection):
            self.seen.append((request, b""))

    late = Late()
    connection, valve = connected(late)
    connection.data_received(PLAIN % (0, b"") * 1_000)
    assert "resume" not in valve.said
    answered = 0
    while answered < len(late.seen):
        connection.respond(200, [], b"ok")
        answered += 1
    assert answered > PIPELINE_DEPTH
    assert "resume" not in valve.said
    await asyncio.sleep(0)
    assert len(late.seen) == answered + 1, "what was left is read"
