"""What the routing grid plays, and how it judges."""

from itertools import pairwise

import pytest

from benchmarks.routing_bound import UNLOADED_REFERENCE, unloaded_ttft_s
from benchmarks.routing_capacity import IDLE_SPEED, SHARE, capacities
from benchmarks.routing_grid import QUICK, grid
from benchmarks.routing_runs import Conditions, Outcome, Play, Runner
from benchmarks.routing_table import CellResult, half_interval, misses, summary_lines, ttft
from benchmarks.routing_tuning import OURS, baselines, best, tuned
from benchmarks.routing_workloads import WORKLOADS, traffic
from headrace.core.policies import make_policy
from headrace.engine_model.profiles import profile
from headrace.simulator.runs import run_policy
from headrace.simulator.settings import SimulationSettings


def outcome(ttft_s: float, missed: float = 0.0) -> Outcome:
    return Outcome(ttft_s, ttft_s, 0.01, missed, 0.5, 100, 1.0)


def cell(**by_policy: list[Outcome]) -> CellResult:
    return CellResult("conversation", 8, 0.9, 0.0, 1.0, "approximate", by_policy)


def test_the_grid_is_what_was_asked_for():
    cells = grid()
    assert len(cells) == len(set(cells)) <= 60
    assert {cell.workload for cell in cells} == set(WORKLOADS)
    assert {cell.mismatch for cell in cells} == {0.0, 0.3}
    assert {cell.lag_s for cell in cells} == {1.0, 5.0}
    assert {cell.index_kind for cell in cells} == {"approximate", "exact"}
    assert (min(cell.load for cell in cells), max(cell.load for cell in cells)) == (0.4, 1.1)
    assert {cell.replicas for cell in cells} >= {2, 8, 32}
    assert all(cell._replace(load=0.9) in {*cells, cell} for cell in QUICK)


def test_ours_is_no_baseline():
    assert OURS not in baselines()
    assert len(baselines()) > 10


def test_every_combination_of_all_baselines_is_tried():
    fleet = FleetOf(1.0)
    where = Conditions("agentic", 8, 1.0)
    chosen = tuned(fleet, [where, where], 1.0, lambda *_: None)[where]
    assert fleet.asked > 50
    assert len(chosen) == 8
    for name in chosen:
        assert ":" in name
        make_policy(name)


def test_the_best_are_taken_in_turn_by_misses_and_by_ttft():
    found = {"a": outcome(3.0, 0.1), "b": outcome(1.0, 0.3), "c": outcome(2.0, 0.2)}
    assert best(found, 2) == ["a", "b"]
    assert best(found, 9) == ["a", "b", "c"]


@pytest.mark.parametrize("name", ["multi_turn", "agentic", "single_shots"])
def test_generated_traffic_comes_at_the_speed_asked_for(name: str):
    slow, fast = (traffic(name, 4, speed, 1, 0.25) for speed in (1.0, 2.0))
    assert len(slow.requests) == len(fast.requests) == WORKLOADS[name].count(4, 0.25)
    assert all(a.arrival_s <= b.arrival_s for a, b in pairwise(fast.requests))
    rates = [len(trace.requests) / trace.requests[-1].arrival_s for trace in (slow, fast)]
    assert rates[1] == pytest.approx(2 * rates[0], rel=0.35)


class FleetOf(Runner):
    """Carries speeds up to `limit`, and misses a share of requests even when idle."""

    def __init__(self, limit: float, idle_misses: float = 0.0) -> None:
        self.limit, self.idle_misses = limit, idle_misses
        self.asked = 0

    def run(self, plays, done=lambda *_: None) -> dict[Play, Outcome]:
        plays = list(plays)
        self.asked += len(plays)
        return {
            play: outcome(1.0, self.idle_misses if play.conditions.speed <= self.limit else 0.5)
            for play in plays
        }


@pytest.mark.parametrize("limit", [0.13, 0.9, 1.0, 7.7, 60.0])
@pytest.mark.parametrize("idle_misses", [0.0, 0.2])
def test_capacity_is_found_to_a_few_per_cent(limit: float, idle_misses: float):
    fleet = FleetOf(limit, idle_misses)
    found = capacities(fleet, [("agentic", 8)], 1.0)["agentic", 8]
    assert limit / 1.03 <= found <= limit
    assert fleet.asked < 20


def test_a_fleet_that_carries_everything_ends_the_search():
    assert capacities(FleetOf(1e9), [("agentic", 8)], 1.0)["agentic", 8] > 1000 * IDLE_SPEED
    assert SHARE == 0.95


def test_a_fleet_that_carries_hardly_anything_ends_the_search():
    found = capacities(FleetOf(IDLE_SPEED), [("agentic", 8)], 1.0)["agentic", 8]
    assert found == pytest.approx(IDLE_SPEED, abs=1e-4)


def test_noise_is_the_interval_of_paired_differences():
    assert half_interval([1.0, 1.0, 1.0]) == 0.0
    assert half_interval([0.0, 1.0, 2.0]) == pytest.approx(4.303 / 3**0.5)
    assert half_interval([1.0]) == float("inf")
    found = cell(
        seconds=[outcome(1.1), outcome(2.1), outcome(3.1)],
        rival=[outcome(1.0), outcome(2.0), outcome(3.0)],
        slow=[outcome(9.0)] * 3,
    ).against_all(ttft)
    assert found.rival == "rival"  # the same seed is harder for both
    assert found.is_behind
    assert found.is_always_worse
    assert found.change == pytest.approx(0.05)


def test_within_noise_is_not_behind():
    found = cell(
        seconds=[outcome(2.0), outcome(1.0), outcome(1.5)],
        rival=[outcome(1.0), outcome(2.0), outcome(1.4)],
    ).against_all(ttft)
    assert not found.is_behind
    assert not found.is_always_worse


def test_tuned_baselines_count_only_where_they_should():
    result = cell(
        **{
            "seconds": [outcome(1.0, 0.10)] * 3,
            "plain": [outcome(2.0, 0.20)] * 3,
            "plain:weight=2": [outcome(0.8, 0.05)] * 3,
            "pooled_reference": [outcome(0.1, 0.0)] * 3,
        }
    )
    assert result.against_defaults(ttft).rival == "plain"
    assert result.against_defaults(misses).change == pytest.approx(-0.5)
    assert result.against_all(misses).rival == "plain:weight=2"
    text = "\n".join(summary_lines([result]))
    assert "mean TTFT: behind the best tuned baseline by more than noise in 1 of 1" in text
    assert "mean TTFT against the best baseline at its defaults: -50.0%" in text


def test_no_misses_are_no_change():
    result = cell(seconds=[outcome(1.0)] * 2, plain=[outcome(1.0)] * 2)
    assert "misses against the best baseline at its defaults: +0.0% over all cells" in "\n".join(
        summary_lines([result])
    )


def test_a_log_is_gone_on_from(tmp_path):
    log = tmp_path / "log"
    plays = [
        Play(Conditions("single_shots", 2, 1.0), policy, 0, 0.1)
        for policy in ("round_robin", "least_requests")
    ]
    with Runner(1, log) as runner:
        first = runner.run(plays)
    counts: list[tuple[int, int]] = []
    with Runner(1, log, again=("round_robin",)) as runner:
        second = runner.run(plays, lambda over, total: counts.append((over, total)))
    assert counts == [(1, 1)]
    assert [found.ttft_s for found in first.values()] == [found.ttft_s for found in second.values()]


@pytest.mark.parametrize("name", ["multi_turn", "agentic", "code_completion"])
def test_no_policy_is_faster_than_each_prompt_alone_beside_one_endless_cache(name: str):
    trace = traffic(name, 2, 0.05, 0, 0.1)
    settings = SimulationSettings(engine=profile("h100-llama-3.1-8b"), replicas=2, mismatch=0.3)
    least_s = unloaded_ttft_s(settings, trace)
    for policy in ("seconds", "round_robin"):
        ttft_s = run_policy(settings, trace, policy).results.ttft_s
        assert len(ttft_s) == len(least_s)
        for ours_s, bound_s in zip(ttft_s, least_s, strict=True):
            assert ours_s >= bound_s - 1e-9


def test_the_bound_is_told_as_a_share_of_the_best_default():
    found = cell(
        seconds=[outcome(1.1), outcome(1.1)],
        round_robin=[outcome(2.0), outcome(2.0)],
        preble_like=[outcome(1.0), outcome(1.0)],
        **{UNLOADED_REFERENCE: [outcome(0.9), outcome(0.9)]},
    )
    assert found.bound_share() == pytest.approx(0.9)
    assert found.against_all(ttft).rival == "preble_like"
    assert any("90% of the best default" in line for line in summary_lines([found]))
