"""Texts: as many tokens as planned, the same for the same blocks, and a replay like its trace."""

from statistics import mean

import pytest

from headrace.traffic.load import Load, PlannedRequest
from headrace.traffic.shape import summarise
from headrace.traffic.texts import WORD_BYTES, WORDS, Sizing, Texts
from headrace.traffic.trace import Trace
from tests.generated_traffic import generate
from tests.hash_seeds import printed
from tests.unit.traffic.real_traces import real_trace

TEXTS = Texts(Sizing(), seed=1, block_tokens=512)


def own(planned: PlannedRequest, index: int = 0, texts: Texts = TEXTS) -> list[bytes]:
    return texts.prompt(planned, index)[1].split()


def test_all_words_are_as_long():
    assert len(set(WORDS)) == len(WORDS)
    assert {len(word) for word in WORDS} == {WORD_BYTES - 1}


@pytest.mark.parametrize("tokens", [1, 15, 16, 17, 255, 512, 513, 5000])
@pytest.mark.parametrize("blocks", [0, 1])
def test_a_prompt_has_its_tokens(tokens: int, blocks: int):
    ids = tuple(range(tokens // 512)) if blocks else ()
    assert len(own(PlannedRequest(0.0, tokens, 1, ids))) == tokens


def test_what_the_template_adds_is_taken_off_and_words_of_more_tokens_are_fewer():
    texts = Texts(Sizing(tokens_per_word=1.25, template_tokens=30), seed=1, block_tokens=512)
    planned = PlannedRequest(0.0, 2030, 1, (7, 8, 9))
    assert len(own(planned, texts=texts)) == 1600
    tiny = PlannedRequest(0.0, 10, 1)
    assert len(own(tiny, texts=texts)) == 1


def test_the_same_blocks_are_the_same_text_and_others_are_not():
    first = own(PlannedRequest(0.0, 1600, 1, (3, 4, 5)), 0)
    second = own(PlannedRequest(0.0, 1300, 1, (3, 4)), 1)
    other = own(PlannedRequest(0.0, 1300, 1, (6, 4)), 2)
    assert first[:1024] == second[:1024]
    assert first[1024:1300] != second[1024:]
    assert first[:16] != other[:16]


def test_without_blocks_no_two_prompts_begin_alike():
    starts = {tuple(own(PlannedRequest(0.0, 64, 1), index)[:8]) for index in range(2000)}
    assert len(starts) == 2000


def test_a_shared_prefix_stands_apart_and_is_the_same_for_its_group():
    def shared(group: int, index: int) -> bytes:
        planned = PlannedRequest(0.0, 164, 1, shared=group, shared_tokens=100)
        system, rest = TEXTS.prompt(planned, index)
        assert len(rest.split()) == 64
        return system

    assert shared(0, 0) == shared(0, 1) != shared(1, 2)
    assert len(shared(0, 0).split()) == 100


def test_the_hash_seed_changes_nothing():
    code = (
        "from headrace.traffic.texts import Sizing, Texts\n"
        "from headrace.traffic.load import PlannedRequest\n"
        "texts = Texts(Sizing(), seed=1, block_tokens=16)\n"
        "print([texts.prompt(PlannedRequest(0, 99, 1, (1, 2, 3)), 5) for _ in range(2)])"
    )
    outputs = {printed("-c", code, hash_seed=seed) for seed in ("0", "77")}
    assert len(outputs) == 1


def read_back(trace: Trace, template_tokens: int) -> Trace:
    """What an engine that counts a word as a token, and caches by blocks, sees of a replay."""
    load = Load.of_trace(trace, seed=0)
    sizing = Sizing(template_tokens=template_tokens)
    texts = Texts(sizing, seed=0, block_tokens=load.block_tokens)
    size = trace.block_tokens
    requests = []
    for index, planned in enumerate(load.stream()):
        # An engine's template stands before the text, and is part of the first block.
        words = [b"<template>"] * template_tokens + own(planned, index, texts)
        blocks: list[int] = []
        prefix = 0
        for start in range(0, len(words) - size + 1, size):
            prefix = hash((prefix, *words[start : start + size]))
            blocks.append(prefix)
        requests.append(
            trace.requests[index]._replace(
                arrival_s=planned.at_s, input_tokens=len(words), blocks=tuple(blocks)
            )
        )
    return Trace("replay", size, requests)


def assert_alike(trace: Trace) -> None:
    for template_tokens in (0, 12):
        replayed = read_back(trace, template_tokens)
        told, wanted = summarise(replayed), summarise(trace)
        assert told.requests_per_s == wanted.requests_per_s
        assert told.mean_output_tokens == wanted.mean_output_tokens
        assert told.mean_input_tokens == pytest.approx(wanted.mean_input_tokens, abs=0.2)
        assert told.repeat_share == pytest.approx(wanted.repeat_share, abs=1e-6)
        lengths = [each.input_tokens for each in trace.requests]
        assert mean(lengths) == pytest.approx(wanted.mean_input_tokens)
        for request, replay in zip(trace.requests, replayed.requests, strict=True):
            assert replay.input_tokens == max(request.input_tokens, template_tokens + 1)


@pytest.mark.parametrize(("kind", "requests"), [("multi_turn", 100), ("agentic", 25)])
def test_a_replay_has_the_rate_the_lengths_and_the_sharing_of_its_trace(kind: str, requests: int):
    assert_alike(generate(kind, requests=requests, requests_per_s=5.0, seed=1))


def test_a_replay_of_a_published_trace_is_like_it():
    trace = real_trace("mooncake_conversation.jsonl")
    assert_alike(Trace(trace.name, trace.block_tokens, trace.requests[:60]))
