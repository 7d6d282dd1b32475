"""What is read from each format, from small files and from the published ones."""

import json
from collections import Counter
from itertools import pairwise
from random import Random

import pytest

from headrace.traffic.reader import read_trace
from headrace.traffic.shape import summarise
from headrace.traffic.trace import Trace, TraceRequest
from tests.unit.traffic.real_traces import FOLDER, real_trace


def read(*records: object, seed: int = 1) -> Trace:
    return read_trace("t.jsonl", [json.dumps(record) + "\n" for record in records], seed=seed)


def mooncake(timestamp: float, input_length: int = 600, **more: object) -> dict[str, object]:
    ids = list(range(-(-input_length // 512)))
    return {
        "timestamp": timestamp,
        "input_length": input_length,
        "output_length": 7,
        "hash_ids": ids,
    } | more


def stepped(count: int, per_step: int, step_ms: int = 3000) -> list[dict[str, object]]:
    return [mooncake(step_ms * (index // per_step)) for index in range(count)]


def test_mooncake_is_in_milliseconds_and_keeps_full_blocks():
    trace = read(mooncake(500, 1024), mooncake(1500, 1025, session="chat-1"))
    assert trace.block_tokens == 512
    assert list(trace.requests) == [
        TraceRequest(0.0, 1024, 7, (0, 1)),
        TraceRequest(1.0, 1025, 7, (0, 1), "chat-1"),
    ]
    assert trace.notes == ()


def test_ids_of_full_blocks_alone_are_enough():
    assert read(mooncake(0, 1030, hash_ids=[4, 5])).requests[0].blocks == (4, 5)


@pytest.mark.parametrize("field", ["session", "session_id"])
def test_a_session_may_be_a_number(field: str):
    assert read(mooncake(0, **{field: 12})).requests[0].session == "12"


def test_unknown_fields_and_empty_lines_are_passed_over():
    lines = ["", json.dumps(mooncake(0, type="text", turn=1)), "\n", json.dumps(mooncake(9)), ""]
    assert len(read_trace("t", lines, seed=1).requests) == 2


def test_a_byte_order_mark_and_carriage_returns_are_no_trouble():
    lines = ["\ufeff" + json.dumps(mooncake(0)) + "\r\n", json.dumps(mooncake(9)) + "\r\n"]
    assert len(read_trace("t", lines, seed=1).requests) == 2


def test_simple_is_in_seconds():
    trace = read(
        {"timestamp": 10, "input_length": 900, "output_length": 3},
        {"timestamp": 10.25, "input_length": 5, "output_length": 4, "session": "a"},
    )
    assert list(trace.requests) == [TraceRequest(0.0, 900, 3), TraceRequest(0.25, 5, 4, (), "a")]
    assert trace.block_tokens == 512


def test_simple_may_tell_prefixes_in_blocks_of_any_size():
    plain = {"timestamp": 0.0, "input_length": 20, "output_length": 1}
    blocks = plain | {"timestamp": 2.0, "block_tokens": 16, "hash_ids": [3, 4]}
    trace = read(plain, blocks)
    assert trace.block_tokens == 16
    assert list(trace.requests) == [TraceRequest(0.0, 20, 1), TraceRequest(2.0, 20, 1, (3,))]


def test_azure_is_read_by_its_columns():
    lines = [
        "ContextTokens,TIMESTAMP,GeneratedTokens\r\n",
        "374,2023-11-16 23:59:59.5000000,44\r\n",
        "396,2023-11-17 00:00:01.7500001,109",
    ]
    trace = read_trace("azure.csv", lines, seed=1)
    assert list(trace.requests) == [TraceRequest(0.0, 374, 44), TraceRequest(2.25, 396, 109)]


def test_azure_with_quotes_and_further_columns():
    """As the trace of multimodal requests has them, and as some programs write."""
    lines = [
        '"TIMESTAMP","NumImages","ContextTokens","GeneratedTokens"',
        '"2023-11-16 23:59:59.5000000","1,000","374","44"',
        "2023-11-16 23:59:59.5000000,0,396,109",
    ]
    trace = read_trace("azure.csv", lines, seed=1)
    assert list(trace.requests) == [TraceRequest(0.0, 374, 44), TraceRequest(0.0, 396, 109)]


def test_whole_numbers_may_be_written_as_floating_ones():
    """As a table with a gap writes a whole column."""
    line = '{"timestamp": 1e0, "input_length": 1e3, "output_length": 12.0, "session": 7}'
    assert read_trace("t", [line], seed=1).requests == [TraceRequest(0.0, 1000, 12, (), "7")]


def test_azure_of_2024_has_a_time_zone():
    lines = [
        "TIMESTAMP,ContextTokens,GeneratedTokens",
        "2024-05-10 00:00:00.009930+00:00,2162,5",
        "2024-05-10 00:00:00.509930+00:00,2399,6",
    ]
    assert read_trace("a", lines, seed=1).requests[1].arrival_s == 0.5


def test_an_answer_without_tokens_is_read_as_one_and_said():
    trace = read(mooncake(0, output_length=0), mooncake(1))
    assert [request.output_tokens for request in trace.requests] == [1, 7]
    assert trace.notes == ("1 of 2 requests have 0 output tokens; read as 1",)


def test_steps_are_found_and_requests_spread_evenly_in_order():
    trace = read(*stepped(4000, per_step=40))
    assert any("steps of 3 s" in note for note in trace.notes)
    arrivals = [request.arrival_s for request in trace.requests]
    assert arrivals == sorted(arrivals)
    assert arrivals[0] == 0.0
    assert 296 < arrivals[-1] <= 300
    tenths = Counter(int(arrival % 3 / 0.3) for arrival in arrivals)
    assert all(330 < tenths[tenth] < 470 for tenth in range(10))


def test_the_seed_spreads_the_same_way_each_time():
    records = stepped(60, per_step=6)
    assert read(*records, seed=3) == read(*records, seed=3)
    assert read(*records, seed=3) != read(*records, seed=4)


@pytest.mark.parametrize(
    "records",
    [
        pytest.param(stepped(10, per_step=1), id="one request a timestamp"),
        pytest.param(stepped(40, per_step=10), id="too few timestamps"),
        pytest.param(stepped(40, per_step=4, step_ms=2), id="fine enough"),
        pytest.param([mooncake(at) for at in range(0, 3000, 7) for _ in "ab"], id="7 ms"),
        pytest.param(
            [mooncake(at) for at in sorted(Random(1).sample(range(10**6), 60)) for _ in "abc"],
            id="pairs at any time",
        ),
    ],
)
def test_no_step_is_made_up(records: list[dict[str, object]]):
    first = records[0]["timestamp"]
    assert isinstance(first, int)
    expected = [(record["timestamp"] - first) / 1000 for record in records]  # pyright: ignore[reportOperatorIssue]
    arrivals = [request.arrival_s for request in read(*records).requests]
    assert arrivals == pytest.approx(expected)


def test_ids_of_single_blocks_become_ids_of_prefixes():
    trace = read(
        mooncake(0, 1024, hash_ids=[1, 2]),
        mooncake(1, 1024, hash_ids=[9, 2]),
        mooncake(2, 1536, hash_ids=[1, 2, 2]),
    )
    first, second, third = (request.blocks for request in trace.requests)
    assert third[:2] == first
    assert not set(first) & set(second)
    assert len(set(third)) == 3
    assert any("made anew" in note for note in trace.notes)


def test_the_conversation_trace_is_what_its_readme_says():
    trace = real_trace("mooncake_conversation.jsonl")
    summary = summarise(trace)
    assert summary.requests == 12_031
    assert summary.span_s == pytest.approx(3540, abs=5)
    assert summary.mean_input_tokens == pytest.approx(12_035, abs=1)
    assert summary.mean_output_tokens == pytest.approx(343, abs=1)
    assert summary.repeat_share == pytest.approx(0.366, abs=0.0005)
    assert trace.notes == ("timestamps come in steps of 3 s; requests are spread within a step",)


def test_the_conversation_trace_keeps_each_request_within_its_step():
    trace = real_trace("mooncake_conversation.jsonl")
    with (FOLDER / trace.name).open(encoding="utf-8") as lines:
        stamps = [json.loads(line)["timestamp"] / 1000 for line in lines]
    late_s = [
        request.arrival_s - stamp for request, stamp in zip(trace.requests, stamps, strict=True)
    ]
    assert min(late_s) > -3
    assert max(late_s) < 3
    assert all(a.arrival_s <= b.arrival_s for a, b in pairwise(trace.requests))


def test_the_azure_trace_is_what_its_readme_says():
    summary = summarise(real_trace("azure2023_conv.csv"))
    assert summary.requests == 19_366
    assert summary.span_s == pytest.approx(58.4 * 60, abs=5)
    assert summary.mean_input_tokens == pytest.approx(1154.7, abs=0.1)
    assert summary.mean_output_tokens == pytest.approx(211.1, abs=0.1)
    assert summary.repeat_share == 0
