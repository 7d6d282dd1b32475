"""One scaler against a demand, as a fluid."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import ceil, nan

from headrace.simulator.scaling.actuation import Actuator
from headrace.simulator.scaling.demand import Demand
from headrace.simulator.scaling.fleet import SimulatedFleet
from headrace.simulator.scaling.fluid import FluidPool
from headrace.simulator.scaling.reading import Reading
from headrace.simulator.scaling.scalers import Scaler, make_scaler
from headrace.simulator.scaling.scores import ScalingRun, ScalingScores, Timeline
from headrace.simulator.scaling.settings import ScalingSimulation

FIRST_MARGIN = 1.25
"""All start with this many times the replicas that the first minute takes."""
FIRST_S = 60.0
LOOKS_PER_REPORT = 256

OnProgress = Callable[[float], None]
"""Takes the share that is done."""


def run_fluid(
    settings: ScalingSimulation,
    demand: Demand,
    written: str,
    on_progress: OnProgress | None = None,
) -> ScalingRun:
    """Play one scaler, given by name with parameters."""
    began_s = time.perf_counter()
    run = _FluidRun(settings, demand, make_scaler(written, settings, demand))
    run.play(on_progress)
    return ScalingRun(run.scores(written), run.timeline, time.perf_counter() - began_s)


def first_replicas(settings: ScalingSimulation, demand: Demand) -> int:
    """How many there are when the trace begins."""
    ticks = min(max(int(FIRST_S / demand.tick_s), 1), demand.ticks)
    per_step_s, tpot_s = settings.engine.latency.per_step_s, settings.slo.tpot_s
    load = sum(
        demand.requests[tick] / demand.mix(tick).rate_at(tpot_s, per_step_s)
        for tick in range(ticks)
    ) / (ticks * demand.tick_s)
    least = max(settings.min_replicas, 1)
    return min(max(ceil(FIRST_MARGIN * load), least), settings.max_replicas)


class _FluidRun:
    def __init__(self, settings: ScalingSimulation, demand: Demand, scaler: Scaler) -> None:
        self.settings = settings
        self.demand = demand
        self.scaler = scaler
        self.pool = FluidPool(settings, demand)
        first = getattr(scaler, "starts_with", 0) or first_replicas(settings, demand)
        first = min(max(first, settings.min_replicas), settings.max_replicas)
        self.fleet = SimulatedFleet(first, settings.cold_start_s)
        self.timeline = Timeline()
        self._actuator = Actuator(scaler.behaviour, settings.min_replicas, settings.max_replicas)
        self._seen_requests = self._seen_inputs = self._seen_outputs = 0.0
        self._seen_s = 0.0
        self._noted_tick = 0
        self._next_note_s = settings.sync_s

    def play(self, on_progress: OnProgress | None) -> None:
        """From the first tick to the last, then on until all has ended."""
        demand, fleet, dt = self.demand, self.fleet, self.demand.tick_s
        tick = looks = 0
        next_look_s = self.scaler.period_s
        while tick < demand.ticks:
            until_s = min(next_look_s, fleet.next_ready_s())
            last = min(max(ceil(until_s / dt - 1e-6), tick + 1), demand.ticks)
            self.pool.advance(tick, last, len(fleet.ready))
            tick = last
            now = tick * dt
            fleet.become_ready(now)
            fleet.let_go(now)
            if now >= next_look_s - 1e-6:
                next_look_s += self.scaler.period_s
                self._look(tick, now)
                looks += 1
                if on_progress is not None and looks % LOOKS_PER_REPORT == 0:
                    on_progress(tick / demand.ticks)
        self.pool.finish(len(fleet.ready))

    def scores(self, written: str) -> ScalingScores:
        """The judgement."""
        pool, fleet = self.pool, self.fleet
        arrived = pool.totals.requests
        return ScalingScores(
            written,
            pool.met / arrived if arrived else 1.0,
            pool.met_tokens / pool.tokens if pool.tokens else 1.0,
            fleet.replica_hours(self.demand.end_s),
            fleet.peak,
            fleet.changes,
        )

    def _look(self, tick: int, now: float) -> None:
        reading = self._reading(tick, now)
        wish = self.scaler.wish(reading)
        if now >= self._next_note_s - 1e-6:
            self._next_note_s += self.settings.sync_s
            self._note(tick, reading)
        if now >= self.demand.end_s - 1e-6:
            return
        fleet = self.fleet
        number = self._actuator.number(wish, fleet.number, now)
        if number == fleet.number:
            return
        before = len(fleet.ready)
        first = getattr(self.scaler, "wished_first", ())
        leaving = fleet.scale_to(number, now, first)
        if leaving:
            drain_s = self.pool.drain(len(leaving), before, reading.mix)
            fleet.set_gone(leaving, now + drain_s)

    def _reading(self, tick: int, now: float) -> Reading:
        pool, fleet, totals = self.pool, self.fleet, self.pool.totals
        mix = self.demand.mix(tick - 1)
        span_s = max(now - self._seen_s, 1e-9)
        requests_per_s = (totals.requests - self._seen_requests) / span_s
        inputs_per_s = (totals.input_tokens - self._seen_inputs) / span_s
        totals.output_tokens = pool.output_tokens
        outputs_per_s = (totals.output_tokens - self._seen_outputs) / span_s
        self._seen_s = now
        self._seen_requests, self._seen_inputs = totals.requests, totals.input_tokens
        self._seen_outputs = totals.output_tokens
        return Reading(
            now,
            len(fleet.ready),
            fleet.number,
            requests_per_s,
            inputs_per_s,
            outputs_per_s,
            pool.ttft_p90_s,
            pool.tpot_p90_s,
            pool.tpot_mean_s,
            pool.waiting,
            pool.waiting_input_tokens(mix, requests_per_s),
            pool.running,
            pool.kv_usage(mix),
            mix,
            totals,
            fleet,
        )

    def _note(self, tick: int, reading: Reading) -> None:
        timeline = self.timeline
        rate = reading.mix.rate_at(
            self.settings.slo.tpot_s, self.settings.engine.latency.per_step_s
        )
        plan = getattr(self.scaler, "plan", None)
        outlook = None if plan is None else plan.outlook
        timeline.at_s.append(reading.now)
        timeline.demand.append(reading.requests_per_s / rate)
        timeline.forecast.append(nan if outlook is None else outlook.high)
        timeline.ready.append(reading.ready)
        timeline.ordered.append(reading.number)
        timeline.missed.append(sum(self.pool.misses_of[self._noted_tick : tick]))
        self._noted_tick = tick
