"""What is looked at later came when it came, and is all there before anything follows from it."""

import asyncio
from typing import Any, cast

import pytest

from headrace.bench.record import Record
from headrace.bench.sending.exchange import Exchange
from headrace.bench.sending.sender import Sender
from headrace.bench.settings import BenchSettings
from headrace.bench.timing import arrival_log
from headrace.bench.timing.arrival_log import (
    HELD_S,
    LARGE_BYTES,
    MOST_HELD,
    MUCH_HELD,
    ArrivalLog,
    LoggedConnection,
)
from headrace.edges.http.address import Address
from headrace.edges.http.client import UpstreamCall, UpstreamPool
from headrace.traffic.length_classes import parse_lengths
from headrace.traffic.load import Load
from tests.unit.bench.exchanges import Host, chunk, event, opening
from tests.unit.bench.runs import load_of, target_at

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
FRAMED_END = b"0\r\n\r\n"


class Wire:
    """A transport that swallows everything."""

    def write(self, data: bytes) -> None:
        """Nobody reads it."""

    def is_closing(self) -> bool:
        """Never."""
        return False

    def resume_reading(self) -> None:
        """It never pauses."""

    def abort(self) -> None:
        """It goes on."""


class Stream:
    """One exchange on a connection with a log, on a clock of the test's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        self.now_s = 100.0
        self.faults: list[BaseException] = []
        monkeypatch.setattr(arrival_log, "monotonic", lambda: self.now_s)
        self.host = Host()
        self.log = self.host.log = ArrivalLog(may_hold=True, fail=self.faults.append)
        self.log.begin()
        pool, address = UpstreamPool(max_idle=1, idle_s=60.0), Address.parse("http://127.0.0.1:1")
        self.connection = LoggedConnection(self.log, pool, address)
        self.connection.connection_made(cast("asyncio.Transport", Wire()))
        given = BenchSettings("http://x", **settings)
        self.exchange = Exchange(self.host, given, Record(0), leave_after=0)
        call = self.exchange.call = UpstreamCall(pool, address, [b"x"], self.exchange)
        call.connection = self.connection
        self.connection.start(call)

    def comes(self, at_s: float, data: bytes) -> None:
        """A read at this time."""
        self.now_s = at_s
        self.connection.data_received(data)


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Stream:
    return Stream(monkeypatch)


def test_an_answer_that_is_looked_at_later_came_when_it_came(stream: Stream):
    stream.comes(100.1, HEAD + chunk(opening()))
    stream.comes(100.2, chunk(event("water")))
    stream.comes(100.3, chunk(event(" runs")))
    stream.comes(100.4, chunk(event(" on")) + chunk(b"data: [DONE]\n\n") + FRAMED_END)
    assert stream.log.reads == 4
    assert not stream.exchange.over
    stream.now_s = 109.0
    stream.log.look()
    record = stream.exchange.record
    assert stream.exchange.over
    assert (record.status, record.error, record.chunks) == (200, "", 3)
    assert (record.first_token_s, record.last_token_s, record.ended_s) == (100.2, 100.4, 100.4)
    assert list(record.itl_s) == pytest.approx([0.1, 0.1])
    assert stream.log.reads == 4
    assert stream.log.now() == 109.0


@pytest.mark.parametrize(
    ("last", "error", "chunks"),
    [
        (event(" runs") + b"data: [DONE]\n\n", "", 2),
        (event(" runs") + b'data: {"error":{"message":"no"}}\n\n', "stream_error", 2),
        (event(" runs") + event("m" * 600), "too_large", 2),  # one event
        (event("runs") * 100, "too_large", 1),  # the answer
    ],
)
def test_so_did_one_that_ends_badly(
    last: bytes, error: str, chunks: int, monkeypatch: pytest.MonkeyPatch
):
    stream = Stream(monkeypatch, max_event_bytes=500, max_answer_bytes=2000)
    stream.comes(100.0, HEAD + chunk(event("water")))
    stream.comes(101.0, chunk(last) + FRAMED_END)
    stream.now_s = 102.0
    stream.log.look()
    record = stream.exchange.record
    assert (record.error, record.chunks, record.ended_s) == (error, chunks, 101.0)
    assert record.last_token_s == (101.0 if chunks > 1 else 100.0)


def test_a_lost_connection_is_told_after_what_came_before(stream: Stream):
    stream.comes(100.0, HEAD + chunk(event("water")))
    stream.comes(100.5, chunk(event(" runs")))
    stream.now_s = 101.0
    stream.connection.connection_lost(None)
    record = stream.exchange.record
    assert (record.error, record.chunks, record.ended_s) == ("cut", 2, 101.0)


def test_it_is_due_by_age_or_by_number(stream: Stream):
    log = stream.log
    assert not log.is_due(100.0, has_time=True)
    stream.comes(100.0, HEAD + chunk(event("water")))
    assert not log.is_due(100.0 + HELD_S / 2, has_time=True)
    assert log.is_due(100.0 + 2 * HELD_S, has_time=True)
    assert not log.is_due(100.0 + 2 * HELD_S, has_time=False)
    due = [False, True]
    for number in range(2, MOST_HELD + 1):
        stream.comes(100.0, chunk(event("water")))
        assert log.is_due(100.0, has_time=True) is due[number >= MUCH_HELD]
        assert log.is_due(100.0, has_time=False) is due[number >= MOST_HELD]


def test_a_fault_of_ours_keeps_none_of_the_other_reads(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
):
    passes = Exchange.passes

    def failing(self: Exchange, data: bytes) -> bool:
        if b"fault" in data:
            raise RuntimeError("ours")
        return passes(self, data)

    monkeypatch.setattr(Exchange, "passes", failing)
    for text in ("water", " runs", "fault", " on"):
        stream.comes(100.0, HEAD + chunk(event(text)) if text == "water" else chunk(event(text)))
    stream.log.look()
    assert [str(fault) for fault in stream.faults] == ["ours"]
    assert stream.host.tokens_out == 3


def test_large_reads_are_not_held(stream: Stream):
    stream.comes(100.0, HEAD + chunk(event("water")))
    stream.comes(100.5, chunk(event("m" * LARGE_BYTES)))
    assert not stream.log.held
    assert stream.exchange.record.status == 200
    assert stream.host.tokens_out == 2


def test_the_end_of_holding_leaves_nothing_behind(stream: Stream):
    stream.comes(100.0, HEAD + chunk(event("water")))
    stream.log.end()
    assert stream.host.tokens_out == 1
    stream.comes(100.1, chunk(event(" runs")))
    assert stream.host.tokens_out == 2
    assert stream.log.reads == 2


@pytest.mark.parametrize(
    ("load", "holds"),
    [
        (load_of(9), True),
        (load_of(9, leave_share=0.1), False),  # who leaves, leaves at a token
        (Load.closed(2, parse_lengths("16/4"), seed=1), False),  # a user's next request waits
    ],
)
async def test_nothing_is_held_where_something_waits_for_it(load: Load, holds: bool):
    sender = Sender(target_at("http://127.0.0.1:1"), load, worker=0, workers=1)
    sender.log.begin()
    assert (sender.log.held is not None) is holds
