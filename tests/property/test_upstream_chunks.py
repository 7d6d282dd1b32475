"""Streams of chunks, cut anywhere on the wire: the body is the same, and the end is seen."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.edges.http.address import Address
from headrace.edges.http.chunks import chunk_start, whole_chunks
from headrace.edges.http.client import UpstreamPool
from headrace.edges.http.ports import AnswerHead
from headrace.edges.http.upstream_connection import UpstreamConnection
from tests.property.test_http_requests import Wire

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Sink:
    def __init__(self) -> None:
        self.body = b""
        self.alone = 0
        self.ends: list[str] = []

    def answer_head(self, head: AnswerHead) -> None:
        self.status, self.headers = head.status, head.headers

    def answer_body(self, data: bytes) -> None:
        self.body += data

    def answer_chunk(self, chunk: bytes, start: int) -> None:
        self.alone += 1
        self.body += chunk[start:-2]

    def answer_flush(self) -> None:
        pass

    def answer_complete(self, framed: bool) -> None:
        self.ends.append(f"complete {framed}")

    def answer_whole(self, head: AnswerHead, body: bytes) -> None:
        self.answer_head(head)
        self.answer_body(body)
        self.answer_complete(framed=True)

    def answer_failed(self, reason: str) -> None:
        self.ends.append(reason)

    def answer_cut(self, reason: str) -> None:
        self.ends.append(f"cut: {reason}")


def begin(sink: Sink, pool: UpstreamPool) -> UpstreamConnection:
    address = Address("127.0.0.1", 1, b"127.0.0.1:1")
    connection = UpstreamConnection(pool, address)
    connection.connection_made(Wire())
    pool._idle[address] = [connection]
    connection.idle_since_s = float("inf")
    pool.open(address, [b"GET / HTTP/1.1\r\n\r\n"], sink)
    return connection


def framed(chunk: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(chunk), chunk)


# Bytes that look like framing.
pieces = st.lists(
    st.lists(st.sampled_from([b"a", b"\r\n", b"0", b"5\r\n", b"\n\n", b"data: x"]), min_size=1).map(
        b"".join
    ),
    max_size=8,
)


@settings(max_examples=300)
@given(pieces, st.lists(st.integers(0, 200), max_size=4), st.booleans(), st.booleans())
def test_the_body_is_the_same_however_it_is_cut(chunks, cuts, by_chunk, is_known):
    pool = UpstreamPool(max_idle=1, idle_s=10.0)
    if is_known:
        begin(Sink(), pool).data_received(HEAD)
    sink = Sink()
    connection = begin(sink, pool)
    reads = [HEAD, *map(framed, chunks), b"0\r\n\r\n"]
    if not by_chunk:
        whole = b"".join(reads)
        edges = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
        reads = [whole[a:b] for a, b in pairwise(edges) if a < b]
    for data in reads:
        connection.data_received(data)
    assert sink.body == b"".join(chunks)
    assert sink.status == 200
    assert sink.ends == ["complete True"]
    assert connection.call is None
    if by_chunk and len(chunks) > 1:
        assert sink.alone >= len(chunks) - 1, "the fast way was not taken"


@settings(max_examples=300)
@given(
    pieces,
    st.integers(0, 6),
    st.sampled_from([b"zz\r\n", b"+1\r\na\r\n", b"1_0\r\n", b"0x1\r\na\r\n", b"1;\0"]),
    st.booleans(),
)
def test_what_is_no_chunk_fails_the_answer(chunks, at, damage, is_known):
    pool = UpstreamPool(max_idle=1, idle_s=10.0)
    if is_known:
        begin(Sink(), pool).data_received(HEAD)
    sink = Sink()
    connection = begin(sink, pool)
    reads = list(map(framed, chunks))
    reads.insert(min(at, len(reads)), damage)
    for data in [HEAD, *reads, b"0\r\n\r\n"]:
        if connection.call is not None:
            connection.data_received(data)
    assert len(sink.ends) == 1
    assert "not valid HTTP" in sink.ends[0]


@settings(max_examples=300)
@given(st.binary(max_size=40))
def test_only_one_whole_chunk_is_taken_for_one(data):
    start = chunk_start(data)
    if start:
        assert data == b"%b\r\n%b\r\n" % (data[: start - 2], data[start:-2])
        assert int(data[: start - 2], 16) == len(data[start:-2]) > 0


@settings(max_examples=300)
@given(pieces, st.booleans(), st.binary(max_size=4))
def test_only_whole_chunks_are_taken_for_whole_chunks(chunks, ends, behind):
    data = b"".join(map(framed, chunks)) + b"0\r\n\r\n" * ends
    expected = chunks + [b""] * ends
    assert whole_chunks(data) == (expected or None)
    found = whole_chunks(data + behind)
    assert found is None or b"".join(map(framed, found)).lower() == (data + behind).lower()


@settings(max_examples=100)
@given(st.sampled_from([b"x: y\r\n\r\n", b"\r\nHTTP/1.1 200 OK\r\n", b"\r"]))
def test_a_last_chunk_with_something_behind_it_is_for_the_parser(behind):
    assert whole_chunks(framed(b"a") + b"0\r\n" + behind) is None


def test_the_head_of_a_stream_is_known_only_byte_for_byte():
    pool = UpstreamPool(max_idle=1, idle_s=10.0)
    begin(Sink(), pool).data_received(HEAD + b"1\r\na\r\n")
    assert pool.stream_head.match(HEAD) is not None
    assert pool.stream_head.match(HEAD[:-1]) is None
    for odd in (
        b"content-length: 3",
        b"connection: close",
        b"trailer: x",
        b"transfer-encoding: gzip",
    ):
        other = UpstreamPool(max_idle=1, idle_s=10.0)
        head = HEAD[:-2] + odd + b"\r\n\r\n"
        begin(Sink(), other).data_received(head)
        assert other.stream_head.match(head) is None


def test_a_stream_of_a_known_head_leaves_its_connection_for_the_next():
    pool = UpstreamPool(max_idle=1, idle_s=10.0)
    begin(Sink(), pool).data_received(HEAD)
    sink = Sink()
    connection = begin(sink, pool)
    for data in (HEAD + framed(b"a"), framed(b"b"), framed(b"c") + b"0\r\n\r\n"):
        connection.data_received(data)
    assert (sink.body, sink.ends) == (b"abc", ["complete True"])
    assert pool.take_idle(connection.address, 0.0) is connection
    sink = Sink()
    connection.idle_since_s = float("inf")
    pool._idle[connection.address] = [connection]
    pool.open(connection.address, [b"GET / HTTP/1.1\r\n\r\n"], sink)
    for data in (HEAD, b"1\r", b"\na\r\n0\r\n\r\n"):  # from the cut on, the parser reads
        connection.data_received(data)
    assert (sink.body, sink.ends) == (b"a", ["complete True"])


ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"


def test_a_connection_on_which_another_answer_has_begun_is_not_used_again():
    sink, pool = Sink(), UpstreamPool(max_idle=1, idle_s=10.0)
    connection = begin(sink, pool)
    connection.data_received(ANSWER + b"HTTP/1.1 200 OK\r\nx: ")
    assert sink.ends == ["complete True"]
    assert sink.body == b"hi"
    assert pool.take_idle(connection.address, 0.0) is None


@pytest.mark.parametrize("surplus", [ANSWER, ANSWER[:20], b"what?", b"0\r\n\r\n"])
@pytest.mark.parametrize("before", [HEAD, HEAD + framed(b"a")])
@pytest.mark.parametrize("is_together", [True, False])
def test_what_is_behind_a_stream_of_a_known_head_reaches_no_other_call(
    surplus, before, is_together
):
    pool = UpstreamPool(max_idle=1, idle_s=10.0)
    begin(Sink(), pool).data_received(HEAD)
    sink = Sink()
    connection = begin(sink, pool)
    end = framed(b"b") + b"0\r\n\r\n"
    for data in (before + end + surplus,) if is_together else (before, end + surplus):
        connection.data_received(data)
    assert sink.body.endswith(b"b")
    (ended,) = sink.ends
    if surplus.startswith(b"HTTP/"):
        assert ended == "complete True"
    else:
        assert "not valid HTTP" in ended
    assert pool.take_idle(connection.address, 0.0) is None
    wire = connection.transport
    assert isinstance(wire, Wire)
    assert wire.closed
    connection.data_received(surplus)  # read before it was closed
    assert sink.ends == [ended]


def test_what_comes_after_a_stream_of_a_known_head_closes_its_connection():
    pool = UpstreamPool(max_idle=1, idle_s=10.0)
    begin(Sink(), pool).data_received(HEAD)
    sink = Sink()
    connection = begin(sink, pool)
    connection.data_received(HEAD + framed(b"a") + b"0\r\n\r\n")
    connection.data_received(ANSWER)
    assert (sink.body, sink.ends) == (b"a", ["complete True"])
    assert pool.take_idle(connection.address, 0.0) is None


@pytest.mark.parametrize(
    "reads",
    [
        [HEAD + framed(b"a") + b"0\r\n\r\n"],
        [HEAD, framed(b"a") + b"0\r\n\r\n"],
        [HEAD, framed(b"a")[:2], framed(b"a")[2:] + b"0\r\n\r\n"],  # the parser reads
        [ANSWER],
    ],
)
@pytest.mark.parametrize("is_known", [True, False])
def test_who_fails_at_an_end_is_told_and_the_next_call_on_the_connection_is_not(reads, is_known):
    class Failing(Sink):
        """Lets the next call go out as the gateway does, and then fails."""

        def answer_complete(self, framed):
            pool.open(connection.address, [b"next"], after)
            raise RuntimeError("ours")

    pool = UpstreamPool(max_idle=1, idle_s=10.0)
    if is_known:
        begin(Sink(), pool).data_received(ANSWER if reads == [ANSWER] else HEAD)
    sink, after = Failing(), Sink()
    connection = begin(sink, pool)
    for data in reads:
        connection.data_received(data)
    assert sink.ends == ["cut: the gateway failed to handle the answer"]
    wire = connection.transport
    assert isinstance(wire, Wire)
    assert not wire.closed
    assert wire.written.count(b"next") == 1
    connection.data_received(ANSWER)
    assert (after.body, after.ends) == (b"hi", ["complete True"])
