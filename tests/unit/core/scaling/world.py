"""A pool under a steady or changing demand, as gateways and a fleet would tell a scaler of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

from headrace.core.latency import LatencyProfile
from headrace.core.length_counter import LengthCounter
from headrace.core.scaling.decision import PoolScaler
from headrace.core.scaling.observation import (
    GatewayReport,
    Phase,
    PoolObservation,
    ReplicaObservation,
)
from headrace.core.scaling.plan import ScalePlan
from headrace.core.scaling.settings import ColdStart, EngineFigures, ScalingSettings
from headrace.forecasting import pool_scaler

FIGURES = EngineFigures(
    LatencyProfile("test", "a test", 0.007, 22e-6, 1e-9, 34e-6, 56e-9), kv_capacity_tokens=438_880
)
SETTINGS = ScalingSettings(
    min_replicas=1,
    max_replicas=64,
    warm_replicas=1,
    cold_start=ColdStart(0.0, 0.0, 1.0, 240.0),
)
INPUT_TOKENS, OUTPUT_TOKENS = 400.0, 300.0
TICK_S = 15.0


class World:
    """Ticks a scaler with `rate(now)` requests/s; what it orders is ready after `cold_start_s`.

    `spoil` may change each observation before the scaler sees it. `plans` are all plans so far.
    """

    def __init__(
        self,
        rate: Callable[[float], float],
        settings: ScalingSettings = SETTINGS,
        *,
        replicas: int = 1,
        gateways: int = 1,
        cold_start_s: float = 240.0,
        scaler: PoolScaler | None = None,
        input_tokens: float = INPUT_TOKENS,
    ) -> None:
        self.input_tokens = input_tokens
        self.rate = rate
        self.settings = settings
        self.scaler = scaler or pool_scaler(settings, FIGURES)
        self.cold_start_s = cold_start_s
        self.now = 0.0
        self.plans: list[ScalePlan] = []
        self.spoil: Callable[[PoolObservation], PoolObservation] = lambda observation: observation
        self.gateways = [f"gateway-{number}" for number in range(gateways)]
        self.totals = dict.fromkeys(self.gateways, 0.0)
        self.lengths = {name: LengthCounter() for name in self.gateways}
        self.running: dict[str, tuple[float, float]] = {
            f"replica-{number:03d}": (0.0, 0.0) for number in range(replicas)
        }
        self._serial = replicas
        self.seen = self.observation()

    @property
    def plan(self) -> ScalePlan:
        return self.plans[-1]

    def run(self, seconds: float) -> World:
        """Play on."""
        until_s = self.now + seconds
        while self.now < until_s - 1e-6:
            self.step()
        return self

    def step(self) -> ScalePlan:
        arrived = self.rate(self.now) * TICK_S / len(self.gateways)
        self.now += TICK_S
        for name in self.gateways:
            self.totals[name] += arrived
            self.lengths[name].add(self.input_tokens, 0.0, OUTPUT_TOKENS, arrived)
        self.seen = self.spoil(self.observation())
        plan = self.scaler.tick(self.seen, self.now)
        self.plans.append(plan)
        self.carry_out(plan)
        return plan

    def observation(self) -> PoolObservation:
        return PoolObservation(
            self.now,
            "pool",
            tuple(self._replica(name) for name in sorted(self.running)),
            tuple(self._report(name) for name in self.gateways),
            tuple(self.gateways),
        )

    def carry_out(self, plan: ScalePlan) -> None:
        for name in plan.drain:
            del self.running[name]
        for _ in range(plan.order):
            name = f"replica-{self._serial:03d}"
            self.running[name] = (self.now, self.now + self.cold_start_s)
            self._serial += 1

    def changes(self) -> int:
        """How often the number changed."""
        numbers = [plan.replicas for plan in self.plans]
        return sum(a != b for a, b in pairwise(numbers))

    def _report(self, name: str) -> GatewayReport:
        total = self.totals[name]
        return GatewayReport(
            name,
            0.0,
            reported_at_s=self.now,
            requests=total,
            input_tokens=total * self.input_tokens,
            uncached_tokens=total * self.input_tokens,
            output_tokens=total * OUTPUT_TOKENS,
            lengths=self.lengths[name].sketch(),
            judged=total,
        )

    def _replica(self, name: str) -> ReplicaObservation:
        ordered_s, ready_s = self.running[name]
        if ready_s > self.now:
            return ReplicaObservation(name, Phase.STARTING, ordered_s)
        return ReplicaObservation(
            name, Phase.READY, ordered_s, ready_s, measured_age_s=1.0, running=10.0,
            kv_usage_ratio=0.3, waiting_prefill_tokens=0.0,
        )  # fmt: skip


def each_report(
    change: Callable[[GatewayReport], GatewayReport | None],
) -> Callable[[PoolObservation], PoolObservation]:
    """A spoiler that changes reports, or drops them."""

    def spoil(observation: PoolObservation) -> PoolObservation:
        changed = [change(report) for report in observation.gateways]
        return replace(observation, gateways=tuple(each for each in changed if each is not None))

    return spoil


def each_replica(**fields: Any) -> Callable[[PoolObservation], PoolObservation]:
    """A spoiler that sets fields of ready replicas."""

    def spoil(observation: PoolObservation) -> PoolObservation:
        changed = tuple(
            replace(replica, **fields) if replica.phase is Phase.READY else replica
            for replica in observation.replicas
        )
        return replace(observation, replicas=changed)

    return spoil
