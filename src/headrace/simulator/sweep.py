"""The best parameters of each policy for one workload, so that nobody is compared with a straw man.

Every policy module names the values worth trying of its parameters (`SWEEP`); all combinations are
played, the defaults too. The best has the highest goodput share, and of equal ones the lowest mean
TTFT; of still equal ones the first, and the defaults come first.

What is found so fits the workload that it was found on. A fair score of a tuned rule is from
another seed, or another part of the trace.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product

from headrace.core.policies import POLICIES, parameters_of, sweep_of
from headrace.simulator.runs import PolicyRun


def combinations(policy: str) -> list[str]:
    """What a sweep tries of a policy, as it is written: first the policy as it stands, then with
    those parameters that differ from their defaults.

    A policy that comes with parameters of its own (`name:parameter=number`) and the pooled
    reference have nothing else to try.
    """
    tried = [policy]
    if policy in POLICIES:
        sweep, defaults = sweep_of(policy), parameters_of(policy)
        for values in product(*sweep.values()):
            given = dict(zip(sweep, values, strict=True))
            differing = {name: value for name, value in given.items() if value != defaults[name]}
            if differing:
                written = ",".join(f"{name}={value:g}" for name, value in differing.items())
                tried.append(f"{policy}:{written}")
    return tried


def defaults_and_best(policies: Sequence[str], runs: Iterable[PolicyRun]) -> list[PolicyRun]:
    """Of each policy the run as it stands, and behind it the best run if that is another one.

    `runs` hold those of all `combinations` of the policies.
    """
    by_policy = {run.policy: run for run in runs}
    kept: list[PolicyRun] = []
    for policy in policies:
        tried = [by_policy[written] for written in combinations(policy)]
        best = best_of(tried)
        kept += tried[:1] if best is tried[0] else [tried[0], best]
    return kept


def best_of(runs: Sequence[PolicyRun]) -> PolicyRun:
    """The highest goodput share; of equal ones the lowest mean TTFT, then the first."""
    return min(runs, key=lambda run: (-run.scores.goodput_share, run.scores.ttft_s.mean))
