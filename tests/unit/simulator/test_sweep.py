"""A sweep plays every combination, and finds the one with the most goodput."""

import pytest

from headrace.core.policies import POLICIES, make_policy, sweep_of
from headrace.engine_model.profiles import profile
from headrace.simulator.results import Distribution, Scores
from headrace.simulator.runs import run_policy
from headrace.simulator.settings import SimulationSettings
from headrace.simulator.sweep import best_of, combinations, sweep
from headrace.traffic.trace import Trace, TraceRequest


def scores(policy: str, goodput_share: float, mean: float) -> Scores:
    return Scores(policy, 1, 1, 0, 0.0, Distribution(mean), Distribution(), goodput_share, 1.0)


def test_the_most_goodput_then_the_lowest_mean_then_the_first():
    first, slow, better = scores("x", 0.9, 2.0), scores("y", 0.9, 3.0), scores("z", 0.91, 9.0)
    assert best_of([first, slow, better]) is better
    assert best_of([slow, first]) is first
    assert best_of([first, scores("w", 0.9, 2.0)]) is first


@pytest.mark.parametrize("policy", list(POLICIES))
def test_every_combination_can_be_made_and_the_defaults_come_first(policy):
    texts = combinations(policy)
    assert texts[0] == policy
    assert len(set(texts)) == len(texts)
    values = 1
    for tried in sweep_of(policy).values():
        values *= len(tried)
    # The grid, and the defaults where they are not on it.
    assert len(texts) in {values, values + 1}
    for text in texts:
        make_policy(text)


def test_a_policy_with_parameters_of_its_own_stands():
    assert combinations("dynamo_kv:overlap_weight=3") == ("dynamo_kv:overlap_weight=3",)
    assert combinations("round_robin") == ("round_robin",)


def bursts() -> Trace:
    """Pairs of sessions that share long prefixes, closely behind each other."""
    requests = [
        TraceRequest(
            0.15 * number, 4096 + 512, 20, tuple(range(100 * (number % 5), 100 * (number % 5) + 8))
        )
        for number in range(60)
    ]
    return Trace("bursts", 512, requests)


def test_a_sweep_tells_defaults_and_best_as_single_runs_do():
    settings = SimulationSettings(engine=profile("l4-llama-3.1-8b"), replicas=3)
    trace, seen = bursts(), []
    found = list(
        sweep(
            settings,
            trace,
            ["round_robin", "dynamo_lmetric"],
            processes=1,
            report=lambda text, over: seen.append(text),
        )
    )
    assert [tuned.policy for tuned in found] == ["round_robin", "dynamo_lmetric"]
    plain, tuned = found
    assert (plain.best, len(plain.scores)) == ("round_robin", 1)
    assert len(tuned.scores) == len(combinations("dynamo_lmetric"))
    assert tuned.default_scores == run_policy(settings, trace, "dynamo_lmetric").scores
    assert tuned.best_scores == run_policy(settings, trace, tuned.best).scores
    assert tuned.best_scores == best_of(tuned.scores)
    assert tuned.best_scores.hit_ratio > plain.best_scores.hit_ratio
