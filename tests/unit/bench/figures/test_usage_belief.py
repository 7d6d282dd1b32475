"""Usage that cannot be: not believed, counted as without it, and told."""

import json
from dataclasses import replace

import pytest

from headrace.bench.endpoint.sizing import Asker, size_prompts
from headrace.bench.figures.scores import summarise
from headrace.bench.figures.slo import Slo, Slos
from headrace.bench.settings import BenchSettings
from headrace.core.usage_belief import FAR, MORE_INPUT_TOKENS, MORE_OUTPUT_TOKENS
from tests.scripted import Peer, Received, ScriptedEngine, chat_chunk, usage_chunk
from tests.unit.bench.runs import load_of, play
from tests.unit.bench.virtual_engine import VirtualEngine

HUGE = 99_999_999_999_999_999_999_999_999


@pytest.mark.parametrize(
    ("input_tokens", "output_tokens", "cached_tokens"),
    [
        (16, HUGE, None),
        (HUGE, 5, None),
        (16, -3, None),
        (-5, 5, None),
        (16, 0, None),
        (16, 5, 17),
        (16, 5, -1),
        (16, FAR * 5 + MORE_OUTPUT_TOKENS + 1, None),
        (FAR * 16 + MORE_INPUT_TOKENS + 1, 5, None),
    ],
)
async def test_usage_that_cannot_be_is_not_believed(input_tokens, output_tokens, cached_tokens):
    async def script(_: Received, peer: Peer) -> None:
        await peer.start_stream()
        for _word in range(5):
            await peer.event(chat_chunk("a"))
        usage = usage_chunk(input_tokens, output_tokens)
        if cached_tokens is not None:
            usage["usage"] |= {"prompt_tokens_details": {"cached_tokens": cached_tokens}}
        await peer.chunk(b"data: " + json.dumps(usage).encode() + b"\n\n")
        await peer.end_stream()

    async with ScriptedEngine(script) as scripted:
        (record,) = await play(scripted.url, load_of(1, lengths="16/5"))
    assert (record.error, record.tokens_exact, record.odd_usage) == ("", False, True)
    assert (record.input_tokens, record.output_tokens) == (16, 5)
    assert record.cached_tokens is None
    assert len(record.itl_s) == 4


@pytest.mark.parametrize("told", ['"5"', "5.5", "[]", "1e400"])
async def test_usage_that_is_no_number_is_none(told: str):
    async def script(_: Received, peer: Peer) -> None:
        await peer.start_stream()
        for _word in range(5):
            await peer.event(chat_chunk("a"))
        usage = f'{{"choices":[],"usage":{{"prompt_tokens":16,"completion_tokens":{told}}}}}'
        await peer.chunk(b"data: " + usage.encode() + b"\n\n")
        await peer.end_stream()

    async with ScriptedEngine(script) as scripted:
        (record,) = await play(scripted.url, load_of(1, lengths="16/5"))
    assert (record.error, record.tokens_exact, record.odd_usage) == ("", False, False)
    assert record.output_tokens == 5


async def test_prompts_are_not_sized_by_it():
    async def script(received: Received, peer: Peer) -> None:
        if received.target == "/tokenize":
            await peer.json({"error": "no"}, status=404)
            return
        words = len(str(received.json).split())
        usage = b'{"choices":[{"index":0}],"usage":{"prompt_tokens":%d}}' % (HUGE * words)
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        await peer.send(head % len(usage) + usage)

    async with ScriptedEngine(script) as scripted:
        given = BenchSettings(scripted.url)
        sizing = await size_prompts(given, Asker(given, scripted.url, "m"))
    assert (sizing.by, sizing.tokens_per_word) == ("words", 1.0)


def test_the_report_says_how_many_there_were():
    run = VirtualEngine(requests=40).run(2.0)
    summary = summarise(run.records, replace(run.info, odd_usage=3), Slos(Slo(ttft_s=1.0)))
    assert (
        "3 answers had a usage that cannot be and is not believed: their tokens are counted as "
        "without it"
    ) in summary.verdict.lines
