"""Any text is a trace or a TraceError of one line, and what is written is read back."""

import json

from hypothesis import given
from hypothesis import strategies as st

from headrace.traffic.reader import chained, read_trace
from headrace.traffic.trace import Trace, TraceError, TraceRequest

KEYS = ["timestamp", "input_length", "output_length", "hash_ids", "block_tokens", "session"]
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(-3, 3), max_size=3),
)
PIECES = st.one_of(
    st.dictionaries(st.sampled_from(KEYS), VALUES).map(json.dumps),
    st.sampled_from(
        [
            "TIMESTAMP,ContextTokens,GeneratedTokens",
            "2023-11-16 18:17:03.9799600,4808,10",
            '{"timestamp": 1, "input_length": 5, "output_length": 1}',
            '{"timestamp": 1, "input_length": 5, "output_length": 1, "hash_ids": [1]}',
            "",
        ]
    ),
    st.text(max_size=40),
)


@given(st.lists(PIECES, max_size=6))
def test_any_text_is_a_trace_or_one_clear_line(lines: list[str]):
    told = ""
    try:
        trace = read_trace("t", lines, seed=0)
    except TraceError as error:
        told = str(error)
    else:
        assert trace.requests[0].arrival_s == 0.0
        return
    assert told.startswith("t:")
    assert "expected" in told
    assert "\n" not in told


REQUESTS = st.lists(
    st.tuples(
        st.integers(0, 10_000), st.integers(1, 2000), st.integers(1, 99), st.text(max_size=3)
    ),
    min_size=1,
    max_size=20,
)


@given(REQUESTS)
def test_what_is_written_is_read_back(rows: list[tuple[int, int, int, str]]):
    rows.sort()
    lines = [
        json.dumps(
            {"timestamp": at, "input_length": size, "output_length": out, "session": session}
        )
        for at, size, out, session in rows
    ]
    expected = [
        TraceRequest(float(at - rows[0][0]), size, out, (), session)
        for at, size, out, session in rows
    ]
    assert read_trace("t", lines, seed=0).requests == expected


@given(st.lists(st.lists(st.integers(0, 3), max_size=4).map(tuple), max_size=6))
def test_new_ids_are_equal_exactly_where_prefixes_are(prompts: list[tuple[int, ...]]):
    requests = [TraceRequest(0.0, 64, 1, blocks) for blocks in prompts]
    made = [request.blocks for request in chained(Trace("t", 16, requests)).requests]
    for old, new in zip(prompts, made, strict=True):
        for other_old, other_new in zip(prompts, made, strict=True):
            for end in range(1, min(len(old), len(other_old)) + 1):
                same_prefix = old[:end] == other_old[:end]
                assert (new[end - 1] == other_new[end - 1]) == same_prefix
