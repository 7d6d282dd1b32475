"""One scaler against a demand, as a fluid."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from math import ceil
from typing import NamedTuple

from headrace.simulator.scaling.control_loop import ControlLoop
from headrace.simulator.scaling.demand import Demand
from headrace.simulator.scaling.fluid import FluidPool
from headrace.simulator.scaling.held import HeldPool
from headrace.simulator.scaling.reading import Reading
from headrace.simulator.scaling.scalers import make_scaler
from headrace.simulator.scaling.scores import ScalingRun, ScalingScores
from headrace.simulator.scaling.settings import (
    HOLDING_POLICY,
    PLAIN_POLICY,
    ScalingSimulation,
)

LOOKS_PER_REPORT = 256

POOLS_BEHIND = {PLAIN_POLICY: FluidPool, HOLDING_POLICY: HeldPool}
"""The routers that a fluid can be played behind."""

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
    run = _FluidRun(settings, demand, written)
    run.play(on_progress)
    return ScalingRun(run.scores(written), run.loop.timeline, time.perf_counter() - began_s)


def run_pieces(
    settings: ScalingSimulation, demand: Demand, written: str, piece_s: float
) -> list[ScalingScores]:
    """Play one scaler through all of it, and judge each piece of `piece_s` by itself: what ended in
    it, and what was paid in it. Its peak is the highest until then. What fits no replica is not
    judged.
    """
    run = _FluidRun(settings, demand, written)
    marks: list[_Mark] = [_Mark()]

    def look() -> None:
        if run.now_s >= len(marks) * piece_s - 1e-6:
            marks.append(run.mark())

    run.play(None, look)
    # The last one with what ended after the last arrival.
    marks[ceil(demand.end_s / piece_s - 1e-6) :] = [run.mark()]
    return [after.since(before, written) for before, after in pairwise(marks)]


class _Mark(NamedTuple):
    """What has come to pass until a moment."""

    ended: float = 0.0
    met: float = 0.0
    tokens: float = 0.0
    met_tokens: float = 0.0
    replica_hours: float = 0.0
    peak: int = 0
    changes: int = 0

    def since(self, before: _Mark, written: str) -> ScalingScores:
        """The judgement of what lies between."""
        ended, tokens = self.ended - before.ended, self.tokens - before.tokens
        return ScalingScores(
            written,
            (self.met - before.met) / ended if ended else 1.0,
            (self.met_tokens - before.met_tokens) / tokens if tokens else 1.0,
            self.replica_hours - before.replica_hours,
            self.peak,
            self.changes - before.changes,
        )


class _FluidRun:
    def __init__(self, settings: ScalingSimulation, demand: Demand, written: str) -> None:
        self.demand = demand
        self.pool = POOLS_BEHIND[settings.policy](settings, demand)
        self.loop = ControlLoop(settings, demand, make_scaler(written, settings, demand))
        self._seen_requests = self._seen_inputs = self._seen_outputs = 0.0
        self._seen_s = 0.0
        self._seen_tick = 0
        self.now_s = 0.0

    def play(
        self, on_progress: OnProgress | None, on_look: Callable[[], None] | None = None
    ) -> None:
        """From the first tick to the last, then on until all has ended."""
        demand, loop, dt = self.demand, self.loop, self.demand.tick_s
        fleet = loop.fleet
        tick = looks = 0
        while tick < demand.ticks:
            until_s = min(loop.next_look_s, fleet.next_ready_s())
            last = min(max(ceil(until_s / dt - 1e-6), tick + 1), demand.ticks)
            self.pool.advance(tick, last, len(fleet.ready))
            tick = last
            now = self.now_s = tick * dt
            fleet.become_ready(now)
            fleet.let_go(now)
            if now >= loop.next_look_s - 1e-6:
                self._look(tick, now)
                looks += 1
                if on_look is not None:
                    on_look()
                if on_progress is not None and looks % LOOKS_PER_REPORT == 0:
                    on_progress(tick / demand.ticks)
        self.pool.finish(len(fleet.ready))

    def scores(self, written: str) -> ScalingScores:
        """The judgement."""
        pool, fleet, demand = self.pool, self.loop.fleet, self.demand
        arrived = pool.totals.requests + demand.too_long
        tokens = pool.tokens + demand.too_long_tokens
        return ScalingScores(
            written,
            pool.met / arrived if arrived else 1.0,
            pool.met_tokens / tokens if tokens else 1.0,
            fleet.replica_hours(self.demand.end_s),
            fleet.peak,
            fleet.changes,
        )

    def mark(self) -> _Mark:
        """What has come to pass until now; at the end, who never ended missed."""
        pool, fleet = self.pool, self.loop.fleet
        is_over = self.now_s >= self.demand.end_s - 1e-6
        return _Mark(
            pool.totals.requests if is_over else pool.totals.judged,
            pool.met,
            pool.tokens,
            pool.met_tokens,
            fleet.replica_hours(self.now_s),
            fleet.peak,
            fleet.changes,
        )

    def _look(self, tick: int, now: float) -> None:
        pool, fleet = self.pool, self.loop.fleet
        reading = self._reading(tick, now)
        missed = sum(pool.misses_of[self._seen_tick : tick])
        self._seen_tick = tick
        before = len(fleet.ready)
        leaving = self.loop.look(reading, missed)
        if leaving:
            drain_s = pool.drain(len(leaving), before, reading.mix)
            fleet.set_gone(leaving, now + drain_s)

    def _reading(self, tick: int, now: float) -> Reading:
        pool, fleet, totals = self.pool, self.loop.fleet, self.pool.totals
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
            *pool.held(),
        )
