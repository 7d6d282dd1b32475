"""Simulated runs in processes of their own; a later call goes on from the log of an earlier one."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from benchmarks.routing_bound import UNLOADED_REFERENCE, unloaded_ttft_s
from benchmarks.routing_seeing import SEEING, run_seeing
from benchmarks.routing_workloads import traffic
from headrace.edges.end_with_parent import end_with_parent
from headrace.engine_model.profiles import profile
from headrace.simulator.results import distribution
from headrace.simulator.runs import run_policy
from headrace.simulator.settings import SimulationSettings
from headrace.traffic.trace import Trace

PROFILE = "h100-llama-3.1-8b"


class Conditions(NamedTuple):
    """Under which a policy is played."""

    workload: str
    replicas: int
    speed: float
    mismatch: float = 0.0
    lag_s: float = 1.0
    index_kind: str = "approximate"
    period_s: float = 1.0
    """How often metrics are scraped."""


class Play(NamedTuple):
    """One policy, one seed."""

    conditions: Conditions
    policy: str
    seed: int
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it; `misses` is 1 − goodput share."""

    ttft_s: float
    ttft_p99_s: float
    tpot_s: float
    misses: float
    hit_ratio: float
    requests: int
    wall_s: float


def played(play: Play) -> Outcome:
    """Play it in this process."""
    where = play.conditions
    trace = traffic(where.workload, where.replicas, where.speed, play.seed, play.scale)
    settings = SimulationSettings(
        engine=profile(PROFILE),
        replicas=where.replicas,
        mismatch=where.mismatch,
        scrape_lag_s=where.lag_s,
        scrape_period_s=where.period_s,
        kv_events=where.index_kind == "exact",
        seed=play.seed,
    )
    if play.policy == UNLOADED_REFERENCE:
        return _bound(settings, trace)
    run_one = run_seeing if play.policy in SEEING else run_policy
    run = run_one(settings, trace, play.policy)
    scores = run.scores
    return Outcome(
        round(scores.ttft_s.mean, 6),
        round(scores.ttft_s.p99, 6),
        round(scores.tpot_s.mean, 6),
        round(1 - scores.goodput_share, 6),
        round(scores.hit_ratio, 4),
        scores.requests,
        round(run.wall_s, 3),
    )


def _bound(settings: SimulationSettings, trace: Trace) -> Outcome:
    """Nothing is played, so there is no TPOT and no hit ratio of engines."""
    alone_s = unloaded_ttft_s(settings, trace)
    ttft_s, requests = distribution(alone_s), len(alone_s)
    misses = sum(each > settings.slo.ttft_s for each in alone_s) / requests
    return Outcome(
        round(ttft_s.mean, 6), round(ttft_s.p99, 6), 0.0, round(misses, 6), 0.0, requests, 0.0
    )


class Runner:
    """Plays on several processes. With a log, what stands there is not played again."""

    def __init__(self, jobs: int, log: Path | None, again: Iterable[str] = ()) -> None:
        self._log = log
        self._known: dict[Play, Outcome] = {}
        if log is not None and log.exists():
            self._known = _logged(log, tuple(again))
        context = multiprocessing.get_context("fork")
        self._executor = ProcessPoolExecutor(jobs, mp_context=context, initializer=end_with_parent)

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._executor.shutdown(wait=error is None, cancel_futures=error is not None)

    def run(
        self, plays: Iterable[Play], done: Callable[[int, int], None] = lambda *_: None
    ) -> dict[Play, Outcome]:
        """Play all that is not known yet; `done` takes how many are over, of how many."""
        plays = list(plays)
        waiting = [play for play in dict.fromkeys(plays) if play not in self._known]
        futures = {self._executor.submit(played, play): play for play in waiting}
        for over, future in enumerate(as_completed(futures), 1):
            self._note(futures[future], future.result())
            done(over, len(waiting))
        return {play: self._known[play] for play in plays}

    def _note(self, play: Play, outcome: Outcome) -> None:
        self._known[play] = outcome
        if self._log is not None:
            with self._log.open("a", encoding="utf-8") as log:
                log.write(json.dumps([play, asdict(outcome)]) + "\n")


def _logged(log: Path, again: tuple[str, ...]) -> dict[Play, Outcome]:
    """What the log holds, without the policies that are to be played again."""
    known: dict[Play, Outcome] = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        (conditions, policy, seed, scale), outcome = json.loads(line)
        if policy.partition(":")[0] not in again:
            known[Play(Conditions(*conditions), policy, seed, scale)] = Outcome(**outcome)
    return known
