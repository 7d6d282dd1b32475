"""A body's pieces are few, whatever the chunks that it came in."""

import asyncio
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from headrace.edges.http.connection import ClientConnection
from headrace.edges.http.pieces import PIECE_BYTES, Pieces
from headrace.edges.http.server import HttpServer
from tests.property.test_http_requests import LIMITS, Recorder, Wire

sizes = st.sampled_from([1, 2, 100, PIECE_BYTES - 1, PIECE_BYTES, 3 * PIECE_BYTES])


@given(st.lists(st.lists(sizes, max_size=40), max_size=3))
def test_nothing_is_lost_and_no_two_short_ones_follow_each_other(bodies):
    pieces = Pieces()
    for body in bodies:
        came = [bytes([number % 256]) * size for number, size in enumerate(body)]
        for piece in came:
            pieces.add(piece)
        taken = pieces.take()
        assert b"".join(taken) == b"".join(came)
        assert len(taken) <= 2 * sum(body) // PIECE_BYTES + 2


def test_a_single_piece_is_not_copied():
    pieces, piece = Pieces(), b"a body"
    pieces.add(piece)
    assert pieces.take()[0] is piece


async def test_a_body_in_chunks_of_two_bytes_reaches_the_handler_in_few_pieces():
    body = b"ab" * 50_000
    chunks = b"2\r\nab\r\n" * 50_000
    counts: list[int] = []

    class Counter(Recorder):
        def handle(self, request, connection):
            counts.append(len(request.pieces))
            super().handle(request, connection)

    counter = Counter()
    limits = replace(LIMITS, max_body_bytes=len(body), max_buffered_bytes=len(body))
    connection = ClientConnection(HttpServer(counter, limits))
    connection.connection_made(Wire())
    head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    connection.data_received(head + chunks + b"0\r\n\r\n")
    while not counter.seen:
        await asyncio.sleep(0)
    ((_, seen),) = counter.seen
    assert seen == body
    assert counts[0] < 10
