"""A plain HPA on requests per second and replica.

    replicas = requests/s per replica of (share * capacity), by `hpa_metrics`

`capacity` is what a load test of one replica says: the requests/s at which its mean TPOT is at the
target, at the mean lengths of the whole trace. Default share 0.8. The HPA as it comes; lengths that
change are not seen. `down_window_s` is its stabilisation window.
"""

from __future__ import annotations

from dataclasses import replace

from headrace.simulator.scaling.actuation import MEASURED, Behaviour
from headrace.simulator.scaling.demand import Demand
from headrace.simulator.scaling.hpa_metrics import per_replica
from headrace.simulator.scaling.mix import RequestMix
from headrace.simulator.scaling.reading import Reading
from headrace.simulator.scaling.settings import ScalingSimulation


class HpaRps:
    """See the module."""

    def __init__(
        self,
        settings: ScalingSimulation,
        demand: Demand,
        *,
        share: float = 0.8,
        down_window_s: float = 300.0,
    ) -> None:
        self.behaviour: Behaviour = replace(MEASURED, down_window_s=down_window_s)
        self.period_s = settings.sync_s
        self._target = share * load_tested_rate(settings, demand)

    def wish(self, reading: Reading) -> int:
        """See the module."""
        return max(per_replica(reading.requests_per_s, self._target, reading.number), 1)


def load_tested_rate(settings: ScalingSimulation, demand: Demand) -> float:
    """Requests/s of one replica at the trace's mean lengths, its mean TPOT at the target."""
    count = inputs = outputs = 0.0
    for tick in range(demand.ticks):
        mix, came = demand.mix(tick), demand.requests[tick]
        count += came
        inputs += came * mix.input_tokens
        outputs += came * mix.output_tokens
    mix = RequestMix(settings.engine, demand.spread.points, inputs / count, outputs / count)
    return mix.rate_at(settings.slo.tpot_s, settings.engine.latency.per_step_s)


SCALER = HpaRps
SWEEP = {
    "share": (0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8),
    "down_window_s": (300, 900, 1800),
}
