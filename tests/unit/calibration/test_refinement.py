"""The second half of the time goes to what is not sure yet."""

from dataclasses import replace

import pytest

from headrace.calibration.design import (
    Experiment,
    Limits,
    PromptExperiment,
    QueueExperiment,
    StreamsExperiment,
    cost_s,
)
from headrace.calibration.refinement import refinement
from headrace.core.latency import LatencyProfile
from headrace.engine_model.calibration import Fit, fit
from headrace.engine_model.calibration_table import DecodePoint, Extent, PrefillPoint

HIDDEN = LatencyProfile("hidden", "", 0.02, 1e-4, 1e-8, 5e-4, 1e-7)
EXTENT = Extent(context_tokens=16_384, sequences=32, kv_tokens=100_000)
LIMITS = Limits(prompt_tokens=15_000, batch=32, kv_tokens=100_000)
LENGTHS = (48, 100, 250, 700, 1500, 3000)
BATCHES = ((1, 48), (1, 700), (4, 48), (32, 48), (32, 100))


def found(*, deep: bool, long: bool, wide: bool = True) -> Fit:
    """A fit of noisy data, of which some kind is missing."""
    lengths = (*LENGTHS, 7000, 15_000) if long else LENGTHS
    batches = (*BATCHES, (4, 12_000), (32, 2500)) if deep else BATCHES
    if not wide:
        batches = tuple((n, tokens) for n, tokens in batches if n < 32)
    prefills = [
        PrefillPoint(tokens, 0, HIDDEN.prefill_s(tokens) + 0.0003 * (-1) ** i, 3)
        for i, tokens in enumerate(lengths)
    ]
    decodes = [
        DecodePoint(n, n * tokens, HIDDEN.step_s(n, n * tokens) + 2e-5 * (-1) ** i, 32, 3)
        for i, (n, tokens) in enumerate(batches)
    ]
    fitted = fit(prefills, decodes, EXTENT)
    assert isinstance(fitted, Fit)
    return fitted


def seconds_of(chosen: tuple[Experiment, ...]) -> dict[str, float]:
    """For prompts of more than 5,000 tokens, and for contexts of more than 10,000 in sum."""
    long = [e for e in chosen if isinstance(e, PromptExperiment) and e.tokens > 5000]
    deep = [
        e
        for e in chosen
        if isinstance(e, StreamsExperiment) and e.batch * e.context_tokens > 10_000
    ]
    return {"long": cost_s(long, HIDDEN), "deep": cost_s(deep, HIDDEN)}


DONE: dict[Experiment, int] = {PromptExperiment(tokens): 3 for tokens in LENGTHS}


def test_where_contexts_were_shallow_it_goes_deep():
    spent = seconds_of(refinement(DONE, LIMITS, EXTENT, found(deep=False, long=True), 30.0))
    assert spent["deep"] > 10.0


def test_where_prompts_were_short_it_takes_long_ones():
    spent = seconds_of(refinement(DONE, LIMITS, EXTENT, found(deep=True, long=False), 30.0))
    assert spent["long"] > 3.0


@pytest.mark.parametrize("seconds", [1.0, 10.0, 60.0])
def test_the_time_is_kept_and_the_limits_are(seconds: float):
    limits = replace(LIMITS, prompt_tokens=4000, kv_tokens=20_000)
    chosen = refinement(DONE, limits, EXTENT, found(deep=False, long=False), seconds)
    assert 0.5 * seconds < cost_s(chosen, HIDDEN) <= 1.1 * seconds
    for each in chosen:
        if isinstance(each, PromptExperiment):
            assert each.tokens + sum(each.extensions) <= 4000
        else:
            assert isinstance(each, StreamsExperiment)
            assert each.batch * (each.context_tokens + each.steps) <= 20_000
            assert each.context_tokens + each.steps <= 4096


def test_streams_that_would_be_preempted_are_not_watched():
    """32 streams need more than there is, as short as their contexts may be."""
    limits = replace(LIMITS, kv_tokens=2000)
    fitted = found(deep=True, long=True, wide=False)
    chosen = refinement({}, limits, EXTENT, fitted, 60.0)
    streams = [each for each in chosen if isinstance(each, StreamsExperiment)]
    assert max(each.batch for each in streams) == 10
    assert all(each.batch * (each.context_tokens + each.steps) <= 2000 for each in streams)


def test_where_the_longest_prompts_cost_too_much_it_takes_the_longest_that_do_not():
    limits = replace(LIMITS, prompt_tokens=500_000)
    extent = replace(EXTENT, context_tokens=500_000)
    chosen = refinement(DONE, limits, extent, found(deep=True, long=False), 4.0)
    prompts = [each for each in chosen if isinstance(each, PromptExperiment)]
    assert max(each.tokens + sum(each.extensions) for each in prompts) > 5000


QUEUES = replace(LIMITS, queues=True)


def test_what_no_single_prompt_shows_prompts_in_a_queue_do():
    """Pairs that are a hundredth of the longest prompt, which comes with a tick of its own."""
    spent = refinement(DONE, QUEUES, EXTENT, found(deep=True, long=True), 60.0)
    queues = [each for each in spent if isinstance(each, QueueExperiment)]
    assert cost_s(queues, HIDDEN) > 10.0
    for each in queues:
        assert QUEUES.holds_queue(each, None)


def test_where_no_budget_of_a_step_was_seen_the_steps_of_long_prompts_are_counted():
    fitted = found(deep=True, long=False)
    assert fitted.prefill_step_tokens is None
    first, *_ = refinement(DONE, QUEUES, EXTENT, fitted, 30.0)
    assert isinstance(first, QueueExperiment)
    assert (first.tokens, first.at_once) == (QUEUES.prompt_tokens, 1)
    assert first not in refinement({**DONE, first: 1}, QUEUES, EXTENT, fitted, 30.0)[:1]


def test_a_queue_leaves_room_for_the_stream_beside_it():
    tight = replace(QUEUES, prompt_tokens=1500, kv_tokens=8000)
    assert tight.holds_queue(QueueExperiment(16, 1500, 1), None)
    assert not tight.holds_queue(QueueExperiment(16, 1500, 5), None)
    assert not tight.holds_queue(QueueExperiment(1500, 48, 1), None)  # longer than the context


def test_no_time_is_no_experiment():
    assert refinement(DONE, LIMITS, EXTENT, found(deep=True, long=True), 0.0) == ()
