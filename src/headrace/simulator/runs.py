"""One policy, or several side by side, against one workload.

`pooled_reference` is no policy but all replicas as one engine with the union of their KV, so that
there is nothing to route; the gap between a policy and it is the most that routing can lose.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from headrace.simulator.driver import Simulation
from headrace.simulator.engines import engine_specs, pooled
from headrace.simulator.results import Results, Scores, scores_of
from headrace.simulator.settings import SimulationSettings
from headrace.simulator.side_by_side import side_by_side
from headrace.traffic.trace import TraceRequest

POOLED_REFERENCE = "pooled_reference"
ANY_POLICY = "round_robin"
"""Of one engine every policy makes the same choice; this one takes the least time for it."""
COLLECT_EVERY = (100_000, 50, 100)
"""Allocations before the youngest objects are searched for cycles, and how many such searches come
before the older ones'."""


class Workload(Protocol):
    """What arrives. `requests` may make them on the way, anew for each policy."""

    @property
    def block_tokens(self) -> int:
        """Tokens behind each block id."""
        ...

    @property
    def requests(self) -> Iterable[TraceRequest]:
        """In order of arrival."""
        ...


@dataclass(frozen=True, slots=True)
class PolicyRun:
    """One policy's results. `wall_s` is the time that its simulation took."""

    policy: str
    scores: Scores
    results: Results
    wall_s: float


Report = Callable[[str, int], None]
"""Takes a policy and how many of its requests are over."""


def run_policy(
    settings: SimulationSettings,
    workload: Workload,
    policy: str,
    report: Callable[[int], None] | None = None,
) -> PolicyRun:
    """Play one policy in this process; `report` takes how many requests are over."""
    began_s = time.perf_counter()
    specs = engine_specs(settings)
    is_pooled = policy == POOLED_REFERENCE
    if is_pooled:
        specs = [pooled(specs)]
    rule = ANY_POLICY if is_pooled else policy
    simulation = Simulation(settings, rule, specs, workload.requests, workload.block_tokens)
    with _rarely_collected():
        results = simulation.run(report)
    scores = scores_of(policy, results, settings.slo)
    return PolicyRun(policy, scores, results, time.perf_counter() - began_s)


@contextmanager
def _rarely_collected() -> Iterator[None]:
    """Search for cycles rarely: a request leaves none, and walking through those in flight, which
    are many, would take a tenth of the time.
    """
    before = gc.get_threshold()
    gc.set_threshold(*COLLECT_EVERY)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def run_policies(
    settings: SimulationSettings,
    workload: Workload,
    policies: Sequence[str],
    *,
    processes: int,
    report: Report,
) -> Iterator[PolicyRun]:
    """Play each policy; the runs come in the order of `policies`, whoever is done first.

    Raises what a run raises.
    """
    play = partial(run_policy, settings, workload)
    return side_by_side(
        play, policies, processes=processes, report=lambda policy, over: report(policy, int(over))
    )
