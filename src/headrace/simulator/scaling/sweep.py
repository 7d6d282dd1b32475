"""Each baseline also at its best, so that nobody is compared with a straw man.

Every scaler names the values worth trying of its parameters; all combinations are played. The best
has the fewest replica-hours of those that reach the goal, or, where none does, the most attainment.
A fair score of a swept rule is from another week: it was fitted to this one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import NamedTuple

from headrace.simulator.scaling.scalers import NAMES, ORACLE, OWN, parameters_of, sweep_of
from headrace.simulator.scaling.scores import ScalingRun, ScalingScores


def combinations(scaler: str) -> list[str]:
    """What a sweep tries: first the scaler as it stands. One with parameters has nothing else, nor
    have `headrace`, which is to need none, and `oracle`, which is searched anyway.
    """
    tried = [scaler]
    if scaler in NAMES and scaler not in {ORACLE, OWN}:
        sweep, defaults = sweep_of(scaler), parameters_of(scaler)
        for values in product(*sweep.values()):
            given = dict(zip(sweep, values, strict=True))
            if given.get("down", 0.0) >= given.get("up", 1.0):
                continue  # thresholds that cross are no hysteresis
            if any(value != defaults[name] for name, value in given.items()):
                written = ",".join(f"{name}={value:g}" for name, value in given.items())
                tried.append(f"{scaler}:{written}")
    return tried


def best_at(goal: float, runs: Sequence[ScalingRun]) -> ScalingRun:
    """The cheapest that reaches the goal; where none does, the best attainment."""
    reached = [run for run in runs if run.scores.attainment >= goal]
    if reached:
        return min(reached, key=lambda run: run.scores.replica_hours)
    return max(runs, key=lambda run: run.scores.attainment)


def defaults_and_best(
    scalers: Sequence[str], runs: Iterable[ScalingRun], goal: float
) -> list[ScalingRun]:
    """Of each scaler the run as it stands, and behind it the best one if that is another."""
    by_name = {run.scores.scaler: run for run in runs}
    kept: list[ScalingRun] = []
    for scaler in scalers:
        tried = [by_name[written] for written in combinations(scaler)]
        best = best_at(goal, tried)
        kept += tried[:1] if best is tried[0] else [tried[0], best]
    return kept


def better_in_both(runs: Sequence[ScalingScores]) -> list[ScalingScores]:
    """Baselines with more attainment and fewer replica-hours than `headrace`."""
    own = next((run for run in runs if run.scaler == OWN), None)
    if own is None:
        return []
    return [run for run in runs if not is_reference(run.scaler) and run.beats(own)]


class Cheapest(NamedTuple):
    """Of the runs that reach the goal, those with the fewest replica-hours."""

    own: ScalingScores
    baseline: ScalingScores
    oracle: ScalingScores


def cheapest_at(runs: Sequence[ScalingScores], goal: float) -> Cheapest | None:
    """What is compared at the goal; None where one of the three does not reach it."""
    reached = [run for run in runs if run.attainment >= goal]
    own = [run for run in reached if run.scaler.partition(":")[0] == OWN]
    baselines = [run for run in reached if not is_reference(run.scaler)]
    oracle = [run for run in reached if run.scaler.partition(":")[0] == ORACLE]
    if not (own and baselines and oracle):
        return None
    return Cheapest(*(min(each, key=_replica_hours) for each in (own, baselines, oracle)))


def gap_closed(runs: Sequence[ScalingScores], goal: float) -> float | None:
    """What part of the way from the best baseline to the oracle `headrace` goes, at the goal.

    In replica-hours; None where one of the three does not reach it, or where `headrace` is not
    between the other two, so that it is no part.
    """
    cheapest = cheapest_at(runs, goal)
    if cheapest is None:
        return None
    own, baseline, oracle = map(_replica_hours, cheapest)
    if not oracle <= own <= baseline or oracle == baseline:
        return None
    return (baseline - own) / (baseline - oracle)


def _replica_hours(run: ScalingScores) -> float:
    return run.replica_hours


def is_reference(scaler: str) -> bool:
    """Whether it is `headrace` or the oracle rather than a baseline."""
    return scaler.partition(":")[0] in {OWN, ORACLE}
