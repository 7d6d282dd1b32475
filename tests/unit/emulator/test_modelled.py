"""The modelled timing source on a clock of the test's own."""

import math
from itertools import chain

import pytest

from headrace.core.latency import LatencyProfile
from headrace.emulator.modelled import (
    STALL_S,
    AllCleared,
    KvChange,
    ModelledTiming,
    PromptJob,
    block_hashes,
)
from headrace.emulator.timing import Generation, Occupancy
from headrace.engine_model import (
    BlocksRemoved,
    BlocksStored,
    EngineModel,
    EngineSpec,
    Finished,
    FirstToken,
    Job,
)

LATENCY = LatencyProfile("p", "made up", 0.01, 1e-4, 1e-8, 1e-3, 1e-6)
SPEC = EngineSpec(LATENCY, 3200, max_sequences=4, max_batched_tokens=256)


class Ignored:
    def token(self, now: float) -> None:
        raise AssertionError("the timing source tells its driver, not the answer")

    def abort(self) -> None:
        raise AssertionError("a timing source aborts nothing")


def generation(prompt: bytes, output_tokens: int) -> Generation:
    return Generation(
        Ignored(),
        prompt=prompt,
        prompt_tokens=len(prompt) // 4,
        output_tokens=output_tokens,
        submitted_s=0.0,
    )


def token_times(source: ModelledTiming, *, late_s: float = 0.0) -> dict[Generation, list[float]]:
    """Advance from wake to wake, each call so late."""
    times: dict[Generation, list[float]] = {}
    while (now := source.wake_s()) != math.inf:
        due = source.advance(now + late_s)
        assert len(due) == len(set(due))
        for each in due:
            times.setdefault(each, []).append(now)
    return times


def text(seed: int, tokens: int) -> bytes:
    return (b"%09d " % seed * tokens)[: 4 * tokens]


def test_tokens_come_when_the_model_has_them():
    source, model = ModelledTiming(SPEC), EngineModel(SPEC)
    prompts = [(text(1, 600), 30), (text(2, 300), 5), (text(1, 700), 12), (text(3, 100), 1)]
    generations = [generation(*each) for each in prompts]
    for number, each in enumerate(generations):
        source.submit(each, 100.0)
        blocks = block_hashes(each.prompt, 16)
        model.submit(Job(number, each.prompt_tokens, each.output_tokens, blocks, 16), 0.0)
    told = model.advance(math.inf)
    times = token_times(source, late_s=0.0004)
    for each in told:
        assert isinstance(each, FirstToken | Finished)
        own = generations[each.job.id]
        if isinstance(each, FirstToken):
            assert times[own][0] == pytest.approx(100 + each.at_s)
            assert own.cached_tokens == each.cached_tokens
        else:
            assert times[own][-1] == pytest.approx(100 + each.at_s)
            assert len(times[own]) == own.output_tokens == own.produced
    assert generations[2].cached_tokens == 592  # of 600 in common, whole blocks
    assert source.occupancy().running == 0


def test_who_waits_is_told_until_when():
    source = ModelledTiming(SPEC, speed=2.0)
    first, second = generation(text(1, 1024), 3), generation(text(2, 100), 3)
    for each in (first, second):
        source.submit(each, 100.0)
    token_times(source)
    # Four steps of 256 tokens go to the first alone.
    alone_s = 4 * 0.01 + 1024 * 1e-4 + 1024**2 / 2 * 1e-8
    assert first.admitted_s == 100.0
    assert second.admitted_s == pytest.approx(100.0 + alone_s / 2)


def test_as_many_times_as_fast_as_asked_for():
    usual, fast = ModelledTiming(SPEC), ModelledTiming(SPEC, speed=10.0)
    one, other = generation(text(1, 100), 20), generation(text(1, 100), 20)
    usual.submit(one, 5.0)
    fast.submit(other, 5.0)
    usual_s = [at_s - 5 for at_s in token_times(usual)[one]]
    fast_s = [at_s - 5 for at_s in token_times(fast)[other]]
    assert [10 * at_s for at_s in fast_s] == pytest.approx(usual_s)


def test_a_late_call_gives_one_step_and_what_follows_is_not_moved():
    source = ModelledTiming(SPEC)
    each = generation(text(1, 100), 4)
    source.submit(each, 0.0)
    first_s = source.wake_s()
    assert source.advance(first_s - 0.002) == ()
    late_s = first_s + 0.05
    assert source.advance(late_s) == [each]
    assert each.produced == 1
    assert source.wake_s() == pytest.approx(first_s + LATENCY.step_s(1, 100))
    assert source.advance(late_s) == [each]
    assert each.produced == 2


def test_who_comes_while_a_step_is_overdue_joins_behind_it():
    source = ModelledTiming(SPEC)
    early, late = generation(text(1, 100), 3), generation(text(2, 100), 1)
    source.submit(early, 0.0)
    due_s = source.wake_s()
    source.submit(late, due_s + 0.03)
    assert source.wake_s() == due_s
    assert source.advance(due_s + 0.03) == [early]
    assert source.wake_s() > due_s + LATENCY.prefill_s(100)
    assert set(source.advance(due_s + 0.06)) == {early, late}


def test_a_stall_is_not_made_up_for():
    source = ModelledTiming(SPEC)
    each = generation(text(1, 100), 5)
    source.submit(each, 0.0)
    now = source.wake_s() + STALL_S + 3.0
    source.advance(now)
    assert source.wake_s() == pytest.approx(now + LATENCY.step_s(1, 100))


def test_a_cancelled_generation_gets_nothing_more_and_makes_room():
    source = ModelledTiming(SPEC)
    gone, stays = generation(text(1, 2000), 1000), generation(text(2, 1500), 2)
    source.submit(gone, 0.0)
    for _ in range(10):
        source.advance(source.wake_s())
    source.submit(stays, source.wake_s() - 0.001)
    assert source.occupancy().running == 1
    source.advance(source.wake_s())
    assert source.occupancy().waiting == 1
    source.cancel(gone)
    source.cancel(gone)
    produced = gone.produced
    times = token_times(source)
    assert list(times) == [stays]
    assert gone.produced == produced
    assert source.occupancy() == Occupancy(0, 0, 0.0, 0)


def test_a_preempted_generation_goes_on_where_it_was():
    source = ModelledTiming(EngineSpec(LATENCY, 320, max_batched_tokens=256))
    one, other = generation(text(1, 150), 100), generation(text(2, 150), 100)
    source.submit(one, 0.0)
    source.submit(other, 0.0)
    times = token_times(source)
    assert source.occupancy().preemptions == 1
    assert len(times[one]) == len(times[other]) == 100
    assert max(b - a for a, b in zip(times[other], times[other][1:], strict=False)) > 0.5


def test_the_listener_hears_what_each_step_changed():
    heard: list[KvChange] = []
    source = ModelledTiming(SPEC, on_kv=heard.extend)
    prompt = text(1, 600)
    source.submit(generation(prompt, 2), 0.0)
    token_times(source)
    stored = [each for each in heard if isinstance(each, BlocksStored)]
    assert [(each.first, each.end) for each in stored] == [(0, 16), (16, 32), (32, 37)]
    assert tuple(chain(*(each.blocks for each in stored))) == block_hashes(prompt, 16)
    assert all(isinstance(each.job, PromptJob) for each in stored)
    source.submit(generation(text(2, 3000), 1), 9.0)
    token_times(source)
    removed = next(each for each in heard if isinstance(each, BlocksRemoved))
    assert removed.blocks[0] == block_hashes(prompt, 16)[-1]


def test_the_listener_hears_that_all_is_forgotten():
    heard: list[KvChange] = []
    source = ModelledTiming(SPEC, on_kv=heard.extend)
    source.submit(generation(text(1, 600), 2), 0.0)
    token_times(source)
    heard.clear()
    source.forget()
    assert [type(each) for each in heard] == [AllCleared]


def test_equal_beginnings_have_equal_hashes_and_nothing_else_has():
    one, other = text(1, 64), text(1, 32) + text(2, 32)
    assert block_hashes(one, 16)[:2] == block_hashes(other, 16)[:2]
    assert not set(block_hashes(one, 16)[2:]) & set(block_hashes(other, 16)[2:])
    assert len(block_hashes(one[:-1], 16)) == 3
    assert len(set(block_hashes(b"same" * 64, 16))) == 4  # a block's hash covers what is before it
