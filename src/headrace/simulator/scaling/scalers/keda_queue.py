"""The usual KEDA template: queue depth and output tokens, two Prometheus triggers.

    replicas = max(queue depth per replica of queue, output tokens per s per replica of tokens)

Each is an `AverageValue` metric: a sum with a target per replica, by `hpa_metrics`. The HPA as it
comes: tolerance 10 %, 300 s before it scales down. Defaults queue 15, tokens 5,000 as templates
have them. `down_window_s` is the HPA's stabilisation window.
"""

from __future__ import annotations

from dataclasses import replace

from headrace.simulator.scaling.actuation import MEASURED, Behaviour
from headrace.simulator.scaling.hpa_metrics import per_replica
from headrace.simulator.scaling.reading import Reading
from headrace.simulator.scaling.settings import ScalingSimulation


class KedaQueue:
    """See the module."""

    def __init__(
        self,
        settings: ScalingSimulation,
        *,
        queue: float = 15.0,
        tokens: float = 5000.0,
        down_window_s: float = 300.0,
    ) -> None:
        self.behaviour: Behaviour = replace(MEASURED, down_window_s=down_window_s)
        self.period_s = settings.sync_s
        self._queue, self._tokens = queue, tokens

    def wish(self, reading: Reading) -> int:
        """See the module."""
        by_queue = per_replica(reading.queue_depth, self._queue, reading.number)
        by_tokens = per_replica(reading.output_tokens_per_s, self._tokens, reading.number)
        return max(by_queue, by_tokens, 1)


SCALER = KedaQueue
SWEEP = {
    "tokens": (1000, 1300, 1600, 1800, 2000, 2400, 3000, 5000),
    "down_window_s": (300, 1800),
}
