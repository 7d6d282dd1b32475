"""Runs whose policy sees what no gateway can, in the same simulator: no information rule.

true_greedy, true_seconds   see `routing_true_state`
foreseeing                  see `routing_foresight`
"""

# ruff: noqa: SLF001 - it looks where nobody else may
from __future__ import annotations

import random
import time
from collections.abc import Callable

from benchmarks.routing_foresight import Foreseeing
from benchmarks.routing_true_state import TrueGreedy, TrueSeconds
from benchmarks.routing_truth import Truth
from headrace.core.candidates import Policy
from headrace.core.dispatcher import Dispatcher
from headrace.core.events import Effect
from headrace.core.flights import Flight
from headrace.core.model import PromptBlocks
from headrace.core.settings import DispatcherSettings
from headrace.simulator import driver
from headrace.simulator.driver import Simulation
from headrace.simulator.engines import engine_specs
from headrace.simulator.results import scores_of
from headrace.simulator.runs import PolicyRun, Workload
from headrace.simulator.settings import SimulationSettings

SEEING: dict[str, Callable[[Truth], Policy]] = {
    "true_greedy": TrueGreedy,
    "true_seconds": TrueSeconds,
    "foreseeing": Foreseeing,
}
STAND_IN = "seconds"
"""The name under which the core makes a policy, which is replaced at once."""


class _Dispatcher(Dispatcher):
    """Tells who is routed."""

    truth: Truth

    def _try(self, flight: Flight, now: float) -> list[Effect]:
        self.truth.row = int(flight.request.id[1:])
        return super()._try(flight, now)


class _Simulation(Simulation):
    """A run with one of `SEEING`."""

    def __init__(self, settings: SimulationSettings, policy: str, workload: Workload) -> None:
        self._known = list(workload.requests)
        tokens = workload.block_tokens
        super().__init__(settings, policy, engine_specs(settings), self._known, tokens)

    def _make_core(
        self, settings: DispatcherSettings, rng: random.Random, blocks: PromptBlocks
    ) -> Dispatcher:
        return _Dispatcher(settings, rng, blocks)

    def _begin(self, policy: str) -> None:
        core = self._core
        assert isinstance(core, _Dispatcher)
        core.truth = truth = Truth(
            lambda name: self._engines[name].model, self._known, self._block_tokens
        )
        super()._begin(STAND_IN)
        core._roster.policies[driver.POOL] = SEEING[policy](truth)


def run_seeing(settings: SimulationSettings, workload: Workload, policy: str) -> PolicyRun:
    """Play one of `SEEING` in this process."""
    began_s = time.perf_counter()
    results = _Simulation(settings, policy, workload).run()
    scores = scores_of(policy, results, settings.slo)
    return PolicyRun(policy, scores, results, time.perf_counter() - began_s)
