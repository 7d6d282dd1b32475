"""Chunks that differ from one read before in nothing but words pass; all others are read."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headrace.core.model import Endpoint
from headrace.engines.registry import dialect
from headrace.gateway.relay import StreamRelay
from headrace.gateway.steady import Steady
from headrace.gateway.telemetry import Telemetry, TelemetrySettings


def chunk(event: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(event), event)


def event(words: bytes, rest: bytes = b"") -> bytes:
    return b'data: {"id":"a","choices":[{"delta":{"content":"%b"}}]%b}\n\n' % (words, rest)


class Stream:
    """A stream whose first token has come."""

    def __init__(self, first: bytes | None = b" the") -> None:
        telemetry = Telemetry(TelemetrySettings(), lambda: 0.0)
        self.meter = telemetry.begin(
            "m", "p", "p-0", attempt=1, received_s=0.0, streamed=True, endpoint=Endpoint.CHAT
        )
        self.relay = StreamRelay(dialect("vllm").stream_reader(Endpoint.CHAT), self.meter, 1 << 20)
        self.relay.feed(event(b"A"), 0.5)
        self.sent: list[bytes] = []
        self.steady = Steady(self.relay, self.meter, self.sent.append)
        if first is not None:
            assert self.steady.passes(chunk(event(first)), 4)


def test_an_event_with_other_words_passes_once_one_was_read():
    stream = Stream(first=None)
    assert not stream.steady.takes(chunk(event(b" the")))
    assert stream.steady.passes(chunk(event(b" the")), 4)
    assert stream.steady.takes(chunk(event(" größer, \u200b 早い".encode())))
    assert stream.sent == [chunk(event(b" the")), chunk(event(" größer, \u200b 早い".encode()))]


@pytest.mark.parametrize(
    "other",
    [
        chunk(event(b"")),
        chunk(event(rb"\n")),
        chunk(event(b'"},"usage":{"a":"b')),
        chunk(event(b"a\n\ndata: b")),
        chunk(event(b"a\rb")),
        chunk(event(b" the", b',"usage":null')),
        chunk(event(b" the").replace(b'"id":"a"', b'"id":"b"')),
        chunk(event(b" the"))[:-1],
        b"0" + chunk(event(b" the")),
        chunk(event(b" the")).replace(b"\r\n", b";x\r\n", 1),
        chunk(event(b" the")) + chunk(event(b"")),
        chunk(event(b" the")) + chunk(event(rb"\n")) + chunk(event(b" the")),
        chunk(event(b" the")) + chunk(event(b" the"))[:-1],
        b"0" + chunk(event(b" the")) + chunk(event(b" the")),
        chunk(event(b" the")) + b"\r\n" + chunk(event(b" the")),
        chunk(event(b" the")) + b"0\r\n\r\n",
        chunk(event(b" the")) + chunk(event(b" the", b',"usage":null')),
        b"%x\r\n%b\r\n" % (len(event(b" the")) - 1, event(b" the")),
        b"0\r\n\r\n",
        b"",
    ],
)
def test_whatever_else_differs_is_read(other):
    stream = Stream()
    assert not stream.steady.takes(other)
    assert len(stream.sent) == 1


@given(st.text(max_size=40))
@example('\\"')
@example("\n\n")
@example("]")
def test_what_passes_is_one_event_with_content_for_the_reader_too(words):
    passing, read = Stream(), Stream()
    if passing.steady.takes(chunk(event(words.encode()))):
        assert passing.sent[-1] == chunk(event(words.encode()))
        assert read.relay.feed(event(words.encode()), 2.0) == event(words.encode())
        assert passing.meter.estimated_output_tokens == read.meter.estimated_output_tokens == 3


def test_after_anything_else_the_next_chunk_is_read():
    stream = Stream()
    assert stream.steady.read(b": ping\n\n", 1.0) == b": ping\n\n"
    assert not stream.steady.takes(chunk(event(b" the")))
    assert stream.steady.passes(chunk(event(b" the")), 4)
    assert stream.steady.takes(chunk(event(b" the")))


def test_a_stream_whose_events_are_never_alike_is_read_to_its_end():
    stream = Stream(first=None)
    for number in range(20):
        other = chunk(event(b" the", b',"n":%02d' % number))
        assert not stream.steady.takes(other)
        assert stream.steady.passes(other, 4)
    assert not stream.steady.takes(chunk(event(b" the", b',"n":19')))


@pytest.mark.parametrize("number", [2, 3, 40])
def test_several_that_came_in_one_read_pass_as_one_chunk_as_if_they_were_read(number: int):
    words = [b" the", b"a", "größer".encode()]
    events = [event(words[at % len(words)]) for at in range(number)]
    stream, read = Stream(), Stream()
    before = read.meter.estimated_output_tokens
    assert stream.steady.takes(b"".join(map(chunk, events)))
    assert stream.sent[1:] == [chunk(b"".join(events))]
    assert read.relay.feed(b"".join(events), 2.0) == b"".join(events)
    assert stream.meter.estimated_output_tokens == read.meter.estimated_output_tokens
    assert stream.meter.estimated_output_tokens == before + number
    assert stream.meter._series.itl.counts[0] >= number - 1
    assert stream.steady.takes(chunk(event(b" more")))


def test_what_only_ever_comes_together_is_read_once_and_passes_then():
    stream = Stream(first=None)
    pair = chunk(event(b" the")) + chunk(event(b" end"))
    assert not stream.steady.takes(pair)
    for words in (b" the", b" end"):
        assert stream.steady.read(event(words), 1.0) == event(words)
    assert stream.steady.takes(pair)
    assert stream.meter.estimated_output_tokens == 5


@pytest.mark.parametrize(
    "other", [event(b""), event(b" the", b',"usage":{}'), b"data: [DONE]\n\n", event(b" the")[:-1]]
)
def test_what_came_with_others_and_is_not_ordinary_is_read_in_full(other: bytes):
    stream, read = Stream(), Stream()
    assert stream.steady.read(other, 1.0) == read.relay.feed(other, 1.0)
    assert not stream.steady.takes(chunk(event(b" the")))
    assert stream.relay.done == read.relay.done
    assert stream.meter.estimated_output_tokens == read.meter.estimated_output_tokens


def test_what_passed_is_counted_before_anybody_looks():
    stream = Stream()
    for _ in range(9):
        assert stream.steady.takes(chunk(event(b" the")))
    latest_s = stream.meter.latest_s
    assert stream.meter.estimated_output_tokens == 11
    assert (stream.meter.chunks, stream.meter.last_s) == (11, latest_s)
    series = stream.meter._series
    assert series.itl.count == 10
    assert series.itl.total == pytest.approx(latest_s - 0.5)
