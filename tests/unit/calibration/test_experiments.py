"""What one experiment says, to the token."""

import random

import pytest

from headrace.calibration.design import Limits, QueueExperiment, StreamsExperiment
from headrace.calibration.experiments import Laboratory, NotSideBySide
from headrace.calibration.prompts import Prompts
from headrace.core.latency import LatencyProfile
from headrace.engine_model import EngineSpec
from tests.unit.calibration.virtual_engine import VirtualEngine, replica_of


def laboratory(engine_spec: EngineSpec, engine: VirtualEngine) -> Laboratory:
    replica = replica_of(engine_spec, max_context_tokens=32_768, tells_sequences=True)
    return Laboratory(replica, engine, random.Random(1))


def spec(*coefficients: float, **limits: int) -> EngineSpec:
    latency = LatencyProfile("hidden", "made up", *coefficients)
    return EngineSpec(latency, 400_000, **limits)


@pytest.mark.parametrize(("batch", "context"), [(1, 1000), (4, 1000), (64, 200)])
async def test_a_step_is_told_with_the_context_that_it_reads(batch: int, context: int):
    """Half a token too many is a tenth of a sequence where contexts are dear."""
    hidden = spec(0.001, 1e-5, 0.0, 0.0, 1e-6, max_sequences=64)
    lab = laboratory(hidden, VirtualEngine(hidden))
    await lab.warm_up()
    point = await lab.streams(StreamsExperiment(batch, context, 64))
    assert point.step_s == pytest.approx(0.001 + 1e-6 * point.context_tokens, rel=1e-9)


async def test_tokens_that_are_late_do_not_turn_the_slope():
    hidden = spec(0.008, 1e-5, 0.0, 1e-4, 1e-8, max_sequences=64)
    engine = VirtualEngine(hidden, tick_s=0.0005, spikes=0.15, spike_s=0.008, seed=3)
    lab = laboratory(hidden, engine)
    await lab.warm_up()
    for _ in range(5):
        point = await lab.streams(StreamsExperiment(4, 100, 64))
        expected_s = hidden.latency.step_s(4, point.context_tokens)
        assert point.step_s == pytest.approx(expected_s, rel=0.0015)


async def test_a_look_that_was_too_short_is_made_as_long_as_it_showed_to_need():
    """The first stream is nearly over when the last begins: by how much is known then."""
    hidden = spec(0.02, 1e-4, 0.0, 1e-3, 1e-8, max_sequences=64, max_batched_tokens=370)
    lab = laboratory(hidden, VirtualEngine(hidden))
    await lab.warm_up()
    before = lab.output_tokens
    point = await lab.streams(StreamsExperiment(16, 1000, 16))
    assert point.steps >= 16
    assert 16 * 60 < lab.output_tokens - before < 16 * 200


async def test_how_many_run_side_by_side_is_seen_at_the_first_look():
    hidden = spec(0.014, 1.7e-3, 3e-8, 4e-3, 2e-7, max_sequences=48)
    lab = laboratory(hidden, VirtualEngine(hidden))
    await lab.warm_up()
    before = lab.output_tokens
    with pytest.raises(NotSideBySide) as found:
        await lab.streams(StreamsExperiment(64, 48, 12))
    assert found.value.batch == 48
    assert lab.output_tokens - before < 64 * 30


def test_words_of_a_token_are_learned_of_all_prompts():
    prompts = Prompts(random.Random(0))
    long = prompts.fresh(10_000)
    prompts.learn(long, 12_500)
    short = prompts.fresh(60)
    prompts.learn(short, 40)  # short words, by chance
    assert prompts.fresh(5000).words == pytest.approx(4000, rel=0.01)


def test_whether_streams_fit_in_the_kv_cache():
    limits = Limits(prompt_tokens=8000, batch=64, kv_tokens=8900)
    assert limits.holds(64, 48, 64)
    assert not limits.holds(64, 48, 256)
    assert Limits(prompt_tokens=8000, batch=64).holds(64, 8000, 256)
    # Longer looks leave less room for the prompt before them.
    told = Limits(prompt_tokens=8000, batch=64)
    assert told.context_tokens(1, 264) == told.context_tokens(1, 64) - 200


@pytest.mark.parametrize("step_tokens", [256, 700, 8192])
@pytest.mark.parametrize(
    ("prompts", "tokens", "at_once"), [(20, 300, 1), (40, 900, 6), (50, 48, 3)]
)
async def test_what_a_queue_of_prompts_takes_is_the_work_that_it_is(
    prompts: int, tokens: int, at_once: int, step_tokens: int
):
    """To the step, the pair and the token of KV cache, however the engine packs them."""
    hidden = spec(0.004, 1e-5, 1e-9, 2e-4, 1e-8, max_sequences=16, max_batched_tokens=step_tokens)
    lab = laboratory(hidden, VirtualEngine(hidden))
    await lab.warm_up()
    point = await lab.queue(QueueExperiment(prompts, tokens, at_once), None)
    assert point.prompts == prompts
    assert point.uncached_tokens == pytest.approx(tokens, rel=0.1)
    assert point.ttft_s == pytest.approx(hidden.latency.seconds(point.work), rel=1e-9)
