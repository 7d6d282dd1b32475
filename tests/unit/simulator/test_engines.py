"""The engines of a run: off by chance, or all as one."""

from dataclasses import replace

import pytest

from headrace.simulator.engines import COEFFICIENTS, engine_specs, pooled
from headrace.simulator.runs import POOLED_REFERENCE, run_policy
from tests.unit.simulator.parts import ENGINE, PROFILE, settings, trace


def test_without_mismatch_all_are_as_profiled():
    assert engine_specs(settings(replicas=5)) == [ENGINE] * 5


def test_each_coefficient_of_each_replica_is_off_by_a_factor_of_its_own():
    specs = engine_specs(settings(replicas=200, mismatch=0.3))
    for name in COEFFICIENTS:
        factors = [getattr(spec.latency, name) / getattr(PROFILE, name) for spec in specs]
        assert 0.7 <= min(factors) < 0.72
        assert 1.28 < max(factors) <= 1.3
        assert sum(factors) / 200 == pytest.approx(1.0, abs=0.05)
    first = specs[0].latency
    assert len({getattr(first, name) / getattr(PROFILE, name) for name in COEFFICIENTS}) == 5
    assert all(replace(spec, latency=PROFILE) == ENGINE for spec in specs)


def test_mismatch_is_the_same_for_a_seed():
    assert engine_specs(settings(mismatch=0.3, seed=7)) == engine_specs(
        settings(mismatch=0.3, seed=7)
    )
    assert engine_specs(settings(mismatch=0.3, seed=7)) != engine_specs(
        settings(mismatch=0.3, seed=8)
    )


def test_pooled_is_all_of_them_at_once():
    one = pooled([ENGINE] * 4)
    assert one.kv_capacity_tokens == 4 * ENGINE.kv_capacity_tokens
    assert one.max_sequences == 4 * ENGINE.max_sequences
    assert one.max_batched_tokens == 4 * ENGINE.max_batched_tokens
    assert one.latency.per_step_s == PROFILE.per_step_s
    for name in COEFFICIENTS[1:]:
        assert getattr(one.latency, name) == pytest.approx(getattr(PROFILE, name) / 4)


def test_pooled_engines_that_differ_add_their_speeds():
    fast = replace(ENGINE, latency=replace(PROFILE, per_prefill_token_s=1e-4))
    slow = replace(ENGINE, latency=replace(PROFILE, per_prefill_token_s=3e-4))
    free = replace(ENGINE, latency=replace(PROFILE, per_prefill_token_s=0.0))
    assert pooled([fast, slow]).latency.per_prefill_token_s == pytest.approx(0.75e-4)
    assert pooled([fast, free]).latency.per_prefill_token_s == 0.0


def test_no_policy_is_better_than_the_pool():
    best = run_policy(settings(), trace(), POOLED_REFERENCE).scores
    for policy in ("seconds", "round_robin", "least_requests"):
        scores = run_policy(settings(), trace(), policy).scores
        assert best.ttft_s.mean < scores.ttft_s.mean
        assert best.hit_ratio >= scores.hit_ratio
