"""NVIDIA Dynamo's SLA planner for one pool: a forecast every 3 minutes, latency every 5 seconds.

Throughput, each 180 s: the next interval's requests/s r by ARIMA(1,1,0) on the last intervals,

    floor = ceil(r / requests/s that one engine serves with TTFT and ITL in its SLA)

by its profile at the mean prompt and answer (means only, as its document says). Load, each 5 s,
when all that was ordered is ready:

    all engines above an SLA                                                  +1
    TTFT and ITL as estimated with one engine fewer, * n/(n-1), < 0.8 SLA,
    and the KV caches fit                                                     -1, not below floor

With `strict` 1 it is held to its source where the above is simpler: while anything that was ordered
starts, nothing is, a floor that has risen neither; and fewer engines lengthen only what grows with
their load, a prompt's wait and a step beyond its fixed part:

    (TTFT - own) * n/(n-1) < 0.8 (SLA - own)       own: a prompt that waits for nobody, at that ITL
    step + (ITL - step) * n/(n-1) < 0.8 SLA        step: of an empty batch

Defaults: `sla` 1, a factor on both targets that the planner is given; `strict` 0. It patches
replicas itself: no HPA. Source: Dynamo's planner documents (throughput- and load-based scaling);
of `strict`, its `components/src/dynamo/planner/core/load_scaling.py`.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from math import ceil

from headrace.core.scaling.demand_history import DemandSample
from headrace.simulator.scaling.actuation import DIRECT
from headrace.simulator.scaling.demand import Demand
from headrace.simulator.scaling.mix import RequestMix
from headrace.simulator.scaling.reading import Reading
from headrace.simulator.scaling.settings import ScalingSimulation

THROUGHPUT_S, LOAD_S = 180.0, 5.0
KEPT_INTERVALS = 40
FEWEST_TO_FIT = 4
SPARE = 0.8
FULL_KV = 0.9


class DynamoPlanner:
    """See the module."""

    def __init__(
        self,
        settings: ScalingSimulation,
        demand: Demand,
        *,
        sla: float = 1.0,
        strict: float = 0.0,
    ) -> None:
        self.behaviour = DIRECT
        self.period_s = max(LOAD_S, demand.tick_s)
        self._engine = settings.engine
        self._ttft_s, self._tpot_s = settings.slo.ttft_s * sla, settings.slo.tpot_s * sla
        self._strict = bool(strict)
        self._means: deque[float] = deque(maxlen=KEPT_INTERVALS)
        self._interval: list[float] = []
        self._begin_s = 0.0
        self._floor = 1

    def learn(self, history: Sequence[DemandSample]) -> None:
        """Take the intervals before, as many as it keeps."""
        for place in range(KEPT_INTERVALS, 0, -1):
            begin_s = -place * THROUGHPUT_S
            if begin_s >= history[0].begins_s:
                self._means.append(_came(history, begin_s, begin_s + THROUGHPUT_S) / THROUGHPUT_S)

    def wish(self, reading: Reading) -> int:
        """See the module."""
        self._interval.append(reading.requests_per_s)
        if reading.now - self._begin_s >= THROUGHPUT_S - 1e-9:
            self._means.append(sum(self._interval) / len(self._interval))
            self._interval, self._begin_s = [], reading.now
            capacity = self.engine_rate(reading.mix)
            self._floor = max(ceil(forecast(list(self._means)) / capacity - 1e-9), 1)
        if self._strict and reading.ready != reading.number:
            return reading.number
        number = max(reading.number, self._floor)
        if number == reading.number and reading.ready == reading.number:
            number += self._by_load(reading)
        return number

    def engine_rate(self, mix: RequestMix) -> float:
        """Requests/s at which one engine is at its SLA, all requests of mean lengths."""
        latency, prompt, answer = self._engine.latency, mix.input_tokens, mix.output_tokens
        prefill_s = latency.prefill_s(prompt) - latency.per_step_s
        context = prompt + answer / 2
        work_s = prefill_s + answer * (latency.per_sequence_s + latency.per_kv_token_s * context)
        free = 1.0 - latency.per_step_s / self._tpot_s
        if prefill_s + latency.per_step_s > self._ttft_s or free <= 0.0:
            return 1e-3  # no number of engines meets the SLA
        return free / work_s

    def _by_load(self, reading: Reading) -> int:
        ttft_s, tpot_s, number = reading.ttft_p90_s, reading.tpot_mean_s, reading.number
        if ttft_s > self._ttft_s or tpot_s > self._tpot_s:
            return 1
        if number <= max(self._floor, 1):
            return 0
        more = number / (number - 1)
        if self._strict:
            return -1 if self._fits_fewer(reading, more) else 0
        fits = reading.kv_usage / (number - 1) < FULL_KV
        spare = ttft_s * more < SPARE * self._ttft_s and tpot_s * more < SPARE * self._tpot_s
        return -1 if spare and fits else 0

    def _fits_fewer(self, reading: Reading, more: float) -> bool:
        """Whether one engine fewer would do, each of the others with so many times its load."""
        latency = self._engine.latency
        step_s = latency.per_step_s
        tpot_s = step_s + max(reading.tpot_mean_s - step_s, 0.0) * more
        own_s = latency.prefill_s(reading.mix.input_tokens) + tpot_s - step_s
        queued_s = max(reading.ttft_p90_s - own_s, 0.0) * more
        return (
            reading.kv_usage / (reading.number - 1) < 1.0
            and tpot_s < SPARE * self._tpot_s
            and queued_s < SPARE * (self._ttft_s - own_s)
        )


def _came(history: Sequence[DemandSample], begin_s: float, end_s: float) -> float:
    """Requests between the two, where each sample's came evenly."""
    return sum(
        each.requests
        * max(min(each.begins_s + each.lasts_s, end_s) - max(each.begins_s, begin_s), 0)
        / each.lasts_s
        for each in history
    )


def forecast(means: list[float]) -> float:
    """The next value: last + phi * last change, phi by least squares within 0 to 0.95."""
    changes = [after - before for before, after in itertools.pairwise(means)]
    if len(changes) < FEWEST_TO_FIT:
        return means[-1]
    pairs = list(itertools.pairwise(changes))
    squares = sum(before * before for before, _ in pairs)
    phi = sum(before * after for before, after in pairs) / squares if squares > 0.0 else 0.0
    return max(means[-1] + min(max(phi, 0.0), 0.95) * changes[-1], 0.0)


SCALER = DynamoPlanner
SWEEP = {
    "sla": (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 1.0),
    "strict": (0.0, 1.0),
}
