"""Requests made of a trace are what the trace says, as the emulated engine understands them."""

from __future__ import annotations

import uvloop

from benchmarks.engines import MODEL, engines
from benchmarks.trace_load import Answer, payload, play, results_of
from headrace.emulator.modelled import block_hashes
from headrace.emulator.prompt import Ask, read_ask
from headrace.emulator.settings import EngineSettings
from headrace.simulator.results import scores_of
from headrace.simulator.settings import Slo
from headrace.traffic.trace import Trace, TraceRequest

BLOCK_TOKENS = 512
KV_BLOCK_TOKENS = 16


def asked(request: TraceRequest, number: int) -> Ask:
    data = payload(request, number, block_tokens=BLOCK_TOKENS, model=MODEL)
    return read_ask(data.partition(b"\r\n\r\n")[2], EngineSettings(model=MODEL), chat=True)


def shared_blocks(one: TraceRequest, other: TraceRequest) -> int:
    hashes = [
        block_hashes(asked(request, number).prompt, KV_BLOCK_TOKENS)
        for number, request in enumerate((one, other))
    ]
    return sum(mine == theirs for mine, theirs in zip(*hashes, strict=False))


def test_a_prompt_has_the_traces_tokens():
    for blocks, tokens in (((), 5), ((1,), 512), ((1, 2), 1025), ((7, 8, 9), 2047)):
        ask = asked(TraceRequest(0.0, tokens, 17, blocks), 3)
        assert (ask.prompt_tokens, ask.output_tokens) == (tokens, 17)
        assert ask.stream
        assert ask.options.include_usage


def test_prompts_share_the_engines_blocks_that_their_trace_blocks_cover():
    long = TraceRequest(0.0, 1700, 1, (1, 2, 3))
    per_block = BLOCK_TOKENS // KV_BLOCK_TOKENS
    assert shared_blocks(long, TraceRequest(0.0, 1600, 1, (1, 2, 4))) == 2 * per_block
    assert shared_blocks(long, TraceRequest(0.0, 1650, 1, (1, 2, 3))) == 3 * per_block
    assert shared_blocks(long, TraceRequest(0.0, 1700, 1, (5, 6, 7))) == 0
    assert shared_blocks(TraceRequest(0.0, 300, 1), TraceRequest(0.0, 300, 1)) == 0


def test_answers_are_timed_from_when_they_were_due_and_scaled():
    served, failed = Answer(100.0), Answer(101.0)
    served.sent_s, served.first_s, served.last_s, served.end_s = 100.5, 102.0, 106.0, 106.0
    served.input_tokens, served.cached_tokens, served.output_tokens = 100, 25, 5
    failed.end_s, failed.error = 102.0, "status 503"
    scores = scores_of("x", results_of([served, failed], 0.5), Slo(ttft_s=1.0, tpot_s=0.5))
    assert (scores.requests, scores.completed, scores.goodput_share) == (2, 1, 0.5)
    assert scores.ttft_s.mean == (1.0 + 2.5) / 2  # the failed one until the end of the run
    assert scores.tpot_s.mean == 0.5
    assert scores.hit_ratio == 0.25


def test_each_request_gets_its_answer_or_its_error():
    requests = [TraceRequest(0.0, 40, 3), TraceRequest(0.01, 200_000, 3), TraceRequest(0.02, 40, 1)]
    with engines("ttft=1ms,itl=1ms", count=1) as fleet:
        answers = uvloop.run(
            play(fleet.ports[0], Trace("three", BLOCK_TOKENS, requests), model=MODEL)
        )
    assert [answer.output_tokens for answer in answers] == [3, 0, 1]
    assert [answer.error[:10] for answer in answers] == ["", "status 400", ""]
    # uvloop's timers fire up to 1.5 ms early.
    assert all(each.first_s >= each.sent_s >= each.intended_s - 0.005 for each in answers[::2])
