"""A pool of two, whose replicas start in seconds: it comes down when load has gone."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from headrace.core.latency import LatencyProfile
from headrace.core.length_counter import LengthCounter
from headrace.core.scaling.observation import (
    GatewayReport,
    Phase,
    PoolObservation,
    ReplicaObservation,
)
from headrace.core.scaling.plan import ScalePlan
from headrace.core.scaling.settings import (
    ColdStart,
    EngineFigures,
    ScalingSettings,
    ScalingTarget,
)
from headrace.forecasting import pool_scaler
from tests.unit.core.scaling.world import TICK_S, World

STEP_S, SEQUENCE_S, SLOTS = 0.02, 0.004, 4
FIGURES = EngineFigures(
    LatencyProfile("small", "a test", STEP_S, SEQUENCE_S / 60, 0.0, 0.001, 0.0),
    kv_capacity_tokens=8192,
    max_sequences=SLOTS,
)
LARGE = EngineFigures(
    LatencyProfile("large", "a test", 0.015, 55e-6, 2e-9, 66e-6, 56e-9), kv_capacity_tokens=311_136
)
SETTINGS = ScalingSettings(
    max_replicas=2,
    warm_replicas=1,
    target=ScalingTarget(tpot_s=0.07),
    tick_s=1.0,
    cold_start=ColdStart(0.0, 0.0, 1.0, 3.0),
    idle_to_zero_s=90.0,
    scale_down_window_s=45.0,
)
COLD_START_S = 2.0
INPUT_TOKENS, OUTPUT_TOKENS = 25.0, 60.0
QUIET_S, BUSY_S = 20.0, 80.0
RAMP_ENDS_S = 780.0
KNOWN_S = 300.0
"""Nothing is lowered before demand is known for so long."""


class SmallPool:
    """Six streams one after another each, then a request every nine seconds."""

    def __init__(self, settings: ScalingSettings, streams: int = 6, tpot_ratio: float = 0.5):
        self.scaler = pool_scaler(settings, FIGURES)
        self.streams, self.tpot_ratio, self.standby = streams, tpot_ratio, settings.standby_replicas
        self.began_s = self.now = 1e6
        self.ready_at_s = {"r0": self.now - 5.0}
        self.requests = 0
        self.part = 0.0
        self.lengths = LengthCounter()
        self.plans: list[ScalePlan] = []

    def run(self, seconds: float) -> list[int]:
        """Play so long; the number at each tick."""
        while self.now < self.began_s + seconds:
            self._arrive()
            self.now += 1.0
            plan = self.scaler.tick(self._observation(), self.now)
            self.plans.append(plan)
            for _ in range(plan.order + len(plan.wake)):
                self.ready_at_s[f"r{len(self.plans)}"] = self.now + COLD_START_S
            for name in plan.drain:
                del self.ready_at_s[name]
        return [plan.replicas for plan in self.plans]

    def _arrive(self) -> None:
        into_s = self.now - self.began_s
        if into_s < QUIET_S:
            return
        each_s = OUTPUT_TOKENS * (STEP_S + SEQUENCE_S * self.streams / len(self.ready_at_s))
        self.part += self.streams / each_s if into_s < QUIET_S + BUSY_S else 1.0 / 9.0
        new, self.part = int(self.part), self.part - int(self.part)
        self.requests += new
        if new:
            self.lengths.add(INPUT_TOKENS, 0.0, OUTPUT_TOKENS, float(new))

    def _observation(self) -> PoolObservation:
        replicas = [
            ReplicaObservation(
                name,
                Phase.READY if ready_s <= self.now else Phase.STARTING,
                ready_s - COLD_START_S,
                ready_s if ready_s <= self.now else None,
                measured_age_s=0.5,
                running=0.5 if self.requests else 0.0,
                kv_usage_ratio=0.02,
            )
            for name, ready_s in self.ready_at_s.items()
        ]
        replicas += [ReplicaObservation(f"s{at}", Phase.STANDBY) for at in range(self.standby)]
        report = GatewayReport(
            "g",
            self.began_s - 10.0,
            requests=self.requests,
            input_tokens=self.requests * INPUT_TOKENS,
            output_tokens=self.requests * OUTPUT_TOKENS,
            lengths=self.lengths.sketch(),
            judged=self.requests,
            ttft_worst_ratio=0.3 if self.requests else 0.0,
            tpot_worst_ratio=self.tpot_ratio if self.requests else 0.0,
        )
        return PoolObservation(self.now, "pool", tuple(replicas), (report,), ("g",))


@pytest.mark.parametrize("standby", [0, 1])
def test_two_replicas_become_the_one_that_is_the_floor(standby: int):
    pool = SmallPool(replace(SETTINGS, standby_replicas=standby))
    numbers = pool.run(600.0)
    assert max(numbers) == 2
    assert numbers[int(KNOWN_S) + 60 :] == [1] * (600 - int(KNOWN_S) - 60)


def test_replicas_that_are_slow_when_idle_do_not_keep_more_of_them():
    pool = SmallPool(SETTINGS, tpot_ratio=1.4)
    numbers = pool.run(600.0)
    assert max(numbers) == 2
    assert numbers[-1] == 1
    latency = next(each for each in pool.plans[-1].signals if each.name == "slo_latency")
    assert "more would not help" in latency.why


def test_zero_is_reached_where_it_is_allowed():
    pool = SmallPool(replace(SETTINGS, min_replicas=0), streams=0)
    pool._arrive = lambda: None  # nobody ever asks
    assert pool.run(500.0)[-1] == 0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_pool_whose_replicas_start_in_seconds_comes_down_behind_a_ramp(seed: int):
    """0.3, 3, 0.3 requests/s of 8k prompts, by chance; ready after 10 s."""
    cold_start = ColdStart(0.0, 0.0, 1.0, 10.0)
    settings = replace(SETTINGS, max_replicas=8, tick_s=TICK_S, cold_start=cold_start)
    rng = Random(seed)

    def rate(now: float) -> float:
        rise, fall = 0.3 + 0.015 * (now - 300.0), 3.0 - 0.015 * (now - RAMP_ENDS_S + 180.0)
        mean = max(min(rise, fall, 3.0), 0.3)
        return sum(rng.random() < mean * TICK_S / 300.0 for _ in range(300)) / TICK_S

    scaler = pool_scaler(settings, LARGE)
    world = World(rate, settings, cold_start_s=10.0, scaler=scaler, input_tokens=8000.0)
    numbers = [plan.replicas for plan in world.run(1500.0).plans]
    assert max(numbers) >= 5
    down_s = RAMP_ENDS_S + settings.scale_down_window_s + 120.0
    assert max(numbers[int(down_s / TICK_S) :]) <= 2  # load is 0.5 and trembles
