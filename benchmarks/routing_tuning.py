"""The best parameters of all baselines for a workload, which its cells then play.

Every combination of every policy's `SWEEP` is played at one load with one seed, which is among the
seeds of the cells: that favours the baselines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from benchmarks.routing_runs import Conditions, Outcome, Play, Runner
from headrace.core.policies import POLICIES
from headrace.simulator.sweep import combinations

OURS = "seconds"
TUNED = 8
"""Combinations that are handed on, of all baselines together."""
TUNING_SEED = 0


def baselines() -> list[str]:
    """All policies but ours, at their defaults."""
    return [name for name in sorted(POLICIES) if name != OURS]


def best(outcomes: Mapping[str, Outcome], count: int) -> list[str]:
    """The `count` best policies: in turn the next by misses and the next by mean TTFT."""
    by_misses = sorted(outcomes, key=lambda name: (outcomes[name].misses, outcomes[name].ttft_s))
    by_ttft = sorted(outcomes, key=lambda name: (outcomes[name].ttft_s, outcomes[name].misses))
    in_turn = [name for pair in zip(by_misses, by_ttft, strict=True) for name in pair]
    return list(dict.fromkeys(in_turn))[:count]


def tuned(
    runner: Runner, tunings: Sequence[Conditions], scale: float, done: Callable[[int, int], None]
) -> dict[Conditions, list[str]]:
    """The best combinations under each of the conditions, defaults not among them."""
    tried = [name for policy in baselines() for name in combinations(policy)[1:]]
    plays = {
        where: [Play(where, name, TUNING_SEED, scale) for name in tried]
        for where in dict.fromkeys(tunings)
    }
    outcomes = runner.run([play for some in plays.values() for play in some], done)
    return {
        where: best({play.policy: outcomes[play] for play in some}, TUNED)
        for where, some in plays.items()
    }
