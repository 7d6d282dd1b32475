"""A sweep plays every combination, and finds the one with the most goodput."""

import json

import pytest

from headrace.compose.process.terminal import Terminal
from headrace.compose.simulate.command import simulate
from headrace.compose.simulate.input import SimulateOptions
from headrace.core.policies import POLICIES, make_policy, sweep_of
from headrace.simulator.results import Distribution, Results, Scores
from headrace.simulator.runs import POOLED_REFERENCE, PolicyRun
from headrace.simulator.sweep import best_of, combinations, defaults_and_best


def run(policy: str, goodput_share: float, mean: float) -> PolicyRun:
    scores = Scores(policy, 1, 1, 0, 0.0, Distribution(mean), Distribution(), goodput_share, 1.0)
    return PolicyRun(policy, scores, Results(), 0.0)


def test_the_most_goodput_then_the_lowest_mean_then_the_first():
    first, slow, better = run("x", 0.9, 2.0), run("y", 0.9, 3.0), run("z", 0.91, 9.0)
    assert best_of([first, slow, better]) is better
    assert best_of([slow, first]) is first
    assert best_of([first, run("w", 0.9, 2.0)]) is first


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


def test_what_is_as_by_default_is_not_written():
    texts = combinations("dynamo_kv")
    assert "dynamo_kv:overlap_weight=2,prefill_scale=4" in texts
    assert "dynamo_kv:overlap_weight=4,prefill_scale=16,below_zero=1" in texts
    assert not any("=0" in text for text in texts)


@pytest.mark.parametrize("policy", ["dynamo_kv:overlap_weight=3", "round_robin", POOLED_REFERENCE])
def test_what_has_nothing_to_try_stands(policy):
    assert combinations(policy) == [policy]


def test_each_policy_is_kept_as_it_stands_and_at_its_best():
    runs = [run(text, 0.5, 1.0) for text in combinations("dynamo_lmetric")]
    runs[-1] = run(runs[-1].policy, 0.6, 2.0)
    runs.append(run("round_robin", 0.4, 1.0))
    kept = defaults_and_best(["round_robin", "dynamo_lmetric"], runs)
    assert [each.policy for each in kept] == [
        "round_robin",
        "dynamo_lmetric",
        "dynamo_lmetric:overlap_weight=4",
    ]
    assert defaults_and_best(["round_robin"], runs) == [runs[-1]]


def play(capsys, policies: str, *, sweep: bool) -> list[dict]:
    options = SimulateOptions(
        traffic="agentic:rate=2,requests=60",
        replicas=2,
        policies=policies,
        sweep=sweep,
        json=True,
        jobs=1,
    )
    assert simulate(options, Terminal()) == 0
    return json.loads(capsys.readouterr().out)["runs"]


def test_the_command_shows_defaults_and_best(capsys):
    found = play(capsys, "round_robin,dynamo_lmetric", sweep=True)
    alone = play(capsys, ",".join(combinations("dynamo_lmetric")), sweep=False)
    assert found[0]["policy"] == "round_robin"
    assert found[1] == alone[0]
    best = min(alone, key=lambda each: (-each["goodput_share"], each["ttft_s"]["mean"]))
    assert found[1:] == ([alone[0]] if best is alone[0] else [alone[0], best])
