"""Several policies at once."""

import pytest

from headrace.simulator.runs import POOLED_REFERENCE, run_policies
from headrace.simulator.settings import SimulationSettings
from headrace.simulator.workloads import FileWorkload, GeneratedWorkload
from tests.unit.simulator.parts import ENGINE, settings, trace

POLICIES = ("seconds", "round_robin", POOLED_REFERENCE, "power_of_two")


def played(processes, workload=None, **changes):
    told: list[tuple[str, int]] = []
    runs = run_policies(
        settings(**changes),
        workload or trace(),
        POLICIES,
        processes=processes,
        report=lambda policy, over: told.append((policy, over)),
    )
    return [run.scores for run in runs], told


def test_runs_come_in_the_order_asked_for_and_alike_in_other_processes():
    alone, _ = played(1)
    assert tuple(scores.policy for scores in alone) == POLICIES
    assert {scores.completed for scores in alone} == {120}
    assert len({scores.ttft_s.mean for scores in alone}) == len(POLICIES)
    assert played(3)[0] == alone


def test_progress_is_told():
    _, told = played(1, trace(800))
    assert {policy for policy, _ in told} == set(POLICIES)
    assert max(over for _, over in told) <= 800


def test_what_fails_elsewhere_fails_here():
    with pytest.raises(ValueError, match="unknown policy"):
        list(
            run_policies(
                settings(), trace(), ("seconds", "nonsense"), processes=2, report=lambda *_: None
            )
        )


def test_generated_traffic_is_the_same_for_each_policy():
    workload = GeneratedWorkload("multi_turn", 40, 5.0, seed=3)
    scores, _ = played(1, workload)
    assert {each.requests for each in scores} == {40}
    assert list(workload.requests) == list(workload.requests)


def test_generated_traffic_is_cut_before_it_is_sped_up():
    whole = list(GeneratedWorkload("single_shots", 100, 5.0, seed=3).requests)
    part = list(GeneratedWorkload("single_shots", 100, 5.0, 3, speed=2.0, duration_s=4.0).requests)
    expected = [request.arrival_s / 2 for request in whole if request.arrival_s < 4.0]
    assert [request.arrival_s for request in part] == expected


@pytest.mark.parametrize(
    "wrong", [{"kind": "noise"}, {"count": 0}, {"requests_per_s": 0.0}, {"requests_per_s": -1.0}]
)
def test_traffic_that_cannot_be(wrong):
    with pytest.raises(ValueError):  # noqa: PT011 - the messages are the command line's to test
        GeneratedWorkload(**{"kind": "agentic", "count": 1, "requests_per_s": 1, "seed": 0} | wrong)


def test_a_trace_as_a_workload():
    made = trace(5)
    workload = FileWorkload(made)
    assert (workload.count, workload.name, workload.block_tokens) == (5, "made", 512)
    assert workload.requests is made.requests


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"replicas": 0}, "replicas is 0; give 1 or more"),
        ({"mismatch": 1.0}, "mismatch is 1; give 0 or more, below 1"),
        ({"mismatch": float("nan")}, "mismatch is nan"),
        ({"scrape_lag_s": -1.0}, "scrape_lag_s is -1; give 0 or more seconds"),
        ({"progress_period_s": 0.0}, "progress_period_s is 0; give more than 0 seconds"),
    ],
)
def test_settings_that_cannot_be(wrong, said):
    with pytest.raises(ValueError, match=said):
        SimulationSettings(ENGINE, **wrong)
