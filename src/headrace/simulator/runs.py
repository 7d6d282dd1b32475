"""Several policies against one workload, one process each where there are cores.

`pooled_reference` is no policy but all replicas as one engine with the union of their KV, so that
there is nothing to route; the gap between a policy and it is the most that routing can lose.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Protocol

from headrace.simulator.driver import Simulation
from headrace.simulator.engines import engine_specs, pooled
from headrace.simulator.results import Results, Scores, scores_of
from headrace.simulator.settings import SimulationSettings
from headrace.traffic.trace import TraceRequest

POOLED_REFERENCE = "pooled_reference"
ANY_POLICY = "round_robin"
"""Of one engine every policy makes the same choice; this one takes the least time for it."""
LOOK_S = 0.1
"""How often the progress of other processes is looked at."""


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
    results = simulation.run(report)
    scores = scores_of(policy, results, settings.slo)
    return PolicyRun(policy, scores, results, time.perf_counter() - began_s)


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
    processes = min(processes, len(policies))
    if processes < 2:
        for policy in policies:
            yield run_policy(settings, workload, policy, lambda over, p=policy: report(p, over))
        return
    context = _context()
    over = context.Array("q", len(policies), lock=False)
    executor = ProcessPoolExecutor(
        processes, mp_context=context, initializer=_adopt, initargs=(settings, workload, over)
    )
    with executor:
        futures = [executor.submit(_play, i, policy) for i, policy in enumerate(policies)]
        try:
            for future in futures:
                _watch(future, policies, over, report)
                yield future.result()
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise


def _watch(
    future: Future[PolicyRun], policies: Sequence[str], over: Sequence[int], report: Report
) -> None:
    while not wait((future,), LOOK_S).done:
        for i, policy in enumerate(policies):
            report(policy, over[i])


# ---- in the other processes

_shared: tuple[SimulationSettings, Workload, Any] | None = None


def _adopt(settings: SimulationSettings, workload: Workload, over: Any) -> None:  # noqa: ANN401 - an Array
    # Ctrl-C reaches all processes of a terminal: who plays has nothing to say about it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    global _shared  # noqa: PLW0603 - a worker process has no other place for what all its runs share
    _shared = (settings, workload, over)


def _play(place: int, policy: str) -> PolicyRun:
    assert _shared is not None
    settings, workload, over = _shared

    def note(count: int) -> None:
        over[place] = count

    return run_policy(settings, workload, policy, note)


def _context() -> Any:  # noqa: ANN401 - the stubs give each start method a class of its own
    """Forked processes share the trace; elsewhere it is sent to them."""
    methods = multiprocessing.get_all_start_methods()
    return multiprocessing.get_context("fork" if "fork" in methods else "spawn")
