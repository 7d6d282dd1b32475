"""The best parameters of each policy for one workload, so that nobody is compared with a straw man.

Every policy module names the values worth trying of its parameters (`SWEEP`); all combinations are
played, the defaults too. The best has the highest goodput share, and of equal ones the lowest mean
TTFT; of still equal ones the first, and the defaults come first.

What is found so fits the workload that it was found on. A fair score of a tuned rule is from
another seed, or another part of the trace.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from headrace.core.policies import parameters_of, sweep_of
from headrace.simulator.results import Scores
from headrace.simulator.runs import Report, Workload, run_policies
from headrace.simulator.settings import SimulationSettings


@dataclass(frozen=True, slots=True)
class Tuned:
    """What a sweep found for one policy.

    `best` is how the policy is written with its best parameters, its bare name if these are the
    defaults. `scores` are those of every combination in the order they were tried, the defaults
    first; each names its combination as its policy.
    """

    policy: str
    best: str
    scores: tuple[Scores, ...]

    @property
    def default_scores(self) -> Scores:
        """With the parameters as they come."""
        return self.scores[0]

    @property
    def best_scores(self) -> Scores:
        """With the best ones."""
        return next(scores for scores in self.scores if scores.policy == self.best)


def combinations(policy: str) -> tuple[str, ...]:
    """What a sweep tries of the policy with this name, as it is written; the defaults first.

    A policy that comes with parameters of its own (`name:parameter=number`) is tried as it stands.
    """
    if ":" in policy:
        return (policy,)
    sweep, defaults = sweep_of(policy), parameters_of(policy)
    tried = [policy]
    for values in product(*sweep.values()):
        given = dict(zip(sweep, values, strict=True))
        if any(value != defaults[name] for name, value in given.items()):
            written = ",".join(f"{name}={value:g}" for name, value in given.items())
            tried.append(f"{policy}:{written}")
    return tuple(tried)


def sweep(
    settings: SimulationSettings,
    workload: Workload,
    policies: Sequence[str],
    *,
    processes: int,
    report: Report,
) -> Iterator[Tuned]:
    """Play all combinations of each policy; what was found comes in the order of `policies`.

    `report` takes a combination as it is written and how many of its requests are over.
    """
    tried = {policy: combinations(policy) for policy in policies}
    texts = [text for combination in tried.values() for text in combination]
    runs = run_policies(settings, workload, texts, processes=processes, report=report)
    for policy, combination in tried.items():
        scores = tuple(next(runs).scores for _ in combination)
        yield Tuned(policy, best_of(scores).policy, scores)


def best_of(scores: Sequence[Scores]) -> Scores:
    """The highest goodput share; of equal ones the lowest mean TTFT, then the first."""
    return min(scores, key=lambda each: (-each.goodput_share, each.ttft_s.mean))
