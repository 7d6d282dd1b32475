"""A fixed number of replicas: what the mean load takes, times a margin.

    replicas = ceil(margin * mean of (load / load that a replica bears at its TPOT target))

Default margin 2: enough for the peak of a usual day. It never changes.
"""

from __future__ import annotations

from math import ceil

from headrace.simulator.scaling.actuation import DIRECT
from headrace.simulator.scaling.demand import Demand
from headrace.simulator.scaling.reading import Reading
from headrace.simulator.scaling.settings import ScalingSimulation


class Static:
    """See the module."""

    def __init__(self, settings: ScalingSimulation, demand: Demand, *, margin: float = 2.0) -> None:
        self.behaviour = DIRECT
        self.period_s = settings.sync_s
        self.starts_with = max(ceil(margin * mean_replicas(settings, demand) - 1e-9), 1)

    def wish(self, _reading: Reading) -> int:
        """See the module."""
        return self.starts_with


def mean_replicas(settings: ScalingSimulation, demand: Demand) -> float:
    """Replicas that the demand takes on average, each at its TPOT target."""
    per_step_s, tpot_s = settings.engine.latency.per_step_s, settings.slo.tpot_s
    total = 0.0
    for tick in range(demand.ticks):
        total += demand.requests[tick] / demand.mix(tick).rate_at(tpot_s, per_step_s)
    return total / demand.end_s


SCALER = Static
SWEEP = {"margin": (1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 5.0)}
