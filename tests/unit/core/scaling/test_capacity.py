"""Tokens to replicas: closed form, limits, and what the modelled engine really carries."""

from dataclasses import replace

import pytest

from headrace.core.length_counter import LengthCounter, cell_key, sketch_of
from headrace.core.length_sketch import sketch_from
from headrace.core.scaling.capacity import (
    LEAST_SHARE,
    attainment,
    load_carried,
    pool_requests_per_s,
    replica_capacity,
    replicas_for_load,
)
from headrace.core.scaling.request_work import request_work
from headrace.core.scaling.settings import EngineFigures, ScalingTarget
from headrace.engine_model import EngineModel, Job
from headrace.engine_model.jobs import Finished
from headrace.engine_model.profiles import profile
from tests.unit.core.scaling.sizing import replicas_for

TARGET = ScalingTarget(2.0, 0.05)


def figures_of(name: str) -> EngineFigures:
    spec = profile(name)
    return EngineFigures(
        spec.latency, spec.kv_capacity_tokens, spec.max_sequences, spec.max_batched_tokens
    )


H100 = figures_of("h100-llama-3.1-8b")


def test_the_mean_step_is_what_the_engine_model_does():
    rate, prompt, answer = 12.0, 600, 200
    engine = EngineModel(profile("h100-llama-3.1-8b"))
    taken = []
    for number in range(1200):
        engine.submit(Job(number, prompt, answer, (), 16), number / rate)
        happenings = engine.advance(number / rate)
        ended = [each for each in happenings if isinstance(each, Finished)]
        taken += [each.at_s - each.job.id / rate for each in ended]
    work = request_work(H100, sketch_of([(prompt, 0, answer)]))
    step_s = H100.latency.per_step_s / (1.0 - rate * work.work_s)
    steady = taken[300:]
    assert sum(steady) / len(steady) == pytest.approx(answer * step_s, rel=0.04)


def test_joint_lengths_count_not_their_means():
    apart = sketch_of([(4000, 0, 20), (100, 0, 800)])
    together = sketch_of([(4000, 0, 800), (100, 0, 20)])
    assert apart.means() == together.means()
    alone, both = (replica_capacity(H100, TARGET, each) for each in (apart, together))
    assert alone.requests_per_s > 1.1 * both.requests_per_s


def test_hits_are_not_prefilled():
    cold = replica_capacity(H100, TARGET, sketch_of([(4000, 0, 200)]))
    warm = replica_capacity(H100, TARGET, sketch_of([(4000, 3600, 200)]))
    assert warm.requests_per_s > 1.5 * cold.requests_per_s


@pytest.mark.parametrize(
    ("figures", "target", "lengths", "limit"),
    [
        (H100, ScalingTarget(2.0, 0.012), (400, 0, 300), "tpot"),
        (H100, TARGET, (355, 0, 292), "sequences"),
        (replace(H100, kv_capacity_tokens=40_000), TARGET, (4000, 3900, 400), "kv"),
        (H100, ScalingTarget(0.3, 1.0), (6000, 0, 2), "ttft"),
    ],
)
def test_what_is_reached_first_is_told(figures, target, lengths, limit):
    one = replica_capacity(figures, target, sketch_of([lengths] * 20))
    assert one.limit == limit
    assert one.kv_ratio <= 0.92


def test_full_is_still_within_the_target_and_a_little_more_is_not():
    lengths = sketch_of([(1000, 0, 200), (300, 0, 400), (3000, 0, 50)])
    one = replica_capacity(H100, TARGET, lengths)
    assert attainment(H100, TARGET, lengths, one.requests_per_s) >= 0.99
    assert attainment(H100, TARGET, lengths, 1.3 * one.requests_per_s) < 0.95


def tpot_attainment(answer: int, allowed: float, load: float = 0.5) -> float:
    """The share in time where the target is so many times the mean step, which is the same for all
    lengths at the same load."""
    lengths = sketch_of([(2000, 0, answer)])
    step_s = H100.latency.per_step_s / (1.0 - load)
    target = ScalingTarget(1e6, allowed * step_s)
    return attainment(H100, target, lengths, load / request_work(H100, lengths).work_s)


def test_who_answers_at_length_has_prompts_in_between_averaged_out():
    shares = [tpot_attainment(answer, 1.1) for answer in (20, 100, 400)]
    assert shares == sorted(shares)
    assert shares[-1] - shares[0] > 0.2


def test_a_laxer_target_is_met_by_more():
    shares = [tpot_attainment(100, allowed) for allowed in (0.9, 1.0, 1.1, 1.3)]
    assert shares[0] < shares[1] < shares[2] < shares[3]
    assert shares[1] == pytest.approx(0.5)


@pytest.mark.parametrize("allowed", [1.1, 1.25, 2.0])
def test_targets_that_chance_alone_breaks_leave_a_part_of_what_the_means_allow(allowed):
    lengths = sketch_of([(6000, 0, 2)])
    target = ScalingTarget(1e6, allowed * H100.latency.per_step_s)
    load = replica_capacity(H100, target, lengths).requests_per_s
    load *= request_work(H100, lengths).work_s
    assert load == pytest.approx(LEAST_SHARE * (1.0 - 1.0 / allowed))


def test_prompts_too_long_for_their_target_do_not_empty_the_pool():
    lengths = sketch_of([(60_000, 0, 300)] + [(2000, 0, 300)] * 20)
    one = replica_capacity(H100, TARGET, lengths)
    assert one.requests_per_s > 0.5


def test_nothing_known_needs_nothing():
    assert replicas_for(H100, TARGET, sketch_of([]), 100.0) == 0.0
    assert replicas_for(H100, TARGET, sketch_of([(10, 0, 10)]), 0.0) == 0.0


def test_staffing_is_by_the_square_root():
    lengths = sketch_of([(1500, 0, 140)] * 5)
    one = replica_capacity(H100, TARGET, lengths)
    small, large = (1.0 - load_carried(one, n) / n for n in (4, 16))
    assert small == pytest.approx(2.0 * large, rel=0.15)
    assert replicas_for_load(one, load_carried(one, 9)) == pytest.approx(9.0, rel=1e-4)
    carried = pool_requests_per_s(H100, TARGET, lengths, 9)
    assert carried == pytest.approx(one.requests_per_s * load_carried(one, 9))


def test_sketches_keep_sums_and_forget():
    counter = LengthCounter()
    counter.add(1000, 250, 40, requests=2.5)
    counter.add(1000, 0, 40)
    assert counter.sketch().means() == pytest.approx((1000.0, 625.0 / 3.5, 40.0))
    assert sketch_from(counter.sketch().rows()) == counter.sketch()
    assert cell_key(1023, 256, 1) == (9, 0, 2)
    counter.fade(1e-6)
    assert counter.sketch().cells == ()
