"""The load generator reads what real engines sent: their tokens, their usage, their first token."""

from __future__ import annotations

import pytest

from headrace.bench.record import Record
from headrace.bench.sending.exchange import Exchange
from headrace.bench.settings import BenchSettings
from headrace.core.model import Endpoint
from headrace.edges.http.ports import AnswerHead
from headrace.engines.registry import DIALECTS, dialect
from tests.conformance.captures import Capture, all_of
from tests.unit.bench.exchanges import Host

STREAMS = [
    capture
    for name in sorted(DIALECTS)
    for capture in all_of(name)
    if capture.streamed
    and capture.status == 200
    and capture.endpoint in {Endpoint.CHAT, Endpoint.COMPLETIONS}
    # Several answers to one request, with a usage for each: we never ask for that.
    and not {"list", "n2"} & set(capture.name.split("-"))
]
HEAD = AnswerHead(200, [(b"content-type", b"text/event-stream")])


class Watching(Host):
    """Remembers after which event the first token came."""

    def __init__(self) -> None:
        super().__init__()
        self.events = 0
        self.first_at = 0

    def first_token(self, exchange: Exchange) -> None:
        self.first_at = self.events


@pytest.mark.parametrize("capture", STREAMS, ids=str)
def test_a_real_stream_is_read_as_its_dialect_reads_it(capture: Capture):
    host = Watching()
    exchange = Exchange(host, BenchSettings("http://x"), Record(0), leave_after=0)
    exchange.answer_head(HEAD)
    reader = dialect(capture.dialect).stream_reader(capture.endpoint)
    first_at = 0
    for event in capture.events:
        host.events += 1
        framed = b"%x\r\n%b\r\n" % (len(event), event)
        exchange.answer_chunk(framed, framed.index(b"\r\n") + 2)
        reader.feed(event)
        if reader.content_chunks and not first_at:
            first_at = host.events
    exchange.answer_complete(framed=True)
    record = exchange.record
    assert record.error == ""
    assert (record.chunks, host.first_at) == (reader.content_chunks, first_at)
    usage = reader.usage
    assert record.tokens_exact == (usage is not None)
    if usage is not None:
        assert (record.input_tokens, record.output_tokens) == (
            usage.input_tokens,
            usage.output_tokens,
        )


def test_there_is_something_to_read():
    assert len(STREAMS) > 10
    assert len({capture.dialect for capture in STREAMS}) > 4
