"""Headrace's own scaler, the object that runs live: `core.scaling.decision` with its forecast.

It is told what a gateway and a fleet tell it, no more: totals of requests, tokens and misses, the
lengths of requests that ended, and each replica's phase, queue and KV usage. It asks for a number
through KEDA, whose HPA has tolerance 0 and no window of its own, since the core has both.

What came before a demand is learned first, as live from Prometheus or a file, and cold starts are
expected to take what they do: who has a past has measured them.

`attainment` is the share that must meet its targets (the goal of the comparison if none is given).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import exp, log

from headrace.core.length_counter import LengthCounter
from headrace.core.length_sketch import LengthSketch
from headrace.core.scaling.demand_history import DemandSample
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
from headrace.engine_model.spec import EngineSpec
from headrace.forecasting import pool_scaler
from headrace.simulator.scaling.actuation import DIRECT
from headrace.simulator.scaling.fleet import SimulatedFleet
from headrace.simulator.scaling.reading import NOBODY, Reading
from headrace.simulator.scaling.settings import ScalingSimulation

POOL = "pool"
GATEWAY = "gateway"
SKETCH_EVERY_S = 60.0
"""How often the lengths are told anew: they change slowly, and are the largest part of a report."""
STEPS, TOKEN_STEPS, PACE_STEPS = 0.02, 512.0, 0.02
"""Of a KV usage, of waiting tokens and, as a share, of the time per token as they are told; finer
ones would only make new objects."""


class Headrace:
    """See the module. `plan` is the last one, with its reasons."""

    def __init__(
        self,
        settings: ScalingSimulation,
        *,
        attainment: float = 0.0,
    ) -> None:
        self.behaviour = DIRECT
        self.period_s = settings.sync_s
        slo = settings.slo
        target = ScalingTarget(slo.ttft_s, slo.tpot_s, attainment or settings.goal)
        scaling = ScalingSettings(
            min_replicas=settings.min_replicas,
            max_replicas=settings.max_replicas,
            warm_replicas=min(settings.min_replicas, settings.max_replicas),
            target=target,
            tick_s=settings.sync_s,
        )
        self._scaler = pool_scaler(scaling, engine_figures(settings.engine))
        self._slo = slo
        self._cold_start_s = settings.cold_start_s
        self._lengths = LengthCounter()
        self._counted = 0.0
        self._sketch = LengthSketch()
        self._sketched_s = -SKETCH_EVERY_S
        self._replicas: tuple[ReplicaObservation, ...] = ()
        self._replicas_of: tuple[int, ...] = ()
        self.plan: ScalePlan | None = None
        self.wished_first: tuple[str, ...] = ()

    def learn(self, history: Sequence[DemandSample]) -> None:
        """Take what came before."""
        cold_start = ColdStart(0.0, 0.0, 1.0, self._cold_start_s)
        self._scaler.settings = replace(self._scaler.settings, cold_start=cold_start)
        self._scaler.learn(history)

    def wish(self, reading: Reading) -> int:
        """The plan's number."""
        observation = PoolObservation(
            reading.now,
            POOL,
            replicas=self._observed(reading),
            gateways=(self._report(reading),),
            expected_gateways=(GATEWAY,),
        )
        self.plan = self._scaler.tick(observation, reading.now)
        self.wished_first = self.plan.drain
        return self.plan.replicas

    def _report(self, reading: Reading) -> GatewayReport:
        totals = reading.totals
        self._count_lengths(reading)
        return GatewayReport(
            GATEWAY,
            0.0,
            requests=totals.requests,
            input_tokens=totals.input_tokens,
            uncached_tokens=totals.input_tokens,
            output_tokens=totals.output_tokens,
            lengths=self._sketch,
            judged=totals.judged,
            ttft_misses=totals.ttft_misses,
            tpot_misses=totals.tpot_misses,
            ttft_worst_ratio=reading.ttft_p90_s / self._slo.ttft_s,
            tpot_worst_ratio=reading.tpot_p90_s / self._slo.tpot_s,
            held_requests=reading.held_requests,
            held_input_tokens=reading.held_input_tokens,
            refused_requests=totals.refused,
            refused_input_tokens=totals.refused_input_tokens,
        )

    def _count_lengths(self, reading: Reading) -> None:
        if reading.now - self._sketched_s < SKETCH_EVERY_S - 1e-9:
            return
        self._sketched_s = reading.now
        ended = reading.totals.judged - self._counted
        if ended <= 0.0:
            return
        self._counted = reading.totals.judged
        for weight, prompt, answer in reading.mix.points:
            self._lengths.add(prompt, 0.0, answer, requests=weight * ended)
        self._sketch = self._lengths.sketch()

    def _observed(self, reading: Reading) -> tuple[ReplicaObservation, ...]:
        fleet = reading.fleet
        ready = max(len(fleet.ready), 1)
        usage = round(reading.kv_usage / ready / STEPS)
        queue = round((reading.queue_depth - reading.held_requests) / ready)
        tokens = round(reading.waiting_input_tokens / ready / TOKEN_STEPS)
        pace = round(log(reading.tpot_mean_s) / PACE_STEPS) if reading.tpot_mean_s > 0.0 else None
        runs = reading.running > NOBODY
        told = (fleet.version, usage, queue, tokens, 0 if pace is None else pace, runs)
        if self._replicas_of != told:
            self._replicas_of = told
            each = ReplicaObservation(
                "",
                Phase.READY,
                measured_age_s=0.0,
                queue_depth=float(queue),
                waiting_prefill_tokens=tokens * TOKEN_STEPS,
                running=reading.running / ready if runs else 0.0,
                kv_usage_ratio=usage * STEPS,
                decode_step_s=None if pace is None else exp(pace * PACE_STEPS),
                decoding_context_tokens=usage * STEPS * self._scaler.figures.kv_capacity_tokens,
            )
            self._replicas = tuple(_observations(fleet, each))
        return self._replicas


def engine_figures(engine: EngineSpec) -> EngineFigures:
    """An engine's numbers, as the core takes them."""
    figures = EngineFigures(
        engine.latency,
        engine.kv_capacity_tokens,
        engine.max_sequences,
        engine.max_batched_tokens,
        engine.gpus,
    )
    return figures.priced_by(engine.latency)


def _observations(fleet: SimulatedFleet, ready: ReplicaObservation) -> list[ReplicaObservation]:
    """All replicas, those that are ready as `ready` but for their names and times."""
    told = [
        replace(ready, name=each.name, ordered_at_s=each.ordered_s, ready_at_s=each.ready_s)
        for each in fleet.ready
    ]
    told += [ReplicaObservation(e.name, Phase.STARTING, e.ordered_s) for e in fleet.starting]
    told += [
        ReplicaObservation(e.name, Phase.DRAINING, e.ordered_s, e.ready_s)
        for _, e in fleet.draining
    ]
    return told


SCALER = Headrace
SWEEP = {"attainment": (0.9, 0.95, 0.98, 0.985, 0.99, 0.9925, 0.995, 0.9975, 0.999)}
