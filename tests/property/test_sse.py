"""However a stream is cut on the wire, its events come out the same and no byte is lost."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.engines.fragment import Fragment
from headrace.engines.sse import SseSplitter, event_data

LINE_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
WORDS = st.sampled_from([b"", b"data: {}", b"event: x", b": comment", b"data: a b", b"id"])
STREAMS = st.lists(st.tuples(WORDS, LINE_ENDS), max_size=30).map(
    lambda lines: b"".join(word + end for word, end in lines)
)


def events_of(pieces: list[bytes], max_event_bytes: int = 4096) -> list[bytes]:
    splitter = SseSplitter(max_event_bytes)
    events = [event for piece in pieces for event in splitter.feed(piece)]
    return [*events, rest] if (rest := splitter.flush()) else events


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:stop] for start, stop in pairwise(edges)]


@given(stream=STREAMS, places=st.lists(st.integers(0, 10_000), max_size=20))
def test_cuts_make_no_difference(stream: bytes, places: list[int]):
    pieces = cut(stream, places)
    events = events_of(pieces)
    assert b"".join(events) == stream
    assert events == events_of([stream])
    assert events == events_of([stream[i : i + 1] for i in range(len(stream))])


@given(stream=STREAMS)
def test_an_event_is_lines_up_to_the_first_empty_one(stream: bytes):
    """The same told by lines, as the specification has it."""
    events, event, content = [], b"", False
    for line in re.findall(rb"[^\r\n]*(?:\r\n|\n|\r)", stream):
        event += line
        is_empty = not line.strip(b"\r\n")
        if is_empty and (content or event != line):
            events.append(event)
            event, content = b"", False
        else:
            content = content or not is_empty
    assert events_of([stream]) == ([*events, event] if event else events)


@given(stream=STREAMS, places=st.lists(st.integers(0, 10_000), max_size=20))
def test_memory_is_bounded_and_nothing_is_lost(stream: bytes, places: list[int]):
    splitter = SseSplitter(max_event_bytes=12)
    relayed: list[bytes] = []
    for piece in cut(stream, places):
        relayed += splitter.feed(piece)
        assert len(splitter._held) <= 12
    assert b"".join(relayed) + splitter.flush() == stream
    assert all(type(event) is Fragment for event in relayed if len(event) > 12)


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
def test_after_an_oversized_event_reading_goes_on(end: bytes):
    splitter = SseSplitter(max_event_bytes=50)
    relayed = [e for _ in range(20) for e in splitter.feed(b"data: xxxx")]
    relayed += splitter.feed(end + b"data: short" + end + b":")
    assert relayed[-1] == b"data: short" + end
    assert type(relayed[-1]) is bytes
    assert all(type(piece) is Fragment for piece in relayed[:-1])
    assert b"".join(relayed[:-1]) == b"data: xxxx" * 20 + end


def test_an_event_that_arrives_whole_is_not_copied():
    data = b'data: {"choices":[]}\n\n'
    assert SseSplitter().feed(data)[0] is data


@pytest.mark.parametrize(
    ("event", "payload"),
    [
        (b"data: {}\n\n", b"{}"),
        (b"data:{}\r\n\r\n", b"{}"),
        (b"event: x\ndata: {}\n\n", b"{}"),
        (b"data: a\ndata: b\n\n", b"a\nb"),
        (b"data: a\rdata: b\n\n", b"a\nb"),
        (b": comment\n\n", b""),
        (b"data:  two\n\n", b" two"),
    ],
)
def test_payload(event: bytes, payload: bytes):
    assert event_data(event) == payload


@given(stream=STREAMS, places=st.lists(st.integers(0, 10_000), max_size=20))
def test_it_tells_whether_what_came_ends_within_an_event(stream: bytes, places: list[int]):
    splitter = SseSplitter()
    came = went = b""
    for piece in cut(stream, places):
        came += piece
        went += b"".join(splitter.feed(piece))
        assert splitter.is_within_event == (went != came)
