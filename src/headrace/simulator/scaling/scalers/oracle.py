"""The oracle: knows the whole future and orders exactly one cold start ahead.

    need(t)  = ceil(margin * load of the step at t / load that a replica bears at its TPOT target)
    kept(t)  = need, with gaps shorter than a cold start filled: giving a replica back and ordering
               it again would cost more than keeping it
    wish(t)  = the highest kept from t to t + cold start

Where it may have none (`min_replicas` 0) and nothing comes, it has none once nobody waits.

The margin is searched for the fewest replica-hours that reach the goal (99 %). No HPA. What nobody
can do: the distance to it is what not knowing costs.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from math import ceil

from headrace.simulator.scaling.actuation import DIRECT
from headrace.simulator.scaling.demand import Demand
from headrace.simulator.scaling.reading import NOBODY, Reading
from headrace.simulator.scaling.settings import ScalingSimulation
from headrace.simulator.scaling.windows import highest, lowest

SMOOTHED_S = 30.0
"""Bursts shorter than this are for the margin."""


class Oracle:
    """See the module."""

    def __init__(self, settings: ScalingSimulation, demand: Demand, *, margin: float = 1.1) -> None:
        self.behaviour = DIRECT
        self.period_s = settings.sync_s
        self._tick_s = demand.tick_s
        ahead = round(settings.cold_start_s / demand.tick_s)
        sync = round(settings.sync_s / demand.tick_s)
        self._wish = plan(_needs(settings, demand, margin), ahead, sync)
        self.starts_with = self._wish[0]

    @property
    def planned(self) -> tuple[int, ...]:
        """What it will wish, by tick; runs of equal ones are equal."""
        return tuple(self._wish)

    def wish(self, reading: Reading) -> int:
        """See the module."""
        planned = self._wish[min(round(reading.now / self._tick_s), len(self._wish) - 1)]
        return planned or int(reading.queue_depth > NOBODY)


def _needs(settings: ScalingSimulation, demand: Demand, margin: float) -> list[int]:
    per_step_s, tpot_s = settings.engine.latency.per_step_s, settings.slo.tpot_s
    window = max(round(SMOOTHED_S / demand.tick_s), 1)
    loads = array("d")
    for tick in range(demand.ticks):
        rate = demand.mix(tick).rate_at(tpot_s, per_step_s)
        loads.append(demand.requests[tick] / demand.tick_s / rate)
    return [
        max(ceil(margin * mean - 1e-9), settings.min_replicas)
        for mean in _moving_mean(loads, window)
    ]


def _moving_mean(values: Sequence[float], window: int) -> list[float]:
    """Means of `window` values around each one."""
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    half, count = window // 2, len(values)
    means: list[float] = []
    for place in range(count):
        low, high = max(place - half, 0), min(place - half + window, count)
        means.append((sums[high] - sums[low]) / (high - low))
    return means


def plan(needs: Sequence[int], ahead: int, sync: int) -> list[int]:
    """The wish of each tick, for a cold start of `ahead` ticks and an order every `sync`."""
    # Within a sync nothing can be ordered: an order provides for all of the sync it arrives in.
    held = highest(needs, 0, sync)
    filled = lowest(highest(held, -ahead, 0), 0, ahead)
    return highest(filled, 0, ahead)


SCALER = Oracle
SWEEP = {"margin": tuple(round(0.8 + 0.025 * step, 3) for step in range(29))}
